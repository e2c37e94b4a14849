/* Gravity by direct sum: each work item holds WIDTH targets in the lanes of a vector and passes all sources by them.
 *
 * A lane is one body's own sum, source after source within a tile, tile after tile: its bits depend neither on the other
 * lanes nor on how targets or sources are cut into calls. TILE is that of brmpi/kernels/gravity.py. */

#define JOIN(a, b) a##b
#define WITH(a, b) JOIN(a, b)
#if WIDTH == 1
#define D double
#define F float
#define LOAD(p, i) ((p)[i])
#define STORE(v, p, i) ((p)[i] = (v))
#define DOUBLES convert_double
#else
#define D WITH(double, WIDTH)
#define F WITH(float, WIDTH)
#define LOAD(p, i) WITH(vload, WIDTH)(0, (p) + (i))
#define STORE(v, p, i) WITH(vstore, WIDTH)(v, 0, (p) + (i))
#define DOUBLES WITH(convert_double, WIDTH)
#endif

/* targets: rows x, y, z of n; sources: m of x, y, z, mass; out: rows of n, added to. n is a multiple of WIDTH. */
__kernel void float64(__global const double *targets, const int n, __global const double4 *sources, const int m,
                      const double eps2, const double unit, __global double *out)
{
    const int i = get_global_id(0) * WIDTH;
    if (i >= n)
        return;
    const D x = LOAD(targets, i), y = LOAD(targets, n + i), z = LOAD(targets, 2 * n + i);
    D sx = LOAD(out, i), sy = LOAD(out, n + i), sz = LOAD(out, 2 * n + i);
    for (int tile = 0; tile < m; tile += TILE) {
        D ax = 0, ay = 0, az = 0;
#pragma unroll 4
        for (int j = tile; j < tile + TILE; j++) {
            const double4 s = sources[j];
            const D dx = s.x - x, dy = s.y - y, dz = s.z - z;
            D w = rsqrt(fmax(fma(dx, dx, fma(dy, dy, fma(dz, dz, (D)eps2))), (D)TINY));
            w = s.w * w * w * w;
            ax = fma(w, dx, ax);
            ay = fma(w, dy, ay);
            az = fma(w, dz, az);
        }
        sx += unit * ax;
        sy += unit * ay;
        sz += unit * az;
    }
    STORE(sx, out, i);
    STORE(sy, out, n + i);
    STORE(sz, out, 2 * n + i);
}

/* out: of n, subtracted from; a source at the target's own place is left out. */
__kernel void potential(__global const double *targets, const int n, __global const double4 *sources, const int m,
                        const double eps2, __global double *out)
{
    const int i = get_global_id(0) * WIDTH;
    if (i >= n)
        return;
    const D x = LOAD(targets, i), y = LOAD(targets, n + i), z = LOAD(targets, 2 * n + i);
    D sum = LOAD(out, i);
    for (int tile = 0; tile < m; tile += TILE) {
        D phi = 0;
#pragma unroll 4
        for (int j = tile; j < tile + TILE; j++) {
            const double4 s = sources[j];
            const D dx = s.x - x, dy = s.y - y, dz = s.z - z;
            const D r2 = fma(dx, dx, fma(dy, dy, dz * dz));
            phi += r2 > 0 ? s.w * rsqrt(r2 + eps2) : (D)0;
        }
        sum -= phi;
    }
    STORE(sum, out, i);
}

/* Positions are high + low; sums of PART pairs are float32. targets: rows high x, y, z, low x, y, z; sources: pairs of
 * (high x, y, z, mass) and (low x, y, z, 0). The order of terms in a difference must stay: compile without fast-math. */
__kernel void mixed(__global const float *targets, const int n, __global const float4 *sources, const int m,
                    const float eps2, const double unit, __global double *out)
{
    const int i = get_global_id(0) * WIDTH;
    if (i >= n)
        return;
    const F x = LOAD(targets, i), y = LOAD(targets, n + i), z = LOAD(targets, 2 * n + i);
    const F xl = LOAD(targets, 3 * n + i), yl = LOAD(targets, 4 * n + i), zl = LOAD(targets, 5 * n + i);
    D ox = LOAD(out, i), oy = LOAD(out, n + i), oz = LOAD(out, 2 * n + i);
    for (int tile = 0; tile < m; tile += TILE) {
        D sx = 0, sy = 0, sz = 0;
        for (int part = tile; part < tile + TILE; part += PART) {
            F ax = 0, ay = 0, az = 0;
#pragma unroll 4
            for (int j = part; j < part + PART; j++) {
                const float4 s = sources[2 * j], low = sources[2 * j + 1];
                const F dx = (s.x - x) + (low.x - xl), dy = (s.y - y) + (low.y - yl), dz = (s.z - z) + (low.z - zl);
                F w = rsqrt(fmax(fma(dx, dx, fma(dy, dy, fma(dz, dz, (F)eps2))), (F)NEAREST));
                w = s.w * w * w * w;
                ax = fma(w, dx, ax);
                ay = fma(w, dy, ay);
                az = fma(w, dz, az);
            }
            sx += DOUBLES(ax);
            sy += DOUBLES(ay);
            sz += DOUBLES(az);
        }
        ox += unit * sx;
        oy += unit * sy;
        oz += unit * sz;
    }
    STORE(ox, out, i);
    STORE(oy, out, n + i);
    STORE(oz, out, 2 * n + i);
}
