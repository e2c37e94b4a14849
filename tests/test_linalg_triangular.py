"""Triangular equations and products: sides, triangles, transposes, grids, layouts and types, by backward error."""

import itertools

import numpy as np
import pytest

from brmpi.errors import BadInput
from brmpi.linalg.blas import DTYPES
from brmpi.linalg.failures import Mismatch, Singular
from brmpi.linalg.matrix import BlockCyclic
from brmpi.linalg.processgrid import ProcessGrid
from brmpi.linalg.triangular import trmm, trsm

SPEEDS = [5.0, 2.0, 1.0, 3.0, 1.0, 2.0]
SHAPES = [(1, 1), (29, 13), (24, 1), (3, 40), (0, 3), (5, 0)]
CASES = list(itertools.product("LR", "LU", "NTC", (False, True)))


def layouts(comm):
    """Grids of every shape, with equal ranks and with unequal ones."""
    for rows in range(1, comm.size + 1):
        if comm.size % rows == 0:
            for speeds in (None, SPEEDS[: comm.size]):
                grid = ProcessGrid(comm, (rows, comm.size // rows), speeds)
                yield grid, f"{rows}x{comm.size // rows} {speeds}"
                grid.free()


def some(rng, shape, dtype):
    x = rng.standard_normal(shape)
    if np.dtype(dtype).kind == "c":
        x = x + 1j * rng.standard_normal(shape)
    return x.astype(dtype)


def triangle(x, uplo, ta, unit):
    """op(A) with what is not looked at taken away, in double precision; what is not looked at in x becomes NaN."""
    n = len(x)
    keep = np.tril(np.ones((n, n), bool)) if uplo == "L" else np.triu(np.ones((n, n), bool))
    wide = np.where(keep, x, 0).astype(np.complex128 if x.dtype.kind == "c" else np.float64)
    x[~keep] = np.nan
    if unit:
        np.fill_diagonal(wide, 1)
        np.fill_diagonal(x, np.nan)
    return {"N": wide, "T": wide.T, "C": wide.conj().T}[ta]


@pytest.mark.mpi
@pytest.mark.parametrize("function", [trsm, trmm])
def test_every_side_and_triangle(comm, assert_all, function):
    rng, case = np.random.default_rng(11), 0
    for grid, name in layouts(comm):
        for (n, k), nb in itertools.product(SHAPES, (1, 3, 8)):
            for step in range(3):
                side, uplo, ta, unit = CASES[(5 * case + 7 * step) % 24]
                dtype, alpha = DTYPES[(case + step) % 4], (1, -1.5)[(case + step) % 2]
                x = some(rng, (n, n), dtype) / max(n, 1) + 2 * np.eye(n, dtype=dtype)
                x = x.astype(dtype)
                y = some(rng, (n, k) if side == "L" else (k, n), dtype)
                op = triangle(x, uplo, ta, unit)
                a, b = BlockCyclic.from_array(grid, x, nb), BlockCyclic.from_array(grid, y, nb)
                function(a, b, side, uplo, ta, unit, alpha)
                got = b.to_array().astype(op.dtype)
                scaled = alpha * y.astype(op.dtype)
                given, made = (got, scaled) if function is trsm else (scaled, got)
                # |op(A) X - alpha B| <= c n eps (|A| |X| + |alpha B|), which holds of substitution in any order
                pair = (op, given) if side == "L" else (given, op)
                bound = (n + 2) * np.finfo(dtype).eps * (4 if dtype.kind == "c" else 1)
                bound = bound * (abs(pair[0]) @ abs(pair[1]) + abs(made))
                ok = (abs(pair[0] @ pair[1] - made) <= bound).all()
                assert_all(ok, f"{name} {n, k} nb={nb} {side}{uplo}{ta} unit={unit} {dtype}")
            case += 1


@pytest.mark.mpi
def test_zero_pivots_are_told_on_every_rank(comm, assert_all):
    for grid, name in layouts(comm):
        x, y = np.tril(np.ones((17, 17))), np.arange(34.0).reshape(17, 2)
        x[11, 11] = x[6, 6] = 0
        a, b = BlockCyclic.from_array(grid, x, 3), BlockCyclic.from_array(grid, y, 3)
        with pytest.raises(Singular, match="pivot 6") as caught:
            trsm(a, b)
        assert_all(caught.value.pivot == 6 and np.array_equal(b.to_array(), y), f"{name}: B was changed")
        trsm(a, b, unit=True)
        assert_all(np.isfinite(b.to_array()).all(), name)


@pytest.mark.mpi
def test_what_does_not_go_together(comm):
    grid = ProcessGrid(comm)
    a, b = BlockCyclic(grid, (5, 5), nb=2), BlockCyclic(grid, (4, 5), nb=2)
    with pytest.raises(Mismatch, match="b is 4 x 5: must have 5 rows"):
        trsm(a, b)
    with pytest.raises(Mismatch, match="b is 5 x 4: must have 5 columns"):
        trsm(a, BlockCyclic(grid, (5, 4), nb=2), side="R")
    with pytest.raises(Mismatch, match="a is 4 x 5: must be square"):
        trsm(b, a)
    with pytest.raises(Mismatch, match="nb of a is 2, of b 3"):
        trsm(a, BlockCyclic(grid, (5, 5), nb=3))
    with pytest.raises(Mismatch, match="b is a"):
        trsm(a, a)
    with pytest.raises(BadInput, match="uplo = 'X'"):
        trsm(a, a.like(), uplo="X")
    with pytest.raises(BadInput, match="alpha = 1j: must be real"):
        trmm(a, a.like(), alpha=1j)
    grid.free()
