/* The plain loops that the lattice Boltzmann kernel's speed is held against: stream and collide (two relaxation times)
 * in one pass over n^2 cells of D2Q9 or n^3 of D3Q19 in float64, with a halo of one cell.
 *
 * For each line on standard input it takes one step and prints the seconds that took and a checksum. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Relax two opposite populations, numbers i and i + 1. */
#define PAIR(i, a, b, w, along)                                                  \
    {                                                                            \
        const double cu = along;                                                 \
        const double e = half_even * (a + b) - w * (rest + cu * (bend * cu));    \
        const double o = half_odd * (a - b) - w * (drift * cu);                  \
        to[(i)*size + x] = a - (e + o);                                          \
        to[((i) + 1) * size + x] = b - (e - o);                                  \
    }
#define FROM(i, shift) from[(i)*size + x - (shift)]

static void d2q9(long n, double even, double odd, const double *restrict f, double *restrict out)
{
    const long line = n + 2, size = line * line;
    const double half_even = even / 2, half_odd = odd / 2, w0 = 4. / 9, w1 = 1. / 9, w2 = 1. / 36;
    for (long y = 1; y <= n; y++) {
        const double *restrict from = f + y * line;
        double *restrict to = out + y * line;
#pragma GCC ivdep
        for (long x = 1; x <= n; x++) {
            const double f0 = FROM(0, 0), f1 = FROM(1, line), f2 = FROM(2, -line), f3 = FROM(3, 1), f4 = FROM(4, -1);
            const double f5 = FROM(5, line + 1), f6 = FROM(6, -line - 1);
            const double f7 = FROM(7, line - 1), f8 = FROM(8, 1 - line);
            const double rho = f0 + f1 + f2 + f3 + f4 + f5 + f6 + f7 + f8, scale = 3 / rho;
            const double u = (f1 - f2 + f5 - f6 + f7 - f8) * scale, v = (f3 - f4 + f5 - f6 - f7 + f8) * scale;
            const double rest = even * rho * (1 - (u * u + v * v) / 6), bend = half_even * rho, drift = odd * rho;
            to[x] = f0 - (even * f0 - w0 * rest);
            PAIR(1, f1, f2, w1, u)
            PAIR(3, f3, f4, w1, v)
            PAIR(5, f5, f6, w2, u + v)
            PAIR(7, f7, f8, w2, u - v)
        }
    }
}

static void d3q19(long n, double even, double odd, const double *restrict f, double *restrict out)
{
    const long line = n + 2, plane = line * line, size = plane * line;
    const double half_even = even / 2, half_odd = odd / 2, w0 = 1. / 3, w1 = 1. / 18, w2 = 1. / 36;
    for (long z = 1; z <= n; z++)
        for (long y = 1; y <= n; y++) {
            const double *restrict from = f + z * plane + y * line;
            double *restrict to = out + z * plane + y * line;
#pragma GCC ivdep
            for (long x = 1; x <= n; x++) {
                const double f0 = FROM(0, 0), f1 = FROM(1, plane), f2 = FROM(2, -plane), f3 = FROM(3, line);
                const double f4 = FROM(4, -line), f5 = FROM(5, 1), f6 = FROM(6, -1), f7 = FROM(7, plane + line);
                const double f8 = FROM(8, -plane - line), f9 = FROM(9, plane - line), f10 = FROM(10, line - plane);
                const double f11 = FROM(11, plane + 1), f12 = FROM(12, -plane - 1), f13 = FROM(13, plane - 1);
                const double f14 = FROM(14, 1 - plane), f15 = FROM(15, line + 1), f16 = FROM(16, -line - 1);
                const double f17 = FROM(17, line - 1), f18 = FROM(18, 1 - line);
                const double rho = f0 + f1 + f2 + f3 + f4 + f5 + f6 + f7 + f8 + f9 + f10 + f11 + f12 + f13 + f14 + f15
                                   + f16 + f17 + f18, scale = 3 / rho;
                const double u = (f1 - f2 + f7 - f8 + f9 - f10 + f11 - f12 + f13 - f14) * scale;
                const double v = (f3 - f4 + f7 - f8 - f9 + f10 + f15 - f16 + f17 - f18) * scale;
                const double w = (f5 - f6 + f11 - f12 - f13 + f14 + f15 - f16 - f17 + f18) * scale;
                const double rest = even * rho * (1 - (u * u + v * v + w * w) / 6);
                const double bend = half_even * rho, drift = odd * rho;
                to[x] = f0 - (even * f0 - w0 * rest);
                PAIR(1, f1, f2, w1, u)
                PAIR(3, f3, f4, w1, v)
                PAIR(5, f5, f6, w1, w)
                PAIR(7, f7, f8, w2, u + v)
                PAIR(9, f9, f10, w2, u - v)
                PAIR(11, f11, f12, w2, u + w)
                PAIR(13, f13, f14, w2, u - w)
                PAIR(15, f15, f16, w2, v + w)
                PAIR(17, f17, f18, w2, v - w)
            }
        }
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

int main(int argc, char **argv)
{
    const long q = argc > 2 ? atol(argv[1]) : 0, n = argc > 2 ? atol(argv[2]) : 0;
    if ((q != 9 && q != 19) || n < 1) {
        fprintf(stderr, "usage: boltzmann 9|19 CELLS_ALONG_A_SIDE\n");
        return 2;
    }
    const long size = (n + 2) * (n + 2) * (q == 9 ? 1 : n + 2);
    double *f = malloc(q * size * sizeof(double)), *out = malloc(q * size * sizeof(double));
    if (!f || !out)
        return 1;
    for (long i = 0; i < q * size; i++)
        f[i] = 1. / q * (1 + 0.01 * rand() / RAND_MAX);
    memcpy(out, f, q * size * sizeof(double));
    while (getchar() != EOF) {
        const double start = now();
        (q == 9 ? d2q9 : d3q19)(n, 1 / 0.7, 1 / 1.4375, f, out);
        const double seconds = now() - start;
        double sum = 0;
        for (long i = 0; i < q * size; i++)
            sum += fabs(out[i]);
        printf("%.9f %.9g\n", seconds, sum);
        fflush(stdout);
        double *last = f;
        f = out;
        out = last;
    }
    return 0;
}
