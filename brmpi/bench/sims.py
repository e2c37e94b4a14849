"""``make bench-sims``: simulations beside what memory allows, beside one rank, and beside other programs.

The limit is STREAM's triad on as many cores at once over the bytes that an update moves, as in ``bench-kernels``. The
other programs are those of ``peers``. All that is compared runs in turns. The bars say what must hold.
"""

import argparse
import dataclasses
import importlib
import math
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from brmpi import case, mpi
from brmpi.bench import peers, report
from brmpi.bench.kernels import Core
from brmpi.errors import Fault

# ---- what must hold ------------------------------------------------------------------------------------------------

BARS = {  # of ratios, by what they are against; those of a simulation of bodies by its name too
    "limit": 0.75,
    "lbmpy": 1.0,
    "lammps": 0.5,
    ("nbody direct", "rebound"): 4.0,
    ("nbody direct", "pytreegrav"): 4.0,
}
TREE_SECONDS = 2.2  # that the forces on 10^6 bodies take on two ranks at most
TREE_ERROR = 1e-3  # of those forces, relative, root mean square
ROUNDING = 1e-10  # that LAMMPS and brmpi may be apart in the melt, relative

# ---- what is run ---------------------------------------------------------------------------------------------------

SECONDS = 1.0  # that each run works
MILLION = 10**6


@dataclass(frozen=True)
class Run:
    """A simulation that is measured."""

    module: str  # in brmpi.sims
    keys: dict = field(default_factory=dict)  # of its case
    unit: str = "updates/s"
    file: str | None = None  # with more keys
    ranks: tuple[int, ...] = (2, 1)  # that it runs on; where both, they are held against each other
    moved: int = 0  # bytes that memory moves for an update; 0: memory is not what it waits for
    steps: int = 0  # to take; 0: as many as are done in ``SECONDS``
    peers: tuple[tuple[str, int], ...] = ()  # names, and the cores of each
    name: str = ""  # in the table, where it is not that of ``RUNS``

    @property
    def program(self):
        """The class of ``brmpi.program``."""
        known = vars(importlib.import_module(f"brmpi.sims.{self.module}"))
        return next(one for one in known.values() if getattr(one, "name", None) == self.module)

    @property
    def case(self):
        """Its case."""
        return dataclasses.replace(case.load(self.program.Case, self.file), **self.keys)

    @property
    def size(self):
        """What the table says of its size, and the work of a step."""
        made = self.case
        if self.module == "nbody":
            return made.n, made.n**2 if made.method == "direct" else made.n
        if self.module == "md":
            atoms = 4 * math.prod(made.cells)
            return atoms, atoms
        return " x ".join(map(str, made.cells)), math.prod(made.cells)


