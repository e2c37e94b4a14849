"""What runs one attempt of a job: started in advance by an agent, so that mpirun starts at once, and outlives it.

It waits for one line on its standard input, runs the job by ``brmpi.cluster.launch``, and writes down how it ended.
"""

import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path

from brmpi.cluster import attempt, launch, mpirun
from brmpi.errors import BadInput, Fault
from brmpi.spool import spec

SECRETS = ("BRMPI_REDIS", "BRMPI_REDIS_PASSWORD", "BRMPI_TOKEN")
LATE, BAD, STOPPED = attempt.TIMED_OUT, 2, 75
ROOM, LONGEST = 8192, 1000  # bytes of the file that says how it ended, and letters of its reason
TRIES, AGAIN = 3600, 1.0  # of writing it, and seconds between them


def main():
    """Wait, run, and write down how it ended. Returns the exit code 0, whatever the job's."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a person at the agent's terminal means the agent
    for name in SECRETS:
        os.environ.pop(name, None)
    with contextlib.suppress(BadInput):
        mpirun.installed()
    print("ready", flush=True)
    line = sys.stdin.readline()
    if not line.endswith("\n"):
        return 0  # the agent is gone
    order = json.loads(line)
    end = End(Path(order["end"]))
    null, log = os.open(os.devnull, os.O_RDWR), os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for source, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    sys.stdin = os.fdopen(0, closefd=False)
    try:
        told = run(order)
    except (BadInput, Fault) as error:
        print(f"brmpi: {error}", file=sys.stderr, flush=True)
        told = {"result": "failed", "code": BAD if isinstance(error, BadInput) else 1, "why": str(error)}
    except Exception as error:  # whatever it is, somebody is to hear of it
        import traceback

        traceback.print_exc()
        told = {"result": "failed", "code": 1, "why": f"{type(error).__name__}: {error}"}
    end.write(told)
    return 0


class End:
    """The file that says how an attempt ended.

    Its room on the disk is taken before the attempt begins: a disk that a job fills up must not make a job that is done
    begin anew.

    Parameters
    ----------
    path : Path

    Raises
    ------
    OSError : there is no room
    """

    def __init__(self, path):
        self.path, self.part = path, path.with_name(f".{path.name}")
        self.file = self.part.open("wb", buffering=0)
        os.posix_fallocate(self.file.fileno(), 0, ROOM)

    def write(self, told):
        """Say it; where that cannot be, again until it can.

        Parameters
        ----------
        told : dict
        """
        told = {**told, "why": told["why"][:LONGEST]}
        for _ in range(TRIES):
            try:
                os.pwrite(self.file.fileno(), json.dumps(told).encode().ljust(ROOM), 0)
                os.fsync(self.file.fileno())
                return self.part.replace(self.path)
            except OSError:
                time.sleep(AGAIN)
        return None


def run(order):
    """Run a job.

    Parameters
    ----------
    order : dict: ``argv``, ``folder``, ``umask``, ``hosts`` (as for ``brmpi run --on``), ``ranks``, ``threads``,
        ``limit`` [s], ``tag``, ``out`` (the run's folder, or None)

    Returns
    -------
    dict: ``result`` ("done", "failed" or "lost"), ``code``, ``why``

    Raises
    ------
    BadInput, Fault : it cannot be started
    """
    try:
        os.chdir(order["folder"])
    except OSError as error:
        raise BadInput(f"{order['folder']}: cannot be used on {os.uname().nodename}: {error.strerror}") from None
    os.umask(order["umask"])
    words = ["--on", order["hosts"], "-n", str(order["ranks"])]
    words += ["--threads", str(order["threads"])] if order["threads"] > 1 else []
    words += ["--timeout", str(order["limit"])] if order["limit"] > 0 else []
    args = launch.options([*words, "x"])
    args.program = program(order)
    mpi, job, module = launch.planned(args, order["tag"])
    outcome, lost = launch.tried(mpi, job, args.timeout, module)
    code = outcome.code
    if not code:
        return {"result": "done", "code": 0, "why": ""}
    names = [host.name or host.address for host in job.hosts if host.address in lost]
    if outcome.late:
        return {"result": "failed", "code": LATE, "why": f"its limit of time, {order['limit']:g} s, ended it"}
    if lost or outcome.lost:
        return {"result": "lost", "code": code, "why": f"lost {', '.join(names) or 'a node'}"}
    if code == STOPPED:
        return {"result": "lost", "code": code, "why": "stopped with a checkpoint"}
    return {"result": "failed", "code": code, "why": f"exit code {code}"}


def program(order):
    """A job's program and its words, with the folder of its run: to go on from a checkpoint if there is one.

    Parameters
    ----------
    order : dict: ``argv``; ``out``, the run's folder, or None; ``again``, whether an attempt was made before

    Returns
    -------
    list of str
    """
    argv, out = list(order["argv"]), order["out"]
    if not out:
        return argv
    more = ["--out", out]
    if spec.named(argv):  # a person's own folder: at first, what is there already is that person's to decide on
        more = []
        if not order["again"]:
            return argv
    if Path(out, "run.json").exists() and not {"--restart", "--overwrite"} & set(argv):
        more.append("--restart" if any(Path(out, "checkpoints").glob("*.h5")) else "--overwrite")
    return [*argv, *more]


if __name__ == "__main__":
    sys.exit(main())
