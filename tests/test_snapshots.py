"""Snapshots: what was written is read back, by us and by others' tools; the bytes do not depend on the ranks."""

import errno
import filecmp
import os
import time
from pathlib import Path

import numpy as np
import pytest

from brmpi import cli
from brmpi.errors import BadInput, Fault
from brmpi.results import disk, hdf5, pieces, snapshots
from brmpi.results.pieces import Piece, rows
from brmpi.results.snapshots import Mesh, Particles, Record

AU = 1.495978707e11
DAY = 86400.0


def block(n, rank, size):
    """An uneven share: rank r gets about r + 1 parts; the first of many ranks may get nothing."""
    edges = [n * r * (r + 1) // (size * (size + 1)) for r in range(size + 1)]
    return edges[rank], edges[rank + 1]


def bodies(n, rank, size, **more):
    """Rows of a known global state."""
    lo, hi = block(n, rank, size)
    position = np.linspace(-1, 2, 3 * n).reshape(n, 3)
    return Particles("bodies", n, {
        "position": Record(rows(position[lo:hi], lo, n), unit_si=AU),
        "velocity": Record(rows(np.sin(position)[lo:hi], lo, n), unit_si=AU / DAY),
        "mass": Record(rows(np.arange(n, dtype=float)[lo:hi], lo, n), unit_si=2e30)}, more)


def field(shape, rank, size, name="temperature"):
    """This rank's slab along the last axis of a known field: blocks that are not contiguous in the whole."""
    whole = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    lo, hi = block(shape[-1], rank, size)
    offset = (0,) * (len(shape) - 1) + (lo,)
    return Mesh(name, Piece(np.ascontiguousarray(whole[..., lo:hi]), offset, shape), "zyx"[-len(shape):],
                (0.5, 0.25, 0.125)[-len(shape):], (1.0, 2.0, 3.0)[-len(shape):], unit_si=10.0)


@pytest.mark.mpi
@pytest.mark.parametrize("io", ["root", "mpio"])
@pytest.mark.parametrize("n", [0, 1, 2, 1000])
def test_what_is_written_is_read(comm, assert_all, mpi_tmp_path, n, io):
    if io == "mpio" and not pieces.parallel_hdf5():
        pytest.skip("this h5py has no parallel HDF5")
    path = snapshots.path(mpi_tmp_path, "nbody", 70)
    snapshots.write(comm, path, 70, 1.75, 0.025, [bodies(n, comm.rank, comm.size, names=["Sol", "Ceres é"])],
                    [field((3, 4, n), comm.rank, comm.size)], io=io, unit_time=DAY)
    seen, whole = snapshots.read(path), bodies(n, 0, 1)
    one = seen.particles["bodies"]
    assert_all((seen.step, seen.time, seen.dt, seen.unit_time) == (70, 1.75, 0.025, DAY), seen)
    assert_all(all(np.array_equal(one[name], whole[name]) for name in whole.records))
    assert_all(np.array_equal(one["id"], np.arange(n)) and one["id"].dtype == np.uint64)
    assert_all(one.records["velocity"].unit_dimension == (1, 0, -1, 0, 0, 0, 0) and
          one.records["velocity"].unit_si == AU / DAY)
    assert_all(one.attributes["names"] == ["Sol", "Ceres é"], one.attributes)
    mesh = seen.meshes["temperature"]
    assert_all(np.array_equal(mesh.piece.data, field((3, 4, n), 0, 1).piece.data))
    assert_all((mesh.axes, mesh.spacing, mesh.origin) == (("z", "y", "x"), (0.5, 0.25, 0.125), (1.0, 2.0, 3.0)), mesh)


@pytest.mark.mpi
@pytest.mark.parametrize("shape", [(5,), (4, 7), (3, 5, 2)])
def test_blocks_of_any_shape(comm, assert_all, mpi_tmp_path, monkeypatch, shape):
    monkeypatch.setattr(hdf5.slabs, "__defaults__", (40,))  # slabs of a few elements: cut along every axis
    path = mpi_tmp_path / f"heat_{len(shape):08d}.h5"
    snapshots.write(comm, path, 1, 0.0, 1.0, meshes=[field(shape, comm.rank, comm.size)])
    assert_all(np.array_equal(snapshots.read(path).meshes["temperature"].piece.data, field(shape, 0, 1).piece.data))


@pytest.mark.mpi
def test_pieces_that_do_not_fit_are_refused_on_every_rank(comm, assert_all, mpi_tmp_path):
    path = mpi_tmp_path / "x.h5"
    n = comm.size
    for data, first, total, words in (
            (np.zeros(1), comm.rank, n + 1, "elements"), (np.zeros(1), comm.rank + 1, n, "outside"),
            (np.zeros(1, "f4" if comm.rank == n - 1 and n > 1 else "O"), comm.rank, n, ""),
            (np.zeros(1, np.longdouble), comm.rank, n, "64-bit")):
        try:
            pieces.write(comm, path, {"a": rows(data, first, total)}, {})
            raised = None
        except ValueError as error:
            raised = str(error)
        assert_all(raised is not None and words in raised, raised)
    assert_all(list(mpi_tmp_path.iterdir()) == [])


@pytest.mark.mpi
def test_a_refusal_of_the_root_reaches_every_rank(comm, assert_all, mpi_tmp_path):
    taken = mpi_tmp_path / "taken"
    if comm.rank == 0:
        taken.write_text("a file where a folder is needed")
    comm.Barrier()
    for path, kind in ((taken / "x.h5", Fault), (mpi_tmp_path / "x.h5", BadInput)):
        raised = None
        try:
            pieces.write(comm, path, {"a": rows(np.ones(3 * 10**5), 3 * 10**5 * comm.rank, 3 * 10**5 * comm.size)}, {},
                         io="root" if kind is Fault else "tape")
        except (Fault, BadInput) as error:
            raised = error
        assert_all(type(raised) is kind and (kind is BadInput or str(path) in str(raised)), repr(raised))


def test_without_parallel_hdf5_it_is_said(comm, tmp_path, monkeypatch):
    monkeypatch.setattr(pieces, "parallel_hdf5", lambda: False)
    with pytest.raises(BadInput, match=r'io = "mpio": this h5py has no parallel HDF5'):
        pieces.write(comm, tmp_path / "x.h5", {"a": rows(np.ones(2), 0, 2)}, {}, io="mpio")


WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from mpi4py import MPI
from test_snapshots import bodies, field, block
from brmpi.results import checkpoints, snapshots
comm, out = MPI.COMM_WORLD, Path(sys.argv[2])
for n in (0, 3, 50000):
    parts, mesh = bodies(n, comm.rank, comm.size), field((3, 5, n), comm.rank, comm.size)
    snapshots.write(comm, snapshots.path(out, "nbody", n), n, 0.5, 0.1, [parts], [mesh])
    arrays = {name: record.piece for name, record in parts.records.items()} | {"field": mesh.piece}
    checkpoints.write(comm, out, n, arrays, {"time": 0.1 + 0.2, "step": n}, "nbody")
"""


def test_the_bytes_are_the_same_from_any_number_of_ranks(launch, tmp_path):
    seen = {}
    for ranks in (1, 2, 3, 5):
        out = tmp_path / str(ranks)
        done = launch(ranks, "-c", WRITER, Path(__file__).parent, out)
        assert done.returncode == 0, done.stderr
        seen[ranks] = sorted(str(file.relative_to(out)) for file in out.rglob("*.*"))
        time.sleep(0.5)  # clocks with a resolution of a second go on
    assert seen[1] == ["checkpoints/nbody_00000003.h5", "checkpoints/nbody_00050000.h5", "snapshots/nbody_00000000.h5",
                       "snapshots/nbody_00000003.h5", "snapshots/nbody_00050000.h5"]
    for ranks in (2, 3, 5):
        assert seen[ranks] == seen[1]
        for name in seen[1]:
            assert filecmp.cmp(tmp_path / "1" / name, tmp_path / str(ranks) / name, shallow=False), (ranks, name)


@pytest.fixture
def series(comm, tmp_path):
    """Two steps with particles and meshes of 1 to 3 axes, one of them a vector."""
    for step in (0, 12):
        shape = (6, 5)
        wind = Mesh("wind", {axis: field(shape, 0, 1).piece for axis in "xy"}, ("y", "x"), (1.0, 1.0), (0.0, 0.0),
                    unit_dimension=(1, 0, -1, 0, 0, 0, 0), position=(0.5, 0.5), grid_unit_si=1e3)
        snapshots.write(comm, snapshots.path(tmp_path, "mix", step), step, 0.1 * step, 0.1,
                        [bodies(9, 0, 1), Particles("flat", 4, {"position": Record(rows(np.eye(4)[:, :2], 0, 4))})],
                        [field((6, 5), 0, 1), field((3, 4, 5), 0, 1, "cube"), field((7,), 0, 1, "line"), wind],
                        attributes={"title": "a mixture"}, unit_time=DAY)
    return tmp_path / "snapshots"


def test_the_standards_validator_is_content(series, capsys):
    from openpmd_validator import check_h5

    for file in sorted(series.iterdir()):
        with hdf5.opened(file) as opened:
            extensions = check_h5.get_extensions(opened, False)
            found = check_h5.check_root_attr(opened, False) + check_h5.check_iterations(opened, False, extensions)
            step = next(iter(opened["data"]))
            found += check_h5.check_base_path(opened, step, False, extensions)
            found += check_h5.check_meshes(opened, step, False, extensions)
            found += check_h5.check_particles(opened, step, False, extensions)
        said = capsys.readouterr().out
        assert found[0] == 0, said
        # what would depend on the clock, the person or the ranks is left out
        left = {line.split()[2] for line in said.splitlines() if line.startswith("Warning")}
        assert left <= {"author", "date", "particlePatches"}, said


def test_openpmd_api_reads_values_and_units(series):
    io = pytest.importorskip("openpmd_api")
    read = io.Series(str(series / "mix_%T.h5"), io.Access.read_only)
    assert sorted(read.iterations) == [0, 12]
    step = read.iterations[12]
    assert step.time == pytest.approx(1.2) and step.time_unit_SI == DAY
    position = step.particles["bodies"]["position"]
    values = position["y"][:]
    mesh = step.meshes["cube"]
    cube = mesh[io.Mesh_Record_Component.SCALAR]
    inside = cube[:]
    read.flush()
    assert np.array_equal(values, bodies(9, 0, 1)["position"][:, 1])
    assert position["y"].unit_SI == AU and position.unit_dimension == [1, 0, 0, 0, 0, 0, 0]
    assert step.particles["bodies"]["velocity"]["x"].unit_SI == AU / DAY
    assert np.array_equal(inside, field((3, 4, 5), 0, 1).piece.data) and cube.unit_SI == 10.0
    assert mesh.axis_labels == ["z", "y", "x"] and mesh.grid_spacing == [0.5, 0.25, 0.125]
    assert mesh.grid_global_offset == [1.0, 2.0, 3.0]
    assert step.meshes["wind"].grid_unit_SI == 1e3


@pytest.mark.parametrize("shape", [(6, 5), (3, 4, 5)])
def test_yt_reads_values_where_they_are(comm, tmp_path, shape):
    """yt takes a file's axes in their order, whatever they are called: its x is the first of them."""
    yt = pytest.importorskip("yt")
    yt.set_log_level(50)
    mesh = field(shape, 0, 1)
    file = snapshots.path(tmp_path, "mix", 3)
    snapshots.write(comm, file, 3, 0.3, 0.1, [], [mesh], unit_time=DAY)
    read = yt.load(str(file))
    spacing, corner = np.array(mesh.spacing), np.array(mesh.origin)
    assert tuple(read.domain_dimensions[: len(shape)]) == shape
    assert np.allclose(read.domain_left_edge[: len(shape)], corner)
    assert np.allclose(read.domain_right_edge[: len(shape)], corner + spacing * shape)
    assert float(read.current_time) == pytest.approx(0.3 * DAY)
    cells = read.all_data()
    places = [np.asarray(cells["index", axis].d) for axis in "xyz"[: len(shape)]]
    index = tuple(np.rint((x - first) / dx - 0.5).astype(int) for x, first, dx in zip(places, corner, spacing))
    assert len(set(zip(*index))) == np.prod(shape)
    assert np.array_equal(cells["openPMD", "temperature"].d, mesh.piece.data[index] * mesh.unit_si)


def test_particles_without_position_are_refused(comm, tmp_path):
    with pytest.raises(ValueError, match="no position"):
        snapshots.write(comm, tmp_path / "a_1.h5", 1, 0.0, 1.0, [Particles("p", 0, {})])
    short = Particles("p", 3, {"position": Record(rows(np.zeros((2, 3)), 0, 2))})
    with pytest.raises(ValueError, match="2 rows, not 3"):
        snapshots.write(comm, tmp_path / "a_1.h5", 1, 0.0, 1.0, [short])


@pytest.mark.parametrize("text", [None, b"", b"not HDF5"])
def test_what_is_no_snapshot_is_refused(tmp_path, text, capsys):
    path = tmp_path / "x_00000001.h5"
    if text is not None:
        path.write_bytes(text)
    with pytest.raises(BadInput, match=r"x_00000001\.h5"):
        snapshots.read(path)
    assert cli.main(["plot", str(path)]) == 2
    assert "x_00000001.h5" in capsys.readouterr().err


def test_sizes_are_written_for_people():
    assert [disk.size(n) for n in (0, 999, 1000, 12_345_678, 2_000_000_000)] == [
        "0 B", "999 B", "1.0 kB", "12.3 MB", "2.0 GB"]


def test_hdf5_is_never_told_that_the_disk_is_full():
    sink = disk.Sink("/dev/full")
    assert sink.write(b"abc") == 3 and sink.tell() == 3
    assert sink.failure.errno == errno.ENOSPC
    sink.truncate(10)
    sink.close()
    assert sink.failure.errno == errno.ENOSPC  # the first of them


def test_a_file_is_safe_before_it_is_in_place(tmp_path, monkeypatch):
    path, order = tmp_path / "a", []
    fsync = os.fsync

    def noted(handle):
        order.append((str(Path(f"/proc/self/fd/{handle}").readlink()), path.exists()))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    disk.write(path, b"data")
    assert order == [(f"{path}.part", False), (str(tmp_path), True)] and path.read_bytes() == b"data"
