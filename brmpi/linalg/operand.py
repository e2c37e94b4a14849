"""A matrix, its transpose or its conjugate transpose, as what takes part in a product: views, never copies."""

import numpy as np

from brmpi.errors import BadInput
from brmpi.linalg.failures import Mismatch


class Operand:
    """op(a) of a ``BlockCyclic`` a.

    Parameters
    ----------
    matrix : BlockCyclic
    op : "N", "T" (transposed) or "C" (conjugate transposed)

    Attributes
    ----------
    matrix : BlockCyclic
    x : (rows here, columns here) view of the local part, not conjugated
    conj : bool, whether the operand is the conjugate of what x holds
    rows, cols : Axis
    dim : 0 or 1, of the grid, over which the rows are dealt out; the columns are over the other
    """

    def __init__(self, matrix, op="N"):
        self.matrix, self.grid = matrix, matrix.grid
        self.conj = op == "C" and matrix.dtype.kind == "c"
        self.dim, self.x, self.rows, self.cols = 0, matrix.local, matrix.rows, matrix.cols
        if op != "N":
            self._turn()

    def _turn(self):
        self.dim, self.x, self.rows, self.cols = 1 - self.dim, self.x.T, self.cols, self.rows

    @property
    def shape(self):
        """(rows, columns), of the whole."""
        return self.rows.n, self.cols.n

    @property
    def dtype(self):
        """Of the elements."""
        return self.x.dtype

    @property
    def T(self):
        """The transpose of this operand."""
        other = self.conjugate(False)
        other._turn()
        return other

    def conjugate(self, yes=True):
        """This operand, conjugated where that is asked for and its elements are complex.

        Parameters
        ----------
        yes : bool

        Returns
        -------
        Operand
        """
        other = object.__new__(Operand)
        other.__dict__.update(self.__dict__)
        other.conj = self.conj != (yes and self.dtype.kind == "c")
        return other


def here(grid, dim):
    """This rank's place along a dimension of the grid.

    Parameters
    ----------
    grid : ProcessGrid
    dim : 0 or 1

    Returns
    -------
    int
    """
    return (grid.p, grid.q)[dim]


def along(grid, dim):
    """The communicator of the ranks that differ from this one only in their place along a dimension.

    Parameters
    ----------
    grid : ProcessGrid
    dim : 0 or 1

    Returns
    -------
    communicator
    """
    return (grid.col, grid.row)[dim]


def rank(grid, dim, at, other):
    """Rank in the grid's communicator, by its place along a dimension and along the other.

    Parameters
    ----------
    grid : ProcessGrid
    dim : 0 or 1
    at, other : int

    Returns
    -------
    int
    """
    return int(grid.ranks[at, other] if dim == 0 else grid.ranks[other, at])


def places(axis, part, blocks):
    """Where some of a part's blocks are in its own order.

    Parameters
    ----------
    axis : Axis
    part : int, that owns them all
    blocks : (k,) int64, ascending

    Returns
    -------
    slice where they follow each other, else (l,) int64
    """
    if not len(blocks):
        return slice(0, 0)
    slots = np.searchsorted(axis.held[part], blocks)
    last = axis.width(int(blocks[-1]))
    if slots[-1] - slots[0] == len(slots) - 1:
        return slice(int(slots[0]) * axis.nb, int(slots[-1]) * axis.nb + last)
    each = (slots[:, None] * axis.nb + np.arange(axis.nb)).reshape(-1)
    return each[: len(each) - axis.nb + last]


def groups(first, second, width):
    """Blocks that have one owner on each of two axes of the same length, a few at a time.

    Parameters
    ----------
    first, second : Axis, with n and nb alike
    width : int, indices that a group may have, unless it is one block

    Returns
    -------
    list of (k,) int64, ascending by their first blocks
    """
    most = max(width // first.nb, 1)
    pairs = first.owners * second.parts + second.owners
    found = []
    for pair in np.unique(pairs):
        blocks = np.flatnonzero(pairs == pair)
        found += [blocks[at: at + most] for at in range(0, len(blocks), most)]
    return sorted(found, key=lambda blocks: blocks[0])


def letter(op, name):
    """Refuse what is no operation.

    Parameters
    ----------
    op : "N", "T" or "C"
    name : str, of the argument
    """
    if op not in ("N", "T", "C"):
        raise BadInput(f'{name} = {op!r}: must be "N", "T" or "C"')


def scalar(value, dtype, name):
    """A factor in the type of the matrices.

    Parameters
    ----------
    value : number
    dtype : dtype
    name : str, of the argument

    Returns
    -------
    scalar of NumPy

    Raises
    ------
    BadInput : a complex factor of real matrices
    """
    if dtype.kind != "c" and np.iscomplexobj(value):
        if np.imag(value):
            raise BadInput(f"{name} = {value}: must be real where matrices are {dtype}")
        value = np.real(value)
    return dtype.type(value)


def together(**matrices):
    """Refuse matrices that differ in grid, type or block, or share memory with the last, which is written to.

    Parameters
    ----------
    **matrices : BlockCyclic or None, by their names

    Raises
    ------
    Mismatch
    """
    named = [(name, matrix) for name, matrix in matrices.items() if matrix is not None]
    one, first = named[0]
    for name, matrix in named[1:]:
        if matrix.grid is not first.grid:
            raise Mismatch(f"{one} and {name} are on different process grids: must be on one")
        for fact in ("dtype", "nb"):
            if getattr(matrix, fact) != getattr(first, fact):
                raise Mismatch(f"{fact} of {one} is {getattr(first, fact)}, of {name} {getattr(matrix, fact)}: "
                               "must be the same")


def apart(written, **read):
    """Refuse to write to a matrix that is also read.

    Parameters
    ----------
    written : (name, BlockCyclic)
    **read : BlockCyclic, by their names

    Raises
    ------
    Mismatch
    """
    name, matrix = written
    for other, source in read.items():
        if source is matrix or source.local is matrix.local:
            raise Mismatch(f"{name} is {other}: must be a matrix of its own")
