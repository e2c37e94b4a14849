"""The loops of ``boltzmann``, compiled by Numba. Imported when they are first used: Numba takes long to load.

A row of cells is one loop: all its populations come in, collide, and go out, each as a stream of its own. Where a wall
is near, what arrives is gathered in a buffer first, and the same loop reads that; solid cells are put back behind it.
Floating point is strict here: vectors and the cells left over behind the last one give the same bits.
"""

import functools

import numpy as np

from brmpi.kernels.boltzmann import LATTICES
from brmpi.kernels.compiled import compiled
from brmpi.kernels.unaliased import load, store

BLOCK = 512  # cells at once, of a row: the buffer is 78 kB of float64 in D3Q19, for the second nearest cache

strict = functools.partial(compiled, fastmath=False)


@strict
def halves(a, b, w, along, even_along, odd_along, rest, bend, drift, half_even, half_odd):
    """What two opposite populations lose by relaxing: their even half, and their odd half.

    Parameters
    ----------
    a, b : float
    w, along, even_along, odd_along : float, weight; 3 c.u; parts of the force
    rest, bend, drift : float, of the equilibrium: what each direction has, its square and its linear term
    half_even, half_odd : float, half the rates

    Returns
    -------
    float, float
    """
    even = half_even * (a + b) - w * (rest + along * (bend * along + even_along))
    odd = half_odd * (a - b) - w * (drift * along + odd_along)
    return even, odd


@strict
def d2q9(f, start, out, begin, n, k):
    """Collide a row of cells.

    Parameters
    ----------
    f : (…) float, one-dimensional
    start : (9,) int64, where each population of the first cell is in f
    out : (…) float, one-dimensional
    begin : (9,) int64, where it goes in out
    n : int, cells
    k : (21,) float, ``_Constants`` one after the other
    """
    one = f.dtype.type(1)
    even, odd, he, ho, w0, w1, w2, three, sixth = k[0], k[1], k[2], k[3], k[4], k[5], k[6], k[7], k[8]
    hx, hy, fx, fy = k[9], k[10], k[11], k[12]
    e1, e2, e3, e4 = k[13], k[14], k[15], k[16]
    o1, o2, o3, o4 = k[17], k[18], k[19], k[20]
    for x in range(n):
        f0 = load(f, load(start, 0) + x)
        f1, f2 = load(f, load(start, 1) + x), load(f, load(start, 2) + x)
        f3, f4 = load(f, load(start, 3) + x), load(f, load(start, 4) + x)
        f5, f6 = load(f, load(start, 5) + x), load(f, load(start, 6) + x)
        f7, f8 = load(f, load(start, 7) + x), load(f, load(start, 8) + x)
        rho = f0 + (f1 + f2) + (f3 + f4) + (f5 + f6) + (f7 + f8)
        scale = three / rho
        d3, d4 = f5 - f6, f7 - f8
        u = ((f1 - f2) + d3 + d4 + hx) * scale
        v = ((f3 - f4) + d3 - d4 + hy) * scale
        rest = even * rho * (one - sixth * (u * u + v * v)) - (u * fx + v * fy)
        bend, drift = he * rho, odd * rho
        store(out, load(begin, 0) + x, f0 - (even * f0 - w0 * rest), 0)
        p, m = halves(f1, f2, w1, u, e1, o1, rest, bend, drift, he, ho)
        store(out, load(begin, 1) + x, f1 - (p + m), 1)
        store(out, load(begin, 2) + x, f2 - (p - m), 2)
        p, m = halves(f3, f4, w1, v, e2, o2, rest, bend, drift, he, ho)
        store(out, load(begin, 3) + x, f3 - (p + m), 3)
        store(out, load(begin, 4) + x, f4 - (p - m), 4)
        p, m = halves(f5, f6, w2, u + v, e3, o3, rest, bend, drift, he, ho)
        store(out, load(begin, 5) + x, f5 - (p + m), 5)
        store(out, load(begin, 6) + x, f6 - (p - m), 6)
        p, m = halves(f7, f8, w2, u - v, e4, o4, rest, bend, drift, he, ho)
        store(out, load(begin, 7) + x, f7 - (p + m), 7)
        store(out, load(begin, 8) + x, f8 - (p - m), 8)


