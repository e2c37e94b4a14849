"""QR factors: Householder's reflectors in blocks, and a tree of small factorisations where there are few columns.

A block column is factored over its column of the grid by a tree (``tree``), whose Q is turned back into the
reflectors that LAPACK would have found; these go along the rows of the grid while the block column before is still
being taken off the rest. ``V^H C`` is summed over each column of the grid strip by strip, one strip's sum under way
while the next is multiplied.

Signs: in the factored form the diagonal of R is real, each element of the sign that LAPACK gives it, against that of
what it replaces (but for a column that is zero below the diagonal already, whose sign may be kept or turned).
``qr`` and ``tsqr`` make it >= 0, which makes Q and R unique where a has full rank.
"""

import numpy as np

from brmpi.linalg import blas
from brmpi.linalg.broadcast import Broadcast, patiently
from brmpi.linalg.failures import Mismatch
from brmpi.linalg.householder import columnwise, reflectors, unit_lower
from brmpi.linalg.tall import cut, positive, tsqr
from brmpi.linalg.tree import Tree

PIECE = 1 << 26  # multiplications and additions between two looks at the messages
NARROW, WIDE = 128, 512  # columns of a strip whose sum is under way, at least and at most
TALL = 256  # columns that one tree is used for, where every rank has twice as many rows

__all__ = ["QR", "qr", "tsqr"]


def qr(a, overwrite=False):
    """``a = q r`` with orthonormal columns in q and an upper triangular r. Collective.

    Parameters
    ----------
    a : (m, n) BlockCyclic, of any rank
    overwrite : bool, whether a may be used for the work; it is then of no more use

    Returns
    -------
    q : (m, k) BlockCyclic, where k = min(m, n), its rows dealt as a's
    r : (k, n) BlockCyclic, its columns dealt as a's; its diagonal is real and >= 0

    Raises
    ------
    NotEnoughMemory : no room for q, r, the work and two block columns
    """
    (m, n), size = a.shape, a.grid.comm.size
    if 0 < n <= max(TALL, 2 * a.nb) and m >= 2 * n * size and size > 1:
        return tsqr(a)
    factors = QR(a, overwrite)
    return positive(factors.q(), factors.r())


