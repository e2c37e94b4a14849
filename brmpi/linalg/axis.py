"""How the rows, or the columns, of a matrix are dealt out in blocks. Pure functions of numbers; no MPI.

Parts are the rows (or columns) of a process grid. With equal weights block b belongs to part b modulo their number,
as in ScaLAPACK. With others every part owns blocks in proportion to its weight, and so it is of the blocks that are
left at any step of a factorisation: from the last block to the first, each goes to the part that would be done with
it first, which makes the slowest part's time the least there can be for every trailing submatrix at once (the
greedy rule for equal tasks on machines of different speed).
"""

import heapq
from math import isfinite

import numpy as np

from brmpi.errors import BadInput


def deal(blocks, weights, caps=None):
    """The part that owns each block.

    Parameters
    ----------
    blocks : int >= 0
    weights : (parts,) floats >= 0, not all zero
    caps : (parts,) ints >= 0, the most blocks that each part can hold; None where there is no such limit

    Returns
    -------
    (blocks,) int64

    Raises
    ------
    BadInput : a weight negative or not finite, all of them zero, or caps that are too small together
    """
    weights = [float(weight) for weight in weights]
    for part, weight in enumerate(weights):
        if not (isfinite(weight) and weight >= 0):
            raise BadInput(f"weights[{part}] = {weight}: must be finite and >= 0")
    if not any(weights):
        raise BadInput(f"weights = {weights}: one at least must be > 0")
    free = caps is None or all(cap >= blocks for cap in caps)
    if free and len(set(weights)) == 1:
        return np.arange(blocks, dtype=np.int64) % len(weights)
    if free:
        return _trailing(blocks, weights)
    caps = [min(int(cap), blocks) for cap in caps]
    if sum(caps) < blocks:
        raise BadInput(f"caps = {caps}: {sum(caps)} blocks together, and there are {blocks}")
    # A part without weight holds blocks only where the others are full.
    least = min(weight for weight in weights if weight) * 1e-9
    counts = np.bincount(_trailing(blocks, [weight or least for weight in weights], caps), minlength=len(weights))
    return _trailing(blocks, counts) if blocks else np.empty(0, dtype=np.int64)


def _trailing(blocks, weights, caps=None):
    """Owners by the rule above; among equals, from the last part down."""
    queue = [(1 / weight, -part) for part, weight in enumerate(weights) if weight and (caps is None or caps[part])]
    heapq.heapify(queue)
    owners, held = np.empty(blocks, dtype=np.int64), [0] * len(weights)
    for block in range(blocks - 1, -1, -1):
        part = -queue[0][1]
        owners[block] = part
        held[part] += 1
        if caps is not None and held[part] == caps[part]:
            heapq.heappop(queue)
        else:
            heapq.heapreplace(queue, ((held[part] + 1) / weights[part], -part))
    return owners


class Axis:
    """One dimension of a matrix, dealt out.

    Parameters
    ----------
    n : int >= 0, rows or columns
    nb : int >= 1, of a block
    weights : (parts,) floats >= 0
    caps : (parts,) ints or None, as in ``deal``

    Attributes
    ----------
    blocks : int, how many, the last of which may be short
    owners : (blocks,) int64, the part that owns each
    held : list of (k,) int64, the blocks of each part, in order
    """

    def __init__(self, n, nb, weights, caps=None):
        self.n, self.nb, self.parts = int(n), int(nb), len(weights)
        if n < 0:
            raise BadInput(f"n = {n}: must be >= 0")
        if nb < 1:
            raise BadInput(f"nb = {nb}: must be >= 1")
        self.blocks = -(-self.n // self.nb)
        self.owners = deal(self.blocks, weights, caps)
        self.held = [np.flatnonzero(self.owners == part) for part in range(self.parts)]

    def __eq__(self, other):
        return (isinstance(other, Axis) and (self.n, self.nb, self.parts) == (other.n, other.nb, other.parts)
                and np.array_equal(self.owners, other.owners))

    __hash__ = None

    def head(self, n):
        """The first n indices, dealt out as they are here.

        Parameters
        ----------
        n : int, 0 <= n <= self.n

        Returns
        -------
        Axis
        """
        if n == self.n:
            return self
        first = Axis(n, self.nb, np.ones(self.parts))
        first.owners = self.owners[: first.blocks]
        first.held = [np.flatnonzero(first.owners == part) for part in range(self.parts)]
        return first

    def width(self, block):
        """Indices in a block.

        Parameters
        ----------
        block : int, 0 <= block < blocks

        Returns
        -------
        int, 1 to nb
        """
        return min(self.nb, self.n - block * self.nb)

    def span(self, block):
        """First index of a block, and that after its last.

        Parameters
        ----------
        block : int

        Returns
        -------
        (int, int)
        """
        return block * self.nb, min((block + 1) * self.nb, self.n)

    def before(self, part, index):
        """How many indices below a global one a part owns: where that one is, or would be, in the part's own order.

        Parameters
        ----------
        part : int
        index : int, 0 <= index <= n

        Returns
        -------
        int
        """
        block, inside = divmod(int(index), self.nb)
        slot = int(np.searchsorted(self.held[part], block))
        return slot * self.nb + (inside if block < self.blocks and self.owners[block] == part else 0)

    def count(self, part):
        """How many indices a part owns.

        Parameters
        ----------
        part : int

        Returns
        -------
        int
        """
        return self.before(part, self.n)

    def indices(self, part):
        """Global indices of a part, in its own order, which is theirs.

        Parameters
        ----------
        part : int

        Returns
        -------
        (count,) int64
        """
        each = (self.held[part][:, None] * self.nb + np.arange(self.nb)).reshape(-1)
        return each[: self.count(part)]

    def owner(self, index):
        """The part that owns an index.

        Parameters
        ----------
        index : int or array of ints, 0 <= index < n

        Returns
        -------
        int64 or array of them
        """
        return self.owners[np.asarray(index) // self.nb]