DIRECT = {"n": 16384, "softening": 0.01, "dt": 1e-9}
TREE = {"n": MILLION, "method": "tree", "opening": 0.75, "softening": 1e-3, "dt": 1e-9}
WATER = {"cells": (1000, 1000), "dt": 0.1}
RUNS = {
    "heat explicit": Run("heat", {"cells": (2896, 2896), "dt": 1e-8}, moved=24),
    "heat explicit3d": Run("heat", {"cells": (200, 200, 200), "size": (1.0,) * 3, "ends": ("neumann",) * 3,
                                    "dt": 1e-7}, moved=24),
    "wave order2": Run("wave", {"cells": (2896, 2896), "order": 2, "dt": 1e-4}, moved=24),
    "wave order4": Run("wave", {"cells": (2896, 2896), "order": 4, "dt": 1e-4}, moved=24),
    "shallow order1": Run("shallow", {**WATER, "order": 1}),
    "shallow order2": Run("shallow", {**WATER, "order": 2}),
    "ising metropolis": Run("ising", {"cells": (4096, 4096)}),
    "lbm d2q9": Run("lbm", {"flow": "vortex", "cells": (1000, 1000)}, moved=144),
    "lbm d3q19": Run("lbm", {"flow": "vortex", "cells": (100, 100, 100), "collision": "bgk"}, moved=304,
                     peers=(("lbmpy", 2), ("lbmpy", 1))),
    "md melt": Run("md", unit="atom-steps/s", file=peers.MELT, steps=300, peers=(("lammps", 2), ("lammps", 1))),
    "nbody direct": Run("nbody", DIRECT, "interactions/s",
                        peers=(("pytreegrav", 2), ("pytreegrav", 1), ("rebound", 1))),
    "nbody tree float64": Run("nbody", TREE, "forces/s", ranks=(2,), peers=(("pytreegrav", 2),)),
    "nbody tree mixed": Run("nbody", {**TREE, "precision": "mixed"}, "forces/s", ranks=(2,),
                            peers=(("pytreegrav", 2),)),
    "nbody tree small": Run("nbody", {**TREE, "n": MILLION // 10}, "forces/s", ranks=(1,), peers=(("rebound", 1),),
                            name="nbody tree float64"),
}

# ---- a rank of a measurement ---------------------------------------------------------------------------------------


def worker(comm, measured, forces=None, seconds=SECONDS):
    """Print work per second of a simulation on this communicator. Collective.

    Parameters
    ----------
    comm : communicator
    measured : Run
    forces : path of a file for the accelerations of all bodies of an N-body run, or None
    seconds : float, to work where the run has no number of steps
    """
    run = measured.program(measured.case, comm, mpi.Timers(), "numba")
    mpi.node_by_node(comm, run.warm)

    def _timed(steps):
        comm.Barrier()
        begin = time.perf_counter()
        for _ in range(steps):
            run.step()
        comm.Barrier()
        return comm.bcast(time.perf_counter() - begin)

    _timed(1)
    if measured.steps:
        steps = measured.steps
        spent = _timed(steps)
    else:
        steps, spent = 1, _timed(1)
        if spent < seconds / 2:
            steps = round(seconds / spent)
            spent = _timed(steps)
    if comm.rank == 0:
        print(steps * measured.size[1] / spent, flush=True)
    if forces:
        parts = comm.gather(run.state.acc)
        if comm.rank == 0:
            np.save(forces, np.concatenate(parts))


def on_ranks(ranks, name, *options):
    """Work per second, in an mpirun of its own.

    Parameters
    ----------
    ranks : int
    name : str, of ``RUNS``
    *options : of the worker

    Returns
    -------
    float

    Raises
    ------
    Fault : it failed
    """
    command = ["mpirun", "--bind-to", "core", "-np", str(ranks), sys.executable, "-m", "brmpi.bench.sims", "--worker",
               name, *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise Fault(f"{' '.join(command)} failed:\n{done.stderr}")
    return float(done.stdout.split()[-1])


# ---- what it is held against ---------------------------------------------------------------------------------------


def triad(cores):
    """Bandwidth of STREAM's triad on some cores at once, bytes/s.

    Parameters
    ----------
    cores : list of Core

    Returns
    -------
    float
    """
    for core in cores:
        core.tell(run="triad")
    return sum(core.hear() for core in cores)


def some(n):
    """The bodies whose forces are judged: a thousand, spread over all; bodies are drawn by their number.

    Parameters
    ----------
    n : int >= 1000

    Returns
    -------
    (1000,) int
    """
    return np.arange(1000) * (n // 1000)


def error(measured, forces):
    """Error of forces beside a direct sum, relative, root mean square over ``some`` bodies.

    Parameters
    ----------
    measured : Run
    forces : (n, 3) float64, accelerations of all bodies

    Returns
    -------
    float
    """
    from brmpi.kernels import gravity
    from brmpi.sims import nbody

    made = measured.case
    pos, _, mass = nbody.initial(made)
    sources = np.zeros((4, gravity.TILE * gravity.tiles(made.n)))
    sources[:3, : made.n], sources[3, : made.n] = pos.T, made.G * mass
    exact = np.zeros((3, 1000))
    gravity.accelerations(np.ascontiguousarray(pos[some(made.n)].T), sources, made.softening, exact, "float64", "numba")
    off = ((forces[some(made.n)] - exact.T) ** 2).sum(axis=1) / (exact**2).sum(axis=0)
    return float(np.sqrt(off.mean()))


# ---- all of it -----------------------------------------------------------------------------------------------------


class Contest:
    """Simulations and what they are held against, in turns.

    Parameters
    ----------
    names : sequence of str, of ``RUNS``
    known : collection of str, peers that can run
    cpus : (2,) sequence of int
    folder : Path, for files
    """

    def __init__(self, names, known, cpus, folder):
        self.names, self.known, self.cpus, self.folder = names, known, cpus, folder
        self.rates = {name: {} for name in names}  # of each: those of ranks, of peers on cores, of "limit"
        self.errors = {}

    def turn(self, cores):
        """Run everything once.

        Parameters
        ----------
        cores : list of Core
        """
        done = {}  # peers' work that is the same for several simulations
        for name in self.names:
            measured, found = RUNS[name], {}
            if measured.moved:
                found["limit"] = triad(cores) / measured.moved
            for ranks in measured.ranks:
                found[ranks] = on_ranks(ranks, name, *self._forces(name))
            for peer, count in measured.peers:
                if peer not in self.known:
                    continue
                bodies = self._bodies(measured) if measured.module == "nbody" else None
                key = bodies or name, peer, count
                if key not in done:
                    done[key] = peers.beside(measured, peer, self.cpus[:count], bodies)
                found[peer, count], *off = done[key]
                if off:
                    self.errors[f"{peer} {measured.size[0]}"] = off[0]
            for key, rate in found.items():
                self.rates[name].setdefault(key, []).append(rate)
            print(f"{name}: " + ", ".join(f"{' '.join(map(str, key)) if isinstance(key, tuple) else key}: {rate:.3g}"
                                          for key, rate in found.items()), flush=True)

    def _bodies(self, measured):
        from brmpi.sims import nbody

        file = self.folder / f"bodies{measured.case.n}.npy"
        if not file.exists():
            np.save(file, nbody.initial(measured.case)[0])
        return file

    def _forces(self, name):
        tree = RUNS[name].keys.get("method") == "tree"
        return ("--forces", str(self.folder / f"{name}.npy")) if tree else ()

    def judge(self):
        """Errors of the tree's forces, with those of peers.

        Returns
        -------
        dict of name and size: float
        """
        own = {}
        for name in self.names:
            if self._forces(name):
                own[label(name)] = error(RUNS[name], np.load(self._forces(name)[1]))
        return own | self.errors

    def rows(self):
        """The table.

        Returns
        -------
        list of dict, from ``report.row``
        """
        rows = []
        for name in self.names:
            measured, rates = RUNS[name], self.rates[name]
            pairs = [("limit", 2, "limit")] if measured.moved else []
            pairs += [("one", 2, 1)] if measured.ranks == (2, 1) else []
            pairs += [(peer, count, (peer, count)) for peer, count in measured.peers if peer in self.known]
            for against, ranks, reference in pairs:
                ours, theirs = rates[ranks], rates[reference]
                if len(ours) == 1:
                    ours, theirs = 2 * ours, 2 * theirs  # quartiles need two
                rows.append(report.row(f"{measured.name or name} numba", measured.size[0], ranks, ours, measured.unit,
                                       against, theirs))
        return rows


def label(name):
    """Name and size of a run.

    Parameters
    ----------
    name : str, of ``RUNS``

    Returns
    -------
    str
    """
    return f"{RUNS[name].name or name} {RUNS[name].size[0]}"


def missed(rows, errors, differences):
    """What is not as it must be.

    Parameters
    ----------
    rows : list of dict, from ``report.row``
    errors : dict, from ``Contest.judge``
    differences : dict, from ``peers.melt_apart``

    Returns
    -------
    list of str
    """
    found = []
    for row in rows:
        name, against = row["what"].rpartition(" ")[0], row["against"]
        bar = BARS.get((name, against), BARS.get(against))
        if bar is not None and row["ratio"] < bar:
            found.append(f"{row['what']} on {row['ranks']}: {row['ratio']:.2f} of {against}, must be >= {bar}")
    slow = {row["what"]: MILLION / row["value"] for row in rows
            if row["what"].startswith("nbody tree") and row["size"] == MILLION and row["ranks"] == 2}
    found += [f"{what}: {seconds:.2f} s for the forces on {MILLION} bodies, must be < {TREE_SECONDS} s"
              for what, seconds in slow.items() if not seconds < TREE_SECONDS]
    found += [f"{which}: forces are off by {off:.2g}, must be < {TREE_ERROR:g}"
              for which, off in errors.items() if which.startswith("nbody") and not off < TREE_ERROR]
    return found + [f"md melt: {what} is off by {off:.2g} beside LAMMPS, must be <= {ROUNDING:g}"
                    for what, off in differences.items() if not off <= ROUNDING]


def main(argv=None):
    """Measure and publish; returns 1 where something is not as it must be.

    A part of the table, as ``--only`` and ``--without-peers`` make it, is printed and not kept.

    Parameters
    ----------
    argv : list of str, instead of the process's own arguments
    """
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--worker", metavar="NAME", help="be one rank of a measurement")
    parser.add_argument("--forces", metavar="FILE", help="where the worker leaves the accelerations")
    parser.add_argument("--repeats", type=int, default=3, help="of each measurement, in turns")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=RUNS, help=f"of {', '.join(RUNS)}")
    parser.add_argument("--without-peers", action="store_true", help="beside memory and one rank alone")
    options = parser.parse_args(argv)
    if options.worker:
        mpi.run(lambda comm: worker(comm, RUNS[options.worker], options.forces))
    cpus = sorted(os.sched_getaffinity(0))[:2]
    if len(cpus) < 2:
        raise Fault("bench-sims needs two cores")
    names = options.only or list(RUNS)
    versions = {} if options.without_peers else peers.versions()
    for peer in sorted({peer for name in names for peer, _ in RUNS[name].peers} - set(versions)):
        if not options.without_peers:
            print(f"bench-sims: {peer} does not run here: its rows are left out")
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        contest = Contest(names, versions, cpus, Path(folder))
        cores = [Core(cpu) for cpu in cpus]
        for core in cores:
            stack.callback(core.close)
        for _ in range(options.repeats):
            contest.turn(cores)
        errors, rows, differences = contest.judge(), contest.rows(), {}
        if "md melt" in names and "lammps" in versions:
            differences = peers.melt_apart(Path(folder), cpus[:1])
    if options.only or options.without_peers:
        for row in rows:
            print(f"{row['what']} {row['size']} on {row['ranks']}: {row['value']:.3g} {row['unit']}, "
                  f"{row['ratio']:.2f} of {row['against']}")
    else:
        report.publish("sims", rows, bytes={name: run.moved for name, run in RUNS.items() if run.moved},
                       peers=versions, errors=errors, differences=differences)
    for which, off in errors.items():
        print(f"error of forces, {which} bodies: {off:.2g}")
    for what, off in differences.items():
        print(f"melt beside LAMMPS, {what}: {off:.2g} apart")
    wrong = missed(rows, errors, differences)
    for line in wrong:
        print(f"bench-sims: {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
