"""Atoms in a periodic box that is cut into smaller boxes, one a rank: who owns which, how they move, and ghosts.

An atom belongs to the rank in whose box it is. Those of others that are near a box are there as ghosts, each image by
itself, where it is seen: an atom at x that is seen through the box's end is a ghost at x + L, on the same rank, too.
Any number of ranks and any thin boxes will do, and ranks whose box is empty. Ids travel as float64, which hold them
exactly up to 2**53.
"""

import itertools

import numpy as np

from brmpi import grid, partition

TAG = 7300
MARGIN = 1e-9  # of the box, by which more atoms are sent than needed: rounding leaves none out


def deliver(comm, owners, rows):
    """Send rows of numbers to their ranks. Collective.

    Parameters
    ----------
    comm : communicator
    owners : (n,) int, the rank of each row
    rows : (n, k) float64

    Returns
    -------
    (m, k) float64: those from rank 0 first, rows of one rank in their order
    """
    order = np.argsort(owners, kind="stable")
    counts, width = np.bincount(owners, minlength=comm.size), rows.shape[1]
    arriving = np.empty_like(counts)
    comm.Alltoall(counts, arriving)
    out, received = rows[order], np.empty((arriving.sum(), width))
    comm.Alltoallv((out, counts * width), (received, arriving * width))
    return received


def by_row(comm, ids, offsets, *columns):
    """Bring values of atoms to the ranks that hold their rows of a file, in the order of ids. Collective.

    Parameters
    ----------
    comm : communicator
    ids : (n,) int64, of this rank's atoms; together all from 0 on
    offsets : (ranks + 1,) int, where each rank's rows begin
    *columns : (k, n) float64

    Returns
    -------
    list of (rows, k) float64
    """
    rows = deliver(comm, partition.owner(ids, offsets), np.concatenate([ids[None], *columns]).T)
    rows = rows[np.argsort(rows[:, 0])]
    ends = partition.offsets([1, *map(len, columns)])[1:]
    return [np.ascontiguousarray(rows[:, first:end]) for first, end in itertools.pairwise(ends)]


class Domains:
    """The boxes of all ranks.

    Parameters
    ----------
    comm : communicator
    edges : (3,) float > 0, of the whole box, which begins at 0 [length]
    speeds : (ranks,) float > 0, to which volumes are proportional
    grain : float > 0, boxes are cut at about multiples of this [length]

    Attributes
    ----------
    low, high : (ranks, 3) float64, corners of the boxes
    """

    def __init__(self, comm, edges, speeds, grain):
        self.comm, self.edges = comm, np.asarray(edges, np.float64)
        self.shape = np.maximum(1, np.ceil(self.edges / grain)).astype(np.int64)
        boxes = np.array(grid.boxes(tuple(self.shape.tolist()), speeds, 3))
        self.first, self.end = boxes[..., 0], boxes[..., 1]
        self.low, self.high = (at * (self.edges / self.shape) for at in (self.first, self.end))
        self._images = {}  # by reach

    def wrapped(self, pos):
        """Images in the box.

        Parameters
        ----------
        pos : (3, n) float64

        Returns
        -------
        (3, n) float64, in 0 <= x < edge; those in the box as they are
        """
        edges = self.edges[:, None]
        inside = pos - edges * np.floor(pos / edges)
        return np.where((inside >= 0) & (inside < edges), inside, 0.0)

    def owners(self, pos):
        """The rank of each atom.

        Parameters
        ----------
        pos : (3, n) float64, in the box

        Returns
        -------
        (n,) int64
        """
        place = (pos * (self.shape / self.edges)[:, None]).astype(np.int64)
        place = np.minimum(place, self.shape[:, None] - 1)
        found, left = np.empty(pos.shape[1], np.int64), np.arange(pos.shape[1])
        for rank in sorted(range(self.comm.size), key=lambda rank: rank != self.comm.rank):  # most stay here
            if not left.size:
                break
            here = place[:, left]
            inside = ((here >= self.first[rank][:, None]) & (here < self.end[rank][:, None])).all(axis=0)
            found[left[inside]] = rank
            left = left[~inside]
        return found

    def home(self, ids, place, *columns):
        """Send atoms to the ranks in whose boxes they are. Collective.

        Parameters
        ----------
        ids : (n,) int64
        place : (3, n) float64, in the box
        *columns : (k, n) float64

        Returns
        -------
        ids, place and columns of the atoms that are this rank's now
        """
        owners, columns = self.owners(place), (place, *columns)
        stays, goes = np.flatnonzero(owners == self.comm.rank), np.flatnonzero(owners != self.comm.rank)
        rows = np.concatenate([ids[None, goes], *(column[:, goes] for column in columns)]).T
        come = deliver(self.comm, owners[goes], rows).T
        ends = partition.offsets([1, *map(len, columns)])[1:]
        found = [np.concatenate([column[:, stays], come[first:end]], axis=1)
                 for column, (first, end) in zip(columns, itertools.pairwise(ends))]
        return np.concatenate([ids[stays], come[0].astype(np.int64)]), *found

    def images(self, reach):
        """Who sees atoms of this rank as ghosts, and moved by how many boxes.

        Parameters
        ----------
        reach : float, how far from a box its ghosts are, at most the shortest edge [length]

        Returns
        -------
        list of (rank, (3,) tuple of -1, 0 or 1), by rank
        """
        if reach in self._images:
            return self._images[reach]
        me, found = self.comm.rank, self._images.setdefault(reach, [])
        reach += MARGIN * self.edges.max()
        for rank, turns in itertools.product(range(self.comm.size), itertools.product((-1, 0, 1), repeat=3)):
            if (rank == me and not any(turns)) or not all((self.first < self.end)[[rank, me]].ravel()):
                continue
            shift = turns * self.edges
            if (self.low[me] + shift <= self.high[rank] + reach).all() and (
                    self.high[me] + shift >= self.low[rank] - reach).all():
                found.append((rank, turns))
        return found

    def chosen(self, pos, reach):
        """Atoms of this rank that are ghosts somewhere, perhaps several times.

        Parameters
        ----------
        pos : (3, n) float64, in this rank's box
        reach : float [length]

        Returns
        -------
        list of (rank, (3,) float64 shift, (m,) int64 atoms), by rank
        """
        found, masks = [], {}
        margin = reach + MARGIN * self.edges.max()
        for rank, turns in self.images(reach):
            shift, near = turns * self.edges, True
            for axis, turn in enumerate(turns):
                key = rank, axis, turn
                if key not in masks:
                    at = pos[axis] + shift[axis]
                    masks[key] = (at >= self.low[rank, axis] - margin) & (at <= self.high[rank, axis] + margin)
                near = near & masks[key]
            found.append((rank, shift, np.flatnonzero(near)))
        return found


