"""Sums over ranks of one machine in memory that they share, and between machines by one rank of each.

Each rank's vector lies where the others of its machine see it. As soon as all have filled a bucket, each of them sums
its own part of it, in the order of ranks, and writes the sum to all; nobody copies anything before. A rank says how far
it has come in a number of its own, which only it writes. Between machines the first rank of each sums on, by MPI.
"""

import numpy as np

from brmpi import mpi, partition

LINE = 64  # bytes between two ranks' numbers: a cache line each
CHUNK = 1 << 14  # elements that stay in a cache while they are summed
FILLED, SUMMED, WHOLE, COPIED = range(4)


class Memory:
    """One vector a rank, seen by all ranks of its machine. Collective to make and to ``free``.

    Parameters
    ----------
    comm : communicator
    count : int, elements
    dtype : of them

    Attributes
    ----------
    node : communicator of this machine's ranks
    leaders : communicator of the machines' first ranks; None on others
    flat : (count,) array, this rank's
    every : list of (count,) array, those of this machine's ranks
    marks : (ranks here, 4) int64, how far each has come
    """

    def __init__(self, comm, count, dtype):
        from mpi4py import MPI

        dtype = np.dtype(dtype)
        self.node = comm.Split_type(MPI.COMM_TYPE_SHARED)
        leaders = comm.Split(0 if self.node.rank == 0 else MPI.UNDEFINED)
        self.leaders = None if leaders == MPI.COMM_NULL else leaders
        size = -(-count * dtype.itemsize // LINE) * LINE
        self.window = MPI.Win.Allocate_shared(size + LINE, 1, comm=self.node)
        self.every, marks = [], []
        for rank in range(self.node.size):
            memory = np.frombuffer(self.window.Shared_query(rank)[0], np.uint8, size + LINE)
            marks.append(memory[:LINE].view(np.int64)[:4])
            self.every.append(memory[LINE:LINE + count * dtype.itemsize].view(dtype))
        self.marks, self.flat = marks, self.every[self.node.rank]
        self.flat[:] = 0
        marks[self.node.rank][:] = 0
        self.window.Lock_all()
        self.window.Sync()
        self.node.Barrier()

    def least(self, what):
        """How far the last of this machine's ranks has come.

        Parameters
        ----------
        what : FILLED, SUMMED, WHOLE or COPIED

        Returns
        -------
        int
        """
        return min(int(mark[what]) for mark in self.marks)

    def free(self):
        """Give the memory back: nobody may use the vectors any more. Collective."""
        self.window.Unlock_all()
        self.every = self.marks = self.flat = None
        self.window.Free()
        self.node.Free()
        if self.leaders is not None:
            self.leaders.Free()


class Shared:
    """Sums of numbers as they are; the same interface as ``buckets.Plain``.

    Parameters
    ----------
    memory : Memory; sums replace its vectors
    buckets : list of slice
    machines : int
    far : callable of communicator, vector and buckets: what sums between machines
    """

    def __init__(self, memory, buckets, machines, far):
        self.memory, self.buckets, self.machines = memory, buckets, machines
        self.size, self.rank = memory.node.size, memory.node.rank
        self.step = self.filled = self.summed = self.sent = self.copied = 0
        self.far = far(memory.leaders, memory.flat, buckets) if machines > 1 and self.rank == 0 else None

    def free(self):
        """Give the messages' communicator back."""
        if hasattr(self.far, "free"):
            self.far.free()

    def begin(self, number):
        """Say that a bucket is filled. In the order of buckets.

        Parameters
        ----------
        number : int
        """
        if number == 0:
            self.filled = self.summed = self.sent = self.copied = 0
            self.step += 1
        self.filled = number + 1
        self._mark(FILLED, number)
        self.poll()

    def _mark(self, what, number):
        """Say how far this rank has come, after all that it wrote can be seen."""
        self.memory.window.Sync()
        self.memory.marks[self.rank][what] = self._ticket(number)

    def _ticket(self, number):
        return (self.step - 1) * len(self.buckets) + number + 1

    def _came(self, what, number):
        """Whether all ranks here have come as far; what they wrote can be read then."""
        if self.memory.least(what) < self._ticket(number):
            return False
        self.memory.window.Sync()
        return True

    def poll(self):
        """Do what can be done without waiting."""
        while self.summed < self.filled and self._came(FILLED, self.summed):
            self._sum(self.buckets[self.summed])
            self._mark(SUMMED, self.summed)
            self.summed += 1
        if self.machines > 1:
            self._between()

    def _sum(self, bucket):
        """This rank's part of a bucket."""
        ends = partition.offsets(partition.equal(bucket.stop - bucket.start, self.size)) + bucket.start
        every, (first, last) = self.memory.every, ends[self.rank:self.rank + 2]
        targets = every if self.machines == 1 else every[:1]
        for start in range(int(first), int(last), CHUNK):
            part = slice(start, min(start + CHUNK, int(last)))
            total = every[0][part] + every[1][part] if self.size > 1 else every[0][part]
            for other in every[2:]:
                total += other[part]
            for target in targets:
                target[part] = total

    def _between(self):
        """Between machines: the first rank of each sends what all here have summed; the others copy what came."""
        memory = self.memory
        if self.rank == 0:
            while self.sent < self.summed and self._came(SUMMED, self.sent):
                self.far.begin(self.sent)
                self.sent += 1
            self.far.poll()
            while self.copied < min(self.sent, self.far.done):
                self._mark(WHOLE, self.copied)
                self.copied += 1
            return
        while self.copied < self.summed and int(memory.marks[0][WHOLE]) >= self._ticket(self.copied):
            memory.window.Sync()
            memory.flat[self.buckets[self.copied]] = memory.every[0][self.buckets[self.copied]]
            self.copied += 1

    def finish(self):
        """Wait until all is summed."""
        last = len(self.buckets) - 1
        if last < 0:
            return
        if self.machines == 1:
            mpi.wait(lambda: self.poll() or self._came(SUMMED, last))
            return
        mpi.wait(lambda: self.poll() or self.copied > last)
        self._mark(COPIED, last)
        if self.rank == 0:  # whose vector the others copy from
            mpi.wait(lambda: self._came(COPIED, last))
