"""The loops of ``stencil``, compiled by Numba. Imported when they are first used: Numba takes long to load.

Arrays are taken flat, and a cell's neighbours are a row of m or a plane of p numbers away: views of rows would cost
half the time of a short one. No freedom is given in the order or the rounding of operations: the bits are NumPy's.
``before`` in the memory of ``out`` has its own loop, which reads it as what it is. In three dimensions the rows of a
plane come in blocks, so many that the planes which a stencil reads fill ``cache`` bytes and stay in a cache until the
next plane needs them.
"""

import functools

import numpy as np

from brmpi.kernels import cache as this_cache
from brmpi.kernels.compiled import compiled
from brmpi.kernels.unaliased import load, look, store

BLOCKED = ("heat7", "conduct7", "wave7", "wave13")
PARAMETERS = {name: {"cache": (None, 1 << 16, 1 << 18, 1 << 20)} for name in BLOCKED}  # bytes; None for this core's

exactly = functools.partial(compiled, fastmath=False)


def blocked(loop, planes, u, *arguments, cache=None):
    """Run a loop over blocks of rows.

    Parameters
    ----------
    loop : function whose last argument is the rows of a block
    planes : int, that the stencil reads
    u : (l, n, m) float
    *arguments : further ones
    cache : int, bytes, or None for this core's
    """
    rows = (cache or this_cache()) // (planes * u.shape[2] * u.itemsize)
    loop(u, *arguments, min(u.shape[1], max(4, rows)))


@exactly
def heat5(u, out, c, first, last):
    """Explicit step of the heat equation, 5 points.

    Parameters
    ----------
    u, out : (n + 2, m + 2) float
    c : tuple of 2 float
    first, last : int, rows of the interior
    """
    m = u.shape[1]
    c0, c1 = c
    a, new = u.ravel(), out.ravel()
    for i in range(first + 1, last + 1):
        for j in range(i * m + 1, i * m + m - 1):
            x = load(a, j)
            two = x + x
            rise = c0 * ((load(a, j - m) + load(a, j + m)) - two)
            store(new, j, x + (rise + c1 * ((load(a, j - 1) + load(a, j + 1)) - two)), 0)


@exactly
def heat7_rows(u, out, c, first, last, rows):
    """Explicit step of the heat equation, 7 points.

    Parameters
    ----------
    u, out : (l + 2, n + 2, m + 2) float
    c : tuple of 3 float
    first, last : int, planes of the interior
    rows : int, of a block
    """
    n, m = u.shape[1], u.shape[2]
    p, (c0, c1, c2) = n * m, c
    a, new = u.ravel(), out.ravel()
    for begin in range(1, n - 1, rows):
        for h in range(first + 1, last + 1):
            for i in range(begin, min(begin + rows, n - 1)):
                at = h * p + i * m
                for j in range(at + 1, at + m - 1):
                    x = load(a, j)
                    two = x + x
                    rise = c0 * ((load(a, j - p) + load(a, j + p)) - two)
                    rise = rise + c1 * ((load(a, j - m) + load(a, j + m)) - two)
                    store(new, j, x + (rise + c2 * ((load(a, j - 1) + load(a, j + 1)) - two)), 0)


@exactly
def heat9(u, out, c, weights, first, last):
    """Explicit step of the heat equation, 9 points.

    Parameters
    ----------
    u, out : (n + 2, m + 2) float
    c : float, a sixth of the step's
    weights : tuple of 2 float, 4 and 20
    first, last : int, rows of the interior
    """
    m = u.shape[1]
    four, twenty = weights
    a, new = u.ravel(), out.ravel()
    for i in range(first + 1, last + 1):
        for j in range(i * m + 1, i * m + m - 1):
            near = (load(a, j - m) + load(a, j + m)) + (load(a, j - 1) + load(a, j + 1))
            lower, upper = load(a, j - m - 1) + load(a, j - m + 1), load(a, j + m - 1) + load(a, j + m + 1)
            x = load(a, j)
            store(new, j, x + c * ((four * near + (lower + upper)) - twenty * x), 0)


