"""Sums of a vector over all ranks with fewer bytes than its own: half the bits, the largest numbers, or a low rank.

What the two compressors leave out is kept and added to the next vector (error feedback), so that nothing is lost.
"""

import numpy as np

from brmpi.train.direct import Direct

HALVES = ("float16", "bfloat16")


def halved(values, kind):
    """Numbers in 16 bits, rounded to nearest even.

    Parameters
    ----------
    values : (n,) float32
    kind : one of ``HALVES``

    Returns
    -------
    (n,) uint16
    """
    if kind == "float16":
        return values.astype(np.float16).view(np.uint16)
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    codes = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return np.where(np.isnan(values), np.uint32(0x7FC0), codes).astype(np.uint16)


def doubled(codes, kind):
    """What ``halved`` made, as numbers again.

    Parameters
    ----------
    codes : (n,) uint16
    kind : one of ``HALVES``

    Returns
    -------
    (n,) float32
    """
    if kind == "float16":
        return codes.view(np.float16).astype(np.float32)
    return (codes.astype(np.uint32) << np.uint32(16)).view(np.float32)


class Half(Direct):
    """Every number travels in 16 bits; sums are taken in float32.

    Parts are sent times a power of two, so that none of their numbers is too small or too large for float16.

    Parameters
    ----------
    comm : communicator
    flat : (n,) float array; sums replace it
    buckets : list of slice
    kind : one of ``HALVES``
    """

    head = 2  # words that hold the power of two

    def __init__(self, comm, flat, buckets, kind):
        super().__init__(comm, flat, buckets)
        self.kind = kind

    def coded(self, values):
        """As ``Direct.coded``.

        Parameters
        ----------
        values : as there
        """
        largest = float(np.abs(values).max(initial=0))
        power = 0 if not 0 < largest < np.inf else int(np.clip(8 - np.frexp(largest)[1], -100, 100))
        head = np.array([power], np.int32).view(np.uint16)
        return np.concatenate([head, halved(np.ldexp(values.astype(np.float32, copy=False), power), self.kind)])

    def numbers(self, words):
        """As ``Direct.numbers``.

        Parameters
        ----------
        words : as there
        """
        power = int(words[:2].copy().view(np.int32)[0])
        return np.ldexp(doubled(words[2:], self.kind), -power)


class Top:
    """The largest numbers of each bucket, with their places; what is left out is added to the next gradient.

    Parameters
    ----------
    comm : communicator
    flat : (n,) float32 or float64; sums replace it
    buckets : list of slice
    fraction : float, 0 to 1, of the numbers that are sent; at least one of each bucket

    Attributes
    ----------
    left : (n,) array, what this rank has not sent yet

    Source: Lin, Han, Mao, Wang & Dally, "Deep gradient compression", arXiv 1712.01887; Stich, Cordonnier & Jaggi,
    "Sparsified SGD with memory", arXiv 1809.07599, algorithm 1.
    """

    def __init__(self, comm, flat, buckets, fraction):
        self.comm, self.flat, self.buckets, self.fraction = comm, flat, buckets, fraction
        self.left, self.open = np.zeros_like(flat), []

    def begin(self, number):
        """As ``buckets.Plain.begin``.

        Parameters
        ----------
        number : as there
        """
        place = self.buckets[number]
        left = self.left[place]
        left += self.flat[place]
        count = max(1, int(self.fraction * len(left)))
        chosen = np.sort(np.argpartition(np.abs(left), len(left) - count)[len(left) - count:]).astype(np.int32)
        values = left[chosen]
        left[chosen] = 0
        places, every = np.empty((self.comm.size, count), np.int32), np.empty((self.comm.size, count), left.dtype)
        requests = [self.comm.Iallgather(chosen, places), self.comm.Iallgather(values, every)]
        self.open.append((requests, place, places, every, chosen, values))

    def poll(self):
        """Let messages go on."""
        for request in self.open[0][0] if self.open else ():
            request.Test()

    def finish(self):
        """As ``buckets.Plain.finish``."""
        for requests, place, places, every, *_ in self.open:
            for request in requests:
                request.Wait()
            part = self.flat[place]
            part[:] = 0
            for where, values in zip(places, every):  # in the order of ranks
                part[where] += values
        self.open = []


