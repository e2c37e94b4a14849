"""Cholesky factors: residuals in units of n eps on every grid, dealing, block and type; which minor is not positive."""

import itertools
from importlib import import_module

import numpy as np
import pytest
import scipy.linalg
from dealing import dealt, grids, numbers

from brmpi.linalg.cholesky import cholesky, cholesky_solve
from brmpi.linalg.failures import Mismatch, NotPositiveDefinite
from brmpi.linalg.matrix import BlockCyclic
from brmpi.linalg.processgrid import ProcessGrid

BOUND = 4  # n eps


def definite(rng, n, letter):
    """A well-conditioned positive definite matrix."""
    x = numbers(rng, (n, n), letter)
    return (x @ x.conj().T + n * np.eye(n)).astype(letter)


def lower_only(s):
    """Nothing but its lower triangle, and a diagonal that has an imaginary part where it can."""
    a = np.tril(s) + np.triu(np.full(s.shape, np.nan, s.dtype), 1)
    if s.dtype.kind == "c":
        a += 1j * np.diag(np.arange(len(s)))
    return a.astype(s.dtype)


def residual(s, lower):
    """``|s - l l^H|`` in units of ``n eps |s|``."""
    n, eps = len(s), np.finfo(s.dtype).eps
    off = s.astype(complex) - lower.astype(complex) @ lower.conj().T.astype(complex)
    return np.linalg.norm(off) / (max(n, 1) * eps * max(np.linalg.norm(s), np.finfo(s.dtype).tiny))


@pytest.mark.mpi
def test_factors_on_every_grid(comm, assert_all):
    rng, wrong = np.random.default_rng(1), []
    cases = [(n, nb, letter) for n, nb in itertools.product((0, 1, 2, 7, 30, 53), (1, 3, 8, 13))
             for letter in ("fdFD" if nb == 8 else "dF"[n % 2])]
    for place in grids(comm):
        for n, nb, letter in cases:
            s = definite(rng, n, letter)
            factor = cholesky(dealt(place, lower_only(s), nb))
            lower = factor.to_array()
            good = residual(s, lower) < BOUND and np.array_equal(lower, np.tril(lower))
            good &= (lower.diagonal().imag == 0).all() and (lower.diagonal().real > 0).all()
            if not good:
                wrong.append((place[0].shape, n, nb, letter, residual(s, lower)))
    assert_all(not wrong, wrong[:3])


@pytest.mark.mpi
def test_large_enough_for_pieces(comm, assert_all, monkeypatch):
    """Messages looked at in between, strips cut, several segments of a broadcast."""
    module = import_module("brmpi.linalg.cholesky")
    monkeypatch.setattr(module, "PIECE", 10_000)
    rng, worst = np.random.default_rng(2), 0
    s = definite(rng, 400, "d")
    for place in grids(comm):
        lower = cholesky(dealt(place, lower_only(s), 24)).to_array()
        worst = max(worst, residual(s, lower))
        worst = max(worst, np.abs(lower - scipy.linalg.cholesky(s, lower=True)).max() / (400 * 2e-16 * 40))
    assert_all(worst < BOUND, worst)


@pytest.mark.mpi
def test_graded_and_ill_conditioned(comm, assert_all):
    rng, wrong, n = np.random.default_rng(3), [], 40
    q = np.linalg.qr(rng.standard_normal((n, n)))[0]
    near = (q * np.geomspace(1, 1e-12, n)) @ q.T
    grade = np.geomspace(1, 1e-30, n)
    graded = definite(rng, n, "d") * grade[:, None] * grade
    for place in grids(comm):
        lower = cholesky(dealt(place, near, 8)).to_array()
        if not residual(near, lower) < BOUND:
            wrong.append((place[0].shape, "near", residual(near, lower)))
        lower = cholesky(dealt(place, graded, 8)).to_array()
        off = np.abs(graded - lower @ lower.T) / np.outer(grade, grade)  # Cholesky does not care for scales
        if not off.max() < BOUND * n * np.finfo(float).eps * 2 * n:
            wrong.append((place[0].shape, "graded", off.max()))
    assert_all(not wrong, wrong[:3])


