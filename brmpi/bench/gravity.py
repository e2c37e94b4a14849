"""Speed of the force kernel beside a C loop, and of the N-body program on two ranks beside one."""

import argparse
import dataclasses
import os
import shutil
import subprocess
import sys
import time

import numpy as np

from brmpi import mpi
from brmpi.bench import report
from brmpi.bench.cloop import CLoop
from brmpi.errors import Fault
from brmpi.kernels import gravity


def kernel(n, precision):
    """Seconds of one force evaluation of n bodies on this core, compiled beforehand.

    Parameters
    ----------
    n : int, bodies
    precision : "float64" or "mixed"

    Returns
    -------
    callable without arguments, returning seconds
    """
    rng = np.random.default_rng(1)
    sources = np.zeros((4, gravity.TILE * gravity.tiles(n)))
    sources[:3, :n], sources[3, :n] = rng.uniform(size=(3, n)), 1 / n
    targets = np.ascontiguousarray(sources[:3, :n])
    out = np.zeros((3, n))

    def once():
        """Seconds of one evaluation."""
        start = time.perf_counter()
        gravity.accelerations(targets, sources, 0.01, out, precision, "numba")
        return time.perf_counter() - start

    once()
    return once


def worker(comm, n, steps):
    """Print interactions per second of the N-body program on this communicator. Collective.

    Parameters
    ----------
    comm : communicator
    n : int, bodies
    steps : int, leapfrog steps after one that warms up
    """
    from brmpi.sims import nbody

    case = dataclasses.replace(nbody.Case(), n=n, softening=0.01)
    run = nbody.NBody(case, comm, mpi.Timers(), "numba")
    mpi.node_by_node(comm, run.warm)
    run.step()
    comm.Barrier()
    start = time.perf_counter()
    for _ in range(steps):
        run.step()
    comm.Barrier()
    if comm.rank == 0:
        print(steps * n**2 / (time.perf_counter() - start))


def on_ranks(ranks, n, steps):
    """Interactions per second of the N-body program, in an mpirun of its own.

    Parameters
    ----------
    ranks, n, steps : int

    Returns
    -------
    float
    """
    command = ["mpirun", "--bind-to", "core", "-np", str(ranks), sys.executable, "-m", "brmpi.bench.gravity",
               "--worker", "--bodies", str(n), "--steps", str(steps)]
    done = subprocess.run(command, env={**os.environ}, capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise Fault(f"{' '.join(command)} failed:\n{done.stderr}")
    return float(done.stdout.split()[-1])


def main(argv=None):
    """Measure and publish; with ``--worker``, be one rank of a measurement.

    Parameters
    ----------
    argv : list of str, instead of the process's own arguments
    """
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--worker", action="store_true", help="be one rank of the N-body measurement")
    parser.add_argument("--bodies", type=int, default=32768, help="of the N-body measurement")
    parser.add_argument("--steps", type=int, default=6, help="of the N-body measurement")
    parser.add_argument("--repeats", type=int, default=9, help="of each measurement, interleaved")
    options = parser.parse_args(argv)
    if options.worker:
        mpi.run(lambda comm: worker(comm, options.bodies, options.steps))

    n, unit, rows = 16384, "interactions/s", []
    cpu = min(os.sched_getaffinity(0))
    everywhere = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})  # kernel and C loop on the same core, in turns
    c_loop = CLoop("gravity", n)
    runs = {"c": c_loop, "float64": kernel(n, "float64"), "mixed": kernel(n, "mixed")}
    c_loop()
    rates = {name: [] for name in runs}
    for _ in range(options.repeats):
        for name, run in runs.items():
            rates[name].append(n**2 / run())
    c_loop.close()
    os.sched_setaffinity(0, everywhere)
    rows.append(report.row("gravity float64 numba", n, 1, rates["float64"], unit, "c", rates["c"]))
    rows.append(report.row("gravity mixed numba", n, 1, rates["mixed"], unit, "c", rates["c"]))
    rows.append(report.row("gravity mixed numba", n, 1, rates["mixed"], unit, "float64", rates["float64"]))

    if len(everywhere) > 1 and shutil.which("mpirun"):
        together, alone = [], []
        for _ in range(min(options.repeats, 5)):
            alone.append(on_ranks(1, options.bodies, options.steps))
            together.append(on_ranks(2, options.bodies, options.steps))
        rows.append(report.row("nbody float64 numba", options.bodies, 2, together, unit, "one", alone))
    report.publish("gravity", rows)


if __name__ == "__main__":
    main()
