"""QR of matrices with many rows and few columns, all ranks in one tree; and the form that Q and R are returned in."""

import copy

import numpy as np

from brmpi.linalg.axis import Axis
from brmpi.linalg.householder import columnwise
from brmpi.linalg.norms import diagonal
from brmpi.linalg.tree import Tree
from brmpi.partition import shares


def tsqr(a):
    """``a = q r`` as ``qr`` does, over all ranks in one tree: for many rows and few columns. Collective.

    Every rank holds n x n numbers several times over, and a message for every level of the tree is that large; with
    more than one column in the grid, rows are exchanged within its rows before and after.

    Parameters
    ----------
    a : (m, n) BlockCyclic

    Returns
    -------
    q : (m, k) BlockCyclic, where k = min(m, n), its rows dealt as a's
    r : (k, n) BlockCyclic, its columns dealt as a's; its diagonal is real and >= 0

    Raises
    ------
    NotEnoughMemory : no room for q, r and the rows of this rank twice
    """
    grid, (m, n) = a.grid, a.shape
    k = min(m, n)
    q = a.like(rows=a.rows, cols=cut(a.cols, k, grid.col_weights))
    r = a.like(rows=cut(a.rows, k, grid.row_weights), cols=a.cols)
    cuts = [np.concatenate([[0], np.cumsum(shares(a.rows.count(p), grid.col_weights))]) for p in range(grid.P)]
    heights = np.empty(grid.comm.size, dtype=np.int64)
    heights[grid.ranks] = np.array([np.diff(each) for each in cuts])
    mine = int(heights[grid.comm.rank])
    grid.memory.check((mine * (n + 2 * k) + 6 * n * n) * a.dtype.itemsize, f"the rows of {a} beside their factors")
    block = _gathered(a, cuts[grid.p])
    order = [int(one) for one in np.argsort(-heights, kind="stable") if heights[one]]
    whole = np.zeros((k, n), dtype=a.dtype)
    if mine:
        tree = Tree(grid.comm, order, heights, block)
        rows = tree.explicit(np.empty((mine, k), dtype=a.dtype))
        if tree.parent is None:
            whole[...] = tree.r
    else:
        rows = np.empty((0, k), dtype=a.dtype)
    _scattered(rows, q, cuts[grid.p])
    if k:
        grid.comm.Bcast(whole, order[0])
    r.local[...] = whole[np.ix_(*r.indices)]
    return positive(q, r)


def _gathered(a, cuts):
    """All columns of this rank's share of the rows that its row of the grid has, column by column."""
    grid = a.grid
    if grid.Q == 1:
        return columnwise(a.local)
    mine = cuts[grid.q + 1] - cuts[grid.q]
    widths = np.array([a.cols.count(q) for q in range(grid.Q)])
    come = np.empty(mine * a.shape[1], dtype=a.dtype)
    sent, counts = np.diff(cuts) * a.local.shape[1], mine * widths
    grid.row.Alltoallv([a.local, (sent, _starts(sent))], [come, (counts, _starts(counts))])
    block = np.empty((mine, a.shape[1]), dtype=a.dtype, order="F")
    for q, start in enumerate(_starts(counts)):
        block[:, a.cols.indices(q)] = come[start: start + counts[q]].reshape(mine, widths[q])
    return block


def _scattered(rows, a, cuts):
    """Put rows back where ``_gathered`` found them."""
    grid = a.grid
    if grid.Q == 1:
        a.local[...] = rows
        return
    widths = np.array([a.cols.count(q) for q in range(grid.Q)])
    counts, coming = len(rows) * widths, np.diff(cuts) * a.local.shape[1]
    going = np.concatenate([rows[:, a.cols.indices(q)].ravel() for q in range(grid.Q)])
    grid.row.Alltoallv([going, (counts, _starts(counts))], [a.local, (coming, _starts(coming))])


def _starts(counts):
    return np.concatenate([[0], np.cumsum(counts)[:-1]])


def cut(axis, n, weights):
    """The first n indices of an axis, owned as they are; where n is more than it has, an axis of its own.

    Parameters
    ----------
    axis : Axis
    n : int >= 0
    weights : (parts,) floats, for an axis that is longer

    Returns
    -------
    Axis
    """
    if n >= axis.n:
        return axis if n == axis.n else Axis(n, axis.nb, weights)
    short = copy.copy(axis)
    short.n, short.blocks = n, -(-n // axis.nb)
    short.owners = axis.owners[: short.blocks]
    short.held = [held[: np.searchsorted(held, short.blocks)] for held in axis.held]
    return short


def positive(q, r):
    """Turn columns of q and rows of r so that the diagonal of r is >= 0. Collective.

    Parameters
    ----------
    q : (m, k) BlockCyclic
    r : (k, n) BlockCyclic, whose diagonal is real

    Returns
    -------
    q, r
    """
    sign = np.where(diagonal(r).real < 0, -1, 1).astype(r.local.real.dtype)
    q.local *= sign[q.indices[1]]
    r.local *= sign[r.indices[0], None]
    return q, r
