"""LU on any grid, with any weights: backward errors, LAPACK's pivots, singular matrices, bits and the clock."""

import zlib
from importlib import import_module

import numpy as np
import pytest
import scipy.linalg

from brmpi.linalg.failures import Mismatch, Singular
from brmpi.linalg.lu import factor, lu
from brmpi.linalg.matrix import BlockCyclic
from brmpi.linalg.processgrid import ProcessGrid
from brmpi.linalg.swaps import composed, interchange, moves

module = import_module("brmpi.linalg.lu")  # the package has the function by this name
SHAPES = ((0, 0), (1, 1), (0, 4), (4, 0), (5, 3), (3, 5), (24, 24), (33, 20), (20, 33), (37, 37))


def grids(comm):
    """Every shape of grid, with equal and with unequal speeds."""
    for rows in range(1, comm.size + 1):
        if comm.size % rows == 0:
            for speeds in (None, 1 + np.arange(comm.size) * 7 % 5):
                grid = ProcessGrid(comm, (rows, comm.size // rows), speeds)
                yield grid
                grid.free()


def random(shape, dtype, seed=1):
    rng = np.random.default_rng(seed)
    a = rng.standard_normal(shape) + (1j * rng.standard_normal(shape) if np.dtype(dtype).kind == "c" else 0)
    return a.astype(dtype)


def error(a, factors):
    """||A[p] - L U|| / (n eps ||L|| ||U||), which rounding keeps below a small number."""
    lower, upper = factors.lower().to_array(), factors.upper().to_array()
    if not a.size:
        return 0.0
    scale = max(a.shape) * np.finfo(a.dtype).eps * np.linalg.norm(lower) * np.linalg.norm(upper)
    return np.linalg.norm(a[factors.permutation].astype("D") - lower.astype("D") @ upper) / scale


@pytest.mark.mpi
@pytest.mark.parametrize("dtype", "fdFD")
@pytest.mark.parametrize("nb", [1, 3, 8, 16])
def test_backward_error(comm, assert_all, dtype, nb):
    worst, growth = 0.0, 0.0
    for grid in grids(comm):
        for shape in SHAPES:
            a = random(shape, dtype)
            factors = lu(BlockCyclic.from_array(grid, a, nb), lookahead=1 + (shape[0] + nb) % 3)
            worst = max(worst, error(a, factors))
            growth = max(growth, np.abs(factors.lower().to_array()).max(initial=0))
    assert_all(worst < 1, worst)
    assert_all(growth < 1.5, f"{growth}: pivots are not the largest")  # complex ones are compared by |re| + |im|


@pytest.mark.mpi
@pytest.mark.parametrize("shape", [(40, 40), (50, 30), (30, 50)])
def test_pivots_are_those_of_lapack(comm, assert_all, shape):
    a = random(shape, "d")
    expected = scipy.linalg.lapack.dgetrf(a)[1]
    ok = True
    for grid in grids(comm):
        factors = lu(BlockCyclic.from_array(grid, a, 8))
        ok &= np.array_equal(factors.pivots, expected)
        ok &= np.allclose(factors.diagonal(), np.diag(factors.upper().to_array()), rtol=0, atol=0)
    assert_all(ok)


@pytest.mark.mpi
def test_equal_sizes_take_the_first_row(comm, assert_all):
    a = np.ones((12, 12)) - 2 * np.tri(12, k=-1)  # every candidate of every column has the same size
    for grid in grids(comm):
        pivots = lu(BlockCyclic.from_array(grid, a, 2)).pivots
        assert_all(np.array_equal(pivots, np.arange(12)), pivots)


@pytest.mark.mpi
@pytest.mark.parametrize("pivot", [0, 5, 19])
def test_singular(comm, assert_all, pivot):
    a = random((20, 20), "d")
    a[:, pivot] = 0  # stays zero, to the bit
    for grid in grids(comm):
        factors = lu(BlockCyclic.from_array(grid, a, 3))
        assert_all(factors.diagonal()[pivot] == 0 and error(a, factors) < 1)
        try:
            factors.check()
            found = None
        except Singular as raised:
            found = raised.pivot
        assert_all(found == pivot, found)
        assert_all(factors.slogdet() == (0, -np.inf))


@pytest.mark.mpi
def test_no_number_goes_through(comm, assert_all):
    a = random((20, 20), "d")
    a[3, 2] = np.nan
    for grid in grids(comm):
        upper = lu(BlockCyclic.from_array(grid, a, 4)).upper().to_array()
        assert_all(np.isnan(upper).any())


@pytest.mark.mpi
def test_bits_do_not_depend_on_the_clock(comm, assert_all, monkeypatch):
    for grid in grids(comm):
        sums = set()
        for turn in (1e-9, 1e-4, 1e-3, 10.0):
            monkeypatch.setattr(module, "TURN", turn)
            a = BlockCyclic.from_function(grid, (700, 650), lambda i, j: np.sin(i * i + 3 * j), nb=96)
            sums.add(zlib.crc32(factor(a).matrix.local.tobytes()))
        assert_all(len(sums) == 1)


def test_pieces_are_of_whole_tiles():
    for rows, each, work in ((10_000, 1e5, 1e6), (10_000, 1e5, 1e9), (500, 10, 1e3), (1000, 1e6, 1), (0, 10, 10)):
        piece = module._piece(rows, each, work)
        assert 0 <= piece <= rows
        assert piece == rows or (piece % module.UNIT == 0 and each * min(piece, rows - piece) >= module.SMALL)
    assert module._piece(10_000, 1e5, 1e6) < 10_000


@pytest.mark.mpi
def test_overwrite(comm, assert_all):
    grid = ProcessGrid(comm)
    a = random((30, 30), "d")
    kept = BlockCyclic.from_array(grid, a, 4)
    assert_all(lu(kept).matrix is not kept and np.array_equal(kept.to_array(), a))
    assert_all(lu(kept, overwrite=True).matrix is kept and not np.array_equal(kept.to_array(), a))
    grid.free()


@pytest.mark.mpi
def test_slogdet_refuses_what_is_not_square(comm):
    grid = ProcessGrid(comm)
    factors = lu(BlockCyclic.from_array(grid, random((4, 6), "d"), 2))
    with pytest.raises(Mismatch, match="4 x 6"):
        factors.slogdet()
    grid.free()


def test_moves_are_the_swaps_one_after_another():
    rng = np.random.default_rng(3)
    for width in (0, 1, 5, 12):
        for _ in range(50):
            first, rows = 4, 30
            pivots = np.array([rng.integers(first + i, rows) for i in range(width)], dtype=np.int64)
            expected = np.arange(rows)
            for row, pivot in enumerate(pivots, first):
                expected[[row, pivot]] = expected[[pivot, row]]
            to, source = moves(first, pivots)
            found = np.arange(rows)
            found[to] = source
            assert np.array_equal(found, expected)
            assert np.array_equal(to[:width], first + np.arange(width))
            assert ((source[width:] >= first) & (source[width:] < first + width)).all()


@pytest.mark.mpi
def test_interchange_and_back(comm, assert_all):
    rng = np.random.default_rng(5)
    a = random((23, 17), "D")
    pivots = np.array([rng.integers(row, 23) for row in range(20)])
    for grid in grids(comm):
        matrix = BlockCyclic.from_array(grid, a, 3)
        interchange(matrix, pivots)
        assert_all(np.array_equal(matrix.to_array(), a[composed(23, pivots)]))
        interchange(matrix, pivots, backwards=True)
        assert_all(np.array_equal(matrix.to_array(), a))
