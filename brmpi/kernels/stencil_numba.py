"""The loops of ``stencil``, compiled by Numba. Imported when they are first used: Numba takes long to load.

The inner loop runs along the last axis over rows seen as arrays of their own. No freedom is given in the order or the
rounding of operations: the bits are NumPy's. LLVM vectorises a loop whose rows it need compare for overlap at most 8
times, so the wider stencils take two sweeps over a row that stays in the nearest cache; and ``before`` in the memory of
``out`` has its own loop, as otherwise the two would be found to overlap. In three dimensions the rows of a plane come
in blocks, ``block`` of them, whose planes stay in a cache until the next plane needs them.
"""

import functools

import numpy as np

from brmpi.kernels.compiled import compiled

exactly = functools.partial(compiled, fastmath=False)


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
            two = here[j] + here[j]
            new[j] = here[j] + (c0 * ((low[j] + high[j]) - two) + c1 * ((here[j - 1] + here[j + 1]) - two))


@exactly
def heat7(u, out, c, first, last, block):
    """Explicit step of the heat equation, 7 points.

    Parameters
    ----------
    u, out : (l + 2, n + 2, m + 2) float
    c : tuple of 3 float
    first, last : int, planes of the interior
    block : int, rows
    """
    c0, c1, c2 = c
    end = u.shape[1] - 1
    for begin in range(1, end, block):
        for h in range(first + 1, last + 1):
            for i in range(begin, min(begin + block, end)):
                below, above, low, high = u[h - 1, i], u[h + 1, i], u[h, i - 1], u[h, i + 1]
                here, new = u[h, i], out[h, i]
                for j in range(1, here.size - 1):
                    two = here[j] + here[j]
                    new[j] = here[j] + ((c0 * ((below[j] + above[j]) - two) + c1 * ((low[j] + high[j]) - two))
                                        + c2 * ((here[j - 1] + here[j + 1]) - two))


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
            near = (low[j] + high[j]) + (here[j - 1] + here[j + 1])
            corners = (low[j - 1] + low[j + 1]) + (high[j - 1] + high[j + 1])
            new[j] = here[j] + c * ((four * near + corners) - twenty * here[j])


@exactly
def arithmetic(x, y, k_x, k_y, c):
    """What flows through a face, by the arithmetic mean of its cells' conductivities.

    Parameters
    ----------
    x, y, k_x, k_y : float, the cells'
    c : float, half the step's

    Returns
    -------
    float
    """
    return c * (k_x + k_y) * (y - x)


@exactly
def harmonic_across(low, high, k_low, k_high, c, out):
    """What flows through the faces between two rows of cells, by the harmonic mean.

    Parameters
    ----------
    low, high, k_low, k_high : (m,) float
    c : float, twice the step's
    out : (m,) float
    """
    one = out.dtype.type(1)
    for j in range(out.size):
        both = k_low[j] + k_high[j]
        out[j] = c * (k_low[j] * (k_high[j] / (both if both != 0 else one))) * (high[j] - low[j])


@exactly
def harmonic_along(here, k, c, out):
    """What flows through the faces between the cells of a row, by the harmonic mean.

    Parameters
    ----------
    here, k : (m,) float
    c : float, twice the step's
    out : (m,) float, the last one is left
    """
    one = out.dtype.type(1)
    for j in range(out.size - 1):
        both = k[j] + k[j + 1]
        out[j] = c * (k[j] * (k[j + 1] / (both if both != 0 else one))) * (here[j + 1] - here[j])


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
    if not harmonic:
        for i in range(first + 1, last + 1):
            low, here, high, k_low, kept, k_high, new = u[i - 1], u[i], u[i + 1], k[i - 1], k[i], k[i + 1], out[i]
            for j in range(1, here.size - 1):
                x, k_x = here[j], kept[j]
                rise = arithmetic(x, high[j], k_x, k_high[j], c0) - arithmetic(low[j], x, k_low[j], k_x, c0)
                beside = (arithmetic(x, here[j + 1], k_x, kept[j + 1], c1)
                          - arithmetic(here[j - 1], x, kept[j - 1], k_x, c1))
                new[j] = x + (rise + beside)
        return
    below, above, right = np.empty_like(u[0]), np.empty_like(u[0]), np.empty_like(u[0])
    harmonic_across(u[first], u[first + 1], k[first], k[first + 1], c0, below)
    for i in range(first + 1, last + 1):
        here, new = u[i], out[i]
        harmonic_across(here, u[i + 1], k[i], k[i + 1], c0, above)
        harmonic_along(here, k[i], c1, right)
        for j in range(1, here.size - 1):
            new[j] = here[j] + ((above[j] - below[j]) + (right[j] - right[j - 1]))
        below, above = above, below