@exactly
def flux(u, k, i, j, c, harmonic, one):
    """What flows through the face between two cells.

    Parameters
    ----------
    u, k : (…) float, flat
    i, j : int, the cells' places
    c : float, twice (harmonic) or half the step's
    harmonic : bool, which mean of the conductivities
    one : float

    Returns
    -------
    float
    """
    a, b = load(k, i), load(k, j)
    both = a + b
    mean = a * (b / (both if both != 0 else one)) if harmonic else both
    return c * mean * (load(u, j) - load(u, i))


@exactly
def across(u, k, at, by, c, harmonic, one, out, to, count):
    """What flows through the faces between two rows.

    Parameters
    ----------
    u, k : (…) float, flat
    at : int, place of the first row's halo
    by : int, how far away the second row is
    c : float
    harmonic : bool
    one : float
    out : (…) float, written
    to : int, place there
    count : int, cells of the rows with halo
    """
    for j in range(1, count - 1):
        store(out, to + j, flux(u, k, at + j, at + j + by, c, harmonic, one), 0)


@exactly
def conducted5(a, k, new, m, c, harmonic, one, first, last):
    """The loop of ``conduct5``. A face's flux is found once, and kept for the next row.

    Parameters
    ----------
    a, k, new : (…) float, flat
    m : int, a row
    c : tuple of 2 float
    harmonic : bool
    one : float
    first, last : int
    """
    c0, c1 = c
    faces = np.empty(2 * m, a.dtype)  # between two rows, below and above in turn
    across(a, k, first * m, m, c0, harmonic, one, faces, first % 2 * m, m)
    for i in range(first + 1, last + 1):
        at, below, above = i * m, (i - 1) % 2 * m, i % 2 * m
        for j in range(1, m - 1):
            rise = flux(a, k, at + j, at + j + m, c0, harmonic, one)
            along = (flux(a, k, at + j, at + j + 1, c1, harmonic, one)
                     - flux(a, k, at + j - 1, at + j, c1, harmonic, one))
            store(faces, above + j, rise, 1)
            store(new, at + j, load(a, at + j) + ((rise - look(faces, below + j)) + along), 0)


@exactly
def conduct5(u, out, k, c, harmonic, first, last):
    """Explicit step of the heat equation with a conductivity of each cell, 2-D.

    Parameters
    ----------
    u, out, k : (n + 2, m + 2) float
    c : tuple of 2 float, twice (harmonic) or half the step's
    harmonic : bool
    first, last : int, rows of the interior
    """
    one = u.dtype.type(1)
    if harmonic:  # which is known where each loop is compiled
        conducted5(u.ravel(), k.ravel(), out.ravel(), u.shape[1], c, True, one, first, last)
    else:
        conducted5(u.ravel(), k.ravel(), out.ravel(), u.shape[1], c, False, one, first, last)


@exactly
def conducted7(a, k, new, n, m, c, harmonic, one, first, last, rows):
    """The loop of ``conduct7``. A face's flux is found once, and kept for the next row and the next plane.

    Parameters
    ----------
    a, k, new : (…) float, flat
    n, m : int, rows of a plane, numbers of a row
    c : tuple of 3 float
    harmonic : bool
    one : float
    first, last : int
    rows : int, of a block
    """
    p, (c0, c1, c2) = n * m, c
    planes, sides = np.empty(2 * rows * m, a.dtype), np.empty(2 * m, a.dtype)  # each for faces below and above in turn
    for begin in range(1, n - 1, rows):
        stop = min(begin + rows, n - 1)
        for i in range(begin, stop):
            across(a, k, first * p + i * m, p, c0, harmonic, one, planes, (first % 2 * rows + i - begin) * m, m)
        for h in range(first + 1, last + 1):
            across(a, k, h * p + (begin - 1) * m, m, c1, harmonic, one, sides, (begin - 1) % 2 * m, m)
            for i in range(begin, stop):
                at, low, high = h * p + i * m, (i - 1) % 2 * m, i % 2 * m
                below, above = ((h - 1) % 2 * rows + i - begin) * m, (h % 2 * rows + i - begin) * m
                for j in range(1, m - 1):
                    rise = flux(a, k, at + j, at + j + p, c0, harmonic, one)
                    side = flux(a, k, at + j, at + j + m, c1, harmonic, one)
                    along = (flux(a, k, at + j, at + j + 1, c2, harmonic, one)
                             - flux(a, k, at + j - 1, at + j, c2, harmonic, one))
                    store(planes, above + j, rise, 1)
                    store(sides, high + j, side, 2)
                    flow = ((rise - look(planes, below + j)) + (side - look(sides, low + j))) + along
                    store(new, at + j, load(a, at + j) + flow, 0)


