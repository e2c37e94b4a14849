"""A sum of large buffers that goes on while other work is done: in segments, along a chain of ranks.

The mirror of ``broadcast``: every rank receives a partial sum once, adds its own and sends it on once. The order of
the terms is that of the chain, so the sum is the same bits every time.
"""

import numpy as np

from brmpi.linalg.broadcast import SEGMENT

AHEAD = 4  # segments that are received before they are needed


class Reduction:
    """The sum of one buffer a rank, at the end of a chain. Collective: all begin them in the same order.

    Parameters
    ----------
    comm : communicator
    buffer : (n,) ndarray, contiguous; becomes the sum of those up to this rank in the chain
    chain : sequence of ranks, the one that gets the sum last; those not in it have no part
    tag : int, of the messages: sums under way at the same time on a communicator have different ones
    segment : int, bytes
    """

    def __init__(self, comm, buffer, chain, tag=0, segment=SEGMENT):
        self.comm, self.tag = comm, tag
        place = chain.index(comm.rank) if comm.rank in chain else None
        length = max(segment // buffer.itemsize, 1)
        self.parts = [] if place is None else [buffer[at: at + length] for at in range(0, len(buffer), length)]
        self.previous = chain[place - 1] if place else None
        self.next = chain[place + 1] if place is not None and place + 1 < len(chain) else None
        self.coming, self.going, self.summed = [], [], 0
        if self.previous is None:
            self.summed = len(self.parts)
            if self.next is not None:
                self.going = [comm.Isend(part, self.next, tag) for part in self.parts]
        else:
            self.scratch = [np.empty_like(part) for part in self.parts[:AHEAD]]
            for _ in self.scratch:
                self._expect()

    def _expect(self):
        at = len(self.coming)
        into = self.scratch[at % AHEAD][: len(self.parts[at])]
        self.coming.append(self.comm.Irecv(into, self.previous, self.tag))

    def here(self):
        """Add what has come, send it on, and tell whether this rank's sum is complete.

        Returns
        -------
        bool
        """
        while self.summed < len(self.parts) and self.coming[self.summed].Test():
            part = self.parts[self.summed]
            np.add(self.scratch[self.summed % AHEAD][: len(part)], part, out=part)
            if self.next is not None:
                self.going.append(self.comm.Isend(part, self.next, self.tag))
            self.summed += 1
            if len(self.coming) < len(self.parts):
                self._expect()
        return self.summed == len(self.parts)

    def poll(self):
        """Add and send on what has come, and tell whether this rank has no more to do.

        Returns
        -------
        bool
        """
        if not self.here():
            return False
        while self.going and self.going[0].Test():
            self.going.pop(0)
        return not self.going
