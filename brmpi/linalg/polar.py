"""Polar decomposition by the dynamically weighted Halley iteration (QDWH).

Nakatsukasa, Bai & Gygi, "Optimizing Halley's iteration for computing the matrix polar decomposition", SIAM J. Matrix
Anal. Appl. 31, 2010: ``x (a + b x^H x) (1 + c x^H x)^-1`` takes singular values to 1, with weights chosen each time for
the interval in which they lie; six steps suffice for any matrix in double precision. Steps are made by QR of
``(sqrt(c) x; 1)`` while c is large, then by Cholesky factors. All of it is products and factorisations of matrices.

Rows of ``(sqrt(c) x; 1)`` differ by up to ten orders of ten; QR over several ranks may lose digits of the small ones.
Then u^H a is not hermitian; where that is seen, the iteration starts again with smaller c, and takes twice the steps.

A matrix without full rank has no unique u: here an orthonormal one is found all the same, of a matrix next to it, at
the distance of a rounding error. As u is square in the end, ``a = u (u^H a)`` holds for that as well.
"""

import copy

import numpy as np

from brmpi.linalg import norms
from brmpi.linalg.axis import Axis
from brmpi.linalg.cholesky import cholesky
from brmpi.linalg.failures import NoConvergence, Singular
from brmpi.linalg.product import matmul, syrk
from brmpi.linalg.qr import QR, qr
from brmpi.linalg.redistribute import copy as moved
from brmpi.linalg.redistribute import transpose
from brmpi.linalg.triangular import trsm
from brmpi.streams import Stream

MOST = 30  # steps
LARGE = 100  # c, from which a Cholesky factor would lose digits
GENTLE = 1e-2  # the least value that a step is for where c must stay small, 2000; it then gains two orders of ten
POWERS = 3  # steps of inverse iteration for the least singular value
DOUBT = 0.3  # of what they find: the least may be smaller


def polar(a):
    """``a = u h`` with orthonormal columns in u, or rows if a has fewer, and h positive semidefinite. Collective.

    Parameters
    ----------
    a : (m, n) BlockCyclic

    Returns
    -------
    u : (m, n) BlockCyclic, laid out as a
    h : (n, n) BlockCyclic, symmetric or hermitian to the last bit, positive semidefinite up to rounding

    Raises
    ------
    NoConvergence : 30 steps were too few; an element is not finite, for one
    NotEnoughMemory : no room for about ten matrices like a
    """
    m, n = a.shape
    if m < n:
        u = a.like()
        moved(_tall(transpose(a, conjugate=True))[0], u, "C")
        return u, _hermitian(matmul(u, a, ta="C"))[0]
    return _tall(a)


def _tall(a):
    """(u, h) of a matrix that is not wide."""
    m, n = a.shape
    if m > n > 0:
        q, r = qr(a)
        u, h = _tall(r)
        return matmul(q, u, a.like()), h
    u = _unitary(a)
    h, skew = _hermitian(matmul(u, a, ta="C"))
    if skew > n * np.finfo(a.local.real.dtype).eps * norms.norm(h):
        u = _unitary(a, GENTLE)
        h, _ = _hermitian(matmul(u, a, ta="C"))
    return u, h


def _unitary(a, floor=0.0):
    """The factor u of a square matrix; no step is for an interval that reaches below ``floor``."""
    n = a.shape[0]
    x, size = a.copy(), norms.norm(a, "max")
    i, j = x.indices
    if size == 0:
        x.local[...] = i[:, None] == j
        return x
    x.local /= x.local.real.dtype.type(size)
    # Frobenius' norm is up to sqrt(n) too large; so is the root of these two, for others.
    x.local /= x.local.real.dtype.type(min(norms.norm(x), np.sqrt(norms.norm(x, 1) * norms.norm(x, np.inf))))
    eps = float(np.finfo(x.local.real.dtype).eps)
    least = _least(x)
    if least < 4 * eps:
        x.local += 0.5 * eps * _noise(x)
        least = eps / (4 * n)
    for _ in range(MOST):
        least = min(least, 1.0)
        step = _weights(max(least, floor))
        least = _mapped(least, *step)
        change = (_by_qr if step[2] > LARGE else _by_cholesky)(x, *step)
        # Convergence is cubic: what changed by the cube root of eps is there.
        if change <= (4 * eps) ** (1 / 3) and abs(1 - least) < 10 * eps:
            return x
        if not change < np.inf:
            break
    raise NoConvergence(f"polar decomposition of {a}: not found in {MOST} steps")


