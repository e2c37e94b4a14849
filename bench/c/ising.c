/* The plain loop that the Ising kernel's speed is held against: a Metropolis sweep of a checkerboard, n * n spins.
 *
 * For each line on standard input it updates both colours once and prints the seconds that took and the spins' sum.
 * A row's random numbers are made first, eight of 32 bits to a Philox block; its spins are then updated as vectors. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static void philox(long blocks, uint64_t row, uint64_t sweep, uint64_t *restrict out)
{
    for (long block = 0; block < blocks; block++) {
        uint64_t k0 = 1, k1 = 2, c0 = block, c1 = row, c2 = sweep, c3 = 0;
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
        out[4 * block] = c0;
        out[4 * block + 1] = c1;
        out[4 * block + 2] = c2;
        out[4 * block + 3] = c3;
    }
}

static void update(long sites, const int8_t *restrict up, const int8_t *restrict here, const int8_t *restrict down,
                   const uint32_t *restrict random, int two, int four, int8_t *restrict site)
{
    for (long p = 0; p < sites; p++) {
        const int s = here[2 * p + 1], k = s * (up[2 * p] + down[2 * p] + here[2 * p] + here[2 * p + 2]);
        const int limit = k == 2 ? two : k == 4 ? four : INT32_MAX;
        site[p] = (int)(random[p] >> 1) <= limit ? -s : s;
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
    const long n = argc > 1 ? atol(argv[1]) : 0, stride = n + 2, blocks = (n / 2 + 7) / 8;
    if (n < 2 || n % 2) {
        fprintf(stderr, "usage: ising SIZE (even)\n");
        return 2;
    }
    int8_t *spins = malloc(stride * stride), *site = malloc(n / 2);
    uint64_t *words = malloc(32 * blocks);
    if (!spins || !site || !words)
        return 1;
    memset(spins, 1, stride * stride);
    const int two = exp(-4 * 0.44) * 0x1p31 - 0.5, four = exp(-8 * 0.44) * 0x1p31 - 0.5;
    for (uint64_t sweep = 0; getchar() != EOF; sweep++) {
        const double start = now();
        for (int colour = 0; colour < 2; colour++)
            for (long i = 0; i < n; i++) {
                const long odd = (i + colour) & 1;
                int8_t *here = spins + (i + 1) * stride + odd;
                philox(blocks, i, 2 * sweep + colour, words);
                update(n / 2, here - stride + 1, here, here + stride + 1, (const uint32_t *)words, two, four, site);
                for (long p = 0; p < n / 2; p++)
                    here[2 * p + 1] = site[p];
            }
        const double seconds = now() - start;
        long sum = 0;
        for (long i = 1; i <= n; i++)
            for (long j = 1; j <= n; j++)
                sum += spins[i * stride + j];
        printf("%.9f %ld\n", seconds, sum);
        fflush(stdout);
    }
    return 0;
}
