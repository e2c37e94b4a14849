"""Sampling beside C loops with the same numbers, two ranks beside one, pools beside other pools, and a lab's hosts."""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import threading
import time

from brmpi import speeds
from brmpi.bench import pool, report
from brmpi.bench.cloop import CLoop
from brmpi.bench.lab import ALONE, INVENTORY, ask
from brmpi.cluster.lab import Lab
from brmpi.errors import Fault
from brmpi.kernels import philox, transport

PARTS = ("kernels", "ranks", "pool", "lab")
KEY = (1, 2)
UNIT = "samples/s"
START = "shellfish"  # where jobs in the lab are started
SLOWED = "shellfish"  # the node that is held to half of its speed
BARS = {("pi numba", "c"): 0.9, ("european numba", "c"): 0.9, ("slab numba", "c"): 0.9, ("pi numba", "one"): 1.95,
        ("pi weighted numba", "summed"): 0.95, ("pi slowed numba", "summed"): 0.9,
        **{(f"pool {lasting}ms", peer): 1.0 for lasting in ("0.1", "1") for peer in pool.PEERS[:2]}}


def kernels(repeats):
    """Each kernel beside the C loop of its name, on one core, in turns.

    Parameters
    ----------
    repeats : int

    Returns
    -------
    list of dict, from ``report.row``
    """
    count, histories = 2**24, 2**20
    slab = transport.Slab(thickness=5.0, total=1.0, scattering=0.5)
    calls = {
        "pi": (count, lambda: philox.inside_circle(KEY, 0, count, "numba")),
        "european": (count, lambda: philox.european(KEY, 0, count, 100, 100, 0.05, 0.2, 1, "numba")),
        "slab": (histories, lambda: transport.histories(KEY, 0, histories, slab, "numba")),
    }
    sources = {"pi": ("pi", count), "european": ("philox", count), "slab": ("transport", histories)}
    everywhere, rows = os.sched_getaffinity(0), []
    os.sched_setaffinity(0, {min(everywhere)})  # kernel and C loop on the same core
    for name, (size, call) in calls.items():
        loop = CLoop(*sources[name])
        call()
        loop()
        ours, theirs = [], []
        for _ in range(repeats):
            begin = time.perf_counter()
            call()
            ours.append(size / (time.perf_counter() - begin))
            theirs.append(size / loop())
        loop.close()
        rows.append(report.row(f"{name} numba", report.power(size), 1, ours, UNIT, "c", theirs))
    os.sched_setaffinity(0, everywhere)
    return rows


def rate(said):
    """Samples per second that a program says at its end.

    Parameters
    ----------
    said : str

    Returns
    -------
    float
    """
    return float(re.search(r"samples in .* ranks?, (\S+) samples/s", said).group(1))


def ranks(repeats, samples):
    """Pi on two ranks beside one, each in an mpirun of its own, in turns.

    Parameters
    ----------
    repeats, samples : int

    Returns
    -------
    list of dict, from ``report.row``
    """
    found = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(repeats):
            for count, rates in found.items():
                command = ["mpirun", "--bind-to", "core", "-np", str(count), sys.executable, "-m",
                           "brmpi.montecarlo.pi", "--samples", str(samples * count), "--out", f"{folder}/pi",
                           "--overwrite"]
                done = subprocess.run(command, env={**os.environ}, capture_output=True, text=True, timeout=600)
                if done.returncode:
                    raise Fault(f"{' '.join(command)} failed:\n{done.stderr}")
                rates.append(rate(done.stdout))
    return [report.row("pi numba", samples, 2, found[2], UNIT, "one", found[1])]


class Lent:
    """The hosts of a lab, and pi on them.

    Parameters
    ----------
    lab : Lab
    seconds : float, that a run is to take
    """

    def __init__(self, lab, seconds):
        self.lab, self.seconds = lab, seconds
        self.nodes = list(speeds.records(lab.state / "hostfiles"))

    def pi(self, *on, seconds=None):
        """Samples per second of a run.

        Parameters
        ----------
        *on : words of ``brmpi run`` that say where; all nodes, if none
        seconds : float, if other than usual

        Returns
        -------
        float
        """
        return rate(ask(self.lab, START, "brmpi", "run", *on, "brmpi.montecarlo.pi", "--out", "/shared/bench",
                        "--overwrite", "--set", f"seconds={seconds or self.seconds}", "--set", f"block={2**18}"))

    def alone(self):
        """What each node samples by itself.

        Returns
        -------
        dict of node to float [samples/s]
        """
        return {node: self.pi("--on", node, seconds=self.seconds / 3) for node in self.nodes}

    def slowed(self, node):
        """A run of all nodes while one is held to half of its speed from the middle on.

        Parameters
        ----------
        node : str

        Returns
        -------
        rate : float [samples/s]
        part : float, of the run's time that the node was slow
        """
        limit, told = self.lab.limits()[node]["cpu"], {}

        def _halve():
            file, before = self.lab.shared / "bench" / "run.json", time.time()
            while not (file.exists() and file.stat().st_mtime >= before):  # it is written when sampling begins
                time.sleep(0.05)
            time.sleep(self.seconds / 2)
            told["part"] = 1 - (time.time() - file.stat().st_ctime) / self.seconds
            self.lab.cpu(node, limit / 2)

        halving = threading.Thread(target=_halve)
        halving.start()
        try:
            found = self.pi()
            halving.join()
        finally:
            self.lab.cpu(node, limit)
        return found, told["part"]


