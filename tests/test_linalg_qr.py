"""QR: residual and orthogonality in units of n eps on every grid, dealing, block, type and shape, for any rank."""

import itertools
from importlib import import_module

import numpy as np
import pytest
from dealing import dealt, grids, numbers

from brmpi.linalg.axis import Axis
from brmpi.linalg.failures import Mismatch
from brmpi.linalg.householder import rebuilt, reflect, reflectors
from brmpi.linalg.matrix import BlockCyclic
from brmpi.linalg.processgrid import ProcessGrid
from brmpi.linalg.qr import QR, qr, tsqr
from brmpi.linalg.tall import cut

BOUND = 8  # max(m, n) eps
SHAPES = (0, 0), (0, 3), (3, 0), (1, 1), (1, 5), (5, 1), (2, 2), (7, 7), (30, 30), (41, 20), (20, 41), (17, 16), (70, 6)


def errors(a, q, r):
    """``|a - q r| / |a|`` and ``|q^H q - 1|`` in units of max(m, n) eps; infinite where r has not its form."""
    (m, n), k = a.shape, min(a.shape)
    if q.shape != (m, k) or r.shape != (k, n) or (r != np.triu(r)).any() or r.diagonal().imag.any():
        return np.inf, np.inf
    if a.dtype != q.dtype or a.dtype != r.dtype:
        return np.inf, np.inf
    unit = max(m, n, 1) * np.finfo(a.dtype).eps
    a, q, r = (x.astype(complex) for x in (a, q, r))
    size = max(np.linalg.norm(a), np.finfo(float).tiny)
    return np.linalg.norm(a - q @ r) / size / unit, np.linalg.norm(q.conj().T @ q - np.eye(k)) / unit


def signed(a):
    """NumPy's factors with a diagonal of R that is >= 0."""
    q, r = np.linalg.qr(a)
    sign = np.where(r.diagonal().real < 0, -1, 1)
    return q * sign, sign[:, None] * r


@pytest.mark.parametrize("letter", "fdFD")
@pytest.mark.parametrize("shape", [(50, 40), (40, 40), (5, 9), (1, 1), (3, 1), (100, 33), (0, 3), (3, 0)])
def test_reflectors_and_those_rebuilt_from_q(shape, letter):
    a = numbers(np.random.default_rng(1), shape, letter)
    v, t, r = reflectors(np.array(a, order="F"))
    k = len(r)
    q = reflect(v, t, np.eye(k, dtype=letter))
    assert max(errors(a, q, r)) < BOUND
    top, u, other, s = rebuilt(q[:k].copy())
    below = np.linalg.solve(u.T, q[k:].T).T if k else q[k:]
    again = np.asfortranarray(np.vstack([top, below]).astype(letter))
    off = reflect(again, other, np.eye(k, dtype=letter)) * s - q
    assert np.abs(off).max(initial=0) < BOUND * np.finfo(letter).eps * 9


def test_an_axis_cut_short():
    axis = Axis(23, 3, [3, 1, 2])
    for n in range(24):
        short = cut(axis, n, [3, 1, 2])
        for part in range(3):
            held = axis.indices(part)
            assert np.array_equal(short.indices(part), held[held < n])
            assert short.count(part) == (held < n).sum()


@pytest.mark.mpi
def test_factors_on_every_grid(comm, assert_all):
    rng, wrong = np.random.default_rng(2), []
    letters = itertools.cycle("dFfD")
    for place in grids(comm):
        for (shape, nb), letter in zip(itertools.product(SHAPES, (1, 3, 8) if comm.size < 4 else (1, 4)), letters):
            a = numbers(rng, shape, letter)
            if comm.bcast(int(rng.integers(2))):
                a[:, 1:3] = 0
            factors = QR(dealt(place, a, nb))
            found = errors(a, factors.q().to_array(), factors.r().to_array())
            if not max(found) < BOUND:
                wrong.append((place[0].shape, place[1], shape, nb, letter, found))
        next(letters)  # another type for each shape on the next grid
    assert_all(not wrong, wrong[:3])


