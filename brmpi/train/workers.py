"""Batches of samples to ranks and answers back, by who will be done first: what a server's root and its ranks say.

The root never waits: it looks at its messages now and then. A rank sleeps between looks while it has nothing to do.
"""

import time
from collections import deque

import numpy as np

from brmpi.errors import Fault

BATCH, ANSWER = 7401, 7402  # tags
NAP = 5e-4  # seconds between looks of a rank that was busy a moment ago
LONG_NAP = 4e-3  # and of one that was not
AWAKE = 1.0  # seconds that a rank is thought to be busy
KEEP = 0.8  # of a rank's measured speed is what it was before


def work(comm, net):
    """Classify what the root sends, until it sends nothing. On every rank but the root.

    Parameters
    ----------
    comm : communicator
    net : model.Model
    """
    from mpi4py import MPI

    status, busy, gone = MPI.Status(), 0.0, deque()
    while True:
        while gone and gone[0][0].Test():
            gone.popleft()
        if not comm.Iprobe(0, BATCH, status):
            time.sleep(NAP if time.monotonic() - busy < AWAKE else LONG_NAP)
            continue
        letter = np.empty(status.Get_count(MPI.DOUBLE))
        comm.Recv(letter, 0, BATCH)
        if not letter.size:  # the root takes what is still to be sent
            for request, _ in gone:
                request.Wait()
            return
        begin = time.perf_counter()
        found = net.probabilities(letter[1:].reshape(-1, *net.shape))
        seconds = time.perf_counter() - begin
        answer = np.concatenate([[letter[0], seconds], found.ravel()])
        gone.append((comm.Isend(answer, 0, ANSWER), answer))
        busy = time.monotonic()


class Batch:
    """Samples that are with a rank.

    Parameters
    ----------
    number : int
    count : int, samples
    request : of the message, and its buffer; None where the root has them

    Attributes
    ----------
    sent : float [s], by the monotonic clock
    """

    def __init__(self, number, count, request):
        self.number, self.count, self.request, self.sent = number, count, request, time.monotonic()


class Crew:
    """The ranks, as the root sees them. Without others the root classifies by itself.

    Parameters
    ----------
    comm : communicator
    net : model.Model
    speeds : (ranks,) float64, samples/s or in proportion to it; measured anew with each answer
    patience : float, after which a rank that does not answer is given up [s]

    Attributes
    ----------
    speeds : list of float [samples/s]
    samples : list of int, that each has classified
    lost : dict of rank to str, why it gets nothing any more
    """

    def __init__(self, comm, net, speeds, patience):
        self.comm, self.net, self.patience = comm, net, patience
        self.known, self.speeds = list(map(float, speeds)), list(map(float, speeds))
        self.measured = [False] * comm.size
        self.samples, self.lost, self.number = [0] * comm.size, {}, 0
        self.waiting = [deque() for _ in range(comm.size)]
        self.heard = [0.0] * comm.size  # when each last answered
        self.late = []  # messages to ranks that were given up, which may still be read

    def left(self):
        """Ranks that classify.

        Returns
        -------
        list of int
        """
        return [0] if self.comm.size == 1 else [r for r in range(1, self.comm.size) if r not in self.lost]

    def under_way(self):
        """Batches that are with ranks.

        Returns
        -------
        int
        """
        return sum(map(len, self.waiting))

    def first_free(self, most):
        """The rank that would be done first with one more sample, and has fewer than ``most`` batches.

        Parameters
        ----------
        most : int

        Returns
        -------
        int, or None
        """
        free = [rank for rank in self.left() if len(self.waiting[rank]) < most]
        return min(free, default=None,
                   key=lambda rank: (sum(batch.count for batch in self.waiting[rank]) + 1) / self.speeds[rank])

    def send(self, rank, inputs):
        """Hand a batch to a rank.

        Parameters
        ----------
        rank : int
        inputs : (n, …) array

        Returns
        -------
        int, number of the batch
        """
        self.number += 1
        request = None
        if rank:
            letter = np.concatenate([[self.number], inputs.ravel()]).astype(float)
            request = self.comm.Isend(letter, rank, BATCH), letter
        self.waiting[rank].append(Batch(self.number, len(inputs), request))
        return self.number

    def answers(self):
        """Answers that have come.

        Yields
        ------
        number : int, of the batch
        probabilities : (n, classes) array
        """
        from mpi4py import MPI

        status = MPI.Status()
        while self.comm.Iprobe(MPI.ANY_SOURCE, ANSWER, status):
            letter = np.empty(status.Get_count(MPI.DOUBLE))
            self.comm.Recv(letter, status.source, ANSWER)
            found = letter[2:].reshape(-1, len(self.net.classes))
            self.heard[status.source] = time.monotonic()
            self.lost.pop(status.source, None)  # it came back
            for batch in [one for one in self.waiting[status.source] if one.number == int(letter[0])]:
                self.waiting[status.source].remove(batch)
                batch.request[0].Wait()
                self._note(status.source, batch.count, letter[1])
                yield batch.number, found

    def _note(self, rank, count, seconds):
        """Take down how fast a rank was."""
        self.samples[rank] += count
        speed = count / max(seconds, 1e-9)
        self.speeds[rank] = KEEP * self.speeds[rank] + (1 - KEEP) * speed if self.measured[rank] else speed
        self.measured[rank] = True
        for other, known in enumerate(self.known):  # who was not measured yet is as fast as the probes let expect
            if not self.measured[other]:
                self.speeds[other] = known * self.speeds[rank] / self.known[rank]

    def own(self, number, inputs):
        """Classify by the root itself.

        Parameters
        ----------
        number : int, of the batch, from ``send``
        inputs : (n, …) array

        Returns
        -------
        (n, classes) array
        """
        begin = time.perf_counter()
        found = self.net.probabilities(inputs)
        self._note(0, len(inputs), time.perf_counter() - begin)
        self.waiting[0] = deque(one for one in self.waiting[0] if one.number != number)
        return found

    def given_up(self):
        """Batches of ranks that have not answered for long; those ranks get nothing any more, until they answer.

        Returns
        -------
        list of (int, str): number of the batch, and why
        """
        found, now = [], time.monotonic()
        self.late = [message for message in self.late if not message[0].Test()]
        for rank in range(1, self.comm.size):
            waiting = self.waiting[rank]
            if waiting and now - max(waiting[0].sent, self.heard[rank]) > self.patience:
                why = f"rank {rank} has not answered for {self.patience:g} s"
                self.lost[rank] = why
                found += [(batch.number, why) for batch in waiting]
                self.late += [batch.request for batch in waiting]
                self.waiting[rank] = deque()
        return found

    def dismiss(self):
        """Tell all ranks that there is nothing more, and take the answers that are still on their way.

        Raises
        ------
        Fault : ranks that do not answer
        """
        for rank in range(1, self.comm.size):
            self.comm.Isend(np.empty(0), rank, BATCH).Free()
        end = time.monotonic() + self.patience
        while self.lost or self.under_way():
            for _ in self.answers():
                pass
            if time.monotonic() > end:
                silent = sorted({*self.lost, *(rank for rank, waiting in enumerate(self.waiting) if waiting)})
                raise Fault(f"serve: rank {', '.join(map(str, silent))} did not answer: it may still be running")
            time.sleep(NAP)
