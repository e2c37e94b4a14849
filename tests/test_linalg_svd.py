"""Singular values and vectors: backward errors, orthogonality at any rank, what random sampling leaves out."""

import itertools

import numpy as np
import pytest
import scipy.linalg

from brmpi.errors import BadInput
from brmpi.linalg.matrix import BlockCyclic
from brmpi.linalg.processgrid import ProcessGrid
from brmpi.linalg.svd import svd, svd_few

pytestmark = pytest.mark.mpi
C = 10  # in C max(m, n) eps
WEIGHTS = (None, (3, 1, 2, 0, 5, 1))  # by which rows and columns are dealt out


def grids(comm, only=None):
    """All shapes, dealt out equally and not; in the latter, with other weights for rows than for columns. Or one."""
    every = [one for one in itertools.product(range(1, comm.size + 1), WEIGHTS) if comm.size % one[0] == 0]
    for rows, weights in every if only is None else [every[only % len(every)]]:
        grid = ProcessGrid(comm, (rows, comm.size // rows))
        if weights:
            grid.row_weights = np.array(weights[:grid.P], dtype=float)
            grid.col_weights = np.array(weights[::-1][:grid.Q], dtype=float)
        yield grid
        grid.free()


def random(m, n, dtype="d", seed=0):
    """Normal numbers."""
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((m, n)) + (1j * rng.standard_normal((m, n)) if np.dtype(dtype).kind == "c" else 0)
    return a.astype(dtype)


def made(values, m, n, dtype="d"):
    """A matrix with these singular values."""
    k = len(values)
    return ((np.linalg.qr(random(m, k, dtype, 1))[0] * values) @ np.linalg.qr(random(n, k, dtype, 2))[0].conj().T
            ).astype(dtype)


def wrong(a, grid, nb):
    """What is wrong with the decomposition of an array, in words; nothing if nothing is."""
    (m, n), eps, k = a.shape, np.finfo(a.dtype).eps, min(a.shape)
    matrix = BlockCyclic.from_array(grid, a, nb)
    before = matrix.local.copy()
    u, s, vh = svd(matrix)
    alone = svd(matrix, vectors=False)
    size = float(np.abs(a).max(initial=0)) or 1.0
    wide = np.result_type(a.dtype, np.float64)
    u, vh, scaled, found = u.to_array().astype(wide), vh.to_array().astype(wide), (a / size).astype(wide), s / size
    exact = scipy.linalg.svdvals(scaled) if k else np.zeros(0)
    unit = C * max(m, n) * eps or 1.0
    norm = exact.max(initial=0)
    sums = {
        "unchanged": 0.0 if np.array_equal(matrix.local, before) else 9.0,
        "residual": np.linalg.norm(scaled - u * found @ vh) / (unit * norm or 1),
        "u": np.linalg.norm(u.conj().T @ u - np.eye(k)) / unit,
        "vh": np.linalg.norm(vh @ vh.conj().T - np.eye(k)) / unit,
        "values": abs(found - exact).max(initial=0) / (unit * norm or 1),
        "values alone": abs(alone / size - exact).max(initial=0) / (unit * norm or 1),
    }
    good = (u.shape == (m, k) and vh.shape == (k, n) and s.shape == (k,) and s.dtype == a.real.dtype
            and (np.diff(s) <= 0).all() and (s >= 0).all())
    bad = {name: value for name, value in sums.items() if not value <= 1}
    return [(grid.shape, grid.row_weights.tolist(), a.shape, nb, str(a.dtype), bad or "kinds")
            ] if bad or not good else []


@pytest.mark.parametrize("m,n,nb", [(0, 0, 2), (0, 3, 2), (4, 0, 1), (1, 1, 4), (1, 5, 2), (6, 1, 4), (3, 3, 1),
                                    (19, 19, 5), (13, 9, 4), (31, 17, 8), (18, 37, 7), (90, 4, 8)])
def test_shapes_grids_blocks(comm, assert_all, m, n, nb):
    bad = []
    for grid, dtype in zip(grids(comm, None if m == 13 else m + n), itertools.cycle("dFDf" if m > n else "DfdF")):
        bad += wrong(random(m, n, dtype, m), grid, nb)
    assert_all(not bad, bad[:3])


SPECIAL = {
    "zero": np.zeros((20, 20)),
    "zero tall": np.zeros((30, 7)),
    "identity": np.eye(25),
    "rank one": np.ones((30, 30)),
    "rank one wide": np.ones((12, 30), dtype="F"),
    "rank deficient": made(np.r_[np.ones(10), np.zeros(25)], 35, 35),
    "rank deficient tall": made(np.arange(5.0), 50, 20) @ np.diag(np.r_[np.ones(10), np.zeros(10)]),
    "rank deficient complex": made(np.r_[np.arange(1.0, 9), np.zeros(10)], 24, 18, "D"),
    "rank deficient single": made(np.r_[np.ones(10), np.zeros(15)], 25, 25, "f"),
    "zero columns": np.where(np.arange(24) % 3, random(30, 24), 0),
    "diagonal with zeros": np.diag([1.0, 0, 2, 0, 0, 3, 0, -4]),
    "condition 1e14": made(np.logspace(0, -14, 40), 40, 40),
    "condition 1e14 tall": made(np.logspace(0, -14, 20), 60, 20),
    "condition 1e6 single": made(np.logspace(0, -6, 30), 30, 30, "f"),
    "graded columns": random(30, 30) * 10.0 ** -np.arange(30),
    "graded rows": random(30, 30) * 10.0 ** np.arange(30)[:, None],
    "clusters": made(np.repeat([1.0, 1e-3, 1e-16], 10), 30, 30),
    "nilpotent": np.diag(np.ones(19), 1),
    "huge": random(20, 20) * 1e300,
    "tiny": random(25, 20) * 1e-300,
    "single huge": (random(20, 20) * 1e35).astype("f"),
}


@pytest.mark.parametrize("name", SPECIAL)
def test_special_matrices(comm, assert_all, name):
    bad, at = [], list(SPECIAL).index(name)
    for grid in grids(comm, at):
        bad += wrong(SPECIAL[name], grid, 3 + at % 6)
    assert_all(not bad, (name, bad[:3]))


def test_hilbert(comm, assert_all):
    """Singular values of scipy.linalg.hilbert(12) fall by sixteen orders of ten."""
    bad = []
    for grid in grids(comm, 0):
        bad += wrong(scipy.linalg.hilbert(12), grid, 2)
    assert_all(not bad, bad)


def left_out(values, k, p, q, smaller):
    """What of a matrix of these values is expected to be left out before the cut to k (Halko et al., 10.10)."""
    spread = 1 + np.sqrt(k / (p - 1)) + np.e * np.sqrt(k + p) / p * np.sqrt(smaller - k)
    return spread ** (1 / (2 * q + 1)) * values[k]


@pytest.mark.parametrize("power", [0, 2])
@pytest.mark.parametrize("dtype", "dF")
def test_few(comm, assert_all, dtype, power):
    values = 0.5 ** np.arange(40)
    k, p, eps = 6, 10, np.finfo(dtype).eps
    for number, (m, n) in enumerate(((70, 40), (40, 55))):
        a = made(values, m, n, dtype)
        for grid in grids(comm, number + 1):
            u, s, vh = svd_few(BlockCyclic.from_array(grid, a, 6), k, p, power)
            u, vh = u.to_array(), vh.to_array()
            rounding = C * max(m, n) * eps
            off = np.linalg.norm(a - u * s @ vh, 2)
            most = left_out(values, k, p, power, min(m, n)) + values[k] + rounding
            assert_all(off <= most, (off, most))
            assert_all(off >= values[k] * (1 - rounding) - rounding, "better than the best there can be")
            assert_all((s <= values[:k] + rounding).all() and (abs(s - values[:k]) <= most).all(), s)
            assert_all(np.linalg.norm(u.conj().T @ u - np.eye(k)) <= rounding)
            assert_all(np.linalg.norm(vh @ vh.conj().T - np.eye(k)) <= rounding)


def test_few_by_powers_where_values_hardly_fall(comm, assert_all):
    """Each power takes (0.6)^4 of what the sample has of the other vectors: without any, five values are far off."""
    a = made(np.r_[np.ones(5), np.full(45, 0.6)], 50, 50)
    for grid in grids(comm, 2):
        matrix = BlockCyclic.from_array(grid, a, 8)
        off = [1 - svd_few(matrix, 5, 2, power)[1].min() for power in (0, 2, 8)]
        assert_all(off[0] > 0.05 and off[1] < 0.5 * off[0] and off[2] < 1e-3, off)


def test_few_find_low_rank_exactly(comm, assert_all):
    a = made([5.0, 4, 3, 2, 1], 50, 16)
    for grid in grids(comm, 1):
        for k, oversample in ((5, 0), (5, 3), (9, 10), (0, 4)):
            u, s, vh = svd_few(BlockCyclic.from_array(grid, a, 4), k, oversample)
            u, vh = u.to_array(), vh.to_array()
            best = 5.0 if k == 0 else 0.0
            off = np.linalg.norm(a - u * s @ vh, 2)
            assert_all(off <= best + C * 50 * 2.3e-16 * 5, (k, off))


def test_few_depend_on_the_seed_alone(comm, alone, assert_all):
    """The same sample on one rank, or in another layout: values differ by rounding, which the seed's do not."""
    a = made(1 / np.arange(1.0, 31), 30, 30)
    one = ProcessGrid(alone)
    here, other = (svd_few(BlockCyclic.from_array(one, a, 7), 5, 2, 0, seed)[1] for seed in (3, 4))
    one.free()
    for grid in grids(comm):
        s = svd_few(BlockCyclic.from_array(grid, a, 8), 5, 2, 0, 3)[1]
        assert_all(abs(s - here).max() < 1e-3 * abs(other - here).max(), s)


def test_refused(comm, assert_all):
    grid = ProcessGrid(comm)
    a = BlockCyclic.from_array(grid, np.ones((4, 6)), 2)
    for arguments, words in (((5,), "k = 5: must be 0 to 4"), ((-1,), "k = -1"), ((2, -1), "oversample = -1"),
                             ((2, 1, -3), "power = -3"), ((2, 1, 1, -1), "seed = -1")):
        with pytest.raises(BadInput, match=words):
            svd_few(a, *arguments)
    bad = BlockCyclic.from_array(grid, np.array([[1.0, np.nan], [0, 1]]), 1)
    for function in (svd, lambda a: svd_few(a, 1)):
        with pytest.raises(BadInput, match="not finite"):
            function(bad)
    grid.free()
    assert_all(True)
