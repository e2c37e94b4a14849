"""The loops of ``shallow``, compiled by Numba. Imported when they are first used: Numba takes long to load.

A block of columns goes up through the rows. Depths and velocities of the rows that are needed, slopes, and what goes
through faces, are in buffers that stay in a cache; each face is computed once. A loop runs along a row: vectors, as no
number of its depends on another. Floating point is strict here: the bits are NumPy's.
"""

import functools

import numpy as np
from numba import types
from numba.extending import intrinsic

from brmpi.kernels.compiled import compiled
from brmpi.kernels.shallow import CUBE_ROOT, STILL, THETA
from brmpi.kernels.unaliased import STREAMS, _address, _scopes, load, store

BLOCK = 256  # columns: the buffers are some 100 kB, for the second nearest cache

# streams of ``store`` and ``take``: arrays of different numbers do not overlap
DEPTH, SPEED = 0, 1
SLOPE_W, SLOPE_H, SLOPE_U = 2, 3, 4
MASS, LOW, HIGH, ALONG, PEAK = 5, 6, 7, 8, 9
OUT_W, OUT_U, OUT_V = 10, 11, 12

strict = functools.partial(compiled, fastmath=False)


@intrinsic(prefer_literal=True)
def take(typing, array, index, stream):
    """Number of an array that ``store`` writes as a stream, which no other stream overlaps.

    Parameters
    ----------
    typing : Numba's
    array : array, one-dimensional and contiguous
    index : int >= 0, not checked
    stream : literal int < STREAMS
    """
    number = stream.literal_value

    def _code(context, builder, signature, arguments):
        value = builder.load(_address(context, builder, signature.args[0], *arguments[:2]))
        others = ["read", *(other for other in range(STREAMS) if other != number)]
        value.set_metadata("alias.scope", _scopes(builder.module, [number]))
        value.set_metadata("noalias", _scopes(builder.module, others))
        return value

    return array.dtype(array, types.int64, stream), _code


@strict
def still(q, b, at, plane, h, u, v, to, n, dry):
    """Depths and velocities of a row of cells.

    Parameters
    ----------
    q, b : (…) float64, flat
    at : int, the first cell's place in b, and in the first plane of q
    plane : int, numbers of a plane of q
    h, u, v : (…) float64, written
    to : int, the first cell's place in them
    n : int, cells
    dry : float
    """
    for x in range(n):
        depth = load(q, at + x) - load(b, at + x)
        wet = depth > dry
        inverse = 1.0 / (depth if wet else 1.0)
        pu, pv = load(q, at + plane + x) * inverse, load(q, at + 2 * plane + x) * inverse
        store(h, to + x, depth, 0)
        store(u, to + x, pu if wet else 0.0, 1)
        store(v, to + x, pv if wet else 0.0, 1)


@strict
def limited(before, here, after):
    """A half difference.

    Parameters
    ----------
    before, here, after : float, of three cells in a row

    Returns
    -------
    float
    """
    before, after = here - before, after - here
    least = 0.5 * THETA * (before if abs(before) < abs(after) else after)
    mean = 0.25 * (before + after)
    less = mean if abs(mean) < abs(least) else least
    return less if before * after > 0 else 0.0


@strict
def slopes(q, at, away, h, u, v, low, middle, high, sw, sh, su, sv, to, n, dry):
    """Half differences of a row of cells, along it or across.

    Parameters
    ----------
    q : (…) float64, flat
    at : int, the first cell's place in it
    away : int, how far its neighbour is
    h, u, v : (…) float64, depths and velocities
    low, middle, high : int, places of the first cell's lower neighbour in them, of itself and of the higher one
    sw, sh, su, sv : (…) float64, of level, depth and velocities, written
    to : int, the first cell's place in them
    n : int, cells
    dry : float
    """
    for x in range(n):
        here = at + x
        rise = limited(load(q, here - away), load(q, here), load(q, here + away))
        store(sw, to + x, rise if take(h, middle + x, 0) > dry else 0.0, 2)
        store(sh, to + x, limited(take(h, low + x, 0), take(h, middle + x, 0), take(h, high + x, 0)), 3)
        store(su, to + x, limited(take(u, low + x, 1), take(u, middle + x, 1), take(u, high + x, 1)), 4)
        store(sv, to + x, limited(take(v, low + x, 1), take(v, middle + x, 1), take(v, high + x, 1)), 4)


