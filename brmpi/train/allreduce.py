"""Gradients averaged over all ranks, weighted by samples, while the backward pass is still under way."""

import time

import numpy as np

from brmpi.streams import Stream
from brmpi.train import buckets, cost, wires
from brmpi.train.fixed import Fixed
from brmpi.train.nets import layout, views
from brmpi.train.place import Place

METHODS = ("fixed", "plain", *wires.HALVES, "topk", "powersgd", "local")


class GradientAllreduce:
    """The average of gradients over all ranks. Its constructor, ``finish`` and ``average`` are collective.

    Gradients go to ``gradients``, one array a parameter, in any order but best from the last parameter to the first;
    ``ready`` says that one is there. A bucket of them is on its way as soon as all of it is ready:

        reduce = GradientAllreduce(comm, parameters)
        reduce.start(samples=len(x))
        for i in reversed(range(len(parameters))):
            reduce.gradients[i][...] = …        # mean over this rank's samples
            reduce.ready(i)
        reduce.finish()                         # reduce.gradients hold the mean over all ranks' samples

    Parameters
    ----------
    comm : communicator
    parameters : sequence of array, float32 or all float64: only their shapes and type count
    method : "plain", numbers as they are; "fixed", same bits on any number of ranks (if micro-batches are the same:
        each is one ``ready`` of each parameter); "float16" or "bfloat16", half the bytes; "topk", the largest numbers
        with error feedback; "powersgd", matrices of low rank with error feedback
    bucket : int, bytes of a bucket; by latency and bandwidth of ``link``, if 0
    link : cost.Link, as measured; measured now, if None and a bucket's size depends on it
    fraction : float, of topk's numbers that are sent
    rank : int, of powersgd's matrices
    seed : int, of powersgd's first matrices

    Attributes
    ----------
    flat : (n,) array, all gradients, the last parameter's first
    gradients : list of array, views of it
    seconds : float, that calls of this rank took for communication, in all
    """

    def __init__(self, comm, parameters, method="plain", bucket=0, link=None, fraction=0.01, rank=4, seed=0):
        if method not in METHODS[:-1]:
            raise ValueError(f"method = {method!r}: known are {', '.join(METHODS[:-1])}")
        kinds = {np.dtype(one.dtype) for one in parameters}
        if len(kinds) != 1 or not kinds <= {np.dtype("f4"), np.dtype("f8")}:
            raise ValueError(f"parameters are {', '.join(sorted(map(str, kinds))) or 'none'}: must be all float32 or "
                             "all float64")
        self.comm, self.method, self.exact = comm, method, method == "fixed"
        self.shapes = [one.shape for one in parameters]
        self.places, total = layout(self.shapes)
        dtype = kinds.pop()
        self.place = Place(comm, total, dtype) if method == "plain" else None
        self.flat = self.place.vector if self.place else np.zeros(total, dtype)
        self.gradients = views(self.flat, self.shapes)
        if not bucket:
            link = link or (cost.measured(comm) if comm.size > 1 else cost.ALONE)
            bucket = buckets.size(link)
        self.buckets = buckets.edges([place.stop for place in self.places[::-1]], bucket, self.flat.itemsize)
        self.exchange = self._exchange(fraction, rank, seed)
        self.held = None  # sums of several parts, where numbers are sent as floats
        self.seconds, self.open = 0.0, False
        self.guess = np.array([float(comm.size)])  # samples of a step: those of the last one, most times
        self.follow = sorted(range(len(self.places)), key=lambda i: self.places[i].start)

    def _exchange(self, fraction, rank, seed):
        comm, flat = self.comm, self.flat
        if self.exact:
            self.place = Place(comm, len(flat), f"i{flat.itemsize}")
            return Fixed(comm, flat, self.places, self.place.vector, self.place.sums(self.buckets))
        if self.method in wires.HALVES:
            return wires.Half(comm, flat, self.buckets, self.method)
        if self.method == "topk":
            return wires.Top(comm, flat, self.buckets, fraction)
        if self.method == "powersgd":
            return wires.Power(comm, flat, self.shapes, self.places, rank, Stream(seed, "powersgd").normal)
        return self.place.sums(self.buckets)

    def free(self):
        """Give shared memory and communicators back; gradients may not be used any more. Collective."""
        for thing in (self.exchange, self.place):
            if hasattr(thing, "free"):
                thing.free()
        self.place = self.exchange = self.flat = self.gradients = None

    def start(self, samples=None, total=None, parts=1, whole=1, scale=1.0):
        """Begin a step, without waiting for anybody. To be called by all ranks.

        Parameters
        ----------
        samples : int, of this rank, whose gradients are means; None where they are parts of what is to be summed. A
            rank without samples has no gradients, and is not to say that one is ready
        total : int, samples of all ranks; found out meanwhile, if None
        parts : int, how many gradients of each parameter this rank will be ready with; they are added up
        whole : int, parts of all ranks; only "fixed" asks for it
        scale : float, that the sums are multiplied by at the end
        """
        if self.open:
            raise RuntimeError("start: the step before is not finished")
        self.counted = self.counting = None
        self.weight, self.scale, self.parts = 1.0, scale, parts
        if samples is not None:
            whole = max(whole, self.comm.size)
            self.parts = parts if samples else 0
            self.guess[0] = total or self.guess[0]
            if total is None:
                self.counted = np.array([samples], np.float64)
                if self.comm.size > 1:
                    self.counting = self.comm.Iallreduce(_in_place(), self.counted)
            self.weight = samples / self.guess[0]
        if self.exact and whole < self.parts:
            raise ValueError(f"start: whole = {whole}: must be the parts of all ranks, and this one has {self.parts}")
        self.left = [self.parts] * len(self.places)
        self.open, self.next, self.there = True, 0, 0
        if self.exact:
            self.exchange.start(whole)
        elif self.parts > 1:
            self.held = np.zeros_like(self.flat) if self.held is None else self.held
            self.held[:] = 0
        if not self.parts:
            self.flat[:] = 0

    def ready(self, number):
        """A part of a parameter's gradient is there; sends what can be sent.

        Parameters
        ----------
        number : int, of the parameter
        """
        values = self.gradients[number]
        if self.left[number] <= 0:
            raise RuntimeError(f"ready({number}): this gradient was ready {self.parts} times already")
        self.left[number] -= 1
        if self.weight != 1.0:
            values *= values.dtype.type(self.weight)
        if self.exact:
            self.exchange.add(number, values)
        elif self.parts > 1:
            held = self.held[self.places[number]]
            held += values.reshape(-1)
            if not self.left[number]:
                self.flat[self.places[number]] = held
        if not self.left[number]:
            self._send()

    def _send(self):
        """Start the buckets that are complete, but for the last, which has the time of nothing."""
        begin = time.perf_counter()
        while self.there < len(self.follow) and self.left[self.follow[self.there]] == 0:
            self.there += 1
        end = self.places[self.follow[self.there - 1]].stop if self.there else 0
        exchange = self.exchange.exchange if self.exact else self.exchange
        while self.next < len(self.buckets) - 1 and self.buckets[self.next].stop <= end:
            exchange.begin(self.next)
            self.next += 1
        exchange.poll()
        self.seconds += time.perf_counter() - begin

    def finish(self):
        """Wait until all is summed; ``gradients`` hold the average then. Collective.

        Returns
        -------
        bool; False only where "fixed" had no room for a number, and the step is to be done again from ``start``
        """
        if not self.open:
            raise RuntimeError("finish: no step was started")
        if any(self.left):
            raise RuntimeError(f"finish: gradients {[i for i, left in enumerate(self.left) if left]} are not ready")
        begin, off = time.perf_counter(), 1.0
        if self.counting is not None:
            self.counting.Wait()
        if self.counted is not None:
            total = self.counted[0] or self.guess[0]  # nobody had a sample: nothing is new
            off = self.guess[0] / total
            self.guess[0] = total
            self.scale *= off
        exchange = self.exchange.exchange if self.exact else self.exchange
        while self.next < len(self.buckets):
            exchange.begin(self.next)
            self.next += 1
        if self.exact:
            fits = self.exchange.finish(self.scale)
        else:
            self.exchange.finish()
            fits = True
            if self.scale != 1.0:
                self.flat *= self.flat.dtype.type(self.scale)
            if off != 1.0 and hasattr(self.exchange, "left"):  # what was left out had the same weight
                self.exchange.left *= self.flat.dtype.type(off)
        self.open = False
        self.seconds += time.perf_counter() - begin
        return fits

    def again(self):
        """Do a step again that had no room, while ``gradients`` hold what this rank was ready with. Collective."""
        alone = self.parts == 0
        self.start(parts=0 if alone else 1, whole=self.comm.size, scale=self.scale)
        if not alone:
            for number in self.follow:
                self.ready(number)
        return self.finish()

    def average(self, gradients, samples):
        """The average of gradients that are all there, weighted by samples. Collective.

        Parameters
        ----------
        gradients : sequence of array, means over this rank's samples; ignored where ``samples`` is 0
        samples : int >= 0

        Returns
        -------
        list of array, views that the next call fills anew
        """
        self.start(samples)
        if samples:
            for i in reversed(range(len(self.gradients))):
                self.gradients[i][...] = gradients[i]
                self.ready(i)
        if not self.finish():
            self.again()
        return self.gradients

    def state(self):
        """What the next step needs of the last one, to go on from to the same bits.

        Returns
        -------
        shared : dict of str to array, the same on all ranks
        own : dict of str to array, each rank's; their sum over ranks is what matters
        """
        shared = {"samples": self.guess}
        if self.exact:
            return shared | {"largest": self.exchange.largest}, {}
        if self.method == "powersgd":
            return shared | {"right": self.exchange.right}, {"left": self.exchange.left}
        return shared, {"left": self.exchange.left} if self.method == "topk" else {}


def _in_place():
    from mpi4py import MPI

    return MPI.IN_PLACE
