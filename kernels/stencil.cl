/* Stencils of the heat and the wave equation; brmpi/kernels/stencil.py has the formulas.
 *
 * REAL is double or float. A work item does STRIP cells along the last axis in each of ROWS rows, in 3-D of each of
 * PLANES planes: long strips where an item is a loop that the compiler vectorises (processors), 1 where neighbouring
 * items read neighbouring cells (others). Sizes are those of the interior; first and last are its rows (planes in 3-D)
 * to be done. IN_PLACE says that out holds the step before. */
#pragma OPENCL FP_CONTRACT OFF

#ifndef IN_PLACE
#define IN_PLACE 0
#endif
#ifndef HARMONIC
#define HARMONIC 0
#endif

#define LOOP(x, dimension, tile, begin, end)                                                         \
    for (long x = (long)get_global_id(dimension) * tile + (begin), x##_end = min(x + (tile), (long)(end)); \
         x < x##_end; x++)

inline REAL flux(REAL low, REAL high, REAL k_low, REAL k_high, REAL c)
{
    const REAL both = k_low + k_high;
    return c * (HARMONIC ? k_low * (k_high / (both != 0 ? both : 1)) : both) * (high - low);
}

kernel void heat5(global const REAL *restrict u, global REAL *restrict out, int n, int m, int first, int last, REAL c0,
                  REAL c1)
{
    const long w = m + 2;
    LOOP(i, 1, ROWS, first, last) {
        global const REAL *here = u + (i + 1) * w + 1, *low = here - w, *high = here + w;
        global REAL *restrict new = out + (i + 1) * w + 1;
        LOOP(j, 0, STRIP, 0, m) {
            const REAL two = here[j] + here[j];
            new[j] = here[j] + (c0 * ((low[j] + high[j]) - two) + c1 * ((here[j - 1] + here[j + 1]) - two));
        }
    }
}

kernel void heat7(global const REAL *restrict u, global REAL *restrict out, int n, int m, int first, int last, REAL c0,
                  REAL c1, REAL c2)
{
    const long w = m + 2, p = w * (n + 2);
    LOOP(h, 2, PLANES, first, last)
    LOOP(i, 1, ROWS, 0, n) {
        const long at = (h + 1) * p + (i + 1) * w + 1;
        global const REAL *here = u + at, *low = here - w, *high = here + w, *below = here - p, *above = here + p;
        global REAL *restrict new = out + at;
        LOOP(j, 0, STRIP, 0, m) {
            const REAL two = here[j] + here[j];
            new[j] = here[j] + ((c0 * ((below[j] + above[j]) - two) + c1 * ((low[j] + high[j]) - two))
                                + c2 * ((here[j - 1] + here[j + 1]) - two));
        }
    }
}

kernel void heat9(global const REAL *restrict u, global REAL *restrict out, int n, int m, int first, int last, REAL c)
{
    const long w = m + 2;
    LOOP(i, 1, ROWS, first, last) {
        global const REAL *here = u + (i + 1) * w + 1, *low = here - w, *high = here + w;
        global REAL *restrict new = out + (i + 1) * w + 1;
        LOOP(j, 0, STRIP, 0, m) {
            const REAL near = (low[j] + high[j]) + (here[j - 1] + here[j + 1]);
            const REAL corners = (low[j - 1] + low[j + 1]) + (high[j - 1] + high[j + 1]);
            new[j] = here[j] + c * ((4 * near + corners) - 20 * here[j]);
        }
    }
}

kernel void conduct5(global const REAL *restrict u, global REAL *restrict out, global const REAL *restrict k, int n,
                     int m, int first, int last, REAL c0, REAL c1)
{
    const long w = m + 2;
    LOOP(i, 1, ROWS, first, last) {
        const long at = (i + 1) * w + 1;
        global const REAL *a = u + at, *b = k + at;
        global REAL *restrict new = out + at;
        LOOP(j, 0, STRIP, 0, m) {
            const REAL x = a[j], kx = b[j];
            new[j] = x + ((flux(x, a[j + w], kx, b[j + w], c0) - flux(a[j - w], x, b[j - w], kx, c0))
                          + (flux(x, a[j + 1], kx, b[j + 1], c1) - flux(a[j - 1], x, b[j - 1], kx, c1)));
        }
    }
}

kernel void conduct7(global const REAL *restrict u, global REAL *restrict out, global const REAL *restrict k, int n,
                     int m, int first, int last, REAL c0, REAL c1, REAL c2)
{
    const long w = m + 2, p = w * (n + 2);
    LOOP(h, 2, PLANES, first, last)
    LOOP(i, 1, ROWS, 0, n) {
        const long at = (h + 1) * p + (i + 1) * w + 1;
        global const REAL *a = u + at, *b = k + at;
        global REAL *restrict new = out + at;
        LOOP(j, 0, STRIP, 0, m) {
            const REAL x = a[j], kx = b[j];
            new[j] = x + (((flux(x, a[j + p], kx, b[j + p], c0) - flux(a[j - p], x, b[j - p], kx, c0))
                           + (flux(x, a[j + w], kx, b[j + w], c1) - flux(a[j - w], x, b[j - w], kx, c1)))
                          + (flux(x, a[j + 1], kx, b[j + 1], c2) - flux(a[j - 1], x, b[j - 1], kx, c2)));
        }
    }
}

/* 2 u - before + c2 * laplacian; c2 is an array, or where step is 0 the number `level` */
#define LEAP(laplacian)                                                                                                \
    do {                                                                                                               \
        if (step) {                                                                                                    \
            LOOP(j, 0, STRIP, 0, m) new[j] = ((here[j] + here[j]) - old[j]) + c[j] * (laplacian);                      \
        } else {                                                                                                       \
            LOOP(j, 0, STRIP, 0, m) new[j] = ((here[j] + here[j]) - old[j]) + level * (laplacian);                     \
        }                                                                                                              \
    } while (0)

#if IN_PLACE
#define OLD(at) const global REAL *old = new
#else
#define OLD(at) const global REAL *old = before + (at)
#endif

#define SUM2(d) ((here[j - (d)*w] + here[j + (d)*w]) + (here[j - (d)] + here[j + (d)]))
#define SUM3(d) (((here[j - (d)*p] + here[j + (d)*p]) + (here[j - (d)*w] + here[j + (d)*w])) \
                 + (here[j - (d)] + here[j + (d)]))

