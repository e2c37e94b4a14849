"""The loops of ``tree``, compiled by Numba. Imported when they are first used: Numba takes long to load."""

from functools import partial

import numpy as np
from numba import njit

from brmpi.kernels import tree
from brmpi.kernels.compiled import compiled
from brmpi.kernels.gravity import NEAREST, TINY
from brmpi.kernels.gravity_numba import difference, inverse_cube, inverse_root
from brmpi.kernels.tree import BITS, CELL_COST, COLUMNS, KINDS, SPREAD

PIECE, CELLS = 1024, 256  # bodies and cells at a time, which stay in the nearest cache
PART = 256  # bodies summed in float32
VECTOR = 32  # sources are filled up to a multiple of this with what has no mass: no rest for the vector loops
DIGIT = 11  # bits that are sorted by at a time
MIXED, POTENTIAL = KINDS.index("mixed"), KINDS.index("potential")

# All ranks must find the same cells, and open the same ones: no freedom in the order of operations.
exactly = partial(compiled, fastmath=False)
forest = exactly(tree.forest)
skips = exactly(tree.skips)
groups = exactly(tree.groups)
moments = exactly(tree.moments)
opened = njit(error_model="numpy", inline="always")(tree.opened)
essential = exactly(tree.essential)


@exactly
def keys(pos, low, side):
    """As ``tree.keys``.

    Parameters
    ----------
    pos : (3, n) float64
    low : (3,) float64
    side : float

    Returns
    -------
    (n,) int64
    """
    found, scale = np.empty(pos.shape[1], np.int64), 2.0**BITS / side
    for i in range(found.size):
        key = np.int64(0)
        for axis in range(3):
            x = min(max(np.int64((pos[axis, i] - low[axis]) * scale), np.int64(0)), np.int64(2**BITS - 1))
            for shift, mask in SPREAD:
                x = (x | x << shift) & mask
            key = key << 1 | x
        found[i] = key
    return found


@exactly
def sort(key):
    """As ``tree.sort``, by ``DIGIT`` bits at a time.

    Parameters
    ----------
    key : (n,) int64, not negative

    Returns
    -------
    (n,) int64
    """
    n, mask = key.size, (1 << DIGIT) - 1
    places, values = np.arange(n), key.copy()
    other_places, other_values = np.empty(n, np.int64), np.empty(n, np.int64)
    for shift in range(0, 3 * BITS, DIGIT):
        free = np.zeros(mask + 2, np.int64)
        for value in values:
            free[(value >> shift & mask) + 1] += 1
        for digit in range(mask + 1):
            free[digit + 1] += free[digit]
        for i in range(n):
            digit = values[i] >> shift & mask
            to = free[digit]
            free[digit] = to + 1
            other_places[to], other_values[to] = places[i], values[i]
        places, other_places = other_places, places
        values, other_values = other_values, values
    return places


@compiled
def _near(targets, begin, end, near, count, eps2, sums):
    x, y, z, m = near[0], near[1], near[2], near[3]
    for i in range(begin, end):
        xi, yi, zi = targets[0, i], targets[1, i], targets[2, i]
        ax = ay = az = 0.0
        for j in range(count):
            dx, dy, dz = x[j] - xi, y[j] - yi, z[j] - zi
            w = m[j] * inverse_cube(max(dx * dx + dy * dy + dz * dz + eps2, TINY))
            ax += w * dx
            ay += w * dy
            az += w * dz
        sums[0, i - begin] += ax
        sums[1, i - begin] += ay
        sums[2, i - begin] += az


@compiled
def _far(targets, begin, end, far, count, eps2, sums):
    x, y, z, m, t = far[0], far[1], far[2], far[3], far[4]
    xx, xy, xz, yy, yz, zz = far[5], far[6], far[7], far[8], far[9], far[10]
    for i in range(begin, end):
        xi, yi, zi = targets[0, i], targets[1, i], targets[2, i]
        ax = ay = az = 0.0
        for j in range(count):
            dx, dy, dz = x[j] - xi, y[j] - yi, z[j] - zi
            w = inverse_root(max(dx * dx + dy * dy + dz * dz + eps2, TINY))
            w2 = w * w
            w3 = w2 * w
            w5 = w3 * w2
            qx = xx[j] * dx + xy[j] * dy + xz[j] * dz
            qy = xy[j] * dx + yy[j] * dy + yz[j] * dz
            qz = xz[j] * dx + yz[j] * dy + zz[j] * dz
            s = m[j] * w3 + (2.5 * (dx * qx + dy * qy + dz * qz) * w2 - t[j]) * w5
            ax += s * dx - w5 * qx
            ay += s * dy - w5 * qy
            az += s * dz - w5 * qz
        sums[0, i - begin] += ax
        sums[1, i - begin] += ay
        sums[2, i - begin] += az


