"""diagnostics.h5: read while it grows, after a kill, and gone on with; a full disk is one sentence."""

import signal
import subprocess
import sys

import h5py
import numpy as np
import pytest
from conftest import environment
from test_checkpoints import small_disk

from brmpi.errors import Fault
from brmpi.results import diagnostics
from brmpi.results.diagnostics import Column, Diagnostics

COLUMNS = {"energy": Column("J", conserved=True), "time": "s"}


def row(step):
    return {"step": step, "time": 0.5 * step, "energy": -1.0 / (step + 1), "wall/seconds": 0.1 * step}


def fill(path, first, last, **options):
    with Diagnostics(path, COLUMNS, wall={"seconds": "s"}, **options) as table:
        for step in range(first, last):
            table.append(row(step))


def check(path, count):
    seen = diagnostics.read(path)
    assert set(seen) == {"step", "time", "energy", "wall/seconds"}
    assert seen["step"].dtype == np.int64 and seen["energy"].dtype == np.float64
    for name in seen:
        assert np.array_equal(seen[name], [row(step)[name] for step in range(count)]), name


@pytest.mark.parametrize("count", [0, 1, 3000])
def test_what_is_appended_is_read(tmp_path, count):
    path = tmp_path / "diagnostics.h5"
    fill(path, 0, count)
    check(path, count)
    assert diagnostics.columns(path) == {"step": Column(), "time": Column("s"), "energy": Column("J", True),
                                         "wall/seconds": Column("s")}
    with h5py.File(path, "r") as file:  # closed in order, any reader may have it
        assert file["energy"].shape == (count,)
    assert [file.name for file in tmp_path.iterdir()] == ["diagnostics.h5"]


def test_columns_may_be_given_in_either_way(tmp_path):
    with Diagnostics(tmp_path / "d.h5", {"seconds": "s", "mass": "kg"}, wall=("seconds",)) as table:
        table.append({"step": 1, "time": 2.0, "mass": 3.0, "seconds": 4.0})
    assert diagnostics.columns(tmp_path / "d.h5")["wall/seconds"] == Column("s")
    assert diagnostics.read(tmp_path / "d.h5")["wall/seconds"] == [4.0]
    with Diagnostics(tmp_path / "e.h5", ["mass"]) as table:
        table.append({"step": 1, "time": 2.0, "mass": 3.0})
    assert diagnostics.read(tmp_path / "e.h5")["mass"] == [3.0]


READER = """
import sys
from test_diagnostics import check
for line in sys.stdin:
    check(sys.argv[1], int(line))
    print("right", flush=True)
"""


def test_another_process_sees_rows_as_they_come(tmp_path):
    path = tmp_path / "diagnostics.h5"
    reader = subprocess.Popen([sys.executable, "-c", READER, path], text=True, stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, env=environment(PYTHONPATH=":".join(sys.path)))

    def seen(count):
        reader.stdin.write(f"{count}\n")
        reader.stdin.flush()
        return reader.stdout.readline() == "right\n"

    table = Diagnostics(path, COLUMNS, wall={"seconds": "s"})
    assert seen(0)
    for step in range(1500):
        table.append(row(step))
        if step in (0, 1, 700, 1499):
            table.flush()
            assert seen(step + 1)
    table.close()
    table.close()
    assert seen(1500)
    reader.stdin.close()
    assert reader.wait(timeout=30) == 0
    reader.stdout.close()
    with pytest.raises(ValueError, match="closed"):
        table.append(row(0))


