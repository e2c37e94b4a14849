"""Singular values and vectors: all of them by a polar decomposition, or a few by random sampling.

``a = u_p h`` and ``h = v diag(s) v^H`` make ``a = (u_p v) diag(s) v^H``: backward stable as both are (Nakatsukasa &
Higham, SIAM J. Sci. Comput. 35, 2013). Bidiagonalisation has fewer operations, but half of them at the speed of memory,
and would need a divide and conquer of its own.
"""

import numpy as np

from brmpi.errors import BadInput
from brmpi.linalg import norms
from brmpi.linalg.axis import Axis
from brmpi.linalg.eigen import eigh
from brmpi.linalg.polar import normal, polar
from brmpi.linalg.product import matmul
from brmpi.linalg.qr import qr
from brmpi.linalg.redistribute import transpose
from brmpi.streams import Stream


def svd(a, vectors=True):
    """``a = u diag(s) vh``, in the reduced form, k = min(m, n). Collective.

    Parameters
    ----------
    a : (m, n) BlockCyclic
    vectors : bool

    Returns
    -------
    u : (m, k) BlockCyclic, orthonormal columns for a of any rank
    s : (k,) float32 or float64, descending, >= 0, the same on every rank; alone where no vectors are wanted
    vh : (k, n) BlockCyclic, orthonormal rows

    Raises
    ------
    BadInput : an element is not finite
    NoConvergence : the iteration for the polar decomposition, or LAPACK, has not found the end
    NotEnoughMemory : no room for about ten matrices like a

    Values are as near as rounding errors of the largest allow: those below ``n eps s[0]`` are noise.
    """
    m, n = a.shape
    if m < n:
        found = svd(transpose(a, conjugate=True), vectors)
        return found if not vectors else (transpose(found[2], True), found[1], transpose(found[0], True))
    if not np.isfinite(norms.norm(a, "max")):
        raise BadInput(f"{a} has elements that are not finite: svd needs finite ones")
    if n == 0:
        return (a.like(), np.zeros(0, a.local.real.dtype), a.like(rows=Axis(0, a.nb, a.grid.row_weights))
                ) if vectors else np.zeros(0, a.local.real.dtype)
    q, r = qr(a) if m > n else (None, a)
    u, h = polar(r)
    h.local *= -1  # ascending values of -h are descending ones of h
    if not vectors:
        return _positive(eigh(h, vectors=False, overwrite=True))
    w, v = eigh(h, overwrite=True)
    del h
    u = matmul(u, v)
    if q is not None:
        u = matmul(q, u)
    return u, _positive(w), transpose(v, conjugate=True)


def svd_few(a, k, oversample=10, power=2, seed=0):
    """The k largest singular values and their vectors, nearly, by random sampling. Collective.

    Parameters
    ----------
    a : (m, n) BlockCyclic
    k : int, 0 to min(m, n)
    oversample : int >= 0, further random vectors
    power : int >= 0, how many times these are multiplied by ``a a^H``, orthonormal again after each product
    seed : int, 0 <= seed < 2**64; the vectors depend on it alone, not on ranks or layout

    Returns
    -------
    u : (m, k) BlockCyclic
    s : (k,) float32 or float64, descending, the same on every rank
    vh : (k, n) BlockCyclic

    Raises
    ------
    BadInput : k, oversample, power or seed out of range, or an element that is not finite
    NoConvergence, NotEnoughMemory : as in ``svd``

    With p = oversample >= 2 and q = power, the expected norm of what is not captured, before the cut to k, is at most
    ``(1 + sqrt(k / (p - 1)) + e sqrt(k + p) / p sqrt(min(m, n) - k))^(1 / (2 q + 1)) s[k]``, s[k] the first value left
    out; the cut adds s[k] at most.

    Source: Halko, Martinsson & Tropp, SIAM Review 53 (2011), algorithms 4.4 and 5.1, corollary 10.10 and theorem 9.3.
    """
    m, n = a.shape
    if not 0 <= k <= min(m, n):
        raise BadInput(f"k = {k}: must be 0 to {min(m, n)}, the number of singular values of {a}")
    if oversample < 0 or power < 0 or not 0 <= seed < 2**64:
        raise BadInput(f"oversample = {oversample}, power = {power}, seed = {seed}: must be >= 0, and seed < 2**64")
    wide = min(k + oversample, m, n)
    few = Axis(wide, a.nb, a.grid.col_weights)
    size = norms.norm(a, "max")
    if not np.isfinite(size):
        raise BadInput(f"{a} has elements that are not finite: svd_few needs finite ones")
    omega = a.like(rows=Axis(n, a.nb, a.grid.row_weights), cols=few)
    omega.local[...] = normal(Stream(seed, "linalg svd_few"), *omega.indices, wide)
    if a.dtype.kind == "c":
        omega.local += 1j * normal(Stream(seed, "linalg svd_few imaginary"), *omega.indices, wide)
    q, _ = qr(matmul(a, omega))
    for _ in range(power):
        q, _ = qr(matmul(a, q, ta="C"))
        q, _ = qr(matmul(a, q))
    u, s, vh = svd(matmul(q, a, ta="C"))
    u = matmul(q, u)
    return _first(u, a.shape[0], k), s[:k].copy(), _first(vh, k, n)


def _first(a, m, n):
    """The first rows and columns."""
    first = a.like(rows=a.rows.head(m), cols=a.cols.head(n))
    first.local[...] = a.local[: first.local.shape[0], : first.local.shape[1]]
    return first


def _positive(w):
    """Values of ``-h`` as those of h; what rounding has made negative is zero."""
    return np.maximum(-w, 0)
