"""One flat vector in buckets, each summed over all ranks as soon as it and all before it are filled in.

An exchange is how one bucket is summed; those here send every number as it is, those in ``wires`` send fewer bytes.
"""

LEAST, MOST = 1 << 16, 25 << 20  # bytes of a bucket
LATENCIES = 10  # a bucket takes as long as so many latencies, at least


def size(link):
    """Bytes of a bucket, such that latencies are a small part of its time.

    Parameters
    ----------
    link : cost.Link

    Returns
    -------
    int
    """
    return int(min(max(LATENCIES * link.latency * link.bandwidth, LEAST), MOST))


def edges(ends, limit, itemsize):
    """Where buckets end.

    Parameters
    ----------
    ends : list of int, where a bucket may end, ascending; the last is the vector's end
    limit : int, bytes that a bucket is not to pass, unless one part does
    itemsize : int [bytes]

    Returns
    -------
    list of slice
    """
    found, start, last = [], 0, 0
    for end in ends:
        if (end - start) * itemsize > limit and last > start:
            found.append(slice(start, last))
            start = last
        last = end
    if last > start:
        found.append(slice(start, last))
    return found


class Plain:
    """Sums of numbers as they are, by ``MPI_Iallreduce``.

    Parameters
    ----------
    comm : communicator
    flat : (n,) array; sums replace it
    buckets : list of slice

    Attributes
    ----------
    done : int, buckets of this step that are summed
    """

    def __init__(self, comm, flat, buckets):
        self.comm, self.flat, self.buckets = comm, flat, buckets
        self.open, self.done = [], 0

    def begin(self, number):
        """Start to sum a bucket, for all but the last without waiting. Collective, in the order of buckets.

        Parameters
        ----------
        number : int
        """
        from mpi4py import MPI

        part = self.flat[self.buckets[number]]
        if number == 0:
            self.done = 0
        if self.comm.size == 1:
            self.done += 1
            return
        if number == len(self.buckets) - 1:  # nothing is left to be done meanwhile
            self.comm.Allreduce(MPI.IN_PLACE, part)
            self.finish()
        else:
            self.open.append(self.comm.Iallreduce(MPI.IN_PLACE, part))

    def poll(self):
        """Let messages go on."""
        while self.open and self.open[0].Test():
            self.open.pop(0)
            self.done += 1

    def finish(self):
        """Wait until all is summed. Collective."""
        for request in self.open:
            request.Wait()
        self.open, self.done = [], len(self.buckets)
