/* Metropolis updates of one colour of a checkerboard: see brmpi/kernels/ising.py, which defines them.
 *
 * A work item makes one Philox block and updates its up to eight sites, which are every second of sixteen columns. */

#ifdef __SIZEOF_INT128__ /* processors: one instruction for both halves of a product */
#define PRODUCT(high, low, a, b)                                         \
    const unsigned __int128 whole_##high = (unsigned __int128)(a) * (b); \
    const ulong high = whole_##high >> 64, low = whole_##high;
#else
#define PRODUCT(high, low, a, b) const ulong high = mul_hi(a, b), low = (a) * (b);
#endif

ulong4 philox(ulong2 key, ulong4 counter)
{
    ulong k0 = key.x, k1 = key.y, c0 = counter.x, c1 = counter.y, c2 = counter.z, c3 = counter.w;
#pragma unroll
    for (int round = 0; round < 10; round++) {
        PRODUCT(high0, low0, 0xD2E7470EE14C6C93UL, c0)
        PRODUCT(high1, low1, 0xCA5A826395121157UL, c2)
        c0 = high1 ^ c1 ^ k0;
        c1 = low1;
        c2 = high0 ^ c3 ^ k1;
        c3 = low0;
        k0 += 0x9E3779B97F4A7C15UL;
        k1 += 0xBB67AE8584CAA73BUL;
    }
    return (ulong4)(c0, c1, c2, c3);
}

void site(global char *restrict spin, long stride, uint half_word, int m4, int m2, int none, int p2, int p4)
{
    const int s = spin[0];
    const int k = s * (spin[-stride] + spin[stride] + spin[-1] + spin[1]);
    const int limit = k == 0 ? none : k == 2 ? p2 : k == 4 ? p4 : k == -2 ? m2 : m4;
    spin[0] = (int)(half_word >> 1) <= limit ? -s : s;
}

/* first and end are a row's sites of the colour, counted from global column 0; odd is their column's parity. */
kernel void half_sweep(global char *restrict spins, int rows, long columns, ulong2 key, ulong row, ulong time,
                       long column, int odd, long2 first, long2 end, int m4, int m2, int none, int p2, int p4)
{
    const long stride = columns + 2;
    const int i = get_global_id(1), second = i & 1;
    const long begin = second ? first.y : first.x, stop = second ? end.y : end.x;
    const long block = begin / 8 + get_global_id(0);
    if (i >= rows || 8 * block >= stop)
        return;
    const ulong4 w = philox(key, (ulong4)(block, row + i, time, 0));
    const uint each[8] = {w.x, w.x >> 32, w.y, w.y >> 32, w.z, w.z >> 32, w.w, w.w >> 32};
    global char *spin = spins + (i + 1) * stride + 1 + (16 * block + ((odd + i) & 1) - column);
    if (8 * block >= begin && 8 * block + 8 <= stop)
        for (int p = 0; p < 8; p++)
            site(spin + 2 * p, stride, each[p], m4, m2, none, p2, p4);
    else
        for (int p = 0; p < 8; p++)
            if (8 * block + p >= begin && 8 * block + p < stop)
                site(spin + 2 * p, stride, each[p], m4, m2, none, p2, p4);
}

/* Each row's energy and magnetisation. */
kernel void sums(global const char *restrict spins, int rows, long columns, global long *restrict out)
{
    const long stride = columns + 2;
    const int i = get_global_id(0);
    if (i >= rows)
        return;
    global const char *here = spins + (i + 1) * stride + 1, *down = here + stride;
    long bonds = 0, all = 0;
    for (long j = 0; j < columns; j++) {
        bonds -= here[j] * (here[j + 1] + down[j]);
        all += here[j];
    }
    out[2 * i] = bonds;
    out[2 * i + 1] = all;
}
