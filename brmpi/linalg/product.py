"""``matmul`` and ``syrk``: products of matrices that are dealt out in blocks.

Each product is made in one of three ways, by what has to be sent. C stays: panels of A go along the rows of the grid
and panels of B along its columns, and every rank adds their product to its part of C (SUMMA). Or A stays: panels of B
go to the ranks with the columns of A that they meet, and partial products are added up on their way to C. Or B stays,
which is the same of the transposes. For square matrices without transposes C stays; a thin B is sent to A, and not
A to B. Panels are on their way while BLAS works on those before them (``transport``, ``traffic``).

Source: R. A. van de Geijn and J. Watts, SUMMA: scalable universal matrix multiplication algorithm, Concurrency:
Practice and Experience 9 (1997) 255-274.
"""

import numpy as np

from brmpi.errors import BadInput
from brmpi.linalg.failures import Mismatch
from brmpi.linalg.operand import (
    Operand,
    along,
    apart,
    groups,
    here,
    letter,
    places,
    rank,
    scalar,
    together,
)
from brmpi.linalg.reduction import Reduction
from brmpi.linalg.traffic import Traffic
from brmpi.linalg.transport import DEPTH, TAGS, Fetch, Pieces, Route, direct, ring

WIDTH = 256  # columns of a panel, about: BLAS is faster by some hundredths than with 128, and ranks meet less often
ADDED = 1.25  # what sending a partial sum costs beside sending a panel, which is not added to
LARGE = 1 << 26  # bytes of panels, from which it is asked whether they fit


def matmul(a, b, c=None, alpha=1, beta=0, ta="N", tb="N"):
    """``C = alpha op(A) op(B) + beta C``. Collective.

    Parameters
    ----------
    a : BlockCyclic, (m, k), or (k, m) where it is transposed
    b : BlockCyclic, (k, n), or (n, k), on the same grid, of the same type and block size; dealt out by any weights
    c : BlockCyclic, (m, n), alike, which is written to; None for a new one, by the weights of A's rows and B's columns,
        or the grid's where these are dealt over its other dimension
    alpha, beta : numbers, real where the matrices are; where beta is 0, what C held is not looked at
    ta, tb : "N", "T" (transposed) or "C" (conjugate transposed)

    Returns
    -------
    BlockCyclic, C

    Raises
    ------
    Mismatch : shapes, grids, types or block sizes that do not go together, or a C that is A or B
    BadInput : what is no operation, or a complex factor of real matrices
    NotEnoughMemory : C, or the panels, do not fit on a node
    """
    letter(ta, "ta")
    letter(tb, "tb")
    together(a=a, b=b, c=c)
    left, right = Operand(a, ta), Operand(b, tb)
    (m, inner), (k, n) = left.shape, right.shape
    if inner != k:
        raise Mismatch(f"op(a) is {m} x {inner}, op(b) {k} x {n}: a must have as many columns as b rows")
    if c is None:
        c, beta = _fitting(left, right), 0
    elif c.shape != (m, n):
        raise Mismatch(f"c is {c.shape[0]} x {c.shape[1]}: must be {m} x {n}")
    apart(("c", c), a=a, b=b)
    alpha, beta = scalar(alpha, c.dtype, "alpha"), scalar(beta, c.dtype, "beta")
    if not (m and n):
        return c
    if k == 0 or alpha == 0:
        _scale(c.local, beta)
        return c
    out = Operand(c)
    ways = {
        "c": _volume_still(left, right, out),
        "a": _volume_moved(left, right, out),
        "b": _volume_moved(right.T, left.T, out.T),
    }
    way = min(ways, key=ways.get)
    if way == "c":
        _still(left, right, out, alpha, beta)
    elif way == "a":
        _moved(left, right, out, alpha, beta)
    else:
        _moved(right.T, left.T, out.T, alpha, beta)
    return c


