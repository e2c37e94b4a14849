"""Equations and products with a triangular matrix: ``trsm`` and ``trmm``, in place, block after block.

A step solves for one block of rows and takes its product with a panel of A from the rows that are left. The rows that
come next are done first, so that the next step's panel is on its way while BLAS works on all the others (look-ahead).
From the right, or with a transpose, it is the same of transposed views.
"""

import numpy as np

from brmpi.errors import BadInput
from brmpi.linalg import blas
from brmpi.linalg.broadcast import Broadcast
from brmpi.linalg.failures import Mismatch, Singular
from brmpi.linalg.operand import Operand, along, apart, here, letter, scalar, together
from brmpi.linalg.traffic import Traffic
from brmpi.linalg.transport import DEPTH, TAGS, Fetch, ring


def trsm(a, b, side="L", uplo="L", ta="N", unit=False, alpha=1):
    """Solve ``op(A) X = alpha B``, or ``X op(A) = alpha B``, with a triangular A; X replaces B. Collective.

    Parameters
    ----------
    a : BlockCyclic, (n, n), of which one triangle is looked at
    b : BlockCyclic, (n, k), or (k, n) where A is on the right, on the same grid, of the same type and block size
    side : "L", A on the left, or "R"
    uplo : "L" or "U", the triangle of A
    ta : "N", "T" (transposed) or "C" (conjugate transposed)
    unit : bool, whether A's diagonal is taken as ones, and not looked at
    alpha : number, real where the matrices are

    Returns
    -------
    BlockCyclic, B

    Raises
    ------
    Mismatch : shapes, grids, types or block sizes that do not go together, or a B that is A
    BadInput : a letter that means nothing, or a complex factor of real matrices
    Singular : a diagonal element is zero; B is as it was
    """
    left, right, lower, alpha = _arguments(a, b, side, uplo, ta, alpha)
    if not unit:
        _check_diagonal(a)
    _scale(b, alpha)
    _Sweep(left, right, lower, unit).solve()
    return b


def trmm(a, b, side="L", uplo="L", ta="N", unit=False, alpha=1):
    """``B = alpha op(A) B``, or ``B = alpha B op(A)``, with a triangular A, in place. Collective.

    Parameters
    ----------
    a, b, side, uplo, ta, unit, alpha : as in ``trsm``

    Returns
    -------
    BlockCyclic, B

    Raises
    ------
    Mismatch, BadInput : as in ``trsm``
    """
    left, right, lower, alpha = _arguments(a, b, side, uplo, ta, alpha)
    _scale(b, alpha)
    _Sweep(left, right, lower, unit).multiply()
    return b


def _arguments(a, b, side, uplo, ta, alpha):
    """op(A) and B as if A were on the left, whether op(A) is a lower triangle, and alpha."""
    for value, name, known in ((side, "side", "LR"), (uplo, "uplo", "LU")):
        if value not in tuple(known):
            raise BadInput(f'{name} = {value!r}: must be "{known[0]}" or "{known[1]}"')
    letter(ta, "ta")
    together(a=a, b=b)
    if a.shape[0] != a.shape[1]:
        raise Mismatch(f"a is {a.shape[0]} x {a.shape[1]}: must be square")
    if b.shape[side == "R"] != a.shape[0]:
        what = "columns" if side == "R" else "rows"
        raise Mismatch(f"b is {b.shape[0]} x {b.shape[1]}: must have {a.shape[0]} {what}")
    apart(("b", b), a=a)
    left, right, lower = Operand(a, ta), Operand(b), (uplo == "L") == (ta == "N")
    if side == "R":
        left, right, lower = left.T, right.T, not lower
    return left, right, lower, scalar(alpha, b.dtype, "alpha")


def _check_diagonal(a):
    """Raise Singular, on every rank, where a diagonal element is zero. Collective."""
    i, j = a.indices
    both, rows, cols = np.intersect1d(i, j, assume_unique=True, return_indices=True)
    zeros = both[a.local[rows, cols] == 0]
    first = min(a.grid.comm.allgather(int(zeros[0]) if len(zeros) else a.shape[0]))
    if first < a.shape[0]:
        raise Singular(first)


def _scale(b, alpha):
    if alpha == 0:
        b.local[...] = 0
    elif alpha != 1:
        b.local *= alpha


