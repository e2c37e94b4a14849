"""A number in the first rank's memory that every rank adds to: by one-sided access, or else by messages.

Open MPI 4.1 has one-sided access within a host, and between hosts on networks that know it, but not over Ethernet.
Either way it is the first rank that holds the number; with messages it answers when it calls ``serve``.
"""

import numpy as np

CLOSED = 2**62  # past this nothing is to be taken
LOOK, CLOSE = 0, -1  # messages that are no numbers to add


def shared(comm, start):
    """A counter of all ranks. Collective.

    Parameters
    ----------
    comm : communicator
    start : int, on the root

    Returns
    -------
    OneSided or Messages
    """
    from mpi4py import MPI

    window = None
    try:
        window = MPI.Win.Allocate(8 if comm.rank == 0 else 0, 8, comm=comm)
    except MPI.Exception:
        window = None
    if comm.allreduce(window is not None, MPI.LAND):
        return OneSided(comm, window, start)
    return Messages(comm.Dup(), start)


class OneSided:
    """A counter that no rank has to wait for another to answer.

    Parameters
    ----------
    comm : communicator
    window : MPI.Win, of 8 bytes on the root
    start : int
    """

    def __init__(self, comm, window, start):
        from mpi4py import MPI

        self.window, self.sum, self.replace, self.look_at = window, MPI.SUM, MPI.REPLACE, MPI.NO_OP
        self.question, self.answer = np.zeros(1, np.int64), np.zeros(1, np.int64)
        if comm.rank == 0:
            np.frombuffer(window, np.int64)[0] = start
        comm.Barrier()
        window.Lock_all(MPI.MODE_NOCHECK)

    def ask(self, count):
        """Add to the number; ``result`` tells what it was.

        Parameters
        ----------
        count : int > 0
        """
        self.question[0] = count
        self.window.Fetch_and_op(self.question, self.answer, 0, 0, self.sum)

    def result(self):
        """What the number was before the last ``ask``.

        Returns
        -------
        int
        """
        self.window.Flush(0)
        return int(self.answer[0])

    def look(self):
        """What the number is.

        Returns
        -------
        int
        """
        self.window.Fetch_and_op(self.question, self.answer, 0, 0, self.look_at)
        return self.result()

    def close(self):
        """Set the number to ``CLOSED``."""
        self.question[0] = CLOSED
        self.window.Fetch_and_op(self.question, self.answer, 0, 0, self.replace)
        self.result()

    def serve(self):
        """Nothing: the number serves itself."""

    def free(self):
        """Give the window back. Collective."""
        self.window.Unlock_all()
        self.window.Free()


class Messages:
    """A counter that the root keeps for the others, and answers them about when it is free.

    Parameters
    ----------
    comm : communicator, the counter's own
    start : int, on the root
    """

    def __init__(self, comm, start):
        self.comm, self.number, self.sent = comm, start, []
        self.answer, self.awaited = np.zeros(1, np.int64), None

    def ask(self, count):
        """As ``OneSided.ask``.

        Parameters
        ----------
        count : int > 0
        """
        if self.comm.rank == 0:
            self.answer[0], self.number = self.number, self.number + count
            return
        self.awaited = self.comm.Irecv(self.answer, 0)
        self._send(count)

    def result(self):
        """As ``OneSided.result``."""
        if self.awaited is not None:
            self.awaited.Wait()
            self.awaited = None
        return int(self.answer[0])

    def look(self):
        """As ``OneSided.look``."""
        if self.comm.rank == 0:
            return self.number
        self.awaited = self.comm.Irecv(self.answer, 0)
        self._send(LOOK)
        return self.result()

    def close(self):
        """As ``OneSided.close``."""
        self.number = CLOSED
        if self.comm.rank:
            self._send(CLOSE)

    def serve(self):
        """Answer those who have asked. On the root."""
        from mpi4py import MPI

        status, asked = MPI.Status(), np.empty(1, np.int64)
        while self.comm.Iprobe(MPI.ANY_SOURCE, MPI.ANY_TAG, status):
            self.comm.Recv(asked, status.source)
            if asked[0] == CLOSE:
                self.number = CLOSED
                continue
            self._send_to(status.source, self.number)
            self.number += int(asked[0])

    def free(self):
        """Give the communicator back. Collective."""
        if self.comm.rank:
            for request, _ in self.sent:
                request.Wait()
        self.comm.Barrier()
        if self.comm.rank == 0:
            self.serve()  # a rank may have closed it after all others had
            for request, _ in self.sent:
                request.Wait()
        self.comm.Free()

    def _send(self, count):
        self._send_to(0, count)

    def _send_to(self, rank, number):
        """Send a number without waiting."""
        self.sent = [(request, buffer) for request, buffer in self.sent if not request.Test()]
        buffer = np.array([number], np.int64)
        self.sent.append((self.comm.Isend(buffer, rank), buffer))
