"""How fast each rank is, measured again and again while it works; nobody waits for that."""

import numpy as np

from brmpi import mpi

EVERY = 0.6  # seconds of work between two looks
LATER = 3  # steps after which a look is answered: nobody waits for who is a step behind
KEEP = 0.5  # of what was thought before
DRIFT = 1.1  # a rank without work is thought so much faster at each look
LEAST = 0.02  # of the mean speed: slower than that no rank is taken for


class Pace:
    """Speeds of all ranks, the same on every rank. Calls are collective, in the same order on all ranks.

    Parameters
    ----------
    comm : communicator
    speeds : (ranks,) float64 > 0, to begin with
    on : bool, whether they are measured; else they stay
    """

    def __init__(self, comm, speeds, on):
        self.speeds, self.on = np.asarray(speeds, float), on and comm.size > 1
        self.comm = comm.Dup() if self.on else comm
        self.next, self.steps, self.request = 1, 0, None
        self.mine = np.zeros(3)

    def __call__(self, count, seconds):
        """Take down a step of this rank.

        Parameters
        ----------
        count : int, samples
        seconds : float, that they took

        Returns
        -------
        (ranks,) float64 > 0, speeds to share the next step out by
        """
        if not self.on:
            return self.speeds
        self.mine += count, seconds, 1
        self.steps += 1
        if self.request is not None:
            if self.steps >= self.due:
                mpi.wait(self.request.Test)
                self._learn()
        elif self.steps >= self.next:
            self.request, self.due = mpi.Gathering(self.comm, self.mine), self.steps + LATER
            self.mine[:] = 0
        return self.speeds

    def close(self):
        """Take what is still under way, and give the communicator back. Collective."""
        if self.request is not None:
            mpi.wait(self.request.Test)
            self.request = None
        if self.on:
            self.comm.Free()
            self.on = False

    def _learn(self):
        """New speeds, of those who worked; the next look is when the slowest has worked long enough."""
        (counts, seconds, steps), self.request = self.request.every.T, None
        worked = (counts > 0) & (seconds > 0)
        if worked.any():
            found = self.speeds.copy()
            found[worked] = counts[worked] / seconds[worked]
            others = ~worked
            if others.any():  # in proportion, as was thought before; and some more, until they get something to show
                found[others] *= DRIFT * found[worked].sum() / self.speeds[worked].sum()
            before = self.speeds * found.sum() / self.speeds.sum()
            found = KEEP * before + (1 - KEEP) * found
            self.speeds = np.maximum(found, LEAST * found.mean())
        self.next = max(1, int(EVERY / max((seconds / np.maximum(steps, 1)).max(), 1e-6)))
        self.steps = 0
