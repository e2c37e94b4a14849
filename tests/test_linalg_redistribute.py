"""Between any two layouts every element is the same bits; windows touch nothing else; what cannot be is refused."""

import itertools
from importlib import import_module

import numpy as np
import pytest

from brmpi.linalg.axis import Axis
from brmpi.linalg.failures import Mismatch
from brmpi.linalg.matrix import BlockCyclic
from brmpi.linalg.processgrid import ProcessGrid
from brmpi.linalg.redistribute import compare, copy, redistribute, transpose

module = import_module("brmpi.linalg.redistribute")  # the package has the function by this name

OPS = {"N": lambda x: x, "T": lambda x: x.T, "C": lambda x: x.conj().T}


@pytest.fixture
def grids(comm):
    """Grids of every shape with all ranks, some weighted, and one whose ranks are numbered the other way round."""
    turned = comm.Split(0, -comm.rank)
    made = [ProcessGrid(turned if weighted else comm, (P, comm.size // P),
                        np.arange(1.0, comm.size + 1)[::-1] ** 2 if weighted else None)
            for P in range(1, comm.size + 1) if comm.size % P == 0 for weighted in (False, True)]
    yield made
    for grid in made:
        grid.free()
    turned.Free()


def bits(shape, dtype):
    """Any bits at all: infinities, numbers that are not, subnormal ones, zeros of both signs."""
    rng = np.random.default_rng(7)
    found = np.frombuffer(rng.bytes(int(np.prod(shape)) * np.dtype(dtype).itemsize), dtype=dtype).reshape(shape).copy()
    found.reshape(-1)[:: 5] = -0.0
    return found


def same(a, b):
    """Whether two arrays are the same bits."""
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == np.ascontiguousarray(b).tobytes()


@pytest.mark.mpi
@pytest.mark.parametrize("limit", [100, module.PIECE])
def test_every_layout_to_every_other(assert_all, grids, monkeypatch, limit):
    monkeypatch.setattr(module, "PIECE", limit)
    shapes = (23, 20), (5, 50), (1, 1), (0, 4)
    choices = itertools.cycle(itertools.product(shapes, "fdFD", (1, 3, 16), (2, 3, 40), OPS))
    for old, new in itertools.product(grids, grids):
        for shape, dtype, nb, blocks, op in itertools.islice(choices, 5):  # 5 and 432 have no divisor in common
            whole = bits(shape, dtype)
            a = BlockCyclic.from_array(old, whole, nb)
            to = redistribute(a, op=op, grid=new, nb=blocks)
            what = old.shape, new.shape, shape, dtype, nb, blocks, op
            assert_all((to.grid, to.nb) == (new, blocks), what)
            assert_all(same(to.to_array(), OPS[op](whole)), what)


@pytest.mark.mpi
def test_nothing_is_larger_than_a_piece(comm, assert_all, grids, monkeypatch):
    sizes = []

    monkeypatch.setattr(module, "PIECE", 1000)
    plain = np.empty

    def _empty(*arguments, **keys):
        sizes.append(plain(*arguments, **keys).nbytes)
        return plain(*arguments, **keys)

    a, to = BlockCyclic(grids[0], (70, 50), nb=4), BlockCyclic(grids[-1], (70, 50), nb=7)
    a.local[...] = comm.rank
    monkeypatch.setattr(module.np, "empty", _empty)
    copy(a, to)
    monkeypatch.undo()
    assert_all(not sizes or max(sizes) <= 1000, max(sizes, default=0))
    assert_all(comm.allreduce(len(sizes)) >= 70 * 50 * 8 // 1000)


@pytest.mark.mpi
def test_into_what_is_there_and_with_its_own_axes(assert_all, grids):
    whole = bits((33, 20), "d")
    for grid in grids:
        a = BlockCyclic.from_array(grids[0], whole, 4)
        to = BlockCyclic(grid, (33, 20), nb=5, rows=Axis(33, 5, np.arange(grid.P)[::-1] + 1.0),
                         cols=Axis(20, 5, np.eye(grid.Q)[-1]))
        assert_all(redistribute(a, to) is to and same(to.to_array(), whole))
        assert_all(same(redistribute(to, rows=a.rows, cols=a.cols, grid=a.grid).local, a.local))
        axis = Axis(33, 5, np.arange(grid.Q) + 1.0)
        turned = transpose(to, cols=axis)
        assert_all(same(turned.to_array(), whole.T) and turned.cols is axis)
        assert_all(same(transpose(to, True).to_array(), whole.T))


@pytest.mark.mpi
@pytest.mark.parametrize("pair", ["fd", "df", "fF", "dF", "fD", "FD", "DF", "dD"])
@pytest.mark.parametrize("op", OPS)
def test_types_are_numpys_conversions(assert_all, grids, pair, op):
    whole = np.random.default_rng(1).standard_normal((13, 9)).astype(pair[0])
    if pair[0] in "FD":
        whole *= 1 - 2j
    a = BlockCyclic.from_array(grids[0], whole, 2)
    to = redistribute(a, grid=grids[-1], nb=3, dtype=pair[1], op=op)
    assert_all(same(to.to_array(), OPS[op](whole).astype(pair[1])))


@pytest.mark.mpi
@pytest.mark.parametrize("op", OPS)
def test_windows(assert_all, grids, monkeypatch, op):
    monkeypatch.setattr(module, "PIECE", 200)
    whole, before = bits((19, 23), "D"), bits((30, 28), "D")
    windows = ((0, 0, 0, 0, 5, 7), (3, 4, 11, 9, 13, 12), (18, 18, 29, 27, 1, 1), (2, 2, 2, 2, 0, 5),
               (5, 1, 0, 17, 14, 11))
    for (old, new), (i, j, row, col, m, n) in zip(itertools.cycle(itertools.product(grids, grids[::-1])), windows):
        a, to = BlockCyclic.from_array(old, whole, 3), BlockCyclic.from_array(new, before, 4)
        copy(a, to, op, (i, j), (row, col), (m, n))
        expected = before.copy()
        expected[row: row + m, col: col + n] = OPS[op](whole)[i: i + m, j: j + n]
        assert_all(same(to.to_array(), expected), (old.shape, new.shape, i, j))
    a, to = BlockCyclic.from_array(grids[0], whole, 3), BlockCyclic(grids[-1], (18, 21), "D", 4)
    copy(a, to, source=(1, 2))  # all that follows
    assert_all(same(to.to_array(), whole[1:, 2:]))


@pytest.mark.mpi
def test_to_fewer_ranks_and_back(comm, assert_all):
    whole = bits((17, 12), "d")
    grid = ProcessGrid(comm)
    a, back = BlockCyclic.from_array(grid, whole, 2), BlockCyclic.from_array(grid, whole * 0, 3)
    for count in range(1, comm.size + 1):
        few = comm.Split(0 if comm.rank >= comm.size - count else 1, -comm.rank)
        mine = comm.rank >= comm.size - count
        small = ProcessGrid(few, (count, 1)) if mine else None
        other = BlockCyclic(small, (12, 17), nb=5) if mine else None
        copy(a, other, "T", comm=comm)
        if mine:
            held = other.to_array()
        assert_all(not mine or same(held, whole.T), count)
        back.local[...] = 0
        copy(other, back, "T", comm=comm)
        assert_all(same(back.to_array(), whole), count)
        if count < comm.size:
            for one, two in ((a, other), (other, a)):
                with pytest.raises(Mismatch, match="ranks of the two grids"):
                    copy(one, two, "T")
        if mine:
            small.free()
        few.Free()
    with pytest.raises(Mismatch, match="None on every rank"):
        copy(a, None, comm=comm)
    grid.free()


@pytest.mark.mpi
def test_parts_beside_each_other(comm, assert_all, grids):
    whole = np.arange(20 * 20.0).reshape(20, 20)
    for grid in grids:
        a, found = BlockCyclic.from_array(grid, whole, 3), []
        compare(a, a, lambda here, there, found=found: found.append((here.size, (here - there).tolist())), "T")
        assert_all(comm.allreduce(sum(size for size, _ in found)) == 400)
        every = sorted(value for held in comm.allgather(found) for _, rows in held for row in rows for value in row)
        assert_all(every == sorted((whole - whole.T).reshape(-1)))


@pytest.mark.mpi
def test_what_cannot_be_is_refused(comm, assert_all, grids):
    a, other = BlockCyclic(grids[0], (6, 5), "D", 2), BlockCyclic(grids[-1], (6, 5), "d", 2)
    for call, words in (
            (lambda: redistribute(a, other), "dtype float64: must be complex, as what it is made from"),
            (lambda: redistribute(a, dtype="f"), "dtype float32: must be complex"),
            (lambda: redistribute(other, a, "T"), r"shape \(6, 5\) of what is to be filled: must be \(5, 6\)"),
            (lambda: redistribute(a, op="H"), "op = 'H': must be"), (lambda: copy(a, a), "into itself"),
            (lambda: copy(other, a, source=(1, 0)), r"must be that of \(6, 5\) from \(0, 0\) on"),
            (lambda: copy(other, a, source=(4, 0), shape=(3, 3)), "must be within both"),
            (lambda: copy(other, a, target=(-1, 0), shape=(3, 3)), "must be within both"),
            (lambda: copy(other, a, target=(0, 3), shape=(3, 3)), "must be within both")):
        with pytest.raises(Mismatch, match=words) as refused:
            call()
        assert_all(len(set(comm.allgather(str(refused.value)))) == 1)
