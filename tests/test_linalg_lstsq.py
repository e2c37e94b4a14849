"""Least squares and least norm: normal equations in units of n eps, the shortest solution, what is singular."""

import itertools

import numpy as np
import pytest
from dealing import dealt, grids, numbers

from brmpi.linalg.failures import Mismatch, Singular
from brmpi.linalg.lstsq import lstsq
from brmpi.linalg.matrix import BlockCyclic
from brmpi.linalg.processgrid import ProcessGrid

BOUND = 8  # max(m, n) eps


def errors(a, b, found):
    """Backward errors of a solution in units of max(m, n) eps.

    Tall: ``|a^H r| / (|a| (|a| |x| + |b|))``. Wide: ``|r| / (|a| |x| + |b|)``, and what of x is not in a's row space.
    The error of the residuals, in the same units of ``|b|^2``.
    """
    (m, n), k, x = a.shape, b.shape[1], found.x.to_array()
    unit = max(m, n) * np.finfo(a.dtype).eps
    if x.shape != (n, k) or x.dtype != a.dtype or found.residuals.shape != (k,):
        return [np.inf]
    a, b, x = (one.astype(complex) for one in (a, b, x))
    r, norm = b - a @ x, np.linalg.norm
    size = norm(a) * norm(x) + norm(b) or 1
    squares = np.abs(norm(r, axis=0) ** 2 - found.residuals).max(initial=0) / size**2 / unit
    if m >= n:
        return [norm(a.conj().T @ r) / norm(a) / size / unit if n and m else 0, squares]
    rows = np.linalg.qr(a.conj().T)[0]
    return [norm(r) / size / unit, norm(x - rows @ (rows.conj().T @ x)) / (norm(x) or 1) / unit, squares]


@pytest.mark.mpi
def test_least_squares_and_least_norm(comm, assert_all):
    rng, wrong = np.random.default_rng(1), []
    shapes = (1, 1, 1), (5, 5, 2), (9, 1, 3), (30, 20, 4), (31, 30, 0), (60, 7, 9), (1, 6, 2), (7, 9, 1), (20, 41, 11)
    cases = [(shape, nb) for shape in shapes for nb in (1, 3, 8) if nb > 1 or max(shape) < 10]
    letters = itertools.cycle("dFfD")
    for place in grids(comm):
        for ((m, n, k), nb), letter in zip(cases, letters):
            a, b = numbers(rng, (m, n), letter), numbers(rng, (m, k), letter)
            held, right = dealt(place, a, nb), dealt(place, b, nb)
            found = lstsq(held, right)
            off = errors(a, b, found)
            kept = np.array_equal(held.to_array(), a) and np.array_equal(right.to_array(), b)
            oracle = np.linalg.lstsq(a, b, rcond=None)[0] if k else np.zeros((n, 0))
            far = np.linalg.norm(found.x.to_array() - oracle) / max(np.linalg.norm(oracle), 1)
            far /= max(m, n) * np.finfo(letter).eps * np.linalg.cond(a) ** 2
            if not (max(off) < BOUND and far < BOUND and kept):
                wrong.append((place[0].shape, m, n, k, nb, letter, off, far, kept))
        next(letters)
    assert_all(not wrong, wrong[:3])


@pytest.mark.mpi
def test_nothing(comm, assert_all):
    for place in grids(comm):
        for m, n, k in ((0, 0, 0), (0, 0, 2), (4, 0, 2), (0, 3, 2), (0, 3, 0), (4, 2, 0)):
            a, b = np.eye(m, n), np.ones((m, k))
            found = lstsq(dealt(place, a, 2), dealt(place, b, 2))
            squares = np.full(k, float(m)) if n == 0 else np.zeros(k)
            good = np.array_equal(found.x.to_array(), np.zeros((n, k)))
            assert_all(good and np.array_equal(found.residuals, squares), (m, n, k))


@pytest.mark.mpi
def test_ill_conditioned_and_graded(comm, assert_all):
    rng, wrong, n = np.random.default_rng(2), [], 15
    u, v = np.linalg.qr(rng.standard_normal((40, n)))[0], np.linalg.qr(rng.standard_normal((n, n)))[0]
    near = (u * np.geomspace(1, 1e-12, n)) @ v
    graded = rng.standard_normal((40, n)) * np.geomspace(1, 1e-8, n)
    b = rng.standard_normal((40, 3))
    for place in grids(comm):
        for name, a, right in (("near", near, b), ("graded", graded, b), ("wide", near.T, b[:n])):
            found = lstsq(dealt(place, a, 4), dealt(place, right, 4))
            off = errors(a, right, found)[: 1]
            spread = np.abs(found.diagonal).max() / np.abs(found.diagonal).min()
            if not (max(off) < BOUND and spread < 1.01 * np.linalg.cond(a)):
                wrong.append((place[0].shape, name, off, spread))
    assert_all(not wrong, wrong[:3])


@pytest.mark.mpi
def test_an_exact_solution_leaves_nothing(comm, assert_all):
    rng = np.random.default_rng(3)
    a, x = rng.standard_normal((30, 9)), rng.standard_normal((9, 2))
    for place in grids(comm):
        found = lstsq(dealt(place, a, 4), dealt(place, a @ x, 4))
        assert_all(found.residuals.max() < (30 * np.finfo(float).eps * BOUND * np.linalg.norm(a @ x)) ** 2)
        assert_all(np.abs(found.x.to_array() - x).max() < BOUND * 30 * np.finfo(float).eps * np.linalg.cond(a))


@pytest.mark.mpi
def test_what_has_not_full_rank(comm, assert_all):
    rng, wrong = np.random.default_rng(4), []
    twice = rng.standard_normal((20, 9))
    twice[:, 5] = twice[:, 2] * 3
    zero = rng.standard_normal((20, 9))
    zero[:, 7] = 0
    inputs = (twice, 5), (zero, 7), (np.zeros((6, 4)), 0), (twice.T.copy(), 5), (np.zeros((1, 3)), 0)
    for place in grids(comm):
        for a, pivot in inputs:
            try:
                lstsq(dealt(place, a, 4), dealt(place, np.ones((len(a), 2)), 4))
                found = None
            except Singular as error:
                found = error.pivot
            if found != pivot:
                wrong.append((place[0].shape, a.shape, found, pivot))
    assert_all(not wrong, wrong[:3])


@pytest.mark.mpi
def test_right_sides_in_another_layout_and_work_in_place(comm, assert_all):
    rng = np.random.default_rng(5)
    for a in (rng.standard_normal((25, 8)), rng.standard_normal((8, 25))):
        b = rng.standard_normal((len(a), 6))
        for place in grids(comm):
            other = place[0], np.ones(place[0].P), np.ones(place[0].Q)
            found = lstsq(dealt(place, a, 4), dealt(other, b, 3), overwrite=True)
            assert_all(max(errors(a, b, found)) < BOUND, errors(a, b, found))


@pytest.mark.mpi
def test_what_does_not_go_together(comm):
    grid, other = ProcessGrid(comm), ProcessGrid(comm)
    a = BlockCyclic(grid, (4, 3))
    with pytest.raises(Mismatch, match=r"shapes \(4, 3\) and \(5, 1\): must have as many rows"):
        lstsq(a, BlockCyclic(grid, (5, 1)))
    with pytest.raises(Mismatch, match="dtypes float64 and complex128"):
        lstsq(a, BlockCyclic(grid, (4, 1), complex))
    with pytest.raises(Mismatch, match="must be on the same grid"):
        lstsq(a, BlockCyclic(other, (4, 1)))
    for one in (grid, other):
        one.free()