@strict
def d3q19(f, start, out, begin, n, k):
    """Collide a row of cells.

    Parameters
    ----------
    f : (…) float, one-dimensional
    start : (19,) int64, where each population of the first cell is in f
    out : (…) float, one-dimensional
    begin : (19,) int64, where it goes in out
    n : int, cells
    k : (33,) float, ``_Constants`` one after the other
    """
    one = f.dtype.type(1)
    even, odd, he, ho, w0, w1, w2, three, sixth = k[0], k[1], k[2], k[3], k[4], k[5], k[6], k[7], k[8]
    hx, hy, hz, fx, fy, fz = k[9], k[10], k[11], k[12], k[13], k[14]
    e1, e2, e3, e4, e5, e6, e7, e8, e9 = k[15], k[16], k[17], k[18], k[19], k[20], k[21], k[22], k[23]
    o1, o2, o3, o4, o5, o6, o7, o8, o9 = k[24], k[25], k[26], k[27], k[28], k[29], k[30], k[31], k[32]
    for x in range(n):
        f0 = load(f, load(start, 0) + x)
        f1, f2 = load(f, load(start, 1) + x), load(f, load(start, 2) + x)
        f3, f4 = load(f, load(start, 3) + x), load(f, load(start, 4) + x)
        f5, f6 = load(f, load(start, 5) + x), load(f, load(start, 6) + x)
        f7, f8 = load(f, load(start, 7) + x), load(f, load(start, 8) + x)
        f9, f10 = load(f, load(start, 9) + x), load(f, load(start, 10) + x)
        f11, f12 = load(f, load(start, 11) + x), load(f, load(start, 12) + x)
        f13, f14 = load(f, load(start, 13) + x), load(f, load(start, 14) + x)
        f15, f16 = load(f, load(start, 15) + x), load(f, load(start, 16) + x)
        f17, f18 = load(f, load(start, 17) + x), load(f, load(start, 18) + x)
        rho = f0 + (f1 + f2) + (f3 + f4) + (f5 + f6) + (f7 + f8)
        rho = rho + (f9 + f10) + (f11 + f12) + (f13 + f14) + (f15 + f16)
        rho = rho + (f17 + f18)
        scale = three / rho
        d4, d5, d6 = f7 - f8, f9 - f10, f11 - f12
        d7, d8, d9 = f13 - f14, f15 - f16, f17 - f18
        u = ((f1 - f2) + d4 + d5 + d6 + d7 + hx) * scale
        v = ((f3 - f4) + d4 - d5 + d8 + d9 + hy) * scale
        w = ((f5 - f6) + d6 - d7 + d8 - d9 + hz) * scale
        rest = even * rho * (one - sixth * (u * u + v * v + w * w)) - (u * fx + v * fy + w * fz)
        bend, drift = he * rho, odd * rho
        store(out, load(begin, 0) + x, f0 - (even * f0 - w0 * rest), 0)
        p, m = halves(f1, f2, w1, u, e1, o1, rest, bend, drift, he, ho)
        store(out, load(begin, 1) + x, f1 - (p + m), 1)
        store(out, load(begin, 2) + x, f2 - (p - m), 2)
        p, m = halves(f3, f4, w1, v, e2, o2, rest, bend, drift, he, ho)
        store(out, load(begin, 3) + x, f3 - (p + m), 3)
        store(out, load(begin, 4) + x, f4 - (p - m), 4)
        p, m = halves(f5, f6, w1, w, e3, o3, rest, bend, drift, he, ho)
        store(out, load(begin, 5) + x, f5 - (p + m), 5)
        store(out, load(begin, 6) + x, f6 - (p - m), 6)
        p, m = halves(f7, f8, w2, u + v, e4, o4, rest, bend, drift, he, ho)
        store(out, load(begin, 7) + x, f7 - (p + m), 7)
        store(out, load(begin, 8) + x, f8 - (p - m), 8)
        p, m = halves(f9, f10, w2, u - v, e5, o5, rest, bend, drift, he, ho)
        store(out, load(begin, 9) + x, f9 - (p + m), 9)
        store(out, load(begin, 10) + x, f10 - (p - m), 10)
        p, m = halves(f11, f12, w2, u + w, e6, o6, rest, bend, drift, he, ho)
        store(out, load(begin, 11) + x, f11 - (p + m), 11)
        store(out, load(begin, 12) + x, f12 - (p - m), 12)
        p, m = halves(f13, f14, w2, u - w, e7, o7, rest, bend, drift, he, ho)
        store(out, load(begin, 13) + x, f13 - (p + m), 13)
        store(out, load(begin, 14) + x, f14 - (p - m), 14)
        p, m = halves(f15, f16, w2, v + w, e8, o8, rest, bend, drift, he, ho)
        store(out, load(begin, 15) + x, f15 - (p + m), 15)
        store(out, load(begin, 16) + x, f16 - (p - m), 16)
        p, m = halves(f17, f18, w2, v - w, e9, o9, rest, bend, drift, he, ho)
        store(out, load(begin, 17) + x, f17 - (p + m), 17)
        store(out, load(begin, 18) + x, f18 - (p - m), 18)


