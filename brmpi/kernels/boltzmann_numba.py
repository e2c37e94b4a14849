"""The loops of ``boltzmann``, compiled by Numba. Imported when they are first used: Numba takes long to load.

A row of cells is one loop: all its populations come in, collide, and go out, each as a stream of its own. In place each
goes where its opposite came from: no cell touches another's numbers, whatever the order. Where a wall is near, what
arrives is gathered in a buffer, collides there, and is put where it goes; solid cells keep what they have.
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
def relaxed(total, skew, w, along, even_along, odd_along, rest, bend, drift, keep_even, keep_odd):
    """Two opposite populations after the collision, from their even half and their odd half.

    Parameters
    ----------
    total, skew : float, sum and difference of the two before
    w, along, even_along, odd_along : float, weight; 3 c.u; parts of the force
    rest, bend, drift : float, of the equilibrium: what each direction has, its square and its linear term
    keep_even, keep_odd : float, what is kept of each half

    Returns
    -------
    float, float
    """
    even = keep_even * total + w * (rest + along * (bend * along + even_along))
    odd = keep_odd * skew + w * (drift * along + odd_along)
    return even + odd, even - odd


@strict
def d2q9(f, start, out, begin, first, last, k):
    """Collide a row of cells.

    Parameters
    ----------
    f : (…) float, one-dimensional
    start : (9,) int64, where in f each population of cell number 0 is
    out : (…) float, one-dimensional; may be f, where no cell is written that another one of the row reads
    begin : (9,) int64, where it goes in out
    first, last : int, numbers of the first cell and of that behind the last
    k : (22,) float, ``_Constants`` one after the other
    """
    one = f.dtype.type(1)
    even, odd, he, ke, ko, w0, w1, w2, three, sixth = k[0], k[1], k[2], k[3], k[4], k[5], k[6], k[7], k[8], k[9]
    hx, hy, fx, fy = k[10], k[11], k[12], k[13]
    e1, e2, e3, e4 = k[14], k[15], k[16], k[17]
    o1, o2, o3, o4 = k[18], k[19], k[20], k[21]
    for x in range(first, last):
        f0 = load(f, load(start, 0) + x)
        a, b = load(f, load(start, 1) + x), load(f, load(start, 2) + x)
        s1, d1 = a + b, a - b
        a, b = load(f, load(start, 3) + x), load(f, load(start, 4) + x)
        s2, d2 = a + b, a - b
        a, b = load(f, load(start, 5) + x), load(f, load(start, 6) + x)
        s3, d3 = a + b, a - b
        a, b = load(f, load(start, 7) + x), load(f, load(start, 8) + x)
        s4, d4 = a + b, a - b
        rho = f0 + (s1 + s2) + (s3 + s4)
        scale = three / rho
        u = (d1 + d3 + d4 + hx) * scale
        v = (d2 + d3 - d4 + hy) * scale
        rest = even * rho * (one - sixth * (u * u + v * v)) - (u * fx + v * fy)
        bend, drift = he * rho, odd * rho
        store(out, load(begin, 0) + x, f0 - (even * f0 - w0 * rest), 0)
        a, b = relaxed(s1, d1, w1, u, e1, o1, rest, bend, drift, ke, ko)
        store(out, load(begin, 1) + x, a, 1)
        store(out, load(begin, 2) + x, b, 2)
        a, b = relaxed(s2, d2, w1, v, e2, o2, rest, bend, drift, ke, ko)
        store(out, load(begin, 3) + x, a, 3)
        store(out, load(begin, 4) + x, b, 4)
        a, b = relaxed(s3, d3, w2, u + v, e3, o3, rest, bend, drift, ke, ko)
        store(out, load(begin, 5) + x, a, 5)
        store(out, load(begin, 6) + x, b, 6)
        a, b = relaxed(s4, d4, w2, u - v, e4, o4, rest, bend, drift, ke, ko)
        store(out, load(begin, 7) + x, a, 7)
        store(out, load(begin, 8) + x, b, 8)


@strict
def d3q19(f, start, out, begin, first, last, k):
    """Collide a row of cells.

    Parameters
    ----------
    f, start, out, begin, first, last : as in ``d2q9``, with 19 populations
    k : (34,) float, ``_Constants`` one after the other
    """
    one = f.dtype.type(1)
    even, odd, he, ke, ko, w0, w1, w2, three, sixth = k[0], k[1], k[2], k[3], k[4], k[5], k[6], k[7], k[8], k[9]
    hx, hy, hz, fx, fy, fz = k[10], k[11], k[12], k[13], k[14], k[15]
    e1, e2, e3, e4, e5, e6, e7, e8, e9 = k[16], k[17], k[18], k[19], k[20], k[21], k[22], k[23], k[24]
    o1, o2, o3, o4, o5, o6, o7, o8, o9 = k[25], k[26], k[27], k[28], k[29], k[30], k[31], k[32], k[33]
    for x in range(first, last):
        f0 = load(f, load(start, 0) + x)
        a, b = load(f, load(start, 1) + x), load(f, load(start, 2) + x)
        s1, d1 = a + b, a - b
        a, b = load(f, load(start, 3) + x), load(f, load(start, 4) + x)
        s2, d2 = a + b, a - b
        a, b = load(f, load(start, 5) + x), load(f, load(start, 6) + x)
        s3, d3 = a + b, a - b
        a, b = load(f, load(start, 7) + x), load(f, load(start, 8) + x)
        s4, d4 = a + b, a - b
        a, b = load(f, load(start, 9) + x), load(f, load(start, 10) + x)
        s5, d5 = a + b, a - b
        a, b = load(f, load(start, 11) + x), load(f, load(start, 12) + x)
        s6, d6 = a + b, a - b
        a, b = load(f, load(start, 13) + x), load(f, load(start, 14) + x)
        s7, d7 = a + b, a - b
        a, b = load(f, load(start, 15) + x), load(f, load(start, 16) + x)
        s8, d8 = a + b, a - b
        a, b = load(f, load(start, 17) + x), load(f, load(start, 18) + x)
        s9, d9 = a + b, a - b
        rho = f0 + (s1 + s2 + s3) + (s4 + s5 + s6) + (s7 + s8 + s9)
        scale = three / rho
        u = (d1 + d4 + d5 + d6 + d7 + hx) * scale
        v = (d2 + d4 - d5 + d8 + d9 + hy) * scale
        w = (d3 + d6 - d7 + d8 - d9 + hz) * scale
        rest = even * rho * (one - sixth * (u * u + v * v + w * w)) - (u * fx + v * fy + w * fz)
        bend, drift = he * rho, odd * rho
        store(out, load(begin, 0) + x, f0 - (even * f0 - w0 * rest), 0)
        a, b = relaxed(s1, d1, w1, u, e1, o1, rest, bend, drift, ke, ko)
        store(out, load(begin, 1) + x, a, 1)
        store(out, load(begin, 2) + x, b, 2)
        a, b = relaxed(s2, d2, w1, v, e2, o2, rest, bend, drift, ke, ko)
        store(out, load(begin, 3) + x, a, 3)
        store(out, load(begin, 4) + x, b, 4)
        a, b = relaxed(s3, d3, w1, w, e3, o3, rest, bend, drift, ke, ko)
        store(out, load(begin, 5) + x, a, 5)
        store(out, load(begin, 6) + x, b, 6)
        a, b = relaxed(s4, d4, w2, u + v, e4, o4, rest, bend, drift, ke, ko)
        store(out, load(begin, 7) + x, a, 7)
        store(out, load(begin, 8) + x, b, 8)
        a, b = relaxed(s5, d5, w2, u - v, e5, o5, rest, bend, drift, ke, ko)
        store(out, load(begin, 9) + x, a, 9)
        store(out, load(begin, 10) + x, b, 10)
        a, b = relaxed(s6, d6, w2, u + w, e6, o6, rest, bend, drift, ke, ko)
        store(out, load(begin, 11) + x, a, 11)
        store(out, load(begin, 12) + x, b, 12)
        a, b = relaxed(s7, d7, w2, u - w, e7, o7, rest, bend, drift, ke, ko)
        store(out, load(begin, 13) + x, a, 13)
        store(out, load(begin, 14) + x, b, 14)
        a, b = relaxed(s8, d8, w2, v + w, e8, o8, rest, bend, drift, ke, ko)
        store(out, load(begin, 15) + x, a, 15)
        store(out, load(begin, 16) + x, b, 16)
        a, b = relaxed(s9, d9, w2, v - w, e9, o9, rest, bend, drift, ke, ko)
        store(out, load(begin, 17) + x, a, 17)
        store(out, load(begin, 18) + x, b, 18)


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
def gather(f, start, bounce, solid, source, table, first, last, buffer):
    """Collect what arrives in a row of cells; from a solid cell, what bounces back.

    Parameters
    ----------
    f : (…) float, one-dimensional
    start, bounce : (q,) int64, where in f each population of cell number 0 is, and where it is after a bounce
    solid : (…) uint8, one-dimensional
    source : (q,) int64, where in solid the cell is that it comes from
    table : (q, 256) float
    first, last : int, as in ``d2q9``
    buffer : (q, BLOCK) float
    """
    for i in range(len(start)):
        arrives, back = f[start[i] + first : start[i] + last], f[bounce[i] + first : bounce[i] + last]
        wall, row, gain = solid[source[i] + first : source[i] + last], buffer[i], table[i]
        for j in range(last - first):
            bounced = back[j] + gain[wall[j]]
            row[j] = bounced if wall[j] != 0 else arrives[j]


@strict
def scatter(buffer, f, solid, out, begin, first, last):
    """Put a row of cells where it goes; solid ones keep what they have.

    Parameters
    ----------
    buffer : (q, BLOCK) float
    f : (…) float, one-dimensional, which has the populations of solid cells at the same places as out
    solid : (…) uint8, one-dimensional
    out, begin, first, last : as in ``d2q9``
    """
    wall = solid[first:last]
    for i in range(len(begin)):
        place = slice(begin[i] + first, begin[i] + last)
        row, had, now = buffer[i], f[place], out[place]
        for j in range(last - first):
            now[j] = row[j] if wall[j] == 0 else had[j]


def step(f, out, ahead, constants, solid, table, inner):
    """Stream and collide once; arguments as ``boltzmann`` has checked them, none of them empty.

    Parameters
    ----------
    f, out : (q, r, s) or (q, r, s, t) float64 or float32; the same array for a step in place
    ahead : bool, arrangement of a step in place; None is one from array to array
    constants : ``boltzmann._Constants``
    solid : (r, s) or (r, s, t) uint8, or None
    table : (q, 256) same dtype
    inner : range, of rows
    """
    planes = np.zeros((1, 1, 1), np.uint8) if solid is None else _planes(solid[None])[0]
    flat = np.concatenate([np.ravel(values) for values in constants])
    flow(_planes(f), _planes(out), _cube(f), flat, planes, solid is not None, table, inner.start, inner.stop,
         ahead is not None, bool(ahead))


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
def flow(f, out, c, k, solid, walled, table, first, last, in_place, ahead):
    """Stream and collide rows first to last.

    Parameters
    ----------
    f, out : (q, r, s, t) float, C-contiguous; s is 1, without halo, in two dimensions
    c : (q, 3) int64
    k : (22,) or (34,) float
    solid : (r, s, t) uint8
    walled : bool, whether to look at solid
    table : (q, 256) float
    first, last : int
    in_place, ahead : bool, whether out is f, and its arrangement
    """
    q, depth, height, width = f.shape
    size = depth * height * width
    buffer = np.empty((q, BLOCK), f.dtype)
    start, bounce, source, begin = np.empty((4, q), np.int64)
    gathered = BLOCK * np.arange(q)
    flat, flat_out, flat_buffer, flat_solid = f.ravel(), out.ravel(), buffer.ravel(), solid.ravel()
    margin = 0 if q == 9 else 1
    for i in range(q):  # of the cell at the origin
        source[i] = -(c[i, 0] * height + c[i, 1]) * width - c[i, 2]
        there, own = i * size + source[i], opposite(i) * size
        start[i], bounce[i] = (own, there) if ahead else (there, own)
    for i in range(q):
        begin[i] = start[opposite(i)] if in_place else i * size
    for z in range(first + 1, last + 1):
        for y in range(margin, height - margin):
            row = (z * height + y) * width
            for x in range(1, width - 1, BLOCK):
                n, here = min(BLOCK, width - 1 - x), row + x
                if walled and near_wall(solid, z, y, x, n):
                    gather(flat, start, bounce, flat_solid, source, table, here, here + n, buffer)
                    collide(flat_buffer, gathered, flat_buffer, gathered, 0, n, k)
                    scatter(buffer, flat, flat_solid, flat_out, begin, here, here + n)
                else:
                    collide(flat, start, flat_out, begin, here, here + n, k)


@strict
def collide(f, start, out, begin, first, last, k):
    """Collide a row of cells on either lattice.

    Parameters
    ----------
    f, start, out, begin, first, last, k : as in ``d2q9`` or ``d3q19``
    """
    if len(start) == 9:
        d2q9(f, start, out, begin, first, last, k)
    else:
        d3q19(f, start, out, begin, first, last, k)


@strict
def opposite(i):
    """Number of the opposite direction.

    Parameters
    ----------
    i : int

    Returns
    -------
    int
    """
    return 0 if i == 0 else i + 1 if i % 2 == 1 else i - 1


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
