"""Vectors in strips: by element, by vector, and in the blocks of a matrix; and the moves from each to the next.

A strip has a vector a row: (n, some) where a rank has some elements of all n vectors, (some, n) where it has all
elements of some. Moves go in rounds, so that what is packed and unpacked is small beside what is kept.
"""

import numpy as np

from brmpi import partition

ROUND = 1 << 22  # elements that a rank sends at once, about
TILE = 64  # columns that are transposed at once, so that they stay in a cache


def places(n, grid):
    """Where the share of each rank begins, in proportion to its speed.

    Parameters
    ----------
    n : int >= 0
    grid : ProcessGrid

    Returns
    -------
    (ranks + 1,) int64
    """
    speeds = np.empty(grid.comm.size)
    speeds[grid.ranks] = np.outer(grid.row_weights, grid.col_weights)
    return partition.offsets(partition.shares(n, speeds))


def swap(comm, outgoing, shapes, dtype):
    """Arrays from every rank to every rank. Collective.

    Parameters
    ----------
    comm : communicator
    outgoing : list of ndarrays, one for each rank
    shapes : list of tuples, of what comes from each
    dtype : dtype of all

    Returns
    -------
    list of ndarrays, one from each rank
    """
    sizes = [int(np.prod(shape)) for shape in shapes]
    packed = np.concatenate([np.ascontiguousarray(part, dtype=dtype).reshape(-1) for part in outgoing])
    found = np.empty(sum(sizes), dtype=dtype)
    comm.Alltoallv((packed, [part.size for part in outgoing]), (found, sizes))
    ends = np.cumsum(sizes)
    return [found[end - size: end].reshape(shape) for end, size, shape in zip(ends, sizes, shapes)]


def whole(strip, order, ends, comm):
    """From strips of elements to strips of vectors. Collective.

    Parameters
    ----------
    strip : (n, some) ndarray, elements ``ends[rank]`` to ``ends[rank + 1]`` of all vectors
    order : (n,) int64, which of them become the first, second …
    ends : (ranks + 1,) int64, from ``places``; vectors are shared out in the same way
    comm : communicator

    Returns
    -------
    (some, n) ndarray, vectors ``order[ends[rank]: ends[rank + 1]]``
    """
    if comm.size == 1:
        return strip[order]
    counts = np.diff(ends)
    turned = np.empty((counts[comm.rank], len(order)), dtype=strip.dtype)
    for first, end in _rounds(counts, len(order)):
        outgoing = [strip[order[at + min(first, count): at + min(end, count)]] for at, count in zip(ends, counts)]
        mine = turned[first:end]
        found = swap(comm, outgoing, [(len(mine), count) for count in counts], strip.dtype)
        for at, part in zip(ends, found):
            mine[:, at: at + part.shape[1]] = part
    return turned


def blocks(turned, ends, matrix):
    """From strips of vectors to a matrix whose columns they are. Collective.

    Parameters
    ----------
    turned : (some, m) ndarray, columns ``ends[rank]`` to ``ends[rank + 1]``
    ends : (ranks + 1,) int64
    matrix : BlockCyclic (m, n), which is filled
    """
    grid, comm = matrix.grid, matrix.grid.comm
    counts = np.diff(ends)
    spots = [None] * comm.size
    for place, rank in np.ndenumerate(grid.ranks):
        spots[rank] = place
    rows = [matrix.rows.indices(p) for p in range(grid.P)]
    for first, end in _rounds(counts, matrix.shape[0]):
        starts, stops = ends[:-1] + np.minimum(first, counts), ends[:-1] + np.minimum(end, counts)
        mine = turned[first:end]
        owners = matrix.cols.owner(np.arange(starts[comm.rank], stops[comm.rank]))
        outgoing = [mine[owners == q][:, rows[p]] for p, q in spots]
        spans = [(matrix.cols.before(grid.q, start), matrix.cols.before(grid.q, stop))
                 for start, stop in zip(starts, stops)]
        found = swap(comm, outgoing, [(stop - start, len(matrix.local)) for start, stop in spans], matrix.dtype)
        for (start, stop), part in zip(spans, found):
            for at in range(0, len(matrix.local), TILE):
                matrix.local[at: at + TILE, start:stop] = part[:, at: at + TILE].T


def _rounds(counts, width):
    """First and last of the vectors that each rank has to do with in each round."""
    step = max(ROUND // max(width, 1), 1)
    return [(first, first + step) for first in range(0, int(max(counts, default=0)), step)]
