"""Norms, traces and other small things that are computed from, or done to, all elements of a matrix.

Norms other than "max" depend in their last bits on the layout, within n eps; on one layout every rank has the same.
"""

import math

import numpy as np

from brmpi.errors import BadInput
from brmpi.linalg.failures import Mismatch
from brmpi.linalg.redistribute import compare

ORDERS = "fro", "max", 1, -1, np.inf, -np.inf


def norm(a, ord="fro"):
    """A norm of a matrix; NaN where an element is, and 0 without elements. Collective.

    Parameters
    ----------
    a : BlockCyclic
    ord : "fro" (Frobenius), "max" (largest absolute value), 1 (largest sum of a column's absolute values),
        numpy.inf (of a row's), -1 or -numpy.inf (the smallest of these)

    Returns
    -------
    float, the same on every rank

    Raises
    ------
    BadInput : another ``ord``

    Squares neither overflow nor vanish where the norm itself does not.
    """
    if ord not in ORDERS:
        raise BadInput(f"ord = {ord!r}: must be one of {', '.join(map(repr, ORDERS))}")
    if 0 in a.shape:
        return 0.0
    if ord == "max":
        return _most(a)
    if ord == "fro":
        return _frobenius(a)
    down = abs(ord) == 1
    sums = np.zeros(a.local.shape[1 if down else 0])
    for strip in a.strips(a.grid.p, a.grid.q):
        if down:
            sums += _absolute(a.local[strip]).sum(axis=0, dtype=np.float64)
        else:
            sums[strip] = _absolute(a.local[strip]).sum(axis=1, dtype=np.float64)
    whole = np.empty_like(sums)
    (a.grid.col if down else a.grid.row).Allreduce(sums, whole)
    choose = np.max if ord > 0 else np.min
    return float(choose([one for one in a.grid.comm.allgather([choose(whole)] if len(whole) else []) for one in one]))


def _absolute(strip):
    """Absolute values; those of single precision may exceed its range."""
    return np.abs(strip.astype(np.complex128) if strip.dtype.char == "F" else strip)


def _most(a):
    """Largest absolute value; NaN where there is one."""
    found = [float(_absolute(a.local[strip]).max()) for strip in a.strips(a.grid.p, a.grid.q)]
    return float(np.max(a.grid.comm.allgather(float(np.max(found, initial=0)))))


def _frobenius(a):
    """The root of the sum of squares, each rank's scaled by a power of two where it has to be."""
    strips = [a.local[strip].reshape(-1).view(a.local.real.dtype) for strip in a.strips(a.grid.p, a.grid.q)]
    scale, total = 1.0, _squares(strips)
    # below this, squares that vanished may count
    if not (2 * a.local.size * np.finfo(np.float64).tiny / np.finfo(np.float64).eps < total < np.inf):
        most = float(np.max([np.abs(strip).max() for strip in strips], initial=0))
        if not 0 < most < np.inf:
            total = most  # zero, infinity or NaN
        else:
            scale = math.ldexp(1, math.frexp(most)[1] - 1)
            total = _squares(strips, scale)
    every = [one for one in a.grid.comm.allgather((scale, total)) if one[1] != 0]  # NaN is not
    if not np.isfinite([total for _, total in every]).all():
        return float(np.sum([total for _, total in every]))
    largest = max((scale for scale, _ in every), default=1.0)
    with np.errstate(under="ignore"):
        return float(largest * np.sqrt(sum(total * (scale / largest) ** 2 for scale, total in every)))


def _squares(strips, scale=1.0):
    """Sum of squares in float64, of numbers divided by a scale."""
    total = 0.0
    with np.errstate(over="ignore", under="ignore"):
        for strip in strips:
            if scale != 1.0 or strip.dtype != np.float64:
                strip = strip.astype(np.float64) / scale
            total += float(np.dot(strip, strip))
    return total


def _places(a):
    """(local rows, local columns, global indices) of this rank's part of the diagonal."""
    both, i, j = np.intersect1d(*a.indices, assume_unique=True, return_indices=True)
    return i, j, both


def diagonal(a):
    """The diagonal, on every rank. Collective.

    Parameters
    ----------
    a : BlockCyclic, (m, n)

    Returns
    -------
    (min(m, n),) ndarray of a's dtype
    """
    i, j, both = _places(a)
    whole = np.empty(min(a.shape), a.dtype)
    for places, values in a.grid.comm.allgather((both, a.local[i, j])):
        whole[places] = values
    return whole


def trace(a):
    """The sum of the diagonal; the same bits in any layout. Collective.

    Parameters
    ----------
    a : BlockCyclic, (m, n)

    Returns
    -------
    float or complex, the same on every rank
    """
    return diagonal(a).astype(np.result_type(a.dtype, np.float64)).sum().item()


def add_diagonal(a, values):
    """Add to the diagonal, in place. Not collective, but every rank does it.

    Parameters
    ----------
    a : BlockCyclic, (m, n)
    values : scalar, or (min(m, n),) array_like, the same on every rank

    Raises
    ------
    Mismatch : another number of values, or complex ones to a real matrix
    """
    values = np.asarray(values)
    _real(a, values.dtype)
    if values.shape not in ((), (min(a.shape),)):
        raise Mismatch(f"values of shape {values.shape}: must be one, or {min(a.shape)} for the diagonal of {a.shape}")
    i, j, both = _places(a)
    a.local[i, j] += values[both] if values.ndim else values


def scale(a, alpha):
    """Multiply by a number, in place. Not collective, but every rank does it.

    Parameters
    ----------
    a : BlockCyclic
    alpha : scalar, the same on every rank

    Raises
    ------
    Mismatch : a complex one for a real matrix
    """
    _real(a, np.asarray(alpha).dtype)
    a.local *= alpha


def _real(a, dtype):
    if dtype.kind == "c" != a.dtype.kind:
        raise Mismatch(f"{dtype} numbers for {a}: must be real")


def asymmetry(a):
    """How far a matrix is from its conjugate transpose: ``max |a - a^H| / max |a|``. Collective.

    Parameters
    ----------
    a : BlockCyclic, (n, n)

    Returns
    -------
    float, the same on every rank: 0 for a Hermitian matrix, NaN where an element is not finite

    Raises
    ------
    Mismatch : a matrix that is not square
    """
    if a.shape[0] != a.shape[1]:
        raise Mismatch(f"shape {a.shape}: must be square")
    found = [0.0]

    def _apart(here, there):
        with np.errstate(invalid="ignore"):
            found.append(float(np.abs(here - there).max()))

    compare(a, a, _apart, "C")
    apart, most = float(np.max(a.grid.comm.allgather(np.max(found)))), _most(a)
    return apart / most if most else apart