@compiled
def _near_potential(targets, begin, end, near, count, eps2, sums):
    x, y, z, m = near[0], near[1], near[2], near[3]
    for i in range(begin, end):
        xi, yi, zi = targets[0, i], targets[1, i], targets[2, i]
        phi = 0.0
        for j in range(count):
            dx, dy, dz = x[j] - xi, y[j] - yi, z[j] - zi
            r2 = dx * dx + dy * dy + dz * dz
            phi += m[j] * inverse_root(max(r2 + eps2, TINY)) if r2 > 0 else 0.0
        sums[0, i - begin] -= phi


@compiled
def _far_potential(targets, begin, end, far, count, eps2, sums):
    x, y, z, m, t = far[0], far[1], far[2], far[3], far[4]
    xx, xy, xz, yy, yz, zz = far[5], far[6], far[7], far[8], far[9], far[10]
    for i in range(begin, end):
        xi, yi, zi = targets[0, i], targets[1, i], targets[2, i]
        phi = 0.0
        for j in range(count):
            dx, dy, dz = x[j] - xi, y[j] - yi, z[j] - zi
            w = inverse_root(max(dx * dx + dy * dy + dz * dz + eps2, TINY))
            w2 = w * w
            s = (dx * (xx[j] * dx + 2 * (xy[j] * dy + xz[j] * dz)) + dy * (yy[j] * dy + 2 * (yz[j] * dz))
                 + dz * (zz[j] * dz))
            phi += w * (m[j] + w2 * (s * (w2 / 2) - t[j] / 3))
        sums[0, i - begin] -= phi


@compiled
def _near_mixed(high, low, near_high, near_low, near_mass, count, eps2, unit, sums):
    one, zero = np.float32(1), np.float32(0)
    for first in range(0, count, PART):
        here = slice(first, first + PART)
        x, y, z, mass = near_high[0, here], near_high[1, here], near_high[2, here], near_mass[here]
        xl, yl, zl = near_low[0, here], near_low[1, here], near_low[2, here]
        for i in range(high.shape[1]):
            xi, yi, zi, xli, yli, zli = high[0, i], high[1, i], high[2, i], low[0, i], low[1, i], low[2, i]
            ax = ay = az = zero
            for j in range(PART):
                dx = difference(x[j], xi, xl[j], xli)
                dy = difference(y[j], yi, yl[j], yli)
                dz = difference(z[j], zi, zl[j], zli)
                w = one / np.sqrt(max(dx * dx + dy * dy + dz * dz + eps2, NEAREST))
                w = mass[j] * w * w * w
                ax += w * dx
                ay += w * dy
                az += w * dz
            sums[0, i] += unit * ax
            sums[1, i] += unit * ay
            sums[2, i] += unit * az


@compiled
def _far_mixed(high, low, far, far_low, count, eps2, unit, sums):
    one, zero, most = np.float32(1), np.float32(0), np.float32(2.5)
    x, y, z, m, t, xl, yl, zl = far[0], far[1], far[2], far[3], far[4], far_low[0], far_low[1], far_low[2]
    xx, xy, xz, yy, yz, zz = far[5], far[6], far[7], far[8], far[9], far[10]
    for i in range(high.shape[1]):
        xi, yi, zi, xli, yli, zli = high[0, i], high[1, i], high[2, i], low[0, i], low[1, i], low[2, i]
        ax = ay = az = zero
        for j in range(count):
            dx = difference(x[j], xi, xl[j], xli)
            dy = difference(y[j], yi, yl[j], yli)
            dz = difference(z[j], zi, zl[j], zli)
            w = one / np.sqrt(max(dx * dx + dy * dy + dz * dz + eps2, NEAREST))
            w2 = w * w
            ux, uy, uz = w * dx, w * dy, w * dz  # a unit vector: no power of w above the fourth is needed
            w4 = w2 * w2
            qx = xx[j] * ux + xy[j] * uy + xz[j] * uz
            qy = xy[j] * ux + yy[j] * uy + yz[j] * uz
            qz = xz[j] * ux + yz[j] * uy + zz[j] * uz
            s = m[j] * w2 + (most * (ux * qx + uy * qy + uz * qz) - t[j]) * w4
            ax += s * ux - w4 * qx
            ay += s * uy - w4 * qy
            az += s * uz - w4 * qz
        sums[0, i] += unit * ax
        sums[1, i] += unit * ay
        sums[2, i] += unit * az