class Ghosts:
    """The atoms near this rank's box that are others', or its own seen through the box's ends. Collective.

    A rank's atoms come first in its arrays, then its ghosts, in the order of the ranks that own them.

    Parameters
    ----------
    comm : communicator
    chosen : as from ``Domains.chosen``
    own : int, atoms of this rank

    Attributes
    ----------
    count : int, ghosts of this rank
    """

    def __init__(self, comm, chosen, own):
        self.comm, self.own = comm, own
        self.seen = {}  # rank: atoms, and by how much they are moved there
        for rank in sorted({rank for rank, _, _ in chosen}):
            parts = [(shift, atoms) for to, shift, atoms in chosen if to == rank]
            shifts = np.repeat([shift for shift, _ in parts], [len(atoms) for _, atoms in parts], axis=0)
            self.seen[rank] = np.concatenate([atoms for _, atoms in parts]), np.ascontiguousarray(shifts.T)
        leaving, arriving = np.zeros(comm.size, np.int64), np.empty(comm.size, np.int64)
        for rank, (atoms, _) in self.seen.items():
            leaving[rank] = len(atoms)
        comm.Alltoall(leaving, arriving)
        self.count, places = int(arriving.sum()), own + partition.offsets(arriving)
        others = [rank for rank in range(comm.size) if rank != comm.rank]
        self.outgoing = {rank: np.empty((3, leaving[rank])) for rank in others if leaving[rank]}
        self.incoming = {rank: np.empty((3, arriving[rank])) for rank in others if arriving[rank]}
        self.places = {rank: slice(places[rank], places[rank + 1]) for rank in (*self.incoming, comm.rank)}
        self._requests = []

    def start(self, pos):
        """Send this rank's positions to those who see them, and set the ghosts that are its own atoms.

        Parameters
        ----------
        pos : (3, own + count) float64, C-contiguous; own atoms may move again at once
        """
        self._requests = [self.comm.Irecv(buffer, rank, TAG) for rank, buffer in self.incoming.items()]
        for rank, buffer in self.outgoing.items():
            self._image(pos, rank, buffer)
            self._requests.append(self.comm.Isend(buffer, rank, TAG))
        if self.comm.rank in self.seen:
            self._image(pos, self.comm.rank, pos[:, self.places[self.comm.rank]])

    def _image(self, pos, rank, out):
        """Positions of this rank's atoms as another one sees them."""
        atoms, shifts = self.seen[rank]
        for row, by, to in zip(pos, shifts, out):
            np.take(row, atoms, out=to, mode="clip")  # the other mode would copy ``out``
            to += by

    def help(self):
        """Let messages go on that are under way, while something is computed. Not collective."""
        from mpi4py import MPI

        MPI.Request.Testall(self._requests)

    def finish(self, pos):
        """Wait for the positions of all other ghosts.

        Parameters
        ----------
        pos : as for ``start``
        """
        for request in self._requests:
            request.Wait()
        self._requests = []
        for rank, buffer in self.incoming.items():
            pos[:, self.places[rank]] = buffer

    def keys(self, ids):
        """A whole number of each atom, of the ghosts, too. Collective.

        Parameters
        ----------
        ids : (own,) int64

        Returns
        -------
        (own + count,) int64
        """
        found = np.empty(self.own + self.count, np.int64)
        found[: self.own] = ids
        sends = {rank: ids[atoms] for rank, (atoms, _) in self.seen.items()}
        requests = [self.comm.Irecv(found[self.places[rank]], rank, TAG) for rank in self.incoming]
        requests += [self.comm.Isend(sends[rank], rank, TAG) for rank in self.outgoing]
        if self.comm.rank in sends:
            found[self.places[self.comm.rank]] = sends[self.comm.rank]
        for request in requests:
            request.Wait()
        return found
