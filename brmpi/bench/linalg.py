"""``make bench-linalg``: products and factorisations beside ScaLAPACK, beside BLAS alone, and beside what must be sent.

Three measurements, each in processes of its own:

``matmul`` beside ScaLAPACK's pdgemm, on the same parts in the same processes in turns, and beside the ranks times the
rate of one of them with BLAS alone, on its part and at that block size, while the others sleep (``summed``); and beside
BLAS alone on all of them at once (``together``), which is less where two ranks share a core's arithmetic units.

Weak scaling: matrices of n = n1 √P, so that each rank holds as much. Up to as many ranks as cores, the total rate is
held against the ranks times that of one rank (``summed``); with more, which share cores, the most that can be had is
the total rate of as many ranks as cores (``cores``).

Volume: bytes that the rank that receives most receives, counted by MPI's own monitoring, set-up included, beside the
least that there must be (``bound``). A rank that computes n²/P elements of C meets r rows of A and s columns of B with
r s >= n²/P, so (r + s) n >= 2 n²/√P words, of which it owns 2 n²/P. Step k of an LU updates (n - k)²/P elements by as
much of a column of L and a row of U: n²/√P words in all, of which it owns n²/P. Cannon's algorithm and SUMMA reach the
first on square grids; Irony, Toledo and Tiskin, J. Parallel Distrib. Comput. 64 (2004) 1017-1026, show the order to be
the least there is with memory for O(n²/P) words a rank.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from brmpi import mpi
from brmpi.bench import report, scalapack
from brmpi.errors import Fault
from brmpi.linalg.blas import gemm
from brmpi.linalg.lu import lu
from brmpi.linalg.matrix import BlockCyclic
from brmpi.linalg.processgrid import ProcessGrid
from brmpi.linalg.product import matmul

BARS = {("matmul", "scalapack"): 1.0, ("matmul", "summed"): 0.95, ("matmul", "together"): 0.95}  # of ratios
N, NB, GRID, REPEATS = 4000, 128, (1, 2), 7
SCALED, RANKS, ROUNDS = 1500, (1, 2, 4, 8, 16), 3  # n of one rank
COUNTED = 1024, 32  # n and NB where bytes are counted
FLOPS = {"matmul": lambda n: 2 * n**3, "lu": lambda n: 2 * n**3 / 3}
BOUNDS = {"matmul": lambda n, ranks: 2 * n * n / math.sqrt(ranks) - 2 * n * n / ranks,
          "lu": lambda n, ranks: n * n / math.sqrt(ranks) - n * n / ranks}
NAP = 1e-3  # s

# ---- a rank of a measurement ---------------------------------------------------------------------------------------


def _random(grid, n, nb):
    """A random matrix, of which no minor is small."""
    a = BlockCyclic(grid, (n, n), nb=nb)
    a.local[...] = np.random.default_rng(grid.comm.rank).standard_normal(a.local.shape)
    i, j = a.indices
    _, rows, cols = np.intersect1d(i, j, return_indices=True)
    a.local[rows, cols] += 2 * math.sqrt(n)
    return a


def _timed(comm, work):
    """Seconds until all have done it."""
    comm.Barrier()
    begin = time.perf_counter()
    work()
    comm.Barrier()
    return comm.bcast(time.perf_counter() - begin)


def _alone(comm, work):
    """Seconds that the first rank takes, while the others sleep."""
    comm.Barrier()
    spent = 0.0
    if comm.rank == 0:
        begin = time.perf_counter()
        work()
        spent = time.perf_counter() - begin
    request = comm.Ibarrier()
    while not request.Test():
        time.sleep(NAP)
    return comm.bcast(spent)


def beside(comm, n=N, nb=NB, shape=GRID, repeats=REPEATS):
    """Seconds of a product, of pdgemm's, and of a rank's part by BLAS alone, in turns. Collective.

    Parameters
    ----------
    comm : communicator, COMM_WORLD
    n, nb : int
    shape : (P, Q)
    repeats : int

    Returns
    -------
    dict of lists of float: ``ours``, ``blas``, ``together``, and ``scalapack`` where it is there

    Raises
    ------
    Fault : the products differ
    """
    from mpi4py import MPI

    grid = ProcessGrid(comm, shape)
    a, b = _random(grid, n, nb), _random(grid, n, nb)
    c, rows, cols = a.like(), a.local[:, :nb].copy(), b.local
    runs = {"ours": lambda: matmul(a, b, c)}
    found = scalapack.library()
    if found is not None:
        peer = scalapack.Product(found, shape, a.local, b.local, n, nb)
        runs["scalapack"] = peer
        matmul(a, b, c)
        peer()
        apart = comm.allreduce(float(abs(c.local - peer.c).max(initial=0)))
        if not apart <= 1e-13 * n * n:
            raise Fault(f"products differ by {apart:.2g}")

    def _blas():
        for at in range(0, n, nb):
            strip = cols[at % max(len(cols), 1):][:nb]
            gemm(1, rows[:, : len(strip)], strip, 1, c.local)

    seconds = {name: [] for name in (*runs, "blas", "together")}
    for repeat in range(repeats + 1):
        for name, work in runs.items():
            spent = _timed(comm, work)
            if repeat:
                seconds[name].append(spent)
        spent = _alone(comm, _blas)
        both = _timed(comm, _blas)
        if repeat:
            part = n * n / comm.size  # blocks may not go round evenly
            seconds["blas"].append(spent * part / comm.bcast(c.local.size))
            seconds["together"].append(both * part / comm.allreduce(c.local.size, MPI.MAX))
    grid.free()
    return seconds


def scaled(comm, kind, n, nb=NB):
    """Seconds of a product or a factorisation, on the squarest grid, the better of two. Collective.

    Parameters
    ----------
    comm : communicator
    kind : "matmul" or "lu"
    n, nb : int

    Returns
    -------
    float
    """
    grid = ProcessGrid(comm)
    a = _random(grid, n, nb)
    if kind == "matmul":
        b, c = _random(grid, n, nb), a.like()
        spent = min(_timed(comm, lambda: matmul(a, b, c)) for _ in range(2))
    else:
        copies = [a.copy() for _ in range(2)]
        spent = min(_timed(comm, lambda: lu(copies.pop(), overwrite=True)) for _ in range(2))
    grid.free()
    return spent


def once(comm, kind, n, nb):
    """One product or factorisation, whose messages are counted. Collective.

    Parameters
    ----------
    comm : communicator
    kind : "matmul" or "lu"
    n, nb : int
    """
    grid = ProcessGrid(comm)
    a = _random(grid, n, nb)
    if kind == "matmul":
        matmul(a, _random(grid, n, nb))
    else:
        lu(a, overwrite=True)
    grid.free()


def worker(comm, task):
    """Be one rank of a measurement, and print what was found. Collective.

    Parameters
    ----------
    comm : communicator
    task : str, JSON: the name of a function here, and its arguments
    """
    name, arguments = json.loads(task)
    found = {"beside": beside, "scaled": scaled, "once": once}[name](comm, **arguments)
    if comm.rank == 0:
        print(json.dumps(found), flush=True)


# ---- measurements --------------------------------------------------------------------------------------------------


def on_ranks(ranks, name, options=(), **arguments):
    """What a function here returns on as many ranks, in an mpirun of its own.

    Parameters
    ----------
    ranks : int
    name : str
    options : sequence of str, of mpirun
    **arguments : of the function

    Returns
    -------
    what JSON can hold

    Raises
    ------
    Fault : it failed
    """
    crowded = ranks > len(os.sched_getaffinity(0))
    bind = ["--oversubscribe", "--bind-to", "none"] if crowded else ["--bind-to", "core"]
    command = ["mpirun", *bind, *options, "-np", str(ranks), sys.executable, "-m", "brmpi.bench.linalg", "--worker",
               json.dumps([name, arguments])]
    # the environment that this process began with: MPI, if it runs here too, has put more in that mpirun chokes on
    done = subprocess.run(command, env={**os.environ}, capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise Fault(f"{' '.join(command)} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def received(folder, ranks):
    """Bytes that came to each rank, from what Open MPI's monitoring wrote as it ended.

    Parameters
    ----------
    folder : Path, with a file ``sent.<rank>.prof`` for each rank
    ranks : int

    Returns
    -------
    (ranks,) int64
    """
    total = np.zeros(ranks, dtype=np.int64)
    for rank in range(ranks):
        for line in (folder / f"sent.{rank}.prof").read_text().splitlines():
            words = line.split()
            if words and words[0] in ("E", "I"):  # of a program's own messages, and of MPI's within collectives
                total[int(words[2])] += int(words[3])
    return total


def volume(kind, ranks, n, nb):
    """Bytes that come to the rank to which most come.

    Parameters
    ----------
    kind : "matmul" or "lu"
    ranks, n, nb : int

    Returns
    -------
    int
    """
    with tempfile.TemporaryDirectory() as folder:
        options = ["--mca", "pml_monitoring_enable", "1", "--mca", "pml_monitoring_enable_output", "3", "--mca",
                   "pml_monitoring_filename", f"{folder}/sent"]
        on_ranks(ranks, "once", options, kind=kind, n=n, nb=nb)
        return int(received(Path(folder), ranks).max())


def volumes(counts=RANKS, n=COUNTED[0], nb=COUNTED[1], kinds=tuple(FLOPS)):
    """Rows of the bytes received, beside the least there must be.

    Parameters
    ----------
    counts : sequence of int, ranks; nothing is sent by one
    n, nb : int
    kinds : sequence of str

    Returns
    -------
    list of dict, from ``report.row``; the ratio is of the bound over what was counted
    """
    rows = []
    for kind in kinds:
        for ranks in counts:
            if ranks > 1:
                counted, least = volume(kind, ranks, n, nb), BOUNDS[kind](n, ranks) * 8
                row = report.row(f"{kind} volume", n, ranks, [1 / counted] * 2, "bytes", "bound", [1 / least] * 2)
                rows.append(row | {"value": counted, "reference": least})
    return rows


def products(n=N, nb=NB, shape=GRID, repeats=REPEATS):
    """Rows of a product beside ScaLAPACK's, and beside BLAS alone.

    Parameters
    ----------
    n, nb : int
    shape : (P, Q)
    repeats : int

    Returns
    -------
    list of dict, from ``report.row``
    """
    ranks = shape[0] * shape[1]
    found = on_ranks(ranks, "beside", n=n, nb=nb, shape=shape, repeats=repeats)
    work = FLOPS["matmul"](n) / 1e9
    rate = {name: [work / spent for spent in seconds] for name, seconds in found.items()}
    rows = []
    if "scalapack" in found:
        rows.append(report.row("matmul float64", n, ranks, rate["ours"], "GFLOP/s", "scalapack", rate["scalapack"]))
    else:
        print("bench-linalg: ScaLAPACK is not here: its row is left out")
    # All ranks at once would be done in what ``blas`` says of one rank's part.
    return [*rows, *(report.row("matmul float64", n, ranks, rate["ours"], "GFLOP/s", against, rate[name])
                     for against, name in (("summed", "blas"), ("together", "together")))]


def scaling(counts=RANKS, one=SCALED, nb=NB, rounds=ROUNDS, kinds=tuple(FLOPS)):
    """Rows of total rates, of matrices as large for every rank.

    Parameters
    ----------
    counts : sequence of int, ranks, with 1
    one : int, n of one rank
    nb : int
    rounds : int, of all of them in turns
    kinds : sequence of str

    Returns
    -------
    list of dict, from ``report.row``
    """
    cores = len(os.sched_getaffinity(0))
    counts = sorted({1, *counts, *(count for count in [cores] if max(counts) > cores)})
    sizes = {ranks: round(one * math.sqrt(ranks)) for ranks in counts}
    rows = []
    for kind in kinds:
        rates = {ranks: [] for ranks in counts}
        for _ in range(rounds):
            for ranks, n in sizes.items():
                rates[ranks].append(FLOPS[kind](n) / on_ranks(ranks, "scaled", kind=kind, n=n, nb=nb) / 1e9)
        for ranks in counts[1:]:
            summed = ranks <= cores
            against = [ranks * rate for rate in rates[1]] if summed else rates[cores]
            rows.append(report.row(f"{kind} weak", sizes[ranks], ranks, rates[ranks], "GFLOP/s",
                                   "summed" if summed else "cores", against))
    return rows


def missed(rows):
    """What is not as it must be.

    Parameters
    ----------
    rows : list of dict, from ``report.row``

    Returns
    -------
    list of str
    """
    bars = [(row, BARS.get((row["what"].removesuffix(" float64"), row["against"]))) for row in rows]
    return [f"{row['what']} on {row['ranks']}: {row['ratio']:.2f} of {row['against']}, must be >= {bar}"
            for row, bar in bars if bar is not None and row["ratio"] < bar]


def main(argv=None):
    """Measure and publish; returns 1 where something is not as it must be.

    Parameters
    ----------
    argv : list of str, instead of the process's own arguments
    """
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--worker", metavar="TASK", help="be one rank of a measurement")
    parser.add_argument("--only", nargs="+", choices=("products", "scaling", "volumes"), help="printed, and not kept")
    options = parser.parse_args(argv)
    if options.worker:
        mpi.run(lambda comm: worker(comm, options.worker))
    parts = {"products": products, "scaling": scaling, "volumes": volumes}
    rows = [row for name in options.only or parts for row in parts[name]()]
    if options.only:
        for row in rows:
            print(f"{row['what']} {row['size']} on {row['ranks']}: {row['value']:.3g} {row['unit']}, "
                  f"{row['ratio']:.2f} of {row['against']}")
    else:
        report.publish("linalg", rows)
    wrong = missed(rows)
    for line in wrong:
        print(f"bench-linalg: {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