class Power:
    """Each matrix as a product of two thin ones, found by one step of power iteration from the last one's.

    Vectors, and matrices that would not get smaller, are sent as they are.

    Parameters
    ----------
    comm : communicator
    flat : (n,) float array; sums replace it
    shapes : sequence of tuple of int, of the parameters
    places : list of slice, of each in ``flat``
    rank : int >= 1
    draw : function of (first, count), normal random numbers that the first products begin with

    Attributes
    ----------
    left : (n,) array, what this rank has not sent yet
    right : (m,) array, the thin matrices that the next step begins with, the same on all ranks

    Source: Vogels, Karimireddy & Jaggi, "PowerSGD", arXiv 1905.13727, algorithms 1 and 2.
    """

    def __init__(self, comm, flat, shapes, places, rank, draw):
        self.comm, self.flat = comm, flat
        self.matrices, self.others, end = [], [], 0
        for shape, place in zip(shapes, places):
            height, width = (int(np.prod(shape[:-1])), shape[-1]) if len(shape) > 1 else (0, 0)
            thin = min(rank, height, width)
            if thin and thin * (height + width) < height * width:
                self.matrices.append((place, (height, width), thin, slice(end, end + thin * width)))
                end += thin * width
            else:
                self.others.append(place)
        self.left = np.zeros_like(flat)
        self.right = np.asarray(draw(0, end), flat.dtype)

    def words(self):
        """Numbers that a step sends, and that plain sums would.

        Returns
        -------
        tuple of int
        """
        sent = sum(thin * sum(shape) for _, shape, thin, _ in self.matrices)
        return sent + sum(place.stop - place.start for place in self.others), len(self.flat)

    def begin(self, number):
        """Nothing: all is sent at the end.

        Parameters
        ----------
        number : as there
        """

    def poll(self):
        """Nothing."""

    def finish(self):
        """As ``buckets.Plain.finish``."""
        wholes, firsts = [], []
        for place, shape, thin, where in self.matrices:
            self.left[place] += self.flat[place]
            whole = self.left[place].reshape(shape)
            wholes.append(whole)
            firsts.append((whole @ self.right[where].reshape(shape[1], thin)).reshape(-1))
        sent = self._bases(np.concatenate([*firsts, *(self.flat[place] for place in self.others)]))
        end, bases, seconds = 0, [], []
        for (_, shape, thin, _), whole in zip(self.matrices, wholes):
            base = sent[end:end + shape[0] * thin].reshape(shape[0], thin)
            end += shape[0] * thin
            right = whole.T @ base
            whole -= base @ right.T  # what is sent of this rank's own; the rest stays
            bases.append(base)
            seconds.append(right.reshape(-1))
        for place in self.others:
            count = place.stop - place.start
            self.flat[place] = sent[end:end + count]
            end += count
        if self.matrices:
            self.right[:] = self._summed(np.concatenate(seconds))
        for (place, shape, thin, where), base in zip(self.matrices, bases):
            np.matmul(base, self.right[where].reshape(shape[1], thin).T, out=self.flat[place].reshape(shape))

    def _bases(self, sent):
        """Sums over all ranks, and of matrices orthonormal bases: the root's, as other processors may find others."""
        comm, end = self.comm, 0
        if comm.size > 1:
            comm.Reduce(_in_place() if comm.rank == 0 else sent, sent if comm.rank == 0 else None)
        if comm.rank == 0:
            for _, shape, thin, _ in self.matrices:
                part = sent[end:end + shape[0] * thin].reshape(shape[0], thin)
                part[:], _ = np.linalg.qr(part) if np.isfinite(part).all() else (np.nan, None)
                end += part.size
        if comm.size > 1:
            comm.Bcast(sent)
        return sent

    def _summed(self, values):
        if self.comm.size > 1:
            self.comm.Allreduce(_in_place(), values)
        return values


def _in_place():
    from mpi4py import MPI

    return MPI.IN_PLACE
