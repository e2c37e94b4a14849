/* Stream and collide once: one work item for each cell, the contiguous axis first, so that items of a group are the
 * lanes of a vector. In two dimensions the middle axis has one cell and no halo.
 *
 * Macros: REAL is float or double, and FLOAT64 1 for the latter; Q is 9 or 19; WALLS is 1 where solid is looked at;
 * GROUP is the width of a group, and no row is shorter; ARRANGEMENT is 0 from array to array, 1 in place with
 * populations at home, 2 ahead. */
#if FLOAT64
#pragma OPENCL EXTENSION cl_khr_fp64 : enable
#endif
#pragma OPENCL FP_CONTRACT OFF

/* PLACE says where population i of the velocity (cz, cy, cx), whose opposite is number back, is read, where it is after
 * a bounce, and where its opposite goes. */
#define THERE(i, cz, cy, cx) ((i)*size + here - ((cz)*height + (cy)) * width - (cx))
#if ARRANGEMENT == 0 /* from array to array */
#define RESTRICT restrict
#define PLACE(i, back, cz, cy, cx)                                                                   \
    const long at##i = THERE(i, cz, cy, cx), bounce##i = back * size + here, to##back = bounce##i;
#define FRESH 1
#else
#define RESTRICT
#if ARRANGEMENT == 1 /* in place, from home to ahead */
#define PLACE(i, back, cz, cy, cx)                                                                   \
    const long at##i = THERE(i, cz, cy, cx), bounce##i = back * size + here, to##back = at##i;
#else /* in place, from ahead to home */
#define PLACE(i, back, cz, cy, cx)                                                                   \
    const long at##i = back * size + here, bounce##i = THERE(i, cz, cy, cx), to##back = at##i;
#endif
#define FRESH (x > (long)get_group_id(0) * GROUP) /* or another group computes this cell */
#endif
#if WALLS
#define PULL(i, back, cz, cy, cx)                                                                    \
    PLACE(i, back, cz, cy, cx)                                                                       \
    const int wall##i = solid[THERE(0, cz, cy, cx)];                                                 \
    const REAL f##i = wall##i ? f[bounce##i] + table[i * 256 + wall##i] : f[at##i];
#else
#define PULL(i, back, cz, cy, cx)                                                                    \
    PLACE(i, back, cz, cy, cx)                                                                       \
    const REAL f##i = f[at##i];
#endif
#if ARRANGEMENT
#define PUT(place, value)                                                                            \
    if (mine) out[place] = (value);
#elif WALLS
#define PUT(place, value) out[place] = mine ? (value) : f[place];
#else
#define PUT(place, value) out[place] = (value);
#endif
#define PULLS(i, j, cz, cy, cx) PULL(i, j, cz, cy, cx) PULL(j, i, -(cz), -(cy), -(cx))

/* Relax the opposite populations i and j, pair number p of P. */
#define PAIR(i, j, p, weight, velocity)                                                              \
    {                                                                                                \
        const REAL along = velocity;                                                                 \
        const REAL e = keep_even * (f##i + f##j) + weight * (rest + along * (bend * along + k[FIRST + p]));   \
        const REAL o = keep_odd * (f##i - f##j) + weight * (drift * along + k[FIRST + (Q - 1) / 2 + p]);      \
        PUT(to##i, e + o)                                                                            \
        PUT(to##j, e - o)                                                                            \
    }

__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1)))
void boltzmann(__global const REAL *RESTRICT f, __global REAL *RESTRICT out, __constant REAL *restrict k,
               __global const uchar *restrict solid, __global const REAL *restrict table, const long depth,
               const long height, const long width, const long first)
{
    /* The last group steps back to end where the row does, and computes some cells a second time: a condition on x
     * would halve the speed. */
    const long size = depth * height * width;
    const long x = min((long)get_group_id(0) * GROUP, width - 2 - GROUP) + (long)get_local_id(0) + 1;
    const REAL even = k[0], odd = k[1], half_even = k[2], keep_even = k[3], keep_odd = k[4];
    const REAL w0 = k[5], w1 = k[6], w2 = k[7];
#if Q == 9
    const long here = (get_global_id(2) + first + 1) * width + x;
#define FIRST 14
    const REAL f0 = f[here];
    PULLS(1, 2, 1, 0, 0) PULLS(3, 4, 0, 0, 1) PULLS(5, 6, 1, 0, 1) PULLS(7, 8, 1, 0, -1)
    const REAL d3 = f5 - f6, d4 = f7 - f8;
    const REAL rho = f0 + (f1 + f2) + (f3 + f4) + (f5 + f6) + (f7 + f8), scale = k[8] / rho;
    const REAL u = ((f1 - f2) + d3 + d4 + k[10]) * scale, v = ((f3 - f4) + d3 - d4 + k[11]) * scale;
    const REAL rest = even * rho * (1 - k[9] * (u * u + v * v)) - (u * k[12] + v * k[13]);
#else
    const long here = ((get_global_id(2) + first + 1) * height + get_global_id(1) + 1) * width + x;
#define FIRST 16
    const REAL f0 = f[here];
    PULLS(1, 2, 1, 0, 0) PULLS(3, 4, 0, 1, 0) PULLS(5, 6, 0, 0, 1) PULLS(7, 8, 1, 1, 0) PULLS(9, 10, 1, -1, 0)
    PULLS(11, 12, 1, 0, 1) PULLS(13, 14, 1, 0, -1) PULLS(15, 16, 0, 1, 1) PULLS(17, 18, 0, 1, -1)
    const REAL d4 = f7 - f8, d5 = f9 - f10, d6 = f11 - f12, d7 = f13 - f14, d8 = f15 - f16, d9 = f17 - f18;
    const REAL rho = f0 + (f1 + f2) + (f3 + f4) + (f5 + f6) + (f7 + f8) + (f9 + f10) + (f11 + f12) + (f13 + f14)
                     + (f15 + f16) + (f17 + f18), scale = k[8] / rho;
    const REAL u = ((f1 - f2) + d4 + d5 + d6 + d7 + k[10]) * scale, v = ((f3 - f4) + d4 - d5 + d8 + d9 + k[11]) * scale;
    const REAL w = ((f5 - f6) + d6 - d7 + d8 - d9 + k[12]) * scale;
    const REAL rest = even * rho * (1 - k[9] * (u * u + v * v + w * w)) - (u * k[13] + v * k[14] + w * k[15]);
#endif
    const REAL bend = half_even * rho, drift = odd * rho;
#if WALLS
    const int mine = FRESH && !solid[here];
#elif ARRANGEMENT
    const int mine = FRESH;
#endif
    PUT(here, f0 - (even * f0 - w0 * rest))
#if Q == 9
    PAIR(1, 2, 0, w1, u) PAIR(3, 4, 1, w1, v) PAIR(5, 6, 2, w2, u + v) PAIR(7, 8, 3, w2, u - v)
#else
    PAIR(1, 2, 0, w1, u) PAIR(3, 4, 1, w1, v) PAIR(5, 6, 2, w1, w)
    PAIR(7, 8, 3, w2, u + v) PAIR(9, 10, 4, w2, u - v) PAIR(11, 12, 5, w2, u + w)
    PAIR(13, 14, 6, w2, u - w) PAIR(15, 16, 7, w2, v + w) PAIR(17, 18, 8, w2, v - w)
#endif
}
