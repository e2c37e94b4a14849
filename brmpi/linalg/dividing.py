"""Eigenvalues and eigenvectors of a tridiagonal matrix by divide and conquer over ranks.

The matrix is torn where one rank's rows end and the next one's begin; each rank solves its piece by LAPACK's ``stedc``,
and pieces are merged two by two (Cuppen, Numer. Math. 36, 1981; Gu & Eisenstat, SIAM J. Matrix Anal. Appl. 15 and 16,
1994 and 1995; the details as in LAPACK's ``laed2`` to ``laed4``). A merge makes new vectors out of old ones, Q U, with
``U_ij = z_i / (d_i - lambda_j)`` known from a few numbers for each i and j. A rank has the elements of all vectors that
belong to its own rows: it makes U a panel at a time, out of these numbers, and multiplies. No part of Q or U is ever
sent: ranks share the roots of the secular equation among them and tell each other two numbers for each.
"""

from math import sqrt

import numpy as np

from brmpi import partition
from brmpi.linalg import blas
from brmpi.linalg.failures import Mismatch, NoConvergence

PANEL = 256  # roots whose vectors are made at once
LARGEST = 46_000  # rows of a leaf: LAPACK counts its work space, n**2, in 32 bits


class _Node:
    """A part of the matrix that one or more ranks have solved: eigenvalues, in the order in which ``strip[first:end]``
    has their vectors, or what this rank has of them."""

    def __init__(self, first, values):
        self.first, self.values = first, values
        self.end = first + len(values)


def conquer(diagonal, off, ends, comm):
    """Solve for all values and vectors. Collective.

    Parameters
    ----------
    diagonal : (n,) float32 or float64, the same on every rank
    off : (n - 1,) of the same dtype, below it; both are small enough for their squares not to overflow
    ends : (ranks + 1,) int64: rank r has elements ``ends[r]`` to ``ends[r + 1]`` of the vectors
    comm : communicator

    Returns
    -------
    (n,) values ascending, and (n,) int64, which of the vectors belongs to each, the same on every rank
    (n, elements here) vectors, one a row

    Raises
    ------
    NoConvergence : LAPACK has not found the eigenvalues of a piece, or a root
    Mismatch : more than 46,000 rows on one rank
    """
    n, counts = len(diagonal), np.diff(ends)
    if max(counts) > LARGEST:
        raise Mismatch(f"n = {n}: a rank must have at most {LARGEST} rows, and one has {max(counts)}")
    first, end = ends[comm.rank], ends[comm.rank + 1]
    strip = np.zeros((n, end - first), dtype=diagonal.dtype)
    holders = np.flatnonzero(counts)
    group = comm.Split(0 if end > first else 1, comm.rank)
    try:
        values = np.empty(n, dtype=diagonal.dtype)
        if end > first:
            piece = diagonal[first:end].copy()
            if first:
                piece[0] -= abs(off[first - 1])
            if end < n:
                piece[-1] -= abs(off[end - 1])
            leaf, failed = _leaf(piece, off[first: end - 1], strip[first:end])
            if not group.allreduce(failed):
                values = _merged(group, ends[holders], _Node(first, leaf), off, strip, counts[holders]).values
            else:
                values[:] = np.nan
    finally:
        group.Free()
    comm.Bcast(values, holders[0])
    if np.isnan(values).any():
        raise NoConvergence(f"divide and conquer of a tridiagonal matrix of order {n}: eigenvalues were not found")
    order = np.argsort(values, kind="stable")
    return values[order], order, strip


def values(diagonal, off, comm):
    """Solve for the values alone. Collective.

    Parameters
    ----------
    diagonal, off : as in ``conquer``
    comm : communicator

    Returns
    -------
    (n,) ascending, the same on every rank

    Raises
    ------
    NoConvergence : LAPACK has not found them
    """
    found, info = diagonal.copy(), np.zeros(1, dtype=np.int32)
    if comm.rank == 0:
        blas.call(blas.lapack("sterf", found.dtype), len(found), found, off.copy(), info)
        if info[0]:
            found[:] = np.nan
    comm.Bcast(found, 0)
    if np.isnan(found).any():
        raise NoConvergence(f"QR iteration of a tridiagonal matrix of order {len(found)}: eigenvalues were not found")
    return found


