"""Systems of equations, inverse, determinant and condition: backward errors in units of n eps, on any grid."""

import numpy as np
import pytest
from test_linalg_lu import grids, random

from brmpi.linalg.failures import Mismatch, NotPositiveDefinite, Singular
from brmpi.linalg.lu import lu
from brmpi.linalg.matrix import BlockCyclic
from brmpi.linalg.processgrid import ProcessGrid
from brmpi.linalg.solve import cond, det, inv, slogdet, solve


def backward(a, x, b):
    """||b - A x|| / (n eps (||A|| ||x|| + ||b||)) in float64."""
    if not b.size:
        return 0.0
    wide = [one.astype("D") for one in (a, x, b)]
    scale = np.linalg.norm(wide[0]) * np.linalg.norm(wide[1]) + np.linalg.norm(wide[2])
    return np.linalg.norm(wide[2] - wide[0] @ wide[1]) / (len(a) * np.finfo(a.dtype).eps * scale)


@pytest.mark.mpi
@pytest.mark.parametrize("dtype", "fdFD")
@pytest.mark.parametrize(("n", "k", "nb"), [(0, 2, 3), (1, 1, 4), (5, 0, 2), (13, 3, 3), (30, 7, 8)])
def test_solve(comm, assert_all, dtype, n, k, nb):
    a, b = random((n, n), dtype), random((n, k), dtype, 2)
    positive = a @ a.conj().T + np.eye(n, dtype=dtype)
    for grid in grids(comm):
        matrix, right = BlockCyclic.from_array(grid, a, nb), BlockCyclic.from_array(grid, b, nb)
        assert_all(backward(a, solve(matrix, right).to_array(), b) < 1)
        assert_all(np.array_equal(matrix.to_array(), a) and np.array_equal(right.to_array(), b))
        for form, op in (("T", a.T), ("C", a.conj().T)):
            assert_all(backward(op, lu(matrix).solve(right, form).to_array(), b) < 1)
        x = solve(BlockCyclic.from_array(grid, np.tril(positive), nb), right, assume="pos")
        assert_all(backward(positive, x.to_array(), b) < 1)


@pytest.mark.mpi
def test_arrays_for_arrays(comm, assert_all):
    a, b = random((20, 20), "d"), random((20, 3), "d", 2)
    for grid in grids(comm):
        matrix = BlockCyclic.from_array(grid, a, 4)
        whole, one = solve(matrix, b), solve(matrix, b[:, 0].tolist(), overwrite_a=True)
        assert_all(whole.shape == (20, 3) and backward(a, whole, b) < 1)
        assert_all(one.shape == (20,) and backward(a, one[:, None], b[:, :1]) < 1)


@pytest.mark.mpi
@pytest.mark.parametrize("dtype", "fdFD")
def test_inverse_and_determinant(comm, assert_all, dtype):
    for n in (0, 1, 2, 17):
        a = random((n, n), dtype)
        for grid in grids(comm):
            matrix = BlockCyclic.from_array(grid, a, 3)
            inverse = inv(matrix)
            assert_all(inverse.rows == matrix.rows and inverse.cols == matrix.cols)
            bound = n * np.finfo(dtype).eps * (np.linalg.cond(a) if n else 0)
            away = np.linalg.norm(inverse.to_array() - np.linalg.inv(a.astype("D"))) if n else 0
            assert_all(away <= bound * np.linalg.norm(inverse.to_array()), away)
            sign, size = slogdet(matrix)
            expected = np.linalg.slogdet(a.astype("D"))
            assert_all(abs(sign - expected[0]) <= 10 * bound and abs(size - expected[1]) <= 10 * bound)
            assert_all(abs(det(matrix) - np.linalg.det(a.astype("D"))) <= 10 * bound * np.exp(expected[1]))
            assert_all(sign.dtype == dtype)


@pytest.mark.mpi
def test_condition(comm, assert_all):
    rng = np.random.default_rng(4)
    graded = random((30, 30), "d") * 10.0 ** rng.uniform(-6, 6, 30)
    hilbert = 1 / (np.arange(8)[:, None] + np.arange(8) + 1.0)
    for a in (np.eye(5), random((24, 24), "D"), graded, hilbert, np.ones((1, 1)) * 3, -np.tri(12)):
        expected = np.linalg.cond(a, 1)
        for grid in grids(comm):
            found = cond(BlockCyclic.from_array(grid, a, 4))
            assert_all(expected / 3 <= found <= expected * (1 + 1e-3), (found, expected))
    grid = ProcessGrid(comm)
    assert_all(cond(BlockCyclic.from_array(grid, np.zeros((3, 3)), 2)) == np.inf)
    assert_all(cond(BlockCyclic.from_array(grid, np.zeros((0, 0)), 2)) == 0)
    grid.free()


@pytest.mark.mpi
def test_refusals(comm, assert_all):
    grid = ProcessGrid(comm)
    square, wide = (BlockCyclic.from_array(grid, np.ones(shape), 2) for shape in ((4, 4), (4, 6)))
    short = BlockCyclic.from_array(grid, np.ones((3, 1)), 2)
    for act, said in ((lambda: solve(wide, short), "4 x 6"), (lambda: inv(wide), "4 x 6"), (lambda: det(wide), "4 x 6"),
                      (lambda: cond(wide), "4 x 6"), (lambda: solve(square, np.ones(3)), r"b: shape \(3,\)"),
                      (lambda: solve(square, 1j * np.ones(4)), "complex"), (lambda: solve(square, short), "3"),
                      (lambda: solve(square, short, assume="neg"), "'neg'")):
        with pytest.raises((Mismatch, ValueError), match=said):
            act()
    for act in (lambda: solve(square, np.ones(4)), lambda: inv(square)):
        with pytest.raises(Singular) as raised:
            act()
        assert_all(raised.value.pivot == 1)
    indefinite = BlockCyclic.from_array(grid, np.diag([3.0, 2.0, -1.0, 4.0]), 2)
    with pytest.raises(NotPositiveDefinite) as raised:
        solve(indefinite, np.ones(4), assume="pos")
    assert_all(raised.value.minor == 3)
    grid.free()
