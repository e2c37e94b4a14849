"""The loop of ``fixedpoint``, compiled by Numba. Imported when it is first used: Numba takes long to load."""

import functools

import numpy as np

from brmpi.kernels.compiled import compiled

exact = functools.partial(compiled, fastmath=False)


def add(values, scale, limit, sums):
    """Add rounded products.

    Parameters
    ----------
    values, scale, limit, sums : as in ``fixedpoint.add``, checked
    """
    real = values.dtype.type
    bits = np.int32 if values.itemsize == 4 else np.int64
    sign = bits(np.iinfo(bits).max)
    largest = added(values, values.view(bits), real(scale), real(limit), sign, sums)
    return np.array([largest], bits).view(real)[0] if largest else 0.0


@exact
def added(values, patterns, scale, limit, sign, sums):
    """The loop; returns the largest bit pattern of a magnitude, which orders as magnitudes do, with NaN above all.

    Parameters
    ----------
    values : (n,) float array
    patterns : (n,) int array, its bits
    scale, limit : float
    sign : int, all bits but the sign's
    sums : (n,) int array, changed
    """
    largest = sign - sign
    for i in range(values.size):
        product = values[i] * scale
        sums[i] += type(largest)(np.rint(product)) if abs(product) <= limit else type(largest)(0)
        largest = max(largest, patterns[i] & sign)
    return largest


def scaled(sums, factor, out):
    """Sums as numbers again.

    Parameters
    ----------
    sums, factor, out : as in ``fixedpoint.scaled``
    """
    multiplied(sums, factor, out)


@exact
def multiplied(sums, factor, out):
    """The loop.

    Parameters
    ----------
    sums : (n,) int array
    factor : float64
    out : (n,) float array, filled
    """
    for i in range(sums.size):
        out[i] = np.float64(sums[i]) * factor
