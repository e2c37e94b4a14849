"""Checkpoints: any number of ranks goes on from any other, damage is seen, and neither a kill nor a full disk harms."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import environment, mpirun_command

from brmpi.errors import Fault
from brmpi.results import checkpoints, diagnostics, snapshots
from brmpi.results.pieces import Piece, rows


def everything(name, shape):
    """A layout: this rank wants all of it."""
    return (0,) * len(shape), shape


def share(n, rank, size):
    """An uneven share of n rows; with many ranks the first has none."""
    edges = [n * r * r // (size * size) for r in range(size + 1)]
    return edges[rank], edges[rank + 1]


def state(n, rank=0, size=1, factor=1.0):
    """Arrays of several dtypes and axes, in pieces along different axes, and scalars that must keep every bit."""
    lo, hi = share(n, rank, size)
    position = factor * np.sqrt(np.arange(3.0 * n)).reshape(n, 3)
    grid = np.arange(4 * n, dtype=np.complex128).reshape(4, n) * 1j
    arrays = {"position": rows(position[lo:hi], lo, n), "alive": rows((np.arange(n) % 3 == 0)[lo:hi], lo, n),
              "id": rows(np.arange(n, dtype=np.uint64)[lo:hi], lo, n),
              "grid": Piece(np.ascontiguousarray(grid[:, lo:hi]), (0, lo), (4, n))}
    return arrays, {"time": 0.1 + 0.2, "seed": 2**63 - 1, "count": np.int64(n), "name": "Ceres é", "none": None,
                    "big": np.float64(1e-300), "nested": {"a": [1, 2.5]}}


@pytest.mark.mpi
@pytest.mark.parametrize("io", ["root", "mpio"])
@pytest.mark.parametrize("n", [0, 2, 20000])
def test_what_is_written_is_read_in_any_layout(comm, assert_all, mpi_tmp_path, n, io):
    from brmpi.results.pieces import parallel_hdf5

    if io == "mpio" and not parallel_hdf5():
        pytest.skip("this h5py has no parallel HDF5")
    arrays, scalars = state(n, comm.rank, comm.size)
    checkpoints.write(comm, mpi_tmp_path, 7, arrays, scalars, "nbody", io=io)

    def mirrored(name, shape):
        lo, hi = share(n, comm.size - 1 - comm.rank, comm.size)
        axis = 1 if name == "grid" else 0
        return tuple(lo if a == axis else 0 for a in range(len(shape))), tuple(
            hi - lo if a == axis else m for a, m in enumerate(shape))

    for layout, (rank, size) in ((everything, (0, 1)), (mirrored, (comm.size - 1 - comm.rank, comm.size))):
        step, seen, told = checkpoints.read(comm, mpi_tmp_path, layout, "nbody")
        expected, _ = state(n, rank, size)
        assert_all(step == 7 and told == scalars and seen.keys() == expected.keys(), (step, told))
        for name, piece in expected.items():
            assert_all(seen[name].dtype == piece.data.dtype and np.array_equal(seen[name], piece.data), name)
            assert_all(seen[name].flags.c_contiguous and seen[name].flags.writeable, name)


@pytest.mark.mpi
def test_none_where_there_is_none_and_the_last_two_stay(comm, assert_all, mpi_tmp_path):
    assert_all(checkpoints.read(comm, mpi_tmp_path, everything, "nbody") is None)
    for step in (1, 2, 30, 4):  # 4 after 30: a run that went back to 2
        checkpoints.write(comm, mpi_tmp_path, step, *state(5, comm.rank, comm.size), "nbody")
    comm.Barrier()
    assert_all(checkpoints.steps(mpi_tmp_path, "nbody") == [2, 4], checkpoints.steps(mpi_tmp_path, "nbody"))
    checkpoints.write(comm, mpi_tmp_path, 5, *state(5, comm.rank, comm.size), "other")
    comm.Barrier()
    assert_all(checkpoints.steps(mpi_tmp_path, "nbody") == [2, 4])
    assert_all(checkpoints.read(comm, mpi_tmp_path, everything, "nbody")[0] == 4)


@pytest.mark.mpi
def test_a_refusing_layout_is_raised_on_every_rank(comm, assert_all, mpi_tmp_path):
    checkpoints.write(comm, mpi_tmp_path, 1, *state(5, comm.rank, comm.size), "nbody")

    def layout(name, shape):
        if comm.rank == comm.size - 1:
            raise ValueError("not mine")
        return everything(name, shape)

    for wish, words in ((layout, "not mine"), (lambda name, shape: ((1,) * len(shape), shape), "wanted a block")):
        raised = None
        try:
            checkpoints.read(comm, mpi_tmp_path, wish, "nbody")
        except ValueError as error:
            raised = str(error)
        assert_all(raised is not None and words in raised, raised)


def spoil(path, how):
    """Damage a file: cut it, empty it, or change one byte at a place given as a share of its length."""
    data = bytearray(path.read_bytes())
    if how == "cut":
        data = data[:len(data) * 2 // 3]
    elif how == "empty":
        data = b""
    else:
        data[int(how * len(data))] ^= 0x10
    path.write_bytes(bytes(data))


@pytest.mark.mpi
@pytest.mark.parametrize("how", ["cut", "empty", 0.0, 0.5, 0.9])
def test_damage_is_told_once_and_the_one_before_is_used(comm, assert_all, mpi_tmp_path, capfd, how):
    for step in (1, 2):
        checkpoints.write(comm, mpi_tmp_path, step, *state(5000, comm.rank, comm.size, step), "nbody")
    newest = checkpoints.path(mpi_tmp_path, "nbody", 2)
    if comm.rank == 0:
        spoil(newest, how)
    comm.Barrier()
    step, seen, _ = checkpoints.read(comm, mpi_tmp_path, everything, "nbody")
    assert_all(step == 1 and np.array_equal(seen["position"], state(5000)[0]["position"].data))
    told = [text for text in comm.allgather(capfd.readouterr().err) if text]
    assert_all(len(told) == 1 and told[0].count("damaged") == 1 and str(newest) in told[0], told)
    if comm.rank == 0:
        spoil(checkpoints.path(mpi_tmp_path, "nbody", 1), how)
    comm.Barrier()
    raised = None
    try:
        checkpoints.read(comm, mpi_tmp_path, everything, "nbody")
    except Fault as error:
        raised = str(error)
    assert_all(raised is not None and raised.count("damaged") == 2, raised)


def test_a_changed_byte_is_seen_or_harmless_wherever_it_is(comm, tmp_path, capfd):
    arrays, scalars = state(40)
    checkpoints.write(comm, tmp_path, 3, arrays, scalars, "nbody")
    path = checkpoints.path(tmp_path, "nbody", 3)
    good, seen = path.read_bytes(), 0
    for place in range(0, len(good), 7):
        path.write_bytes(good)
        spoil(path, (place + 0.5) / len(good))
        try:
            step, found, told = checkpoints.read(comm, tmp_path, everything, "nbody")
        except Fault:
            seen += 1
            continue
        assert step == 3 and told == scalars, place
        assert all(np.array_equal(found[name], arrays[name].data) for name in arrays), place
    assert seen > len(good) / 7 / 2


def test_from_three_ranks_to_two_and_one(comm, launch, tmp_path):
    program = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from mpi4py import MPI
from test_checkpoints import checkpoints, share, state
comm = MPI.COMM_WORLD
if sys.argv[3] == "write":
    checkpoints.write(comm, sys.argv[2], 5, *state(1000, comm.rank, comm.size), "nbody")
else:
    def layout(name, shape):
        lo, hi = share(1000, comm.rank, comm.size)
        return ((0, lo), (4, hi - lo)) if name == "grid" else ((lo, 0)[:len(shape)], (hi - lo, *shape[1:]))
    step, arrays, scalars = checkpoints.read(comm, sys.argv[2], layout, "nbody")
    expected = state(1000, comm.rank, comm.size)[0]
    assert step == 5 and all(np.array_equal(arrays[k], expected[k].data) for k in expected)
"""
    for ranks, what in ((3, "write"), (2, "read"), (1, "read")):
        done = launch(ranks, "-c", program, Path(__file__).parent, tmp_path, what)
        assert done.returncode == 0, done.stderr
    assert checkpoints.read(comm, tmp_path, everything, "nbody")[0] == 5


