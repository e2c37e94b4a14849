"""Which rank samples which blocks: a first share by speed, then who is free takes the next from a shared counter."""

import numpy as np

from brmpi import partition
from brmpi.montecarlo import counter
from brmpi.montecarlo.counter import CLOSED

CLAIM = 0.2  # seconds that a claim is to last
WINDOW = 64  # blocks a rank, on average, that static dealing shares out at once


class Dealer:
    """Deals out the blocks from ``first`` up to ``last``. Collective to make and to ``free``; nothing else is.

    The next claim is sent for in the middle of the one before, so that no rank waits for the counter;
    the root, which holds it, has to call ``serve`` now and then for those on other hosts.

    Parameters
    ----------
    comm : communicator
    first : int, block to begin with
    last : int, block after the last; ``CLOSED`` where nobody knows yet
    speeds : (ranks,) float64 > 0
    dynamic : bool; else the share of each rank is fixed by the speeds
    """

    def __init__(self, comm, first, last, speeds, dynamic):
        self.comm, self.last, self.dynamic = comm, last, dynamic
        self.speeds = np.asarray(speeds, dtype=float)
        self.share = self.speeds[comm.rank] / self.speeds.sum()
        self.pace = 0.0  # seconds a block
        self.asked, self.over, self.closed = 0, False, False
        self.mine, self.dealt = range(0), first
        self._deal(2 if dynamic else WINDOW)
        self.counter = counter.shared(comm, self.dealt)

    def claim(self):
        """Blocks for this rank to sample next.

        Returns
        -------
        range; empty where nothing is left
        """
        while not self.over:
            if self.mine:
                return self._taken()
            if self.closed:
                break
            if self.dynamic:
                return self._next()
            self.over = self.dealt >= self.last or self.counter.look() >= CLOSED
            self._deal(WINDOW)
        return range(0)

    def ask(self, pace):
        """Send for the next claim, so that it is here when it is needed.

        Parameters
        ----------
        pace : float, seconds that this rank takes for a block; 0 where it cannot say yet
        """
        self.pace = pace
        if self.dynamic and not (self.asked or self.over or self.closed or self.mine):
            left = self.last - self.dealt
            self.asked = max(1, min(self._moment(), int(left * self.share / 2)))  # fewer near the end
            self.counter.ask(self.asked)

    def close(self, keep=False):
        """Let nobody take any more. On any rank.

        Parameters
        ----------
        keep : bool, whether this rank still samples what it has asked for: else that is a gap, which others' blocks
            after it are lost with
        """
        if self.asked:
            claimed = self._next()
            self.mine = claimed if keep else range(0)
        self.closed, self.over = True, not (keep and self.mine)
        self.counter.close()

    def serve(self):
        """Answer ranks that ask for the counter. On the root, now and then."""
        self.counter.serve()

    def free(self):
        """Give the counter back. Collective."""
        self.counter.free()

    def _next(self):
        """From the counter: a claim that was asked for before, or one for this moment."""
        self.ask(self.pace)
        start, count, self.asked = self.counter.result(), self.asked, 0
        self.dealt = start + count
        self.over = start >= min(self.last, CLOSED)
        return range(0) if self.over else range(start, min(start + count, self.last))

    def _taken(self):
        """The first of what was dealt to this rank, as much as lasts a moment."""
        if self.dynamic:
            taken, self.mine = self.mine, range(0)
            return taken
        self.over = self.counter.look() >= CLOSED
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
