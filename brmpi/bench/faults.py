"""What happens to a job when something breaks: each fault, made in a lab, timed to the end of the job everywhere."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

CASE = ("n=1280", "steps=500", "checkpoint=0.5", "sample=50", "softening=0.05", "shares=equal")
VICTIM, START = "alice", "shellfish"  # where it breaks, and where the job is started
RANK, DAEMON = (b"brmpi.sims.nbody",), (b"orted", b"prted")
LIMIT = 150.0  # seconds after which a job counts as hanging


def _kill(lab, names, number=signal.SIGKILL):
    for process in lab.pids(VICTIM):
        first, *words = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
        if first.rpartition(b"/")[2] in names or (b"python" in first and set(words) & set(names)):
            os.kill(process, number)


def _cut_shortly(lab):
    lab.link(VICTIM, "down")
    time.sleep(2)
    lab.link(VICTIM, "up")


# fault: (what is done, options of brmpi run, whether before the start, exit codes that are right)
FAULTS = {
    "rank killed": (lambda lab: _kill(lab, RANK), (), False, (137,)),
    "daemon killed": (lambda lab: _kill(lab, DAEMON), (), False, (205, 255, 1)),
    "node crashed": (lambda lab: lab.crash(VICTIM), (), False, (205, 255, 1)),
    "link cut": (lambda lab: lab.link(VICTIM, "down"), (), False, (205, 255, 1)),
    "link cut for 2 s": (_cut_shortly, (), False, (0,)),
    "rank stopped": (lambda lab: _kill(lab, RANK, signal.SIGSTOP), ("--timeout", "12"), False, (124,)),
    "node dead before start": (lambda lab: lab.crash(VICTIM), (), True, (255, 1)),
}


def command(out, *words):
    """The program under test.

    Parameters
    ----------
    out : path of the run
    *words : str, further arguments

    Returns
    -------
    list of str
    """
    keys = [word for key in CASE for word in ("--set", key)]
    return ["nbody", *keys, "--out", str(out), "--quiet", *words]


def reference(folder):
    """The run without a fault, on one rank of this machine.

    Parameters
    ----------
    folder : path, made if it is not there
    """
    subprocess.run([sys.executable, "-m", "brmpi.sims.nbody", *command(folder)[1:]], check=True, timeout=300,
                   stdin=subprocess.DEVNULL)


def trial(lab, fault, faultless):
    """Make a fault under a job of five ranks, and go on from what it left.

    Parameters
    ----------
    lab : cluster.lab.Lab, all of whose hosts are up; it is mended at the end
    fault : str, one of ``FAULTS``
    faultless : path of the ``reference`` run

    Returns
    -------
    dict: ``fault``, ``code``, ``right`` (whether the exit code is), ``seconds`` (from the fault to the end of the job),
    ``left`` (its processes that live, by host), ``step`` (from which it could go on), ``same`` (bits, after that) and
    ``said`` (standard error)
    """
    act, options, before, right = FAULTS[fault]
    out = lab.shared / "faults"
    shutil.rmtree(out, ignore_errors=True)
    try:
        if before:
            act(lab)
        job = lab.start(START, ["brmpi", "run", *options, *command("/shared/faults")], stdin=subprocess.DEVNULL,
                        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        struck = time.monotonic()
        if not before:
            _until(lambda: (out / "checkpoints").is_dir() and any((out / "checkpoints").glob("*.h5")), job)
            time.sleep(0.5)
            act(lab)
            struck = time.monotonic()
        try:
            said = job.communicate(timeout=LIMIT)[1]
        except subprocess.TimeoutExpired:
            job.kill()
            said = "it hangs"
        seconds = time.monotonic() - struck
        alive = {row["node"]: _alive(lab, row["node"]) for row in lab.status() if row["state"] == "up"}
        left = {node: count for node, count in alive.items() if count}
    finally:
        mend(lab)
    step = json.loads((out / "run.json").read_text())["step"] if (out / "run.json").exists() else 0
    again = command("/shared/faults") if before else ["nbody", "--restart", "--out", "/shared/faults", "--quiet"]
    if job.returncode:
        done = lab.run(START, ["brmpi", "run", *again], timeout=LIMIT)
        said += done.stderr
    return {"fault": fault, "code": job.returncode, "right": job.returncode in right, "seconds": round(seconds, 1),
            "left": left, "step": step, "same": _snapshots(out) == _snapshots(faultless), "said": said}


def mend(lab):
    """Start hosts that are off and put back every cable.

    Parameters
    ----------
    lab : cluster.lab.Lab
    """
    lab.up()
    for row in lab.status():
        if row["state"] == "cut":
            lab.link(row["node"], "up")
        for process in lab.pids(row["node"]):  # of a job that nobody could reach
            if _is_of_a_job(process):
                os.kill(process, signal.SIGKILL)


def _until(done, job):
    end = time.monotonic() + LIMIT
    while not done():
        if job.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"the job did not come to its first checkpoint: {job.stderr.read()[-2000:]}")
        time.sleep(0.05)


def _alive(lab, node):
    return sum(map(_is_of_a_job, lab.pids(node)))


def _is_of_a_job(process):
    try:
        return b"BRMPI_JOB=" in Path(f"/proc/{process}/environ").read_bytes()
    except OSError:
        return False


def _snapshots(folder):
    return {file.name: file.read_bytes() for file in Path(folder, "snapshots").glob("*.h5")}
