"""LU factorisation with partial pivoting: panels sent ahead of the work that needs them, rows swapped in whole.

Step k of the right-looking method subtracts the product of panel k and the rows of U beside it from what is left.
Panel k + d has had its columns brought up to date and is factored before, so that it travels while that product is
computed: look-ahead of depth d, by default 2, for then a slow rank's panel does not hold up the others, which have
the next one already. Each rank sends a panel on once (``broadcast``). Rows are stored one after another, so that
swaps move contiguous pieces. The distribution may be weighted: every trailing submatrix is shared out by the same
weights (``axis``).

Source: Golub, Van Loan, Matrix Computations, ch. 3; Petitet et al., HPL, for recursive panels, look-ahead and long
swaps.
"""

import math
import time

import numpy as np

from brmpi.linalg import blas, norms
from brmpi.linalg.failures import Mismatch, Singular
from brmpi.linalg.operand import together
from brmpi.linalg.panel import Panel
from brmpi.linalg.swaps import Swaps, composed, interchange, moves
from brmpi.linalg.triangular import trsm

LOOKAHEAD = 2
TURN = 5e-3  # s of work between two looks at messages
UNIT = 192  # rows of such a piece, or a multiple: one of the heights of BLAS's own tiles
SMALL = 8e6  # operations: BLAS has ways of its own for products below


def lu(a, overwrite=False, lookahead=LOOKAHEAD):
    """Factor a matrix: ``a[permutation] = L U``. Collective.

    Parameters
    ----------
    a : BlockCyclic, (m, n)
    overwrite : bool, whether the factors may replace a; else a is copied
    lookahead : int >= 1, how many panels are factored before the first of them is used

    Returns
    -------
    LU, also of a singular matrix

    Raises
    ------
    NotEnoughMemory
    """
    a = a if overwrite else a.copy()
    factors = factor(a, lookahead)
    factors.swap_left()
    return factors


def factor(a, lookahead=LOOKAHEAD):
    """Factor in place, and leave each panel of L in the order that rows had when it was factored. Collective.

    Parameters
    ----------
    a : BlockCyclic, replaced by its factors
    lookahead : int >= 1

    Returns
    -------
    LU, whose ``swap_left`` has not been called: what is right of the panels, and U, are in their final order
    """
    return _Elimination(a, lookahead).run()


