"""The pool of ranks beside those of schwimmbad and mpi4py, on many small tasks of a fixed amount of work.

Each runs on three ranks in an mpirun of its own, in turns. A task is a loop that was timed on an idle core; what is
told is tasks per second. mpi4py's executor is given one task at a time, as it does by itself, and chunks of 100.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from brmpi.bench import report
from brmpi.errors import Fault

TASKS, RANKS = 10_000, 3
LASTING = (1e-4, 1e-3)  # seconds of a task
PEERS = ("schwimmbad", "executor", "chunks")


def work(turns):
    """A task.

    Parameters
    ----------
    turns : int, of a loop

    Returns
    -------
    int
    """
    total = 0
    for i in range(turns):
        total ^= i
    return total


def calibrated(seconds):
    """How many turns of the loop last as long on this core.

    Parameters
    ----------
    seconds : float

    Returns
    -------
    int
    """
    turns = 1000
    while True:
        begin = time.perf_counter()
        for _ in range(20):
            work(turns)
        spent = (time.perf_counter() - begin) / 20
        if spent > seconds / 2:
            return round(turns * seconds / spent)
        turns *= 2


def mapped(comm, name, turns, tasks):
    """Seconds that a pool takes for all tasks, after a few that warm it up. Collective.

    Parameters
    ----------
    comm : communicator, COMM_WORLD
    name : "brmpi", or one of ``PEERS``
    turns, tasks : int

    Returns
    -------
    float on the root, None elsewhere
    """
    def _timed(call):
        call([turns] * 20)
        begin = time.perf_counter()
        found = call([turns] * tasks)
        spent = time.perf_counter() - begin
        if len(list(found)) != tasks:
            raise Fault(f"{name}: {len(found)} results for {tasks} tasks")
        return spent

    if name == "brmpi":
        from brmpi.montecarlo.pooling import pool

        ranks = pool(comm, leave=False)
        with ranks:
            return _timed(lambda things: ranks.map(work, things)) if ranks.is_master() else None
    if name == "schwimmbad":
        sys.path += map(str, Path(".venv-peers").glob("lib/python*/site-packages"))  # last: nothing else is taken there
        from schwimmbad import MPIPool

        with MPIPool(comm) as ranks:
            if not ranks.is_master():
                ranks.wait()
                return None
            return _timed(lambda things: ranks.map(work, things))
    from mpi4py.futures import MPICommExecutor

    size = {"executor": 1, "chunks": 100}[name]
    with MPICommExecutor(comm, 0) as ranks:
        return None if ranks is None else _timed(lambda things: list(ranks.map(work, things, chunksize=size)))


def rows(repeats):
    """Tasks per second of the pool beside those of others.

    Parameters
    ----------
    repeats : int

    Returns
    -------
    list of dict, from ``report.row``; peers that are not here are left out
    """
    found = []
    for seconds in LASTING:
        turns, rates = calibrated(seconds), {}
        for _ in range(repeats):
            for name in ("brmpi", *PEERS):
                command = ["mpirun", "--oversubscribe", "--bind-to", "none", "-np", str(RANKS), sys.executable, "-m",
                           "brmpi.bench.pool", "--worker", name, "--turns", str(turns), "--tasks", str(TASKS)]
                done = subprocess.run(command, env={**os.environ}, capture_output=True, text=True, timeout=300)
                if done.returncode == 0:
                    rates.setdefault(name, []).append(TASKS / json.loads(done.stdout.splitlines()[-1]))
                elif name != "schwimmbad":
                    raise Fault(f"{' '.join(command)} failed:\n{done.stderr}")
        for peer in PEERS:
            if peer in rates:
                found.append(report.row(f"pool {1e3 * seconds:g}ms", TASKS, RANKS, rates["brmpi"], "tasks/s", peer,
                                        rates[peer]))
            else:
                print(f"bench-montecarlo: {peer} is not here: its row is left out")
    return found


def main(argv=None):
    """Be one rank of a measurement.

    Parameters
    ----------
    argv : list of str, instead of the process's own arguments
    """
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--worker", required=True, choices=("brmpi", *PEERS))
    parser.add_argument("--turns", type=int, required=True)
    parser.add_argument("--tasks", type=int, required=True)
    options = parser.parse_args(argv)

    from mpi4py import MPI

    spent = mapped(MPI.COMM_WORLD, options.worker, options.turns, options.tasks)
    if spent is not None:
        print(json.dumps(spent), flush=True)


if __name__ == "__main__":
    main()
