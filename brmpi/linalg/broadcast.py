"""A broadcast of large buffers that goes on while other work is done: in segments, along a chain of ranks.

Every rank receives the buffer once and sends it on once, so all links are busy at the same time, whatever the
number of ranks; the first in the chain after the root, which needs it first, has it first. Messages move only while
MPI is called: who computes in between calls ``poll`` every few milliseconds.
"""

import time

import numpy as np

SEGMENT = 1 << 18  # bytes
# A wait that lasts leaves the core to others; and a node that is held to a part of a core spends that part by spinning.
SPIN = 2e-4  # s
NAP = 1e-4  # s


class Broadcast:
    """One buffer from a root to all ranks of a communicator. Collective: all begin them in the same order.

    Parameters
    ----------
    comm : communicator
    buffer : contiguous ndarray, in either order: the root's is sent, the others' filled
    chain : sequence of ranks, the root first; those not in it have no part
    tag : int, of the messages: broadcasts under way at the same time on a communicator have different ones
    segment : int, bytes
    """

    def __init__(self, comm, buffer, chain, tag=0, segment=SEGMENT):
        self.comm, self.tag = comm, tag
        flat = np.frombuffer(buffer.T if buffer.flags.f_contiguous and not buffer.flags.c_contiguous else buffer,
                             dtype=np.uint8) if buffer.size else np.empty(0, np.uint8)
        self.parts = [flat[at: at + segment] for at in range(0, len(flat), segment)]
        place = chain.index(comm.rank) if comm.rank in chain else None
        self.next = chain[place + 1] if place is not None and place + 1 < len(chain) else None
        self.coming, self.going, self.arrived = [], [], 0
        if place is None:
            self.parts = []
        elif place:
            self.coming = [comm.Irecv(part, chain[place - 1], tag) for part in self.parts]
        else:
            self.arrived = len(self.parts)
            if self.next is not None:
                self.going = [comm.Isend(part, self.next, tag) for part in self.parts]

    def here(self):
        """Send on what has come, and tell whether the whole buffer has.

        Returns
        -------
        bool
        """
        while self.arrived < len(self.parts) and self.coming[self.arrived].Test():
            if self.next is not None:
                self.going.append(self.comm.Isend(self.parts[self.arrived], self.next, self.tag))
            self.arrived += 1
        return self.arrived == len(self.parts)

    def poll(self):
        """Send on what has come, and tell whether this rank has no more to do for this buffer.

        Returns
        -------
        bool
        """
        if not self.here():
            return False
        while self.going and self.going[0].Test():
            self.going.pop(0)
        return not self.going

    def wait(self):
        """Until the whole buffer is here."""
        patiently(self.here)

    def finish(self):
        """Until this rank has no more to do: the buffer may be changed."""
        patiently(self.poll)


def patiently(done):
    """Call a function until it says True; a wait that lasts leaves the core, which others may need.

    Parameters
    ----------
    done : callable, returning bool
    """
    end = None
    while not done():
        now = time.perf_counter()
        end = end or now + SPIN
        if now > end:
            time.sleep(NAP)