@strict
def face(wl, hl, ul, vl, wr, hr, ur, vr, g, dry):
    """What goes through a face, as ``shallow._face``.

    Parameters
    ----------
    wl, hl, ul, vl, wr, hr, ur, vr : float, level, depth, and velocity through and along the face, on both sides
    g, dry : float

    Returns
    -------
    five float
    """
    bl, br = wl - hl, wr - hr
    top = bl if bl > br else br
    hl, hr = wl - top, wr - top
    hl, hr = hl if hl > 0 else 0.0, hr if hr > 0 else 0.0
    cl, cr = np.sqrt(g * hl), np.sqrt(g * hr)
    a, other = ur - (cr if hl > dry else cr + cr), ul - cl
    a = other if other < a else a
    a = a if a < 0 else 0.0
    z, other = ul + (cl if hr > dry else cl + cl), ur + cr
    z = other if other > z else z
    z = z if z > 0 else 0.0
    width = z - a
    inverse = 1.0 / (width if width > STILL else 1.0)
    product, middle = a * z, 0.5 * (a + z)
    ml, mr = hl * ul, hr * ur
    kl, kr = ml * ul, mr * ur
    dh, dm = hr - hl, mr - ml
    half = 0.5 * (0.5 * g * (dh * (hl + hr)))
    mass = 0.5 * (ml + mr) + (product * dh - middle * dm) * inverse
    push = 0.5 * (kl + kr) + (product * dm - middle * ((kr - kl) + (half + half))) * inverse
    along = 0.5 * (ml * vl + mr * vr) + (product * (hr * vr - hl * vl) - middle * (mr * vr - ml * vl)) * inverse
    return mass, push + half, push - half, along, z if z > -a else -a


@strict
def faces(q, ql, qr, h, u, v, pl, pr, slope, sl, sr, mass, low, high, along, to, peak, n, g, dry):
    """What goes through a row of faces.

    Parameters
    ----------
    q : (…) float64, flat
    ql, qr : int, places in it of the cells on the low and the high side of the first face
    h, u, v : (…) float64, depths, and velocities through and along the faces
    pl, pr : int, places in them
    slope : tuple of 4 (…) float64, of level, depth and these velocities
    sl, sr : int, places in them
    mass, low, high, along : (…) float64, written
    to : int, the first face's place in them
    peak : (n,) float64, the fastest wave so far, changed
    n : int, faces
    g, dry : float
    """
    sw, sh, su, sv = slope
    for x in range(n):
        dwl, dhl, dul, dvl = take(sw, sl + x, 2), take(sh, sl + x, 3), take(su, sl + x, 4), take(sv, sl + x, 4)
        dwr, dhr, dur, dvr = take(sw, sr + x, 2), take(sh, sr + x, 3), take(su, sr + x, 4), take(sv, sr + x, 4)
        found = face(load(q, ql + x) + dwl, take(h, pl + x, 0) + dhl, take(u, pl + x, 1) + dul,
                     take(v, pl + x, 1) + dvl, load(q, qr + x) - dwr, take(h, pr + x, 0) - dhr,
                     take(u, pr + x, 1) - dur, take(v, pr + x, 1) - dvr, g, dry)
        store(mass, to + x, found[0], 5)
        store(low, to + x, found[1], 6)
        store(high, to + x, found[2], 7)
        store(along, to + x, found[3], 8)
        before = take(peak, x, 9)
        store(peak, x, before if found[4] <= before else found[4], 9)


@strict
def slowed(hu, hv, h, drag):
    """What friction leaves of momentum.

    Parameters
    ----------
    hu, hv, h, drag : float

    Returns
    -------
    float
    """
    root = np.sqrt(np.sqrt(h * np.sqrt(h)))
    for _ in range(CUBE_ROOT):
        cube = root * root * root
        root = root * ((cube + (h + h)) / ((cube + cube) + h))
    return 1.0 / (1.0 + drag * np.sqrt(hu * hu + hv * hv) / (h * h * root))


