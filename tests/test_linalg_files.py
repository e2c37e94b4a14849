"""Matrices in files: in global order, the same bytes from any grid, read on any other; what is no matrix is refused."""

import hashlib
import sys

import h5py
import numpy as np
import pytest
from conftest import mpirun_command
from test_checkpoints import small_disk

from brmpi.errors import BadInput, Fault
from brmpi.linalg import files
from brmpi.linalg import matrix as module
from brmpi.linalg.files import from_hdf5, to_hdf5
from brmpi.linalg.matrix import BlockCyclic
from brmpi.linalg.processgrid import ProcessGrid
from brmpi.results import hdf5, pieces

IO = "root", "mpio"


@pytest.fixture
def grids(comm):
    """Grids of every shape with all ranks, equal and weighted, and one of this rank alone."""
    made = [ProcessGrid(comm, (P, comm.size // P), speeds)
            for P in range(1, comm.size + 1) if comm.size % P == 0
            for speeds in (None, np.arange(1.0, comm.size + 1)[::-1] ** 2)]
    yield made
    for grid in made:
        grid.free()


def whole(shape, dtype="d"):
    """A matrix each of whose elements is its own number."""
    found = np.arange(np.prod(shape), dtype=np.float64).reshape(shape) + 1
    return (found * (1 - 2j) if dtype in "FD" else found).astype(dtype)


@pytest.mark.mpi
@pytest.mark.parametrize("io", IO)
def test_what_is_written_is_read(comm, assert_all, grids, mpi_tmp_path, monkeypatch, io):
    if io == "mpio" and not pieces.parallel_hdf5():
        pytest.skip("this h5py has no parallel HDF5")
    monkeypatch.setattr(hdf5.slabs, "__defaults__", (300,))  # strips of a few rows, and of parts of rows
    monkeypatch.setattr(module, "STRIP", 200)
    path = mpi_tmp_path / "new" / "a.h5"
    for number, grid in enumerate(grids):
        own = "fdFD"[number % 4]
        for shape, dtype, nb in (((33, 20), own, 3), ((2, 90), "D", 8), ((1, 1), "f", 4), ((0, 3), "d", 4)):
            a, right = BlockCyclic.from_array(grid, whole(shape, dtype), nb), whole(shape, dtype)
            to_hdf5(a, path, "model/weights", {"unit": "m"}, io)
            with h5py.File(path, "r", locking=False) as file:
                data = file["model/weights"]
                assert_all(np.array_equal(data[()], right) and data.dtype == right.dtype, (grid.shape, shape))
                assert_all(hdf5.text(data.attrs["unit"]) == "m")
            for way in IO:
                back = from_hdf5(grids[number - 1], path, "model/weights", nb=5, io=way)
                assert_all(np.array_equal(back.to_array(), right) and back.dtype == right.dtype, (shape, way))
                assert_all(back.nb == 5 and back.grid is grids[number - 1])
            comm.Barrier()
    assert_all([one.name for one in path.parent.iterdir()] == ["a.h5"])


@pytest.mark.mpi
def test_the_bytes_do_not_depend_on_the_grid(comm, assert_all, alone, grids, mpi_tmp_path):
    seen = set()
    one = ProcessGrid(alone)
    if comm.rank == 0:
        to_hdf5(BlockCyclic.from_array(one, whole((40, 30), "F")), mpi_tmp_path / "one.h5")
        seen.add(hashlib.sha256((mpi_tmp_path / "one.h5").read_bytes()).hexdigest())
    one.free()
    for grid in grids:
        to_hdf5(BlockCyclic.from_array(grid, whole((40, 30), "F"), 4), mpi_tmp_path / "a.h5")
        if comm.rank == 0:
            seen.add(hashlib.sha256((mpi_tmp_path / "a.h5").read_bytes()).hexdigest())
    assert_all(comm.rank or len(seen) == 1)


@pytest.mark.mpi
@pytest.mark.parametrize("io", IO)
def test_types_of_files(comm, assert_all, grids, mpi_tmp_path, io):
    path = mpi_tmp_path / "types.h5"
    if comm.rank == 0:
        with h5py.File(path, "w", driver="sec2") as file:
            for given in ("i4", "u1", "?", "f2", ">f8", "f4", "c8", "c16"):
                file[given] = np.ones((5, 4), given)
    comm.Barrier()
    for given, made in (("i4", "d"), ("u1", "d"), ("?", "d"), ("f2", "d"), (">f8", "d"), ("f4", "f"), ("c8", "F")):
        a = from_hdf5(grids[-1], path, given, 2, io=io)
        assert_all(a.dtype == made and (a.to_array() == 1).all(), given)
    a = from_hdf5(grids[-1], path, "i4", 2, "F", io=io)
    assert_all(a.dtype == "F" and (a.to_array() == 1).all())


@pytest.mark.mpi
@pytest.mark.parametrize("io", IO)
def test_what_is_no_matrix_is_refused_on_every_rank(comm, assert_all, grids, mpi_tmp_path, io):
    path, junk, grid = mpi_tmp_path / "a.h5", mpi_tmp_path / "junk.h5", grids[0]
    if comm.rank == 0:
        junk.write_bytes(b"no HDF5" * 100)
        with h5py.File(path, "w", driver="sec2") as file:
            file["cube"], file["one"], file["group/x"] = np.ones((2, 2, 2)), 1.0, np.ones((2, 2)) * 1j
            file["text"] = np.array([[b"a"]])
            file["empty"] = h5py.Empty("f8")
    comm.Barrier()
    for arguments, words in (((mpi_tmp_path / "none.h5",), r"none.h5: there is no such file"),
                             ((junk,), "junk.h5: is no HDF5 file that can be read"),
                             ((mpi_tmp_path,), "is no HDF5 file that can be read"),
                             ((path,), 'has no dataset "matrix": must be one of these: cube, empty, group/x, one, '),
                             ((path, "group"), 'has no dataset "group"'),
                             ((path, "cube"), r'dataset "cube" has shape \(2, 2, 2\): must be a matrix'),
                             ((path, "one"), r'has shape \(\): must be a matrix'), ((path, "empty"), "has shape None"),
                             ((path, "text"), 'a.h5: dataset "text": numbers of dtype .*: must be integer'),
                             ((path, "group/x", None, "d"), "dtype = float64: must be complex, as"),
                             ((path, "group/x", None, "i"), "dtype = int32: must be"),
                             ((path, "a//b"), "name = 'a//b'")):
        with pytest.raises(BadInput, match=words) as refused:
            from_hdf5(grid, *arguments, io=io)
        assert_all(len(set(comm.allgather(str(refused.value)))) == 1 and "\n" not in str(refused.value))
    for keys, words in (({"io": "all"}, 'io = "all": must be "root" or "mpio"'),
                        ({"name": "/"}, "must be that of a dataset")):
        with pytest.raises(BadInput, match=words):
            to_hdf5(BlockCyclic(grid, (2, 2)), path, **keys)


@pytest.mark.mpi
def test_a_file_that_cannot_be_written_harms_nothing(comm, assert_all, grids, mpi_tmp_path, monkeypatch):
    path, a = mpi_tmp_path / "a.h5", BlockCyclic.from_array(grids[0], whole((30, 30)), 4)
    to_hdf5(a, path)
    before = path.read_bytes()

    def _full(*_):
        raise OSError(28, "No space left on device")

    if comm.rank == 0:
        monkeypatch.setattr(files.disk.os, "pwrite", _full)
    with pytest.raises(Fault, match=r"a.h5: needs .* kB, ") as refused:
        to_hdf5(a, path)
    monkeypatch.undo()
    assert_all(len(set(comm.allgather(str(refused.value)))) == 1)
    assert_all(path.read_bytes() == before and [one.name for one in mpi_tmp_path.iterdir()] == ["a.h5"])
    with pytest.raises(Fault, match="cannot be written"):
        to_hdf5(a, path / "under a file.h5")


FULL = """
import sys
from mpi4py import MPI
from brmpi.errors import Fault
from brmpi.linalg.files import to_hdf5
from brmpi.linalg.matrix import BlockCyclic
from brmpi.linalg.processgrid import ProcessGrid
comm = MPI.COMM_WORLD
a = BlockCyclic.from_function(ProcessGrid(comm), (1000, 1000), lambda i, j: i - j)
try:
    to_hdf5(a, sys.argv[1] + "/a.h5")
    said = "nothing"
except Fault as fault:
    said = str(fault)
sentences = comm.gather(said)
if comm.rank == 0:
    print(len(set(sentences)), said)
"""


def test_a_full_disk_is_one_sentence(tmp_path):
    done = small_disk(tmp_path / "disk", "4m", *mpirun_command(2, sys.executable, "-c", FULL, tmp_path / "disk"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"1 {tmp_path / 'disk'}/a.h5: needs 8.0 MB, "), done.stdout
