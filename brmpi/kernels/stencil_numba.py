"""The loops of ``stencil``, compiled by Numba. Imported when they are first used: Numba takes long to load.

The inner loop runs along the last axis over rows seen as arrays of their own. No freedom is given in the order or the
rounding of operations: the bits are NumPy's. ``before`` in the memory of ``out`` has its own loop, which reads it as
what it is. In three dimensions the rows of a plane come in blocks, so many that the planes which a stencil reads fill
``cache`` bytes and stay in a cache until the next plane needs them.
"""

import functools

from brmpi.kernels.compiled import compiled
from brmpi.kernels.unaliased import load, store

CACHE = 1 << 18  # bytes: half of the smallest second-level cache of today's boards
PARAMETERS = {name: {"cache": (CACHE, CACHE >> 2, CACHE << 2)} for name in ("heat7", "conduct7", "wave7", "wave13")}

exactly = functools.partial(compiled, fastmath=False)


@exactly
def block(u, planes, cache):
    """Rows of a block.

    Parameters
    ----------
    u : (l, n, m) float
    planes : int, that a stencil reads
    cache : int, bytes

    Returns
    -------
    int
    """
    return min(u.shape[1], max(4, cache // (planes * u.shape[2] * u.itemsize)))


@exactly
def heat5(u, out, c, first, last):
    """Explicit step of the heat equation, 5 points.

    Parameters
    ----------
    u, out : (n + 2, m + 2) float
    c : tuple of 2 float
    first, last : int, rows of the interior
    """
    c0, c1 = c
    for i in range(first + 1, last + 1):
        low, here, high, new = u[i - 1], u[i], u[i + 1], out[i]
        for j in range(1, here.size - 1):
            x = load(here, j)
            two = x + x
            rise = c0 * ((load(low, j) + load(high, j)) - two)
            store(new, j, x + (rise + c1 * ((load(here, j - 1) + load(here, j + 1)) - two)), 0)


@exactly
def heat7(u, out, c, first, last, cache=CACHE):
    """Explicit step of the heat equation, 7 points.

    Parameters
    ----------
    u, out : (l + 2, n + 2, m + 2) float
    c : tuple of 3 float
    first, last : int, planes of the interior
    cache : int, bytes
    """
    c0, c1, c2 = c
    end, rows = u.shape[1] - 1, block(u, 3, cache)
    for begin in range(1, end, rows):
        for h in range(first + 1, last + 1):
            for i in range(begin, min(begin + rows, end)):
                below, above, low, high = u[h - 1, i], u[h + 1, i], u[h, i - 1], u[h, i + 1]
                here, new = u[h, i], out[h, i]
                for j in range(1, here.size - 1):
                    x = load(here, j)
                    two = x + x
                    rise = c0 * ((load(below, j) + load(above, j)) - two)
                    rise = rise + c1 * ((load(low, j) + load(high, j)) - two)
                    store(new, j, x + (rise + c2 * ((load(here, j - 1) + load(here, j + 1)) - two)), 0)


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
    four, twenty = weights
    for i in range(first + 1, last + 1):
        low, here, high, new = u[i - 1], u[i], u[i + 1], out[i]
        for j in range(1, here.size - 1):
            near = (load(low, j) + load(high, j)) + (load(here, j - 1) + load(here, j + 1))
            lower, upper = load(low, j - 1) + load(low, j + 1), load(high, j - 1) + load(high, j + 1)
            x = load(here, j)
            store(new, j, x + c * ((four * near + (lower + upper)) - twenty * x), 0)


@exactly
def flux(u, i, v, j, k, q, c, harmonic, one):
    """What flows through the face between two cells.

    Parameters
    ----------
    u, k : (m,) float, row of the first cell and its conductivities
    i, j : int, the cells' places
    v, q : (m,) float, row of the second cell and its conductivities
    c : float, twice (harmonic) or half the step's
    harmonic : bool, which mean of the conductivities
    one : float

    Returns
    -------
    float
    """
    a, b = load(k, i), load(q, j)
    both = a + b
    mean = a * (b / (both if both != 0 else one)) if harmonic else both
    return c * mean * (load(v, j) - load(u, i))


@exactly
def conducted(low, here, high, k_low, kept, k_high, new, c0, c1, harmonic):
    """A row of ``conduct5``.

    Parameters
    ----------
    low, here, high, k_low, kept, k_high, new : (m + 2,) float
    c0, c1 : float
    harmonic : bool
    """
    one = new.dtype.type(1)
    for j in range(1, here.size - 1):
        across = (flux(here, j, high, j, kept, k_high, c0, harmonic, one)
                  - flux(low, j, here, j, k_low, kept, c0, harmonic, one))
        along = (flux(here, j, here, j + 1, kept, kept, c1, harmonic, one)
                 - flux(here, j - 1, here, j, kept, kept, c1, harmonic, one))
        store(new, j, load(here, j) + (across + along), 0)


@exactly
def conducted3(below, low, here, high, above, k_below, k_low, kept, k_high, k_above, new, c0, c1, c2, harmonic):
    """A row of ``conduct7``.

    Parameters
    ----------
    below, low, here, high, above, k_below, k_low, kept, k_high, k_above, new : (m + 2,) float
    c0, c1, c2 : float
    harmonic : bool
    """
    one = new.dtype.type(1)
    for j in range(1, here.size - 1):
        rise = (flux(here, j, above, j, kept, k_above, c0, harmonic, one)
                - flux(below, j, here, j, k_below, kept, c0, harmonic, one))
        across = (flux(here, j, high, j, kept, k_high, c1, harmonic, one)
                  - flux(low, j, here, j, k_low, kept, c1, harmonic, one))
        along = (flux(here, j, here, j + 1, kept, kept, c2, harmonic, one)
                 - flux(here, j - 1, here, j, kept, kept, c2, harmonic, one))
        store(new, j, load(here, j) + ((rise + across) + along), 0)


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
    c0, c1 = c
    for i in range(first + 1, last + 1):
        if harmonic:
            conducted(u[i - 1], u[i], u[i + 1], k[i - 1], k[i], k[i + 1], out[i], c0, c1, True)
        else:
            conducted(u[i - 1], u[i], u[i + 1], k[i - 1], k[i], k[i + 1], out[i], c0, c1, False)


@exactly
def conduct7(u, out, k, c, harmonic, first, last, cache=CACHE):
    """Explicit step of the heat equation with a conductivity of each cell, 3-D.

    Parameters
    ----------
    u, out, k : (l + 2, n + 2, m + 2) float
    c : tuple of 3 float, twice (harmonic) or half the step's
    harmonic : bool
    first, last : int, planes of the interior
    cache : int, bytes
    """
    c0, c1, c2 = c
    end, rows = u.shape[1] - 1, block(u, 6, cache)
    for begin in range(1, end, rows):
        for h in range(first + 1, last + 1):
            for i in range(begin, min(begin + rows, end)):
                below, low, here, high, above = u[h - 1, i], u[h, i - 1], u[h, i], u[h, i + 1], u[h + 1, i]
                k_below, k_low, kept, k_high, k_above = k[h - 1, i], k[h, i - 1], k[h, i], k[h, i + 1], k[h + 1, i]
                if harmonic:
                    conducted3(below, low, here, high, above, k_below, k_low, kept, k_high, k_above, out[h, i],
                               c0, c1, c2, True)
                else:
                    conducted3(below, low, here, high, above, k_below, k_low, kept, k_high, k_above, out[h, i],
                               c0, c1, c2, False)


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
def laplacian2(low, here, high, four, j, by):
    """Sum of differences to the four cells a distance away.

    Parameters
    ----------
    low, here, high : (m,) float, rows
    four : float
    j : int, the cell's place
    by : int, the distance

    Returns
    -------
    float
    """
    near = (load(low, j) + load(high, j)) + (load(here, j - by) + load(here, j + by))
    return near - four * load(here, j)


@exactly
def laplacian3(below, low, here, high, above, six, j, by):
    """Sum of differences to the six cells a distance away.

    Parameters
    ----------
    below, low, here, high, above : (m,) float, rows
    six : float
    j : int, the cell's place
    by : int, the distance

    Returns
    -------
    float
    """
    near = ((load(below, j) + load(above, j)) + (load(low, j) + load(high, j))) + (load(here, j - by)
                                                                                  + load(here, j + by))
    return near - six * load(here, j)


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
    four = weights[0]
    for i in range(first + 1, last + 1):
        low, here, high, old, new, c = u[i - 1], u[i], u[i + 1], before[i], out[i], c2[(i - 1) * step]
        if in_place:
            for j in range(1, here.size - 1):
                laplacian = laplacian2(low, here, high, four, j, 1)
                store(new, j, leapt(load(here, j), new[j], load(c, j - 1), laplacian), 0)
        else:
            for j in range(1, here.size - 1):
                laplacian = laplacian2(low, here, high, four, j, 1)
                store(new, j, leapt(load(here, j), load(old, j), load(c, j - 1), laplacian), 0)


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
    four, w1, w2 = weights
    for i in range(first + 2, last + 2):
        lower, low, here, high, higher = u[i - 2], u[i - 1], u[i], u[i + 1], u[i + 2]
        old, new, c = before[i], out[i], c2[(i - 2) * step]
        if in_place:
            for j in range(2, here.size - 2):
                laplacian = (w1 * laplacian2(low, here, high, four, j, 1)
                             - w2 * laplacian2(lower, here, higher, four, j, 2))
                store(new, j, leapt(load(here, j), new[j], load(c, j - 2), laplacian), 0)
        else:
            for j in range(2, here.size - 2):
                laplacian = (w1 * laplacian2(low, here, high, four, j, 1)
                             - w2 * laplacian2(lower, here, higher, four, j, 2))
                store(new, j, leapt(load(here, j), load(old, j), load(c, j - 2), laplacian), 0)


@exactly
def wave7(u, before, out, c2, step, weights, in_place, first, last, cache=CACHE):
    """Leapfrog step of the wave equation, 3-D, second order.

    Parameters
    ----------
    u, before, out : (l + 2, n + 2, m + 2) float
    c2 : (l * n, m) float, or (1, m) and step 0
    step : int, 1 or 0
    weights : tuple of 1 float, 6
    in_place : bool, whether out is before
    first, last : int, planes of the interior
    cache : int, bytes
    """
    six = weights[0]
    n, rows = u.shape[1] - 2, block(u, 3, cache)
    for begin in range(1, n + 1, rows):
        for h in range(first + 1, last + 1):
            for i in range(begin, min(begin + rows, n + 1)):
                below, low, here, high, above = u[h - 1, i], u[h, i - 1], u[h, i], u[h, i + 1], u[h + 1, i]
                old, new, c = before[h, i], out[h, i], c2[((h - 1) * n + i - 1) * step]
                if in_place:
                    for j in range(1, here.size - 1):
                        laplacian = laplacian3(below, low, here, high, above, six, j, 1)
                        store(new, j, leapt(load(here, j), new[j], load(c, j - 1), laplacian), 0)
                else:
                    for j in range(1, here.size - 1):
                        laplacian = laplacian3(below, low, here, high, above, six, j, 1)
                        store(new, j, leapt(load(here, j), load(old, j), load(c, j - 1), laplacian), 0)


@exactly
def wave13(u, before, out, c2, step, weights, in_place, first, last, cache=CACHE):
    """Leapfrog step of the wave equation, 3-D, fourth order.

    Parameters
    ----------
    u, before, out : (l + 4, n + 4, m + 4) float
    c2 : (l * n, m) float, or (1, m) and step 0
    step : int, 1 or 0
    weights : tuple of 3 float, 6, 4/3 and 1/12
    in_place : bool, whether out is before
    first, last : int, planes of the interior
    cache : int, bytes
    """
    six, w1, w2 = weights
    n, rows = u.shape[1] - 4, block(u, 5, cache)
    for begin in range(2, n + 2, rows):
        for h in range(first + 2, last + 2):
            for i in range(begin, min(begin + rows, n + 2)):
                below, low, here, high, above = u[h - 1, i], u[h, i - 1], u[h, i], u[h, i + 1], u[h + 1, i]
                deep, lower, higher, top = u[h - 2, i], u[h, i - 2], u[h, i + 2], u[h + 2, i]
                old, new, c = before[h, i], out[h, i], c2[((h - 2) * n + i - 2) * step]
                if in_place:
                    for j in range(2, here.size - 2):
                        laplacian = (w1 * laplacian3(below, low, here, high, above, six, j, 1)
                                     - w2 * laplacian3(deep, lower, here, higher, top, six, j, 2))
                        store(new, j, leapt(load(here, j), new[j], load(c, j - 2), laplacian), 0)
                else:
                    for j in range(2, here.size - 2):
                        laplacian = (w1 * laplacian3(below, low, here, high, above, six, j, 1)
                                     - w2 * laplacian3(deep, lower, here, higher, top, six, j, 2))
                        store(new, j, leapt(load(here, j), load(old, j), load(c, j - 2), laplacian), 0)