class QR:
    """A matrix in factors ``Q R``, Q as reflectors. Collective, as all methods are.

    Parameters
    ----------
    a : (m, n) BlockCyclic, of any rank
    overwrite : bool, whether the factors may take a's place

    Attributes
    ----------
    a : (m, n) BlockCyclic: R on and above the diagonal, and below it the reflectors, whose diagonal of ones is not
        stored, as LAPACK's ``geqrf`` has them
    ts : list of (k, k) ndarrays, of each block column: its reflectors together are ``I - V T V^H``; the diagonal of
        T is LAPACK's ``tau``. On ranks that have no row from there on it is not set

    Raises
    ------
    NotEnoughMemory : no room for the factors and two block columns
    """

    def __init__(self, a, overwrite=False):
        self.a = a = a if overwrite else a.copy()
        self.ts, self.blocks = [], -(-min(a.shape) // a.nb)
        self._rooms = self._room()
        panel = self._factored(0) if self.blocks else None
        while panel is not None:
            panel.wait()
            self.ts.append(panel.t.copy(order="F"))
            low, end, following, more = panel.right, a.local.shape[1], None, panel.k + 1 < self.blocks
            if more and a.grid.Q > 1:
                high = a.cols.before(a.grid.q, a.cols.span(panel.k + 1)[1])
                _take(panel, a, slice(low, high), True)
                low, following = high, self._factored(panel.k + 1)
            _take(panel, a, slice(low, end), True, following)
            if more and a.grid.Q == 1:  # no one could do anything else while it is factored
                following = self._factored(panel.k + 1)
            panel.finish()
            panel = following
        del self._rooms

    def _room(self):
        """Room for two block columns on their way."""
        a = self.a
        width = min(a.nb, *a.shape)
        size = len(a.local) * width + width * width
        a.grid.memory.check(3 * size * a.dtype.itemsize, f"three block columns of {a}")
        return [np.empty(size, dtype=a.dtype) for _ in range(2)]

    def _factored(self, k):
        """Factor block column k, by the ranks that have it, and send its reflectors on their way."""
        a, grid = self.a, self.a.grid
        panel = _Panel(self, k)
        if panel.root == grid.q and len(panel.v):
            here = a.local[panel.top:, panel.columns]
            block = columnwise(here)
            if len(panel.order) == 1:
                panel.v[...], panel.t[...], r = reflectors(block)
            else:
                panel.t[...], r = Tree(grid.col, panel.order, panel.heights, block).reflectors(panel.v)
            here[...] = panel.v
            if r is not None:
                upper = np.triu_indices(len(r))
                here[upper] = r[upper]
        return panel.start()

    def _held(self, k):
        """Send the reflectors of block column k on their way again."""
        panel = _Panel(self, k)
        if panel.root == self.a.grid.q:
            panel.v[...] = self.a.local[panel.top:, panel.columns]
            if panel.order[0] == self.a.grid.p:
                unit_lower(panel.v)
        panel.t[...] = self.ts[k]
        return panel.start()

    def apply(self, b, ta="N"):
        """``Q b``, or ``Q^H b``, in place of b; Q is the square one, m x m.

        Parameters
        ----------
        b : (m, l) BlockCyclic of the factors' type on the same grid, its rows dealt as a's
        ta : "N" for Q, "C" for Q^H

        Returns
        -------
        b

        Raises
        ------
        Mismatch : b's shape, type or layout, or ta
        """
        if b.grid is not self.a.grid or b.rows != self.a.rows:
            raise Mismatch(f"{b}: its rows must be dealt as those of {self.a}")
        if b.dtype != self.a.dtype:
            raise Mismatch(f"dtype = {b.dtype}: must be {self.a.dtype}, the factors'")
        if ta not in ("N", "C"):
            raise Mismatch(f"ta = {ta!r}: must be 'N' or 'C'")
        return self._apply(b, ta == "C")

    def _apply(self, b, back, identity=False):
        """Where b starts as the first columns of the identity, those before a block column's are not changed by it."""
        ks = list(range(self.blocks) if back else range(self.blocks - 1, -1, -1))
        self._rooms = self._room()
        panel = self._held(ks[0]) if ks else None
        for after in [*ks[1:], None][: len(ks)]:
            following = None if after is None else self._held(after)
            panel.wait()
            low = b.cols.before(b.grid.q, min(panel.k * self.a.nb, b.shape[1])) if identity else 0
            _take(panel, b, slice(low, b.local.shape[1]), back, following)
            panel.finish()
            panel = following
        del self._rooms
        return b

    def q(self, columns=None):
        """The first columns of Q.

        Parameters
        ----------
        columns : int, 0 to m; None for min(m, n)

        Returns
        -------
        (m, columns) BlockCyclic, its rows dealt as a's

        Raises
        ------
        Mismatch : more columns than Q has
        """
        a, m = self.a, self.a.shape[0]
        columns = min(a.shape) if columns is None else columns
        if not 0 <= columns <= m:
            raise Mismatch(f"columns = {columns}: must be 0 to {m}, the columns of Q")
        q = a.like(rows=a.rows, cols=cut(a.cols, columns, a.grid.col_weights))
        q.local[...] = 0
        _, i, j = np.intersect1d(*q.indices, assume_unique=True, return_indices=True)
        q.local[i, j] = 1
        return self._apply(q, False, identity=True)

    def r(self):
        """R, zero below the diagonal.

        Returns
        -------
        (min(m, n), n) BlockCyclic, its columns dealt as a's
        """
        a = self.a
        r = a.like(rows=cut(a.rows, min(a.shape), a.grid.row_weights), cols=a.cols)
        i, j = r.indices
        for first in range(0, len(i), a.nb):
            strip = slice(first, first + a.nb)
            r.local[strip] = np.where(i[strip, None] <= j, a.local[: len(i)][strip], 0)
        return r


class _Panel:
    """The reflectors of one block column, on their way along each row of the grid.

    ``v`` and ``t`` are here after ``wait``; ``top`` is this rank's first row of v, ``right`` its first column after
    the block column, ``order`` the rows of the grid that have rows of v, that of its first one first.
    """

    def __init__(self, factors, k):
        a, grid = factors.a, factors.a.grid
        first, end = k * a.nb, min((k + 1) * a.nb, *a.shape)
        self.k, self.grid, width = k, grid, end - first
        self.root = int(a.cols.owners[k])
        self.top, self.right = a.rows.before(grid.p, first), a.cols.before(grid.q, end)
        left = a.cols.before(grid.q, first)
        self.columns = slice(left, left + width)
        self.heights = [a.rows.count(part) - a.rows.before(part, first) for part in range(grid.P)]
        head = int(a.rows.owners[k])
        others = ((head + step) % grid.P for step in range(1, grid.P))
        self.order = [head, *(part for part in others if self.heights[part])]
        self.next = int(a.cols.owners[k + 1]) if k + 1 < a.cols.blocks else self.root
        height = self.heights[grid.p]
        self.flat = factors._rooms[k % 2][: (height + width) * width]
        self.v = self.flat[: height * width].reshape(height, width)
        self.t = self.flat[height * width:].reshape(width, width).T

    def start(self):
        """Let go of what the root of each row has."""
        chain = [(self.root + step) % self.grid.Q for step in range(self.grid.Q)]
        if self.next != self.root:  # which needs it first
            chain.insert(1, chain.pop(chain.index(self.next)))
        self._along = Broadcast(self.grid.row, self.flat, chain, self.k % 8)
        self.poll, self.wait, self.finish = self._along.poll, self._along.wait, self._along.finish
        return self


def _take(panel, b, columns, back, coming=None):
    """``C -= V T V^H C`` (T^H where ``back``) for some of this rank's columns, looking after what is under way."""
    from mpi4py import MPI

    rows, (height, width) = b.local[panel.top:], panel.v.shape
    total, several = columns.stop - columns.start, len(panel.order) > 1
    step = min(max(total // 4, NARROW), WIDE) if several else max(total, 1)
    piece = max(PIECE // max(width * min(step, total), 1), NARROW)  # rows

    def _poll():
        panel.poll()
        if coming is not None:
            coming.poll()

    def _start(strip):
        sums, request = np.zeros((width, strip.stop - strip.start), dtype=b.dtype), None
        for at in range(0, height, piece):
            blas.gemm(1, panel.v[at: at + piece], rows[at: at + piece, strip], 1, sums, ta="C")
            _poll()
        if several:
            request = panel.grid.col.Iallreduce(MPI.IN_PLACE, sums)
        return strip, sums, request

    def _finish(strip, sums, request):
        if request is not None:
            patiently(lambda: _poll() or request.Test())
        if height:
            blas.trmm("L", "U", "C" if back else "N", "N", 1, panel.t, sums)
        for at in range(0, height, piece):
            blas.gemm(-1, panel.v[at: at + piece], sums, 1, rows[at: at + piece, strip])
            _poll()

    before = None
    for first in range(columns.start, columns.stop, step):
        started = _start(slice(first, min(first + step, columns.stop)))
        if before is not None:
            _finish(*before)
        before = started
    if before is not None:
        _finish(*before)
