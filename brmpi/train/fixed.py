"""Gradients as whole multiples of powers of two: their sums are the same bits on any number of ranks and in any order.

A gradient is a sum over micro-batches. Each is rounded to multiples of a power of two, one for each parameter, and
added up in integers, which no order changes; they take as many bytes as the floats would. The power follows the largest
number of the step before, eight times of which there is room for. Where a number has grown more than that, or at the
first step, no bit is lost: the step is done again with the right one. For float32 and k micro-batches a step,
27 - log2(k) bits are left below the largest number of a parameter's gradient: 20 at 128, 17 at 1024.
"""

import numpy as np

from brmpi import mpi
from brmpi.kernels import fixedpoint

ROOM = 8  # times as large as in the step before may a number be
DIGITS = {4: 31, 8: 62}  # bits of a sum; float64's rounding cannot use more


class Fixed:
    """Sums of gradients in integers.

    Parameters
    ----------
    comm : communicator
    flat : (n,) float32 or float64, where sums are put
    places : list of slice, of each parameter
    sums : (n,) int32 or int64, as wide as the floats
    exchange : what sums them over ranks, such as ``buckets.Plain``

    Attributes
    ----------
    largest : (parameters,) float64, largest number of the last step's micro-batches; 0 where it is not known
    """

    def __init__(self, comm, flat, places, sums, exchange):
        self.comm, self.flat, self.places, self.sums, self.exchange = comm, flat, places, sums, exchange
        self.largest = np.zeros(len(places))

    def start(self, parts):
        """Begin with nothing.

        Parameters
        ----------
        parts : int, micro-batches of all ranks
        """
        self.limit = 2.0 ** (DIGITS[self.flat.itemsize] - 1) / max(parts, 1)
        self.seen = np.zeros(len(self.places))
        with np.errstate(divide="ignore"):
            exponent = np.frexp(self.largest)[1] + ROOM.bit_length() - 1  # ROOM * largest < 2**exponent
            known = self.largest > 0
            self.powers = np.where(known, np.floor(np.log2(self.limit)) - exponent, 0).astype(int)
        most = 120 if self.flat.itemsize == 4 else 1000
        self.powers = np.clip(self.powers, -most, most)
        self.sums[:] = 0

    def add(self, number, values):
        """Add one micro-batch's gradient of a parameter.

        Parameters
        ----------
        number : int, of the parameter
        values : array
        """
        found = fixedpoint.add(values.reshape(-1), 2.0 ** int(self.powers[number]), self.limit,
                               self.sums[self.places[number]])
        self.seen[number] = max(self.seen[number], found)

    def finish(self, scale=1.0):
        """Sum over all ranks; the sums are in ``flat`` then. Collective.

        Parameters
        ----------
        scale : float, that the sums are multiplied by

        Returns
        -------
        bool, whether all numbers had room: else this is to be done again
        """
        from mpi4py import MPI

        request = self.comm.Iallreduce(MPI.IN_PLACE, self.seen, MPI.MAX)
        self.exchange.finish()
        mpi.wait(request.Test)
        with np.errstate(over="ignore"):
            fits = bool(np.all((self.seen * 2.0**self.powers <= self.limit) & ((self.largest > 0) | (self.seen == 0))))
        finite = np.isfinite(self.seen)
        self.largest = np.where(finite & (self.seen > 0), self.seen, self.largest)
        if not fits and finite.all():
            return False
        for place, power in zip(self.places, self.powers):
            fixedpoint.scaled(self.sums[place], 2.0 ** -int(power) * scale, self.flat[place])
        if not finite.all():
            self.flat[:] = np.nan  # it blew up, and everyone is to see it
        return True
