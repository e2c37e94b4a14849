"""The same job for Slurm, by a stand-in for its commands, and by Slurm itself where it is installed; the unit for
systemd."""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import environment

from brmpi.cluster.job import Host
from brmpi.errors import BadInput
from brmpi.spool import agent, slurm, spec


def _record(*argv, **more):
    need = {name: more.pop(name) for name in ("threads", "memory", "tags", "nodes", "limit") if name in more}
    return spec.record(list(argv), spec.needs(more.pop("ranks", 4), **need), folder="/tmp", **more)


def test_a_job_as_a_script():
    text = slurm.script(_record("nbody", "a case.toml", threads=2, memory=3 * 2**30, tags=["arm64"], nodes=["a", "b"],
                                limit=5400.0, priority=100, retries=1, after=["17", "18"], count=3, out="nbody-a"))
    options = re.findall(r"^#SBATCH (.*)$", text, re.M)
    for wanted in ("--ntasks=4", "--cpus-per-task=2", "--mem-per-cpu=1536M", "--time=90", "--array=0-2", "--chdir=/tmp",
                   "--constraint=aarch64&[a|b]", "--dependency=afterok:17:18", "--nice=-1000", "--requeue"):
        assert wanted in options, options
    last = shlex.split(text.splitlines()[-1])
    assert last[:4] == ["exec", sys.executable, "-m", "brmpi.spool.slurm"] and last[-2:] == ["nbody", "a case.toml"]
    assert "--out=nbody-a" in last and "--retries=1" in last and "--losses=5" in last
    with pytest.raises(BadInput, match="no line of an sbatch script"):
        slurm.script(_record("x") | {"spec": json.dumps({"argv": ["x"], "folder": "/a\n#SBATCH --x", "out": None,
                                                         "umask": 18})})


def test_words_cannot_leave_their_line(tmp_path):
    text = slurm.script(_record("--", "echo", "$(touch made)", "`touch made`", "a\nb", "'"))
    script = text.replace("-m brmpi.spool.slurm", "-c 'import sys, json; print(json.dumps(sys.argv[1:]))'")
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert json.loads(done.stdout)[-4:] == ["$(touch made)", "`touch made`", "a\nb", "'"]
    assert not list(tmp_path.iterdir())


@pytest.fixture
def stand_in(tmp_path):
    """Commands that look like Slurm's, and what they were told."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "sbatch").write_text(f'#!/bin/sh\ncat > {tmp_path}/script\necho "42;shelf"\n')
    (folder / "scontrol").write_text('#!/bin/sh\n[ "$1" = show ] && echo localhost || echo "$@" '
                                     f'>> {tmp_path}/told\n')
    for file in folder.iterdir():
        file.chmod(0o755)
    env = environment(BRMPI_HOSTFILES=str(tmp_path / "none"))
    return env | {"PATH": f"{folder}{os.pathsep}{env['PATH']}"}


def test_a_job_by_a_stand_in(stand_in, tmp_path):
    command = [
        sys.executable,
        "-m",
        "brmpi",
        "submit",
        "--engine",
        "slurm",
        "--json",
        "-n",
        "2",
        "nbody",
        "--retries",
        "1",
        "--set",
        "steps=20",
        "--set",
        "n=50",
    ]
    done = subprocess.run(command, cwd=tmp_path, env=stand_in, capture_output=True, text=True, timeout=60)
    assert json.loads(done.stdout) == {"id": "42", "engine": "slurm"}, done.stderr
    inside = stand_in | {"SLURM_JOB_ID": "42", "SLURM_JOB_NODELIST": "localhost", "SLURM_TASKS_PER_NODE": "2",
                         "SLURM_NTASKS": "2", "SLURM_CPUS_PER_TASK": "1"}
    done = subprocess.run(["bash", "script"], cwd=tmp_path, env=inside, capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stderr
    about = json.loads((tmp_path / "results/nbody-default-42/run.json").read_text())
    assert about["status"] == "done" and about["ranks"] == 2 and not (tmp_path / "told").exists()
    for code, times, again in ((3, 0, True), (3, 1, False), (2, 0, False)):
        words = ["--retries=1", "--losses=5", "--", "--", sys.executable, "-c", f"raise SystemExit({code})"]
        done = subprocess.run([sys.executable, "-m", "brmpi.spool.slurm", *words], cwd=tmp_path, capture_output=True,
                              env=inside | {"SLURM_RESTART_COUNT": str(times)}, text=True, timeout=60)
        told = (tmp_path / "told").read_text() if (tmp_path / "told").exists() else ""
        assert (done.returncode == code or code == 2) and ("requeue 42" in told) == again, (
            code,
            times,
            told,
            done.stderr,
        )
        (tmp_path / "told").unlink(missing_ok=True)


def test_hosts_of_an_allocation(stand_in, tmp_path, monkeypatch):
    (tmp_path / "bin/scontrol").write_text("#!/bin/sh\nprintf 'localhost\\nb\\nc\\n'\n")
    for name, value in (("PATH", stand_in["PATH"]), ("SLURM_JOB_NODELIST", "x"), ("SLURM_TASKS_PER_NODE", "2(x2),1"),
                        ("SLURM_CPUS_PER_TASK", "3")):
        monkeypatch.setenv(name, value)
    assert slurm.hosts() == (Host("localhost", 6, "localhost"), Host("b", 6, "b"), Host("c", 3, "c"))
    monkeypatch.delenv("SLURM_JOB_NODELIST")
    with pytest.raises(BadInput, match="runs in an allocation"):
        slurm.hosts()


def test_without_slurm(tmp_path):
    env = environment(BRMPI_HOSTFILES=str(tmp_path))
    env["PATH"] = str(Path(sys.executable).parent)
    done = subprocess.run([sys.executable, "-m", "brmpi", "submit", "--engine", "slurm", "-n", "1", "nbody"], env=env,
                          cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "sbatch is not installed" in done.stderr


def test_a_unit_for_systemd(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("BRMPI_SPOOL", "/with space/100%")
    monkeypatch.delenv("BRMPI_REDIS", raising=False)
    monkeypatch.chdir(tmp_path)
    assert agent.main(["--install", "--slots", "3", "--hostfiles", "hostfiles"]) == 0
    text = (tmp_path / "systemd/user/brmpi-agent.service").read_text()
    assert f'ExecStart="{sys.executable}" "-m" "brmpi" "agent" "--slots" "3"' in text and "KillMode=process" in text
    assert 'Environment="BRMPI_SPOOL=/with space/100%%"' in text and f'"BRMPI_HOSTFILES={tmp_path}/hostfiles"' in text
    assert "enable --now brmpi-agent" in capsys.readouterr().out and "PASSWORD" not in text
    assert time.time() - (tmp_path / "systemd/user/brmpi-agent.service").stat().st_mtime < 60
