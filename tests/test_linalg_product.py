"""Products of block-cyclic matrices: every way of sending, grid, layout, transpose and type, beside NumPy."""

import itertools

import numpy as np
import pytest

from brmpi.errors import BadInput
from brmpi.linalg import product
from brmpi.linalg.axis import Axis
from brmpi.linalg.blas import DTYPES
from brmpi.linalg.broadcast import patiently
from brmpi.linalg.failures import Mismatch
from brmpi.linalg.matrix import BlockCyclic
from brmpi.linalg.operand import groups, places
from brmpi.linalg.processgrid import ProcessGrid
from brmpi.linalg.reduction import Reduction

SPEEDS = [5.0, 2.0, 1.0, 3.0, 1.0, 2.0]
SHAPES = [(1, 1, 1), (13, 29, 17), (40, 2, 33), (3, 41, 24), (24, 16, 2), (0, 3, 4), (3, 0, 4), (3, 4, 0), (2, 1, 40)]
OPS = list(itertools.product("NTC", "NTC"))


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


def op(x, letter):
    return {"N": x, "T": x.T, "C": x.conj().T}[letter]


def excess(got, want, left, right, alpha, beta, c):
    """The error over its bound, (k + 2) eps (|alpha| |A||B| + |beta| |C|) for each element; times 4 where complex."""
    if not want.size:
        return 0.0
    eps, k = np.finfo(got.dtype).eps, left.shape[1]
    bound = abs(alpha) * (abs(left).astype(float) @ abs(right).astype(float))
    if beta:
        bound = bound + abs(beta) * abs(c)
    bound *= (k + 2) * eps * (4 if got.dtype.kind == "c" else 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.nan_to_num(abs(got - want) / bound, nan=0.0 if np.isfinite(got).all() else np.inf).max())


def wide(x):
    return x.astype(np.complex128 if x.dtype.kind == "c" else np.float64)


def forced(monkeypatch, way):
    """Have products made in one way, whatever would be sent."""
    monkeypatch.setattr(product, "min", lambda ways, key: way, raising=False)


