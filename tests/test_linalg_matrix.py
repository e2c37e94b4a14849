"""Block-cyclic matrices: from and to arrays and functions on every grid, within caps and memory; what is refused."""

import numpy as np
import pytest

from brmpi.errors import BadInput
from brmpi.linalg import matrix as module
from brmpi.linalg import memory
from brmpi.linalg.axis import Axis
from brmpi.linalg.failures import Mismatch, NotEnoughMemory
from brmpi.linalg.matrix import BlockCyclic
from brmpi.linalg.processgrid import ProcessGrid

SHAPES = (0, 0), (0, 3), (1, 1), (7, 5), (33, 20), (3, 50)


@pytest.fixture
def grids(comm):
    """Grids of every shape with all ranks, equal and weighted."""
    made = [ProcessGrid(comm, (P, comm.size // P), speeds)
            for P in range(1, comm.size + 1) if comm.size % P == 0
            for speeds in (None, np.arange(1.0, comm.size + 1)[::-1] ** 2)]
    yield made
    for grid in made:
        grid.free()


def whole(shape, dtype=np.float64):
    """A matrix each of whose elements is its own number."""
    found = np.arange(np.prod(shape), dtype=np.float64).reshape(shape) + 1
    return (found * (1 - 2j) if np.dtype(dtype).kind == "c" else found).astype(dtype)


def cut(grid, array, nb):
    """What this rank has of an array in ScaLAPACK's layout, written out."""
    rows = [i for i in range(array.shape[0]) if i // nb % grid.P == grid.p]
    cols = [j for j in range(array.shape[1]) if j // nb % grid.Q == grid.q]
    return array[rows][:, cols]


def refused(comm, kind, words, function, *arguments, **keys):
    """What a call raises here; the same sentence on all ranks. Collective."""
    with pytest.raises(kind, match=words) as found:
        function(*arguments, **keys)
    assert len(set(comm.allgather(str(found.value)))) == 1
    return found.value


@pytest.mark.mpi
@pytest.mark.parametrize("nb", [None, 1, 4, 64])
@pytest.mark.parametrize("dtype", "fD")
def test_what_goes_in_comes_out(comm, assert_all, grids, monkeypatch, nb, dtype):
    monkeypatch.setattr(module, "STRIP", 100)  # strips of a few rows
    for grid in grids:
        for shape in SHAPES:
            a, root = whole(shape, dtype), (comm.size - 1) // 2
            one = BlockCyclic.from_array(grid, a, nb)
            other = BlockCyclic.from_array(grid, a if comm.rank == root else None, nb, root=root)
            assert_all(one.local.flags.c_contiguous and one.dtype == a.dtype and one.shape == shape)
            assert_all(np.array_equal(one.local, a[np.ix_(*one.indices)]) and np.array_equal(one.local, other.local))
            if (grid.row_weights == 1).all() and (grid.col_weights == 1).all():
                assert_all(np.array_equal(one.local, cut(grid, a, one.nb)), (grid.shape, shape))
            assert_all(np.array_equal(one.to_array(), a), (grid.shape, shape))
            back = one.to_array(root)
            assert_all(np.array_equal(back, a) if comm.rank == root else back is None, (grid.shape, shape))
            assert_all(comm.allreduce(one.local.size) == a.size)


@pytest.mark.mpi
def test_functions_of_the_index(assert_all, grids):
    for grid in grids:
        for shape in SHAPES:
            made = BlockCyclic.from_function(grid, shape, lambda i, j, n=shape[1]: i * n + j + 1, nb=3)
            assert_all(np.array_equal(made.to_array(), whole(shape)), (grid.shape, shape))
        assert_all((BlockCyclic.from_function(grid, (5, 4), lambda i, j: 7, "F").to_array() == 7).all())


@pytest.mark.mpi
def test_types_of_arrays(assert_all, comm, grids):
    grid = grids[0]
    for given, made in (("i4", "d"), ("?", "d"), ("f2", "d"), (">f8", "d"), ("f", "f"), ("G", "D"), ("g", "d")):
        for root in (None, 0):
            array = np.ones((3, 2), given)
            assert_all(BlockCyclic.from_array(grid, array, root=root).dtype == made, given)
    assert_all(BlockCyclic.from_array(grid, [[1, 2], [3, 4]], dtype="F").dtype == "F")
    for root in (None, 0):
        refused(comm, BadInput, "must be integer, real or complex", BlockCyclic.from_array, grid,
                np.array([["a"]]) if comm.rank == 0 or root is None else None, root=root)
        refused(comm, BadInput, "must be complex, as the array is", BlockCyclic.from_array, grid,
                np.ones((2, 2)) * 1j if comm.rank == 0 or root is None else None, root=root, dtype="d")
        refused(comm, BadInput, r"shape = \(3,\): must be two numbers >= 0", BlockCyclic.from_array, grid,
                np.ones(3) if comm.rank == 0 or root is None else None, root=root)


@pytest.mark.mpi
def test_like_and_copy(assert_all, grids):
    for grid in grids:
        a = BlockCyclic.from_array(grid, whole((33, 20)), 4)
        other = a.copy()
        assert_all(other.rows == a.rows and other.cols == a.cols and not np.shares_memory(a.local, other.local))
        other.local[...] = 0
        assert_all(np.array_equal(a.to_array(), whole((33, 20))), "a copy is another matrix")
        small = a.like((5, 3), "F")
        assert_all((small.shape, small.dtype, small.nb, small.grid) == ((5, 3), np.complex64, 4, grid))
        turned = a.like(rows=Axis(20, 4, grid.row_weights), cols=a.cols)
        assert_all(turned.shape == (20, 20) and turned.cols is a.cols)


@pytest.mark.mpi
def test_caps_are_kept_to(comm, assert_all, grids):
    for grid in grids:
        caps = np.full(comm.size, 4 * 48 * 64 * 8)
        caps[0] = 0 if comm.size > 1 and 1 in grid.shape else 48 * 64 * 8 // 2
        if grid.P > 1 < grid.Q:
            caps[0] = 48 * 64 * 8 // 5
        a = BlockCyclic(grid, (48, 64), nb=2, caps=caps) if comm.size > 1 else BlockCyclic(grid, (48, 64), nb=2)
        assert_all(comm.size == 1 or a.local.nbytes <= caps[comm.rank], (grid.shape, a.local.shape))
        assert_all(comm.allreduce(a.local.size) == 48 * 64)
        error = refused(comm, NotEnoughMemory, "within their caps", BlockCyclic, grid, (48, 64), nb=2,
                        caps=np.full(comm.size, 48 * 64 * 8 // comm.size // 2))
        assert_all(error.need == 48 * 64 * 8 and error.have <= error.need // 2)
        for wrong in (np.ones(comm.size + 1), -np.ones(comm.size)):
            refused(comm, BadInput, f"caps = .*: must be {comm.size} numbers of bytes >= 0", BlockCyclic, grid, (4, 4),
                    caps=wrong)


@pytest.mark.mpi
def test_memory_is_asked_for_before_it_is_taken(comm, assert_all, monkeypatch):
    """Ranks on two nodes, of which the second has too little; nothing is allocated."""
    grid = ProcessGrid(comm, (1, comm.size))
    last = comm.size - 1
    grid.memory.nodes = ["octavia"] * last + ["aria"]
    monkeypatch.setattr(memory, "available", lambda: 3 * 2**20 if comm.rank == last else 2**40)
    shape = 1024, 512 * comm.size  # 4 MiB a rank
    allocated = []
    monkeypatch.setattr(module.np, "empty", lambda *_, **__: allocated.append(1))
    error = refused(comm, NotEnoughMemory, "a matrix of 1024 x .* needs 0.00419 GB on aria, which has 0.00315 GB free",
                    BlockCyclic, grid, shape, nb=512)
    assert_all((error.need, error.have, error.node) == (2**22, 3 * 2**20, "aria") and not allocated)
    assert_all(isinstance(error, MemoryError) and isinstance(error, BadInput))
    monkeypatch.undo()
    grid.memory.nodes = ["octavia"] * comm.size  # needs of ranks on one node add up
    monkeypatch.setattr(memory, "available", lambda: comm.size * 2**22)
    error = refused(comm, NotEnoughMemory, "on octavia", BlockCyclic, grid, shape, nb=512)
    assert_all(error.need == comm.size * 2**22)
    monkeypatch.setattr(memory, "available", lambda: (comm.rank + 1) * 2**22)  # as each control group allows
    error = refused(comm, NotEnoughMemory, "on octavia", BlockCyclic, grid, shape, nb=512)
    assert_all(error.have == 2**22)
    monkeypatch.setattr(memory, "available", lambda: comm.size * 2**22 * 1.03)
    small = BlockCyclic(grid, shape, nb=512)
    assert_all(small.local.nbytes == 2**22)
    monkeypatch.setattr(memory, "available", lambda: 2**21)
    refused(comm, NotEnoughMemory, "the whole matrix on one rank", small.to_array, 0)
    monkeypatch.setattr(memory, "available", lambda: None)  # where it cannot be told
    assert_all(BlockCyclic(grid, shape, nb=512).local.nbytes == 2**22)
    grid.free()


def test_what_this_machine_has_left():
    found = memory.available()
    assert found is None or 2**20 < found < 2**50


@pytest.mark.mpi
def test_what_cannot_be_is_refused(comm, grids):
    grid = grids[0]
    for arguments, keys, kind, words in (
            (((2, 2), "i"), {}, BadInput, "dtype = int32: must be float32, float64, complex64, complex128"),
            (((2, -1),), {}, BadInput, r"shape = \(2, -1\): must be two numbers >= 0"),
            (((2, 2, 2),), {}, BadInput, "must be two numbers >= 0"),
            (((2, 2),), {"nb": 0}, BadInput, "nb = 0: must be >= 1"),
            (((2, 2),), {"nb": -3}, BadInput, "nb = -3: must be >= 1"),
            (((2, 3),), {"rows": Axis(4, 2, grid.row_weights)}, Mismatch, "rows and cols are 4 by 2 and 3 by 2"),
            (((2, 3),), {"rows": Axis(2, 8, np.ones(grid.P + 1))}, Mismatch, f"to {grid.P + 1} and {grid.Q} parts"),
            (((2, 3),), {"nb": 3, "rows": Axis(2, 2, grid.row_weights)}, Mismatch, "nb = 3: rows and cols are 2 by 2")):
        refused(comm, kind, words, BlockCyclic, grid, *arguments, **keys)


@pytest.mark.mpi
def test_blocks_where_none_are_asked_for(assert_all, grids):
    for grid in grids:
        assert_all(BlockCyclic(grid, (0, 0)).nb == BlockCyclic(grid, (3, 3)).nb == 8)
        nb = module.block((3000, 4000), grid)
        assert_all(nb % 8 == 0 and 8 <= nb <= module.NB and 3000 / nb / max(grid.shape) >= 4)