def test_rows_do_not_wait_longer_than_half_a_second(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(diagnostics.time, "monotonic", lambda: now[0])
    with Diagnostics(tmp_path / "d.h5", COLUMNS, wall={"seconds": "s"}) as table:
        for step, (elapsed, visible) in enumerate([(0, 1), (0.1, 1), (0.3, 1), (0.2, 4), (0.4, 4), (5, 6)]):
            now[0] += elapsed
            table.append(row(step))
            check(tmp_path / "d.h5", visible)


def test_a_column_shorter_than_the_others_is_what_counts(tmp_path):
    path = tmp_path / "d.h5"
    fill(path, 0, 10)
    with h5py.File(path, "a") as file:  # a reader may come between the growing of two columns
        file["energy"].resize((7,))
    check(path, 7)


@pytest.mark.parametrize("wrong", [{"step": 1}, {**row(1), "mass": 2.0}])
def test_a_row_with_other_columns_is_refused(tmp_path, wrong):
    with Diagnostics(tmp_path / "d.h5", COLUMNS, wall={"seconds": "s"}) as table:
        with pytest.raises(ValueError, match="other columns"):
            table.append(wrong)
        table.append(row(0))
    check(tmp_path / "d.h5", 1)


def test_a_restart_keeps_the_rows_up_to_its_step(tmp_path):
    path = tmp_path / "d.h5"
    fill(path, 0, 1000)
    fill(path, 601, 700, after=600)
    check(path, 700)
    fill(path, 700, 700, after=10**6)
    check(path, 700)
    fill(tmp_path / "new.h5", 0, 5, after=0)  # killed before it had a file
    check(tmp_path / "new.h5", 5)
    path.write_bytes(b"no HDF5")
    with pytest.raises(Fault, match="cannot go on"):
        Diagnostics(path, COLUMNS, after=3)
    assert path.read_bytes() == b"no HDF5"


KILLED = """
import sys, time
sys.path.insert(0, sys.argv[1])
from test_diagnostics import COLUMNS, Diagnostics, row
table = Diagnostics(sys.argv[2], COLUMNS, wall={"seconds": "s"})
for step in range(800):
    table.append(row(step))
table.flush()
table.append(row(800))
print("flushed", flush=True)
time.sleep(60)
"""


def test_a_kill_keeps_every_flushed_row_and_a_restart_goes_on(tmp_path):
    path = tmp_path / "diagnostics.h5"
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path / "../../.."), path], text=True,
                               env=environment(PYTHONPATH=":".join(sys.path)), stdout=subprocess.PIPE)
    assert process.stdout.readline() == "flushed\n"
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=30)
    process.stdout.close()
    check(path, 800)
    fill(path, 501, 900, after=500)
    check(path, 900)
    with h5py.File(path, "r") as file:
        assert len(file["step"]) == 900


FULL = """
import sys
from test_diagnostics import COLUMNS, Diagnostics, check, row
from brmpi.errors import Fault
from brmpi.results import diagnostics, disk
out, how = sys.argv[1] + "/diagnostics.h5", sys.argv[2]
if how != "known":
    disk.free = lambda path: 10**12
if how == "sudden":  # another program takes the room that was promised a moment ago
    diagnostics.os.posix_fallocate = lambda *arguments: None
table = Diagnostics(out, COLUMNS, wall={"seconds": "s"})
said = set()
try:
    for step in range(10**6):
        table.append(row(step))
        if step % 64 == 0:
            table.flush()
except Fault as error:
    said.add(str(error))
for again in (table.flush, lambda: table.append(row(0))):
    try:
        again()
    except Fault as error:
        said.add(str(error))
table.close()
count = len(diagnostics.read(out)["step"])
if how != "sudden":
    check(out, count)
print(len(said), step - count, said.pop())
"""


@pytest.mark.parametrize("how", ["known", "quota", "sudden"])
@pytest.mark.parametrize("size", ["64k", "300k", "508k"])
def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch, how, size):
    monkeypatch.setenv("PYTHONPATH", ":".join(sys.path))
    done = small_disk(tmp_path / "disk", size, sys.executable, "-c", FULL, tmp_path / "disk", how)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    count, lost, said = done.stdout.split(maxsplit=2)
    assert count == "1" and int(lost) <= 64
    assert said.startswith(f"{tmp_path}/disk/diagnostics.h5: needs "), said
