"""The loops of ``ising``, compiled by Numba. Imported when they are first used: Numba takes long to load."""

import numpy as np
from numba import int32, int64, uint64

from brmpi.kernels.compiled import compiled
from brmpi.kernels.ising import part
from brmpi.kernels.philox_numba import blocks

ORDER = np.array([1], np.uint64).view(np.uint32)[0] == 0  # the upper half of a word comes first here


def half_sweep(spins, colour, sweep, limits, key, row, column):
    """Update the sites of one colour.

    Parameters
    ----------
    spins, colour, sweep, limits, key, row, column : as in ``ising.half_sweep``, checked
    """
    odd, (even_rows, odd_rows) = part(spins, colour, row, column)
    time = 2 * sweep + colour
    update(spins, limits, np.array([*key, row, time], np.uint64), column, odd, *even_rows, *odd_rows)


@compiled
def update(spins, limits, place, column, odd, first0, end0, first1, end1):
    """Update the sites of one colour.

    Parameters
    ----------
    spins : (rows + 2, columns + 2) int8
    limits : (5,) int32
    place : (4,) uint64: key, global row, 2 sweep + colour
    column : int
    odd, first0, end0, first1, end1 : from ``ising.part``
    """
    words = np.empty(4 * (max(end0, end1) // 8 - min(first0, first1) // 8 + 1), np.uint64)
    halves = words.view(np.uint32)
    site = np.empty(spins.shape[1] // 2, np.int8)
    m4, m2, zero, p2, p4 = limits[0], limits[1], limits[2], limits[3], limits[4]
    for i in range(spins.shape[0] - 2):
        first, end = (first1, end1) if i & 1 else (first0, end0)
        number, block = end - first, first // 8
        used = words[: 4 * ((end + 7) // 8 - block)]
        blocks(place[0], place[1], uint64(block), place[2] + uint64(i), place[3], uint64(0), used)
        if ORDER:
            for n in range(used.size):
                used[n] = used[n] << uint64(32) | used[n] >> uint64(32)
        random = halves[first - 8 * block : end - 8 * block]
        at = 1 + 2 * first + ((odd + i) & 1) - column
        up, here, down = spins[i, at:], spins[i + 1, at - 1 :], spins[i + 2, at:]
        for p in range(number):
            s = here[2 * p + 1]
            k = s * (up[2 * p] + down[2 * p] + here[2 * p] + here[2 * p + 2])
            limit = zero if k == 0 else ((p2 if k == 2 else p4) if k > 0 else (m2 if k == -2 else m4))
            site[p] = -s if int32(random[p] >> 1) <= limit else s
        for p in range(number):
            here[2 * p + 1] = site[p]


@compiled
def energy(spins):
    """Sum over bonds to the right and downwards.

    Parameters
    ----------
    spins : (rows + 2, columns + 2) int8
    """
    total = int64(0)
    for i in range(1, spins.shape[0] - 1):
        here, down = spins[i], spins[i + 1]
        line = int32(0)
        for j in range(1, spins.shape[1] - 1):
            line -= int32(here[j]) * (int32(here[j + 1]) + int32(down[j]))
        total += line
    return total


@compiled
def magnetisation(spins):
    """Sum of the spins.

    Parameters
    ----------
    spins : (rows + 2, columns + 2) int8
    """
    total = int64(0)
    for i in range(1, spins.shape[0] - 1):
        here = spins[i]
        line = int32(0)
        for j in range(1, spins.shape[1] - 1):
            line += int32(here[j])
        total += line
    return total