@exactly
def arithmetic7(u, out, k, c0, c1, c2, first, last, block):
    """As ``conduct7``, by the arithmetic mean.

    Parameters
    ----------
    u, out, k : (l + 2, n + 2, m + 2) float
    c0, c1, c2 : float, half the step's
    first, last : int, planes of the interior
    block : int, rows
    """
    end = u.shape[1] - 1
    rise = np.empty_like(u[0, 0])
    for begin in range(1, end, block):
        for h in range(first + 1, last + 1):
            for i in range(begin, min(begin + block, end)):
                low, here, high = u[h - 1, i], u[h, i], u[h + 1, i]
                k_low, kept, k_high = k[h - 1, i], k[h, i], k[h + 1, i]
                for j in range(1, here.size - 1):
                    x, k_x = here[j], kept[j]
                    rise[j] = arithmetic(x, high[j], k_x, k_high[j], c0) - arithmetic(low[j], x, k_low[j], k_x, c0)
                low, high, k_low, k_high, new = u[h, i - 1], u[h, i + 1], k[h, i - 1], k[h, i + 1], out[h, i]
                for j in range(1, here.size - 1):
                    x, k_x = here[j], kept[j]
                    across = arithmetic(x, high[j], k_x, k_high[j], c1) - arithmetic(low[j], x, k_low[j], k_x, c1)
                    along = (arithmetic(x, here[j + 1], k_x, kept[j + 1], c2)
                             - arithmetic(here[j - 1], x, kept[j - 1], k_x, c2))
                    new[j] = x + ((rise[j] + across) + along)


@exactly
def conduct7(u, out, k, c, harmonic, first, last, block):
    """Explicit step of the heat equation with a conductivity of each cell, 3-D.

    Parameters
    ----------
    u, out, k : (l + 2, n + 2, m + 2) float
    c : tuple of 3 float, twice (harmonic) or half the step's
    harmonic : bool
    first, last : int, planes of the interior
    block : int, rows
    """
    c0, c1, c2 = c
    end, m = u.shape[1] - 1, u.shape[2]
    if not harmonic:
        arithmetic7(u, out, k, c0, c1, c2, first, last, block)
        return
    faces = np.empty((2, block, m), u.dtype)  # between two planes, below and above in turn
    low, high, beside = np.empty(m, u.dtype), np.empty(m, u.dtype), np.empty(m, u.dtype)
    for begin in range(1, end, block):
        stop = min(begin + block, end)
        for i in range(begin, stop):
            below = faces[first % 2, i - begin]
            harmonic_across(u[first, i], u[first + 1, i], k[first, i], k[first + 1, i], c0, below)
        for h in range(first + 1, last + 1):
            harmonic_across(u[h, begin - 1], u[h, begin], k[h, begin - 1], k[h, begin], c1, low)
            for i in range(begin, stop):
                here, kept, new = u[h, i], k[h, i], out[h, i]
                below, above = faces[(h - 1) % 2, i - begin], faces[h % 2, i - begin]
                harmonic_across(here, u[h + 1, i], kept, k[h + 1, i], c0, above)
                harmonic_across(here, u[h, i + 1], kept, k[h, i + 1], c1, high)
                harmonic_along(here, kept, c2, beside)
                for j in range(1, m - 1):
                    new[j] = here[j] + (((above[j] - below[j]) + (high[j] - low[j])) + (beside[j] - beside[j - 1]))
                low, high = high, low


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
def laplacian5(low, here, high, four, j):
    """Sum of differences to the four neighbours of a cell.

    Parameters
    ----------
    low, here, high : (m,) float, rows
    four : float
    j : int

    Returns
    -------
    float
    """
    return ((low[j] + high[j]) + (here[j - 1] + here[j + 1])) - four * here[j]


@exactly
def laplacian7(below, low, here, high, above, six, j):
    """Sum of differences to the six neighbours of a cell.

    Parameters
    ----------
    below, low, here, high, above : (m,) float, rows
    six : float
    j : int

    Returns
    -------
    float
    """
    return (((below[j] + above[j]) + (low[j] + high[j])) + (here[j - 1] + here[j + 1])) - six * here[j]


@exactly
def far5(low, here, high, four, j):
    """As ``laplacian5``, of cells two away.

    Parameters
    ----------
    low, here, high : (m,) float, rows
    four : float
    j : int

    Returns
    -------
    float
    """
    return ((low[j] + high[j]) + (here[j - 2] + here[j + 2])) - four * here[j]