KILLED = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from mpi4py import MPI
from test_checkpoints import checkpoints, diagnostics, rows, snapshots, state
import numpy as np
comm, out = MPI.COMM_WORLD, Path(sys.argv[2])
with diagnostics.Diagnostics(out / "diagnostics.h5", {"energy": "J"}) as table:
    for step in range(10**6):
        table.append({"step": step, "time": 0.5 * step, "energy": -1.0 * step})
        if step % 7 == 0:
            table.flush()
        particles = snapshots.Particles("p", 20000, {"position": snapshots.Record(
            rows(np.full((20000, 3), float(step)), 0, 20000))})
        snapshots.write(comm, snapshots.path(out, "nbody", step % 50), step % 50, 0.0, 1.0, [particles])
        checkpoints.write(comm, out, step, *state(20000, factor=step), "nbody")
        if step == 1:
            print("going", flush=True)
"""


def test_kill_at_any_moment_leaves_every_finished_file_whole(comm, tmp_path, capfd):
    chance = random.Random(5)
    for i in range(10):
        out = tmp_path / str(i)
        out.mkdir()
        process = subprocess.Popen([sys.executable, "-c", KILLED, Path(__file__).parent, out], env=environment(),
                                   stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "going\n"
        time.sleep(chance.uniform(0.0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=30)
        process.stdout.close()
        kept = checkpoints.steps(out, "nbody")
        assert len(kept) in (2, 3), kept  # three between the new one in place and the old one gone
        step, arrays, _ = checkpoints.read(comm, out, everything, "nbody")
        assert step == kept[-1] and np.array_equal(arrays["position"], state(20000, factor=step)[0]["position"].data)
        seen = [snapshots.read(file).particles["p"]["position"] for file in (out / "snapshots").glob("*.h5")]
        assert seen and all((values == values[0, 0]).all() for values in seen)
        table = diagnostics.read(out / "diagnostics.h5")
        assert len(table["step"]) > 0 and np.array_equal(table["energy"], -1.0 * table["step"])
        assert np.array_equal(table["step"], np.arange(len(table["step"])))
    assert "damaged" not in capfd.readouterr().err


FULL = """
import os, sys
from pathlib import Path
from mpi4py import MPI
import numpy as np
from brmpi.errors import Fault
from brmpi.results import checkpoints, disk, pieces
comm, out, known = MPI.COMM_WORLD, Path(sys.argv[1]), sys.argv[2] == "known"
if not known:  # as with a quota: the operating system promises room that it does not have
    disk.free = lambda path: 10**12