@pytest.mark.mpi
@pytest.mark.parametrize("way", ["c", "a", "b"])
def test_every_way(comm, assert_all, monkeypatch, way):
    rng, case = np.random.default_rng(7), 0
    forced(monkeypatch, way)
    for grid, name in layouts(comm):
        for (m, n, k), nb in itertools.product(SHAPES, (1, 3, 8)):
            for step in range(2):  # of the nine pairs of operations, two with each shape and block in turn
                ta, tb = OPS[(case + 3 * step) % 9]
                dtype = DTYPES[(case + step) % 4]
                alpha, beta = [(1, 0), (-1.5, 1), (0.5, -2), (2, 0.25)][case // 2 % 4]
                x, y = op(some(rng, (m, k), dtype), ta), op(some(rng, (k, n), dtype), tb)
                z = some(rng, (m, n), dtype)
                if beta == 0:
                    z[...] = np.nan
                a, b, c = (BlockCyclic.from_array(grid, one, nb) for one in (x, y, z))
                product.matmul(a, b, c, alpha, beta, ta, tb)
                left, right = op(wide(x), ta), op(wide(y), tb)
                want = alpha * (left @ right) + (beta * z if beta else 0)
                found = excess(c.to_array(), want, left, right, alpha, beta, z)
                assert_all(found <= 1, f"{name} {m, n, k} nb={nb} {ta}{tb} {dtype}: {found} of the bound")
            case += 1


@pytest.mark.mpi
def test_a_new_matrix_and_layouts_of_any_weights(comm, assert_all):
    rng = np.random.default_rng(3)
    for grid, name in layouts(comm):
        x, y = some(rng, (37, 26), "d"), some(rng, (26, 19), "d")
        for ta, tb in itertools.product("NT", "NT"):
            a, b = BlockCyclic.from_array(grid, op(x, ta), 4), BlockCyclic.from_array(grid, op(y, tb), 4)
            found = excess(product.matmul(a, b, ta=ta, tb=tb).to_array(), x @ y, x, y, 1, 0, None)
            assert_all(found <= 1, f"{name} {ta}{tb}: {found}")
            odd = np.arange(grid.P) + 1.0, (np.arange(grid.Q) == 0) * 1.0  # one column of the grid owns all, by rows
            c = BlockCyclic(grid, (37, 19), nb=4, rows=Axis(37, 4, odd[0]), cols=Axis(19, 4, odd[1]))
            product.matmul(a, b, c, ta=ta, tb=tb)
            found = excess(c.to_array(), x @ y, x, y, 1, 0, None)
            assert_all(found <= 1, f"{name} {ta}{tb} into another layout: {found}")


@pytest.mark.mpi
def test_triangles(comm, assert_all):
    rng, case = np.random.default_rng(5), 0
    for grid, name in layouts(comm):
        for (n, k), nb in itertools.product([(1, 1), (29, 13), (24, 40), (5, 0), (0, 2)], (1, 3, 8)):
            trans, uplo, hermitian, dtype = "NTC"[case % 3], "LU"[case % 2], case % 5 > 1, DTYPES[case // 2 % 4]
            beta = (0, 1, -0.5)[case % 3]
            x, z = some(rng, (n, k) if trans == "N" else (k, n), dtype), some(rng, (n, n), dtype)
            conj = "C" if hermitian else "T"
            left = wide(x) if trans == "N" else op(wide(x), conj)
            right = op(left, conj)
            if hermitian:
                np.fill_diagonal(z, z.diagonal().real)
            other = np.subtract.outer(np.arange(n) // nb, np.arange(n) // nb) * (1 if uplo == "L" else -1) < 0
            z[other] = np.nan
            a, c = BlockCyclic.from_array(grid, x, nb), BlockCyclic.from_array(grid, z, nb)
            product.syrk(a, c, 1.5, beta, trans, uplo, hermitian)
            got = c.to_array()
            what = f"{name} {n, k} nb={nb} {trans} {uplo} {hermitian} {dtype}"
            assert_all(np.isnan(got[other]).all(), f"{what}: blocks of the other triangle were written to")
            assert_all(not hermitian or (got.diagonal().imag == 0).all(), f"{what}: the diagonal is not real")
            got[other] = 0
            known = np.where(other, 0, z)
            want = np.where(other, 0, 1.5 * left @ right) + beta * known
            found = excess(got, want, left, right, 1.5, beta, known)
            assert_all(found <= 1, f"{what}: {found}")
            new = product.syrk(a, trans=trans, uplo=uplo, hermitian=hermitian).to_array()
            assert_all((new[other] == 0).all() and np.isfinite(new).all(), f"{what}: a new matrix")
            case += 1


@pytest.mark.mpi
def test_half_the_work_for_a_triangle(comm, assert_all, monkeypatch):
    flops = []
    real = product.Traffic.gemm

    def counted(self, alpha, a, b, beta, c):
        flops.append(2 * c.size * a.shape[1])
        real(self, alpha, a, b, beta, c)

    monkeypatch.setattr(product.Traffic, "gemm", counted)
    grid = ProcessGrid(comm)
    a = BlockCyclic(grid, (256, 64), nb=4)
    a.local[...] = 1
    product.syrk(a)
    half = comm.allreduce(sum(flops))
    flops.clear()
    product.matmul(a, a, tb="T")
    grid.free()
    ratio = half / comm.allreduce(sum(flops))
    assert_all(0.5 <= ratio < 0.5 + 1.01 * 4 / 512, f"{ratio} of the flops of the whole")


@pytest.mark.mpi
def test_a_thin_factor_is_what_is_sent(comm, assert_all, monkeypatch):
    chosen = []

    def least(ways, key):
        chosen.append(min(ways, key=key))
        return chosen[-1]

    monkeypatch.setattr(product, "min", least, raising=False)
    grid = ProcessGrid(comm, (1, comm.size))
    a, thin = BlockCyclic(grid, (60, 60), nb=4), BlockCyclic(grid, (60, 2), nb=4)
    a.local[...] = thin.local[...] = 1
    product.matmul(a, thin)
    product.matmul(a, a)
    product.matmul(thin, a, ta="T")
    grid.free()
    assert_all(comm.size == 1 or chosen == ["a", "c", "b"], str(chosen))


@pytest.mark.mpi
def test_what_does_not_go_together(comm):
    grid, other = ProcessGrid(comm), ProcessGrid(comm)
    a = BlockCyclic(grid, (6, 5), nb=2)
    for b, words in ((BlockCyclic(grid, (6, 5), nb=2), "op.a. is 6 x 5, op.b. 6 x 5: a must have as many columns"),
                     (BlockCyclic(other, (5, 5), nb=2), "on different process grids"),
                     (BlockCyclic(grid, (5, 5), nb=3), "nb of a is 2, of b 3"),
                     (BlockCyclic(grid, (5, 5), np.float32, nb=2), "dtype of a is float64, of b float32")):
        with pytest.raises(Mismatch, match=words):
            product.matmul(a, b)
    square = BlockCyclic(grid, (5, 5), nb=2)
    with pytest.raises(Mismatch, match="c is 5 x 5: must be 6 x 5"):
        product.matmul(a, square, square.like())
    with pytest.raises(Mismatch, match="c is a: must be a matrix of its own"):
        product.matmul(a, square, a)
    with pytest.raises(Mismatch, match="c is 5 x 5: must be 6 x 6"):
        product.syrk(a, square)
    with pytest.raises(BadInput, match="alpha = 1j: must be real"):
        product.matmul(a, square, alpha=1j)
    with pytest.raises(BadInput, match="ta = 'H'"):
        product.matmul(a, square, ta="H")
    grid.free()
    other.free()


@pytest.mark.mpi
def test_sums_along_a_chain(comm, assert_all):
    size, rank = comm.size, comm.rank
    for root, length in itertools.product(range(size), (0, 1, 1000)):
        mine = np.arange(length) + 1000.0 * rank
        chain = [(root + 1 + step) % size for step in range(size)]
        reduction = Reduction(comm, mine, chain, segment=256)
        patiently(reduction.poll)
        want = size * np.arange(length) + 1000.0 * size * (size - 1) / 2
        assert_all(rank != root or np.array_equal(mine, want), f"root {root}, {length}")


def test_groups_have_one_owner_on_each_axis():
    first, second = Axis(95, 5, [1, 1]), Axis(95, 5, [3, 1, 0])
    found = groups(first, second, 12)
    assert sorted(np.concatenate(found)) == list(range(19))
    assert all(len(blocks) <= 2 and len(set(first.owners[blocks])) == len(set(second.owners[blocks])) == 1
               for blocks in found)
    for blocks in found:
        part = first.owners[blocks[0]]
        at = np.arange(first.count(part))[places(first, part, blocks)]
        assert np.array_equal(first.indices(part)[at] // 5, np.repeat(blocks, 5))
