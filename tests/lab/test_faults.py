"""Each fault of the table in docs/launch.md: no hang, nothing left alive, the same bits after a restart."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from brmpi.bench import faults

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def faultless(tmp_path_factory):
    """The run that nothing happens to."""
    folder = tmp_path_factory.mktemp("faultless") / "run"
    faults.reference(folder)
    return folder


@pytest.mark.parametrize("fault", faults.FAULTS)
def test_fault(quick, faultless, fault):
    found = faults.trial(quick, fault, faultless)
    assert found["right"], found
    assert found["left"] == {}, found
    assert found["seconds"] < (60 if found["code"] else faults.LIMIT) and found["same"], found
    if fault not in ("link cut for 2 s", "rank stopped"):
        assert faults.VICTIM in found["said"].splitlines()[0], "the failing host comes first"


def run(lab, *words, **options):
    return lab.start("shellfish", ["brmpi", "run", *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                     stderr=subprocess.PIPE, text=True, **options)


def began(out, job):
    end = time.monotonic() + 60
    while not list(out.glob("checkpoints/*.h5")):
        assert job.poll() is None and time.monotonic() < end, job.stderr.read()
        time.sleep(0.05)


def same(out, faultless):
    return {file.name: file.read_bytes() for file in (out / "snapshots").iterdir()} == {
        file.name: file.read_bytes() for file in (faultless / "snapshots").iterdir()}


def test_retry_on_the_nodes_that_are_left(quick, faultless):
    out = quick.shared / "retry"
    shutil.rmtree(out, ignore_errors=True)
    job = run(quick, "--retries", "1", *faults.command("/shared/retry"))
    began(out, job)
    quick.crash(faults.VICTIM)
    said = job.communicate(timeout=120)[1]
    assert job.returncode == 0, said
    assert "retry 1 of 1, 4 ranks on 4 nodes" in said
    about = json.loads((out / "run.json").read_text())
    assert about["status"] == "done" and about["ranks"] == 4 and len(about["restarts"]) == 1
    assert faults.VICTIM not in about["launch"]["hosts"] and about["launch"]["command"].count("--restart") == 1
    assert same(out, faultless)


def test_retry_without_a_node_that_was_dead(quick, faultless):
    out = quick.shared / "without"
    shutil.rmtree(out, ignore_errors=True)
    quick.crash(faults.VICTIM)
    job = run(quick, "--retries", "1", *faults.command("/shared/without"))
    said = job.communicate(timeout=120)[1]
    assert job.returncode == 0 and "alice does not answer" in said, said
    assert same(out, faultless)


def test_no_retry_without_any_node(quick):
    """The exit code is that of the job, not of a mistake by the person who typed it."""
    out = quick.shared / "none"
    shutil.rmtree(out, ignore_errors=True)
    job = run(quick, "--retries", "1", "--on", faults.VICTIM, *faults.command("/shared/none"))
    began(out, job)
    quick.crash(faults.VICTIM)
    said = job.communicate(timeout=120)[1]
    assert job.returncode in (205, 255) and "does not answer" in said and "retry" not in said, (job.returncode, said)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR2])
def test_a_signal_stops_every_process_and_saves(quick, faultless, number):
    out = quick.shared / f"stopped-{number}"
    shutil.rmtree(out, ignore_errors=True)
    job = run(quick, *faults.command(f"/shared/{out.name}"))
    began(out, job)
    launcher = next(process for process in quick.pids("shellfish") if _words(process)[1:3] == [
        str(sys.prefix) + "/bin/brmpi", "run"])
    os.kill(launcher, number)
    said = job.communicate(timeout=60)[1]
    assert job.returncode == 75 and "stopped as asked" in said, said
    assert not [process for node in quick.limits() for process in quick.pids(node) if b"nbody" in b" ".join(
        word.encode() for word in _words(process))]
    assert json.loads((out / "run.json").read_text())["status"] == "stopped"
    subprocess.run([sys.executable, "-m", "brmpi.sims.nbody", "--restart", "--out", str(out), "--quiet"], check=True,
                   timeout=60, stdin=subprocess.DEVNULL)
    assert same(out, faultless)


def _words(process):
    try:
        return Path(f"/proc/{process}/cmdline").read_text().rstrip("\0").split("\0")
    except OSError:
        return []


def test_exit_code_host_and_last_lines(lab):
    (lab.shared / "fails.py").write_text(
        "import socket, sys, time\nfrom mpi4py import MPI\nif socket.gethostname() == 'aria':\n"
        "    print('no such luck', file=sys.stderr, flush=True)\n    time.sleep(0.3)\n    MPI.COMM_WORLD.Abort(9)\n"
        "time.sleep(60)\n")
    job = run(lab, "/shared/fails.py", "--on", "compute")
    said = job.communicate(timeout=90)[1]
    lines = said.splitlines()
    summary = lines.index("brmpi run: exit code 9: rank 1 on aria gave up")
    assert job.returncode == 9 and "    no such luck" in lines[summary:], said


def test_plain_mpirun_over_five_hosts(lab):
    """What people type, with the environment active and nothing else set."""
    (lab.shared / "case.toml").write_text("n = 1300\nsteps = 3\n")
    command = ["mpirun", "-x", "FOO=3", "-hostfile", "hostfiles/all", "python", "-m", "brmpi.sims.nbody",
               "/shared/case.toml", "--out", "/shared/plain", "--overwrite"]
    done = lab.run("shellfish", command, timeout=60, cwd=Path(__file__).parents[2])
    assert done.returncode == 0 and "on 5 ranks" in done.stdout, done
    about = json.loads((lab.shared / "plain/run.json").read_text())
    assert about["status"] == "done" and sorted(about["hosts"]) == sorted(lab.limits())
