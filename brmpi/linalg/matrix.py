"""``BlockCyclic``: a dense matrix in blocks over a process grid, and how it is made and taken out again.

The element in row i and column j lies with the rank in that row of the grid that owns block ``i // nb`` and that
column that owns ``j // nb`` (``axis``), in ``local``, row by row as in NumPy, rows and columns in their global
order. Where weights are equal this is ScaLAPACK's layout (of the transpose, which goes column by column).
"""

import numpy as np

from brmpi.errors import BadInput
from brmpi.linalg.axis import Axis
from brmpi.linalg.blas import DTYPES
from brmpi.linalg.failures import Mismatch, NotEnoughMemory

NB = 128  # of a block, where the matrix is large enough for every rank to have several
STRIP = 1 << 22  # bytes that are copied, or travel, at once


class BlockCyclic:
    """A matrix whose elements are not set yet. Collective.

    Parameters
    ----------
    grid : ProcessGrid
    shape : (m, n), ints >= 0
    dtype : float32, float64, complex64 or complex128
    nb : int >= 1, rows and columns of a block; None chooses
    caps : (grid.comm.size,) bytes that each rank may hold of this matrix at most; None for no such limit
    rows, cols : Axis, instead of those that the grid's weights make

    Attributes
    ----------
    local : (rows here, columns here) ndarray, C order
    rows, cols : Axis
    grid, dtype, shape, nb

    Raises
    ------
    BadInput : a shape, block or type that cannot be, or caps that are too small together
    NotEnoughMemory : a node has not that much
    """

    def __init__(self, grid, shape, dtype=np.float64, nb=None, caps=None, rows=None, cols=None):
        self.grid, self.dtype = grid, np.dtype(dtype)
        if self.dtype not in DTYPES:
            raise BadInput(f"dtype = {self.dtype}: must be {', '.join(map(str, DTYPES))}")
        if len(shape) != 2 or min(shape) < 0:
            raise BadInput(f"shape = {tuple(shape)}: must be two numbers >= 0")
        self.shape = tuple(map(int, shape))
        self.nb = int(nb or (rows and rows.nb) or (cols and cols.nb) or block(self.shape, grid))
        if nb is not None and nb < 1:
            raise BadInput(f"nb = {nb}: must be >= 1")
        self.rows = rows or Axis(self.shape[0], self.nb, grid.row_weights)
        self.cols = cols or Axis(self.shape[1], self.nb, grid.col_weights)
        if caps is not None:
            self._cap(caps)
        if (self.rows.n, self.cols.n) != self.shape or {self.rows.nb, self.cols.nb} != {self.nb}:
            raise Mismatch(f"shape = {self.shape}, nb = {self.nb}: rows and cols are {self.rows.n} by {self.rows.nb} "
                           f"and {self.cols.n} by {self.cols.nb}")
        if (self.rows.parts, self.cols.parts) != grid.shape:
            raise Mismatch(f"rows and cols are dealt to {self.rows.parts} and {self.cols.parts} parts: must be the "
                           f"{grid.P} and {grid.Q} of the grid")
        held = self.rows.count(grid.p), self.cols.count(grid.q)
        grid.memory.check(held[0] * held[1] * self.dtype.itemsize, str(self))
        self.local = np.empty(held, dtype=self.dtype)

    def _cap(self, caps):
        """Deal columns (rows, where the grid has one column) so that no rank holds more bytes than its cap."""
        grid, size = self.grid, self.dtype.itemsize
        caps = np.asarray(caps)
        if caps.shape != (grid.comm.size,) or caps.dtype.kind not in "iuf" or not (caps >= 0).all():
            raise BadInput(f"caps = {caps.tolist()}: must be {grid.comm.size} numbers of bytes >= 0")
        caps = np.minimum(caps, 2**50).astype(np.int64)[grid.ranks]
        across = grid.Q > 1
        other = self.rows if across else self.cols
        each = np.array([other.count(part) for part in range(other.parts)]) * size * self.nb  # bytes of a block's strip
        most = caps if across else caps.T
        blocks = [min((int(cap // need) for cap, need in zip(part, each) if need), default=np.iinfo(np.int64).max)
                  for part in most.T]
        mine = self.cols if across else self.rows
        weights = grid.col_weights if across else grid.row_weights
        if sum(min(cap, mine.blocks) for cap in blocks) < mine.blocks:
            raise NotEnoughMemory(str(self), self.shape[0] * self.shape[1] * size, int(caps.sum()),
                                  "all nodes within their caps")
        dealt = Axis(mine.n, self.nb, weights, blocks)
        if across:
            self.cols = dealt
        else:
            self.rows = dealt

    def __str__(self):
        return f"a matrix of {self.shape[0]} x {self.shape[1]} {self.dtype}"

    def like(self, shape=None, dtype=None, rows=None, cols=None):
        """A matrix on the same grid in blocks of the same size, its elements not set. Collective.

        Parameters
        ----------
        shape : (m, n); None for this one's, or what rows and cols make
        dtype : dtype, None for this one's
        rows, cols : Axis, as in the constructor

        Returns
        -------
        BlockCyclic
        """
        if shape is None:
            rows, cols = rows or self.rows, cols or self.cols
            shape = rows.n, cols.n
        return BlockCyclic(self.grid, shape, dtype or self.dtype, self.nb, rows=rows, cols=cols)

    def copy(self):
        """A copy. Collective.

        Returns
        -------
        BlockCyclic
        """
        other = self.like()
        other.local[...] = self.local
        return other

    @property
    def indices(self):
        """Global indices of this rank's rows and columns: (k,), (l,) int64."""
        return self.rows.indices(self.grid.p), self.cols.indices(self.grid.q)

    @classmethod
    def from_function(cls, grid, shape, function, dtype=np.float64, nb=None, caps=None):
        """A matrix from a function of the indices. Collective.

        Parameters
        ----------
        grid, shape : as in the constructor
        function : callable of int64 arrays i (k, 1) and j (1, l), returning what broadcasts to (k, l)
        dtype, nb, caps : as in the constructor

        Returns
        -------
        BlockCyclic
        """
        matrix = cls(grid, shape, dtype, nb, caps)
        i, j = matrix.indices
        for first in range(0, len(i), matrix.nb):  # by strips: what the function makes in between is no larger
            strip = slice(first, first + matrix.nb)
            matrix.local[strip] = function(i[strip, None], j[None, :])
        return matrix

    @classmethod
    def from_array(cls, grid, array, nb=None, root=None, dtype=None, caps=None):
        """A matrix from a NumPy array. Collective.

        Parameters
        ----------
        grid : ProcessGrid
        array : (m, n) array_like, the same on every rank; or on the root alone, where ``root`` is given
        nb : as in the constructor
        root : int, rank in the grid's communicator, or None
        dtype : dtype; None for the array's own, or float64 where that is no type of matrices
        caps : as in the constructor

        Returns
        -------
        BlockCyclic
        """
        comm, told = grid.comm, None
        dtype = None if dtype is None else np.dtype(dtype)
        if root is None or comm.rank == root:
            try:
                array = np.asarray(array)
                told = array.shape, suits(array.dtype, dtype).char
            except ValueError as error:
                told = BadInput(str(error))
        if root is not None:
            told = comm.bcast(told, root)
        if isinstance(told, BadInput):
            raise told
        matrix = cls(grid, *told, nb, caps)
        if root is None:
            i, j = matrix.indices
            for strip in matrix.strips(grid.p, grid.q):
                matrix.local[strip] = array[np.ix_(i[strip], j)]
            return matrix
        for (p, q), rank in np.ndenumerate(grid.ranks):
            if comm.rank not in (rank, root):
                continue
            i, j = matrix.rows.indices(p), matrix.cols.indices(q)
            for strip in matrix.strips(p, q):
                if comm.rank != root:
                    comm.Recv(matrix.local[strip], root)
                elif rank == root:
                    matrix.local[strip] = array[np.ix_(i[strip], j)]
                else:
                    comm.Ssend(np.ascontiguousarray(array[np.ix_(i[strip], j)], dtype=matrix.dtype), rank)
        return matrix

    def to_array(self, root=None):
        """The whole matrix as a NumPy array. Collective.

        Parameters
        ----------
        root : int, the rank that gets it; None for all

        Returns
        -------
        (m, n) ndarray; None on other ranks than the root

        Raises
        ------
        NotEnoughMemory : it does not fit where it is to be
        """
        comm, grid = self.grid.comm, self.grid
        here = root is None or comm.rank == root
        grid.memory.check(self.shape[0] * self.shape[1] * self.dtype.itemsize * here, "the whole matrix on one rank")
        whole = np.empty(self.shape, dtype=self.dtype) if here else None
        for (p, q), rank in np.ndenumerate(grid.ranks):
            mine = rank == comm.rank
            if not (here or mine):
                continue
            i, j = self.rows.indices(p), self.cols.indices(q)
            for strip in self.strips(p, q):
                part = self.local[strip] if mine else np.empty((strip.stop - strip.start, len(j)), dtype=self.dtype)
                if root is None:
                    comm.Bcast(part, rank)
                elif not mine:
                    comm.Recv(part, rank)
                elif not here:
                    comm.Ssend(part, root)  # synchronous: the root holds one strip at a time
                if here:
                    whole[np.ix_(i[strip], j)] = part
        return whole

    def strips(self, p, q):
        """Slices of the local rows of one place in the grid, each of which holds about 4 MiB.

        Parameters
        ----------
        p, q : ints

        Yields
        ------
        slice
        """
        rows, cols = self.rows.count(p), self.cols.count(q)
        step = max(1, STRIP // max(cols * self.dtype.itemsize, 1))
        for first in range(0, rows if cols else 0, step):
            yield slice(first, min(first + step, rows))


def block(shape, grid):
    """Rows and columns of a block, where nothing else was asked for.

    Parameters
    ----------
    shape : (m, n)
    grid : ProcessGrid

    Returns
    -------
    int, a multiple of 8 from 8 to ``NB``: a few blocks for every row and column of the grid
    """
    least = min((n for n in shape if n), default=1)
    return int(np.clip(least // (4 * max(grid.shape)) // 8 * 8, 8, NB))


def suits(dtype, wanted):
    """The type of a matrix made from numbers of some type.

    Parameters
    ----------
    dtype : dtype of the numbers
    wanted : dtype asked for, or None

    Returns
    -------
    dtype

    Raises
    ------
    BadInput : what is no numbers, or complex ones as real
    """
    if dtype.kind not in "biufc":
        raise BadInput(f"numbers of dtype {dtype}: must be integer, real or complex")
    if wanted is None:
        return dtype if dtype in DTYPES else np.dtype(np.complex128 if dtype.kind == "c" else np.float64)
    if dtype.kind == "c" != wanted.kind:
        raise BadInput(f"dtype = {wanted}: must be complex, as the array is ({dtype})")
    return wanted