#define WAVE_ARGUMENTS                                                                                                 \
    global const REAL *restrict u, global const REAL *restrict before, global REAL *restrict out,                      \
        global const REAL *restrict c2, int step, REAL level, int n, int m, int first, int last

kernel void wave5(WAVE_ARGUMENTS)
{
    const long w = m + 2;
    LOOP(i, 1, ROWS, first, last) {
        const long at = (i + 1) * w + 1;
        global const REAL *here = u + at, *c = c2 + i * m * step;
        global REAL *restrict new = out + at;
        OLD(at);
        LEAP(SUM2(1) - 4 * here[j]);
    }
}

kernel void wave9(WAVE_ARGUMENTS, REAL w1, REAL w2)
{
    const long w = m + 4;
    LOOP(i, 1, ROWS, first, last) {
        const long at = (i + 2) * w + 2;
        global const REAL *here = u + at, *c = c2 + i * m * step;
        global REAL *restrict new = out + at;
        OLD(at);
        LEAP(w1 * (SUM2(1) - 4 * here[j]) - w2 * (SUM2(2) - 4 * here[j]));
    }
}

kernel void wave7(WAVE_ARGUMENTS)
{
    const long w = m + 2, p = w * (n + 2);
    LOOP(h, 2, PLANES, first, last)
    LOOP(i, 1, ROWS, 0, n) {
        const long at = (h + 1) * p + (i + 1) * w + 1;
        global const REAL *here = u + at, *c = c2 + (h * n + i) * m * step;
        global REAL *restrict new = out + at;
        OLD(at);
        LEAP(SUM3(1) - 6 * here[j]);
    }
}

kernel void wave13(WAVE_ARGUMENTS, REAL w1, REAL w2)
{
    const long w = m + 4, p = w * (n + 4);
    LOOP(h, 2, PLANES, first, last)
    LOOP(i, 1, ROWS, 0, n) {
        const long at = (h + 2) * p + (i + 2) * w + 2;
        global const REAL *here = u + at, *c = c2 + (h * n + i) * m * step;
        global REAL *restrict new = out + at;
        OLD(at);
        LEAP(w1 * (SUM3(1) - 6 * here[j]) - w2 * (SUM3(2) - 6 * here[j]));
    }
}
