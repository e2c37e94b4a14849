/* Lennard-Jones forces, energies and virials from lists of neighbours: a work item for an atom, whose list it reads
 * WIDTH entries at a time. Lists are filled up to multiples of 8 with the atom itself: distance 0 adds nothing.
 *
 * WIDTH: 1, 2, 4 or 8, numbers in a vector; PERIODIC: whether to take nearest images. */
#pragma OPENCL EXTENSION cl_khr_fp64 : enable

#if WIDTH == 8
typedef double8 numbers;
#define AT(x, j, k) (double8)(x[j[k]], x[j[k + 1]], x[j[k + 2]], x[j[k + 3]], \
                              x[j[k + 4]], x[j[k + 5]], x[j[k + 6]], x[j[k + 7]])
#define SUM(v) (((v.s0 + v.s4) + (v.s2 + v.s6)) + ((v.s1 + v.s5) + (v.s3 + v.s7)))
#elif WIDTH == 4
typedef double4 numbers;
#define AT(x, j, k) (double4)(x[j[k]], x[j[k + 1]], x[j[k + 2]], x[j[k + 3]])
#define SUM(v) ((v.s0 + v.s2) + (v.s1 + v.s3))
#elif WIDTH == 2
typedef double2 numbers;
#define AT(x, j, k) (double2)(x[j[k]], x[j[k + 1]])
#define SUM(v) (v.s0 + v.s1)
#else
typedef double numbers;
#define AT(x, j, k) x[j[k]]
#define SUM(v) (v)
#endif

/* The nearest whole number, by rounding where numbers have no fraction: rint would run number by number. */
#define NEAR(v) (((v) + 0x1.8p52) - 0x1.8p52)

kernel void forces(uint first, uint last, uint own, global const double *restrict x, ulong stride,
                   global const long *restrict rows, global const uint *restrict index, double lx, double ly,
                   double lz, double kx, double ky, double kz, double rc2, double shift, global double *restrict out)
{
    const uint i = first + get_global_id(0);
    if (i >= last)
        return;
    global const double *y = x + stride, *z = y + stride;
    const double xi = x[i], yi = y[i], zi = z[i];
    numbers fx = 0, fy = 0, fz = 0, energy = 0, virial = 0;
    for (long k = rows[i]; k < rows[i + 1]; k += WIDTH) {
        numbers dx = xi - AT(x, index, k), dy = yi - AT(y, index, k), dz = zi - AT(z, index, k);
#if PERIODIC
        dx -= lx * NEAR(dx * kx);
        dy -= ly * NEAR(dy * ky);
        dz -= lz * NEAR(dz * kz);
#endif
        const numbers r2 = dx * dx + dy * dy + dz * dz;
        const numbers s2 = r2 > 0 && r2 < rc2 ? 1 / r2 : (numbers)0, s6 = s2 * s2 * s2;
        const numbers pull = 48 * s6 * (s6 - 0.5);
        virial += pull;
        energy += 4 * s6 * (s6 - 1) - (r2 > 0 && r2 < rc2 ? (numbers)shift : (numbers)0);
        fx += pull * s2 * dx;
        fy += pull * s2 * dy;
        fz += pull * s2 * dz;
    }
    out[i] = SUM(fx);
    out[own + i] = SUM(fy);
    out[2 * (ulong)own + i] = SUM(fz);
    out[3 * (ulong)own + i] = SUM(energy) / 2;
    out[4 * (ulong)own + i] = SUM(virial) / 2;
}
