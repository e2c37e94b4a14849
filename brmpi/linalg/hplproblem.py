"""HPL's system of equations: its random numbers, its solution from the factors, its residual.

Element (i, j) of the n rows and n + 1 columns (the last is the right-hand side) is number i + j n of a linear
congruential sequence modulo 2**64, mapped to [-1/2, 1/2]. Any element is had without those before it, so a matrix
is the same on any grid and with any shares.

Source: Petitet, Whaley, Dongarra, Cleary, HPL 2.x, HPL_pdmatgen, HPL_rand and HPL_pdtest.
"""

import numpy as np

from brmpi.linalg import blas
from brmpi.linalg.axis import Axis
from brmpi.linalg.broadcast import patiently
from brmpi.linalg.matrix import BlockCyclic

MULTIPLIER, INCREMENT, SEED = 6364136223846793005, 1, 100
EPSILON = 2.0**-53  # of float64, as HPL takes it: unit roundoff
PASSED = 16.0  # residual, below which HPL accepts a solution


def elements(n):
    """The function of the indices that makes HPL's matrix and right-hand side.

    Parameters
    ----------
    n : int, number of equations

    Returns
    -------
    callable of int64 arrays i (k, 1) and j (1, l), returning (k, l) float64
    """
    def _elements(i, j):
        powers, sums = _jumps(i.reshape(-1))
        across, more = _jumps(j.reshape(-1) * n)
        starts = across * np.uint64(SEED) + more  # where each column is in the sequence
        numbers = powers[:, None] * starts[None, :] + sums[:, None]
        return 0.5 - numbers.astype(np.float64) * 2.0**-64

    return _elements


def _jumps(steps):
    """a and c such that the sequence goes on by some steps in x -> a x + c, modulo 2**64: (k,), (k,) uint64."""
    steps = steps.astype(np.uint64)
    a, c = np.ones(len(steps), dtype=np.uint64), np.zeros(len(steps), dtype=np.uint64)
    multiplier, increment = MULTIPLIER, INCREMENT
    for bit in range(int(steps.max(initial=0)).bit_length()):
        taken = (steps >> np.uint64(bit) & np.uint64(1)).astype(bool)
        a[taken] *= np.uint64(multiplier)
        c[taken] = c[taken] * np.uint64(multiplier) + np.uint64(increment)
        increment = increment * (multiplier + 1) % 2**64  # two jumps of this length in one
        multiplier = multiplier**2 % 2**64
    return a, c


def generate(grid, n, nb):
    """Matrix and right-hand side. Collective.

    Parameters
    ----------
    grid : ProcessGrid
    n, nb : int

    Returns
    -------
    BlockCyclic, (n, n + 1) float64

    Raises
    ------
    NotEnoughMemory
    """
    return BlockCyclic.from_function(grid, (n, n + 1), elements(n), np.float64, nb)


def substitute(factors):
    """Solve U x = y, where y is the column right of U: what became of the right-hand side. Collective.

    Parameters
    ----------
    factors : LU, of (n, n + 1)

    Returns
    -------
    (n,) float64, on every rank
    """
    from mpi4py import MPI

    a, grid = factors.matrix, factors.matrix.grid
    n, p, q = a.shape[0], grid.p, grid.q
    known, sums = np.zeros(n), np.empty(a.nb)
    left = np.zeros(a.local.shape[0])  # this rank's part of y - U x, for the x that are known
    if n and a.cols.owner(n) == q:
        left[:] = a.local[:, a.cols.before(q, n)]
    last = -(-n // a.nb) - 1
    asked = _ask(a, left, sums, last)
    for j in range(last, -1, -1):
        asked()
        first, width = j * a.nb, min(a.nb, n - j * a.nb)
        row, col, side = a.rows.before(p, first), a.cols.before(q, first), int(a.cols.owners[j])
        next_row = a.rows.before(p, max(first - a.nb, 0))
        columns = slice(col, col + width)
        if q == side:
            x, top = sums[:width], int(a.rows.owners[j])
            if p == top:
                blas.trsm("L", "U", "N", "N", 1, a.local[row: row + width, columns], x[:, None])
            request = grid.col.Ibcast(x, top)
            patiently(request.Test)
            known[first: first + width] = x
            x = x.copy()
            left[next_row: row] -= a.local[next_row: row, columns] @ x
        asked = _ask(a, left, sums, j - 1)
        if q == side:  # while the sums that the next step needs are on their way
            left[:next_row] -= a.local[:next_row, columns] @ x
    whole = np.empty(n)
    grid.row.Allreduce(known, whole, MPI.SUM)
    return whole


def _ask(a, left, sums, j):
    """Begin to sum up what is left of block j of y - U x, for its owner; returns what waits for it."""
    from mpi4py import MPI

    grid = a.grid
    if j < 0 or grid.p != a.rows.owners[j]:
        return lambda: None
    row = a.rows.before(grid.p, j * a.nb)
    mine = left[row: row + min(a.nb, a.shape[0] - j * a.nb)].copy()
    request = grid.row.Ireduce(mine, sums[: len(mine)], MPI.SUM, int(a.cols.owners[j]))

    def _wait(held=mine):
        patiently(request.Test)

    return _wait


def residual(grid, x, nb):
    """HPL's measure of a solution: ||Ax - b|| / (eps (||A|| ||x|| + ||b||) n), norms of the largest. Collective.

    Parameters
    ----------
    grid : ProcessGrid
    x : (n,) float64, the same on every rank
    nb : int

    Returns
    -------
    float: below ``PASSED`` for a solution as good as float64 allows; not finite where x is not
    """
    from mpi4py import MPI

    n, function = len(x), elements(len(x))
    i = Axis(n, nb, grid.row_weights).indices(grid.p)
    j = Axis(n, nb, grid.col_weights).indices(grid.q)
    products, sums = np.zeros(len(i)), np.zeros(len(i))
    for first in range(0, len(i), nb):
        strip = slice(first, first + nb)
        part = function(i[strip, None], j[None, :])
        products[strip] = part @ x[j]
        sums[strip] = np.abs(part, out=part).sum(axis=1)
    both, whole = np.array([products, sums]), np.empty((2, len(i)))
    grid.row.Allreduce(both, whole, MPI.SUM)
    b = function(i[:, None], np.array([[n]]))[:, 0]
    mine = np.array([np.abs(whole[0] - b).max(initial=0), whole[1].max(initial=0), np.abs(b).max(initial=0)])
    largest = np.empty(3)
    grid.comm.Allreduce(mine, largest, MPI.MAX)
    away, norm, right = largest
    if not np.isfinite(x).all():
        return float("nan")
    return float(away / (EPSILON * (norm * np.abs(x).max() + right) * n)) if n else 0.0
