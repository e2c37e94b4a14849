"""Sums between machines in two rounds of messages: each rank sums one part of a bucket, and sends it to all.

Fewer rounds than a ring has, with as many bytes: where machines are unequal and busy, each round waits for the slowest.
"""

from itertools import pairwise

import numpy as np

from brmpi import mpi, partition

MOST = 64  # ranks up to which each sends to each


class Direct:
    """The same interface as ``buckets.Plain``; sums are taken in the order of ranks.

    Parameters
    ----------
    comm : communicator
    flat : (n,) array; sums replace it
    buckets : list of slice

    Attributes
    ----------
    done : int, buckets of this step that are summed
    """

    head = 0  # elements of a message before its numbers

    def __init__(self, comm, flat, buckets):
        self.comm, self.flat, self.buckets = comm, flat, buckets
        self.back = comm.Dup() if comm.size > 1 else None  # the second messages' own order
        self.going, self.coming, self.done = [], [], 0

    def free(self):
        """Give the second communicator back. Collective."""
        if self.back is not None:
            self.back.Free()
            self.back = None

    def coded(self, values):
        """Numbers as they are sent.

        Parameters
        ----------
        values : (k,) array

        Returns
        -------
        (head + k,) array
        """
        return values

    def numbers(self, words):
        """What was sent, as numbers.

        Parameters
        ----------
        words : (head + k,) array

        Returns
        -------
        (k,) array
        """
        return words

    def begin(self, number):
        """As ``buckets.Plain.begin``.

        Parameters
        ----------
        number : as there
        """
        if number == 0:
            self.done = 0
        part, size = self.flat[self.buckets[number]], self.comm.size
        if size == 1:
            part[:] = self.numbers(self.coded(part))
            self.done += 1
            return
        counts = partition.equal(len(part), size)
        ends = partition.offsets(counts)
        sent = part if not self.head else np.concatenate([self.coded(part[a:b]) for a, b in pairwise(ends)])
        mine = int(counts[self.comm.rank]) + self.head
        got = np.empty((size, mine), sent.dtype)
        counts = counts + self.head
        starts = partition.offsets(counts)[:-1]
        kind = _kind(sent.dtype)
        request = self.comm.Ialltoallv([sent, counts, starts, kind],
                                       [got, np.full(size, mine), np.arange(size) * mine, kind])
        self.going.append((request, number, sent, got, counts, starts, kind))
        self.poll()

    def poll(self):
        """Let messages go on."""
        while self.going and self.going[0][0].Test():
            self._sum(*self.going.pop(0)[1:])
        while self.coming and self.coming[0][0].Test():
            self._put(*self.coming.pop(0)[1:])

    def _sum(self, number, sent, got, counts, starts, kind):
        """This rank's part, once all have sent theirs."""
        total = self.numbers(got[0])
        for row in got[1:]:
            total = np.add(total, self.numbers(row), out=total)
        mine = self.coded(total)
        every = self.flat[self.buckets[number]] if not self.head else np.empty(int(counts.sum()), mine.dtype)
        request = self.back.Iallgatherv([mine, kind], [every, counts, starts, kind])
        self.coming.append((request, number, mine, every, counts))

    def _put(self, number, mine, every, counts):
        """All parts, where their numbers belong."""
        if self.head:
            part, words, end = self.flat[self.buckets[number]], 0, 0
            for count in map(int, counts):
                part[end:end + count - self.head] = self.numbers(every[words:words + count])
                words, end = words + count, end + count - self.head
        self.done += 1

    def finish(self):
        """As ``buckets.Plain.finish``."""
        mpi.wait(lambda: self.poll() or not (self.going or self.coming))


def _kind(dtype):
    """What MPI calls a type."""
    from mpi4py import MPI

    return {"f4": MPI.FLOAT, "f8": MPI.DOUBLE, "i4": MPI.INT32_T, "i8": MPI.INT64_T, "u2": MPI.UINT16_T}[dtype.str[1:]]
