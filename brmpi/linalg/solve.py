"""Systems of equations, inverses, determinants and condition numbers, by LU or Cholesky."""

import numpy as np

from brmpi.errors import BadInput
from brmpi.linalg.failures import Mismatch, Singular
from brmpi.linalg.lu import lu
from brmpi.linalg.matrix import BlockCyclic
from brmpi.linalg.norms import norm
from brmpi.linalg.operand import together

STEPS = 5  # of the condition estimate: as many as LAPACK takes


def solve(a, b, assume="general", overwrite_a=False, overwrite_b=False):
    """Solve ``a x = b``. Collective.

    Parameters
    ----------
    a : BlockCyclic, (n, n)
    b : BlockCyclic, (n, k), of a's dtype, nb and grid; or (n,) or (n, k) array_like, the same on every rank
    assume : "general", or "pos": a is symmetric (or Hermitian) positive definite, and only its lower triangle is read
    overwrite_a, overwrite_b : bool, whether a may be replaced by its factors and b by x; else they are copied

    Returns
    -------
    x, as b is: BlockCyclic, or ndarray on every rank

    Raises
    ------
    Mismatch : shapes, layouts or types that do not go together
    Singular, NotPositiveDefinite, NotEnoughMemory
    """
    if assume not in ("general", "pos"):
        raise BadInput(f"assume = {assume!r}: must be 'general' or 'pos'")
    if a.shape[0] != a.shape[1]:
        raise Mismatch(f"a: {a.shape[0]} x {a.shape[1]}: must be square to solve with")
    right = _matrix(a, b)
    together(a=a, b=right)
    if right.shape[0] != a.shape[0]:
        raise Mismatch(f"b: {right.shape[0]} x {right.shape[1]}: must have {a.shape[0]} rows")
    overwrite_b = overwrite_b or right is not b
    if assume == "pos":
        from brmpi.linalg.cholesky import cholesky, cholesky_solve

        x = right if overwrite_b else right.copy()
        x = cholesky_solve(cholesky(a, overwrite=overwrite_a), x, overwrite=True)
    else:
        x = lu(a, overwrite=overwrite_a).solve(right, overwrite=overwrite_b)
    return x if right is b else x.to_array().reshape(np.shape(b))


def inv(a, overwrite=False):
    """The inverse. Collective.

    Parameters
    ----------
    a : BlockCyclic, (n, n)
    overwrite : bool, whether a may be replaced by its factors

    Returns
    -------
    BlockCyclic, (n, n), dealt out as a

    Raises
    ------
    Mismatch : a is not square
    Singular, NotEnoughMemory
    """
    if a.shape[0] != a.shape[1]:
        raise Mismatch(f"a: {a.shape[0]} x {a.shape[1]}: must be square to have an inverse")
    identity = a.like()
    i, j = identity.indices
    identity.local[...] = i[:, None] == j
    return lu(a, overwrite=overwrite).solve(identity, overwrite=True)


def slogdet(a, overwrite=False):
    """Sign (or phase) of the determinant and the logarithm of its size. Collective.

    Parameters
    ----------
    a : BlockCyclic, (n, n)
    overwrite : bool

    Returns
    -------
    sign, logabsdet : as ``LU.slogdet``

    Raises
    ------
    Mismatch : a is not square
    NotEnoughMemory
    """
    if a.shape[0] != a.shape[1]:
        raise Mismatch(f"a: {a.shape[0]} x {a.shape[1]}: must be square to have a determinant")
    return lu(a, overwrite=overwrite).slogdet()


def det(a, overwrite=False):
    """The determinant, which overflows early: see ``slogdet``. Collective.

    Parameters
    ----------
    a : BlockCyclic, (n, n)
    overwrite : bool

    Returns
    -------
    scalar of a's dtype

    Raises
    ------
    Mismatch : a is not square
    NotEnoughMemory
    """
    sign, size = slogdet(a, overwrite)
    with np.errstate(over="ignore"):
        return a.dtype.type(sign * np.exp(size))


def cond(a, factors=None):
    """An estimate of the condition number in the 1-norm: from below, rarely less than a third of it. Collective.

    Parameters
    ----------
    a : BlockCyclic, (n, n)
    factors : LU of a, where there is one

    Returns
    -------
    float, inf for a singular matrix; 0 for n = 0

    Raises
    ------
    Mismatch : a is not square
    NotEnoughMemory

    Source: Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., algorithm 15.4.
    """
    if a.shape[0] != a.shape[1]:
        raise Mismatch(f"a: {a.shape[0]} x {a.shape[1]}: must be square to have a condition number")
    if not a.shape[0]:
        return 0.0
    size = norm(a, 1)
    factors = factors or lu(a)
    try:
        return float(size * _inverse(factors))
    except Singular:
        return float("inf")


def _inverse(factors):
    """The 1-norm of the inverse, from below: where the sum of ``|a^-1 x|`` is largest, uphill from the middle."""
    n = factors.matrix.shape[0]

    def _solved(x, ta):
        return factors.solve(_matrix(factors.matrix, x), ta, overwrite=True).to_array()[:, 0]

    x, best = np.full(n, 1 / n, dtype=factors.matrix.dtype), 0.0
    for _ in range(STEPS):
        y = _solved(x, "N")
        found = float(np.abs(y).sum(dtype=np.float64))
        if not np.isfinite(found):
            return float("inf")
        if found <= best:
            break
        best = found
        if n == 1:
            return best
        sizes = np.abs(y)
        slope = _solved(np.where(sizes > 0, y / np.where(sizes > 0, sizes, 1), 1).astype(x.dtype), "C")
        steepest = int(np.argmax(np.abs(slope)))
        if np.abs(slope[steepest]) <= np.real(np.vdot(slope, x)):
            break
        x = np.zeros(n, dtype=x.dtype)
        x[steepest] = 1
    # A vector that finds what exact cancellation hides from the way uphill.
    signs = np.where(np.arange(n) % 2, -1.0, 1.0) * (1 + np.arange(n) / (n - 1))
    return max(best, float(2 * np.abs(_solved(signs.astype(x.dtype), "N")).sum(dtype=np.float64) / (3 * n)))


def _matrix(a, b):
    """A right-hand side as a matrix whose rows are dealt out as a's."""
    if isinstance(b, BlockCyclic):
        return b
    b = np.asarray(b)
    if b.ndim not in (1, 2) or b.shape[0] != a.shape[0]:
        raise Mismatch(f"b: shape {b.shape}: must be ({a.shape[0]},) or ({a.shape[0]}, k)")
    if b.dtype.kind == "c" and a.dtype.kind != "c":
        raise Mismatch(f"b: {b.dtype}: a is {a.dtype}: must be complex too")
    b = b.reshape(len(b), b.shape[1] if b.ndim == 2 else 1)
    right = BlockCyclic(a.grid, b.shape, a.dtype, a.nb, rows=a.rows)
    right.local[...] = b[np.ix_(*right.indices)]
    return right
