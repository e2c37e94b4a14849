/* The plain loop that the speed of pi is held against: points of a square that lie in the circle, Philox4x64-10.
 *
 * For each line on standard input it counts once and prints the seconds that took and pi. A word's halves, their last bit
 * set, are a point's coordinates: the same points as brmpi's, bit for bit. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { CHUNK = 1024 };

static void philox(long first, uint64_t *restrict out)
{
    for (long block = 0; block < CHUNK / 4; block++) {
        uint64_t k0 = 1, k1 = 2, c0 = first / 4 + block, c1 = 0, c2 = 0, c3 = 0;
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

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

int main(int argc, char **argv)
{
    const long count = argc > 1 ? atol(argv[1]) / CHUNK * CHUNK : 0;
    static uint64_t word[CHUNK];
    if (count < 1) {
        fprintf(stderr, "usage: pi POINTS (%d at least)\n", CHUNK);
        return 2;
    }
    while (getchar() != EOF) {
        const double start = now();
        long inside = 0;
        for (long first = 0; first < count; first += CHUNK) {
            philox(first, word);
            for (int i = 0; i < CHUNK; i++) {
                const uint64_t x = word[i] >> 32 | 1, y = (word[i] & 0xFFFFFFFFu) | 1;
                inside += x * x + y * y >= x * x;
            }
        }
        printf("%.9f %.9g\n", now() - start, 4.0 * inside / count);
        fflush(stdout);
    }
    return 0;
}
