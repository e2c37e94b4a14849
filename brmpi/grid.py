"""A regular grid in blocks, one a rank: sizes by speed, and halos that arrive while the inside is computed.

A block is a box of cells. Its array has ``halo`` further cells on every side, corners too: those of other blocks,
through periodic ends as well, are filled by ``Halo``; those beyond an end that is not periodic are the caller's. Boxes
are cut along the first axis where they are thick enough: their faces lie in one piece, and the rows inside need
nobody's halo.
"""

import itertools
import math

import numpy as np

from brmpi import partition
from brmpi.results.pieces import Piece

THICK = 4  # halos that a slab is thick at least; where slabs would be thinner, further axes are cut
TAG = 7200


def boxes(shape, speeds, axes):
    """Cut a grid into boxes with cells in proportion to speeds, and little surface.

    Parameters
    ----------
    shape : tuple of int >= 0, cells
    speeds : (ranks,) float > 0
    axes : int, the first so many axes may be cut

    Returns
    -------
    list of tuple of (first, end), one for each rank: a range for each axis. Empty ones where there are too few cells
    """
    whole = tuple((0, n) for n in shape)
    return _cut(whole, list(map(float, speeds)), 0, axes)[1]


def _cut(box, speeds, axis, axes):
    """(surface, boxes) of the best way to share a box out among some ranks, by cuts along an axis and those behind."""
    if len(speeds) == 1:
        return _surface(box), [box]
    best = None
    for parts in range(1 if axis < axes - 1 else len(speeds), len(speeds) + 1):
        groups = np.split(np.array(speeds), partition.offsets(partition.equal(len(speeds), parts))[1:-1])
        first, end = box[axis]
        edges = first + partition.offsets(partition.shares(end - first, [group.sum() for group in groups]))
        found = [_cut((*box[:axis], (int(low), int(high)), *box[axis + 1 :]), list(group), axis + 1, axes)
                 for group, (low, high) in zip(groups, itertools.pairwise(edges))]
        surface = sum(one for one, _ in found)
        if best is None or surface < best[0]:
            best = surface, [each for _, many in found for each in many]
    return best


def _surface(box):
    sides = [end - first for first, end in box]
    return 2 * sum(math.prod(sides[:axis] + sides[axis + 1 :]) for axis in range(len(sides))) if all(sides) else 0


