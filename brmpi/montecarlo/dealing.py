"""Which rank samples which blocks: a first share by speed, then who is free takes the next from a shared counter."""

import numpy as np

from brmpi import partition

CLAIM = 0.2  # seconds that a claim is to last
CLOSED = 2**62  # a counter past this: nothing more is to be taken
WINDOW = 64  # blocks a rank, on average, that static dealing shares out at once


class Dealer:
    """Deals out the blocks from ``first`` up to ``last``. Collective to make and to ``free``; nothing else is.

    Claims are one-sided: no rank waits for another to answer, though the rank that holds the counter, the root, has to
    call MPI now and then for others' claims to come through where it is on another host.

    Parameters
    ----------
    comm : communicator
    first : int, block to begin with
    last : int, block after the last; ``CLOSED`` where nobody knows yet
    speeds : (ranks,) float64 > 0
    dynamic : bool; else the share of each rank is fixed by the speeds
    """

    def __init__(self, comm, first, last, speeds, dynamic):
        from mpi4py import MPI

        self.comm, self.last, self.dynamic = comm, last, dynamic
        self.speeds = np.asarray(speeds, dtype=float)
        self.share = self.speeds[comm.rank] / self.speeds.sum()
        self.pace = 0.0  # seconds a block
        self.asked, self.over = 0, False
        self.mine, self.dealt = range(0), first
        self._deal(2 if dynamic else WINDOW)
        self.add, self.replace, self.look = MPI.SUM, MPI.REPLACE, MPI.NO_OP
        self.answer, self.question = np.zeros(1, np.int64), np.zeros(1, np.int64)
        self.window = MPI.Win.Allocate(8 if comm.rank == 0 else 0, 8, comm=comm)
        if comm.rank == 0:
            np.frombuffer(self.window, np.int64)[0] = self.dealt
        comm.Barrier()
        self.window.Lock_all(MPI.MODE_NOCHECK)

    def claim(self):
        """Blocks for this rank to sample next.

        Returns
        -------
        range; empty where nothing is left
        """
        while not self.over:
            if self.mine:
                return self._taken()
            if self.dynamic:
                return self._next()
            self.over = self.dealt >= self.last or self._counter(self.look, 0) >= CLOSED
            self._deal(WINDOW)
        return range(0)

    def ask(self, pace):
        """Send for the next claim, so that it is here when it is needed.

        Parameters
        ----------
        pace : float, seconds that this rank takes for a block; 0 where it cannot say yet
        """
        self.pace = pace
        if self.dynamic and not self.asked and not self.over and not self.mine:
            left = self.last - self.dealt
            self.asked = max(1, min(self._moment(), int(left * self.share / 2)))  # fewer near the end
            self.question[0] = self.asked
            self.window.Fetch_and_op(self.question, self.answer, 0, 0, self.add)

    def close(self):
        """Let nobody take any more. On any rank."""
        self.window.Flush(0)  # what was asked for, and is of no use now
        self.asked, self.over, self.mine = 0, True, range(0)
        self._counter(self.replace, CLOSED)

    def free(self):
        """Give the counter back. Collective."""
        self.window.Unlock_all()
        self.window.Free()

    def _next(self):
        """From the counter: a claim that was asked for before, or one for this moment."""
        self.ask(self.pace)
        self.window.Flush(0)
        start, count, self.asked = int(self.answer[0]), self.asked, 0
        self.dealt = start + count
        self.over = start >= min(self.last, CLOSED)
        return range(0) if self.over else range(start, min(start + count, self.last))

    def _taken(self):
        """The first of what was dealt to this rank, as much as lasts a moment."""
        if self.dynamic:
            taken, self.mine = self.mine, range(0)
            return taken
        self.over = self._counter(self.look, 0) >= CLOSED
        count = 0 if self.over else self._moment()
        taken, self.mine = self.mine[:count], self.mine[count:]
        return taken

    def _moment(self):
        """How many blocks last a moment."""
        return max(1, int(CLAIM / self.pace)) if self.pace > 0 else 1

    def _deal(self, each):
        """Share out the next blocks by speed, so many a rank on average."""
        count = max(0, min(each * self.comm.size, self.last - self.dealt))
        edges = partition.offsets(partition.shares(count, self.speeds)) + self.dealt
        self.mine = range(int(edges[self.comm.rank]), int(edges[self.comm.rank + 1]))
        self.dealt += count

    def _counter(self, operation, value):
        """What the counter held before an operation on it."""
        self.question[0] = value
        self.window.Fetch_and_op(self.question, self.answer, 0, 0, operation)
        self.window.Flush(0)
        return int(self.answer[0])
