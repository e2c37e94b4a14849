"""brmpi show: what a run was, how long it took, what was conserved; a killed run is told from one that goes on."""

import json
import os
import shlex
import socket
import subprocess
import sys

import numpy as np
import pytest
from mpi4py import MPI

from brmpi import cli
from brmpi.results import checkpoints, folder, show, snapshots
from brmpi.results.diagnostics import Column, Diagnostics
from brmpi.results.pieces import rows
from brmpi.results.snapshots import Particles, Record

ABOUT = {
    "program": "nbody", "version": "0.1.0", "status": "done", "case_name": "plummer", "case_file": "plummer.toml",
    "case": {"n": 4096, "dt": 0.0078125, "softening": 1e-9, "unit": "", "bodies": [{"name": "a"}, {"name": "b"}]},
    "units": {"length": "au", "mass": "Msun", "time": "d"}, "overrides": {"n": 4096},
    "command": "mpirun -np 4 python -m brmpi.sims.nbody 'my case.toml' --overwrite",
    "versions": {"python": "3.11.2", "mpi4py": "3.1.4"}, "commit": "0123456789abcdef", "host": "octavia", "pid": 12,
    "hosts": {"octavia": 3, "lucidia": 1}, "ranks": 4, "shares": [1100, 1000, 998, 998],
    "speeds": {"kind": "gravity", "values": [2.5, 1.0]}, "seed": 17, "backend": "numba",
    "started": "2026-01-02T03:04:05+00:00", "seconds": 200.0, "step": 40, "steps": 100,
    "wall": {"output": {"min": 1.0, "mean": 2.0, "max": 3.0}, "force": {"min": 90.0, "mean": 100.0, "max": 110.0}},
}


@pytest.fixture
def run(tmp_path):
    """The folder of a run with all that belongs to it."""
    path = folder.create("nbody", "plummer", base=tmp_path)
    columns = {"time": "d", "energy": Column("J", True), "kinetic": "J", "momentum_x": Column("N", True),
               "momentum_y": Column("N", True)}
    with Diagnostics(path / "diagnostics.h5", columns) as table:
        for step, energy in enumerate((-4.0, -4.2, -4.1)):
            table.append({"step": step * 20, "time": step * 20 / 128, "energy": energy, "kinetic": 9.0 * step,
                          "momentum_x": 0.0, "momentum_y": 3e-16 * step})
    for step in (0, 40):
        snapshots.write(MPI.COMM_SELF, snapshots.path(path, "nbody", step), step, 0.0, 1.0,
                        [Particles("bodies", 2, {"position": Record(rows(np.zeros((2, 3)), 0, 2))})])
    checkpoints.write(MPI.COMM_SELF, path, 40, {"pos": rows(np.zeros(3), 0, 3)}, {}, "nbody")
    folder.record(path, ABOUT)
    return path


def shown(path, capsys):
    assert cli.main(["show", str(path)]) == 0
    return capsys.readouterr().out


def test_everything_that_is_known_is_shown(run, capsys):
    text = shown(run, capsys)
    lines = {line.split()[0]: line.split(maxsplit=1)[-1].strip() for line in text.splitlines() if line.strip()}
    assert lines["program"] == "nbody, brmpi 0.1.0, commit 0123456789ab"
    assert lines["status"] == "done" and lines["case"] == "plummer (plummer.toml)" and lines["seed"] == "17"
    assert "n = 4096, dt = 0.0078125, softening = 1e-09, bodies: 2" in text
    assert lines["steps"] == "40 of 100, time 0.3125 d, dt = 0.0078125 d"
    assert lines["command"] == ABOUT["command"] and lines["ranks"] == "4 on octavia (3), lucidia (1)"
    assert lines["shares"] == "1100, 1000, 998, 998" and lines["speeds"] == "gravity: 2.5, 1"
    assert lines["took"] == "3 min 20 s" and lines["versions"] == "python 3.11.2, mpi4py 3.1.4"
    assert lines["force"].split() == ["90.000", "100.000", "110.000", "50.0%"]
    assert lines["output"].split() == ["1.000", "2.000", "3.000", "1.0%"]
    assert text.index("force") < text.index("output  ")  # the longest first
    assert lines["energy"].split() == ["2.50e-02", "5.00e-02", "relative"]
    assert lines["momentum"].split() == ["6.00e-16", "6.00e-16", "N"]
    assert lines["diagnostics.h5"].startswith("3 rows, ") and "kinetic" not in text
    assert lines["snapshots/"].startswith("2 of steps 0 to 40, ") and lines["checkpoints/"].startswith("1 of step 40, ")
    assert max(map(len, text.splitlines())) <= 100 + len(str(run)) and "\x1b" not in text


def test_a_run_of_which_little_is_known_is_shown(tmp_path, capsys):
    (tmp_path / "run.json").write_text("{}")
    assert "unknown" in shown(tmp_path, capsys)
    assert shown(tmp_path / "run.json", capsys) == shown(tmp_path, capsys)


def test_a_run_that_goes_on_is_told_from_a_killed_one(run, capsys):
    sleeper = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    long = ABOUT["command"] + " --set softening=0.25" * 10
    folder.record(run, ABOUT | {"status": "running", "host": socket.gethostname(), "pid": sleeper.pid, "command": long})
    assert f"running (process {sleeper.pid})" in shown(run, capsys)
    sleeper.kill()
    sleeper.wait()
    text = shown(run, capsys)
    command = next(line for line in text.splitlines() if "killed" in line).partition("go on with: ")[2]
    assert shlex.split(command) == ["mpirun", "-np", "4", "python", "-m", "brmpi.sims.nbody", "--restart",
                                    "--out", str(run)]
    folder.record(run, ABOUT | {"status": "running"})
    assert "running on octavia" in shown(run, capsys)
    folder.record(run, ABOUT | {"status": "stopped"})
    assert "stopped; go on with: mpirun" in shown(run, capsys)
    folder.record(run, ABOUT | {"status": "failed: no room"})
    assert "failed: no room" in shown(run, capsys)


def test_another_process_of_the_same_number_is_not_the_run(run):
    about = ABOUT | {"status": "running", "host": socket.gethostname(), "pid": os.getpid()}
    folder.record(run, about)
    assert show.status(run, about).startswith("running")
    os.utime(run / "run.json", (1e9, 1e9))  # written long before this process began
    assert show.status(run, about).startswith("killed")


def test_what_is_no_run_is_refused(tmp_path, capsys, monkeypatch):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.json").write_text(json.dumps(ABOUT)[:40])
    monkeypatch.chdir(tmp_path)
    for words, said in (([str(tmp_path)], "not a run"), ([str(tmp_path / "missing")], "not a run"),
                        ([], "no run in it"), ([str(tmp_path / "broken")], "cannot be read")):
        assert cli.main(["show", *words]) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1
