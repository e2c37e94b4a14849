"""How n things are shared out over ranks: equal, or in proportion to speeds. Pure functions."""

from fractions import Fraction
from math import isfinite

import numpy as np


def shares(n, speeds):
    """Share n things out in proportion to speeds, by largest remainder.

    Each share is its exact quota ``n * speed / sum(speeds)`` rounded down or up; among equal
    remainders the lower rank gets the thing that is left.

    Parameters
    ----------
    n : int >= 0
    speeds : (ranks,) floats >= 0, not all zero

    Returns
    -------
    (ranks,) int64, summing to n exactly

    Raises
    ------
    ValueError : n negative; no speeds; a speed negative or not finite; all speeds zero
    """
    n = _count(n)
    speeds = [float(speed) for speed in speeds]
    if not speeds:
        raise ValueError("speeds = []: at least one rank is needed")
    for rank, speed in enumerate(speeds):
        if not (isfinite(speed) and speed >= 0):
            raise ValueError(f"speeds[{rank}] = {speed}: must be finite and >= 0")
    exact = [Fraction(speed) for speed in speeds]  # a float is a fraction: no rounding can break the sum
    total = sum(exact)
    if total == 0:
        raise ValueError("speeds are all 0: one at least must be > 0")
    quotas = [n * speed / total for speed in exact]
    whole = [int(quota) for quota in quotas]
    by_remainder = sorted(range(len(quotas)), key=lambda rank: (whole[rank] - quotas[rank], rank))
    for rank in by_remainder[: n - sum(whole)]:
        whole[rank] += 1
    return np.array(whole, dtype=np.int64)


def equal(n, size):
    """Share n things out evenly: shares differ by one at most, the larger ones first.

    Parameters
    ----------
    n : int >= 0
    size : int >= 1, ranks

    Returns
    -------
    (size,) int64, summing to n exactly

    Raises
    ------
    ValueError : n negative, or size < 1
    """
    n = _count(n)
    if size < 1:
        raise ValueError(f"size = {size}: must be >= 1")
    counts = np.full(size, n // size, dtype=np.int64)
    counts[: n % size] += 1
    return counts


def offsets(counts):
    """Where each rank's share begins, and last where all end.

    Parameters
    ----------
    counts : (ranks,) ints >= 0

    Returns
    -------
    (ranks + 1,) int64: rank r owns indices ``offsets[r]`` up to ``offsets[r + 1]``

    Raises
    ------
    ValueError : a count is negative
    """
    counts = np.asarray(counts, dtype=np.int64)
    if counts.size and counts.min() < 0:
        raise ValueError(f"counts = {counts.tolist()}: must be >= 0")
    return np.concatenate(([0], np.cumsum(counts, dtype=np.int64)))


def owner(index, offsets):
    """The rank that owns a global index.

    Parameters
    ----------
    index : int or array of ints, 0 <= index < offsets[-1]
    offsets : (ranks + 1,) ints, as from ``offsets``

    Returns
    -------
    int, or int64 array of index's shape

    Raises
    ------
    IndexError : an index below 0 or past the end
    """
    offsets = np.asarray(offsets)
    wanted = np.asarray(index, dtype=np.int64)
    if wanted.size and (wanted.min() < 0 or wanted.max() >= offsets[-1]):
        raise IndexError(f"index {index}: must be >= 0 and < {offsets[-1]}")
    ranks = np.searchsorted(offsets, wanted, side="right") - 1  # right: ranks with nothing are passed over
    return int(ranks) if np.ndim(index) == 0 else ranks.astype(np.int64)


def _count(n):
    if n != int(n) or n < 0:
        raise ValueError(f"n = {n}: must be a whole number >= 0")
    return int(n)
