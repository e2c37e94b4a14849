/* Random numbers by global index and Monte Carlo payoffs: see brmpi/kernels/philox.py, which defines them.
 *
 * A work item takes CHUNK words at a time, a multiple of 4 BLOCKS: all are made first, the rest is done by vectors of
 * WIDTH (4, 8 or 16). A group's items share a block of BLOCK samples. FLOAT64 is 1 where the device has it.
 * Nothing is fused but where it says so, and every sum has its order: the bits are NumPy's. */
#pragma OPENCL FP_CONTRACT OFF
#include "philox4x64.cl"

#define reals OF(double, WIDTH)
#define integers OF(long, WIDTH)
#define naturals OF(ulong, WIDTH)
#define to_reals OF(convert_double, WIDTH)
#define as_reals OF(as_double, WIDTH)
#define as_integers OF(as_long, WIDTH)
#define load OF(vload, WIDTH)
#define store OF(vstore, WIDTH)
#if WIDTH == 4
#define LANES (integers)(0, 1, 2, 3)
#elif WIDTH == 8
#define LANES (integers)(0, 1, 2, 3, 4, 5, 6, 7)
#else
#define LANES (integers)(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
#endif

/* The chunk-th CHUNK words from a counter on. */
INLINE void fill(ulong2 key, ulong4 start, ulong chunk, ulong *out)
{
    ulong keys[20];
    schedule(key, keys);
    for (int n = 0; n < CHUNK / 4; n += BLOCKS)
        make(keys, start, chunk * (CHUNK / 4) + n, out + 4 * n);
}

/* Write a work item's numbers, which are those from lane on, to their places. */
#define WRITE(each, lane, count, out)                                          \
    const long first = (long)get_global_id(0) * CHUNK - lane;                  \
    if (first >= 0 && first + CHUNK <= count)                                  \
        for (int n = 0; n < CHUNK / WIDTH; n++)                                \
            store(load(n, each), n, out + first);                              \
    else                                                                       \
        for (int i = max(0L, -first); i < min((long)CHUNK, count - first); i++) \
            out[first + i] = each[i];

kernel void words(ulong2 key, ulong4 start, int lane, long count, global ulong *restrict out)
{
    ulong each[CHUNK];
    fill(key, start, get_global_id(0), each);
    WRITE(each, lane, count, out)
}

/* A work item writes one number. */
kernel void inside(ulong2 key, ulong4 start, int lane, long count, global ulong *restrict out)
{
    ulong each[CHUNK];
    long lanes[WIDTH], all = 0;
    integers found = 0;
    fill(key, start, get_global_id(0), each);
    for (int n = 0; n < CHUNK / WIDTH; n++) {
        const naturals w = load(n, each), x = w >> 32 | 1UL, y = (w & 0xFFFFFFFFUL) | 1UL, square = x * x;
        const integers at = (long)get_global_id(0) * CHUNK - lane + WIDTH * n + LANES;
        found -= (y * y + square >= square) & (at >= 0) & (at < count); /* -1 is true */
    }
    store(found, 0, lanes);
    for (int k = 0; k < WIDTH; k++)
        all += lanes[k];
    out[get_global_id(0)] = all;
}

#if FLOAT64

/* In vectors: a scalar coefficient would be taken for one of a mixed call. */
#define FUSED(sum, x, c) fma(sum, x, (reals)(c))
#define EIGHT(x, c0, c1, c2, c3, c4, c5, c6, c7) \
    FUSED(FUSED(FUSED(FUSED(FUSED(FUSED(FUSED((reals)(c7), x, c6), x, c5), x, c4), x, c3), x, c2), x, c1), x, c0)
#define RATIO(x, a0, a1, a2, a3, a4, a5, a6, a7, b0, b1, b2, b3, b4, b5, b6, b7) \
    (EIGHT(x, a0, a1, a2, a3, a4, a5, a6, a7) / EIGHT(x, b0, b1, b2, b3, b4, b5, b6, b7))

