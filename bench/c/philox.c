/* The plain loop that the Philox payoffs' speed is held against: a European call by Monte Carlo in float64.
 *
 * For each line on standard input it sums payoffs and squares once and prints the seconds that took and the mean.
 * Words are made one after another, 64 times 64 bits; the inverse of the distribution and the price are vectors. */
#include <math.h>
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

static double ratio(double x, const double *a, const double *b)
{
    return (((((((a[7] * x + a[6]) * x + a[5]) * x + a[4]) * x + a[3]) * x + a[2]) * x + a[1]) * x + a[0]) /
           (((((((b[7] * x + b[6]) * x + b[5]) * x + b[4]) * x + b[3]) * x + b[2]) * x + b[1]) * x + b[0]);
}

/* Wichura's AS241 without its farthest region, which one word in 7e10 falls into. */
static const double A[8] = {3.3871328727963666080e0, 1.3314166789178437745e2, 1.9715909503065514427e3,
                            1.3731693765509461125e4, 4.5921953931549871457e4, 6.7265770927008700853e4,
                            3.3430575583588128105e4, 2.5090809287301226727e3};
static const double B[8] = {1.0, 4.2313330701600911252e1, 6.8718700749205790830e2, 5.3941960214247511077e3,
                            2.1213794301586595867e4, 3.9307895800092710610e4, 2.8729085735721942674e4,
                            5.2264952788528545610e3};
static const double C[8] = {1.42343711074968357734e0, 4.63033784615654529590e0, 5.76949722146069140550e0,
                            3.64784832476320460504e0, 1.27045825245236838258e0, 2.41780725177450611770e-1,
                            2.27238449892691845833e-2, 7.74545014278341407640e-4};
static const double D[8] = {1.0, 2.05319162663775882187e0, 1.67638483018380384940e0, 6.89767334985100004550e-1,
                            1.48103976427480074590e-1, 1.51986665636164571966e-2, 5.47593808499534494600e-4,
                            1.05075007164441684324e-9};

static void normal(const uint64_t *restrict word, double *restrict z, double *restrict near, int *restrict which)
{
    for (int i = 0; i < CHUNK; i++) {
        const double q = ((double)(int64_t)(word[i] >> 11) + 0.5) * 0x1p-53 - 0.5;
        z[i] = q * ratio(0.180625 - q * q, A, B);
        near[i] = q;
    }
    int tails = 0;
    for (int i = 0; i < CHUNK; i++) {
        which[tails] = i;
        tails += fabs(near[i]) > 0.425;
    }
    for (int t = 0; t < tails; t++)
        near[t] = near[which[t]];
    for (int t = 0; t < tails; t++) {
        const double x = ratio(sqrt(-log(0.5 - fabs(near[t]))) - 1.6, C, D);
        near[t] = near[t] < 0 ? -x : x;
    }
    for (int t = 0; t < tails; t++)
        z[which[t]] = near[t];
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
    static double z[CHUNK], near[CHUNK];
    static int which[CHUNK + 1];
    if (count < 1) {
        fprintf(stderr, "usage: philox SAMPLES (%d at least)\n", CHUNK);
        return 2;
    }
    const double drift = 0.05 - 0.2 * 0.2 / 2, discount = exp(-0.05);
    while (getchar() != EOF) {
        const double start = now();
        double total = 0, squares = 0;
        for (long first = 0; first < count; first += CHUNK) {
            philox(first, word);
            normal(word, z, near, which);
            for (int i = 0; i < CHUNK; i++) {
                const double payoff = discount * fmax(100 * exp(drift + 0.2 * z[i]) - 100, 0);
                total += payoff;
                squares += payoff * payoff;
            }
        }
        printf("%.9f %.9g\n", now() - start, total / count);
        fflush(stdout);
    }
    return 0;
}
