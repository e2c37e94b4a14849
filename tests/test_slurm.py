"""The same job under a real Slurm: one slurmctld and one slurmd on this machine (``make test-slurm``)."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from conftest import environment

pytestmark = pytest.mark.skipif(not all(map(shutil.which, ("slurmctld", "slurmd"))) or os.geteuid() != 0,
                                reason="slurm-wlm is not installed, or this is not root")
SETTINGS = """ClusterName=shelf
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/none
CredType=cred/none
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1,bf_interval=1
MpiDefault=none
MailProg=/bin/true
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory=1000 Features=compute
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


class Slurm:
    """One controller and one node."""

    def __init__(self, folder):
        self.folder, doors = folder, [socket.socket() for _ in range(2)]
        for door in doors:
            door.bind(("127.0.0.1", 0))
        ports = [door.getsockname()[1] for door in doors]
        for door in doors:
            door.close()
        for name in ("state", "spool", "work"):
            (folder / name).mkdir()
        settings = folder / "slurm.conf"
        settings.write_text(SETTINGS.format(host=socket.gethostname().partition(".")[0], folder=folder, ports=ports,
                                            cores=len(os.sched_getaffinity(0))))
        self.env = environment(SLURM_CONF=str(settings), BRMPI_HOSTFILES=str(folder / "none"))
        log = (folder / "out").open("ab")
        options = {"env": self.env, "stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
        self.daemons = [subprocess.Popen([name, "-D", "-f", settings], **options) for name in ("slurmctld", "slurmd")]
        log.close()
        self.until(lambda: "idle" in self.ask("sinfo", "-h", "-o", "%T"), "an idle node", 60)

    def ask(self, *words):
        done = subprocess.run(words, env=self.env, capture_output=True, text=True, timeout=60)
        return done.stdout

    def submit(self, *words):
        done = subprocess.run([sys.executable, "-m", "brmpi", "submit", "--engine", "slurm", "--json", *words],
                              env=self.env, cwd=self.folder / "work", capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)["id"]

    def state(self, id):
        return [line.partition("=")[2].partition(" ")[0] for line in self.ask("scontrol", "show", "job", id).split("\n")
                if line.strip().startswith("JobState=")]

    def until(self, what, why, seconds=120):
        end = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < end, f"{why}\n{self.ask('squeue')}\n{self.logs()}"
            time.sleep(0.2)

    def logs(self):
        return "\n".join(f"{file.name}: {file.read_text()[-2000:]}" for file in
                         [*self.folder.glob("*.log"), *(self.folder / "work").glob("*.log")])

    def run_of(self, name):
        return json.loads((self.folder / "work/results" / name / "run.json").read_text())

    def close(self):
        self.ask("scancel", "--user", "root")
        for process in reversed(self.daemons):
            process.terminate()
        for process in self.daemons:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture(scope="module")
def shelf():
    with tempfile.TemporaryDirectory(prefix="slurm-", dir="/tmp") as folder:
        made = Slurm(Path(folder))
        yield made
        made.close()


@pytest.mark.timeout(300)
def test_jobs_arrays_and_those_that_wait(shelf):
    first = shelf.submit("-n", "2", "nbody", "--set", "steps=20", "--set", "n=50")
    array = shelf.submit("--array", "0-1", "-n", "1", "--time", "5m", "--tags", "compute", "--after", first,
                         "pi", "--set", "samples=1000", "--set", "seed={index}")
    shelf.until(lambda: not shelf.ask("squeue", "-h"), "their end")
    for name in (f"nbody-default-{first}", f"pi-default-{array}-0", f"pi-default-{array}-1"):
        assert shelf.run_of(name)["status"] == "done", shelf.logs()
    assert shelf.run_of(f"nbody-default-{first}")["ranks"] == 2


@pytest.mark.timeout(300)
def test_a_job_that_is_to_end_saves_and_goes_on(shelf):
    id = shelf.submit("-n", "2", "nbody", "--set", "n=400", "--set", "steps=20000", "--set", "checkpoint=0.2", "--set",
                      "every=10000")
    folder = shelf.folder / f"work/results/nbody-default-{id}"
    shelf.until(lambda: list((folder / "checkpoints").glob("*.h5")), "a checkpoint")
    shelf.ask("scancel", "--signal=USR2", "--batch", id)  # as Slurm does a minute before the end of its time
    shelf.until(lambda: shelf.state(id) == ["PENDING"], "its return to the queue")
    assert shelf.run_of(folder.name)["status"] != "done"
    shelf.ask("scontrol", "update", f"JobId={id}", "StartTime=now")
    shelf.until(lambda: not shelf.ask("squeue", "-h"), "its end")
    about = shelf.run_of(folder.name)
    assert about["status"] == "done" and len(about["restarts"]) == 1, shelf.logs()