@exactly
def _emptied(buffer, count, width):
    """Fill a buffer up to a multiple of ``width`` with what has no mass; returns where that ends."""
    end = -(-count // width) * width
    buffer[:, count:end] = 0.0
    return end


@exactly
def _add_near(kind, targets, begin, end, near, count, eps2, sums, halves, middle, unit):
    """Add the terms of bodies to a group's sums."""
    if kind == POTENTIAL:
        _near_potential(targets, begin, end, near, _emptied(near, count, VECTOR), eps2, sums)
    elif kind == MIXED:
        count = _emptied(near, count, PART)
        high, low = np.empty((3, count), np.float32), np.empty((3, count), np.float32)
        _split(near, 0, count, middle, unit, high, low)
        mass = near[3, :count].astype(np.float32)
        _near_mixed(halves[0], halves[1], high, low, mass, count, np.float32(eps2 / unit**2), 1 / unit**2, sums)
    else:
        _near(targets, begin, end, near, _emptied(near, count, VECTOR), eps2, sums)


@exactly
def _add_far(kind, targets, begin, end, far, count, eps2, sums, halves, middle, unit):
    """Add the terms of cells to a group's sums."""
    count = _emptied(far, count, VECTOR)
    if kind == POTENTIAL:
        _far_potential(targets, begin, end, far, count, eps2, sums)
    elif kind == MIXED:
        high, low = np.empty((COLUMNS - 1, count), np.float32), np.empty((3, count), np.float32)
        _split(far, 0, count, middle, unit, high, low)
        high[3] = far[3, :count]
        high[4:] = far[4:, :count] / unit**2
        _far_mixed(halves[0], halves[1], high, low, count, np.float32(eps2 / unit**2), 1 / unit**2, sums)
    else:
        _far(targets, begin, end, far, count, eps2, sums)


@exactly
def _split(pos, begin, end, middle, unit, high, low):
    """Positions relative to a point, in a unit that is a power of two, as pairs of float32."""
    for a in range(3):
        for j in range(begin, end):
            value = (pos[a, j] - middle[a]) / unit
            high[a, j - begin] = np.float32(value)
            low[a, j - begin] = np.float32(value - np.float64(high[a, j - begin]))


@exactly
def field(kind, targets, group, first, last, skip, rows, box, bodies, theta, eps2, out, cost):
    """As ``tree.field``; returns how many cells are to be opened whose parts are not known.

    Parameters
    ----------
    kind : int, index of ``tree.KINDS``
    targets : (4, n) float64
    group : (groups, 2) int64
    first, last, skip, rows : of the tree
    box : (groups, 6) float64
    bodies : (4, m) float64, of the tree
    theta, eps2 : float
    out : (3 or 1, n) float64, is written
    cost : (n,) int64, is written

    Returns
    -------
    int
    """
    near, far = np.empty((4, PIECE)), np.empty((COLUMNS - 1, CELLS))
    unknown = 0
    for g in range(group.shape[0]):
        begin, end = group[g]
        sums = np.zeros((3, end - begin))
        lx, ly, lz, hx, hy, hz = box[g]
        middle = (box[g, :3] + box[g, 3:]) / 2
        unit = 2.0 ** np.ceil(np.log2(max(hx - lx, hy - ly, hz - lz, 2.0**-BITS)))
        size = end - begin if kind == MIXED else 0
        halves = np.empty((2, 3, size), np.float32)
        _split(targets, begin, begin + size, middle, unit, halves[0], halves[1])
        count = many = terms = 0
        i = 0
        while i < skip.size:
            held = last[i] - first[i]
            if not opened(rows[i], held, lx, ly, lz, hx, hy, hz, theta):
                for c in range(COLUMNS - 1):
                    far[c, many] = rows[i, c]
                many += 1
                terms += CELL_COST
                if many == CELLS:
                    _add_far(kind, targets, begin, end, far, many, eps2, sums, halves, middle, unit)
                    many = 0
                i = skip[i]
            elif held > 0:
                terms += held
                a = first[i]
                while a < last[i]:
                    b = min(last[i], a + PIECE - count)
                    for c in range(4):
                        for j in range(a, b):
                            near[c, count + j - a] = bodies[c, j]
                    count += b - a
                    a = b
                    if count == PIECE:
                        _add_near(kind, targets, begin, end, near, count, eps2, sums, halves, middle, unit)
                        count = 0
                i += 1
            else:
                unknown += skip[i] == i + 1
                i += 1
        _add_near(kind, targets, begin, end, near, count, eps2, sums, halves, middle, unit)
        _add_far(kind, targets, begin, end, far, many, eps2, sums, halves, middle, unit)
        for a in range(out.shape[0]):
            for j in range(begin, end):
                out[a, j] = sums[a, j - begin]
        for j in range(begin, end):
            cost[j] = terms
    return unknown
