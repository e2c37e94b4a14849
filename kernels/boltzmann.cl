/* Stream and collide once: one work item for each cell, the contiguous axis first, so that items of a group are the
 * lanes of a vector. In two dimensions the middle axis has one cell and no halo.
 *
 * Macros: REAL is float or double, and FLOAT64 1 for the latter; Q is 9 or 19; WALLS is 1 where solid is looked at;
 * GROUP is the width of a group, and no row is shorter. */
#if FLOAT64
#pragma OPENCL EXTENSION cl_khr_fp64 : enable
#endif
#pragma OPENCL FP_CONTRACT OFF

/* Population i of the velocity (cz, cy, cx), whose opposite is number back. */
#if WALLS
#define PULL(i, back, cz, cy, cx)                                                                    \
    const int wall##i = solid[here - ((cz)*height + (cy)) * width - (cx)];                           \
    const REAL f##i = wall##i ? f[back * size + here] + table[i * 256 + wall##i]                     \
                              : f[i * size + here - ((cz)*height + (cy)) * width - (cx)];
#define PUT(i, value) out[(i)*size + here] = own ? f[(i)*size + here] : (value);
#else
#define PULL(i, back, cz, cy, cx) const REAL f##i = f[i * size + here - ((cz)*height + (cy)) * width - (cx)];
#define PUT(i, value) out[(i)*size + here] = (value);
#endif
#define PULLS(i, j, cz, cy, cx) PULL(i, j, cz, cy, cx) PULL(j, i, -(cz), -(cy), -(cx))

/* Relax the opposite populations i and j, pair number p of P. */
#define PAIR(i, j, p, weight, velocity)                                                              \
    {                                                                                                \
        const REAL along = velocity;                                                                 \
        const REAL e = half_even * (f##i + f##j) - weight * (rest + along * (bend * along + k[FIRST + p]));   \
        const REAL o = half_odd * (f##i - f##j) - weight * (drift * along + k[FIRST + (Q - 1) / 2 + p]);      \
        PUT(i, f##i - (e + o))                                                                       \
        PUT(j, f##j - (e - o))                                                                       \
    }

__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1)))
void boltzmann(__global const REAL *restrict f, __global REAL *restrict out, __constant REAL *restrict k,
               __global const uchar *restrict solid, __global const REAL *restrict table, const long depth,
               const long height, const long width, const long first)
{
    /* The last group steps back to end where the row does, and computes some cells a second time: a condition on x
     * would halve the speed. */
    const long size = depth * height * width;
    const long x = min((long)get_group_id(0) * GROUP, width - 2 - GROUP) + (long)get_local_id(0) + 1;
    const REAL even = k[0], odd = k[1], half_even = k[2], half_odd = k[3], w0 = k[4], w1 = k[5], w2 = k[6];
#if Q == 9
    const long here = (get_global_id(2) + first + 1) * width + x;
#define FIRST 13
    const REAL f0 = f[here];
    PULLS(1, 2, 1, 0, 0) PULLS(3, 4, 0, 0, 1) PULLS(5, 6, 1, 0, 1) PULLS(7, 8, 1, 0, -1)
    const REAL d3 = f5 - f6, d4 = f7 - f8;
    const REAL rho = f0 + (f1 + f2) + (f3 + f4) + (f5 + f6) + (f7 + f8), scale = k[7] / rho;
    const REAL u = ((f1 - f2) + d3 + d4 + k[9]) * scale, v = ((f3 - f4) + d3 - d4 + k[10]) * scale;
    const REAL rest = even * rho * (1 - k[8] * (u * u + v * v)) - (u * k[11] + v * k[12]);
#else
    const long here = ((get_global_id(2) + first + 1) * height + get_global_id(1) + 1) * width + x;
#define FIRST 15
    const REAL f0 = f[here];
    PULLS(1, 2, 1, 0, 0) PULLS(3, 4, 0, 1, 0) PULLS(5, 6, 0, 0, 1) PULLS(7, 8, 1, 1, 0) PULLS(9, 10, 1, -1, 0)
    PULLS(11, 12, 1, 0, 1) PULLS(13, 14, 1, 0, -1) PULLS(15, 16, 0, 1, 1) PULLS(17, 18, 0, 1, -1)
    const REAL d4 = f7 - f8, d5 = f9 - f10, d6 = f11 - f12, d7 = f13 - f14, d8 = f15 - f16, d9 = f17 - f18;
    const REAL rho = f0 + (f1 + f2) + (f3 + f4) + (f5 + f6) + (f7 + f8) + (f9 + f10) + (f11 + f12) + (f13 + f14)
                     + (f15 + f16) + (f17 + f18), scale = k[7] / rho;
    const REAL u = ((f1 - f2) + d4 + d5 + d6 + d7 + k[9]) * scale, v = ((f3 - f4) + d4 - d5 + d8 + d9 + k[10]) * scale;
    const REAL w = ((f5 - f6) + d6 - d7 + d8 - d9 + k[11]) * scale;
    const REAL rest = even * rho * (1 - k[8] * (u * u + v * v + w * w)) - (u * k[12] + v * k[13] + w * k[14]);
#endif
    const REAL bend = half_even * rho, drift = odd * rho;
#if WALLS
    const int own = solid[here];
#endif
    PUT(0, f0 - (even * f0 - w0 * rest))
#if Q == 9
    PAIR(1, 2, 0, w1, u) PAIR(3, 4, 1, w1, v) PAIR(5, 6, 2, w2, u + v) PAIR(7, 8, 3, w2, u - v)
#else
    PAIR(1, 2, 0, w1, u) PAIR(3, 4, 1, w1, v) PAIR(5, 6, 2, w1, w)
    PAIR(7, 8, 3, w2, u + v) PAIR(9, 10, 4, w2, u - v) PAIR(11, 12, 5, w2, u + w)
    PAIR(13, 14, 6, w2, u - w) PAIR(15, 16, 7, w2, v + w) PAIR(17, 18, 8, w2, v - w)
#endif
}
