"""Cholesky factors of symmetric and hermitian matrices, and systems of equations by them.

Right-looking, block column by block column: the next one is brought up to date and factored first, and sent on its
way while the rest is brought up to date. A rank needs the block column twice, its rows for the rows that it owns
(they come along its row of the grid) and its rows for the columns that it owns (each then comes along its column of
the grid, from the rank that has it by then). Only the lower trapezoid is computed, in pieces as large as can be.
"""

import ctypes

import numpy as np

from brmpi.linalg import blas
from brmpi.linalg.broadcast import Broadcast, patiently
from brmpi.linalg.failures import Mismatch, NotPositiveDefinite

PIECE = 1 << 26  # multiplications and additions between two looks at the messages
NARROW = 64  # columns of the trapezoid that are not split any further


def cholesky(a, overwrite=False):
    """The lower triangular L of ``a = L L^H``. Collective.

    Parameters
    ----------
    a : (n, n) BlockCyclic, symmetric or, where it is complex, hermitian, and positive definite; only its lower
        triangle is looked at, and only the real part of its diagonal. Its rows and columns may be dealt differently
    overwrite : bool, whether L may take a's place; if it fails, a is then of no more use

    Returns
    -------
    (n, n) BlockCyclic, laid out as a: zero above the diagonal, which is real and > 0

    Raises
    ------
    Mismatch : a is not square
    NotPositiveDefinite : the order of the first leading minor that is not positive, or not a number
    NotEnoughMemory : no room for L and two block columns
    """
    if a.shape[0] != a.shape[1]:
        raise Mismatch(f"shape = {a.shape}: must be square to have a Cholesky factor")
    factor = a if overwrite else a.copy()
    work = _Work(factor)
    panel = work.panel(0) if factor.rows.blocks else None
    while panel is not None:
        panel.wait()
        if panel.minor:
            panel.finish()
            raise NotPositiveDefinite(panel.minor)
        following = None
        if panel.k + 1 < factor.rows.blocks:
            if work.owns(panel.k + 1):
                work.update(panel, *work.slots(panel.k + 1))
            following = work.panel(panel.k + 1)
            work.update(panel, work.slots(panel.k + 1)[1], len(work.stairs), following)
        panel.finish()
        panel = following
    _clear(factor)
    return factor


def cholesky_solve(l, b, overwrite=False):  # noqa: E741
    """Solve ``a x = b`` by the Cholesky factor of a. Collective.

    Parameters
    ----------
    l : (n, n) BlockCyclic, from ``cholesky``
    b : (n, k) BlockCyclic of the same type on the same grid
    overwrite : bool, whether x may take b's place

    Returns
    -------
    (n, k) BlockCyclic, laid out as b

    Raises
    ------
    Mismatch : shapes, types or layouts that do not go together
    """
    from brmpi.linalg.triangular import trsm

    if l.shape[0] != l.shape[1] or b.shape[0] != l.shape[0]:
        raise Mismatch(f"shapes {l.shape} and {b.shape}: must be (n, n) and (n, k)")
    if l.dtype != b.dtype:
        raise Mismatch(f"dtypes {l.dtype} and {b.dtype}: must be the same")
    x = b if overwrite else b.copy()
    trsm(l, x, "L", "L", "N")
    return trsm(l, x, "L", "L", "C")