def _leaf(diagonal, off, vectors):
    """Values, and whether they were not found; ``vectors`` (m, m) is filled, one a row."""
    m, info = len(diagonal), np.zeros(1, dtype=np.int32)
    work, whole = np.empty(1 + 4 * m + m * m, dtype=diagonal.dtype), np.empty(3 + 5 * m, dtype=np.int32)
    held = np.empty((m, m), dtype=diagonal.dtype) if not vectors.flags.c_contiguous else vectors
    blas.call(blas.lapack("stedc", diagonal.dtype), "I", m, diagonal, np.append(off, off[:0]), held, m, work, len(work),
              whole, len(whole), info)
    if held is not vectors:
        vectors[...] = held
    return diagonal, bool(info[0])


def _merged(group, firsts, leaf, off, strip, weights):
    """The whole of a group of ranks out of their leaves."""
    if group.size == 1:
        return leaf
    half = group.size // 2
    low = group.rank < half
    part = group.Split(0 if low else 1, group.rank)
    own = slice(0, half) if low else slice(half, None)
    try:
        node = _merged(part, firsts[own], leaf, off, strip, weights[own])
    finally:
        part.Free()
    cut = int(firsts[half])
    sizes = np.array([node.end - node.first], dtype=np.int64)
    sizes = [int(group.bcast(sizes[0], root)) for root in (half - 1, half)]
    sides = [np.empty((2, size), dtype=strip.dtype) for size in sizes]  # values, and what the tear touches of vectors
    if group.rank in (half - 1, half):
        sides[not low][:] = node.values, strip[node.first: node.end, -1 if low else 0]
    for side, root in zip(sides, (half - 1, half)):
        group.Bcast(side, root)
    beta = off[cut - 1]
    return _merge(group, int(firsts[0]), sides, beta, strip, low, weights)


def _merge(group, first, sides, beta, strip, low, weights):
    """One node out of two that a tear of height ``beta`` parts. Names are those of the papers."""
    d, z = np.concatenate(sides, axis=1)
    if np.isnan(d).any():
        return _Node(first, d)
    side = np.repeat(np.array([1, 2]), [part.shape[1] for part in sides])  # which half's rows a vector has: 1, 2 or 3
    if beta < 0:
        z[side == 2] *= -1
    z /= np.sqrt(z.dtype.type(2))  # each half's row is a unit vector
    rho = 2 * abs(beta)
    mine = strip[first: first + len(d)]
    kept = _deflated(d, z, rho, side, mine)
    if not len(kept):
        return _Node(first, d)
    poles, zeta = d[kept], z[kept]
    anchors, taus = _roots(group, poles, zeta, rho, weights)
    zeta = _consistent(group, poles, zeta, anchors, taus, weights)
    d[kept] = poles[anchors] + taus
    # What the other half's vectors have here is zero; they count for the norms alone.
    here = side[kept] & (1 if low else 2) > 0
    old = mine[kept[here]]
    for at in range(0, len(kept), PANEL):
        chosen = slice(at, at + PANEL)
        anchor, tau = poles[anchors[chosen], None], taus[chosen, None]
        u = zeta[here] / ((poles[here] - anchor) - tau)
        other = zeta[~here] / ((poles[~here] - anchor) - tau)
        u /= np.sqrt(np.einsum("ij,ij->i", u, u) + np.einsum("ij,ij->i", other, other))[:, None]
        mine[kept[chosen]] = u @ old
    return _Node(first, d)


