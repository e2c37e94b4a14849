/* Philox4x64-10, a counter-based random number generator: see brmpi/kernels/philox.py, which defines it.
 *
 * BLOCKS (1, 4, 8 or 16) blocks are made side by side: one by products of 64 bits, which a processor has instructions
 * for, several by products of 32 bits in vectors. Where CARRY is 1 the counter's lowest word may wrap around on the
 * way; BLOCKS is 1 then. */
#define JOIN(a, b) a##b
#define OF(type, width) JOIN(type, width)
#define INLINE static inline __attribute__((always_inline)) /* a call would take as long as the work */

#if BLOCKS == 1
#define counters ulong
#define NEXT 0
#elif BLOCKS == 4
#define counters ulong4
#define NEXT (ulong4)(0, 1, 2, 3)
#elif BLOCKS == 8
#define counters ulong8
#define NEXT (ulong8)(0, 1, 2, 3, 4, 5, 6, 7)
#else
#define counters ulong16
#define NEXT (ulong16)(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
#endif

/* Both halves of the product of a number and counters. */
INLINE void product(ulong m, counters x, counters *high, counters *low)
{
#if BLOCKS > 1
    const ulong m0 = m & 0xFFFFFFFFUL, m1 = m >> 32;
    const counters x0 = x & 0xFFFFFFFFUL, x1 = x >> 32, lowest = x0 * m0;
    const counters one = x1 * m0 + (lowest >> 32), two = x0 * m1 + (one & 0xFFFFFFFFUL); /* neither passes 2**64 */
    *high = x1 * m1 + (one >> 32) + (two >> 32);
    *low = two << 32 | (lowest & 0xFFFFFFFFUL);
#elif defined(__SIZEOF_INT128__) /* processors: one instruction for both */
    const unsigned __int128 whole = (unsigned __int128)m * x;
    *high = whole >> 64;
    *low = whole;
#else
    *high = mul_hi(m, x);
    *low = m * x;
#endif
}

/* The keys of the ten rounds. */
INLINE void schedule(ulong2 key, ulong *keys)
{
    for (int round = 0; round < 10; round++) {
        keys[2 * round] = key.x + round * 0x9E3779B97F4A7C15UL;
        keys[2 * round + 1] = key.y + round * 0xBB67AE8584CAA73BUL;
    }
}

#if BLOCKS > 1
#if BLOCKS == 4
#define PART 4
#define TWICE 8
#else
#define PART 8
#define TWICE 16
#endif

/* The words of PART blocks, from lanes to their order. */
INLINE void in_order(OF(ulong, PART) c0, OF(ulong, PART) c1, OF(ulong, PART) c2, OF(ulong, PART) c3, ulong *out)
{
    OF(ulong, TWICE) even, odd, line;
    even.even = c0;
    even.odd = c2;
    odd.even = c1;
    odd.odd = c3;
    line.even = even.lo;
    line.odd = odd.lo;
    OF(vstore, TWICE)(line, 0, out);
    line.even = even.hi;
    line.odd = odd.hi;
    OF(vstore, TWICE)(line, 1, out);
}
#endif

/* The 4 BLOCKS words of the blocks from some blocks after a counter on. */
INLINE void make(const ulong *keys, ulong4 start, ulong after, ulong *out)
{
    counters c0 = start.x + after + NEXT, c1 = start.y, c2 = start.z, c3 = start.w;
#if CARRY
    if (c0 < after && ++c1 == 0 && ++c2 == 0)
        ++c3;
#endif
#pragma unroll
    for (int round = 0; round < 10; round++) {
        counters high0, low0, high1, low1;
        product(0xD2E7470EE14C6C93UL, c0, &high0, &low0);
        product(0xCA5A826395121157UL, c2, &high1, &low1);
        c0 = high1 ^ c1 ^ keys[2 * round];
        c1 = low1;
        c2 = high0 ^ c3 ^ keys[2 * round + 1];
        c3 = low0;
    }
#if BLOCKS == 1
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
#elif BLOCKS == 16
    in_order(c0.lo, c1.lo, c2.lo, c3.lo, out);
    in_order(c0.hi, c1.hi, c2.hi, c3.hi, out + 4 * PART);
#else
    in_order(c0, c1, c2, c3, out);
#endif
}
