"""Panels on their way: broadcast to the ranks that multiply by them, or handed to those that own them, during work.

A panel is a strip of an operand, all of its rows by the columns of a few blocks. Where its rows are dealt out as the
work needs them, the ranks that own it broadcast it. Elsewhere (the transpose of a matrix, a layout with other
weights) its owners first send every piece to the ranks that are to begin the broadcasts. Messages move while MPI is
called: all that is under way is in the care of ``traffic``.
"""

import numpy as np

from brmpi.linalg.broadcast import Broadcast
from brmpi.linalg.operand import along, here, places, rank

DEPTH = 2  # panels that are under way while one is worked with
TAGS = 8  # of successive panels: more than are ever under way


class Pieces:
    """Pieces of a panel from rank to rank, each put where it belongs as it comes.

    Parameters
    ----------
    comm : communicator
    sends : list of (rank, contiguous ndarray)
    receives : list of (rank, shape, place), where place(array) is called with what came
    dtype : dtype
    tag : int
    """

    def __init__(self, comm, sends, receives, dtype, tag):
        own = [piece for to, piece in sends if to == comm.rank]
        self.coming = []
        for source, shape, place in receives:
            if source == comm.rank:
                place(own.pop(0))
            else:
                into = np.empty(shape, dtype=dtype)
                self.coming.append((comm.Irecv(into, source, tag), into, place))
        self.going = [(comm.Isend(piece, to, tag), piece) for to, piece in sends if to != comm.rank]

    def here(self):
        """Put in place what has come, and tell whether all has.

        Returns
        -------
        bool
        """
        left = []
        for request, into, place in self.coming:
            if request.Test():
                place(into)
            else:
                left.append((request, into, place))
        self.coming = left
        return not left

    def poll(self):
        """Put in place what has come, and tell whether this rank has no more to do.

        Returns
        -------
        bool
        """
        arrived = self.here()
        self.going = [(request, piece) for request, piece in self.going if not request.Test()]
        return arrived and not self.going


class Route:
    """Which rows go from each part of one axis to each part of another.

    Parameters
    ----------
    source, target : Axis, with n and nb alike
    """

    def __init__(self, source, target):
        self.source, self.target, self._known = source, target, {}

    def rows(self, s, t, first=0, end=None):
        """Places of the rows that part s of the source and part t of the target own both.

        Parameters
        ----------
        s, t : int
        first, end : int, of the blocks that are looked at

        Returns
        -------
        (places in s, places in t), slices or int64 arrays; and how many
        """
        if (s, t) not in self._known:
            self._known[s, t] = np.intersect1d(self.source.held[s], self.target.held[t], assume_unique=True)
        blocks = self._known[s, t]
        end = self.source.blocks if end is None else end
        blocks = blocks[np.searchsorted(blocks, first): np.searchsorted(blocks, end)]
        count = sum(self.source.width(int(block)) for block in blocks[-1:]) + max(len(blocks) - 1, 0) * self.source.nb
        return places(self.source, s, blocks), places(self.target, t, blocks), count


def direct(source, target, dim):
    """Whether an operand's rows are dealt out as they are needed.

    Parameters
    ----------
    source : Operand
    target : Axis
    dim : 0 or 1, of the grid, over which they are needed so

    Returns
    -------
    bool
    """
    return source.dim == dim and source.rows == target


class Fetch:
    """Panels of an operand, fetched one after the other to where its rows are needed. Collective.

    Parameters
    ----------
    source : Operand
    target : Axis, how its rows are needed
    dim : 0 or 1, of the grid, over which
    wanted : (parts,) bool, which places along the other dimension need anything
    traffic : Traffic
    tag : int, the first of ``TAGS`` that are used
    width : int, the most columns in a panel
    depth : int, panels under way while one is worked with
    """

    def __init__(self, source, target, dim, wanted, traffic, tag, width, depth=DEPTH):
        self.source, self.target, self.dim, self.traffic, self.tag = source, target, dim, traffic, tag
        self.wanted, self.width, self.grid = wanted, width, source.grid
        self.direct = direct(source, target, dim)
        self.route = None if self.direct else Route(source.rows, target)
        self.buffers, self.users, self.turn = [None] * (depth + 1), [None] * (depth + 1), 0

    def buffer(self, shape):
        """The next buffer, when what was in it is no longer under way.

        Parameters
        ----------
        shape : (rows, columns)

        Returns
        -------
        ndarray, its long dimension contiguous as in what it is filled from
        """
        slot = self.turn % len(self.buffers)
        if self.buffers[slot] is None:
            rows = self.target.count(here(self.grid, self.dim))
            self.buffers[slot] = np.empty(rows * self.width, dtype=self.source.dtype)
        flat = self.buffers[slot][: shape[0] * shape[1]]
        # Strips of a transposed operand lie row after row in memory and can be sent from there.
        return flat.reshape(shape[::-1]).T if self.source.dim else flat.reshape(shape)

    def start(self, blocks, first=0, end=None):
        """Begin to fetch a panel. Collective.

        Parameters
        ----------
        blocks : (k,) int64, columns, all of one owner
        first, end : int, of the blocks of rows that are needed

        Returns
        -------
        Panel
        """
        slot = self.turn % len(self.users)
        if self.users[slot] is not None:
            self.traffic.until(self.users[slot].poll)
        panel = self.users[slot] = Panel(self, blocks, first, self.source.rows.blocks if end is None else end)
        self.traffic.add(panel)
        self.turn += 1
        return panel


