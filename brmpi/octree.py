"""Gravity by an octree that is shared out over ranks, the same bits on any number of them.

Each rank asks for the forces on some bodies, those of its rows. They go to the rank in whose domain they lie, a range
of the tree's keys, and their forces come back. Domains are cut between groups of bodies, such that each rank has work
in proportion to its speed, by the terms that each body's force took the last time. A rank's own bodies make its part of
the tree of all; the others send what of theirs its groups open (the locally essential tree), and cells of several
domains are put together from what is below them. So its groups see the tree that one rank would make alone.

Source: Warren & Salmon, Proc. Supercomputing '93, 12 (keys, cuts by cost); Salmon, thesis, Caltech (1991) (essential
trees).
"""

import itertools

import numpy as np

from brmpi import partition
from brmpi.kernels import tree

END = 2 ** (3 * tree.BITS)  # above all keys
BOXES = 64  # that a rank describes its domain by, about


class Octree:
    """The gravity of all bodies on those of this rank's rows. Collective.

    Ranks without a speed have no domain, and may have rows.

    Parameters
    ----------
    comm : communicator
    counts : (ranks,) int, rows of each rank, in the order of ranks
    pull : (N,) float64 >= 0, G * mass of all bodies [length**3 / time**2]
    eps : float >= 0, softening [length]
    theta : float > 0, opening angle
    precision : "float64" or "mixed"
    speeds : (ranks,) float64 >= 0, what the work of each rank is in proportion to
    timers : mpi.Timers
    backend : one of ``kernels.BACKENDS``
    """

    def __init__(self, comm, counts, pull, eps, theta, precision, speeds, timers, backend):
        self.comm, self.pull, self.eps, self.theta, self.precision = comm, pull, eps, theta, precision
        self.speeds, self.timers, self.backend = np.asarray(speeds, np.float64), timers, backend
        self.loops = tree.loops(backend)
        self.first = int(np.sum(counts[: comm.rank]))
        self.unit = 2.0 ** np.frexp(pull.sum() or 1.0)[1]  # of mass: a power of two rounds nothing
        self.costs = np.ones(int(counts[comm.rank]), np.int64)  # terms of each row's body
        self.terms = self.costs.size  # of the forces on all bodies, the last time but one

    def free(self):
        """Nothing to let go."""

    def __call__(self, pos):
        """Accelerations (n, 3) float64 at this rank's positions (n, 3). Collective."""
        return self._field(self.precision, pos)

    def potentials(self, pos):
        """Potentials at this rank's bodies, each without its own. Collective.

        Parameters
        ----------
        pos : (n, 3) float64

        Returns
        -------
        (n,) float64 [length**2 / time**2]
        """
        return self._field("potential", pos)[:, 0]

    def _field(self, kind, pos):
        with self.timers("tree"):
            low, side = self._cube(pos)
            key = self.loops.keys(np.ascontiguousarray(pos.T), low, side)
            order = self.loops.sort(key)
            key = key[order]
        with self.timers("exchange"):
            edges = self._cut(key, self.costs[order])
            sent = np.diff([np.searchsorted(key, edge) if edge < END else key.size for edge in edges])
            rows = np.column_stack([pos[order], order + self.first])
            came, arrived = self._sent(rows, sent)
        with self.timers("tree"):
            here = np.ascontiguousarray(came.T)
            places = self.loops.sort(self.loops.keys(here[:3], low, side))
            here = here[:, places]
            key = self.loops.keys(here[:3], low, side)
            bodies = np.ascontiguousarray(np.vstack([(here[:3] - low[:, None]) / side,
                                                     self.pull[here[3].astype(np.int64)] / self.unit]))
            mine = Tree(self.loops, key, bodies, *edges[self.comm.rank : self.comm.rank + 2])
        whole = mine if self.comm.size == 1 else self._whole(mine)
        with self.timers("force"):
            columns = 1 if kind == "potential" else 3
            out, cost = np.zeros((columns, key.size)), np.zeros(key.size, np.int64)
            group = mine.groups(tree.GROUP)
            tree.field(kind, bodies, mine.ranges(group), whole.first, whole.last, whole.skip, whole.rows,
                       mine.box[group], whole.bodies, self.theta, (self.eps / side) ** 2, out, cost, self.backend)
        with self.timers("exchange"):
            back = np.empty((key.size, columns + 1))
            back[places, :-1] = out.T
            back[places, -1] = cost
            answer, _ = self._sent(back, arrived)
            found = np.empty_like(answer)
            found[order] = answer
            self.costs = found[:, -1].astype(np.int64)
            return found[:, :-1] * (self.unit / (side if kind == "potential" else side * side))

    def _cube(self, pos):
        """Lower corner and side of a cube around all bodies, the side a power of two. Collective."""
        from mpi4py import MPI

        ends = np.full(6, -np.inf)
        if len(pos):
            ends[:3], ends[3:] = -pos.min(axis=0), pos.max(axis=0)
        most = np.empty(6)
        self.comm.Allreduce(ends, most, MPI.MAX)
        low, extent = -most[:3], (most[3:] + most[:3]).max()
        if not np.isfinite(extent):
            return np.zeros(3), 1.0
        return low, 2.0 ** np.frexp(extent or 1.0)[1]

    def _cut(self, key, costs):
        """Where the keys of each rank's domain begin, and the end. Collective.

        A cut is sought from the whole tree downwards, in the cells where the work up to it is reached, to the first
        that makes one group: so there is none within a group.
        """
        work = np.concatenate([[0], np.cumsum(costs)])
        self.terms = whole = self._sum(work[-1:])[0]
        if self.comm.size == 1:
            return [0, END]
        part = np.cumsum(self.speeds)[:-1] / self.speeds.sum()
        wanted = np.rint(part * float(whole)).astype(np.int64)
        starts, below, done = [0] * len(wanted), np.zeros_like(wanted), np.zeros(len(wanted), bool)
        for depth in range(1, tree.BITS + 1):
            width = 1 << 3 * (tree.BITS - depth)
            edges = np.array([[min(start + width * digit, END - 1) for digit in range(9)] for start in starts])
            places = np.searchsorted(key, edges)
            places[edges == END - 1] = key.size  # above the last key
            sums = self._sum(np.stack([np.diff(places, axis=1), np.diff(work[places], axis=1)]))
            for cut, (held, spent) in enumerate(zip(*sums)):
                if done[cut]:
                    continue
                digit = min(int(np.searchsorted(below[cut] + np.cumsum(spent), wanted[cut], side="right")), 7)
                below[cut] += spent[:digit].sum()
                starts[cut] += digit * width
                if held[digit] <= tree.GROUP or depth == tree.BITS:
                    done[cut] = True
                    if 2 * (wanted[cut] - below[cut]) > spent[digit]:
                        starts[cut] += width
            if done.all():
                break
        return [0, *starts, END]

    def _sum(self, numbers):
        from mpi4py import MPI

        numbers = np.ascontiguousarray(numbers, np.int64)
        whole = np.empty_like(numbers)
        self.comm.Allreduce(numbers, whole, MPI.SUM)
        return whole

    def _sent(self, rows, counts):
        """Send consecutive rows to each rank; what came, and how many rows from each. Collective."""
        if self.comm.size == 1:
            return rows, counts
        counts, come = np.asarray(counts, np.int64), np.empty(self.comm.size, np.int64)
        self.comm.Alltoall(counts, come)
        width = rows.shape[1]
        found = np.empty((int(come.sum()), width))
        self.comm.Alltoallv((np.ascontiguousarray(rows), width * counts), (found, width * come))
        return found, come

    def _gathered(self, rows):
        """Rows of all ranks, a list. Collective."""
        counts = np.array(self.comm.allgather(rows.size))
        found = np.empty(int(counts.sum()))
        self.comm.Allgatherv(np.ascontiguousarray(rows), (found, counts))
        return [part.reshape(-1, rows.shape[1]) for part in np.split(found, np.cumsum(counts)[:-1])]

    def _whole(self, mine):
        """The tree of all bodies, as far as this rank's groups open it. Collective."""
        with self.timers("tree"):
            most = max(tree.GROUP, len(mine.bodies[0]) // BOXES)
            domain = mine.box[mine.groups(most)]
        with self.timers("exchange"):
            domains = self._gathered(domain)
            roots = self._gathered(mine.roots())
        with self.timers("tree"):
            parcels = [mine.parcel(boxes, self.theta) if rank != self.comm.rank else (np.empty((0, NODE)),) * 2
                       for rank, boxes in enumerate(domains)]
        with self.timers("exchange"):
            nodes, counts = self._sent(np.concatenate([nodes for nodes, _ in parcels]), [len(n) for n, _ in parcels])
            held, heaps = self._sent(np.concatenate([b.reshape(-1, 4) for _, b in parcels]),
                                     [b.size // 4 for _, b in parcels])
        if not len(domain):
            return mine
        with self.timers("tree"):
            return self._joined(mine, roots, np.split(nodes, np.cumsum(counts)[:-1]), held, heaps)

    def _joined(self, mine, roots, nodes, held, heaps):
        """One tree of this rank's parts, those that came, and the cells above them."""
        bodies = np.ascontiguousarray(np.concatenate([mine.bodies, held.T], axis=1))
        begins = mine.bodies.shape[1] + partition.offsets(heaps)[:-1]
        parts = []  # of all ranks, in the order of keys: level, first, last and rows of their nodes, box of the root
        for rank, (given, begin) in enumerate(zip(nodes, begins)):
            if rank == self.comm.rank:
                for root, end in zip(mine.tops, [*mine.tops[1:], mine.level.size]):
                    here = slice(root, end)
                    parts.append((mine.level[here], mine.first[here], mine.last[here], mine.rows[here]))
                continue
            count = given[:, BODIES].astype(np.int64)
            last = begin + np.cumsum(count)
            tops = np.flatnonzero(given[:, LEVEL] == 0)
            for root, end in zip(tops, [*tops[1:], len(given)]):
                here = slice(root, end)
                parts.append((given[here, LEVEL].astype(np.int8), (last - count)[here], last[here],
                              given[here, : tree.COLUMNS]))
        table = np.concatenate(roots)
        keys = table[:, 0].view(np.int64) if len(table) else np.empty(0, np.int64)
        level, first, last, rows, box, above = [], [], [], [], [], []
        at = 0
        for kind, depth in _outline(keys):
            if kind < 0:  # a cell of several domains
                part = (np.array([depth], np.int8), np.zeros(1, np.int64), np.full(1, -1), np.zeros((1, tree.COLUMNS)))
                corners = np.zeros((1, 6))
                above.append(at)
            else:
                part, corners = parts[kind], np.zeros((len(parts[kind][0]), 6))
                part[0][0], corners[0] = depth, table[kind, 1:]
            for whole, piece in zip((level, first, last, rows, box), (*part, corners)):
                whole.append(piece)
            at += len(part[0])
        return Tree.of(self.loops, *map(np.concatenate, (level, first, last, rows, box)), bodies, above[::-1])


LEVEL, BODIES = tree.COLUMNS, tree.COLUMNS + 1  # columns of a node that is sent
NODE = tree.COLUMNS + 2


class Tree:
    """The part of the tree that lies in a range of keys.

    Parameters
    ----------
    loops : from ``tree.loops``
    key : (n,) int64, ascending
    bodies : (4, n) float64, positions and masses
    start, end : int, the first key of the range, and the one after its last
    """

    def __init__(self, loops, key, bodies, start, end):
        self.loops, self.key, self.bodies = loops, key, bodies
        self.level, self.first, self.last = loops.forest(key, start, end - 1, tree.LEAF)
        self.skip = loops.skips(self.level)
        self.rows, self.box = np.zeros((self.level.size, tree.COLUMNS)), np.zeros((self.level.size, 6))
        self._add_moments(np.arange(self.level.size)[::-1])
        self.tops = np.flatnonzero(self.level == 0)

    @classmethod
    def of(cls, loops, level, first, last, rows, box, bodies, above):
        """A tree from its parts.

        Parameters
        ----------
        loops : from ``tree.loops``
        level, first, last, rows, box : of all nodes
        bodies : (4, n) float64
        above : sequence of int, nodes whose rows are still to be found, children first

        Returns
        -------
        Tree
        """
        self = cls.__new__(cls)
        self.loops, self.bodies = loops, bodies
        self.level, self.first, self.last, self.rows, self.box = level, first, last, rows, box
        self.skip = loops.skips(level)
        self._add_moments(np.array(above, np.int64))
        return self

    def _add_moments(self, nodes):
        self.loops.moments(nodes, self.first, self.last, self.skip, self.bodies, self.rows, self.box)

    def groups(self, most):
        """Nodes of the largest cells with few bodies.

        Parameters
        ----------
        most : int, bodies

        Returns
        -------
        (groups,) int64
        """
        return self.loops.groups(self.first, self.last, self.skip, most)

    def ranges(self, nodes):
        """First body of each node, and the one after its last.

        Parameters
        ----------
        nodes : (k,) int64

        Returns
        -------
        (k, 2) int64
        """
        first = self.first[nodes]
        return np.stack([first, first + np.abs(self.last[nodes] - first)], axis=1)

    def roots(self):
        """The cells that are in no other of this part.

        Returns
        -------
        (k, 7) float64: a key in each, its bits as int64; the row's; its box
        """
        table = np.empty((len(self.tops), 7))
        table[:, 0] = self.key[self.first[self.tops]].view(np.float64)
        table[:, 1:] = self.box[self.tops]
        return table

    def parcel(self, boxes, theta):
        """What is needed of this part for the bodies in some boxes.

        Parameters
        ----------
        boxes : (k, 6) float64
        theta : float

        Returns
        -------
        nodes : (m, NODE) float64, those without parents at level 0
        bodies : (b, 4) float64, those of its opened leaves
        """
        whole = np.concatenate([boxes[:, :3].min(axis=0), boxes[:, 3:].max(axis=0)]) if len(boxes) else np.zeros(6)
        nodes, opened = self.loops.essential(
            self.loops.opened, self.first, self.last, self.skip, self.rows, whole, boxes, theta)
        held = np.where(opened, self.last[nodes] - self.first[nodes], 0)
        parcel = np.empty((nodes.size, NODE))
        parcel[:, : tree.COLUMNS] = self.rows[nodes]
        parcel[:, LEVEL] = self.level[nodes]
        parcel[:, BODIES] = held.clip(0)
        leaves = nodes[held > 0]
        counts = self.last[leaves] - self.first[leaves]
        index = np.repeat(self.first[leaves] - partition.offsets(counts)[:-1], counts) + np.arange(counts.sum())
        return parcel, np.ascontiguousarray(self.bodies[:, index].T)


def _outline(keys):
    """The top of the tree: (-1, level) for a cell of several domains, (index, level) for a root, parents first."""
    stack, found = [(0, len(keys), 0)] if len(keys) else [], []
    while stack:
        a, b, level = stack.pop()
        if b - a == 1:
            found.append((a, level))
            continue
        depth = level
        while int(keys[a]) >> 3 * (tree.BITS - depth - 1) == int(keys[b - 1]) >> 3 * (tree.BITS - depth - 1):
            depth += 1
        found.append((-1, level))
        digits = (keys[a:b] >> 3 * (tree.BITS - depth - 1)) & 7
        edges = [a, *(a + 1 + np.flatnonzero(np.diff(digits))), b]
        stack += [(int(lo), int(hi), depth + 1) for lo, hi in itertools.pairwise(edges)][::-1]
    return found


def warm(precision, backend):
    """Compile the loops. Not collective.

    Parameters
    ----------
    precision : "float64" or "mixed"
    backend : one of ``kernels.BACKENDS``
    """
    loops, bodies = tree.loops(backend), np.ones((4, 2))
    small = Tree(loops, loops.keys(bodies[:3], np.zeros(3), 2.0)[loops.sort(np.zeros(2, np.int64))], bodies, 0, END)
    small.parcel(small.box, 1.0)
    group = small.groups(1)
    for kind, columns in ((precision, 3), ("potential", 1)):
        tree.field(kind, bodies, small.ranges(group), small.first, small.last, small.skip, small.rows, small.box[group],
                   bodies, 1.0, 0.0, np.zeros((columns, 2)), np.zeros(2, np.int64), backend)