class Grid:
    """A grid shared out over the ranks. Collective.

    Parameters
    ----------
    comm : communicator
    shape : tuple of one to three int >= 0, cells of the whole
    halo : int >= 0, width
    periodic : bool, or a tuple of one for each axis
    speeds : (ranks,) float > 0, of all ranks; None is the same for all
    axes : int, how many axes may be cut; None is one where slabs are thick enough, else all

    Attributes
    ----------
    boxes : list of tuple of (first, end), the cells of each rank, a range for each axis
    box : this rank's
    sides : tuple of int, its cells along each axis
    """

    def __init__(self, comm, shape, halo=1, periodic=False, speeds=None, axes=None):
        self.comm, self.shape, self.halo = comm, tuple(int(n) for n in shape), int(halo)
        self.periodic = (bool(periodic),) * len(shape) if np.ndim(periodic) == 0 else tuple(map(bool, periodic))
        if len(self.periodic) != len(self.shape):
            raise ValueError(f"periodic has {len(self.periodic)} values: must be one or {len(self.shape)}")
        speeds = np.ones(comm.size) if speeds is None else np.asarray(speeds, np.float64)
        if axes is None:
            slabs = partition.shares(self.shape[0], speeds)
            axes = 1 if slabs.min() >= THICK * max(self.halo, 1) else len(self.shape)
        self.boxes = boxes(self.shape, speeds, axes)
        self.box = self.boxes[comm.rank]
        self.sides = tuple(end - first for first, end in self.box)
        self._tags = itertools.count(TAG)

    def zeros(self, lead=(), dtype=np.float64):
        """An array for this block with its halo.

        Parameters
        ----------
        lead : tuple of int, axes before those of space
        dtype : of NumPy

        Returns
        -------
        (*lead, *(side + 2 halo)) array of zeros
        """
        return np.zeros((*lead, *(side + 2 * self.halo for side in self.sides)), dtype)

    def inside(self, array):
        """The block without its halo.

        Parameters
        ----------
        array : as from ``zeros``

        Returns
        -------
        view
        """
        return array[(..., *(slice(self.halo, self.halo + side) for side in self.sides))]

    def piece(self, array):
        """The block, for files.

        Parameters
        ----------
        array : as from ``zeros``

        Returns
        -------
        Piece, with a copy of the cells inside
        """
        lead = array.shape[: array.ndim - len(self.shape)]
        offset = (*(0,) * len(lead), *(first for first, _ in self.box))
        return Piece(np.ascontiguousarray(self.inside(array)), offset, (*lead, *self.shape))

    def ends(self, axis):
        """Whether this block lies at the grid's low and high end of an axis, which is not periodic.

        Parameters
        ----------
        axis : int

        Returns
        -------
        (bool, bool)
        """
        if self.periodic[axis] or not all(self.sides):
            return False, False
        return self.box[axis][0] == 0, self.box[axis][1] == self.shape[axis]

    def mirrors(self, axis):
        """Layers of the halo beyond the ends of an axis that is not periodic, and those inside that they mirror.

        Parameters
        ----------
        axis : int

        Yields
        ------
        place : int, of the layer in this block's arrays
        mirror : int, of the other one, which may be in the halo, too, and is to be there
        odd : bool, whether it is mirrored an odd number of times: at more ends than one where the grid is thin
        """
        if self.periodic[axis] or not all(self.sides):
            return
        n, (first, end) = self.shape[axis], self.box[axis]
        for index in (*range(first - self.halo, 0), *range(n, end + self.halo)):
            turns, inside = divmod(index, n)
            mirror = n - 1 - inside if turns % 2 else inside
            yield index - first + self.halo, mirror - first + self.halo, bool(turns % 2)

    def free(self):
        """Rows of the first axis that can be computed before the halos have arrived.

        Returns
        -------
        slice: empty where other axes are cut, too, or the block is thin
        """
        cut = any(box[axis] != self.box[axis] for box in self.boxes for axis in range(1, len(self.shape)) if _full(box))
        rows = self.sides[0]
        if cut or rows <= 2 * self.halo:
            return slice(0, 0)
        low, high = (self.halo if neighbour else 0 for neighbour in self._neighbours())
        return slice(low, rows - high)

    def _neighbours(self):
        """Whether rows below and above this block are somebody else's."""
        first, end = self.box[0]
        alone = (first, end) == (0, self.shape[0])
        around = self.periodic[0] and not alone
        return (first > 0 or around), (end < self.shape[0] or around)

    def halos(self, *arrays, moves=None, back=False):
        """The exchange of halos of some arrays. Collective.

        Parameters
        ----------
        *arrays : as from ``zeros``; others of the same shapes and dtypes can be exchanged, too
        moves : (n, d) int, of -1, 0 and 1: how what number i of the arrays' first axis says of a cell
            moves in a step. Cells of the halo are needed of it that come into the block so
        back : bool, send the halos to the cells that they stand for, rather than fetch them from there

        Returns
        -------
        Halo
        """
        return Halo(self, arrays, next(self._tags), moves, back)

    def wants(self, rank, other, move=None):
        """The parts of a block's halo that are another's cells, or through periodic ends its own.

        Parameters
        ----------
        rank : int, whose halo
        other : int, whose cells
        move : sequence of int, for each axis: only the halo that comes into the block so; None is all of it

        Returns
        -------
        list of (box of the halo, box of the cells), in global indices, those of the halo perhaps beyond the ends
        """
        mine, theirs = self.boxes[rank], self.boxes[other]
        if not (_full(mine) and _full(theirs)) or self.halo == 0:
            return []
        reach = [range(-(-self.halo // n) * -1, -(-self.halo // n) + 1) if wraps else range(1)
                 for n, wraps in zip(self.shape, self.periodic)]
        if move is None:
            around = [(first - self.halo, end + self.halo) for first, end in mine]
        else:
            around = [(first - by, end - by) for (first, end), by in zip(mine, move)]
        found = []
        for turns in itertools.product(*reach):
            if rank == other and not any(turns):
                continue
            shift = [turn * n for turn, n in zip(turns, self.shape)]
            part = tuple((max(first, low + by), min(end, high + by))
                         for (first, end), (low, high), by in zip(around, theirs, shift))
            if _full(part):
                found.append((part, tuple((first - by, end - by) for (first, end), by in zip(part, shift))))
        return found

    def slices(self, box):
        """Where a box of global indices is in this block's arrays.

        Parameters
        ----------
        box : tuple of (first, end)

        Returns
        -------
        tuple of slice
        """
        return tuple(slice(first - start + self.halo, end - start + self.halo)
                     for (first, end), (start, _) in zip(box, self.box))


class Halo:
    """Exchange of the halos of some arrays: one message to each neighbour, on requests that stay.

    Parameters
    ----------
    grid : Grid
    arrays : sequence of arrays as from ``Grid.zeros``
    tag : int, of its messages
    moves, back : as for ``Grid.halos``
    """

    def __init__(self, grid, arrays, tag, moves=None, back=False):
        self.grid, self._alike = grid, [(array.shape, array.dtype) for array in arrays]
        self._moves = moves
        me = grid.comm.rank
        self._out, self._in, self._requests = [], [], []
        to, of = (1, 0) if back else (0, 1)  # halos, or the cells that they stand for
        self._local = list(zip(self._places(me, me, to), self._places(me, me, of)))
        for rank in range(grid.comm.size):
            if rank == me:
                continue
            halo, cells = self._places(me, rank, 0), self._places(rank, me, 1)
            for places, views, begin in ((cells if back else halo, self._in, grid.comm.Recv_init),
                                         (halo if back else cells, self._out, grid.comm.Send_init)):
                if places:
                    buffer, found = self._buffer(arrays, places)
                    views += found
                    self._requests.append(begin(buffer, rank, tag))

    def _places(self, rank, other, which):
        """Where what a rank wants of another is in this rank's arrays: in the halo (0), or among the cells (1)."""
        if self._moves is None:
            return [(..., *self.grid.slices(part[which])) for part in self.grid.wants(rank, other)]
        return [(i, *self.grid.slices(part[which])) for i, move in enumerate(self._moves) if any(move)
                for part in self.grid.wants(rank, other, move)]

    def _buffer(self, arrays, places):
        """A buffer for some places of all arrays, and a view of it for each: (number of the array, place, view)."""
        sizes = [array[place].nbytes for array in arrays for place in places]
        edges = partition.offsets([-(-size // 8) * 8 for size in sizes])
        buffer, found = np.empty(int(edges[-1]), np.uint8), []
        numbered = [(number, place) for number in range(len(arrays)) for place in places]
        for (number, place), start, size in zip(numbered, edges, sizes):
            part = arrays[number][place]
            found.append((number, place, buffer[start : start + size].view(part.dtype).reshape(part.shape)))
        return buffer, found

    def start(self, *arrays):
        """Send what others need of these arrays, which may change again at once, but for what ``finish`` fills.

        Parameters
        ----------
        *arrays : of the shapes and dtypes that the exchange was made for

        Raises
        ------
        ValueError : other shapes or dtypes
        """
        if [(array.shape, array.dtype) for array in arrays] != self._alike:
            raise ValueError(f"arrays are {[(array.dtype.name, array.shape) for array in arrays]}: must be "
                             f"{[(dtype.name, shape) for shape, dtype in self._alike]}")
        for number, place, view in self._out:
            view[...] = arrays[number][place]
        for request in self._requests:
            request.Start()
        for array in arrays:
            for to, of in self._local:
                array[to] = array[of]

    def finish(self, *arrays):
        """Wait for the halos of these arrays, or the cells. Collective with ``start`` of the neighbours.

        Parameters
        ----------
        *arrays : the same as in ``start``
        """
        for request in self._requests:
            request.Wait()
        for number, place, view in self._in:
            arrays[number][place] = view

    def __call__(self, *arrays):
        """Fill the halos of these arrays. Collective.

        Parameters
        ----------
        *arrays : of the shapes and dtypes that the exchange was made for
        """
        self.start(*arrays)
        self.finish(*arrays)

    def free(self):
        """Let the requests go."""
        for request in self._requests:
            request.Free()
        self._requests = []


def _full(box):
    return all(first < end for first, end in box)