class _Work:
    """What all block columns share: where things are on this rank, and room for two block columns on their way."""

    def __init__(self, a):
        self.a, grid = a, a.grid
        self.held = a.cols.held[grid.q]
        self.stairs = [a.rows.before(grid.p, block * a.nb) for block in self.held]  # first row of each block column
        mine, cols = a.indices
        owners = a.rows.owner(cols) if len(cols) else np.empty(0, dtype=np.int64)
        self.places = [np.flatnonzero(owners == part) for part in range(grid.P)]  # columns whose rows a part owns
        self.sources = np.searchsorted(mine, cols[self.places[grid.p]])  # where this rank has those rows
        size = min(a.nb, a.shape[0])
        sizes = len(mine) * size + 1, len(cols) * size, *(len(place) * size for place in self.places)
        grid.memory.check(2 * sum(sizes) * a.dtype.itemsize, f"two block columns of {a}")
        self.rooms = [[np.empty(size, dtype=a.dtype) for size in sizes] for _ in range(2)]

    def owns(self, k):
        """Whether block column k is here, in part at least."""
        return self.a.cols.owners[k] == self.a.grid.q

    def slots(self, k):
        """First of this rank's block columns that is not before k, and first after it."""
        return int(np.searchsorted(self.held, k)), int(np.searchsorted(self.held, k, side="right"))

    def panel(self, k):
        """Factor block column k if it is here, and send it on its way."""
        return _Panel(self, k, self._factor(k) if self.owns(k) else None)

    def _factor(self, k):
        """Factor a block column, by the ranks that have it; the order of a minor that is not positive, or 0."""
        a, grid = self.a, self.a.grid
        first, end = a.rows.span(k)
        top, below = a.rows.before(grid.p, first), a.rows.before(grid.p, end)
        left = a.cols.before(grid.q, first)
        columns = slice(left, left + end - first)
        told = np.empty((end - first) ** 2 + 1, dtype=a.dtype)
        square = told[:-1].reshape(end - first, end - first)
        root = int(a.rows.owners[k])
        if root == grid.p:
            block = a.local[top:below, columns]
            minor = _potrf(block)
            square[...] = block
            told[-1] = minor and first + minor
        if grid.P > 1:
            grid.col.Bcast(told, root)
        minor = int(told[-1].real)
        if not minor:
            blas.trsm("R", "L", "C", "N", 1, square, a.local[below:, columns])
        return minor

    def update(self, panel, low, high, coming=None):
        """Take a block column's part off some of this rank's, looking after what is under way."""
        a = self.a
        first, nb = panel.left_from, a.nb
        rows = len(a.local)
        for lo, hi, top, bottom in _trapezoid(self.stairs, nb, low, high, rows):
            columns = slice(lo * nb, min(hi * nb, a.local.shape[1]))
            right = panel.right[columns.start - panel.right_from: columns.stop - panel.right_from]
            step = max(PIECE // max(right.size, 1), 1)
            for at in range(top, bottom, step):
                end = min(at + step, bottom)
                blas.gemm(-1, panel.left[at - first: end - first], right, 1, a.local[at:end, columns], tb="C")
                panel.poll()
                if coming is not None:
                    coming.poll()


class _Panel:
    """One block column of L, below its diagonal block, on its way to all ranks.

    ``left`` are its rows in this rank's rows of the matrix, ``right`` those in its columns; ``minor`` is the order
    of a minor that is not positive, or 0, once it is here.
    """

    def __init__(self, work, k, minor):
        self.work, self.k, a = work, k, work.a
        grid = a.grid
        first, end = a.cols.span(k)
        self.left_from, self.right_from = a.rows.before(grid.p, end), a.cols.before(grid.q, end)
        height, width = len(a.local) - self.left_from, end - first
        room, self._right, *self._rooms = work.rooms[k % 2]
        self.flat = room[: height * width + 1]
        self.left = self.flat[:-1].reshape(height, width)
        if minor is not None:
            at = a.cols.before(grid.q, first)
            self.left[...] = a.local[self.left_from:, at: at + width]
            self.flat[-1] = minor
        root = int(a.cols.owners[k])
        chain = [(root + step) % grid.Q for step in range(grid.Q)]
        if k + 1 < a.cols.blocks and a.cols.owners[k + 1] != root:  # which needs it first
            chain.insert(1, chain.pop(chain.index(a.cols.owners[k + 1])))
        self.along = Broadcast(grid.row, self.flat, chain, k % 8)
        self.starts = [int(np.searchsorted(place, self.right_from)) for place in work.places]
        self.pieces = [room[: (len(place) - start) * width].reshape(-1, width)
                       for room, place, start in zip(self._rooms, work.places, self.starts)]
        self.down = [self._piece(part) for part in range(grid.P) if part != grid.p]
        self.handed = False

    def _piece(self, part):
        """Along the column of the grid, what a row of it has that this column needs."""
        grid = self.work.a.grid
        chain = [(part + step) % grid.P for step in range(grid.P)]
        return Broadcast(grid.col, self.pieces[part], chain, self.k % 8 * grid.P + part)

    def _hand_on(self):
        """Whether the rows are here; once they are, those that this column needs go along it."""
        if not self.handed and self.along.here():
            work, p = self.work, self.work.a.grid.p
            np.take(self.left, work.sources[self.starts[p]:] - self.left_from, axis=0, out=self.pieces[p],
                    mode="clip")
            self.down.append(self._piece(p))
            self.handed = True
        return self.handed

    @property
    def minor(self):
        """Order of a leading minor that is not positive, or 0."""
        return int(self.flat[-1].real)

    def poll(self):
        """Send on what has come, and tell whether all is done."""
        done = [self._hand_on() and self.along.poll()]
        done += [one.poll() for one in self.down]
        return all(done)

    def _here(self):
        here = [self._hand_on()]
        here += [one.here() for one in self.down]  # each sends on what has come
        return all(here)

    def wait(self):
        """Until both are here, and ``right`` in the order of the columns."""
        patiently(self._here)
        if len(self.pieces) == 1:
            self.right = self.pieces[0]
            return
        count, width = sum(map(len, self.pieces)), self.left.shape[1]
        self.right = self._right[: count * width].reshape(count, width)
        for place, start, piece in zip(self.work.places, self.starts, self.pieces):
            self.right[place[start:] - self.right_from] = piece

    def finish(self):
        """Until the room may be used again."""
        patiently(self.poll)


def _trapezoid(stairs, nb, low, high, bottom):
    """Rectangles (first, end block column, first, end row) that cover what is under a staircase, large ones first."""
    if low >= high or stairs[low] >= bottom:
        return
    if high - low == 1 or (high - low) * nb <= NARROW:
        yield low, high, stairs[low], bottom
        return
    middle = (low + high) // 2
    if stairs[middle] < bottom:
        yield low, middle, stairs[middle], bottom
    yield from _trapezoid(stairs, nb, low, middle, min(stairs[middle], bottom))
    yield from _trapezoid(stairs, nb, middle, high, bottom)


def _potrf(block):
    """Factor one block in place; the order of its first minor that is not positive, or 0."""
    n, info = len(block), ctypes.c_int()
    ld = block.strides[0] // block.itemsize if n > 1 else n
    # row by row is column by column of the transpose, whose upper triangle is this lower one's
    blas.call(blas.lapack("potrf", block.dtype), "U", n, block, max(ld, n), info)
    bad = np.flatnonzero(np.isnan(block.diagonal().real[: info.value - 1 if info.value > 0 else n]))
    return int(bad[0]) + 1 if len(bad) else info.value


def _clear(a):
    """Zero above the diagonal."""
    for slot, block in enumerate(a.cols.held[a.grid.q]):
        first, end = a.rows.span(block)
        columns = slice(slot * a.nb, slot * a.nb + end - first)
        top = a.rows.before(a.grid.p, first)
        a.local[:top, columns] = 0
        if a.rows.owners[block] == a.grid.p:
            a.local[top: top + end - first, columns][np.triu_indices(end - first, 1)] = 0
