"""Where a vector lies that is to be summed over all ranks, and the way to sum it that fits the machines."""

import numpy as np

from brmpi.train.buckets import Plain
from brmpi.train.direct import MOST, Direct
from brmpi.train.shared import Memory, Shared


class Place:
    """A vector of each rank, and what sums them. Collective to make and to ``free``.

    Parameters
    ----------
    comm : communicator
    count : int
    dtype : float32, float64, int32 or int64

    Attributes
    ----------
    vector : (count,) array, zeros at first; in memory that the ranks of a machine share, if there are several
    machines : int
    """

    def __init__(self, comm, count, dtype):
        self.comm, self.memory, self.machines, self.made = comm, None, 1, []
        most = 1
        if comm.size > 1:
            from mpi4py import MPI

            node = comm.Split_type(MPI.COMM_TYPE_SHARED)
            most = comm.allreduce(node.size, MPI.MAX)
            self.machines = comm.allreduce(int(node.rank == 0))
            node.Free()
        if most > 1:
            self.memory = Memory(comm, count, dtype)
        self.vector = self.memory.flat if self.memory else np.zeros(count, dtype)

    def sums(self, buckets):
        """What sums the vector. Collective.

        Parameters
        ----------
        buckets : list of slice

        Returns
        -------
        with ``begin(number)``, ``poll()`` and ``finish()``, as ``buckets.Plain`` has them
        """
        far = Direct if 1 < self.machines <= MOST else Plain
        made = Shared(self.memory, buckets, self.machines, far) if self.memory else far(self.comm, self.vector, buckets)
        self.made.append(made)
        return made

    def free(self):
        """Give memory and communicators back; the vector may not be used any more. Collective."""
        for made in self.made:
            if hasattr(made, "free"):
                made.free()
        if self.memory:
            self.memory.free()
        self.vector = self.memory = None
