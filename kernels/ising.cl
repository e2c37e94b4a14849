/* Metropolis updates of one colour of a checkerboard: see brmpi/kernels/ising.py, which defines them.
 *
 * A work item makes STRETCH Philox blocks, a multiple of BLOCKS, and updates their up to 8 STRETCH sites, which are
 * every second of 16 STRETCH columns: 16 at a time, and the last ones singly. */
#include "philox4x64.cl"

#ifdef __ENDIAN_LITTLE__
#define FIRST(x) (x)          /* of two bytes, beneath anything */
#define TURN 0xFE             /* 1 ^ -2 = -1 and back, in the first of two bytes */
#define HALVES(x) as_uint8(x) /* of words, the lower one first */
#else
#define FIRST(x) ((x) >> (short16)8)
#define TURN 0xFE00
#define HALVES(x) as_uint8(rotate(x, (ulong4)32))
#endif
#define LIMIT(k, m4, m2, none, p2, p4) ((k) == 0 ? none : (k) == 2 ? p2 : (k) == 4 ? p4 : (k) == -2 ? m2 : m4)

/* Sixteen pairs of spins from anywhere on: one of this colour and one of the other. */
typedef struct __attribute__((packed)) {
    short16 both;
} pairs;

INLINE short16 load(global const char *spin)
{
    return FIRST(((global const pairs *)spin)->both);
}

/* Sites that are every second from a spin on; those between are written as they are. */
INLINE void update(global char *restrict spin, long stride, const uint *random, int number, int m4, int m2, int none,
                   int p2, int p4)
{
    int p = 0;
    for (; p + 16 <= number; p += 16, spin += 32) {
        const short16 around = load(spin - stride) + load(spin + stride) + load(spin - 1) + load(spin + 1);
        const short16 s = load(spin) << (short16)8 >> (short16)8, sum = around << (short16)8 >> (short16)8;
        const int16 k = convert_int16(s * sum);
        const int16 limit = LIMIT(k, (int16)m4, (int16)m2, (int16)none, (int16)p2, (int16)p4);
        const int16 turns = as_int16(vload16(0, random + p) >> 1) <= limit; /* -1 is true */
        ((global pairs *)spin)->both ^= convert_short16(turns) & (short16)TURN;
    }
    for (; p < number; p++, spin += 2) {
        const int s = spin[0], k = s * (spin[-stride] + spin[stride] + spin[-1] + spin[1]);
        spin[0] = (int)(random[p] >> 1) <= LIMIT(k, m4, m2, none, p2, p4) ? -s : s;
    }
}

/* first and end are a row's sites of the colour, counted from global column 0; odd is their column's parity. */
kernel void half_sweep(global char *restrict spins, int rows, long columns, ulong2 key, ulong row, ulong time,
                       long column, int odd, long2 first, long2 end, int m4, int m2, int none, int p2, int p4)
{
    const long stride = columns + 2;
    const int i = get_global_id(1), second = i & 1;
    const long begin = second ? first.y : first.x, stop = second ? end.y : end.x;
    const long block = begin / 8 + (long)get_global_id(0) * STRETCH;
    if (i >= rows || 8 * block >= stop)
        return;
    ulong keys[20];
    uint random[8 * STRETCH];
    const int from = max(begin - 8 * block, 0L), to = min(stop - 8 * block, 8L * STRETCH);
    schedule(key, keys);
    for (int n = 0; 8 * n < to; n += BLOCKS) {
        ulong words[4 * BLOCKS];
        make(keys, (ulong4)(block, row + i, time, 0), n, words);
        for (int w = 0; w < BLOCKS; w++)
            vstore8(HALVES(vload4(w, words)), n + w, random);
    }
    update(spins + (i + 1) * stride + 1 + (16 * block + ((odd + i) & 1) - column) + 2 * from, stride, random + from,
           to - from, m4, m2, none, p2, p4);
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
    for (long j = 0; j < columns;) {
        const int length = min(columns - j, 1L << 28); /* whose sums an int holds */
        int some_bonds = 0, some = 0;
        for (int k = 0; k < length; k++) {
            some_bonds -= here[j + k] * (here[j + k + 1] + down[j + k]);
            some += here[j + k];
        }
        bonds += some_bonds;
        all += some;
        j += length;
    }
    out[2 * i] = bonds;
    out[2 * i + 1] = all;
}