def syrk(a, c=None, alpha=1, beta=0, trans="N", uplo="L", hermitian=True):
    """``C = alpha A A^H + beta C``, or ``alpha A^H A + beta C``, one triangle of it. Collective.

    Blocks of C in the other triangle are not looked at, nor written to; those on the diagonal are computed whole.

    Parameters
    ----------
    a : BlockCyclic, (n, k), or (k, n) where it is transposed
    c : BlockCyclic, (n, n), on the same grid, of the same type and block size, which is written to; None for a new
        one, whose other blocks are 0
    alpha, beta : numbers, real where the matrices are, or where C is to be Hermitian; where beta is 0, what C held is
        not looked at
    trans : "N" for A A^H; "T" or "C" for A^H A
    uplo : "L" or "U", the triangle
    hermitian : bool; where it is false, the transpose is not conjugated

    Returns
    -------
    BlockCyclic, C

    Raises
    ------
    Mismatch, BadInput, NotEnoughMemory : as in ``matmul``
    """
    letter(trans, "trans")
    if uplo not in ("L", "U"):
        raise BadInput(f'uplo = {uplo!r}: must be "L" or "U"')
    together(a=a, c=c)
    left = Operand(a, "N" if trans == "N" else "T").conjugate(hermitian and trans != "N")
    right = left.T.conjugate(hermitian)
    n, k = left.shape
    if c is None:
        c, beta = _fitting(left, right), 0
        c.local[...] = 0
    elif c.shape != (n, n):
        raise Mismatch(f"c is {c.shape[0]} x {c.shape[1]}: must be {n} x {n}")
    apart(("c", c), a=a)
    within = np.dtype(c.dtype.char.lower()) if hermitian else c.dtype
    alpha, beta = (c.dtype.type(scalar(factor, within, name)) for factor, name in ((alpha, "alpha"), (beta, "beta")))
    if n:
        _still(left, right, Operand(c), alpha if k else c.dtype.type(0), beta, uplo)
        if hermitian and c.dtype.kind == "c":
            _real_diagonal(c)
    return c


def _fitting(left, right):
    """A matrix for the product, dealt out as its factors are where that can be."""
    rows = left.rows if left.dim == 0 else None
    cols = right.cols if right.dim == 0 else None
    source = left.matrix
    return source.like((left.rows.n, right.cols.n), rows=rows, cols=cols)


def _scale(x, beta):
    if beta == 0:
        x[...] = 0
    elif beta != 1:
        x *= beta


def _real_diagonal(c):
    """Rounding leaves imaginary parts on the diagonal, which is real."""
    i, j = c.indices
    _, rows, cols = np.intersect1d(i, j, assume_unique=True, return_indices=True)
    c.local[rows, cols] = c.local[rows, cols].real


def _parts(operand):
    """Parts of the grid over which an operand's rows are dealt out, and its columns."""
    shape = operand.grid.shape
    return shape[operand.dim], shape[1 - operand.dim]


def _sent(source, target, dim):
    """Words that a rank receives, about, where panels of an operand are fetched."""
    mine, others = source.grid.shape[dim], source.grid.shape[1 - dim]
    words = source.rows.n * source.cols.n / mine
    extra = 0 if direct(source, target, dim) or mine * others == 1 else words / others
    return words * (others - 1) / others + extra


def _volume_still(left, right, out):
    return _sent(left, out.rows, 0) + _sent(right.T, out.cols, 1)


def _volume_moved(left, right, out):
    down, across = _parts(left)
    words = out.rows.n * out.cols.n / down
    extra = 0 if direct(out, left.rows, left.dim) or down * across == 1 else words / across
    return _sent(right, left.cols, 1 - left.dim) + ADDED * words * (across - 1) / across + extra


def _wanted(axis):
    return np.array([axis.count(part) > 0 for part in range(axis.parts)])


def _room(grid, words, dtype):
    """Refuse panels that do not fit, where they are large. Collective."""
    need = words * dtype.itemsize
    if grid.comm.allreduce(need) > LARGE * grid.comm.size:
        grid.memory.check(need, "the panels of a product")


# ---- C stays -------------------------------------------------------------------------------------------------------