@pytest.mark.mpi
def test_both_ways_for_tall_and_not(comm, assert_all):
    rng, wrong = np.random.default_rng(3), []
    letters = itertools.cycle("dFfD")
    shapes = (0, 0), (0, 2), (4, 0), (1, 1), (2, 5), (9, 4), (30, 30), (80, 3), (300, 7)
    for place in grids(comm):
        for shape, letter in zip(shapes, letters):
            a, held = numbers(rng, shape, letter), []
            for method in (qr, tsqr):
                q, r = method(dealt(place, a, 4))
                held.append((q.to_array(), r.to_array()))
                found = errors(a, *held[-1])
                if not (max(found) < BOUND and (held[-1][1].diagonal().real >= 0).all()):
                    wrong.append((place[0].shape, method.__name__, shape, letter, found))
            oracle = signed(a)
            unit = np.finfo(letter).eps * max(*shape, 1) * np.linalg.cond(a[:, : min(shape)]) if a.size else 1
            for one in held:
                off = max(np.abs(x - y).max(initial=0) / max(np.abs(y).max(initial=0), 1) for x, y in zip(one, oracle))
                if not off < BOUND * unit:
                    wrong.append((place[0].shape, "as NumPy's", shape, letter, off / unit))
    assert_all(not wrong, wrong[:3])


@pytest.mark.mpi
def test_signs_and_reflectors_are_lapacks(comm, assert_all):
    """V, the diagonal of T and R of a well-conditioned matrix, as geqrf returns them."""
    import scipy.linalg

    rng, wrong = np.random.default_rng(4), []
    for letter in "dF":
        a = numbers(rng, (33, 16), letter)
        (packed, tau), _ = scipy.linalg.qr(a, mode="raw")
        for place in grids(comm):
            factors = QR(dealt(place, a, 5))
            off = np.abs(factors.a.to_array() - packed).max()
            taus = [t.diagonal() for t in factors.ts]
            if len(factors.a.local) and factors.a.rows.owner(32) == place[0].p:  # which has rows to the end
                off = max(off, np.abs(np.concatenate(taus) - tau).max())
            if not off < 33 * np.finfo(letter).eps * BOUND:
                wrong.append((place[0].shape, letter, off))
    assert_all(not wrong, wrong[:3])


@pytest.mark.mpi
def test_any_rank_and_scale(comm, assert_all):
    rng, wrong, n = np.random.default_rng(5), [], 18
    u, v = np.linalg.qr(rng.standard_normal((40, n)))[0], np.linalg.qr(rng.standard_normal((n, n)))[0]
    inputs = {
        "zero": np.zeros((40, n)),
        "one column": np.outer(u[:, 0], np.ones(n)),
        "rank 5": u[:, :5] @ v[:5],
        "columns of zeros": np.where(np.arange(n) % 3, u, 0),
        "rows of zeros": np.where(np.arange(40)[:, None] % 7 == 3, u, 0),
        "zero above": np.where(np.arange(40)[:, None] > 30, u, 0),
        "near singular": (u * np.where(np.arange(n) == n - 1, 1e-16, 1)) @ v,
        "ill-conditioned": (u * np.geomspace(1, 1e-12, n)) @ v,
        "graded columns": u * np.geomspace(1, 1e-100, n),
        "graded rows": u * np.geomspace(1e-100, 1, 40)[:, None],
        "triangular": np.triu(np.vstack([v, u[:22]])),
        "wide, rank 5": v[:, :5] @ u[:, :5].T,
        "tiny": u * 1e-300,
        "huge": u * 1e300,
    }
    for place in grids(comm):
        for name, a in inputs.items():
            factors = QR(dealt(place, a, 4))
            ways = [(factors.q(), factors.r()), tsqr(dealt(place, a, 4))]
            for way, (q, r) in zip(("blocks", "tree"), ways):
                scale = np.abs(a).max() or 1
                found = errors(a / scale, q.to_array(), r.to_array() / scale)
                if name == "graded columns":  # each column on its own
                    off = np.linalg.norm(a - q.to_array() @ r.to_array(), axis=0) / np.linalg.norm(a, axis=0)
                    found = *found, off.max() / (40 * np.finfo(float).eps)
                if not max(found) < BOUND:
                    wrong.append((place[0].shape, name, way, found))
    assert_all(not wrong, wrong[:3])


