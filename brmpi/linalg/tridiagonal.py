"""A symmetric or hermitian matrix made tridiagonal by Householder reflections, and their product with vectors.

LAPACK's blocked method (``sytrd``; Dongarra, Sorensen & Hammarling, "Block reduction of matrices to condensed forms for
eigenvalue computations", J. Comput. Appl. Math. 27, 1989): within a panel the trailing matrix stays as it is, and the
panel's ``v w^H + w v^H`` are taken off once, by one product of matrices. The panel and its v and w, O(n) numbers a
column, are on every rank; so a column needs one reduction, that of the product of the trailing matrix with v, and a
panel one more gathering. Half of the operations are in these products, which read the matrix once: the triangle
below the diagonal alone, each strip of columns for ``a v`` and at once for ``a^H v``.
"""

import numpy as np

from brmpi.kernels import has_numba
from brmpi.linalg import blas

PANEL = 32  # columns
BACK = 64  # reflections that are applied at once to vectors
STRIPS = 8  # of columns, in which a rank goes through its part of the triangle
COMPILED = 400  # columns, from which a compiled loop is worth its loading
NARROW, WIDE = 64, 512  # columns of a strip


class _Strip:
    """Columns ``first`` to ``end`` of a local part; from row ``top`` on they are in the lower triangle at least partly,
    from ``full`` on wholly. ``mask`` has the rows in between: 1 below the diagonal, 1/2 on it."""

    def __init__(self, i, j, first, end, dtype):
        self.first, self.end = first, end
        self.top, self.full = (int(at) for at in np.searchsorted(i, (j[first], j[end - 1] + 1)))
        below = i[self.top: self.full, None] - j[first:end]
        self.mask = ((below > 0) + 0.5 * (below == 0)).astype(dtype)