def _still(left, right, out, alpha, beta, uplo=None):
    """Panels of both factors go to C; of one triangle of C alone, if that is asked for."""
    grid, c, traffic = out.grid, out.x, Traffic()
    multiply = traffic.gemm if uplo is None else _Triangle(out, uplo, traffic).gemm
    steps = groups(left.cols, right.rows, WIDTH)
    if not steps or alpha == 0:
        multiply(alpha, np.empty((len(c), 0), c.dtype), np.empty((0, c.shape[1]), c.dtype), beta, c)
        return
    width = max(WIDTH, left.cols.nb)
    fetch_a = Fetch(left, out.rows, 0, _wanted(out.cols), traffic, 0, width)
    fetch_b = Fetch(right.T, out.cols, 1, _wanted(out.rows), traffic, TAGS, width)
    _room(grid, (DEPTH + 1) * width * sum(c.shape), c.dtype)
    if grid.comm.size == 1 and not (left.conj or right.conj) and uplo is None:
        multiply(alpha, left.x, right.x, beta, c)
        return
    coming = []
    for step in range(len(steps) + DEPTH):
        if step < len(steps):
            coming.append((fetch_a.start(steps[step]), fetch_b.start(steps[step])))
        if step >= DEPTH:
            a, b = coming.pop(0)
            traffic.until(a.here)
            traffic.until(b.here)
            multiply(alpha, a.data, b.data.T, beta, c)
            beta = c.dtype.type(1)
    traffic.finish()


class _Triangle:
    """Products whose blocks beyond the diagonal are left out, in as few pieces as there can be."""

    def __init__(self, out, uplo, traffic):
        grid, nb = out.grid, out.rows.nb
        self.upper, self.traffic = uplo == "U", traffic
        rows, cols = (out.cols, out.rows) if self.upper else (out.rows, out.cols)
        row_part, col_part = (grid.q, grid.p) if self.upper else (grid.p, grid.q)
        blocks = cols.held[col_part]
        self.rows = rows.count(row_part)
        # Of each block of columns, the first row that is not above it, and the first column; and the end of the last.
        self.tops = [rows.before(row_part, int(block) * nb) for block in blocks]
        self.starts = [*range(0, len(blocks) * nb, nb), cols.count(col_part)]

    def gemm(self, alpha, a, b, beta, c):
        if self.tops:
            pieces = self._pieces(0, len(self.tops), self.rows)
            for rows, cols in pieces:
                rows, cols = (cols, rows) if self.upper else (rows, cols)
                self.traffic.gemm(alpha, a[rows], b[:, cols], beta, c[rows, cols])

    def _pieces(self, first, end, bottom):
        """Rectangles that make up the stairs under some blocks of columns, down to a row."""
        top = self.tops[end - 1]
        if top < bottom:
            yield slice(top, bottom), slice(self.starts[first], self.starts[end])
            bottom = top
        if end - first > 1 and self.tops[first] < bottom:
            middle = (first + end) // 2
            yield from self._pieces(first, middle, bottom)
            yield from self._pieces(middle, end, bottom)


# ---- a factor stays ------------------------------------------------------------------------------------------------


def _moved(left, right, out, alpha, beta):
    """Panels of the right factor go to the left one, and partial products to C."""
    grid, traffic = left.grid, Traffic()
    steps = groups(right.cols, out.cols, WIDTH)
    width = max(WIDTH, right.cols.nb)
    # conj(A) B is the conjugate of A conj(B): so what stays is never conjugated, which BLAS cannot do alone.
    fetch = Fetch(right.conjugate(left.conj), left.cols, 1 - left.dim, _wanted(left.rows), traffic, 0, width)
    sums = _Sums(left, out, alpha, beta, traffic, width)
    _room(grid, (DEPTH + 1) * width * sum(left.x.shape), left.dtype)
    coming = []
    for step in range(len(steps) + DEPTH):
        if step < len(steps):
            coming.append((steps[step], fetch.start(steps[step])))
        if step >= DEPTH:
            blocks, panel = coming.pop(0)
            traffic.until(panel.here)
            sums.add(blocks, panel.data)
    traffic.finish()