INLINE reals exponential(reals x)
{
    const reals near = fma(x, (reals)(1.4426950408889634), (reals)(0x1.8p52)), k = near - 0x1.8p52;
    const reals r = fma(-k, (reals)(1.9082149292705877e-10), x - k * 0.6931471803691238);
    reals sum = 1.0 / 6227020800.0;
    sum = FUSED(sum, r, 1.0 / 479001600.0);
    sum = FUSED(sum, r, 1.0 / 39916800.0);
    sum = FUSED(sum, r, 1.0 / 3628800.0);
    sum = FUSED(sum, r, 1.0 / 362880.0);
    sum = FUSED(sum, r, 1.0 / 40320.0);
    sum = FUSED(sum, r, 1.0 / 5040.0);
    sum = FUSED(sum, r, 1.0 / 720.0);
    sum = FUSED(sum, r, 1.0 / 120.0);
    sum = FUSED(sum, r, 1.0 / 24.0);
    sum = FUSED(sum, r, 1.0 / 6.0);
    sum = FUSED(sum, r, 0.5);
    sum = FUSED(sum, r, 1.0);
    sum = FUSED(sum, r, 1.0);
    return as_reals((as_integers(near) + 1023L) << 52) * sum;
}

INLINE reals logarithm(reals x)
{
    const integers bits = as_integers(x) - 0x3FE6A09E667F3BCDL;
    const reals k = to_reals(bits >> 52);
    const reals f = as_reals((bits & 0xFFFFFFFFFFFFFL) + 0x3FE6A09E667F3BCDL);
    const reals s = (f - 1) / (f + 1), ss = s * s;
    reals sum = 2.0 / 21.0;
    sum = FUSED(sum, ss, 2.0 / 19.0);
    sum = FUSED(sum, ss, 2.0 / 17.0);
    sum = FUSED(sum, ss, 2.0 / 15.0);
    sum = FUSED(sum, ss, 2.0 / 13.0);
    sum = FUSED(sum, ss, 2.0 / 11.0);
    sum = FUSED(sum, ss, 2.0 / 9.0);
    sum = FUSED(sum, ss, 2.0 / 7.0);
    sum = FUSED(sum, ss, 2.0 / 5.0);
    sum = FUSED(sum, ss, 2.0 / 3.0);
    sum = FUSED(sum, ss, 2.0);
    return k * 0.6931471803691238 + fma(s, sum, k * 1.9082149292705877e-10);
}

INLINE reals middle(naturals w)
{
    return fmin((to_reals(as_integers(w >> 11)) + 0.5) * 0x1p-53, 1 - 0x1p-53);
}

INLINE reals tail(reals p)
{
    const reals r = sqrt(-logarithm(fmin(p, 1 - p))), t = r - 1.6;
    reals x = RATIO(t, 1.42343711074968357734e0, 4.63033784615654529590e0, 5.76949722146069140550e0,
                    3.64784832476320460504e0, 1.27045825245236838258e0, 2.41780725177450611770e-1,
                    2.27238449892691845833e-2, 7.74545014278341407640e-4, 1.0, 2.05319162663775882187e0,
                    1.67638483018380384940e0, 6.89767334985100004550e-1, 1.48103976427480074590e-1,
                    1.51986665636164571966e-2, 5.47593808499534494600e-4, 1.05075007164441684324e-9);
    const integers far = r > 5;
    if (any(far)) {
        const reals u = r - 5;
        x = select(x, RATIO(u, 6.65790464350110377720e0, 5.46378491116411436990e0, 1.78482653991729133580e0,
                            2.96560571828504891230e-1, 2.65321895265761230930e-2, 1.24266094738807843860e-3,
                            2.71155556874348757815e-5, 2.01033439929228813265e-7, 1.0,
                            5.99832206555887937690e-1, 1.36929880922735805310e-1, 1.48753612908506148525e-2,
                            7.86869131145613259100e-4, 1.84631831751005468180e-5, 1.42151175831644588870e-7,
                            2.04426310338993978564e-15), far);
    }
    return copysign(x, p - 0.5);
}