@pytest.mark.mpi
def test_products_with_the_whole_q(comm, assert_all):
    rng, wrong = np.random.default_rng(6), []
    for place in grids(comm):
        for (m, n, k, nb), letter in zip(((31, 12, 9, 4), (12, 31, 5, 4), (6, 6, 0, 8), (9, 4, 30, 3)), "DdfF"):
            a, b = numbers(rng, (m, n), letter), numbers(rng, (m, k), letter)
            factors = QR(dealt(place, a, nb))
            square = factors.q(m).to_array()
            limit = BOUND * max(m, n) * np.finfo(letter).eps
            off = [np.linalg.norm(square.conj().T @ square - np.eye(m)), np.linalg.norm(
                square[:, : min(m, n)] - factors.q().to_array())]
            for ta, q in (("N", square), ("C", square.conj().T)):
                right = dealt(place, b, nb)
                same = factors.apply(right, ta)
                off.append(np.linalg.norm(same.to_array() - q @ b) / max(np.linalg.norm(b), 1))
                off.append(same is not right)
            few = factors.q(2).to_array()
            off.append(np.linalg.norm(few - square[:, :2]))
            if not max(off) < limit:
                wrong.append((place[0].shape, m, n, k, nb, letter, off, limit))
    assert_all(not wrong, wrong[:3])


@pytest.mark.mpi
def test_large_enough_for_strips(comm, assert_all, monkeypatch):
    """Sums of several strips under way, several segments of a broadcast, halves of a small elimination."""
    module = import_module("brmpi.linalg.qr")
    monkeypatch.setattr(module, "PIECE", 1000)
    monkeypatch.setattr(module, "NARROW", 20)
    monkeypatch.setattr(module, "WIDE", 30)
    rng, worst = np.random.default_rng(7), []
    a = numbers(rng, (420, 330), "d")
    for place in grids(comm):
        factors = QR(dealt(place, a, 40))
        worst.append(max(errors(a, factors.q().to_array(), factors.r().to_array())))
    assert_all(max(worst) < BOUND, worst)


@pytest.mark.mpi
def test_in_place_or_not(comm, assert_all):
    a = numbers(np.random.default_rng(8), (20, 11), "d")
    for place in grids(comm):
        held = dealt(place, a, 3)
        factors = QR(held)
        assert_all(factors.a is not held and np.array_equal(held.to_array(), a))
        qr(held), tsqr(held)
        assert_all(np.array_equal(held.to_array(), a))
        again = QR(held, overwrite=True)
        assert_all(again.a is held and np.array_equal(held.to_array(), factors.a.to_array()))


@pytest.mark.mpi
def test_what_does_not_go_together(comm):
    grid = ProcessGrid(comm)
    factors = QR(BlockCyclic.from_array(grid, np.eye(6, 4), 2))
    with pytest.raises(Mismatch, match="its rows must be dealt as those of"):
        factors.apply(BlockCyclic(grid, (5, 4), nb=2))
    with pytest.raises(Mismatch, match="dtype = float32: must be float64"):
        factors.apply(BlockCyclic(grid, (6, 4), np.float32, nb=2))
    with pytest.raises(Mismatch, match="ta = 'T': must be"):
        factors.apply(BlockCyclic(grid, (6, 4), nb=2), "T")
    with pytest.raises(Mismatch, match="columns = 7: must be 0 to 6"):
        factors.q(7)
    grid.free()
