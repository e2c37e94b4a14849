"""Sums that are the same bits in any order: over any number of ranks, any shares, any reduction tree.

Every value is cut into slices on a common grid of exponents. Slices on one grid add up without rounding, so their
sum cannot depend on the order; what a slice leaves over is cut again, three times in all.

Source: Demmel & Nguyen, "Fast reproducible floating-point summation", ARITH 21 (2013); the cut is algorithm 3.2
(ExtractVector) of Rump, Ogita & Oishi, SIAM J. Sci. Comput. 31 (2008) 189.
"""

import numpy as np

SLICES = 3
BLOCK = 4096  # rows at a time, which stay in a cache


def total(comm, values):
    """Sum over all rows of all ranks, the same bits for any distribution of the rows. Collective.

    Parameters
    ----------
    comm : communicator
    values : (n, k) float64, this rank's rows; n may be 0, k the same on all ranks

    Returns
    -------
    (k,) float64 on every rank, as if added up with more than 90 bits; NaN in columns that hold a NaN or infinity

    Raises
    ------
    OverflowError : the sum's slices would pass the largest float64 (values above about 1e308 / rows)
    """
    values = np.asarray(values, dtype=np.float64)
    rows, columns = values.shape
    largest = np.zeros(columns + 1)
    if rows:
        largest[:columns] = np.abs(values).max(axis=0)
        largest[:columns][~np.isfinite(largest[:columns])] = np.inf
    largest[columns] = rows
    extremes = np.empty((comm.size, columns + 1))
    comm.Allgather(largest, extremes)
    peak, count = extremes[:, :columns].max(axis=0), extremes[:, columns].sum()

    broken = ~np.isfinite(peak)
    room = 2.0 ** np.ceil(np.log2(count + 2))
    _, exponent = np.frexp(np.where(broken, 0, peak))  # peak <= 2**exponent
    with np.errstate(over="ignore"):
        grid = np.where((peak == 0) | broken, 0, np.ldexp(room, exponent))
    if not np.isfinite(grid).all():
        raise OverflowError(f"values up to {np.max(peak[~broken]):g} in {count:.0f} rows: the sum may overflow")

    grids = [grid * (2.0**-53 * room) ** level for level in range(SLICES)]
    slices = np.zeros((SLICES, columns))
    for first in range(0, rows, BLOCK):
        rest = values[first : first + BLOCK]
        if broken.any():
            rest = np.where(broken, 0, rest)
        for level, grid in zip(slices, grids):
            part = (grid + rest) - grid  # the bits of each value above 2**-53 grid
            level += part.sum(axis=0)
            rest = rest - part
    whole = np.empty_like(slices)
    comm.Allreduce(slices, whole)
    answer = whole[2] + whole[1] + whole[0]
    answer[broken] = np.nan
    return answer
