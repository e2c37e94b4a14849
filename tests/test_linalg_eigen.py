"""Eigenvalues and vectors of symmetric and hermitian matrices: backward errors, orthogonality, known spectra."""

import itertools

import numpy as np
import pytest
import scipy.linalg

from brmpi.errors import BadInput
from brmpi.linalg import dividing, strips, tridiagonal
from brmpi.linalg.failures import Mismatch
from brmpi.linalg.matrix import BlockCyclic
from brmpi.linalg.processgrid import ProcessGrid

pytestmark = pytest.mark.mpi
C = 10  # in C n eps
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


def random(n, dtype, seed=0):
    """A hermitian matrix."""
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((n, n)) + (1j * rng.standard_normal((n, n)) if np.dtype(dtype).kind == "c" else 0)
    return (a + a.conj().T).astype(dtype)


def turned(values, seed=0):
    """A symmetric matrix with these eigenvalues."""
    n = len(values)
    q = np.linalg.qr(np.random.default_rng(seed).standard_normal((n, n)))[0]
    a = q * values @ q.T
    return (a + a.T) / 2


def threes(diagonal, off):
    """A tridiagonal matrix."""
    return np.diag(np.asarray(diagonal, float)) + np.diag(off, -1) + np.diag(off, 1)


def wilkinson(n):
    """Diagonal |i - (n - 1) / 2|, ones beside it: eigenvalues in pairs that agree to many digits."""
    return threes(abs(np.arange(n) - (n - 1) / 2), np.ones(n - 1))


def glued(blocks, n, glue):
    """Wilkinson's matrices held together weakly: eigenvalues in groups of ``blocks``."""
    off = np.tile(np.append(np.ones(n - 1), glue), blocks)[:-1]
    return threes(np.tile(np.diag(wilkinson(n)), blocks), off)


def wrong(a, grid, nb, values=None):
    """What is wrong with the decomposition of an array, in words; nothing if nothing is."""
    from brmpi.linalg.eigen import eigh

    n, eps = len(a), np.finfo(a.dtype).eps
    upper = np.full_like(a, np.nan)  # must not be looked at
    matrix = BlockCyclic.from_array(grid, np.tril(a) + np.triu(upper, 1), nb)
    before = matrix.local.copy()
    w, v = eigh(matrix)
    alone = eigh(matrix, vectors=False)
    whole = v.to_array()
    wide = np.result_type(a.dtype, np.float64)
    size = np.abs(a).max(initial=0).astype(float) or 1.0
    scaled, found, whole = (a / size).astype(wide), w / size, whole.astype(wide)
    norm = np.linalg.norm(scaled, 2) if n else 0.0
    unit = C * n * eps
    if values is None:
        values = size * scipy.linalg.eigvalsh(scaled) if n else np.empty(0)
    exact = np.sort(values) / size
    sums = {
        "unchanged": 0.0 if np.array_equal(matrix.local, before, equal_nan=True) else 1.0,
        "residual": np.linalg.norm(scaled @ whole - whole * found) / (unit * norm or 1),
        "orthogonality": np.linalg.norm(whole.conj().T @ whole - np.eye(n)) / (unit or 1),
        "values": abs(found - exact).max(initial=0) / (unit * norm or 1),
        "values alone": abs(alone / size - exact).max(initial=0) / (unit * norm or 1),
    }
    good = (w.shape == (n,) and w.dtype == a.real.dtype and (np.diff(w) >= 0).all() and v.dtype == a.dtype
            and v.rows == matrix.rows and v.cols == matrix.cols)
    bad = {name: value for name, value in sums.items() if not value <= 1}
    return [(grid.shape, grid.row_weights.tolist(), n, nb, str(a.dtype), bad or "kinds")] if bad or not good else []


@pytest.mark.parametrize("dtype", "fdFD")
def test_shapes_grids_blocks(comm, assert_all, dtype):
    bad = []
    for grid in grids(comm):
        for n, nb in ((0, 4), (1, 1), (2, 3), (5, 1), (7, 8), (39, 5)):
            bad += wrong(random(n, dtype, n), grid, nb)
    assert_all(not bad, bad[:3])


def test_large_enough_for_every_path(comm, assert_all, monkeypatch):
    """Compiled loop or strips, several rounds of moving, several panels of roots."""
    monkeypatch.setattr(strips, "ROUND", 5000)
    monkeypatch.setattr(dividing, "PANEL", 50)
    bad = []
    for number, (dtype, compiled) in enumerate(zip("dDfF", (10**9, 10**9, 1, 1))):
        monkeypatch.setattr(tridiagonal, "COMPILED", compiled)
        for grid in grids(comm, number):
            bad += wrong(random(163, dtype), grid, 24)
    assert_all(not bad, bad[:3])


