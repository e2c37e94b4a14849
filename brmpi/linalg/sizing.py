"""How large a system of equations to solve, in which blocks and on which grid of ranks: pure functions.

Where ranks hold parts of a matrix, the first to be full or the last to be done decides for all: with shares that sum to
one, that is the smallest of ``value / share``. Of equal shares it is the poorest rank times the number of ranks; of
shares in proportion to the values, it is their sum.
"""

import math
import re
from dataclasses import dataclass

import numpy as np

from brmpi.errors import BadInput

BLOCK = 128  # NB: DGEMM is near its best from here on, and larger blocks only unbalance ranks
LEAST = 8  # of NB
BLOCKS = 8  # that a rank has at least in each direction, before NB shrinks
FRACTION = 0.8  # of memory that the matrix may fill: panels, MPI and the system need some
EFFICIENCY = 0.7  # of the ranks' DGEMM that a factorization is expected to reach
MOST = 10**6  # of N: beyond, HPL's own indices may overflow
UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True)
class Problem:
    """A system of n equations, in blocks of nb, on p x q ranks."""

    n: int
    nb: int
    p: int
    q: int


def flops(n):
    """Operations that HPL counts for a system of n equations: factorization and both solves.

    Parameters
    ----------
    n : int

    Returns
    -------
    float
    """
    return 2 / 3 * n**3 + 3 / 2 * n**2


def together(values, shares=None):
    """What ranks can hold or do together: the smallest of value / share.

    Parameters
    ----------
    values : (ranks,) float > 0, memory or speed of each
    shares : (ranks,) float >= 0, in any unit; equal if None

    Returns
    -------
    float, in the unit of the values

    Raises
    ------
    BadInput : no rank, a value that is not positive, or shares that are negative or all zero
    """
    values = np.asarray(values, dtype=np.float64)
    shares = np.ones(values.shape) if shares is None else np.asarray(shares, dtype=np.float64)
    if values.ndim != 1 or not values.size or not (np.isfinite(values) & (values > 0)).all():
        raise BadInput(f"values = {values.tolist()}: each rank's must be a number > 0")
    if shares.shape != values.shape or not (np.isfinite(shares) & (shares >= 0)).all() or not shares.any():
        raise BadInput(f"shares = {shares.tolist()}: must be {values.size} numbers >= 0, and not all 0")
    working = shares > 0
    return float((values[working] / shares[working]).min() * shares.sum())


def fitting(memory, nb, fraction=FRACTION, shares=None):
    """The largest N whose matrix of float64 fits into memory, a multiple of NB.

    Parameters
    ----------
    memory : (ranks,) float > 0, of each rank [bytes]
    nb : int >= 1
    fraction : float in (0, 1], of the memory that the matrix may fill
    shares : (ranks,) float >= 0, of the matrix; equal if None

    Returns
    -------
    int

    Raises
    ------
    BadInput : the fraction is out of range, or not even one block fits
    """
    if not 0 < fraction <= 1:
        raise BadInput(f"--memory = {fraction:g}: must be > 0 and at most 1")
    room = fraction * together(memory, shares)
    n = min(math.isqrt(int(room / 8)), MOST) // nb * nb
    if not n:
        raise BadInput(f"--memory = {fraction:g}: leaves {room:.3g} bytes, too few for one block of NB = {nb}")
    return n


def lasting(seconds, rates, nb, efficiency=EFFICIENCY, shares=None):
    """The largest N whose system is solved within a time, a multiple of NB.

    Parameters
    ----------
    seconds : float > 0 [s]
    rates : (ranks,) float > 0, DGEMM of each rank [flop/s]
    nb : int >= 1
    efficiency : float > 0, of the rates that will be reached
    shares : (ranks,) float >= 0, of the work; equal if None

    Returns
    -------
    int

    Raises
    ------
    BadInput : not even one block is solved within that time
    """
    budget = seconds * efficiency * together(rates, shares)
    n = min(int((1.5 * budget) ** (1 / 3)) + 1, MOST) // nb * nb
    while n and flops(n) > budget:
        n -= nb
    if not n:
        raise BadInput(f"--time-budget = {seconds:g} s: too short for one block of NB = {nb}")
    return n


