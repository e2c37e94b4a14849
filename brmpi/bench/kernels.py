"""``make bench-kernels``: every kernel beside a C loop, beside what memory allows, and OpenCL beside Numba.

Kernels bound by arithmetic run beside C on one core, in turns. Those bound by memory run as ranks of a job do, one
process a core and all cores at once, in turns with STREAM's triad; the limit is the triad's bandwidth over the bytes
of an update. ``BARS`` says what ratios must hold.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import numpy as np

from brmpi import kernels
from brmpi.bench import report
from brmpi.bench.cloop import CLoop
from brmpi.bench.workloads import WORKLOADS, liquid
from brmpi.errors import Fault
from brmpi.kernels import stencil

BARS = {"c": 0.9, "limit": 0.8, "numba": 0.7}  # by what a ratio is against
BOUND_BY_ARITHMETIC = ("gravity float64", "lennardjones forces")  # the kernels whose ratio to C has a bar
SIZES = {"gravity": 2**28, "stencil": 2**23, "boltzmann": 2**20, "lennardjones": 2**23, "philox": 2**22, "ising": 2**21,
         "product": 2**30}
BURST = 0.3  # s, that each core works on one thing while all are busy


def bytes_of(kernel):
    """Bytes that memory moves for an update, where planes stay in a cache; a number written counts twice.

    Parameters
    ----------
    kernel : str, a stencil or lattice Boltzmann

    Returns
    -------
    int
    """
    module, variant, dtype = kernel.split()
    if module == "boltzmann":
        numbers = 3 * int(variant.partition("q")[2])
    else:
        numbers = stencil.TRAFFIC[variant if variant == "heat9" else variant.rstrip("0123456789")]
    return numbers * np.dtype(dtype).itemsize


def c_loop(kernel, folder):
    """The C loop of a kernel, and how much work its call is.

    Parameters
    ----------
    kernel : str
    folder : Path, for a file that it reads

    Returns
    -------
    (CLoop, int), or None where there is none
    """
    module, _, variant = kernel.partition(" ")
    size = SIZES[module]
    if kernel == "gravity float64":
        side = round(size**0.5)
        return CLoop("gravity", side), side**2
    if module == "stencil" and variant.endswith(" float64"):
        name = variant.split()[0]
        d = 3 if name in ("heat7", "conduct7", "wave7", "wave13") else 2
        side = round(size ** (1 / d))
        return CLoop("stencil", name, side), side**d
    if module == "boltzmann" and variant.endswith(" float64"):
        d, q = map(int, variant.split()[0][1:].split("q"))
        side = round(size ** (1 / d))
        return CLoop("boltzmann", q, side), side**d
    if kernel == "lennardjones forces":
        file = folder / "liquid"
        pairs = list_file(file, size)
        return CLoop("lennardjones", file), pairs
    if kernel == "philox payoffs":
        return CLoop("philox", size), size
    if module == "ising":
        side = round((2 * size) ** 0.5)
        return CLoop("ising", side), side**2
    if kernel == "product float64":
        side = round(size ** (1 / 3))
        return CLoop("product", side), side**3
    return None


def list_file(file, pairs):
    """Write what ``bench/c/lennardjones.c`` reads.

    Parameters
    ----------
    file : Path
    pairs : int, about so many

    Returns
    -------
    int, pairs
    """
    pos, near = liquid(pairs / 80)
    shift = 4 * (2.5**-12 - 2.5**-6)
    with file.open("wb") as out:
        out.write(np.array([pos.shape[1], pos.shape[1], near.index.size], np.int64).tobytes())
        out.write(np.array([2.5, shift, *near.period]).tobytes())
        for part in (pos, near.starts, near.index):
            out.write(part.tobytes())
    return near.index.size


def beside_each_other(works, repeats, folder):
    """Rows of Numba beside C and OpenCL beside Numba, one core.

    Parameters
    ----------
    works : sequence of Workload
    repeats : int
    folder : Path, for files

    Returns
    -------
    list of dict, from ``report.row``
    """
    rows = []
    backends = ["numba"] if kernels.without_opencl() else ["numba", "opencl"]
    for work in works:
        size = SIZES[work.kernel.split()[0]]
        amount, call = work.make(size)
        runs = {backend: (lambda backend=backend, call=call: call(backend), amount) for backend in backends}
        with ExitStack() as stack:
            made = c_loop(work.kernel, folder)
            if made:
                loop, done = made
                stack.callback(loop.close)
                runs["c"] = loop, done
            rates = {name: [] for name in runs}
            for turn in range(repeats + 1):
                for name, (run, done) in runs.items():
                    begin = time.perf_counter()
                    said = run()
                    seconds = said if name == "c" else time.perf_counter() - begin
                    if turn:  # the first one compiles, and fills caches
                        rates[name].append(done / seconds)
        size = report.power(size)
        if "c" in rates:
            rows.append(report.row(f"{work.kernel} numba", size, 1, rates["numba"], work.unit, "c", rates["c"]))
        if "opencl" in rates:
            rows.append(report.row(f"{work.kernel} opencl", size, 1, rates["opencl"], work.unit, "numba",
                                   rates["numba"]))
    return rows


class Core:
    """A process on one core that works when it is told to.

    Parameters
    ----------
    cpu : int
    """

    def __init__(self, cpu):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "brmpi.bench.kernels", "--core", str(cpu)], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})

    def tell(self, **words):
        """Begin something.

        Parameters
        ----------
        **words : ``make`` a kernel's data, or ``run`` "triad" or a backend
        """
        self.process.stdin.write(json.dumps(words) + "\n")
        self.process.stdin.flush()

    def hear(self):
        """What came of it."""
        return json.loads(self.process.stdout.readline())

    def close(self):
        """End the process."""
        self.process.stdin.close()
        self.process.wait(timeout=60)
        self.process.stdout.close()


def core(cpu):
    """Be a ``Core``: answer lines of standard input.

    Parameters
    ----------
    cpu : int
    """
    from brmpi.kernels.compiled import compiled

    os.sched_setaffinity(0, {cpu})
    works = {work.kernel: work for work in WORKLOADS}

    triad = compiled(_triad)
    a, b, c = (np.full(2**23, float(value)) for value in range(3))
    triad(a, b, c, 2.0)
    for line in sys.stdin:
        words = json.loads(line)
        if "make" in words:
            amount, call = works[words["make"]].make(SIZES[words["make"].split()[0]])
            call("numba")
            print(json.dumps(None), flush=True)
            continue
        work = (24 * a.size, triad, a, b, c, 2.0) if words["run"] == "triad" else (amount, call, words["run"])
        print(json.dumps(burst(*work)), flush=True)


def _triad(a, b, c, factor):
    for i in range(a.size):
        a[i] = b[i] + factor * c[i]


def burst(work, call, *arguments):
    """Work for ``BURST`` seconds.

    Parameters
    ----------
    work : float, of a call
    call : function
    *arguments : its

    Returns
    -------
    float, median rate
    """
    rates, end = [], time.perf_counter() + BURST
    while time.perf_counter() < end:
        begin = time.perf_counter()
        call(*arguments)
        rates.append(work / (time.perf_counter() - begin))
    return median(rates)


def beside_memory(works, repeats):
    """Rows of kernels beside what memory allows, all cores at once.

    Parameters
    ----------
    works : sequence of Workload
    repeats : int

    Returns
    -------
    list of dict, from ``report.row``
    """
    rows = []
    cpus = sorted(os.sched_getaffinity(0))
    for work in works:
        cores = [Core(cpu) for cpu in cpus]
        try:
            def together(cores=cores, **words):
                for each in cores:
                    each.tell(**words)
                return [each.hear() for each in cores]

            together(make=work.kernel)
            rates, limits = [], []
            for _ in range(repeats):
                limits.append(sum(together(run="triad")) / bytes_of(work.kernel))
                rates.append(sum(together(run="numba")))
        finally:
            for each in cores:
                each.close()
        rows.append(report.row(f"{work.kernel} numba", report.power(SIZES[work.kernel.split()[0]]), len(cpus), rates,
                               work.unit, "limit", limits))
    return rows


def starts(repeats, ranks=20):
    """A row of how fast a job of many ranks starts with compiled code on disk, beside one that has to compile.

    Parameters
    ----------
    repeats : int
    ranks : int

    Returns
    -------
    dict, from ``report.row``

    Raises
    ------
    Fault : the job failed
    """
    rates = {"cold": [], "warm": []}
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            for which, found in rates.items():
                command = ["mpirun", "--oversubscribe", "--bind-to", "none", "-np", str(ranks), sys.executable, "-m",
                           "brmpi.sims.nbody", "--set", f"n={300 * ranks}", "--steps", "1", "--quiet", "--out",
                           f"{folder}/{which}"]
                begin = time.perf_counter()
                done = subprocess.run(command, env={**os.environ, "NUMBA_CACHE_DIR": f"{folder}/cache"},
                                      capture_output=True, text=True, timeout=600)
                if done.returncode:
                    raise Fault(f"{' '.join(command)} failed:\n{done.stderr}")
                found.append(ranks / (time.perf_counter() - begin))
    return report.row("start warm numba", ranks, ranks, rates["warm"], "ranks/s", "cold", rates["cold"])


def missed(rows):
    """Ratios below their bars.

    Parameters
    ----------
    rows : list of dict, from ``report.row``

    Returns
    -------
    list of str
    """
    found = []
    for row in rows:
        kernel = row["what"].rpartition(" ")[0]
        bar = BARS.get(row["against"])
        if row["against"] == "c" and kernel not in BOUND_BY_ARITHMETIC:
            bar = None
        if bar is not None and row["ratio"] < bar:
            found.append(f"{row['what']}: {row['ratio']:.2f} of {row['against']}, must be >= {bar}")
    return found


def main(argv=None):
    """Measure and publish; returns 1 where a ratio is below its bar.

    Parameters
    ----------
    argv : list of str, instead of the process's own arguments
    """
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--core", type=int, help="be the process of one core")
    parser.add_argument("--repeats", type=int, default=7, help="of each measurement, interleaved")
    options = parser.parse_args(argv)
    if options.core is not None:
        core(options.core)
        return 0
    everywhere = os.sched_getaffinity(0)
    bound = [work for work in WORKLOADS if work.kernel.startswith(("stencil", "boltzmann"))]
    limits = beside_memory(bound, options.repeats)
    os.sched_setaffinity(0, {max(everywhere)})
    with tempfile.TemporaryDirectory() as folder:
        rows = beside_each_other(WORKLOADS, options.repeats, Path(folder))
    os.sched_setaffinity(0, everywhere)
    order = [work.kernel for work in WORKLOADS]
    rows = sorted(limits + rows, key=lambda row: order.index(row["what"].rpartition(" ")[0]))
    if shutil.which("mpirun"):
        rows.append(starts(3))
    report.publish("kernels", rows, bytes={work.kernel: bytes_of(work.kernel) for work in bound})
    wrong = missed(rows)
    for line in wrong:
        print(f"bench-kernels: {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