class Tridiagonal:
    """The reduction ``q^H a q = t`` of a matrix, which is overwritten. Collective.

    Parameters
    ----------
    a : BlockCyclic (n, n), its lower triangle is looked at; its local part becomes this object's

    Attributes
    ----------
    diagonal : (n,) float, of t, the same on every rank
    off : (n - 1,) float, below it
    """

    def __init__(self, a):
        self.a, self.local, self.comm, self.n = a, a.local, a.grid.comm, a.shape[0]
        self.i, self.j = a.indices
        real = self.local.real.dtype
        self.row_at, self.col_at = (np.searchsorted(own, np.arange(self.n + 1)).tolist() for own in (self.i, self.j))
        width = int(np.clip(-(-len(self.j) // STRIPS), NARROW, WIDE))
        self.strips = [_Strip(self.i, self.j, first, min(first + width, len(self.j)), real)
                       for first in range(0, len(self.j), width)] if len(self.i) else []
        for at in range(0, len(self.i), a.nb):
            part, below = self.local[at: at + a.nb], self.i[at: at + a.nb, None] - self.j
            part[below < 0] = 0  # what is there may be anything
            part[below == 0] = 0.5 * part[below == 0].real  # so that a = t + t^H
        self.both, self.ends = None, np.searchsorted(self.j, self.i, side="right")
        if self.n >= COMPILED and has_numba():
            from brmpi.linalg.staircase_numba import both

            self.both = both
        self.diagonal, self.off = np.zeros(self.n, real), np.zeros(max(self.n - 1, 0), real)
        self.tau = np.zeros(self.n, self.local.dtype)
        for first in range(0, self.n, PANEL):
            self._panel(first, min(first + PANEL, self.n))
        self.comm.Bcast(self.diagonal, 0)  # ranks of other processors may round otherwise
        self.comm.Bcast(self.off, 0)

    def apply(self, x):
        """Replace vectors by q times them; each rank has its own, and all call this together.

        Parameters
        ----------
        x : (k, n) ndarray of the matrix's dtype, C order, a vector a row
        """
        for first in reversed(range(0, self.n - 1, BACK)):
            end = min(first + BACK, self.n - 1)
            v = np.tril(self._columns(first, end)[1:])
            part = x[:, first + 1:]
            inner = np.empty((len(x), end - first), dtype=x.dtype)
            blas.gemm(1, part, v.conj(), 0, inner)
            blas.gemm(-1, inner @ _factor(v, self.tau[first:end]).T, v, 1, part, tb="T")

    def _columns(self, first, end):
        """Columns of all, from row ``first`` on, on every rank: (n - first, end - first), column by column."""
        grid, (rows, cols) = self.a.grid, (self.a.rows, self.a.cols)
        mine = np.ascontiguousarray(self.local[self.row_at[first]:, self.col_at[first]: self.col_at[end]])
        if self.comm.size == 1:
            return np.asfortranarray(mine)
        i = [rows.indices(p)[rows.before(p, first):] - first for p in range(grid.P)]
        j = [cols.indices(q)[cols.before(q, first): cols.before(q, end)] - first for q in range(grid.Q)]
        places = sorted(zip(grid.ranks.ravel(), np.ndindex(*grid.shape)))
        counts = [len(i[p]) * len(j[q]) for _, (p, q) in places]
        found = np.empty(sum(counts), dtype=self.local.dtype)
        self.comm.Allgatherv(mine, (found, counts))
        whole, at = np.empty((self.n - first, end - first), dtype=self.local.dtype, order="F"), 0
        for count, (_, (p, q)) in zip(counts, places):
            whole[i[p][:, None], j[q]] = found[at: at + count].reshape(len(i[p]), len(j[q]))
            at += count
        return whole

    def _panel(self, first, end):
        """Reduce columns ``first`` to ``end``, and take their part off the trailing matrix."""
        panel = self._columns(first, end)
        width = end - first
        panel[np.arange(width), np.arange(width)] *= 2
        pairs = np.zeros((self.n - first, 2 * width), dtype=panel.dtype, order="F")  # v, w, v, w …: a - pairs swapped^H
        for k in range(width):
            x, known = panel[k:, k], pairs[:, : 2 * k]
            x -= known[k:] @ _swapped(known[k]).conj()
            self.diagonal[first + k] = x[0].real
            v = x[1:]
            if not len(v):
                break
            tau, self.off[first + k] = _reflect(v)
            w = self._times(first + k + 1, v)
            w -= known[k + 1:] @ _swapped(known[k + 1:].conj().T @ v)
            w *= tau
            w -= 0.5 * tau * np.vdot(w, v) * v
            pairs[k + 1:, 2 * k], pairs[k + 1:, 2 * k + 1] = v, w
            self.tau[first + k] = tau
        own = slice(self.col_at[first], self.col_at[end])
        self.local[self.row_at[first]:, own] = panel[np.ix_(self.i[self.row_at[first]:] - first, self.j[own] - first)]
        self._update(end, pairs[width:])

    def _times(self, start, v):
        """The trailing matrix, from row and column ``start`` on, times a vector, on every rank."""
        rows, cols = self.row_at[start], self.col_at[start]
        i, j = self.i[rows:] - start, self.j[cols:] - start
        right, left = v[j], v[i].conj()
        low, high = np.zeros_like(left), np.zeros_like(right)
        if self.both:
            self.both(self.local[rows:], cols, self.ends[rows:], right, left, low, high)
        else:
            self._by_strips(rows, cols, right, left, low, high)
        product = np.zeros_like(v)
        product[i] = low
        product[j] += high.conj()
        if self.comm.size > 1:
            self.comm.Allreduce(_in_place(), product)
        return product

    def _by_strips(self, rows, cols, right, left, low, high):
        """What ``staircase_numba.both`` does, from row ``rows`` and column ``cols`` on, reading twice."""
        for strip in self.strips:
            top, here = max(strip.top, rows), max(strip.first, cols)
            if here < strip.end and top < len(self.i):
                part, at = self.local[top:, here: strip.end], slice(here - cols, strip.end - cols)
                low[top - rows:] += part @ right[at]
                high[at] = part.T @ left[top - rows:]

    def _update(self, start, pairs):
        """Take ``v w^H + w v^H`` off the trailing matrix."""
        rows, cols = self.row_at[start], self.col_at[start]
        low = pairs[self.i[rows:] - start]
        high = _swapped(pairs.T).T[self.j[cols:] - start].conj()
        for strip in self.strips:
            top, full, here = max(strip.top, rows), max(strip.full, rows), max(strip.first, cols)
            if here < strip.end:
                across = high[here - cols: strip.end - cols]
                self.local[top:full, here: strip.end] -= (low[top - rows: full - rows] @ across.T
                                                          * strip.mask[top - strip.top:, here - strip.first:])
                blas.gemm(-1, low[full - rows:], across, 1, self.local[full:, here: strip.end], tb="T")


def _in_place():
    from mpi4py import MPI

    return MPI.IN_PLACE


def _swapped(pairs):
    """Rows 1, 0, 3, 2 …"""
    return pairs.reshape(len(pairs) // 2, 2, *pairs.shape[1:])[:, ::-1].reshape(pairs.shape)


def _reflect(x):
    """(tau, beta) with ``(I - tau v v^H)^H x = beta e_0``, beta real; v, whose first is 1, replaces x."""
    tau = np.zeros(1, dtype=x.dtype)
    blas.call(blas.lapack("larfg", x.dtype), len(x), x, x[1:], 1, tau)
    beta = x[0].real
    x[0] = 1
    return tau[0], beta


def _factor(v, tau):
    """T with ``(I - tau_0 v_0 v_0^H) (I - tau_1 v_1 v_1^H) … = I - v T v^H``, upper triangular."""
    inner = v.conj().T @ v
    factor = np.zeros_like(inner)
    for k in range(len(tau)):
        factor[:k, k] = -tau[k] * (factor[:k, :k] @ inner[:k, k])
        factor[k, k] = tau[k]
    return factor
