"""Polar decomposition: a = u h, orthonormal u at any rank, positive semidefinite h."""

import importlib
import itertools
from importlib import import_module

import numpy as np
import pytest
import scipy.linalg

from brmpi.linalg.failures import NoConvergence
from brmpi.linalg.matrix import BlockCyclic
from brmpi.linalg.polar import polar
from brmpi.linalg.processgrid import ProcessGrid

module = import_module("brmpi.linalg.polar")  # the package has the function by this name

module = importlib.import_module("brmpi.linalg.polar")  # the package's own name is the function's
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


def made(values, dtype="d"):
    """A square matrix with these singular values."""
    n = len(values)
    return ((np.linalg.qr(random(n, n, dtype, 1))[0] * values) @ np.linalg.qr(random(n, n, dtype, 2))[0]).astype(dtype)


def wrong(a, grid, nb, unique=False):
    """What is wrong with the decomposition of an array, in words; nothing if nothing is."""
    (m, n), eps = a.shape, np.finfo(a.dtype).eps
    matrix = BlockCyclic.from_array(grid, a, nb)
    u, h = polar(matrix)
    good = (u.rows, u.cols) == (matrix.rows, matrix.cols) and h.shape == (n, n) and u.dtype == h.dtype == a.dtype
    size = float(np.abs(a).max(initial=0)) or 1.0
    wide = np.result_type(a.dtype, np.float64)
    u, h, scaled = u.to_array().astype(wide), (h.to_array() / size).astype(wide), (a / size).astype(wide)
    inner = u.conj().T @ u if m >= n else u @ u.conj().T
    unit = C * max(m, n) * eps or 1.0
    values = scipy.linalg.svdvals(scaled) if a.size else np.zeros(1)
    norm = values[0] or 1.0
    sums = {
        "residual": np.linalg.norm(scaled - u @ h) / (unit * norm),
        "u": np.linalg.norm(inner - np.eye(len(inner))) / unit,
        "hermitian": abs(h - h.conj().T).max(initial=0) / 1e-300,
        "semidefinite": -np.linalg.eigvalsh(h).min(initial=0) / (unit * norm) if n else 0.0,
    }
    if unique:  # the factor's condition is norm / least value
        sums["beside SciPy"] = np.linalg.norm(u - scipy.linalg.polar(scaled)[0]) * values[-1] / (unit * norm)
    bad = {name: value for name, value in sums.items() if not value <= 1}
    return [(grid.shape, grid.row_weights.tolist(), a.shape, nb, str(a.dtype), bad or "kinds")
            ] if bad or not good else []


@pytest.mark.mpi
@pytest.mark.parametrize("m,n,nb", [(0, 0, 2), (0, 3, 2), (4, 0, 1), (1, 1, 4), (1, 5, 2), (6, 1, 4), (19, 19, 5),
                                    (13, 9, 4), (31, 17, 8), (18, 37, 7)])
def test_shapes_grids_blocks(comm, assert_all, m, n, nb):
    bad = []
    for grid, dtype in zip(grids(comm, None if m == 13 else m + n), itertools.cycle("dFDf" if m > n else "DfdF")):
        bad += wrong(random(m, n, dtype, m), grid, nb, unique=bool(m and n))
    assert_all(not bad, bad[:3])


SPECIAL = {
    "zero": np.zeros((20, 20)),
    "zero wide": np.zeros((7, 20), dtype="F"),
    "identity": np.eye(25),
    "minus identity": -3 * np.eye(15),
    "orthogonal": made(np.ones(30)),
    "rank one": np.ones((30, 30)),
    "rank one tall": np.ones((40, 12)),
    "rank deficient": made(np.r_[np.ones(10), np.zeros(25)]),
    "rank deficient complex": made(np.r_[np.arange(1.0, 9), np.zeros(10)], "D"),
    "rank deficient single": made(np.r_[np.ones(10), np.zeros(15)], "f"),
    "diagonal with zeros": np.diag([1.0, 0, 2, 0, 0, 3, 0, -4]),
    "condition 1e14": made(np.logspace(0, -14, 40)),
    "condition 1e6 single": made(np.logspace(0, -6, 30), "f"),
    "one small": made(np.r_[np.ones(30), 1e-13]),
    "graded columns": random(30, 30) * 10.0 ** -np.arange(30),
    "nilpotent": np.diag(np.ones(19), 1),
    "huge": random(20, 20) * 1e300,
    "tiny": random(20, 20) * 1e-300,
}


@pytest.mark.mpi
@pytest.mark.parametrize("name", SPECIAL)
def test_special_matrices(comm, assert_all, name):
    bad, at = [], list(SPECIAL).index(name)
    for grid in grids(comm, at):
        bad += wrong(SPECIAL[name], grid, 3 + at % 6)
    assert_all(not bad, (name, bad[:3]))


@pytest.mark.mpi
def test_steps(comm, assert_all, monkeypatch):
    """Six, however ill the condition; one more where the least value was thought to be larger than it is."""
    taken = []
    for name in ("_by_qr", "_by_cholesky"):
        step = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *given, step=step: taken.append(step) or step(*given))
    for values in (np.ones(20), np.linspace(1, 2, 20), np.logspace(0, -8, 20), np.logspace(0, -15.5, 20)):
        for grid in grids(comm, -1):
            taken.clear()
            polar(BlockCyclic.from_array(grid, made(values), 4))
            assert_all(len(taken) <= 7, len(taken))


@pytest.mark.mpi
@pytest.mark.parametrize("nb", [3, 8])
def test_large_and_small_rows_over_all_ranks(comm, assert_all, nb):
    """Where c is large, rows of very different size meet in the tree of QR."""
    rng, bad = np.random.default_rng(1), []
    for grid in grids(comm):
        for a in (SPECIAL["rank deficient"], random(30, 30) * np.where(rng.random(30) < 0.2, 1e16, 1)[:, None]):
            bad += wrong(a, grid, nb)
    assert_all(not bad, bad[:3])


@pytest.mark.mpi
def test_no_convergence_is_named(comm, assert_all):
    for grid in grids(comm, 0):
        a = random(9, 9)
        a[4, 2] = np.nan
        with pytest.raises(NoConvergence, match="9 x 9"):
            polar(BlockCyclic.from_array(grid, a, 2))
    assert_all(True)


def test_weights_take_the_interval_to_one():
    """Six steps from the least number of double precision (Nakatsukasa, Bai & Gygi 2010, section 3)."""
    least, steps = 1e-16, 0
    while abs(1 - least) > 1e-15:
        x = np.geomspace(least, 1, 1000)
        step = module._weights(least)
        values, after = module._mapped(x, *step), module._mapped(least, *step)
        assert values.min() >= after * (1 - 1e-12) and values.max() <= 1 + 1e-12
        least, steps = min(after, 1), steps + 1
    assert steps == 6
