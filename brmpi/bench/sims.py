"""``make bench-sims``: simulations on two ranks beside what memory allows, and beside one rank.

The limit is STREAM's triad on as many cores at once over the bytes that an update moves, as in ``bench-kernels``.
"""

import argparse
import os
import subprocess
import sys
import time

from brmpi import mpi
from brmpi.bench import report
from brmpi.bench.kernels import Core
from brmpi.errors import Fault

BAR = 0.75  # of the limit
SECONDS = 1.5  # that each run works

# name: (module, keys of the case, bytes of an update)
RUNS = {
    "heat explicit": ("heat", {"cells": (2896, 2896), "dt": 1e-8}, 24),
    "heat explicit3d": ("heat", {"cells": (200, 200, 200), "size": (1.0,) * 3, "ends": ("neumann",) * 3, "dt": 1e-7},
                        24),
    "wave order2": ("wave", {"cells": (2896, 2896), "order": 2, "dt": 1e-4}, 24),
    "wave order4": ("wave", {"cells": (2896, 2896), "order": 4, "dt": 1e-4}, 24),
    "lbm d2q9": ("lbm", {"flow": "vortex", "cells": (1000, 1000)}, 216),
    "lbm d3q19": ("lbm", {"flow": "vortex", "cells": (100, 100, 100)}, 456),
}


def worker(comm, name):
    """Print updates per second of a simulation on this communicator. Collective.

    Parameters
    ----------
    comm : communicator
    name : str, of ``RUNS``
    """
    import dataclasses
    import importlib
    import math

    module, keys, _ = RUNS[name]
    sims = importlib.import_module(f"brmpi.sims.{module}")
    kind = next(one for one in vars(sims).values() if getattr(one, "name", None) == module)
    case = dataclasses.replace(sims.Case(), **keys)
    run = kind(case, comm, mpi.Timers(), "numba")
    mpi.node_by_node(comm, run.warm)
    run.step()
    comm.Barrier()
    begin, steps = time.perf_counter(), 0
    while comm.bcast(time.perf_counter() - begin < SECONDS):
        for _ in range(5):
            run.step()
        steps += 5
    comm.Barrier()
    if comm.rank == 0:
        print(steps * math.prod(case.cells) / (time.perf_counter() - begin))


def on_ranks(ranks, name):
    """Updates per second, in an mpirun of its own.

    Parameters
    ----------
    ranks : int
    name : str, of ``RUNS``

    Returns
    -------
    float

    Raises
    ------
    Fault : it failed
    """
    command = ["mpirun", "--bind-to", "core", "-np", str(ranks), sys.executable, "-m", "brmpi.bench.sims", "--worker",
               name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise Fault(f"{' '.join(command)} failed:\n{done.stderr}")
    return float(done.stdout.split()[-1])


def triad(cpus):
    """Bandwidth of STREAM's triad on some cores at once, bytes/s.

    Parameters
    ----------
    cpus : sequence of int

    Returns
    -------
    float
    """
    cores = [Core(cpu) for cpu in cpus]
    try:
        for core in cores:
            core.tell(run="triad")
        return sum(core.hear() for core in cores)
    finally:
        for core in cores:
            core.close()


def main(argv=None):
    """Measure and publish; returns 1 where a simulation is below its bar.

    Parameters
    ----------
    argv : list of str, instead of the process's own arguments
    """
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--worker", metavar="NAME", help="be one rank of a measurement")
    parser.add_argument("--repeats", type=int, default=5, help="of each measurement, interleaved")
    options = parser.parse_args(argv)
    if options.worker:
        mpi.run(lambda comm: worker(comm, options.worker))
    cpus = sorted(os.sched_getaffinity(0))[:2]
    rows, wrong = [], []
    for name, (_, keys, traffic) in RUNS.items():
        alone, together, limits = [], [], []
        for _ in range(options.repeats):
            limits.append(triad(cpus) / traffic)
            together.append(on_ranks(len(cpus), name))
            alone.append(on_ranks(1, name))
        size = " x ".join(map(str, keys["cells"]))
        rows.append(report.row(f"{name} numba", size, len(cpus), together, "updates/s", "limit", limits))
        rows.append(report.row(f"{name} numba", size, len(cpus), together, "updates/s", "one", alone))
        if rows[-2]["ratio"] < BAR:
            wrong.append(f"{name}: {rows[-2]['ratio']:.2f} of the limit, must be >= {BAR}")
    report.publish("sims", rows, bytes={name: traffic for name, (*_, traffic) in RUNS.items()})
    for line in wrong:
        print(f"bench-sims: {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