@pytest.mark.mpi
def test_the_first_minor_that_is_not_positive(comm, assert_all):
    rng, wrong, n = np.random.default_rng(4), [], 21
    for place, letter in zip(grids(comm), itertools.cycle("dFfD")):
        for bad, kind in itertools.product((0, 1, 7, 8, 13, n - 1), ("negative", "nan", "row")):
            s = definite(rng, n, letter)
            if kind == "negative":
                s[bad, bad] = -1
            elif kind == "nan":
                s[bad, bad] = np.nan
            else:
                s[bad, bad // 2] = np.nan  # of the lower triangle
            if kind == "negative" and bad + 3 < n:
                s[bad + 3, bad + 3] = np.nan  # what comes after is not looked at
            for nb in (1, 8):
                try:
                    cholesky(dealt(place, lower_only(s), nb))
                    found = None
                except NotPositiveDefinite as error:
                    found = error.minor
                if found != bad + 1:
                    wrong.append((place[0].shape, letter, bad, kind, nb, found))
    assert_all(not wrong, wrong[:3])


@pytest.mark.mpi
def test_zero_and_semidefinite(comm, assert_all):
    last = 4 * np.eye(9)
    last[8, 8] = 0
    for place in grids(comm):
        for array, minor in ((np.zeros((9, 9)), 1), (np.ones((9, 9)), 2), (last, 9)):
            with pytest.raises(NotPositiveDefinite) as caught:
                cholesky(dealt(place, array, 2))
            assert_all(caught.value.minor == minor, f"{place[0].shape} {caught.value.minor} {minor}")


@pytest.mark.mpi
def test_in_place_or_not(comm, assert_all):
    s = definite(np.random.default_rng(5), 20, "d")
    for place in grids(comm):
        a = dealt(place, s, 3)
        factor = cholesky(a)
        assert_all(factor is not a and np.array_equal(a.to_array(), s))
        same = cholesky(a, overwrite=True)
        assert_all(same is a and np.array_equal(same.to_array(), factor.to_array()))


@pytest.mark.mpi
def test_solutions(comm, assert_all):
    rng, wrong = np.random.default_rng(6), []
    for place in grids(comm):
        for n, k, nb, letter in ((0, 2, 3, "d"), (1, 1, 8, "F"), (29, 5, 3, "f"), (29, 0, 3, "d"), (40, 17, 8, "D")):
            s, b = definite(rng, n, letter), numbers(rng, (n, k), letter)
            right = dealt(place, b, nb)
            x = cholesky_solve(cholesky(dealt(place, s, nb)), right).to_array()
            limit = BOUND * n * np.finfo(letter).eps * np.linalg.norm(s) * np.linalg.norm(x)
            if not (np.linalg.norm(b - s @ x) <= limit and np.array_equal(right.to_array(), b)):
                wrong.append((place[0].shape, n, k, nb, letter, np.linalg.norm(b - s @ x), limit))
    assert_all(not wrong, wrong[:3])


@pytest.mark.mpi
def test_what_does_not_go_together(comm):
    grid = ProcessGrid(comm)
    with pytest.raises(Mismatch, match=r"shape = \(3, 4\): must be square"):
        cholesky(BlockCyclic(grid, (3, 4)))
    lower = BlockCyclic(grid, (4, 4))
    with pytest.raises(Mismatch, match=r"shapes \(4, 4\) and \(3, 4\)"):
        cholesky_solve(lower, BlockCyclic(grid, (3, 4)))
    with pytest.raises(Mismatch, match="dtypes float64 and float32"):
        cholesky_solve(lower, BlockCyclic(grid, (4, 1), np.float32))
    grid.free()
