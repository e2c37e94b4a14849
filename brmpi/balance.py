"""Shares anew from measured times while a program runs: who turns out to be slower gets less to do.

A program that can be shared out anew says so by ``busy``, the sections of its timers that are a rank's own work, and by
``lay_out(speeds)``. Its answer is the same for any shares, so that this only changes how long it takes.
"""

import numpy as np

from brmpi.results import pieces

DIFFERENCE = 0.1  # of the ranks' times, over the longest, from which they count as different
LOOKS = 4  # in a row with the same rank the slowest, before shares change; twice as many after each change
MOST = 64  # looks
FASTER = 5.0  # a speed changes by this factor at most


class Balance:
    """Watches a program's times. Its methods are collective.

    Parameters
    ----------
    program : as described in ``program``
    """

    def __init__(self, program):
        self.program, self.comm = program, program.comm
        self.on = (bool(getattr(program, "busy", ())) and self.comm.size > 1
                   and (program.case.shares, program.case.balance) == ("speed", "measured"))
        self.changes = []  # of shares: step and speeds
        self.looks = LOOKS
        self._begin()

    def _begin(self):
        self.slowest, self.count, self.start, self.last = None, 0, self._busy(), self._busy()

    def _busy(self):
        return sum(self.program.timers.seconds.get(section, 0.0) for section in getattr(self.program, "busy", ()))

    def __call__(self, step):
        """Look at the times since the last look, and share the work out anew where that pays. Collective.

        Parameters
        ----------
        step : int, steps taken

        Returns
        -------
        bool, whether shares have changed
        """
        if not self.on:
            return False
        now, spent = self._busy(), np.empty((self.comm.size, 2))
        self.comm.Allgather(np.array([now - self.last, now - self.start]), spent)
        self.last = now
        worst = spent[:, 0].argmax()
        if worst != self.slowest or not different(spent[:, 0]):
            self.slowest, self.count, self.start = worst, 0, self.last
            return False
        self.count += 1
        if self.count < self.looks:
            return False
        if changed := different(spent[:, 1]):
            with self.program.timers("balance"):
                speeds = adapted(self.program.speeds, spent[:, 1])
                move(self.program, speeds)
            self.changes.append({"step": step, "speeds": (speeds / speeds.sum()).round(4).tolist()})
            self.looks = min(2 * self.looks, MOST)
        self._begin()
        return changed


def different(spent):
    """Whether ranks need different times; those without work do not count.

    Parameters
    ----------
    spent : (ranks,) float64 >= 0 [s]

    Returns
    -------
    bool
    """
    spent = spent[spent > 0]
    return bool(spent.size > 1 and spent.max() - spent.min() > DIFFERENCE * spent.max())


def adapted(speeds, spent):
    """Speeds such that all would need the same time.

    Parameters
    ----------
    speeds : (ranks,) float64 > 0, that the work was shared out by
    spent : (ranks,) float64 >= 0, what it took [s]

    Returns
    -------
    (ranks,) float64, with the same sum over those that worked; the others' are as they were
    """
    worked = spent > 0
    found = np.array(speeds, np.float64)
    factor = spent[worked].mean() / spent[worked]
    found[worked] *= factor.clip(1 / FASTER, FASTER)
    found[worked] *= speeds[worked].sum() / found[worked].sum()
    return found


def move(program, speeds):
    """Share a program's work out by these speeds, its state with it. Collective.

    Parameters
    ----------
    program : with ``lay_out``
    speeds : (ranks,) float64 > 0
    """
    state = program.arrays()
    program.lay_out(speeds)
    program.restore(blocks(program, state))


def blocks(program, state):
    """The blocks of a state that this rank is to have, as ``restore`` takes them. Collective.

    Parameters
    ----------
    program : as described in ``program``
    state : dict of str to Piece, from its ``arrays``, perhaps under other shares

    Returns
    -------
    dict of str to array
    """
    return {name: pieces.moved(program.comm, piece, *program.block(name, piece.shape))
            for name, piece in state.items()}