def block(n, across):
    """A sensible NB: 128, less where ranks would have too few blocks to stay busy.

    Parameters
    ----------
    n : int >= 1
    across : int >= 1, ranks along the longer side of the grid

    Returns
    -------
    int, a multiple of 8
    """
    return max(LEAST, min(BLOCK, n // (BLOCKS * across) // LEAST * LEAST))


def square(ranks):
    """P x Q as near to square as can be, with P <= Q.

    Parameters
    ----------
    ranks : int >= 1

    Returns
    -------
    (int, int)
    """
    p = next(p for p in range(math.isqrt(ranks), 0, -1) if ranks % p == 0)
    return p, ranks // p


def grid_of(written, ranks):
    """P and Q as a person writes them: ``2x3``.

    Parameters
    ----------
    written : str
    ranks : int, that there are

    Returns
    -------
    (int, int)

    Raises
    ------
    BadInput : it is not of that form, or not a grid of all ranks
    """
    match = re.fullmatch(r"(\d{1,6})\s*[xX]\s*(\d{1,6})", written.strip(), re.ASCII)
    if not match:
        raise BadInput(f"--grid = {written!r}: must be P x Q, such as {'x'.join(map(str, square(ranks)))}")
    p, q = int(match[1]), int(match[2])
    if p * q != ranks:
        raise BadInput(f"--grid = {written!r}: is a grid of {p * q}, but there are {ranks} ranks")
    return p, q


def seconds_of(written, key="--time-budget"):
    """A time as a person writes it: ``90``, ``90s``, ``5m``, ``1.5h``.

    Parameters
    ----------
    written : str
    key : str, the option that it was given to

    Returns
    -------
    float > 0 [s]

    Raises
    ------
    BadInput : it is not of that form, zero, or more than 1000 hours
    """
    match = re.fullmatch(r"(\d+\.?\d*|\.\d+)\s*([smh]?)", written.strip(), re.ASCII)
    found = float(match[1]) * UNITS[match[2]] if match else 0.0
    if not 0 < found <= 3.6e6:
        raise BadInput(f"{key} = {written!r}: must be a time > 0 and at most 1000h, such as 90s, 5m or 1h")
    return found


def problem(ranks, memory=None, rates=None, shares=None, n=None, nb=None, grid=None, fraction=FRACTION, seconds=None,
            efficiency=EFFICIENCY):
    """What to solve: what a person has chosen, the rest from memory and speed.

    Parameters
    ----------
    ranks : int
    memory : (ranks,) float > 0, of each rank [bytes], or None where not known
    rates : (ranks,) float > 0, DGEMM of each rank [flop/s], or None where not known
    shares : (ranks,) float >= 0, of the matrix; equal if None
    n, nb : int, if chosen; n is taken as it is, even if no multiple of nb
    grid : (int, int), if chosen
    fraction : float in (0, 1], of the memory that the matrix may fill
    seconds : float, time for it, if limited [s]
    efficiency : float > 0, of the rates that will be reached

    Returns
    -------
    Problem

    Raises
    ------
    BadInput : a choice is out of range or does not fit into memory, or what it needs is not known
    """
    p, q = grid or square(ranks)
    if nb is not None and not 1 <= nb <= MOST:
        raise BadInput(f"--nb = {nb}: must be >= 1 and at most {MOST}")
    step = nb or BLOCK
    if n is not None:
        if not 1 <= n <= MOST:
            raise BadInput(f"--n = {n}: must be >= 1 and at most {MOST}")
        room = math.inf if memory is None else together(memory, shares)
        if 8 * n**2 > room:
            raise BadInput(f"--n = {n}: needs {8e-9 * n**2:.3g} GB, but so shared out these ranks hold "
                           f"{1e-9 * room:.3g} GB, N = {math.isqrt(int(room / 8))}")
        return Problem(n, nb or block(n, max(p, q)), p, q)
    if seconds is not None and rates is None:
        raise BadInput("--time-budget: needs each node's speed: run brmpi probe, or give --n")
    if memory is None and seconds is None:
        raise BadInput("N: needs each node's memory: run brmpi probe, or give --n")
    limits = []
    if memory is not None:
        limits.append(fitting(memory, step, fraction, shares))
    if seconds is not None:
        limits.append(lasting(seconds, rates, step, efficiency, shares))
    nb = nb or block(min(limits), max(p, q))
    return Problem(min(limits) // nb * nb, nb, p, q)
