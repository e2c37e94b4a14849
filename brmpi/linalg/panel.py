"""A panel of an LU factorisation: columns in a contiguous buffer, factored, and sent along the rows of the grid."""

import numpy as np

from brmpi.linalg import blas
from brmpi.linalg.broadcast import Broadcast
from brmpi.linalg.swaps import Swaps

BASE = 8  # columns up to which the recursion goes on


class Panel:
    """Space for a panel, used for one after another.

    Parameters
    ----------
    matrix : BlockCyclic
    """

    def __init__(self, matrix):
        self.matrix, self.grid = matrix, matrix.grid
        nb, rows = matrix.nb, matrix.local.shape[0]
        self.bytes = np.empty(nb * 8 + (nb * nb + rows * nb) * matrix.dtype.itemsize + 64, dtype=np.uint8)
        self.broadcast = None

    def begin(self, j, chain):
        """Take over panel j: on its owners after it was factored, which ``factor`` does; elsewhere to receive it.

        Parameters
        ----------
        j : int
        chain : list of int, columns of the grid in the order in which they receive it
        """
        self.broadcast = Broadcast(self.grid.row, self._lay_out(j), chain, tag=j % 32768)
        self.swaps = None

    def _lay_out(self, j):
        """Views of the buffer as panel j has them; returns the part of it that is in use."""
        a, p = self.matrix, self.grid.p
        self.j, self.first = j, j * a.nb
        self.width = min(a.nb, min(a.shape) - self.first)
        self.top = int(a.rows.owners[j])
        self.row = a.rows.before(p, self.first)  # local row where the panel begins
        self.below = a.rows.before(p, self.first + self.width)
        rows, w, size = a.local.shape[0] - self.row, self.width, a.dtype.itemsize
        at = 8 * w
        self.pivots = self.bytes[:at].view(np.int64)
        corner = w * w * (self.grid.P > 1)  # with one row the panel's own first rows are the triangle
        cut = at + (corner + rows * w) * size
        held = self.bytes[at: cut].view(a.dtype)
        self.panel = held[corner:].reshape(w, rows).T
        self.triangle = held[:corner].reshape(w, w).T if corner else self.panel[:w]
        self.lower = self.panel[self.below - self.row:]
        return self.bytes[:cut]

    def ready(self):
        """Whether the panel is here.

        Returns
        -------
        bool
        """
        return self.broadcast.here()

    def wait(self):
        """Until the panel is here."""
        self.broadcast.wait()

    def swap(self, columns):
        """Swap rows of some local columns as this panel says. Collective over the column of the grid.

        Parameters
        ----------
        columns : slice

        Returns
        -------
        (w, columns) ndarray, as from ``Swaps``
        """
        if self.swaps is None:
            self.swaps = Swaps(self.matrix.rows, self.grid, self.first, self.pivots)
        return self.swaps(self.matrix.local, columns)

    def factor(self, j):
        """Factor panel j, whose columns are up to date, here and in the matrix. Collective over the column of the grid.

        Parameters
        ----------
        j : int
        """
        self._lay_out(j)
        a = self.matrix
        column = a.cols.before(self.grid.q, self.first)
        mine = a.local[self.row:, column: column + self.width]
        np.copyto(self.panel, mine)
        if self.grid.P == 1:
            pivots, info = np.zeros(self.width, dtype=np.int32), np.zeros(1, dtype=np.int32)
            rows = self.panel.shape[0]
            blas.call(blas.lapack("getrf", a.dtype), rows, self.width, self.panel, max(rows, 1), pivots, info)
            self.pivots[:] = pivots.astype(np.int64) - 1 + self.first
            np.copyto(mine, self.panel)
        else:
            self.kind = np.dtype([("size", np.float64), ("row", np.int64), ("found", a.dtype, (self.width,)),
                                  ("top", a.dtype, (self.width,))])
            self.indices = a.rows.indices(self.grid.p)[self.row:]
            self._recurse(0, self.width)
            if self.grid.p == self.top:
                self.panel[: self.width] = self.triangle
            np.copyto(mine, self.panel)

    def _recurse(self, begin, end):
        """Factor columns begin to end, to which those before have been applied."""
        if end - begin <= BASE:
            for column in range(begin, end):
                self._pivot(column, end)
            return
        middle = begin + max((end - begin) // 2 // BASE, 1) * BASE
        self._recurse(begin, middle)
        done, right = slice(begin, middle), slice(middle, end)
        blas.trsm("L", "L", "N", "U", 1, self.triangle[done, done], self.triangle[done, right])
        rows = slice(middle if self.grid.p == self.top else 0, None)
        blas.gemm(-1, self.panel[rows, done], self.triangle[done, right], 1, self.panel[rows, right])
        self._recurse(middle, end)

    def _pivot(self, column, end):
        """Find the pivot of a column, swap, and eliminate within the columns up to end: one message to each rank."""
        top = self.grid.p == self.top
        free = column if top else 0  # rows before are done
        active = self.panel[free:, column]
        mine, every = np.zeros(1, dtype=self.kind), np.empty(self.grid.P, dtype=self.kind)
        mine["size"] = -1
        if len(active):
            at = free + int(np.argmax(_size(active)))
            size = _size(self.panel[at: at + 1, column])[0]
            mine["size"] = np.inf if np.isnan(size) else size
            mine["row"], mine["found"] = self.indices[at], self.panel[at]
        if top:
            mine["top"] = self.panel[column]
        self.grid.col.Allgather(mine.view(np.uint8), every.view(np.uint8))
        sizes = every["size"]
        # The lowest row among those that are equal, as LAPACK takes it.
        best = min(np.flatnonzero(sizes == sizes.max()).tolist(), key=lambda rank: every["row"][rank])
        self.pivots[column] = every["row"][best]
        pivot = self.triangle[column] = every["found"][best]
        if best == self.grid.p:
            self.panel[at] = every["top"][self.top]
        rows = slice(column + 1 if top else 0, None)
        below = self.panel[rows, column: column + 1]
        if pivot[column] != 0:
            below /= pivot[column]
        blas.gemm(-1, below, self.triangle[column: column + 1, column + 1: end], 1, self.panel[rows, column + 1: end])


def _size(values):
    """What LAPACK compares: |x|, or |real x| + |imaginary x|."""
    return np.abs(values.real) + np.abs(values.imag) if np.iscomplexobj(values) else np.abs(values)
