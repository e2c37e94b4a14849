/* The plain loop that the gravity kernel's speed is held against: all pairs of n bodies in float64.
 *
 * For each line on standard input it computes all accelerations once and prints the seconds that took and a checksum. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static void gravity(long n, const double *restrict x, const double *restrict y, const double *restrict z,
                    const double *restrict mass, double eps2, double *restrict ax, double *restrict ay,
                    double *restrict az)
{
    for (long i = 0; i < n; i++) {
        const double xi = x[i], yi = y[i], zi = z[i];
        double sx = 0, sy = 0, sz = 0;
        for (long j = 0; j < n; j++) {
            const double dx = x[j] - xi, dy = y[j] - yi, dz = z[j] - zi;
            const double w = 1 / sqrt(dx * dx + dy * dy + dz * dz + eps2);
            const double pull = mass[j] * w * w * w;
            sx += pull * dx;
            sy += pull * dy;
            sz += pull * dz;
        }
        ax[i] = sx;
        ay[i] = sy;
        az[i] = sz;
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
    const long n = argc > 1 ? atol(argv[1]) : 0;
    double *rows[7];
    if (n < 1) {
        fprintf(stderr, "usage: gravity BODIES\n");
        return 2;
    }
    for (int k = 0; k < 7; k++)
        if (!(rows[k] = malloc(n * sizeof(double))))
            return 1;
    for (long i = 0; i < n; i++) {
        for (int k = 0; k < 3; k++)
            rows[k][i] = (double)rand() / RAND_MAX;
        rows[3][i] = 1.0 / n;
    }
    while (getchar() != EOF) {
        const double start = now();
        gravity(n, rows[0], rows[1], rows[2], rows[3], 1e-4, rows[4], rows[5], rows[6]);
        const double seconds = now() - start;
        double sum = 0;
        for (long i = 0; i < n; i++)
            sum += fabs(rows[4][i]) + fabs(rows[5][i]) + fabs(rows[6][i]);
        printf("%.9f %.9g\n", seconds, sum);
        fflush(stdout);
    }
    return 0;
}
