"""Row interchanges of a whole panel at once: every row that moves is read once and written once."""

import numpy as np


def moves(first, pivots):
    """What swapping row ``first + i`` with row ``pivots[i]``, for each i in turn, comes to.

    Parameters
    ----------
    first : int
    pivots : (w,) ints, each >= first + i

    Returns
    -------
    to, source : (k,) int64, k <= 2 w: the row that ends up in row ``to[i]`` was row ``source[i]``. The first w are rows
    first to first + w - 1; the others, ascending, come from those
    """
    held = {}
    width = len(pivots)
    for row, pivot in enumerate(pivots.tolist(), first):
        if pivot != row:
            held[row], held[pivot] = held.get(pivot, pivot), held.get(row, row)
    others = sorted(row for row in held if row >= first + width)
    to = np.array([*range(first, first + width), *others], dtype=np.int64)
    return to, np.array([held.get(row, row) for row in to.tolist()], dtype=np.int64)


def composed(rows, pivots):
    """All interchanges of a factorisation as one permutation.

    Parameters
    ----------
    rows : int
    pivots : (k,) ints: row i was swapped with row pivots[i], in this order

    Returns
    -------
    (rows,) int64: row i of the outcome was this row before
    """
    order = np.arange(rows)
    for row, pivot in enumerate(pivots.tolist()):
        if pivot != row:
            order[row], order[pivot] = order[pivot], order[row]
    return order


def interchange(matrix, pivots, backwards=False):
    """Carry out, on all columns of a matrix, the interchanges of a factorisation, or take them back. Collective.

    Parameters
    ----------
    matrix : BlockCyclic, changed
    pivots : (k,) int64, k <= rows
    backwards : bool, whether the last is to be undone first
    """
    local, nb = matrix.local, matrix.nb
    order = composed(matrix.shape[0], pivots)
    if backwards:
        order = np.argsort(order)
    moved = np.flatnonzero(order != np.arange(len(order)))
    for first in range(0, local.shape[1], nb):
        columns = slice(first, first + nb)
        if matrix.grid.P == 1:
            local[moved, columns] = local[order[moved], columns]
        else:
            _between(matrix, moved, order[moved], columns)


def _between(matrix, to, source, columns):
    """Rows ``source`` become rows ``to``, between the ranks of a column of the grid."""
    from mpi4py import MPI

    grid, rows = matrix.grid, matrix.rows
    part = matrix.local[:, columns]
    here, there = rows.owner(source), rows.owner(to)
    mine, theirs = here == grid.p, there == grid.p
    # Both sides list what goes between them by the rows' new places: messages need no header.
    leaving, coming = np.argsort(there[mine], kind="stable"), np.argsort(here[theirs], kind="stable")
    kind, cols = MPI._typedict[part.dtype.char], part.shape[1]
    sent = part[positions(rows, grid.p, source[mine][leaving])]
    found = np.empty((len(coming), cols), dtype=part.dtype)
    out, back = (np.bincount(ranks, minlength=rows.parts) * cols for ranks in (there[mine], here[theirs]))
    grid.col.Alltoallv([sent, out.tolist(), None, kind], [found, back.tolist(), None, kind])
    part[positions(rows, grid.p, to[theirs][coming])] = found


def positions(axis, part, indices):
    """Where a part holds some of its own indices.

    Parameters
    ----------
    axis : Axis
    part : int
    indices : (k,) int64, all owned by it

    Returns
    -------
    (k,) int64
    """
    return np.searchsorted(axis.held[part], indices // axis.nb) * axis.nb + indices % axis.nb


class Swaps:
    """The interchanges of one panel, as seen by the ranks of one column of the grid.

    Parameters
    ----------
    rows : Axis, of the matrix
    grid : ProcessGrid
    first : int, global row of the panel's diagonal
    pivots : (w,) int64
    """

    def __init__(self, rows, grid, first, pivots):
        self.grid, self.width = grid, len(pivots)
        self.to, self.source = moves(first, pivots)
        if grid.P > 1:
            self._share(rows, first)

    def _share(self, rows, first):
        """Which rank sends what: pivot rows to all, the rows that they displace to those who had them."""
        p, width = self.grid.p, self.width
        owners = rows.owner(self.source[:width]) if width else np.empty(0, np.int64)
        self.order = np.argsort(owners, kind="stable")  # pivot rows as an Allgatherv brings them: by rank
        self.counts = np.bincount(owners, minlength=rows.parts)
        self.mine = positions(rows, p, self.source[:width][self.order][owners[self.order] == p])
        self.top = int(rows.owner(first)) if width else 0
        holders = rows.owner(self.to[width:]) if len(self.to) > width else np.empty(0, np.int64)
        by_holder = np.argsort(holders, kind="stable")
        self.displaced = np.bincount(holders, minlength=rows.parts)
        self.leaving = positions(rows, p, self.source[width:][by_holder]) if self.top == p else None
        self.places = positions(rows, p, self.to[width:][by_holder][holders[by_holder] == p])

    def __call__(self, local, columns):
        """Carry the interchanges out on some columns. Collective over the column of the grid.

        Parameters
        ----------
        local : this rank's part of the matrix
        columns : slice of its columns

        Returns
        -------
        (w, columns) ndarray: the rows of the panel's diagonal as they are now: a view of ``local`` where the grid has
        one row; else a copy, the same on every rank, which is not written into the matrix yet
        """
        part = local[:, columns]
        if self.grid.P == 1:
            moved = self.to != self.source
            if moved.any():
                part[self.to[moved]] = part[self.source[moved]]
            first = int(self.to[0]) if self.width else 0
            return part[first: first + self.width]
        return self._exchange(part)

    def _exchange(self, part):
        from mpi4py import MPI

        comm, cols = self.grid.col, part.shape[1]
        kind = MPI._typedict[part.dtype.char]
        sent, found = np.ascontiguousarray(part[self.mine]), np.empty((self.width, cols), dtype=part.dtype)
        comm.Allgatherv([sent, kind], [found, (self.counts * cols).tolist(), None, kind])
        if self.displaced.sum():
            counts = (self.displaced * cols).tolist()
            outgoing = None
            if self.leaving is not None:
                outgoing = [np.ascontiguousarray(part[self.leaving]), counts, None, kind]
            coming = np.empty((len(self.places), cols), dtype=part.dtype)
            comm.Scatterv(outgoing, [coming, kind], self.top)
            part[self.places] = coming
        whole = np.empty_like(found)
        whole[self.order] = found
        return whole