class Panel:
    """One panel on its way; made by ``Fetch.start``.

    Parameters
    ----------
    fetch : Fetch
    blocks : (k,) int64
    first, end : int

    Attributes
    ----------
    data : (rows, columns) ndarray, to be looked at once it is ``here``
    """

    def __init__(self, fetch, blocks, first, end):
        source, target, grid, dim = fetch.source, fetch.target, fetch.grid, fetch.dim
        mine, other = here(grid, dim), here(grid, 1 - dim)
        n, nb = target.n, target.nb
        self.skip = target.before(mine, min(first * nb, n))
        rows = target.before(mine, min(end * nb, n)) - self.skip
        width = sum(source.cols.width(int(block)) for block in blocks[-1:]) + (len(blocks) - 1) * nb
        owner = int(source.cols.owners[blocks[0]])
        self.comm, self.tag = along(grid, 1 - dim), fetch.tag + fetch.turn % TAGS
        parts = (grid.P, grid.Q)[1 - dim]
        takers = np.flatnonzero(fetch.wanted) if fetch.wanted.any() else np.arange(parts)
        root = owner if fetch.direct or source.dim == dim else int(takers[fetch.turn % len(takers)])
        self.chain = ring(root, parts, fetch.wanted)
        self.pieces = self.broadcast = None
        columns = places(source.cols, owner, blocks)
        if fetch.direct and other == root:
            self.data = self._own(fetch, slice(self.skip, self.skip + rows), columns, width)
        else:
            self.data = fetch.buffer((rows, width)) if other in self.chain else np.empty((0, width), source.dtype)
        if not fetch.direct:
            self._collect(fetch, columns, owner, root, first, end, width)
        if self.pieces is None or other != root:
            self._send()

    def _own(self, fetch, rows, columns, width):
        """A panel that this rank owns: as it lies, if it can be sent from there, or need not be sent."""
        source = fetch.source
        if isinstance(columns, slice) and not source.conj:
            part = source.x[rows, columns]
            if len(self.chain) == 1 or (part.flags.f_contiguous if source.dim else part.flags.c_contiguous):
                return part
        data = fetch.buffer((rows.stop - rows.start, width))
        _pack(source, rows, columns, data)
        return data

    def _collect(self, fetch, columns, owner, root, first, end, width):
        """The pieces of this rank's panel, to the rank that broadcasts it."""
        source, grid, dim = fetch.source, fetch.grid, fetch.dim
        sends, receives = [], []
        if here(grid, 1 - source.dim) == owner:
            s = here(grid, source.dim)
            for t in range(fetch.target.parts):
                there, _, count = fetch.route.rows(s, t, first, end)
                if count:
                    piece = np.empty((count, width), dtype=source.dtype)
                    _pack(source, there, columns, piece)
                    sends.append((rank(grid, dim, t, root), piece))
        if here(grid, 1 - dim) == root:
            t = here(grid, dim)
            for s in range(source.rows.parts):
                _, to, count = fetch.route.rows(s, t, first, end)
                if count:
                    receives.append((rank(grid, source.dim, s, owner), (count, width), self._placed(to)))
        self.pieces = Pieces(grid.comm, sends, receives, source.dtype, self.tag)

    def _placed(self, to):
        to = slice(to.start - self.skip, to.stop - self.skip) if isinstance(to, slice) else to - self.skip

        def _place(piece):
            self.data[to] = piece

        return _place

    def _send(self):
        sent = self.data if len(self.chain) > 1 else self.data[:0, :0]  # which may lie in any order
        self.broadcast = Broadcast(self.comm, sent, self.chain, self.tag)

    def here(self):
        """Let it go on, and tell whether all of it is here.

        Returns
        -------
        bool
        """
        if self.pieces is not None and not self.pieces.here():
            return False
        if self.broadcast is None:
            self._send()
        return self.broadcast.here()

    def poll(self):
        """Let it go on, and tell whether this rank has no more to do for it.

        Returns
        -------
        bool
        """
        if not self.here():
            if self.broadcast is not None:
                self.broadcast.poll()
            return False
        sent = self.pieces is None or self.pieces.poll()
        return self.broadcast.poll() and sent


def ring(root, parts, wanted):
    """The order in which a panel goes from place to place.

    Parameters
    ----------
    root, parts : int
    wanted : (parts,) bool

    Returns
    -------
    list of int, the root first, without those that want nothing
    """
    return [place for place in ((root + step) % parts for step in range(parts)) if place == root or wanted[place]]


def _runs(at, nb):
    """Slices of blocks in what they are taken from, and in what they are put into."""
    if isinstance(at, slice):
        yield at, slice(None)
        return
    for first in range(0, len(at), nb):
        count = min(nb, len(at) - first)
        yield slice(int(at[first]), int(at[first]) + count), slice(first, first + count)


def _pack(source, rows, columns, out):
    """Copy some rows and columns of an operand, conjugated if it is."""
    nb = source.rows.nb
    for here_, there in _runs(rows, nb):
        for taken, put in _runs(columns, nb):
            if source.conj:
                np.conjugate(source.x[here_, taken], out=out[there, put])
            else:
                out[there, put] = source.x[here_, taken]