@strict
def near_wall(solid, z, y, x, n):
    """Whether a row of cells, or one around it, is solid somewhere.

    Parameters
    ----------
    solid : (r, s, t) uint8; s is 1 in two dimensions
    z, y, x : int, the first cell
    n : int, cells

    Returns
    -------
    bool
    """
    found = np.uint8(0)
    for dz in range(-1, 2):
        for other in range(max(y - 1, 0), min(y + 2, solid.shape[1])):
            row = solid[z + dz, other, x - 1 : x + n + 1]
            for i in range(n + 2):
                found |= row[i]
    return found != 0


@strict
def gather(f, c, solid, table, z, y, x, n, buffer):
    """Collect what arrives in a row of cells; from a solid cell, what bounces back.

    Parameters
    ----------
    f : (q, r, s, t) float
    c : (q, 3) int64
    solid : (r, s, t) uint8
    table : (q, 256) float
    z, y, x, n : int, as in ``near_wall``
    buffer : (q, BLOCK) float
    """
    for i in range(f.shape[0]):
        zi, yi, xi = z - c[i, 0], y - c[i, 1], x - c[i, 2]
        source, wall = f[i, zi, yi, xi : xi + n], solid[zi, yi, xi : xi + n]
        back = f[0 if i == 0 else i + 1 if i % 2 == 1 else i - 1, z, y, x : x + n]
        row, gain = buffer[i], table[i]
        for j in range(n):
            bounced = back[j] + gain[wall[j]]
            row[j] = bounced if wall[j] != 0 else source[j]


@strict
def restore(f, solid, z, y, x, n, out):
    """Give solid cells of a row what they had.

    Parameters
    ----------
    f, solid, z, y, x, n : as in ``gather``
    out : as f
    """
    wall = solid[z, y, x : x + n]
    for i in range(f.shape[0]):
        had, now = f[i, z, y, x : x + n], out[i, z, y, x : x + n]
        for j in range(n):
            now[j] = now[j] if wall[j] == 0 else had[j]


def step(f, out, constants, solid, table, inner):
    """Stream and collide once; arguments as ``boltzmann.step`` has checked them, none of them empty.

    Parameters
    ----------
    f, out : (q, r, s) or (q, r, s, t) float64 or float32
    constants : ``boltzmann._Constants``
    solid : (r, s) or (r, s, t) uint8, or None
    table : (q, 256) same dtype
    inner : range, of rows
    """
    planes = np.zeros((1, 1, 1), np.uint8) if solid is None else _planes(solid[None])[0]
    flat = np.concatenate([np.ravel(values) for values in constants])
    flow(_planes(f), _planes(out), _cube(f), flat, planes, solid is not None, table, inner.start, inner.stop)