SPECIAL = {
    "zero": np.zeros((50, 50)),
    "identity": np.eye(50),
    "one value": 3.7 * np.eye(45),
    "two clusters": turned(np.repeat([1.0, 2.0], 30)),
    "cluster at eps": turned(1 + 1e-16 * np.arange(60)),
    "rank one": np.ones((60, 60)),
    "diagonal descending": np.diag(np.arange(50.0)[::-1]),
    "graded": turned(10.0 ** -np.arange(50)),
    "graded rows": random(40, "d") * 10.0 ** -np.maximum.outer(np.arange(40), np.arange(40)),
    "graded upwards": (random(40, "d") * 10.0 ** -np.maximum.outer(np.arange(40), np.arange(40)))[::-1, ::-1],
    "wilkinson": wilkinson(61),
    "glued": glued(5, 21, 1e-8),
    "glued hard": glued(5, 21, 1e-14),
    "glued by nothing": glued(3, 21, 0.0),
    "negative off": threes(np.zeros(64), -np.ones(63)),
    "tiny": random(40, "d") * 1e-300,
    "huge": random(40, "d") * 1e300,
    "denormal": random(40, "d") * 1e-310,
    "single tiny": (random(40, "d") * 1e-30).astype("f"),
    "single huge": (random(40, "d") * 1e36).astype("f"),
    "single glued": glued(5, 21, 1e-4).astype("f"),
    "complex one value": (2 * np.eye(40)).astype("D"),
    "complex rank one": np.outer(np.exp(1j * np.arange(40.0)), np.exp(-1j * np.arange(40.0))),
}


@pytest.mark.parametrize("name", SPECIAL)
def test_special_matrices(comm, assert_all, name):
    bad, at = [], list(SPECIAL).index(name)
    for grid in grids(comm, at):
        bad += wrong(SPECIAL[name], grid, 3 + at % 8)
    assert_all(not bad, (name, bad[:3]))


def test_laplacian_spectrum(comm, assert_all):
    """2 - 2 cos(k pi / (n + 1)), k = 1 … n."""
    n, bad = 150, []
    values = 2 - 2 * np.cos(np.arange(1, n + 1) * np.pi / (n + 1))
    for grid in grids(comm, -1):
        bad += wrong(threes(2 * np.ones(n), -np.ones(n - 1)), grid, 16, values)
    assert_all(not bad, bad[:3])


def test_wilkinson_largest(comm, assert_all):
    """The largest pair of W21+, as Wilkinson (1965) lists it: 10.74619418290332 and 10.74619418290339."""
    from brmpi.linalg.eigen import eigh

    for grid in grids(comm):
        w, _ = eigh(BlockCyclic.from_array(grid, wilkinson(21), 4))
        off = abs(w[-2:] - [10.74619418290332, 10.74619418290339]).max()
        assert_all(off <= 1e-14 + 21 * 2.3e-16 * 10.7, off)


@pytest.mark.parametrize("dtype", "fd")
def test_conquer_of_all_sharings(comm, assert_all, dtype):
    """The tridiagonal matrix alone, ranks without rows or with one, tears of either sign and of none."""
    rng, bad = np.random.default_rng(5), []
    eps = np.finfo(dtype).eps
    for n, trial in itertools.product((1, 2, 3, 8, 40), range(8)):
        shares = rng.multinomial(n, np.full(comm.size, 1 / comm.size)) if trial else n * (np.arange(comm.size) == 0)
        ends = np.concatenate(([0], np.cumsum(shares)))
        diagonal = rng.choice([0, 1, rng.standard_normal()], n).astype(dtype)
        off = rng.choice([0, 1, -1, 1e-9, rng.standard_normal()], n - 1).astype(dtype)
        w, order, strip = dividing.conquer(diagonal, off, ends, comm)
        x = strips.whole(strip, order, ends, comm)
        t = threes(diagonal, off)
        whole = np.concatenate(comm.allgather(x)).astype(float)
        unit = C * n * eps
        size = max(np.linalg.norm(t, 2), 1e-30)
        if not (np.linalg.norm(t @ whole.T - whole.T * w) <= unit * size
                and np.linalg.norm(whole @ whole.T - np.eye(n)) <= unit):
            bad.append((n, trial, shares.tolist()))
    assert_all(not bad, bad[:3])


def test_overwritten(comm, assert_all):
    from brmpi.linalg.eigen import eigh

    for grid in grids(comm):
        a = random(30, "d")
        w, v = eigh(BlockCyclic.from_array(grid, a, 4), overwrite=True)
        v = v.to_array()
        assert_all(np.linalg.norm(a @ v - v * w) <= C * 30 * 2.3e-16 * np.linalg.norm(a, 2))


def test_refused(comm, assert_all):
    from brmpi.linalg.eigen import eigh

    grid = ProcessGrid(comm)
    with pytest.raises(Mismatch, match=r"shape = \(3, 4\): must be square"):
        eigh(BlockCyclic.from_array(grid, np.ones((3, 4)), 2))
    for value in (np.nan, np.inf, -np.inf):
        a = np.eye(6)
        a[4, 1] = value
        with pytest.raises(BadInput, match="not finite"):
            eigh(BlockCyclic.from_array(grid, a, 2))
    grid.free()
    assert_all(True)
