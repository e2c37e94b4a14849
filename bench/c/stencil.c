/* The plain loops that the stencil kernels' speeds are held against, in float64, on arrays with a halo.
 *
 * For each line on standard input it does one step of STENCIL on n cells each way and prints the seconds that took
 * and a checksum. Numbers that travel for each update: heat 3, conduct 4, wave 4 (out counts twice). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CELL const double *restrict u, const double *restrict before, const double *restrict k, double *restrict out
#define EACH2 for (long i = 0; i < n; i++) for (long at = (i + halo) * w + halo, end = at + n; at < end; at++)
#define EACH3                                                                                                          \
    for (long h = 0; h < n; h++)                                                                                       \
        for (long i = 0; i < n; i++)                                                                                   \
            for (long at = (h + halo) * p + (i + halo) * w + halo, end = at + n; at < end; at++)
#define SUM2(d) (u[at - d * w] + u[at + d * w] + u[at - d] + u[at + d])
#define SUM3(d) (u[at - d * p] + u[at + d * p] + SUM2(d))

static void heat5(long n, CELL)
{
    const long halo = 1, w = n + 2;
    EACH2 out[at] = u[at] + 0.1 * (SUM2(1) - 4 * u[at]);
}

static void heat7(long n, CELL)
{
    const long halo = 1, w = n + 2, p = w * w;
    EACH3 out[at] = u[at] + 0.1 * (SUM3(1) - 6 * u[at]);
}

static void heat9(long n, CELL)
{
    const long halo = 1, w = n + 2;
    EACH2 out[at] = u[at] + 0.1 / 6 * (4 * SUM2(1) + u[at - w - 1] + u[at - w + 1] + u[at + w - 1] + u[at + w + 1]
                                       - 20 * u[at]);
}

#define FLUX(d) (k[at] * k[at + (d)] / (k[at] + k[at + (d)]) * (u[at + (d)] - u[at]))

static void conduct5(long n, CELL)
{
    const long halo = 1, w = n + 2;
    EACH2 out[at] = u[at] + 0.2 * (FLUX(-w) + FLUX(w) + FLUX(-1) + FLUX(1));
}

static void conduct7(long n, CELL)
{
    const long halo = 1, w = n + 2, p = w * w;
    EACH3 out[at] = u[at] + 0.2 * (FLUX(-p) + FLUX(p) + FLUX(-w) + FLUX(w) + FLUX(-1) + FLUX(1));
}

static void wave5(long n, CELL)
{
    const long halo = 1, w = n + 2;
    EACH2 out[at] = 2 * u[at] - before[at] + 0.1 * (SUM2(1) - 4 * u[at]);
}

static void wave7(long n, CELL)
{
    const long halo = 1, w = n + 2, p = w * w;
    EACH3 out[at] = 2 * u[at] - before[at] + 0.1 * (SUM3(1) - 6 * u[at]);
}

static void wave9(long n, CELL)
{
    const long halo = 2, w = n + 4;
    EACH2 out[at] = 2 * u[at] - before[at] + 0.1 * (4. / 3 * SUM2(1) - 1. / 12 * SUM2(2) - 5 * u[at]);
}

static void wave13(long n, CELL)
{
    const long halo = 2, w = n + 4, p = w * w;
    EACH3 out[at] = 2 * u[at] - before[at] + 0.1 * (4. / 3 * SUM3(1) - 1. / 12 * SUM3(2) - 7.5 * u[at]);
}

static const struct {
    const char *name;
    int dimensions, halo;
    void (*step)(long n, CELL);
} stencils[] = {{"heat5", 2, 1, heat5}, {"heat7", 3, 1, heat7}, {"heat9", 2, 1, heat9}, {"conduct5", 2, 1, conduct5},
                {"conduct7", 3, 1, conduct7}, {"wave5", 2, 1, wave5}, {"wave7", 3, 1, wave7}, {"wave9", 2, 2, wave9},
                {"wave13", 3, 2, wave13}};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

int main(int argc, char **argv)
{
    const long n = argc > 2 ? atol(argv[2]) : 0;
    const int known = sizeof stencils / sizeof *stencils;
    int which = 0;
    double *a[4];
    while (argc > 1 && which < known && strcmp(argv[1], stencils[which].name))
        which++;
    if (n < 1 || which == known) {
        fprintf(stderr, "usage: stencil STENCIL CELLS, of");
        for (which = 0; which < known; which++)
            fprintf(stderr, " %s", stencils[which].name);
        fprintf(stderr, "\n");
        return 2;
    }
    const long width = n + 2 * stencils[which].halo;
    const long count = stencils[which].dimensions == 2 ? width * width : width * width * width;
    for (int j = 0; j < 4; j++)
        if (!(a[j] = malloc(count * sizeof(double))))
            return 1;
    for (long i = 0; i < count; i++) {
        a[0][i] = (double)rand() / RAND_MAX;
        a[1][i] = (double)rand() / RAND_MAX;
        a[2][i] = 1 + (double)rand() / RAND_MAX;
        a[3][i] = 0;
    }
    while (getchar() != EOF) {
        const double start = now();
        stencils[which].step(n, a[0], a[1], a[2], a[3]);
        const double seconds = now() - start;
        double sum = 0;
        for (long i = 0; i < count; i++)
            sum += fabs(a[3][i]);
        printf("%.9f %.9g\n", seconds, sum);
        fflush(stdout);
    }
    return 0;
}
