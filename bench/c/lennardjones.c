/* The plain loop that the Lennard-Jones kernel's speed is held against: forces, energies and virials from lists of
 * neighbours, a gather for each.
 *
 * The file named on the command line holds, without gaps: own atoms, all atoms, entries of the lists (int64); cutoff,
 * shift of the energy, three periods or 0 for none (float64); x, y, z of all atoms (float64); where each own atom's
 * list begins, and the last one's end (int64); the lists (uint32).
 * For each line on standard input it computes all forces once and prints the seconds that took and a checksum. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static inline __attribute__((always_inline)) void loop(
    int nearest, long own, const double *restrict x, const double *restrict y, const double *restrict z,
    const int64_t *restrict rows, const uint32_t *restrict index, const double *restrict period, double rc2,
    double shift, double *restrict force_x, double *restrict force_y, double *restrict force_z,
    double *restrict energies, double *restrict virials)
{
    const double lx = period[0], ly = period[1], lz = period[2];
    const double kx = lx > 0 ? 1 / lx : 0, ky = ly > 0 ? 1 / ly : 0, kz = lz > 0 ? 1 / lz : 0;
    for (long i = 0; i < own; i++) {
        const double xi = x[i], yi = y[i], zi = z[i];
        double fx = 0, fy = 0, fz = 0, energy = 0, virial = 0;
        for (long k = rows[i]; k < rows[i + 1]; k++) {
            const uint32_t j = index[k];
            double dx = xi - x[j], dy = yi - y[j], dz = zi - z[j];
            if (nearest) {
                dx -= lx * rint(dx * kx);
                dy -= ly * rint(dy * ky);
                dz -= lz * rint(dz * kz);
            }
            const double r2 = dx * dx + dy * dy + dz * dz;
            const int inside = r2 > 0 && r2 < rc2;
            const double s2 = inside ? 1 / r2 : 0, s6 = s2 * s2 * s2, pull = 48 * s6 * (s6 - 0.5);
            virial += pull;
            energy += 4 * s6 * (s6 - 1) - (inside ? shift : 0);
            fx += pull * s2 * dx;
            fy += pull * s2 * dy;
            fz += pull * s2 * dz;
        }
        force_x[i] = fx;
        force_y[i] = fy;
        force_z[i] = fz;
        energies[i] = energy / 2;
        virials[i] = virial / 2;
    }
}

/* Two functions, since whether images are taken must be known when the loop is compiled. */
static void forces(long own, long n, const double *pos, const int64_t *rows, const uint32_t *index, const double *of,
                   double *out)
{
    loop(0, own, pos, pos + n, pos + 2 * n, rows, index, of + 2, of[0] * of[0], of[1], out, out + own, out + 2 * own,
         out + 3 * own, out + 4 * own);
}

static void forces_of_images(long own, long n, const double *pos, const int64_t *rows, const uint32_t *index,
                             const double *of, double *out)
{
    loop(1, own, pos, pos + n, pos + 2 * n, rows, index, of + 2, of[0] * of[0], of[1], out, out + own, out + 2 * own,
         out + 3 * own, out + 4 * own);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

static void *contents(FILE *file, size_t count, size_t size)
{
    void *values = malloc(count * size + 1);
    if (!values || fread(values, size, count, file) != count) {
        fprintf(stderr, "lennardjones: the file is too short, or it does not fit into memory\n");
        exit(1);
    }
    return values;
}

int main(int argc, char **argv)
{
    FILE *file = argc > 1 ? fopen(argv[1], "rb") : NULL;
    if (!file) {
        fprintf(stderr, "usage: lennardjones FILE\n");
        return 2;
    }
    const int64_t *counts = contents(file, 3, sizeof(int64_t));
    const long own = counts[0], n = counts[1];
    const double *of = contents(file, 5, sizeof(double)), *pos = contents(file, 3 * n, sizeof(double));
    const int64_t *rows = contents(file, own + 1, sizeof(int64_t));
    const uint32_t *index = contents(file, counts[2], sizeof(uint32_t));
    double *out = malloc(5 * own * sizeof(double) + 1);
    if (!out)
        return 1;
    const int nearest = of[2] > 0 || of[3] > 0 || of[4] > 0;
    while (getchar() != EOF) {
        const double start = now();
        (nearest ? forces_of_images : forces)(own, n, pos, rows, index, of, out);
        const double seconds = now() - start;
        double sum = 0;
        for (long i = 0; i < 5 * own; i++)
            sum += fabs(out[i]);
        printf("%.9f %.9g\n", seconds, sum);
        fflush(stdout);
    }
    return 0;
}