def moments_of(f, half, rho, u):
    """Density and velocity; arguments as ``boltzmann.moments`` has checked them, none of them empty.

    Parameters
    ----------
    f : as in ``step``
    half : (d,) float, half the force
    rho : (r - 2, ...) float, written
    u : (d, r - 2, ...) float, written
    """
    if len(u) == 3:
        moments(f, _cube(f), half, rho, u)
        return
    between = np.empty((3, rho.shape[0], 1, rho.shape[1]), f.dtype)  # its middle axis is no axis of ours
    moments(_planes(f), _cube(f), np.insert(half, 1, 0), rho[:, None], between)
    u[:] = between[::2, :, 0]


def _planes(array):
    """In two dimensions with a middle axis of one cell and no halo, as a plane of three."""
    return array if array.ndim == 4 else array[:, :, None]


def _cube(f):
    """Velocities, with a component of 0 along that axis."""
    c = LATTICES[len(f), f.ndim - 1].c
    return c if c.shape[1] == 3 else np.insert(c, 1, 0, axis=1)


@strict
def flow(f, out, c, k, solid, walled, table, first, last):
    """Stream and collide rows first to last.

    Parameters
    ----------
    f, out : (q, r, s, t) float, C-contiguous; s is 1, without halo, in two dimensions
    c : (q, 3) int64
    k : (21,) or (33,) float
    solid : (r, s, t) uint8
    walled : bool, whether to look at solid
    table : (q, 256) float
    first, last : int
    """
    q, depth, height, width = f.shape
    buffer = np.empty((q, BLOCK), f.dtype)
    begin, pulled, gathered = np.empty(q, np.int64), np.empty(q, np.int64), BLOCK * np.arange(q)
    flat, flat_out, flat_buffer = f.ravel(), out.ravel(), buffer.ravel()
    margin = 0 if q == 9 else 1
    for z in range(first + 1, last + 1):
        for y in range(margin, height - margin):
            for x in range(1, width - 1, BLOCK):
                n = min(BLOCK, width - 1 - x)
                for i in range(q):
                    begin[i] = ((i * depth + z) * height + y) * width + x
                    pulled[i] = begin[i] - (c[i, 0] * height + c[i, 1]) * width - c[i, 2]
                walls = walled and near_wall(solid, z, y, x, n)
                if walls:
                    gather(f, c, solid, table, z, y, x, n, buffer)
                source, start = (flat_buffer, gathered) if walls else (flat, pulled)
                if q == 9:
                    d2q9(source, start, flat_out, begin, n, k)
                else:
                    d3q19(source, start, flat_out, begin, n, k)
                if walls:
                    restore(f, solid, z, y, x, n, out)


@strict
def moments(f, c, half, rho, u):
    """Density and velocity of the inner cells.

    Parameters
    ----------
    f, c : as in ``flow``
    half : (3,) float, half the force
    rho : (r - 2, s - 2, t - 2) float, or with s in two dimensions
    u : (3, ...) float, as rho
    """
    margin = (f.shape[2] - rho.shape[1]) // 2
    n = rho.shape[2]
    for z in range(rho.shape[0]):
        for y in range(rho.shape[1]):
            density = rho[z, y]
            density[:] = 0
            u[:, z, y] = 0
            for i in range(f.shape[0]):
                row = f[i, z + 1, y + margin, 1 : n + 1]
                for x in range(n):
                    density[x] += row[x]
                for axis in range(3):
                    if c[i, axis] != 0:
                        sign, flow = f.dtype.type(c[i, axis]), u[axis, z, y]
                        for x in range(n):
                            flow[x] += sign * row[x]
            for axis in range(3):
                flow, part = u[axis, z, y], half[axis]
                for x in range(n):
                    flow[x] = (flow[x] - part) / density[x]