def state(n):
    lo, hi = n * comm.rank // comm.size, n * (comm.rank + 1) // comm.size
    return {"position": pieces.rows(np.arange(3 * n, dtype=float).reshape(n, 3)[lo:hi], lo, n)}
checkpoints.write(comm, out, 1, state(40000), {"time": 0.5}, "nbody")
checkpoints.write(comm, out, 2, state(40000), {"time": 1.0}, "nbody")
for n in (170000, 100000):
    try:
        checkpoints.write(comm, out, 3, state(n), {"time": 1.5}, "nbody")
        said = None
    except Fault as error:
        said = str(error)
    sentences = comm.gather(said)
    if comm.rank == 0:
        print(len(set(sentences)), said)
step, arrays, scalars = checkpoints.read(comm, out, lambda name, shape: ((0,) * len(shape), shape), "nbody")
same = np.array_equal(arrays["position"], np.arange(120000.0).reshape(-1, 3))
if comm.rank == 0:
    print(step, scalars, same, sorted(file.name for file in (out / "checkpoints").iterdir()))
"""


def small_disk(folder, size, *command):
    """Run a command with a small disk of its own mounted at a folder; skips where that is not allowed."""
    folder.mkdir()
    script = 'mount -t tmpfs -o size="$1" none "$2" || exit 77; shift 2; exec "$@"'
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    try:
        done = subprocess.run(["unshare", "--mount", *user, "sh", "-c", script, "sh", size, str(folder), *command],
                              capture_output=True, text=True, timeout=60, env=environment(), check=False)
    except FileNotFoundError:
        pytest.skip("no unshare here: a full disk was NOT tried")
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip(f"no private mounts here: a full disk was NOT tried ({done.stderr.strip()})")
    return done


@pytest.mark.parametrize("told", ["known", "unknown"])
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_full_disk_is_one_sentence_and_harms_nothing(tmp_path, ranks, told):
    out = tmp_path / "disk"
    done = small_disk(out, "4m", *mpirun_command(ranks, sys.executable, "-c", FULL, out, told))
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stdout + done.stderr
    *sentences, last = done.stdout.splitlines()
    assert len(sentences) == 2, done.stdout
    for sentence, needs in zip(sentences, ("4.1 MB", "2.4 MB")):
        same, _, said = sentence.partition(" ")
        assert same == "1", "ranks were told different things"
        assert said.startswith(f"{out}/checkpoints/nbody_00000003.h5: needs {needs}, "), said
        if told == "known":
            assert said.endswith("2.3 MB free on that disk"), said
        else:
            assert "was full after 2." in said, said
    assert last == "2 {'time': 1.0} True ['nbody_00000001.h5', 'nbody_00000002.h5']"
