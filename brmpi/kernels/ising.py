"""The Ising model in two dimensions: Metropolis updates of one colour of a checkerboard, energy and magnetisation.

    E = -J sum over neighbours s_i s_j
    a spin with k = s_i sum_j s_j turns over with probability min(1, exp(-2 K k))

K = J / (k_B T). A site's random number has 31 bits of Philox4x64-10 and belongs to its global row and column and to
the sweep: site (row, column) takes p = column // 2, half p % 2 (the lower first) of word p // 2 % 4 of the counter

    (p // 8, row, 2 sweep + colour, 0),  and turns over where its number, the half's upper 31 bits, is <= limits[k]

Sites of one colour have no neighbours of their own, so that their order does not matter, nor does how a lattice is cut.
All is integers: the versions agree bit for bit. A periodic lattice has even numbers of rows and columns.

Sources: Metropolis, Rosenbluth, Rosenbluth, Teller & Teller, J. Chem. Phys. 21 (1953) 1087; Salmon, Moraes, Dror &
Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC11.
"""

import decimal
import math

import numpy as np

from brmpi.kernels import choice

BITS = 31  # of a random number


def limits(coupling):
    """The largest random numbers with which a spin turns over: floor(2**31 min(1, exp(-2 K k)) + 1/2) - 1.

    Parameters
    ----------
    coupling : float, K = J / (k_B T), finite; below 0 for an antiferromagnet

    Returns
    -------
    (5,) int32, for k = -4, -2, 0, 2, 4; -1 is never. The same on every processor

    Raises
    ------
    ValueError : coupling is not finite
    """
    if not math.isfinite(coupling):
        raise ValueError(f"coupling = {coupling}: must be finite")
    with decimal.localcontext(decimal.Context(prec=30)):
        chances = [min(decimal.Decimal(1), (-2 * decimal.Decimal(coupling) * k).min(0).exp()) if coupling * k > 0
                   else decimal.Decimal(1) for k in (-4, -2, 0, 2, 4)]
        return np.array([int(2**BITS * chance + decimal.Decimal("0.5")) - 1 for chance in chances], dtype=np.int32)


def half_sweep(spins, colour, sweep, limits, key, row=0, column=0, backend="auto"):
    """Update the sites of one colour, those with (global row + global column) % 2 == colour, in place.

    The caller fills the halo before each call; the other colour's neighbours are all that is read from it.

    Parameters
    ----------
    spins : (rows + 2, columns + 2) int8, C-contiguous, each 1 or -1, with a halo of one site around; corners are free
    colour : 0 or 1
    sweep : int, 0 <= sweep < 2**63, number of the sweep
    limits : (5,) int32, from ``limits``
    key : two ints, each >= 0 and < 2**64, of the random numbers
    row, column : int, 0 <= row, column < 2**62, global place of the first site inside the halo
    backend : one of ``kernels.BACKENDS``, which agree bit for bit

    Raises
    ------
    ValueError : a wrong shape or dtype, or an argument out of range
    """
    _check(spins, backend, writes=True)
    if limits.shape != (5,) or limits.dtype != np.int32:
        raise ValueError(f"limits: {limits.dtype} of shape {limits.shape}, must be int32 of shape (5,)")
    if colour not in (0, 1):
        raise ValueError(f"colour = {colour}: must be 0 or 1")
    for name, value, end in (("sweep", sweep, 63), ("row", row, 62), ("column", column, 62)):
        if not 0 <= value < 2**end:
            raise ValueError(f"{name} = {value}: must be >= 0 and < 2**{end}")
    key = tuple(int(half) for half in key)
    if len(key) != 2 or not all(0 <= half < 2**64 for half in key):
        raise ValueError(f"key = {key}: must be two numbers >= 0 and < 2**64")
    if min(spins.shape) > 2:
        choice.run("ising half_sweep", spins.size / 2, backend, _half_sweep, "half_sweep", spins, int(colour),
                   int(sweep), limits, key, int(row), int(column))


def energy(spins, backend="auto"):
    """Energy of the bonds from each site to its right and to the one below, in units of J.

    Parameters
    ----------
    spins : as in ``half_sweep``; the right and the lower halo are read
    backend : one of ``kernels.BACKENDS``, which agree exactly

    Returns
    -------
    int; those of the parts of a lattice add up to the whole's

    Raises
    ------
    ValueError : a wrong shape or dtype
    """
    _check(spins, backend)
    return int(choice.run("ising energy", spins.size, backend, _energy, "energy", spins)) if min(spins.shape) > 2 else 0


def magnetisation(spins, backend="auto"):
    """Sum of the spins inside the halo.

    Parameters
    ----------
    spins : as in ``half_sweep``
    backend : one of ``kernels.BACKENDS``, which agree exactly

    Returns
    -------
    int

    Raises
    ------
    ValueError : a wrong shape or dtype
    """
    _check(spins, backend)
    if min(spins.shape) == 2:
        return 0
    return int(choice.run("ising magnetisation", spins.size, backend, _magnetisation, "magnetisation", spins))


def part(spins, colour, row, column):
    """For a colour, first column and end in each of the two kinds of rows, in sites of that colour from column 0 on.

    Parameters
    ----------
    spins : as in ``half_sweep``
    colour, row, column : int

    Returns
    -------
    (parity of the first row's sites' columns, ((first, end) of the first row, (first, end) of the second))
    """
    odd = (row + colour) % 2
    end = column + spins.shape[1] - 2
    return odd, tuple(((column - o + 1) // 2, (end - o + 1) // 2) for o in (odd, 1 - odd))


def _check(spins, backend, writes=False):
    choice.check(backend)
    if spins.ndim != 2 or spins.dtype != np.int8 or min(spins.shape) < 2:
        raise ValueError(f"spins: {spins.dtype} of shape {spins.shape}, must be int8 of shape (rows + 2, columns + 2)")
    if not spins.flags.c_contiguous:
        raise ValueError(f"spins: strides {spins.strides}, must be C-contiguous")
    if writes and not spins.flags.writeable:
        raise ValueError("spins: must not be read-only")


def _half_sweep(spins, colour, sweep, limits, key, row, column):
    odd, spans = part(spins, colour, row, column)
    for i in range(spins.shape[0] - 2):
        first, end = spans[i % 2]
        here = slice(1 + 2 * first + (odd + i) % 2 - column, spins.shape[1] - 1, 2)
        left, right = (slice(here.start + by, here.stop + by, 2) for by in (-1, 1))
        site = spins[i + 1, here]
        k = site * (spins[i, here] + spins[i + 2, here] + spins[i + 1, left] + spins[i + 1, right])
        turns = _random(key, first, end, row + i, 2 * sweep + colour) <= limits[(k + 4) // 2]
        spins[i + 1, here] = np.where(turns, -site, site)


def _energy(spins):
    inside = spins[1:-1, 1:-1].astype(np.int64)
    return -(inside * (spins[1:-1, 2:].astype(np.int64) + spins[2:, 1:-1])).sum()


def _magnetisation(spins):
    return spins[1:-1, 1:-1].sum(dtype=np.int64)


def _random(key, first, end, row, time):
    """Numbers first to end of a row."""
    counter = first // 8 + (row << 64) + (time << 128)
    generator = np.random.Philox(key=np.array(key, dtype=np.uint64), counter=(counter - 1) % 2**256)
    words = generator.random_raw(4 * (-(-end // 8) - first // 8))
    halves = np.stack([words & np.uint64(2**32 - 1), words >> np.uint64(32)], axis=1).ravel()
    return (halves >> np.uint64(1)).astype(np.int32)[first % 8 :][: end - first]
