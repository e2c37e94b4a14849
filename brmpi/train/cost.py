"""What a step's communication takes: latency and bandwidth as measured, a prediction for each method, and a choice."""

import time
from dataclasses import dataclass

import numpy as np

SMALL, LARGE = 2, 1 << 18  # float32s that the two are measured with
REPEATS = 5
SMALL_ENOUGH = 0.05  # of a step's computing, below which a method that loses nothing is taken
HALF_RATE = 2e8  # numbers a second that are coded and decoded in 16 bits


@dataclass(frozen=True)
class Link:
    """How long an all-reduce of n bytes takes: ``latency + n / bandwidth``.

    Attributes
    ----------
    latency : float [s]
    bandwidth : float [bytes/s]
    """

    latency: float
    bandwidth: float

    def seconds(self, size, messages=1):
        """Time of an all-reduce.

        Parameters
        ----------
        size : float [bytes]
        messages : int, that it is cut into

        Returns
        -------
        float [s]
        """
        return messages * self.latency + size / self.bandwidth


ALONE = Link(0.0, 1e15)  # one rank sends nothing


def measured(comm):
    """Latency and bandwidth of an all-reduce over these ranks. Collective; takes some milliseconds on a switch.

    Parameters
    ----------
    comm : communicator

    Returns
    -------
    Link, the same on every rank: of the fastest of a few repeats
    """
    from mpi4py import MPI

    if comm.size == 1:
        return ALONE
    from brmpi.train.place import Place

    best = []
    for count in (SMALL, LARGE):
        place, times = Place(comm, count, np.float32), []
        sums = place.sums([slice(0, count)])
        for _ in range(REPEATS):
            comm.Barrier()
            begin = time.perf_counter()
            sums.begin(0)
            sums.finish()
            times.append(comm.allreduce(time.perf_counter() - begin, MPI.MAX))
        place.free()
        best.append(min(times[1:]))
    spent = max(best[1] - best[0], 1e-9)
    return Link(best[0], 4 * (LARGE - SMALL) / spent)


def predicted(link, method, count, itemsize, messages, ranks, sent=None, fraction=0.01, every=1):
    """Communication of a step, if nothing else is done meanwhile.

    Parameters
    ----------
    link : Link
    method : one of ``allreduce.METHODS``
    count : int, numbers in the gradient
    itemsize : int [bytes], of each
    messages : int, buckets
    ranks : int
    sent : int, numbers that powersgd sends
    fraction : float, of topk's numbers
    every : int, local steps between two exchanges

    Returns
    -------
    float [s]
    """
    if ranks == 1:
        return 0.0
    size = count * itemsize
    if method in ("float16", "bfloat16"):
        return link.seconds(2 * count, 2 * messages) + count / HALF_RATE
    if method == "topk":  # an all-gather has half of an all-reduce's rounds, but every rank's numbers are sent
        return link.seconds(fraction * count * (4 + itemsize) * ranks / 2, messages)
    if method == "powersgd":
        return link.seconds((count if sent is None else sent) * itemsize, 2)
    if method == "local":
        return link.seconds(size) / every
    return link.seconds(size, messages) + (link.latency if method == "fixed" else 0.0)


def choose(costs, compute):
    """A method: one that loses nothing, if that is cheap beside the computing, else the cheapest of all.

    Parameters
    ----------
    costs : dict of method to float [s], in the order of preference
    compute : float [s], computing of a step

    Returns
    -------
    str
    """
    for method in ("fixed", "plain"):
        if method in costs and costs[method] <= SMALL_ENOUGH * compute:
            return method
    return min(costs, key=costs.get)
