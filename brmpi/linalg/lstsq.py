"""Least squares and least norm, by QR of a matrix of full rank."""

from copy import copy as shallow
from typing import NamedTuple

import numpy as np

from brmpi.linalg.axis import Axis
from brmpi.linalg.failures import Mismatch, Singular
from brmpi.linalg.matrix import BlockCyclic
from brmpi.linalg.norms import diagonal
from brmpi.linalg.qr import QR
from brmpi.linalg.redistribute import copy, redistribute, transpose
from brmpi.linalg.tall import cut


class LeastSquares(NamedTuple):
    """What ``lstsq`` returns.

    Attributes
    ----------
    x : (n, k) BlockCyclic
    residuals : (k,) ndarray of floats of b's precision, ``|b - a x|^2`` of each column, the same on every rank
    diagonal : (min(m, n),) ndarray of floats, that of R: the ratio of its largest to its smallest absolute value is
        not above a's condition number
    """

    x: BlockCyclic
    residuals: np.ndarray
    diagonal: np.ndarray


def lstsq(a, b, overwrite=False):
    """The x for which ``|b - a x|`` is least, column by column, and of all such the shortest. Collective.

    The matrix has to have full rank. QR without pivoting finds out that it has not where a diagonal element of R is
    nearly zero, and may not find out: use the singular value decomposition where the rank is in doubt.

    Parameters
    ----------
    a : (m, n) BlockCyclic
    b : (m, k) BlockCyclic of a's type on its grid; it is brought into a's layout where it is in another one
    overwrite : bool, whether a, where m >= n, may be used for the work; it is then of no more use

    Returns
    -------
    LeastSquares
        x, its rows dealt as the first n of a's where m >= n, and by the weights of the grid's rows where m < n;
        ``residuals``, zero where m <= n; ``diagonal``

    Raises
    ------
    Mismatch : b has other rows, another type or another grid than a
    Singular : the first index where ``|R[j, j]| <= max(m, n) eps max |R[i, i]|``
    NotEnoughMemory : no room for the factors (of the transpose, where m < n), b and two block columns
    """
    if b.shape[0] != a.shape[0]:
        raise Mismatch(f"shapes {a.shape} and {b.shape}: must have as many rows")
    if b.dtype != a.dtype:
        raise Mismatch(f"dtypes {a.dtype} and {b.dtype}: must be the same")
    if b.grid is not a.grid:
        raise Mismatch("a and b: must be on the same grid")
    if a.shape[0] >= a.shape[1]:
        return _tall(a, b, overwrite)
    return _wide(a, b)


def _tall(a, b, overwrite):
    """By ``x = R^-1 Q^H b``."""
    from brmpi.linalg.triangular import trsm

    n = a.shape[1]
    factors = QR(a, overwrite)
    pivots = _regular(factors)
    y = b.copy() if b.rows == a.rows else _moved(b, a.rows)
    factors.apply(y, "C")
    x, below = top(y, n), y.local[a.rows.before(a.grid.p, n):]
    residuals = _squares(y, below)
    x.local = x.local.copy()  # the rest of y can go
    trsm(top(factors.a, n), x, "L", "U", "N")
    return LeastSquares(x, residuals, pivots)


def _wide(a, b):
    """By ``a^H = Q R`` and ``x = Q [R^-H b; 0]``."""
    from brmpi.linalg.triangular import trsm

    m, grid = a.shape[0], a.grid
    factors = QR(transpose(a, conjugate=True), overwrite=True)
    pivots = _regular(factors)
    x = factors.a.like(rows=factors.a.rows, cols=b.cols if b.nb == a.nb else Axis(b.shape[1], a.nb, grid.col_weights))
    x.local[...] = 0
    first = top(x, m)
    copy(b, first)
    trsm(top(factors.a, m), first, "L", "U", "C")
    factors.apply(x)
    return LeastSquares(x, np.zeros(b.shape[1], dtype=a.local.real.dtype), pivots)


def _moved(b, rows):
    """b in a's layout."""
    cols = Axis(b.shape[1], rows.nb, b.grid.col_weights)
    return redistribute(b, rows=rows, cols=cols, nb=rows.nb)


def top(a, n):
    """The first n rows of a matrix, as a view.

    Parameters
    ----------
    a : BlockCyclic with n rows at least
    n : int

    Returns
    -------
    BlockCyclic, whose elements are those of a
    """
    part = shallow(a)
    part.rows = cut(a.rows, n, a.grid.row_weights)
    part.shape = n, a.shape[1]
    part.local = a.local[: part.rows.count(a.grid.p)]
    return part


def _regular(factors):
    """The diagonal of R; Singular where an element is nearly zero."""
    pivots = diagonal(factors.a).real
    if len(pivots):
        sizes = np.abs(pivots)
        small = np.flatnonzero(sizes <= max(factors.a.shape) * np.finfo(pivots.dtype).eps * sizes.max())
        if len(small):
            raise Singular(int(small[0]))
    return pivots


def _squares(b, rows):
    """Sums of squares of some local rows of each column, on every rank."""
    grid, whole = b.grid, np.zeros(b.shape[1], dtype=b.local.real.dtype)
    columns = b.cols.indices(grid.q)
    whole[columns] = np.einsum("ij,ij->j", rows.real, rows.real)
    if b.dtype.kind == "c":
        whole[columns] += np.einsum("ij,ij->j", rows.imag, rows.imag)
    told = np.empty_like(whole)
    grid.comm.Allreduce(whole, told)
    return told
