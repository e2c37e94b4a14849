"""From one layout to another: other blocks, other grids, transposed, windows of matrices.

Along each axis the indices that a part of one layout and a part of the other have in common are found once. What a
pair of ranks exchanges is the product of two such sets: it is packed into pieces of bounded size, and sent while others
come in. Rank r sends to r + 1 first, then to r + 2, and receives from r - 1, r - 2 …: no rank is waited for by all.
"""

from dataclasses import dataclass
from itertools import islice

import numpy as np

from brmpi.linalg.broadcast import patiently
from brmpi.linalg.failures import Mismatch
from brmpi.linalg.matrix import BlockCyclic

PIECE = 1 << 21  # bytes of a message
DEPTH = 2  # pieces under way in each direction
SHORT = 8  # columns that follow each other, below which they are picked one by one
TAG = 7301
OTHERS = "ranks of the two grids: must be the same, or all be in a communicator that is given"


def redistribute(a, to=None, op="N", grid=None, nb=None, dtype=None, caps=None, rows=None, cols=None):
    """The same matrix, or its transpose, in another layout; every element is the same bits. Collective.

    Parameters
    ----------
    a : BlockCyclic, (m, n)
    to : BlockCyclic, which is filled; None makes one from the arguments that follow
    op : "N", "T" (transposed) or "C" (conjugate transposed)
    grid : ProcessGrid of the same ranks; None for a's
    nb, dtype : of the new matrix; None for a's
    caps, rows, cols : of the new matrix, as in ``BlockCyclic``

    Returns
    -------
    BlockCyclic, (m, n), or (n, m) where it is transposed

    Raises
    ------
    Mismatch : another shape than that of ``to``, complex to real, or grids whose ranks are not the same
    NotEnoughMemory
    """
    _known(op)
    shape = a.shape if op == "N" else a.shape[::-1]
    if to is None:
        grid = grid or a.grid
        blocks = nb or (rows and rows.nb) or (cols and cols.nb) or a.nb
        _castable(a.dtype, np.dtype(dtype or a.dtype))
        to = BlockCyclic(grid, shape, dtype or a.dtype, blocks, caps, rows, cols)
    elif to.shape != shape:
        raise Mismatch(f"shape {to.shape} of what is to be filled: must be {shape}")
    copy(a, to, op)
    return to


def transpose(a, conjugate=False, rows=None, cols=None):
    """The transpose, on the same grid in blocks of the same size. Collective.

    Parameters
    ----------
    a : BlockCyclic, (m, n)
    conjugate : bool
    rows, cols : Axis of the transpose, None for those that the grid's weights make

    Returns
    -------
    BlockCyclic, (n, m)

    Raises
    ------
    NotEnoughMemory
    """
    return redistribute(a, op="C" if conjugate else "T", rows=rows, cols=cols)


def copy(a, to, op="N", source=(0, 0), target=(0, 0), shape=None, comm=None):
    """A window of ``op(a)`` into a window of another matrix, whatever their layouts. Collective.

    Beside the matrices this takes a few pieces of 2 MiB on every rank.

    Parameters
    ----------
    a, to : BlockCyclic; where ``comm`` is given, None on ranks that are not in the matrix' grid
    op : "N", "T" (transposed) or "C" (conjugate transposed)
    source : (i, j), first row and column of the window in op(a)
    target : (i, j), of the window in ``to``, of which nothing else is changed
    shape : (rows, columns) of the window; None for all that follows its first element, in both matrices alike
    comm : communicator with the ranks of both grids; None where these have the same ranks

    Raises
    ------
    Mismatch : windows that are not within the matrices, complex to real, ``to`` is a, or grids of other ranks
    """
    exchange = _Exchange(a, to, op, source, target, shape, comm)
    if a is to is not None:
        raise Mismatch("a matrix into itself: must be into another one")
    exchange.run(lambda rows, cols, piece: _scatter(to.local, rows, cols, piece))