@strict
def cells(q, b, out, at, plane, h, middle, rise_x, sx, rise_y, sy, through_x, fx, through_y, south, north, numbers,
          average, n):
    """A row of cells after the step.

    Parameters
    ----------
    q, b, out : (…) float64, flat
    at : int, the first cell's place
    plane : int, numbers of a plane of q
    h : (…) float64, depths
    middle : int, the first cell's place in it
    rise_x : (…) float64, slopes of the level along x
    sx : int, the first cell's place in it
    rise_y : (…) float64, along y
    sy : int, the first cell's place in it
    through_x : tuple of 4 (…) float64, what goes through faces along x
    fx : int, place of the face before the first cell in them
    through_y : tuple of 4 (…) float64, along y
    south, north : int, places of the faces below and above the first cell in them
    numbers : tuple of 5 float
    average : bool
    n : int, cells
    """
    ty, tx, g, dry, drag = numbers
    mx, lx, hx, ax = through_x
    my, ly, hy, ay = through_y
    for x in range(n):
        west, east, low, up = fx + x, fx + x + 1, south + x, north + x
        gh = g * take(h, middle + x, 0)
        dx, dy = take(rise_x, sx + x, 2), take(rise_y, sy + x, 2)
        level = load(q, at + x) - (tx * (take(mx, east, 5) - take(mx, west, 5))
                                   + ty * (take(my, up, 5) - take(my, low, 5)))
        hu = load(q, at + plane + x) - (tx * ((take(lx, east, 6) - take(hx, west, 7)) + gh * (dx + dx))
                                        + ty * (take(ay, up, 8) - take(ay, low, 8)))
        hv = load(q, at + 2 * plane + x) - (ty * ((take(ly, up, 6) - take(hy, low, 7)) + gh * (dy + dy))
                                            + tx * (take(ax, east, 8) - take(ax, west, 8)))
        if average:
            level = 0.5 * (take(out, at + x, 10) + level)
            hu = 0.5 * (take(out, at + plane + x, 11) + hu)
            hv = 0.5 * (take(out, at + 2 * plane + x, 12) + hv)
        bottom = load(b, at + x)
        level = bottom if level < bottom else level
        depth = level - bottom
        wet = depth > dry
        hu, hv = hu if wet else 0.0, hv if wet else 0.0
        if drag > 0:
            slow = slowed(hu, hv, depth if wet else 1.0, drag)
            hu, hv = hu * slow, hv * slow
        store(out, at + x, level, 10)
        store(out, at + plane + x, hu, 11)
        store(out, at + 2 * plane + x, hv, 12)


@strict
def step(q, b, out, numbers, order, average, first, last):
    """Euler step.

    Parameters
    ----------
    q, b, out : (3, n + 2 order, m + 2 order), (…, …) and as q, float64
    numbers : tuple of 5 float: dt/dy, dt/dx, gravity, dry, drag
    order : int
    average : bool
    first, last : int, rows of the interior

    Returns
    -------
    (float, float)
    """
    m, plane, halo = q.shape[2], q.shape[1] * q.shape[2], order
    flat, bottom, new = q.ravel(), b.ravel(), out.ravel()
    g, dry = numbers[2], numbers[3]
    w = BLOCK + 4  # cells of a buffer's row
    h, u, v = np.empty(4 * w), np.empty(4 * w), np.empty(4 * w)
    along_x = (np.zeros(w), np.zeros(w), np.zeros(w), np.zeros(w))  # slopes: 0 at order 1
    along_y = (np.zeros(2 * w), np.zeros(2 * w), np.zeros(2 * w), np.zeros(2 * w))
    across_y = (along_y[0], along_y[1], along_y[3], along_y[2])
    fx = (np.empty(w), np.empty(w), np.empty(w), np.empty(w))
    fy = (np.empty(2 * w), np.empty(2 * w), np.empty(2 * w), np.empty(2 * w))
    peak_x, peak_y = np.zeros(w), np.zeros(w)
    begin, end = first + halo, last + halo
    for c in range(halo, m - halo, BLOCK):
        n = min(BLOCK, m - halo - c)
        for r in range(begin - halo, begin + halo - 1):
            still(flat, bottom, r * m + c - halo, plane, h, u, v, (r & 3) * w, n + 2 * halo, dry)
        if order == 2:
            r = begin - 1
            slopes(flat, r * m + c, m, h, u, v, ((r - 1) & 3) * w + 2, (r & 3) * w + 2, ((r + 1) & 3) * w + 2,
                   along_y[0], along_y[1], along_y[2], along_y[3], (r & 1) * w, n, dry)
        for r in range(begin - 1, end):
            still(flat, bottom, (r + halo) * m + c - halo, plane, h, u, v, ((r + halo) & 3) * w, n + 2 * halo, dry)
            here, above, lower, upper = (r & 3) * w + halo, ((r + 1) & 3) * w + halo, (r & 1) * w, ((r + 1) & 1) * w
            at = r * m + c
            if order == 2:
                slopes(flat, at + m, m, h, u, v, here, above, ((r + 2) & 3) * w + 2,
                       along_y[0], along_y[1], along_y[2], along_y[3], upper, n, dry)
            faces(flat, at, at + m, h, v, u, here, above, across_y, lower, upper, fy[0], fy[1], fy[2], fy[3], lower,
                  peak_y, n, g, dry)
            if r < begin:
                continue
            if order == 2:  # from the cell before the first to the one behind the last
                slopes(flat, at - 1, 1, h, u, v, here - 2, here - 1, here,
                       along_x[0], along_x[1], along_x[2], along_x[3], 0, n + 2, dry)
            faces(flat, at - 1, at, h, u, v, here - 1, here, along_x, 0, 1, fx[0], fx[1], fx[2], fx[3], 0, peak_x,
                  n + 1, g, dry)
            cells(flat, bottom, new, at, plane, h, here, along_x[0], 1, along_y[0], lower, fx, 0, fy, upper, lower,
                  numbers, average, n)
    return peak_y.max(), peak_x.max()