class _Sums:
    """Partial products on their way to C."""

    def __init__(self, left, out, alpha, beta, traffic, width):
        self.left, self.out, self.alpha, self.beta, self.traffic, self.width = left, out, alpha, beta, traffic, width
        self.direct = direct(out, left.rows, left.dim)
        self.route = None if self.direct else Route(left.rows, out.rows)
        self.alone = self.direct and not left.conj and left.cols.parts == 1
        self.wanted = _wanted(left.cols)
        self.turn, self.users, self.buffers = 0, [None] * (DEPTH + 1), [None] * (DEPTH + 1)

    def add(self, blocks, panel):
        """Multiply by a panel, and send the product on."""
        left, out, traffic = self.left, self.out, self.traffic
        owner = int(out.cols.owners[blocks[0]])
        columns = places(out.cols, owner, blocks)
        if self.alone and isinstance(columns, slice):
            traffic.gemm(self.alpha, left.x, panel, self.beta, out.x[:, columns])
            return
        slot = self.turn % len(self.users)
        if self.users[slot] is not None:
            traffic.until(self.users[slot].poll)
        width = panel.shape[1]
        if self.buffers[slot] is None:
            self.buffers[slot] = np.empty(len(left.x) * self.width, dtype=left.dtype)
        flat = self.buffers[slot][: len(left.x) * width]
        product = flat.reshape(width, -1).T if out.dim else flat.reshape(-1, width)
        if left.x.shape[1]:
            traffic.gemm(1, left.x, panel, 0, product)
            if left.conj:
                np.conjugate(flat, out=flat)
        else:
            flat[...] = 0
        self.users[slot] = traffic.add(_Sum(self, owner, columns, flat, product))
        self.turn += 1


class _Sum:
    """One panel of a product, added up along the grid and put into C by those that own it."""

    def __init__(self, sums, owner, columns, flat, product):
        left, out = sums.left, sums.out
        self.sums, self.owner, self.columns, self.product = sums, owner, columns, product
        dim = 1 - left.dim
        parts = left.cols.parts
        takers = np.flatnonzero(sums.wanted)
        self.root = owner if sums.direct or out.dim == left.dim else int(takers[sums.turn % len(takers)])
        self.last = here(left.grid, dim) == self.root
        chain = ring(self.root, parts, sums.wanted)
        chain = chain[1:] + chain[:1]
        self.tag = sums.turn % TAGS + 2 * TAGS
        self.reduction = Reduction(along(left.grid, dim), flat, chain, self.tag)
        self.pieces = None

    def poll(self):
        """Let it go on, and tell whether this rank has no more to do for it."""
        if self.pieces is None:
            if self.last and not self.reduction.here():
                return False
            self._deliver()
        sent = self.reduction.poll()
        return self.pieces.poll() and sent

    def _deliver(self):
        sums, left, out = self.sums, self.sums.left, self.sums.out
        grid, width = left.grid, self.product.shape[1]
        sends, receives = [], []
        if sums.direct:
            if self.last:
                self._put(slice(None))(self.product)
        else:
            if self.last:
                s = here(grid, left.dim)
                for t in range(out.rows.parts):
                    there, _, count = sums.route.rows(s, t)
                    if count:
                        to = rank(grid, out.dim, t, self.owner)
                        sends.append((to, np.array(self.product[there], order="C")))
            if here(grid, 1 - out.dim) == self.owner:
                t = here(grid, out.dim)
                for s in range(left.rows.parts):
                    _, to, count = sums.route.rows(s, t)
                    if count:
                        receives.append((rank(grid, left.dim, s, self.root), (count, width), self._put(to)))
        self.pieces = Pieces(grid.comm, sends, receives, left.dtype, self.tag)

    def _put(self, rows):
        """What adds a piece to C."""
        def _add(piece):
            alpha, beta, x = self.sums.alpha, self.sums.beta, self.sums.out.x
            if alpha != 1:
                piece *= alpha
            whole = isinstance(rows, slice) or isinstance(self.columns, slice)
            place = (rows, self.columns) if whole else np.ix_(rows, self.columns)
            if beta == 0:
                x[place] = piece
            elif beta == 1:
                x[place] += piece
            else:
                x[place] = beta * x[place] + piece

        return _add
