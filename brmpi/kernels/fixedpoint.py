"""Numbers of a vector as whole multiples of a power of two, added up: sums that are the same bits in any order."""

import numpy as np

from brmpi.kernels import choice


def add(values, scale, limit, sums, backend="auto"):
    """Add ``round(values * scale)`` to ``sums``; halves are rounded to even.

    Parameters
    ----------
    values : (n,) float32 or float64
    scale : float, a power of two
    limit : float, the largest product that may be added; larger ones, infinities and NaN add 0
    sums : (n,) int32 or int64, changed; for float32 or float64 in this order
    backend : one of ``kernels.BACKENDS``

    Returns
    -------
    float, the largest magnitude of ``values``; infinity where one of them is infinite or NaN

    Raises
    ------
    ValueError : types that do not belong together
    """
    if (values.dtype, sums.dtype) not in (("f4", "i4"), ("f8", "i8")) or values.shape != sums.shape:
        raise ValueError(f"values are {values.dtype} {values.shape}, sums {sums.dtype} {sums.shape}: must be float32 "
                         "and int32, or float64 and int64, of one length")
    largest = choice.run("fixedpoint add", max(1, values.size), backend, _add, "add", values, scale, limit, sums)
    return float(largest) if largest <= np.finfo(values.dtype).max else np.inf


def scaled(sums, factor, out, backend="auto"):
    """Sums as numbers again: ``out = sums * factor``, rounded once.

    Parameters
    ----------
    sums : (n,) int32 or int64
    factor : float
    out : (n,) float32 or float64, filled
    backend : one of ``kernels.BACKENDS``
    """
    choice.run("fixedpoint scaled", max(1, sums.size), backend, _scaled, "scaled", sums, float(factor), out)


def _scaled(sums, factor, out):
    out[:] = sums.astype(np.float64) * factor


def _add(values, scale, limit, sums):
    if not values.size:
        return 0.0
    largest = np.abs(values).max()
    with np.errstate(invalid="ignore", over="ignore"):
        product = values * values.dtype.type(scale)
        fits = np.abs(product) <= values.dtype.type(limit)
    sums += np.rint(np.where(fits, product, 0)).astype(sums.dtype)
    return largest if np.isfinite(largest) else np.inf
