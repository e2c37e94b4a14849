"""``brmpi run`` on this machine: what it starts, on which hosts, and how it ends."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import environment

from brmpi.cluster import inventory, launch, launcher
from brmpi.errors import BadInput

FIVE = """
[cluster]
network = "203.0.113.0/24"
user = "pi"
[nodes.octavia]
address = "203.0.113.1"
roles = ["compute"]
cores = 4
[nodes.aria]
address = "203.0.113.2"
roles = ["compute", "worker"]
cores = 2
[nodes.shellfish]
address = "203.0.113.3"
cores = 1
"""


@pytest.fixture
def cluster(tmp_path):
    folder = tmp_path / "hostfiles"
    folder.mkdir()
    (folder / "cluster.toml").write_text(FIVE)
    return folder


def run(folder, *words, timeout=60, **variables):
    return subprocess.run([sys.executable, "-m", "brmpi", "run", *map(str, words)], cwd=folder, text=True,
                          timeout=timeout, env=environment(**variables), stdin=subprocess.DEVNULL, capture_output=True)


def names(on, folder):
    return [(host.name, host.slots) for host in launch.hosts_on(on, inventory.load(folder), folder)]


def test_hosts_by_node_role_and_hostfile(cluster):
    assert names(None, cluster) == names("all", cluster) == [("octavia", 4), ("aria", 2), ("shellfish", 1)]
    assert names("worker", cluster) == [("aria", 2)]
    assert names("shellfish,compute,aria", cluster) == [("shellfish", 1), ("octavia", 4), ("aria", 2)]
    (cluster / "mine").write_text("# two\n203.0.113.2 slots=1\n203.0.113.9:3\n")
    assert names("mine", cluster) == [("aria", 1), ("", 3)]
    (cluster / "all").write_text("203.0.113.1 slots=3\n")
    assert names(None, cluster) == [("octavia", 3)]


@pytest.mark.parametrize(("on", "said"), [("octvia", "did you mean octavia"), (",", "names no node"),
                                          ("../x", "neither a node nor a hostfile")])
def test_unknown_hosts(cluster, on, said):
    with pytest.raises(BadInput, match=said):
        names(on, cluster)


def test_hostfile_that_cannot_be_read(tmp_path):
    (tmp_path / "x").write_text("a slots=two\n")
    with pytest.raises(BadInput, match="x, line 1"):
        launch.hostfile_lines(tmp_path / "x")


def test_a_killed_launcher_leaves_nothing(tmp_path):
    process = subprocess.Popen([sys.executable, "-m", "brmpi", "run", "-n", "2", "--", "sh", "-c",
                                "echo $$ >>pids; exec sleep 50"], cwd=tmp_path, env=environment())
    end = time.monotonic() + 30
    while not (tmp_path / "pids").exists() or len((tmp_path / "pids").read_text().split()) < 2:
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.02)
    process.kill()
    process.wait()
    ranks = [Path("/proc", rank) for rank in (tmp_path / "pids").read_text().split()]
    while any(rank.exists() and "Z" not in (rank / "stat").read_text().split()[2] for rank in ranks):
        assert time.monotonic() < end
        time.sleep(0.05)


def test_what_is_started(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.py").touch()
    assert launch.resolve(["nbody", "a.toml"]) == (["python", "-m", "brmpi.sims.nbody", "a.toml"], "brmpi.sims.nbody")
    assert launch.resolve(["./my.py", "-v"]) == (["python", "./my.py", "-v"], None)
    assert launch.resolve(["json.tool"]) == (["python", "-m", "json.tool"], "json.tool")
    assert launch.resolve(["--", "true", "-n"]) == (["true", "-n"], None)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/steps.py").touch()
    for name in ("my", "mine.steps", "timeit"):
        assert launch.resolve([name, "-n"]) == (["python", "-m", name, "-n"], name)
    with pytest.raises(BadInput, match="'mine' is no program"):
        launch.resolve(["mine"])


@pytest.mark.parametrize(("words", "said"), [
    (["nbdy"], "did you mean nbody"), (["./no.py"], "there is no such file"), (["no.module"], "is no program of brmpi"),
    (["--", "no-such-program"], "is not a program"), (["--"], "name the program")])
def test_what_cannot_be_started(words, said):
    with pytest.raises(BadInput, match=said):
        launch.resolve(words)


def test_options_may_follow_the_program(tmp_path, cluster):
    shown = run(tmp_path, "nbody", "case.toml", "--on", "compute", "-n", 3, "--steps", 5, "--dry-run")
    assert shown.returncode == 0, shown.stderr
    assert "--host 203.0.113.1:4,203.0.113.2:2 -np 3 python -m brmpi.sims.nbody case.toml --steps 5" in shown.stdout
    assert "203.0.113.0/24" in shown.stdout and "BRMPI_JOB" not in shown.stdout
    own = run(tmp_path, "--dry-run", "nbody", "-n", "1", "--", "-n", "3")
    assert own.stdout.rstrip().endswith("-np 1 python -m brmpi.sims.nbody -n 3"), own
    own = run(tmp_path, "--dry-run", "--", "env", "-n", "3")
    assert own.stdout.rstrip().endswith("env -n 3"), own


def test_run_on_this_machine(tmp_path):
    done = run(tmp_path, "nbody", "--steps", 3, "-n", 2)
    assert done.returncode == 0, done.stderr
    about = json.loads((tmp_path / "results/nbody-default/run.json").read_text())
    assert about["ranks"] == 2 and about["launch"]["typed"] == "brmpi run nbody --steps 3 -n 2"
    again = subprocess.run(["bash", "-c", about["launch"]["command"]], cwd=tmp_path, env=environment(), timeout=60,
                           capture_output=True, text=True)
    assert again.returncode == 0, "the command in run.json can be typed again"
    assert json.loads((tmp_path / "results/nbody-default-2/run.json").read_text())["launch"] is None


def test_bad_input_is_said_once(tmp_path):
    done = run(tmp_path, "nbody", "--set", "n=-3", "-n", 2)
    assert done.returncode == 2 and done.stderr.count("n = -3") == 1


@pytest.mark.parametrize("words", [("-n", "0", "nbody"), ("--threads", "0", "nbody"), ("--retries", "-1", "nbody"),
                                   ("--timeout", "0", "nbody"), ()])
def test_bad_options(tmp_path, words):
    done = run(tmp_path, *words)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done


def test_exit_code_passes_through(tmp_path):
    done = run(tmp_path, "-n", 2, "--", "sh", "-c", "echo oh dear >&2; exit 7")
    assert done.returncode == 7
    assert "brmpi run: exit code 7" in done.stderr and "    oh dear" in done.stderr  # 4.1 does not always tell the rank


def test_limit_of_time_ends_everything(tmp_path):
    start = time.monotonic()
    deaf = "trap '' TERM; echo $$ >>pids; sleep 100; sleep 100"
    done = run(tmp_path, "-n", 2, "--timeout", 2, "--", "sh", "-c", deaf)
    assert done.returncode == 124 and time.monotonic() - start < 20, done
    for pid in (tmp_path / "pids").read_text().split():
        status = Path(f"/proc/{pid}/status")
        assert not status.exists() or "Z (zombie)" in status.read_text()


def test_retry_goes_on_from_the_checkpoint(tmp_path):
    """A rank is killed once; the second attempt goes on, to the same bits as without."""
    keys = ["--set", "n=300", "--set", "steps=4000", "--set", "checkpoint=0.1", "--quiet"]
    words = ["run", "--retries", "1", "-n", "2", "nbody", *keys, "--out", "run"]
    process = subprocess.Popen([sys.executable, "-m", "brmpi", *words], cwd=tmp_path, env=environment(),
                               stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 60
    while not list(tmp_path.glob("run/checkpoints/*.h5")):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.02)
    os.kill(json.loads((tmp_path / "run/run.json").read_text())["pid"], signal.SIGKILL)
    said = process.communicate(timeout=90)[1]
    assert process.returncode == 0 and "retry 1 of 1" in said, said
    about = json.loads((tmp_path / "run/run.json").read_text())
    assert about["status"] == "done" and len(about["restarts"]) == 1 and about["restarts"][0]["step"] > 0
    assert run(tmp_path, "nbody", *keys, "--out", "whole", "-n", 1).returncode == 0
    last = "snapshots/nbody_00004000.h5"
    assert (tmp_path / "run" / last).read_bytes() == (tmp_path / "whole" / last).read_bytes()


@pytest.mark.skipif(not Path(sys.prefix, "bin/activate").exists(), reason="no environment")
@pytest.mark.parametrize("shell", ["bash", "dash"])
def test_activation_is_undone_by_deactivation(shell):
    """Activating, twice too, tells plain mpirun where the environment is; deactivating takes that back."""
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell}")
    say = 'echo "${OMPI_MCA_orte_launch_agent:-none} $PATH"; '
    script = f"set -e; . {sys.prefix}/bin/activate; {say} . {sys.prefix}/bin/activate; {say} deactivate; {say}"
    env = {"PATH": "/usr/bin:/bin", "HOME": "/root"}
    done = subprocess.run([shell, "-c", script], env=env, capture_output=True, text=True, timeout=20)
    told = done.stdout.splitlines()
    assert done.returncode == 0 and done.stderr == "", done
    agent = f"env PATH={launcher.environment_path()}:$PATH orted"
    assert told[0] == told[1] == f"{agent} {sys.prefix}/bin:/usr/bin:/bin"
    assert told[2].endswith(" /usr/bin:/bin") and (shell == "dash" or told[2].startswith("none ")), told