def _deflated(d, z, rho, side, vectors):
    """Which values the tear changes, ascending, their poles apart; d, z, side and vectors are rotated where poles are
    not (LAPACK's ``laed2``)."""
    order = np.argsort(d, kind="stable")
    unit = np.finfo(d.dtype).eps / 2
    tol = 8 * float(unit) * max(float(abs(d).max()), float(abs(z).max()))
    rho = float(rho)
    kept, last = [], None
    small = (rho * abs(z.astype(np.float64)) <= tol).tolist()
    for index in order.tolist():
        if small[index]:
            continue
        if last is not None:
            c, s = float(z[index]), -float(z[last])
            long = sqrt(c * c + s * s)
            c, s = c / long, s / long
            below, above = float(d[last]), float(d[index])
            if abs((above - below) * c * s) <= tol:
                z[index], z[last] = long, 0
                d[last], d[index] = below * c * c + above * s * s, below * s * s + above * c * c
                vectors[[last, index]] = np.array([[c, s], [-s, c]], dtype=d.dtype) @ vectors[[last, index]]
                side[last] = side[index] = side[last] | side[index]
            else:
                kept.append(last)
        last = index
    return np.array(kept if last is None else [*kept, last], dtype=np.int64)


def _roots(group, poles, z, rho, weights):
    """Roots of the secular equation, each as a pole and what has to be added to it, from all ranks' shares."""
    k, dtype = len(poles), poles.dtype
    ends = partition.offsets(partition.shares(k, weights))
    found = np.empty((ends[group.rank + 1] - ends[group.rank], 2), dtype=dtype)
    solve, info = blas.lapack("laed4", dtype), np.zeros(1, dtype=np.int32)
    delta, root, height = np.empty(k, dtype=dtype), np.empty(1, dtype=dtype), np.array([rho], dtype=dtype)
    for row, at in zip(found, range(ends[group.rank], ends[group.rank + 1])):
        if k <= 2:
            row[:] = _few(poles.tolist(), z.tolist(), float(rho), at)
            continue
        blas.call(solve, k, at + 1, poles, z, delta, height, root, info)
        near = at if at == k - 1 or abs(delta[at]) <= abs(delta[at + 1]) else at + 1
        row[:] = near, np.nan if info[0] else -delta[near]
    every = np.empty((k, 2), dtype=dtype)
    group.Allgatherv(found, (every, 2 * np.diff(ends)))
    return every[:, 0].astype(np.int64), every[:, 1].copy()


def _few(d, z, rho, at):
    """A root of the secular equation with one or two poles, as ``laed4`` leaves it to ``laed5``."""
    if len(d) == 1:
        return 0, rho * z[0] * z[0]
    gap, first, second = d[1] - d[0], rho * z[0] * z[0], rho * z[1] * z[1]
    if at == 0 and 1 + 2 * (second - first) / gap > 0:
        b, c = gap + first + second, first * gap
        return 0, 2 * c / (b + sqrt(abs(b * b - 4 * c)))
    b, c = first + second - gap, second * gap
    wide = sqrt(b * b + 4 * c)
    if at == 0:
        return 1, -2 * c / (b + wide) if b > 0 else (b - wide) / 2
    return 1, (b + wide) / 2 if b > 0 else 2 * c / (wide - b)


def _consistent(group, poles, z, anchors, taus, weights):
    """The z of which the computed roots are the exact ones (Gu & Eisenstat 1994), so that vectors are orthogonal."""
    k = len(poles)
    ends = partition.offsets(partition.shares(k, weights))
    product = np.ones(k, dtype=poles.dtype)
    for at in range(ends[group.rank], ends[group.rank + 1], PANEL):
        chosen = np.arange(at, min(at + PANEL, ends[group.rank + 1]))
        ratio = (poles - poles[anchors[chosen], None]) - taus[chosen, None]
        apart = poles - poles[chosen, None]
        apart[np.arange(len(chosen)), chosen] = 1
        ratio /= apart
        product *= np.prod(ratio, axis=0)
    from mpi4py import MPI

    group.Allreduce(MPI.IN_PLACE, product, MPI.PROD)
    return np.copysign(np.sqrt(abs(product)), z)
