/* The plain loop that the speed of transport is held against: a beam of particles through a slab 5 mean free paths thick,
 * of whose collisions half scatter isotropically; Philox4x64-10.
 *
 * For each line on standard input it follows the particles once and prints the seconds that took, and which share of them
 * was transmitted, reflected and absorbed: the same histories as brmpi's. A batch of them is followed together: random
 * numbers one after another, two events of all that live as vectors, then those that are left are moved together. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { BATCH = 512 };

static void philox(long count, uint64_t number, const int64_t *restrict who, uint64_t (*restrict out)[BATCH])
{
    for (long j = 0; j < count; j++) {
        uint64_t k0 = 1, k1 = 2, c0 = number, c1 = who[j], c2 = 0, c3 = 0;
        for (int round = 0; round < 10; round++) {
            const unsigned __int128 a = (unsigned __int128)0xD2E7470EE14C6C93u * c0;
            const unsigned __int128 b = (unsigned __int128)0xCA5A826395121157u * c2;
            c0 = (uint64_t)(b >> 64) ^ c1 ^ k0;
            c1 = (uint64_t)b;
            c2 = (uint64_t)(a >> 64) ^ c3 ^ k1;
            c3 = (uint64_t)a;
            k0 += 0x9E3779B97F4A7C15u;
            k1 += 0xBB67AE8584CAA73Bu;
        }
        out[0][j] = c0;
        out[1][j] = c1;
        out[2][j] = c2;
        out[3][j] = c3;
    }
}

/* Words to numbers in (0, 1), by their bits: the middles of 2**52 cells. */
static void uniform(long count, const uint64_t *restrict word, double *restrict u)
{
    for (long j = 0; j < count; j++) {
        const union { uint64_t bits; double value; } in = {word[j] >> 12 | 0x3FF0000000000000u};
        u[j] = in.value - (1 - 0x1p-53);
    }
}

/* Optical paths to the next collision. */
static void path(long count, double *restrict u)
{
    for (long j = 0; j < count; j++)
        u[j] = -log(u[j]);
}

/* Two events: 0 lives, 1 transmitted, 2 reflected, 3 absorbed; without a branch, as vectors. */
static void fly(long count, double thick, double share, double (*restrict u)[BATCH], double *restrict depth,
                double *restrict mu, double *restrict end)
{
    const double scale = share > 0 ? 2 / share : 0;
    for (long j = 0; j < count; j++) {
        const double s = depth[j] + mu[j] * u[0][j], t = s + (u[1][j] * scale - 1) * u[2][j];
        double early = u[1][j] >= share ? 3 : 0, late = u[3][j] >= share ? 3 : 0;
        early = s < 0 ? 2 : early;
        early = s >= thick ? 1 : early;
        late = t < 0 ? 2 : late;
        late = t >= thick ? 1 : late;
        end[j] = early > 0 ? early : late;
        depth[j] = t;
        mu[j] = u[3][j] * scale - 1;
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
    const long count = argc > 1 ? atol(argv[1]) : 0;
    const double thick = argc > 2 ? atof(argv[2]) : 5, share = argc > 3 ? atof(argv[3]) : 0.5;
    static uint64_t word[4][BATCH];
    static double u[4][BATCH], depth[BATCH], mu[BATCH], end[BATCH];
    static int64_t who[BATCH];
    if (count < 1 || !(thick > 0) || !(share >= 0 && share <= 1)) {
        fprintf(stderr, "usage: transport PARTICLES [MEAN_FREE_PATHS SHARE_THAT_SCATTERS]\n");
        return 2;
    }
    while (getchar() != EOF) {
        const double start = now();
        long fates[4] = {0};
        for (long first = 0; first < count; first += BATCH) {
            long live = count - first < BATCH ? count - first : BATCH;
            for (long j = 0; j < live; j++) {
                who[j] = first + j;
                depth[j] = 0;
                mu[j] = 1;
            }
            for (uint64_t number = 1; live; number++) {
                philox(live, number, who, word);
                for (int k = 0; k < 4; k++)
                    uniform(live, word[k], u[k]);
                path(live, u[0]);
                path(live, u[2]);
                fly(live, thick, share, u, depth, mu, end);
                long left = 0;
                for (long j = 0; j < live; j++) {
                    who[left] = who[j];
                    depth[left] = depth[j];
                    mu[left] = mu[j];
                    left += end[j] == 0;
                    fates[(int)end[j]]++;
                }
                live = left;
            }
        }
        const double seconds = now() - start;
        printf("%.9f %.9g %.9g %.9g\n", seconds, (double)fates[1] / count, (double)fates[2] / count,
               (double)fates[3] / count);
        fflush(stdout);
    }
    return 0;
}