/* Normal numbers of the chunk-th CHUNK words: all as if near the middle, then those that are not, packed together. */
INLINE void normals(ulong2 key, ulong4 start, ulong chunk, double *out)
{
    ulong words[CHUNK];
    double p[CHUNK];
    int which[CHUNK + WIDTH], tails = 0;
    fill(key, start, chunk, words);
    for (int n = 0; n < CHUNK / WIDTH; n++) {
        const reals m = middle(load(n, words)), q = m - 0.5, x = FUSED(-q, q, 0.180625);
        store(m, n, p);
        store(q * RATIO(x, 3.3871328727963666080e0, 1.3314166789178437745e2, 1.9715909503065514427e3,
                        1.3731693765509461125e4, 4.5921953931549871457e4, 6.7265770927008700853e4,
                        3.3430575583588128105e4, 2.5090809287301226727e3, 1.0, 4.2313330701600911252e1,
                        6.8718700749205790830e2, 5.3941960214247511077e3, 2.1213794301586595867e4,
                        3.9307895800092710610e4, 2.8729085735721942674e4, 5.2264952788528545610e3), n, out);
    }
    for (int i = 0; i < CHUNK; i++) {
        which[tails] = i;
        tails += fabs(p[i] - 0.5) > 0.425;
    }
    for (int k = 0; k < WIDTH; k++) /* the last ones are done again where less than WIDTH are left */
        which[tails + k] = tails ? which[tails - 1] : 0;
    for (int t = 0; t < tails; t += WIDTH) {
        double each[WIDTH];
        for (int k = 0; k < WIDTH; k++)
            each[k] = p[which[t + k]];
        store(tail(load(0, each)), 0, each);
        for (int k = 0; k < WIDTH; k++)
            out[which[t + k]] = each[k];
    }
}

kernel void uniform_numbers(ulong2 key, ulong4 start, int lane, long count, global double *restrict out)
{
    ulong words[CHUNK];
    double each[CHUNK];
    fill(key, start, get_global_id(0), words);
    for (int n = 0; n < CHUNK / WIDTH; n++)
        store(to_reals(as_integers(load(n, words) >> 11)) * 0x1p-53, n, each);
    WRITE(each, lane, count, out)
}

kernel void normal_numbers(ulong2 key, ulong4 start, int lane, long count, global double *restrict out)
{
    double each[CHUNK];
    normals(key, start, get_global_id(0), each);
    WRITE(each, lane, count, out)
}

/* A group's sums of payoff and square over BLOCK samples, halves upon halves. A work item's samples follow each other,
 * and so do their words: as many chunks as a sample has steps. The first sample's first word is lane 0. */
kernel void payoffs(ulong2 key, ulong4 start, int steps, long count, double spot, double strike, double drift,
                    double deviation, double discount, double share, global double *restrict out)
{
    local double payoff[BLOCK], square[BLOCK];
    const int item = get_local_id(0);
    double growth[CHUNK], total[CHUNK], price = spot, sum = 0;
    for (int chunk = 0, sample = 0, step = 0; chunk < steps; chunk++) {
        normals(key, start, (ulong)get_global_id(0) * steps + chunk, growth);
        for (int n = 0; n < CHUNK / WIDTH; n++)
            store(exponential(FUSED((reals)(deviation), load(n, growth), drift)), n, growth);
        if (steps == 1) {
            for (int n = 0; n < CHUNK / WIDTH; n++)
                store(spot * load(n, growth), n, total);
            continue;
        }
        for (int i = 0; i < CHUNK; i++) {
            price = price * growth[i];
            sum = sum + price;
            if (++step == steps) {
                total[sample++] = sum;
                step = 0;
                price = spot;
                sum = 0;
            }
        }
    }
    for (int n = 0; n < CHUNK / WIDTH; n++) {
        const integers at = (long)get_global_id(0) * CHUNK + WIDTH * n + LANES;
        const reals mine = select((reals)0, discount * fmax(load(n, total) * share - strike, 0), at < count);
        store(mine, n, payoff + CHUNK * item);
        store(mine * mine, n, square + CHUNK * item);
    }
    for (int rest = BLOCK / 2; rest; rest /= 2) {
        barrier(CLK_LOCAL_MEM_FENCE);
        for (int i = item; i < rest; i += BLOCK / CHUNK) {
            payoff[i] += payoff[i + rest];
            square[i] += square[i + rest];
        }
    }
    if (item == 0) {
        out[2 * get_group_id(0)] = payoff[0];
        out[2 * get_group_id(0) + 1] = square[0];
    }
}

#endif