def compare(a, other, found, op="N"):
    """Meet each part of a matrix, in another's layout, beside that matrix' own part. Collective.

    Parameters
    ----------
    a : BlockCyclic
    other : BlockCyclic of op(a)'s shape, may be a itself
    found : callable of two arrays of one shape, a part of ``other`` and the same part of op(a)
    op : "N", "T" or "C"

    Raises
    ------
    Mismatch : as in ``copy``
    """

    def _meet(rows, cols, piece):
        found(_gather(other.local, rows, cols, np.empty(piece.shape, other.dtype)), piece)

    _Exchange(a, other, op).run(_meet)


def _castable(dtype, other):
    if dtype.kind == "c" and other.kind != "c":
        raise Mismatch(f"dtype {other}: must be complex, as what it is made from ({dtype})")


def _known(op):
    if op not in ("N", "T", "C"):
        raise Mismatch(f'op = {op!r}: must be "N", "T" or "C"')


class _Exchange:
    """One window on its way from one layout to another; rows and columns are those of its target."""

    def __init__(self, a, to, op, source=(0, 0), target=(0, 0), shape=None, comm=None):
        _known(op)
        if comm is None and (a is None or to is None):
            raise Mismatch(OTHERS)
        self.a, self.op, self.comm = a, op, comm or a.grid.comm
        old, new = _layout(a, self.comm, comm is None), _layout(to, self.comm, comm is None)
        _castable(old.dtype, new.dtype)
        self.wire = min(old.dtype, new.dtype, key=lambda dtype: dtype.itemsize)  # the smaller type travels
        turn = slice(None) if op == "N" else slice(None, None, -1)
        shape = _window(old.shape[turn], new.shape, source, target, shape)
        self.old, self.new = old.places[:, turn], new.places
        # Places here, along each axis, of what each part of the other layout has of the window.
        rank = self.comm.rank
        self.out = [_shared(*each) for each in zip(old.axes[turn], self.old[rank], source, new.axes, target, shape)]
        self.into = [_shared(*each) for each in zip(new.axes, self.new[rank], target, old.axes[turn], source, shape)]

    def run(self, put):
        """Send and receive all; ``put(rows, columns, piece)`` gets what arrives, and where it belongs here."""
        rank, size = self.comm.rank, self.comm.size
        for (*there, _), (*here, _) in zip(self._pieces(self.out, self.new, [rank]),
                                           self._pieces(self.into, self.old, [rank])):
            put(*here, self._turned(self._packed(*there)))
        going = self._pieces(self.out, self.new, [(rank + d) % size for d in range(1, size)])
        coming = self._pieces(self.into, self.old, [(rank - d) % size for d in range(1, size)])
        sent, awaited = [], []

        def _advance():
            """Keep a few pieces under way; says whether all are through."""
            while sent and sent[0][0].Test():
                sent.pop(0)
            while awaited and awaited[0][0].Test():
                _, rows, cols, piece = awaited.pop(0)
                put(rows, cols, self._turned(piece))
            for rows, cols, other in islice(coming, DEPTH - len(awaited)):
                piece = np.empty(self._packing(len(rows), len(cols)), self.wire)
                awaited.append((self.comm.Irecv(piece, other, TAG), rows, cols, piece))
            for rows, cols, other in islice(going, DEPTH - len(sent)):
                piece = self._packed(rows, cols)
                sent.append((self.comm.Isend(piece, other, TAG), piece))
            return not sent and not awaited

        patiently(_advance)

    def _pieces(self, mine, places, others):
        """(rows, columns, rank) of each piece that is exchanged with some ranks: both sides cut alike."""
        for other in others:
            p, q = places[other]
            if min(p, q) < 0 or not all(mine):
                continue
            rows, cols = mine[0][p], mine[1][q]
            wide = max(1, PIECE // self.wire.itemsize)
            for j in range(0, len(cols), wide):
                some = cols[j: j + wide]
                high = max(1, wide // len(some))
                for i in range(0, len(rows), high):
                    yield rows[i: i + high], some, other

    def _packing(self, rows, cols):
        """A piece travels in the order of what it is taken from."""
        return (rows, cols) if self.op == "N" else (cols, rows)

    def _packed(self, rows, cols):
        piece = np.empty(self._packing(len(rows), len(cols)), self.wire)
        _gather(self.a.local, *self._packing(rows, cols), piece)
        return np.conjugate(piece, out=piece) if self.op == "C" and self.wire.kind == "c" else piece

    def _turned(self, piece):
        return piece if self.op == "N" else piece.T


@dataclass
class _Layout:
    """What all ranks have to know of a matrix; places are (p, q) of each rank of a communicator, or -1, -1."""

    shape: tuple
    dtype: np.dtype
    axes: tuple
    places: np.ndarray


def _layout(matrix, comm, everywhere):
    """A matrix' layout over a communicator; collective, where not every rank has the matrix."""
    if everywhere:
        found = _here(matrix, comm)
        if found is not None and len(found.places) != matrix.grid.comm.size:
            found = None
    else:
        has = comm.allgather(matrix is not None)
        if not any(has):
            raise Mismatch("a matrix is None on every rank: one at least must have it")
        found = comm.bcast(None if matrix is None else _here(matrix, comm), has.index(True))
    if found is None:
        raise Mismatch(OTHERS)
    return found


def _here(matrix, comm):
    """A matrix' layout, as a rank knows it that has it; None where ranks of its grid are not in the communicator."""
    from mpi4py import MPI

    if matrix is None:
        return None
    group, all_ = matrix.grid.comm.Get_group(), comm.Get_group()
    ranks = MPI.Group.Translate_ranks(group, list(range(group.size)), all_)
    group.Free()
    all_.Free()
    if MPI.UNDEFINED in ranks:
        return None
    places = np.full((comm.size, 2), -1)
    for place, rank in np.ndenumerate(matrix.grid.ranks):
        places[ranks[rank]] = place
    return _Layout(matrix.shape, matrix.dtype, (matrix.rows, matrix.cols), places)


def _window(whole, other, source, target, shape):
    """Shape of a window that is within op(a) and within the other matrix."""
    if shape is None:
        shape = tuple(n - first for n, first in zip(whole, source))
        if shape != tuple(n - first for n, first in zip(other, target)):
            raise Mismatch(f"shape {whole} from {tuple(source)} on: must be that of {other} from {tuple(target)} on")
    for n, m, first, start, count in zip(whole, other, source, target, shape):
        if min(first, start, count) < 0 or first + count > n or start + count > m:
            raise Mismatch(f"a window of {tuple(shape)} at {tuple(source)} of {whole}, to go to {tuple(target)} of "
                           f"{other}: must be within both")
    return shape


def _shared(axis, part, first, other, start, count):
    """Places, in a part's own order, of what each part of another axis has of a window."""
    if part < 0:
        return []
    mine = axis.indices(part)
    low, high = np.searchsorted(mine, (first, first + count))
    owners = other.owner(mine[low:high] - first + start)
    return [low + np.flatnonzero(owners == each) for each in range(other.parts)]


def _runs(places):
    """Slices of places that follow each other, and where each begins; None where they are too short to be worth it."""
    cuts = np.flatnonzero(np.diff(places) != 1) + 1
    if len(places) < SHORT * (len(cuts) + 1):
        return None
    begins, ends = [0, *cuts.tolist()], [*cuts.tolist(), len(places)]
    return [(at, slice(int(places[at]), int(places[at]) + end - at)) for at, end in zip(begins, ends)]


def _rows(places):
    """Places as a slice, where they follow each other: NumPy then makes no copy of its own."""
    first, last = int(places[0]), int(places[-1]) + 1
    return slice(first, last) if last - first == len(places) else places


def _gather(local, rows, cols, out):
    """``out = local[rows][:, cols]``."""
    runs = _runs(cols)
    if runs is None:
        out[...] = local[np.ix_(rows, cols)]
    else:
        some = _rows(rows)
        for at, run in runs:
            out[:, at: at + run.stop - run.start] = local[some, run]
    return out


def _scatter(local, rows, cols, piece):
    """``local[rows][:, cols] = piece``."""
    runs = _runs(cols)
    if runs is None:
        local[np.ix_(rows, cols)] = piece
    else:
        some = _rows(rows)
        for at, run in runs:
            local[some, run] = piece[:, at: at + run.stop - run.start]
