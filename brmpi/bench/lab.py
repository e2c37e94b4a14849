"""``make bench-lab``: five hosts of a lab beside octavia alone, shares by speed beside equal ones, and every fault.

The hosts are held to shares of a core, so that five nodes can really be faster than one on a machine of two cores.
"""

import argparse
import re
import sys
import tempfile
from pathlib import Path

from brmpi import speeds
from brmpi.bench import faults, labalgebra, report
from brmpi.cluster import table
from brmpi.cluster.lab import Lab
from brmpi.errors import Fault

INVENTORY = Path("hostfiles/blackroad.toml")
ALONE = "octavia"
PARTS = ("nbody", "algebra", "faults")
UNIT = "interactions/s"
LEAST = 0.85  # of the summed speeds, that shares by speed must reach


def ask(lab, node, *command):
    """Standard output of a command on a host.

    Parameters
    ----------
    lab : Lab
    node : str
    *command : str

    Returns
    -------
    str

    Raises
    ------
    Fault : it failed
    """
    done = lab.run(node, command, timeout=600)
    if done.returncode:
        raise Fault(f"{node}: {' '.join(command)} failed: {done.stderr[-2000:]}")
    return done.stdout


def rate(lab, node, launcher, n, steps, shares="speed"):
    """Interactions per second of the N-body program.

    Parameters
    ----------
    lab : Lab
    node : str, where the job is started
    launcher : list of str, what goes before the program's own arguments
    n, steps : int
    shares : "speed" or "equal"

    Returns
    -------
    float
    """
    keys = {"n": n, "steps": steps, "sample": steps, "checkpoint": 1e6, "shares": shares}
    words = [word for key, value in keys.items() for word in ("--set", f"{key}={value}")]
    said = ask(lab, node, *launcher, *words, "--out", "/shared/bench", "--overwrite")
    return float(re.search(r"steps in .* ranks?, (\S+) interactions/s", said).group(1))


def speed(lab, n, steps, repeats):
    """Rows of the whole cluster beside octavia alone.

    Parameters
    ----------
    lab : Lab
    n, steps, repeats : int

    Returns
    -------
    list of dict, from ``report.row``
    """
    probes = speeds.records(lab.state / "hostfiles")
    measured = {name: speeds.value(probe, "gravity") for name, probe in probes.items()}
    limit = sum(measured.values()) / measured[ALONE]

    one = {ranks: ["brmpi", "run", "nbody", "--on", ALONE, "-n", str(ranks)] for ranks in (1, 2, 4)}
    trials = {ranks: rate(lab, ALONE, launcher, n, steps) for ranks, launcher in one.items()}
    best = max(trials, key=trials.get)
    print(f"{ALONE} alone, by ranks: {', '.join(f'{ranks}: {found:.3g}' for ranks, found in trials.items())} {UNIT}; "
          f"summed speeds allow {limit:.2f} x")
    plain = ["mpirun", "-hostfile", "hostfiles/all", "python", "-m", "brmpi.sims.nbody"]
    run = ["brmpi", "run", "nbody"]
    found = {"one": [], "equal": [], "weighted": [], "plain": []}
    for _ in range(repeats):
        found["one"].append(rate(lab, ALONE, one[best], n, steps))
        found["weighted"].append(rate(lab, faults.START, run, n, steps))
        found["equal"].append(rate(lab, faults.START, run, n, steps, "equal"))
        found["plain"].append(rate(lab, faults.START, plain, n, steps))
    ranks, summed = len(probes), [limit * alone for alone in found["one"]]
    return [report.row("nbody weighted numba", n, ranks, found["weighted"], UNIT, "one", found["one"]),
            report.row("nbody weighted numba", n, ranks, found["weighted"], UNIT, "summed", summed),
            report.row("nbody weighted numba", n, ranks, found["weighted"], UNIT, "equal", found["equal"]),
            report.row("nbody equal numba", n, ranks, found["equal"], UNIT, "one", found["one"]),
            report.row("nbody mpirun numba", n, ranks, found["plain"], UNIT, "one", found["one"])]


def table_of_faults(lab):
    """Every fault, once.

    Parameters
    ----------
    lab : Lab

    Returns
    -------
    list of dict, from ``faults.trial``
    """
    held = lab.limits()
    for node in held:
        lab.cpu(node, None)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        faults.reference(Path(folder, "run"))
        for name in faults.FAULTS:
            found.append(faults.trial(lab, name, Path(folder, "run")))
            found[-1].pop("said")
    for node, limits in held.items():
        lab.cpu(node, limits["cpu"])
    return found


def _part(row):
    """The part of the benchmark that a row is of."""
    return "nbody" if row["what"].startswith("nbody") else "algebra"


def main(argv=None):
    """Measure and publish; returns 1 where something is not as docs/launch.md promises.

    Parameters
    ----------
    argv : list of str, instead of the process's own arguments
    """
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--bodies", type=int, default=16384)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3, help="of each measurement, interleaved")
    parser.add_argument("--equations", type=int, default=12000, help="of LU; products are 0.75 times as large")
    parser.add_argument("--nb", type=int, default=128, help="of a block, in LU and products")
    parser.add_argument("--only", choices=PARTS, help="one part; what is published of the others stays")
    options = parser.parse_args(argv)
    parts = [options.only] if options.only else PARTS
    before = report.last("lab")
    rows = [row for row in before.get("rows", ()) if options.only and _part(row) not in parts]
    trials = before.get("faults", [])
    with Lab(INVENTORY, "bench") as lab:
        print(ask(lab, faults.START, "brmpi", "probe"), ask(lab, faults.START, "brmpi", "hostfiles").splitlines()[0])
        if "nbody" in parts:
            rows = speed(lab, options.bodies, options.steps, options.repeats) + rows
        if "algebra" in parts:
            nodes = list(speeds.records(lab.state / "hostfiles"))
            rows += labalgebra.rows(lambda *words: ask(lab, faults.START, *words), nodes, options.equations, options.nb,
                                    options.repeats)
        if "faults" in parts:
            trials = table_of_faults(lab)
    report.publish("lab", rows, faults=trials)
    table.show({"fault": "left", "exit code": "right", "seconds": "right", "left alive": "right", "same bits": "right"},
               [report.fault(trial) for trial in trials])
    wrong = [f"{trial['fault']}: not as it should be" for trial in trials
             if trial["left"] or not (trial["right"] and trial["same"])]
    reached = [row["ratio"] for row in rows if row["against"] == "summed" and _part(row) == "nbody"]
    if reached and reached[0] < LEAST:
        wrong.append(f"five nodes reach {reached[0]:.2f} of their summed speeds: must be >= {LEAST}")
    wrong += labalgebra.wrong(rows)
    for line in wrong:
        print(f"bench-lab: {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