@exactly
def conduct7_rows(u, out, k, c, harmonic, first, last, rows):
    """Explicit step of the heat equation with a conductivity of each cell, 3-D.

    Parameters
    ----------
    u, out, k : (l + 2, n + 2, m + 2) float
    c : tuple of 3 float, twice (harmonic) or half the step's
    harmonic : bool
    first, last : int, planes of the interior
    rows : int, of a block
    """
    one = u.dtype.type(1)
    n, m = u.shape[1], u.shape[2]
    if harmonic:
        conducted7(u.ravel(), k.ravel(), out.ravel(), n, m, c, True, one, first, last, rows)
    else:
        conducted7(u.ravel(), k.ravel(), out.ravel(), n, m, c, False, one, first, last, rows)


@exactly
def leapt(here, old, c2, laplacian):
    """A wave's value one step later.

    Parameters
    ----------
    here, old, c2, laplacian : float

    Returns
    -------
    float
    """
    return ((here + here) - old) + c2 * laplacian


@exactly
def laplacian2(u, j, m, by, four):
    """Sum of differences to the four cells a distance away.

    Parameters
    ----------
    u : (…) float, flat
    j : int, the cell's place
    m : int, a row
    by : int, the distance
    four : float

    Returns
    -------
    float
    """
    near = (load(u, j - by * m) + load(u, j + by * m)) + (load(u, j - by) + load(u, j + by))
    return near - four * load(u, j)


@exactly
def laplacian3(u, j, m, p, by, six):
    """Sum of differences to the six cells a distance away.

    Parameters
    ----------
    u : (…) float, flat
    j : int, the cell's place
    m, p : int, a row and a plane
    by : int, the distance
    six : float

    Returns
    -------
    float
    """
    side = (load(u, j - by * p) + load(u, j + by * p)) + (load(u, j - by * m) + load(u, j + by * m))
    return (side + (load(u, j - by) + load(u, j + by))) - six * load(u, j)


@exactly
def wave5(u, before, out, c2, step, weights, in_place, first, last):
    """Leapfrog step of the wave equation, 2-D, second order.

    Parameters
    ----------
    u, before, out : (n + 2, m + 2) float
    c2 : (n, m) float, or (1, m) and step 0
    step : int, 1 or 0
    weights : tuple of 1 float, 4
    in_place : bool, whether out is before
    first, last : int, rows of the interior
    """
    m, four = u.shape[1], weights[0]
    a, old, new, c = u.ravel(), before.ravel(), out.ravel(), c2.ravel()
    for i in range(first + 1, last + 1):
        at, there = i * m + 1, (i - 1) * step * (m - 2)
        if in_place:
            for j in range(m - 2):
                laplacian = laplacian2(a, at + j, m, 1, four)
                store(new, at + j, leapt(load(a, at + j), look(new, at + j), load(c, there + j), laplacian), 0)
        else:
            for j in range(m - 2):
                laplacian = laplacian2(a, at + j, m, 1, four)
                store(new, at + j, leapt(load(a, at + j), load(old, at + j), load(c, there + j), laplacian), 0)


