/* The plain loop that the matrix product's speed is held against: C = A B of n * n matrices in float64, row by row.
 *
 * For each line on standard input it makes the product once and prints the seconds that took and a checksum. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* In blocks of rows of B that stay in the cache; four of them at a time, so that C is read and written less. */
static void product(long n, const double *restrict a, const double *restrict b, double *restrict c)
{
    memset(c, 0, n * n * sizeof(double));
    for (long first = 0; first < n; first += 64) {
        const long end = first + 64 < n ? first + 64 : n;
        for (long i = 0; i < n; i++) {
            double *restrict row = c + i * n;
            long l = first;
            for (; l + 4 <= end; l += 4) {
                const double a0 = a[i * n + l], a1 = a[i * n + l + 1], a2 = a[i * n + l + 2], a3 = a[i * n + l + 3];
                const double *restrict b0 = b + l * n, *restrict b1 = b0 + n, *restrict b2 = b1 + n;
                const double *restrict b3 = b2 + n;
                for (long j = 0; j < n; j++)
                    row[j] += a0 * b0[j] + a1 * b1[j] + a2 * b2[j] + a3 * b3[j];
            }
            for (; l < end; l++)
                for (long j = 0; j < n; j++)
                    row[j] += a[i * n + l] * b[l * n + j];
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
    const long n = argc > 1 ? atol(argv[1]) : 0;
    double *rows[3];
    if (n < 1) {
        fprintf(stderr, "usage: product SIZE\n");
        return 2;
    }
    for (int k = 0; k < 3; k++)
        if (!(rows[k] = malloc(n * n * sizeof(double))))
            return 1;
    for (long i = 0; i < n * n; i++)
        for (int k = 0; k < 3; k++)
            rows[k][i] = (double)rand() / RAND_MAX;
    while (getchar() != EOF) {
        const double start = now();
        product(n, rows[0], rows[1], rows[2]);
        const double seconds = now() - start;
        double sum = 0;
        for (long i = 0; i < n * n; i++)
            sum += rows[2][i];
        printf("%.9f %.9g\n", seconds, sum);
        fflush(stdout);
    }
    return 0;
}