class _Sweep:
    """Steps over the blocks of a triangular matrix on the left of B."""

    def __init__(self, left, right, lower, unit):
        self.left, self.right, self.lower, self.unit = left, right, lower, "U" if unit else "N"
        self.grid, self.dim = right.grid, right.dim
        self.mine = here(self.grid, self.dim)
        self.traffic = Traffic()
        wanted = np.array([right.cols.count(part) > 0 for part in range(right.cols.parts)])
        self.fetch = Fetch(left, right.rows, self.dim, wanted, self.traffic, 0, min(left.cols.nb, max(left.cols.n, 1)))
        self.holds = np.array([right.rows.count(part) > 0 for part in range(right.rows.parts)])
        self.buffers, self.sent = [None, None], [None, None]

    def _panel(self, block):
        """Columns of op(A) at a block, from its diagonal on, on their way."""
        blocks = self.left.cols.blocks
        return self.fetch.start(np.array([block]), *((block, blocks) if self.lower else (0, block + 1)))

    def _rows(self, first, end):
        """This rank's rows in some blocks."""
        axis = self.right.rows
        return slice(axis.before(self.mine, min(first * axis.nb, axis.n)),
                     axis.before(self.mine, min(end * axis.nb, axis.n)))

    def _broadcast(self, block, turn):
        """A block of rows of B, on its way to all that have other rows."""
        axis, x = self.right.rows, self.right.x
        root = int(axis.owners[block])
        slot = turn % 2
        if self.sent[slot] is not None:
            self.traffic.until(self.sent[slot].poll)
        if self.buffers[slot] is None:
            self.buffers[slot] = np.empty(axis.nb * x.shape[1], dtype=x.dtype)
        width = axis.width(block)
        flat = self.buffers[slot][: width * x.shape[1]]
        rows = flat.reshape(-1, width).T if self.dim else flat.reshape(width, -1)
        if root == self.mine:
            rows[...] = x[self._rows(block, block + 1)]
        chain = ring(root, axis.parts, self.holds)
        self.sent[slot] = self.traffic.add(Broadcast(along(self.grid, self.dim), flat, chain, 2 * TAGS + turn % TAGS))
        return rows

    def _diagonal(self, panel, block):
        """The triangle at a block, of a panel of this rank, which owns the block's rows."""
        width = self.right.rows.width(block)
        at = self._rows(block, block + 1).start - panel.skip
        return panel.data[at: at + width]

    def _local(self, function, panel, block):
        """Solve, or multiply, with the triangle on the diagonal, where B's rows are."""
        if self.right.rows.owners[block] == self.mine and self.right.x.shape[1]:
            rows = self.right.x[self._rows(block, block + 1)]
            function("L", "L" if self.lower else "U", "N", self.unit, 1, self._diagonal(panel, block), rows)

    def _add(self, sign, panel, block, rows, first, end):
        """Add a panel's product with a block of rows of B to B's rows in other blocks."""
        place = self._rows(first, end)
        part = panel.data[place.start - panel.skip: place.stop - panel.skip]
        if place.start < place.stop and self.right.x.shape[1]:
            self.traffic.gemm(sign, part, rows, 1, self.right.x[place])

    def solve(self):
        """B becomes the solution."""
        count = self.right.rows.blocks
        order = list(range(count)) if self.lower else list(range(count - 1, -1, -1))
        if not order or not self.right.cols.n:
            return
        coming = [self._panel(block) for block in order[:DEPTH]]
        rows = self._solved(coming[0], order[0], 0)
        for turn, block in enumerate(order):
            panel = coming.pop(0)
            if turn + DEPTH < count:
                coming.append(self._panel(order[turn + DEPTH]))
            if turn + 1 == count:
                break
            following = order[turn + 1]
            self.traffic.until(panel.here)
            self.traffic.until(self.sent[turn % 2].here)
            self._add(-1, panel, block, rows, following, following + 1)
            ahead = self._solved(coming[0], following, turn + 1)
            self._add(-1, panel, block, rows, *((following + 1, count) if self.lower else (0, following)))
            rows = ahead
        self.traffic.finish()

    def _solved(self, panel, block, turn):
        if self.right.rows.owners[block] == self.mine:
            self.traffic.until(panel.here)
        self._local(blas.trsm, panel, block)
        return self._broadcast(block, turn)

    def multiply(self):
        """B becomes the product."""
        count = self.right.rows.blocks
        order = list(range(count - 1, -1, -1)) if self.lower else list(range(count))
        if not order or not self.right.cols.n:
            return
        coming = [self._panel(block) for block in order[:DEPTH]]
        ahead = self._broadcast(order[0], 0)
        for turn, block in enumerate(order):
            panel, rows = coming.pop(0), ahead
            if turn + DEPTH < count:
                coming.append(self._panel(order[turn + DEPTH]))
            if turn + 1 < count:  # its rows have not been changed yet: each step changes its own and those done before
                ahead = self._broadcast(order[turn + 1], turn + 1)
            self.traffic.until(panel.here)
            self.traffic.until(self.sent[turn % 2].here)
            self._add(1, panel, block, rows, *((block + 1, count) if self.lower else (0, block)))
            self._local(blas.trmm, panel, block)
        self.traffic.finish()