@exactly
def wave9(u, before, out, c2, step, weights, in_place, first, last):
    """Leapfrog step of the wave equation, 2-D, fourth order.

    Parameters
    ----------
    u, before, out : (n + 4, m + 4) float
    c2 : (n, m) float, or (1, m) and step 0
    step : int, 1 or 0
    weights : tuple of 3 float, 4, 4/3 and 1/12
    in_place : bool, whether out is before
    first, last : int, rows of the interior
    """
    m, (four, w1, w2) = u.shape[1], weights
    a, old, new, c = u.ravel(), before.ravel(), out.ravel(), c2.ravel()
    for i in range(first + 2, last + 2):
        at, there = i * m + 2, (i - 2) * step * (m - 4)
        if in_place:
            for j in range(m - 4):
                laplacian = w1 * laplacian2(a, at + j, m, 1, four) - w2 * laplacian2(a, at + j, m, 2, four)
                store(new, at + j, leapt(load(a, at + j), look(new, at + j), load(c, there + j), laplacian), 0)
        else:
            for j in range(m - 4):
                laplacian = w1 * laplacian2(a, at + j, m, 1, four) - w2 * laplacian2(a, at + j, m, 2, four)
                store(new, at + j, leapt(load(a, at + j), load(old, at + j), load(c, there + j), laplacian), 0)


@exactly
def wave7_rows(u, before, out, c2, step, weights, in_place, first, last, rows):
    """Leapfrog step of the wave equation, 3-D, second order.

    Parameters
    ----------
    u, before, out : (l + 2, n + 2, m + 2) float
    c2 : (l * n, m) float, or (1, m) and step 0
    step : int, 1 or 0
    weights : tuple of 1 float, 6
    in_place : bool, whether out is before
    first, last : int, planes of the interior
    rows : int, of a block
    """
    n, m, six = u.shape[1], u.shape[2], weights[0]
    p = n * m
    a, old, new, c = u.ravel(), before.ravel(), out.ravel(), c2.ravel()
    for begin in range(1, n - 1, rows):
        for h in range(first + 1, last + 1):
            for i in range(begin, min(begin + rows, n - 1)):
                at, there = h * p + i * m + 1, ((h - 1) * (n - 2) + i - 1) * step * (m - 2)
                if in_place:
                    for j in range(m - 2):
                        laplacian = laplacian3(a, at + j, m, p, 1, six)
                        store(new, at + j, leapt(load(a, at + j), look(new, at + j), load(c, there + j), laplacian), 0)
                else:
                    for j in range(m - 2):
                        laplacian = laplacian3(a, at + j, m, p, 1, six)
                        store(new, at + j, leapt(load(a, at + j), load(old, at + j), load(c, there + j), laplacian), 0)


@exactly
def wave13_rows(u, before, out, c2, step, weights, in_place, first, last, rows):
    """Leapfrog step of the wave equation, 3-D, fourth order.

    Parameters
    ----------
    u, before, out : (l + 4, n + 4, m + 4) float
    c2 : (l * n, m) float, or (1, m) and step 0
    step : int, 1 or 0
    weights : tuple of 3 float, 6, 4/3 and 1/12
    in_place : bool, whether out is before
    first, last : int, planes of the interior
    rows : int, of a block
    """
    n, m, (six, w1, w2) = u.shape[1], u.shape[2], weights
    p = n * m
    a, old, new, c = u.ravel(), before.ravel(), out.ravel(), c2.ravel()
    for begin in range(2, n - 2, rows):
        for h in range(first + 2, last + 2):
            for i in range(begin, min(begin + rows, n - 2)):
                at, there = h * p + i * m + 2, ((h - 2) * (n - 4) + i - 2) * step * (m - 4)
                if in_place:
                    for j in range(m - 4):
                        laplacian = (w1 * laplacian3(a, at + j, m, p, 1, six)
                                     - w2 * laplacian3(a, at + j, m, p, 2, six))
                        store(new, at + j, leapt(load(a, at + j), look(new, at + j), load(c, there + j), laplacian), 0)
                else:
                    for j in range(m - 4):
                        laplacian = (w1 * laplacian3(a, at + j, m, p, 1, six)
                                     - w2 * laplacian3(a, at + j, m, p, 2, six))
                        store(new, at + j, leapt(load(a, at + j), load(old, at + j), load(c, there + j), laplacian), 0)


heat7, wave7 = (functools.partial(blocked, loop, 3) for loop in (heat7_rows, wave7_rows))
wave13, conduct7 = functools.partial(blocked, wave13_rows, 5), functools.partial(blocked, conduct7_rows, 6)