def lab(repeats, seconds):
    """Five throttled nodes beside octavia alone and beside their sum; and with one held to half of its speed.

    Parameters
    ----------
    repeats : int
    seconds : float, of a run

    Returns
    -------
    list of dict, from ``report.row``
    """
    with Lab(INVENTORY, "bench") as made:
        ask(made, START, "brmpi", "probe")
        ask(made, START, "brmpi", "hostfiles")
        lent = Lent(made, seconds)
        limit = made.limits()[SLOWED]["cpu"]
        found = {"together": [], "one": [], "summed": [], "slowed": [], "averaged": []}
        for _ in range(repeats):
            alone = lent.alone()
            made.cpu(SLOWED, limit / 2)
            half = lent.pi("--on", SLOWED, seconds=seconds / 3)
            made.cpu(SLOWED, limit)
            found["together"].append(lent.pi())
            slowed, part = lent.slowed(SLOWED)
            found["slowed"].append(slowed)
            found["one"].append(alone[ALONE])
            found["summed"].append(sum(alone.values()))
            found["averaged"].append(sum(alone.values()) - part * (alone[SLOWED] - half))
            singles = ", ".join(f"{node} {one:.3g}" for node, one in alone.items())
            print(f"alone: {singles}; together {found['together'][-1]:.3g}; {SLOWED} at half: {half:.3g}, "
                  f"together {slowed:.3g} while that was so for {100 * part:.0f} % of the time", flush=True)
    count, size = len(lent.nodes), f"{seconds:g} s"
    return [report.row("pi weighted numba", size, count, found["together"], UNIT, "one", found["one"]),
            report.row("pi weighted numba", size, count, found["together"], UNIT, "summed", found["summed"]),
            report.row("pi slowed numba", size, count, found["slowed"], UNIT, "summed", found["averaged"])]


def wrong(rows):
    """What is slower than sampling has to be.

    Parameters
    ----------
    rows : list of dict, from ``report.row``

    Returns
    -------
    list of str, a sentence each
    """
    return [f"{row['what']} reaches {row['ratio']:.2f} of {row['against']}: must be >= {bar}" for row in rows
            if (bar := BARS.get((row["what"], row["against"]))) and row["ratio"] < bar]


def _part(row):
    """The part of the benchmark that a row is of."""
    if row["what"].startswith("pool"):
        return "pool"
    return "kernels" if row["against"] == "c" else "ranks" if row["ranks"] == 2 else "lab"


def main(argv=None):
    """Measure and publish; returns 1 where something is slower than it has to be.

    Parameters
    ----------
    argv : list of str, instead of the process's own arguments
    """
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=7, help="of each measurement, interleaved; of the lab's, 3")
    parser.add_argument("--samples", type=int, default=10**9, help="of pi, a rank")
    parser.add_argument("--seconds", type=float, default=30.0, help="of a run in the lab")
    parser.add_argument("--only", choices=PARTS, help="one part; what is published of the others stays")
    options = parser.parse_args(argv)
    parts = {"kernels": lambda: kernels(options.repeats), "ranks": lambda: ranks(options.repeats, options.samples),
             "pool": lambda: pool.rows(options.repeats), "lab": lambda: lab(min(options.repeats, 3), options.seconds)}
    kept = report.last("montecarlo").get("rows", []) if options.only else []
    rows = []
    for part, measure in parts.items():
        asked = options.only in (None, part)
        rows += measure() if asked else [row for row in kept if _part(row) == part]
    report.publish("montecarlo", rows)
    said = wrong(rows)
    for line in said:
        print(f"bench-montecarlo: {line}", file=sys.stderr)
    return 1 if said else 0


if __name__ == "__main__":
    sys.exit(main())
