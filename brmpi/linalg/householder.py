"""Householder reflectors of one rank, as LAPACK has them, and those that stand for a given Q.

k reflectors are held as V (rows, k), unit lower trapezoidal, and T (k, k), upper triangular: ``H = I - V T V^H`` is
unitary, and ``H [R; 0]`` is what was factored. The diagonal of R is real.
"""

import ctypes

import numpy as np

from brmpi.linalg import blas

NARROW = 16  # columns that are eliminated one by one


def reflectors(block):
    """Reflectors that make an upper trapezoid of a block.

    Parameters
    ----------
    block : (m, n) ndarray, column by column; V takes the place of its first columns

    Returns
    -------
    v : (m, k) view of block, where k = min(m, n)
    t : (k, k) ndarray, column by column
    r : (k, n) ndarray, column by column, upper trapezoidal
    """
    (m, n), dtype = block.shape, block.dtype
    k = min(m, n)
    t = np.zeros((k, k), dtype=dtype, order="F")
    if k:
        work, info = np.empty(k * n, dtype=dtype), ctypes.c_int()
        blas.call(blas.lapack("geqrt", dtype), m, n, k, block, m, t, k, work, info)
    r = np.array(np.triu(block[:k]), order="F")
    v = block[:, :k]
    unit_lower(v)
    return v, np.asfortranarray(np.triu(t)), r


def columnwise(a):
    """A copy column by column, made in pieces that stay in the cache.

    Parameters
    ----------
    a : (m, n) ndarray

    Returns
    -------
    (m, n) ndarray
    """
    held = np.empty(a.shape, dtype=a.dtype, order="F")
    for at in range(0, len(a), 256):
        held[at: at + 256] = a[at: at + 256]
    return held


def unit_lower(v):
    """Ones on the diagonal, and zeros above it, in place.

    Parameters
    ----------
    v : (m, k) ndarray, m >= k
    """
    k = v.shape[1]
    v[:k][np.triu_indices(k, 1)] = 0
    v[np.arange(k), np.arange(k)] = 1


def reflect(v, t, c, out=None, first=0):
    """``H [c; 0]``, or its rows from some one on.

    Parameters
    ----------
    v : (m, k) ndarray, column by column
    t : (k, k) ndarray, upper triangular, column by column
    c : (h, n) ndarray, h <= k
    out : (m - first, n) ndarray, with a contiguous dimension, that the result is to be in; None for a new one
    first : int

    Returns
    -------
    (m - first, n) ndarray
    """
    (m, k), (h, n) = v.shape, c.shape
    work = np.empty((k, n), dtype=v.dtype, order="F")
    blas.gemm(1, v[:h], c, 0, work, ta="C")
    blas.trmm("L", "U", "N", "N", 1, t, work)
    if out is None:
        out = np.empty((m - first, n), dtype=v.dtype, order="F")
    blas.gemm(-1, v[first:], work, 0, out)
    out[: max(h - first, 0)] += c[first:]
    return out


def signed_lu(q):
    """``q - diag(s) = l u`` where each sign is against the pivot's, so that no pivot is small; in place.

    Parameters
    ----------
    q : (k, k) ndarray, the top of a matrix with orthonormal columns; l, below the diagonal (which is ones), and u
        take its place

    Returns
    -------
    (k,) ndarray of 1 and -1

    Source: Ballard, Demmel, Grigori, Jacquelin, Nguyen, Solomonik, Reconstructing Householder vectors from tall-skinny
    QR (2014). The signs are real for complex matrices too: R keeps its real diagonal.
    """
    s = np.empty(len(q), dtype=q.real.dtype)
    _eliminate(q, s, 0, len(q))
    return s


def _eliminate(q, s, first, end):
    """Columns first to end of what is left of q, halves first, so that most of it is matrix products."""
    if end - first <= NARROW:
        for j in range(first, end):
            s[j] = -1 if q[j, j].real >= 0 else 1
            q[j, j] -= s[j]
            q[j + 1:, j] /= q[j, j]
            q[j + 1:, j + 1: end] -= np.multiply.outer(q[j + 1:, j], q[j, j + 1: end])
        return
    middle = (first + end) // 2
    _eliminate(q, s, first, middle)
    left, right = slice(first, middle), slice(middle, end)
    blas.trsm("L", "L", "N", "U", 1, q[left, left], q[left, right])
    blas.gemm(-1, q[middle:, left], q[left, right], 1, q[middle:, right])
    _eliminate(q, s, middle, end)


def rebuilt(q):
    """Reflectors that stand for a matrix with orthonormal columns, from its first rows.

    Parameters
    ----------
    q : (k, k) ndarray, the first rows; overwritten

    Returns
    -------
    v, u, t : (k, k) ndarrays; the rows of V below are those of the matrix, times the inverse of u
    s : (k,) ndarray of 1 and -1: the matrix is that of the first k columns of H times ``diag(s)``
    """
    s = signed_lu(q)
    v, u = q, np.triu(q)
    t = np.array(-u * s, order="F")
    blas.trsm("R", "L", "C", "U", 1, v, t)
    unit_lower(v)
    return v, u, np.asfortranarray(np.triu(t)), s