def _hermitian(h):
    """The hermitian part, in place, and Frobenius' norm of the rest."""
    turned = h.like()
    moved(h, turned, "C")
    h.local += turned.local
    h.local *= 0.5
    turned.local -= h.local
    return h, norms.norm(turned)


def _weights(least):
    """(a, b, c) for singular values from ``least`` to 1."""
    square = least * least
    d = np.cbrt(4 * (1 - square)) / np.cbrt(square * square)
    a = np.sqrt(1 + d) + 0.5 * np.sqrt(8 - 4 * d + 8 * (2 - square) / (square * np.sqrt(1 + d)))
    b = (a - 1) ** 2 / 4
    return a, b, a + b - 1


def _mapped(x, a, b, c):
    """Where a step takes a singular value."""
    return x * (a + b * x * x) / (1 + c * x * x)


def _by_qr(x, a, b, c):
    """A step in place, and how far it went, by Frobenius' norm."""
    rows = _stacked(x.rows, Axis(x.shape[1], x.nb, x.grid.row_weights))
    top = x.rows.count(x.grid.p)
    both = x.like(rows=rows, cols=x.cols)
    both.local[...] = 0
    both.local[:top] = x.local
    both.local[:top] *= np.sqrt(c)
    lower = x.like(rows=rows.below, cols=x.cols)
    start = len(both.local) - len(lower.local)
    i, j = lower.indices
    both.local[start:] = i[:, None] == j
    q = QR(both, overwrite=True).q()
    upper = x.like()
    upper.local, lower.local = q.local[:top], q.local[start:]
    before = x.local.copy()
    matmul(upper, lower, x, (a - b / c) / np.sqrt(c), b / c, tb="C")
    upper.local = np.subtract(x.local, before, out=before)
    return norms.norm(upper)


def _by_cholesky(x, a, b, c):
    """As ``_by_qr``."""
    z = syrk(x, alpha=c, trans="C")
    norms.add_diagonal(z, 1.0)
    z = cholesky(z, overwrite=True)
    y = x.copy()
    trsm(z, y, side="R", ta="C")
    trsm(z, y, side="R")
    y.local *= a - b / c
    y.local += (b / c - 1) * x.local
    x.local += y.local
    return norms.norm(y)


def _stacked(above, below):
    """Rows of one matrix and, from a new block on, those of another: an axis, whose ``below`` is that of the other."""
    both = copy.copy(above)
    both.n = above.blocks * above.nb + below.n
    both.blocks = above.blocks + below.blocks
    both.owners = np.concatenate([above.owners, below.owners])
    both.held = [np.flatnonzero(both.owners == part) for part in range(both.parts)]
    both.below = below
    return both


def _least(x):
    """The least singular value, about; 0 if it is too small to tell."""
    r = QR(x).r()
    # rows and columns of r may be dealt out in different ways; a vector is dealt as either
    v = r.like(rows=x.rows, cols=Axis(1, x.nb, x.grid.col_weights))
    stream, i = Stream(0, "linalg least singular value"), v.indices[0]
    v.local[...] = normal(stream, i, np.arange(v.local.shape[1]), 1)
    found = 0.0
    try:
        with np.errstate(all="ignore"):
            for _ in range(POWERS):
                v.local /= norms.norm(v)
                trsm(r, v, uplo="U", ta="C")
                trsm(r, v, uplo="U")
                long = norms.norm(v)
                if not 0 < long < 0.1 * np.finfo(v.local.real.dtype).max:
                    return 0.0
                found = long**-0.5
    except Singular:
        return 0.0
    return DOUBT * found


def _noise(x):
    """A matrix of normal numbers over sqrt(n): of norm 2, about, and of full rank."""
    i, j = x.indices
    return (normal(Stream(0, "linalg polar"), i, j, x.shape[1]) / np.sqrt(x.shape[1])).astype(x.local.real.dtype)


def normal(stream, i, j, n):
    """Normal numbers by row and column of a matrix of n columns, whoever makes them.

    Parameters
    ----------
    stream : Stream
    i, j : (k,), (l,) int64
    n : int

    Returns
    -------
    (k, l) float64
    """
    numbers = np.empty((len(i), len(j)))
    for row, at in enumerate(i.tolist()):
        numbers[row] = stream.normal(at * n, n)[j]
    return numbers