@exactly
def far7(below, low, here, high, above, six, j):
    """As ``laplacian7``, of cells two away.

    Parameters
    ----------
    below, low, here, high, above : (m,) float, rows
    six : float
    j : int

    Returns
    -------
    float
    """
    return (((below[j] + above[j]) + (low[j] + high[j])) + (here[j - 2] + here[j + 2])) - six * here[j]


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
                new[j] = leapt(here[j], new[j], c[j - 1], laplacian5(low, here, high, four, j))
        else:
            for j in range(1, here.size - 1):
                new[j] = leapt(here[j], old[j], c[j - 1], laplacian5(low, here, high, four, j))


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
    near = np.empty_like(u[0])
    for i in range(first + 2, last + 2):
        low, here, high = u[i - 1], u[i], u[i + 1]
        for j in range(2, here.size - 2):
            near[j] = w1 * laplacian5(low, here, high, four, j)
        low, high, old, new, c = u[i - 2], u[i + 2], before[i], out[i], c2[(i - 2) * step]
        if in_place:
            for j in range(2, here.size - 2):
                new[j] = leapt(here[j], new[j], c[j - 2], near[j] - w2 * far5(low, here, high, four, j))
        else:
            for j in range(2, here.size - 2):
                new[j] = leapt(here[j], old[j], c[j - 2], near[j] - w2 * far5(low, here, high, four, j))


@exactly
def wave7(u, before, out, c2, step, weights, in_place, first, last, block):
    """Leapfrog step of the wave equation, 3-D, second order.

    Parameters
    ----------
    u, before, out : (l + 2, n + 2, m + 2) float
    c2 : (l * n, m) float, or (1, m) and step 0
    step : int, 1 or 0
    weights : tuple of 1 float, 6
    in_place : bool, whether out is before
    first, last : int, planes of the interior
    block : int, rows
    """
    six = weights[0]
    n = u.shape[1] - 2
    for begin in range(1, n + 1, block):
        for h in range(first + 1, last + 1):
            for i in range(begin, min(begin + block, n + 1)):
                below, low, here, high, above = u[h - 1, i], u[h, i - 1], u[h, i], u[h, i + 1], u[h + 1, i]
                old, new, c = before[h, i], out[h, i], c2[((h - 1) * n + i - 1) * step]
                if in_place:
                    for j in range(1, here.size - 1):
                        laplacian = laplacian7(below, low, here, high, above, six, j)
                        new[j] = leapt(here[j], new[j], c[j - 1], laplacian)
                else:
                    for j in range(1, here.size - 1):
                        laplacian = laplacian7(below, low, here, high, above, six, j)
                        new[j] = leapt(here[j], old[j], c[j - 1], laplacian)


@exactly
def wave13(u, before, out, c2, step, weights, in_place, first, last, block):
    """Leapfrog step of the wave equation, 3-D, fourth order.

    Parameters
    ----------
    u, before, out : (l + 4, n + 4, m + 4) float
    c2 : (l * n, m) float, or (1, m) and step 0
    step : int, 1 or 0
    weights : tuple of 3 float, 6, 4/3 and 1/12
    in_place : bool, whether out is before
    first, last : int, planes of the interior
    block : int, rows
    """
    six, w1, w2 = weights
    n = u.shape[1] - 4
    near = np.empty_like(u[0, 0])
    for begin in range(2, n + 2, block):
        for h in range(first + 2, last + 2):
            for i in range(begin, min(begin + block, n + 2)):
                below, low, here, high, above = u[h - 1, i], u[h, i - 1], u[h, i], u[h, i + 1], u[h + 1, i]
                for j in range(2, here.size - 2):
                    near[j] = w1 * laplacian7(below, low, here, high, above, six, j)
                below, low, high, above = u[h - 2, i], u[h, i - 2], u[h, i + 2], u[h + 2, i]
                old, new, c = before[h, i], out[h, i], c2[((h - 2) * n + i - 2) * step]
                if in_place:
                    for j in range(2, here.size - 2):
                        laplacian = near[j] - w2 * far7(below, low, here, high, above, six, j)
                        new[j] = leapt(here[j], new[j], c[j - 2], laplacian)
                else:
                    for j in range(2, here.size - 2):
                        laplacian = near[j] - w2 * far7(below, low, here, high, above, six, j)
                        new[j] = leapt(here[j], old[j], c[j - 2], laplacian)
