"""Norms, traces and the like on every grid: those of NumPy in float64, at the ends of the range, and with NaN."""

import numpy as np
import pytest

from brmpi.errors import BadInput
from brmpi.linalg import norms
from brmpi.linalg.failures import Mismatch
from brmpi.linalg.matrix import BlockCyclic
from brmpi.linalg.norms import add_diagonal, asymmetry, diagonal, norm, scale, trace
from brmpi.linalg.processgrid import ProcessGrid

SHAPES = (1, 1), (7, 5), (4, 31), (40, 3)


@pytest.fixture
def grids(comm):
    """Grids of every shape with all ranks, equal and weighted."""
    made = [ProcessGrid(comm, (P, comm.size // P), speeds)
            for P in range(1, comm.size + 1) if comm.size % P == 0
            for speeds in (None, np.arange(1.0, comm.size + 1)[::-1] ** 2)]
    yield made
    for grid in made:
        grid.free()


def numbers(shape, dtype):
    """Random numbers of a type."""
    rng = np.random.default_rng(3)
    found = rng.standard_normal(shape)
    return (found + 1j * rng.standard_normal(shape) if dtype in "FD" else found).astype(dtype)


def known(a, ord):
    """A norm in the widest type there is."""
    size = np.abs(a.astype(np.clongdouble))
    sums = {1: size.sum(axis=0), np.inf: size.sum(axis=1)}
    if ord == "fro":
        return np.sqrt((size**2).sum())
    if ord == "max":
        return size.max()
    return sums[ord].max() if ord in sums else sums[-ord].min()


@pytest.mark.mpi
@pytest.mark.parametrize("dtype", "fdFD")
@pytest.mark.parametrize("ord", norms.ORDERS)
def test_norms_are_those_of_wider_numbers(comm, assert_all, grids, dtype, ord):
    limits = np.finfo(dtype)
    for grid in grids:
        for shape in SHAPES:
            for size in (1.0, float(limits.max) * 1e-4, float(limits.tiny) / 64):
                whole = (numbers(shape, dtype) * np.array(size, dtype)).astype(dtype)
                found, right = norm(BlockCyclic.from_array(grid, whole, 3), ord), known(whole, ord)
                bound = 4 * (sum(shape) + 4) * np.finfo(np.float64).eps * right + 5e-324  # sums are in float64
                assert_all(abs(found - right) <= bound, (grid.shape, shape, size, found, right))
                assert_all(len(set(comm.allgather(found))) == 1)


@pytest.mark.mpi
@pytest.mark.parametrize("ord", norms.ORDERS)
def test_nan_infinity_zero_and_nothing(assert_all, grids, ord):
    for grid in grids:
        for shape in ((0, 0), (0, 4), (4, 0)):
            assert_all(norm(BlockCyclic(grid, shape), ord) == 0.0)
        for at in ((0, 0), (6, 4), (3, 2)):
            whole = numbers((7, 5), "d") * 1e300
            whole[at] = np.inf
            found = norm(BlockCyclic.from_array(grid, whole, 2), ord)
            assert_all(found == np.inf if ord not in (-1, -np.inf) else np.isfinite(found), at)
            whole[(at[0] + 1) % 7, 0] = np.nan
            assert_all(np.isnan(norm(BlockCyclic.from_array(grid, whole, 2), ord)), at)
        assert_all(norm(BlockCyclic.from_array(grid, np.zeros((7, 5)), 2), ord) == 0.0)


@pytest.mark.mpi
def test_scales_that_differ_from_rank_to_rank(assert_all, grids):
    for grid in grids:
        whole = np.zeros((12, 12))
        whole[0, 0], whole[5, 7], whole[11, 11] = 3e200, 4e-200, 4e200
        assert_all(norm(BlockCyclic.from_array(grid, whole, 2)) == pytest.approx(5e200, rel=1e-15))
        whole[0, 0] = whole[11, 11] = 0
        assert_all(norm(BlockCyclic.from_array(grid, whole, 2)) == pytest.approx(4e-200, rel=1e-15))


@pytest.mark.mpi
@pytest.mark.parametrize("dtype", "fD")
def test_diagonals(assert_all, grids, dtype):
    traces = set()
    for grid in grids:
        for shape in (*SHAPES, (0, 3)):
            whole = numbers(shape, dtype)
            a = BlockCyclic.from_array(grid, whole, 3)
            assert_all(np.array_equal(diagonal(a), np.diagonal(whole)) and diagonal(a).dtype == whole.dtype)
            right = np.diagonal(whole).astype(complex).sum()
            assert_all(abs(trace(a) - right) <= 4 * min(shape) * np.finfo(float).eps * np.abs(np.diagonal(whole)).sum())
            if shape == (7, 5):
                traces.add(trace(a))
            more = numbers((min(shape),), dtype)
            add_diagonal(a, more)
            whole[np.arange(min(shape)), np.arange(min(shape))] += more
            add_diagonal(a, 2)
            whole[np.arange(min(shape)), np.arange(min(shape))] += 2
            scale(a, 0.5)
            assert_all(np.array_equal(a.to_array(), whole * whole.dtype.type(0.5)), (grid.shape, shape))
    assert_all(len(traces) == 1, "the same bits in any layout")


@pytest.mark.mpi
@pytest.mark.parametrize("dtype", "fD")
def test_asymmetry(assert_all, grids, dtype):
    for grid in grids:
        whole = numbers((11, 11), dtype)
        right = np.abs(whole - whole.conj().T).max() / np.abs(whole).max()
        found = asymmetry(BlockCyclic.from_array(grid, whole, 3))
        assert_all(abs(found - right) <= 4 * np.finfo(dtype).eps * right, (found, right))
        hermitian = whole + whole.conj().T
        assert_all(asymmetry(BlockCyclic.from_array(grid, hermitian, 3)) == 0.0)
        hermitian[10, 0] += 1
        assert_all(asymmetry(BlockCyclic.from_array(grid, hermitian, 3)) > 0)
        hermitian[10, 0] = np.nan
        assert_all(np.isnan(asymmetry(BlockCyclic.from_array(grid, hermitian, 3))))
        assert_all(asymmetry(BlockCyclic(grid, (0, 0))) == 0.0)


@pytest.mark.mpi
def test_what_cannot_be_is_refused(grids):
    a = BlockCyclic.from_array(grids[0], np.ones((3, 2)))
    for call, kind, words in ((lambda: norm(a, 2), BadInput, "ord = 2: must be one of 'fro', 'max', 1, -1, inf, -inf"),
                              (lambda: asymmetry(a), Mismatch, r"shape \(3, 2\): must be square"),
                              (lambda: scale(a, 1j), Mismatch, "must be real"),
                              (lambda: add_diagonal(a, 1j), Mismatch, "must be real"),
                              (lambda: add_diagonal(a, [1, 2, 3]), Mismatch, "must be one, or 2 for the diagonal")):
        with pytest.raises(kind, match=words):
            call()
