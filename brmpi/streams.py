"""Random numbers by global index, so that no result depends on the number of ranks.

A stream is one Philox4x64-10 generator (Salmon, Moraes, Dror & Shaw, "Parallel random numbers: as easy
as 1, 2, 3", SC11) under a key of its own. Its word w is lane w % 4 of the block whose 256-bit counter is
w // 4; the key is (seed, purpose). Any rank can read any words without those before them.
"""

from hashlib import blake2b
from math import prod

import numpy as np

WORDS = 4  # 64-bit words in a Philox block


class Stream:
    """The random numbers of one purpose of one run.

    Parameters
    ----------
    seed : int, 0 <= seed < 2**64
    purpose : str, what the numbers are for; other purposes give independent streams

    Raises
    ------
    ValueError : seed out of range
    """

    def __init__(self, seed, purpose):
        if not 0 <= seed < 2**64:
            raise ValueError(f"seed = {seed}: must be >= 0 and < 2**64")
        self.key = (int(seed), int.from_bytes(blake2b(purpose.encode(), digest_size=8).digest(), "little"))

    def words(self, first, count):
        """Raw words.

        Parameters
        ----------
        first : int >= 0, position of the first word
        count : int >= 0

        Returns
        -------
        (count,) uint64
        """
        if first < 0 or count < 0:
            raise ValueError(f"first = {first}, count = {count}: must be >= 0")
        block, lane = divmod(int(first), WORDS)
        # NumPy advances the counter before it makes a block: start one before.
        generator = np.random.Philox(key=np.array(self.key, dtype=np.uint64), counter=(block - 1) % 2**256)
        return generator.random_raw(lane + int(count))[lane:]

    def uniform(self, first, count, shape=()):
        """Uniform numbers in [0, 1), multiples of 2**-53, for items ``first`` to ``first + count``.

        Parameters
        ----------
        first : int >= 0, global index of the first item
        count : int >= 0, items
        shape : tuple of ints, numbers each item has; one word each

        Returns
        -------
        (count, *shape) float64
        """
        return (self._items(first, count, shape) >> np.uint64(11)) * 2.0**-53

    def normal(self, first, count, shape=()):
        """Standard normal numbers by inversion of the distribution function, one word each.

        Parameters
        ----------
        first : int >= 0, global index of the first item
        count : int >= 0, items
        shape : tuple of ints, numbers each item has

        Returns
        -------
        (count, *shape) float64, within ±8.3
        """
        from scipy.special import ndtri

        middle = ((self._items(first, count, shape) >> np.uint64(11)) + 0.5) * 2.0**-53  # never 0
        return ndtri(np.minimum(middle, 1 - 2.0**-53))

    def _items(self, first, count, shape):
        width = prod(shape)
        return self.words(first * width, count * width).reshape(count, *shape)