class _Elimination:
    """One factorisation under way."""

    def __init__(self, a, lookahead):
        self.a, self.grid = a, a.grid
        self.depth = max(1, int(lookahead))
        self.panels = -(-min(a.shape) // a.nb)
        count = min(self.depth + 1, self.panels)
        need = count * (a.local.shape[0] + a.nb) * a.nb * a.dtype.itemsize
        a.grid.memory.check(need, "the panels of a factorisation")
        self.space = [Panel(a) for _ in range(count)]
        self.pivots = np.empty(min(a.shape), dtype=np.int64)
        self.rate = 1e9  # flop/s of this rank, measured as it goes

    def run(self):
        """Factor; returns the factors."""
        for k in range(min(self.depth, self.panels)):
            self._ahead(0, k)
        for k in range(self.panels):
            self._step(k)
        for panel in self.space:
            panel.broadcast.finish()
        return LU(self.a, self.pivots)

    def _step(self, k):
        """Panel k + depth is factored, and panel k applied to what is right of that."""
        a, ahead = self.a, k + self.depth
        panel = self._panel(k)
        panel.wait()
        self.pivots[panel.first: panel.first + panel.width] = panel.pivots
        last = min(ahead, self.panels - 1)
        columns = slice(a.cols.before(self.grid.q, min((last + 1) * a.nb, min(a.shape))), a.local.shape[1])
        due = ahead < self.panels
        if due and self._early(ahead):
            self._ahead(k, ahead)
            due = False
        for _ in self._apply(panel, columns):
            if due and self.grid.P == 1 and self._early(ahead):
                self._ahead(k, ahead)
                due = False
        if due:
            self._ahead(k, ahead)

    def _early(self, ahead):
        """Whether a panel is to be factored, or its receipt begun, before the rest of this step's work.

        The ranks of a column have to do the same things in the same order. So where there are several, this is decided
        without a look at what has arrived: the panel before is under way for a step, where the depth allows it.
        """
        if not self._mine(ahead) or self.depth == 1:
            return True
        return self.grid.P == 1 and self._panel(ahead - 1).ready()

    def _ahead(self, k, j):
        """Bring panel j's columns up to date from step k on, factor it, and send it on its way."""
        a, grid = self.a, self.grid
        panel = self._panel(j)
        if panel.broadcast is not None:
            panel.broadcast.finish()
        if self._mine(j):
            first = a.cols.before(grid.q, j * a.nb)
            columns = slice(first, first + min(a.nb, min(a.shape) - j * a.nb))
            for i in range(k, j):
                earlier = self._panel(i)
                earlier.wait()
                for _ in self._apply(earlier, columns):
                    pass
            panel.factor(j)
        panel.begin(j, self._chain(j))

    def _apply(self, panel, columns):
        """Swap rows, solve for U and subtract the product, on some columns; yields between pieces of the work."""
        a = self.a
        upper = panel.swap(columns)
        if not upper.size:
            return
        blas.trsm("L", "L", "N", "U", 1, panel.triangle, upper)
        if self.grid.P > 1 and self.grid.p == panel.top:
            a.local[panel.row: panel.below, columns] = upper
        lower, rest = panel.lower, a.local[panel.below:, columns]
        done, each = 0, 2 * panel.width * rest.shape[1]  # operations for a row
        while done < len(lower):
            yield
            rows = len(lower) - done
            if self._moving():
                rows = _piece(rows, each, self.rate * TURN)
            start = time.perf_counter()
            blas.gemm(-1, lower[done: done + rows], upper, 1, rest[done: done + rows])
            spent = time.perf_counter() - start
            if spent > TURN / 4:
                self.rate = rows * each / spent
            done += rows

    def _moving(self):
        """Whether messages are under way that need this rank to look at them."""
        done = [panel.broadcast is None or panel.broadcast.poll() for panel in self.space]
        return not all(done)

    def _panel(self, j):
        return self.space[j % len(self.space)]

    def _mine(self, j):
        return self.grid.q == self.a.cols.owners[j]

    def _chain(self, j):
        """Columns of the grid from the owner of a panel on: first those that own the next ones."""
        owners = self.a.cols.owners[j: j + 4 * self.grid.Q].tolist()
        return list(dict.fromkeys([*owners, *range(self.grid.Q)]))


def _piece(rows, each, work):
    """Rows to multiply before the next look at messages, about ``work`` operations.

    How long a piece takes depends on the clock, and bits must not: pieces end where BLAS cuts anyhow, and none is
    so small that BLAS would treat it otherwise than the whole.
    """
    least = math.ceil(SMALL / (each * UNIT)) * UNIT
    piece = max(int(work / each / UNIT) * UNIT, least)
    return piece if rows - piece >= least else rows


class LU:
    """The factors of a matrix: ``a[permutation] = L U``.

    Parameters
    ----------
    matrix : BlockCyclic, U in its upper triangle and L, whose diagonal is 1, below
    pivots : (min(m, n),) int64: row i was swapped with row pivots[i], in this order

    Attributes
    ----------
    matrix, pivots : as above
    """

    def __init__(self, matrix, pivots):
        self.matrix, self.pivots = matrix, pivots

    def swap_left(self):
        """Bring each panel of L into the rows' final order: what ``factor`` leaves undone. Collective."""
        a, grid = self.matrix, self.matrix.grid
        if grid.P == 1:
            self._swap_strips()
            return
        for first in range(a.nb, len(self.pivots), a.nb):
            swaps = Swaps(a.rows, grid, first, self.pivots[first: first + a.nb])
            row, end = a.rows.before(grid.p, first), a.cols.before(grid.q, first)
            for at in range(0, end, 8 * a.nb):
                columns = slice(at, min(at + 8 * a.nb, end))
                upper = swaps(a.local, columns)
                if grid.p == swaps.top:
                    a.local[row: row + swaps.width, columns] = upper

    def _swap_strips(self):
        """The same where every rank has all rows: each block of columns is read and written once."""
        a = self.matrix
        order = np.arange(a.shape[0])
        for j in range(-(-len(self.pivots) // a.nb) - 2, -1, -1):
            after = (j + 1) * a.nb
            panel = np.arange(a.shape[0])
            to, source = moves(after, self.pivots[after: after + a.nb])
            panel[to] = source
            order = panel[order]
            if a.cols.owners[j] == a.grid.q:
                first = a.cols.before(a.grid.q, j * a.nb)
                strip = a.local[after:, first: first + a.nb]
                strip[...] = a.local[order[after:], first: first + a.nb]

    @property
    def permutation(self):
        """(m,) int64: row i of L U is this row of the matrix."""
        return composed(self.matrix.shape[0], self.pivots)

    def diagonal(self):
        """The diagonal of U. Collective.

        Returns
        -------
        (min(m, n),) ndarray, on every rank
        """
        return norms.diagonal(self.matrix)

    def check(self):
        """Refuse to go on with a singular matrix. Collective.

        Raises
        ------
        Singular : an element of U's diagonal is zero
        """
        zero = np.flatnonzero(self.diagonal() == 0)
        if len(zero):
            raise Singular(int(zero[0]))

    def solve(self, b, ta="N", overwrite=False):
        """Solve ``op(a) x = b``. Collective.

        Parameters
        ----------
        b : BlockCyclic, (n, k), of the matrix's dtype, nb and grid
        ta : "N", "T" (transposed) or "C" (conjugate transposed)
        overwrite : bool, whether x may replace b; else b is copied

        Returns
        -------
        BlockCyclic, x (n, k)

        Raises
        ------
        Mismatch : the matrix is not square, or b does not go with it
        Singular
        """
        a = self.matrix
        if a.shape[0] != a.shape[1]:
            raise Mismatch(f"a: {a.shape[0]} x {a.shape[1]}: must be square to solve with")
        together(a=a, b=b)
        if b.shape[0] != a.shape[0]:
            raise Mismatch(f"b: {b.shape[0]} x {b.shape[1]}: must have {a.shape[0]} rows")
        self.check()
        x = b if overwrite else b.copy()
        if ta == "N":
            interchange(x, self.pivots)
            trsm(a, x, "L", "L", "N", unit=True)
            return trsm(a, x, "L", "U", "N")
        trsm(a, x, "L", "U", ta)
        trsm(a, x, "L", "L", ta, unit=True)
        interchange(x, self.pivots, backwards=True)
        return x

    def slogdet(self):
        """Sign (or phase) of the determinant, and the logarithm of its size. Collective.

        Returns
        -------
        sign : scalar of the matrix's dtype, 0 for a singular matrix
        logabsdet : float, -inf for a singular matrix

        Raises
        ------
        Mismatch : the matrix is not square
        """
        if self.matrix.shape[0] != self.matrix.shape[1]:
            raise Mismatch(f"a: {self.matrix.shape[0]} x {self.matrix.shape[1]}: must be square to have a determinant")
        diagonal = self.diagonal()
        size = np.abs(diagonal)
        if not size.all():
            return self.matrix.dtype.type(0), -np.inf
        swapped = (self.pivots != np.arange(len(self.pivots))).sum() % 2
        sign = np.prod(diagonal / size) * (-1 if swapped else 1)
        return self.matrix.dtype.type(sign), float(np.log(size, dtype=np.float64).sum())

    def lower(self):
        """L as a matrix of its own, its diagonal 1. Collective.

        Returns
        -------
        BlockCyclic, (m, min(m, n)), dealt out as the matrix is
        """
        a = self.matrix
        lower = a.like(rows=a.rows, cols=a.cols.head(min(a.shape)))
        i, j = lower.indices
        lower.local[...] = np.where(i[:, None] > j, a.local[:, : len(j)], i[:, None] == j)
        return lower

    def upper(self):
        """U as a matrix of its own. Collective.

        Returns
        -------
        BlockCyclic, (min(m, n), n), dealt out as the matrix is
        """
        a = self.matrix
        upper = a.like(rows=a.rows.head(min(a.shape)), cols=a.cols)
        i, j = upper.indices
        upper.local[...] = np.where(i[:, None] <= j, a.local[: len(i)], 0)
        return upper
