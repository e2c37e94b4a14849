"""Ranks as a grid of P rows and Q columns, and how fast each row and column is."""

import numpy as np

from brmpi.errors import BadInput
from brmpi.linalg.memory import Memory

NEAR = 0.95  # of the best throughput, from which a squarer grid is preferred: it sends less


class ProcessGrid:
    """P × Q ranks, with a communicator for each row and each column. Collective; ``free`` it when done.

    Without speeds ranks fill the grid row by row, as ScaLAPACK's do. With them, ranks are placed so that the speed of
    the one in row p and column q comes as near as can be to ``row_weights[p] * col_weights[q]``, and matrices on
    this grid are dealt out by these weights. Ranks of one node then make up a column where they can.

    Parameters
    ----------
    comm : communicator
    shape : (P, Q) with P * Q = comm.size; None chooses
    speeds : (comm.size,) floats > 0, the same on every rank; None for equal ones

    Attributes
    ----------
    comm : communicator, a duplicate
    P, Q, p, q : ints, the shape, and this rank's place
    ranks : (P, Q) int, rank in ``comm`` of each place
    row, col : communicators of this rank's row (its rank in it is q) and column (p)
    row_weights, col_weights : (P,), (Q,) float64

    Raises
    ------
    BadInput : a shape that does not hold comm.size ranks, or speeds that are not positive
    """

    def __init__(self, comm, shape=None, speeds=None):
        size = comm.size
        if shape is not None and (len(shape) != 2 or min(shape) < 1 or shape[0] * shape[1] != size):
            raise BadInput(f"grid {'x'.join(map(str, shape))}: must hold {size} ranks")
        if speeds is None:
            self.P, self.Q = map(int, shape or squarest(size))
            self.ranks = np.arange(size).reshape(self.P, self.Q)
            self.row_weights, self.col_weights = np.ones(self.P), np.ones(self.Q)
        else:
            self.ranks, self.row_weights, self.col_weights = arrange(speeds, size, shape)
            self.P, self.Q = self.ranks.shape
        self.comm = comm.Dup()
        (self.p,), (self.q,) = ([int(at) for at in place] for place in np.nonzero(self.ranks == comm.rank))
        self.row = comm.Split(self.p, self.q)
        self.col = comm.Split(self.q, self.p)
        self.memory = Memory(self.comm)

    @property
    def shape(self):
        """(P, Q)."""
        return self.P, self.Q

    def free(self):
        """Give the communicators back. Collective."""
        for comm in (self.row, self.col, self.comm):
            comm.Free()


def squarest(size):
    """P × Q as near to square as a number of ranks allows, P <= Q.

    Parameters
    ----------
    size : int >= 1

    Returns
    -------
    (P, Q)
    """
    rows = next(rows for rows in range(int(size**0.5), 0, -1) if size % rows == 0)
    return rows, size // rows


def weights(speeds):
    """Row and column weights whose products no speed falls below, with as large a sum of products as was found.

    Parameters
    ----------
    speeds : (P, Q) float64 > 0

    Returns
    -------
    (P,), (Q,) float64: in the time that one row of weight 1 by one column of weight 1 takes, no rank is late
    """
    best = None
    for rows in (np.exp(np.log(speeds).mean(axis=1)), np.ones(len(speeds)), speeds.min(axis=1)):
        for _ in range(3):
            cols = (speeds / rows[:, None]).min(axis=0)
            rows = (speeds / cols).min(axis=1)
        found = rows.sum() * cols.sum()
        if best is None or found > best[0] * (1 + 1e-9):
            best = found, rows, cols
    return best[1:]


def arrange(speeds, size, shape=None):
    """Where each rank goes, and the weights of rows and columns.

    Parameters
    ----------
    speeds : (size,) floats > 0
    size : int
    shape : (P, Q), or None for the squarest of those that lose least

    Returns
    -------
    ranks (P, Q) int, row weights (P,), column weights (Q,)

    Raises
    ------
    BadInput : speeds that are not one positive number a rank
    """
    speeds = np.asarray(speeds, dtype=np.float64)
    if speeds.shape != (size,) or not (np.isfinite(speeds) & (speeds > 0)).all():
        raise BadInput(f"speeds = {speeds.tolist()}: must be {size} finite numbers > 0")
    shapes = [shape] if shape else sorted(
        ((rows, size // rows) for rows in range(1, size + 1) if size % rows == 0 and rows * rows <= size),
        key=lambda one: -one[0])
    found = []
    for P, Q in shapes:
        for order in (np.arange(size), np.argsort(-speeds, kind="stable")):
            ranks = order.reshape(Q, P).T
            rows, cols = weights(speeds[ranks])
            found.append((rows.sum() * cols.sum(), ranks, rows, cols))
    most = max(rate for rate, *_ in found)
    return next(rest for rate, *rest in found if rate >= NEAR * most)
