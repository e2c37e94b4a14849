"""One form for all benchmarks: rows of what was measured beside what, the machine, the commit."""

import json
import math
import os
import statistics
from datetime import UTC, datetime
from pathlib import Path

from brmpi.cluster import atomic, probe, table
from brmpi.results import provenance

RESULTS = Path("bench/results")
SETTINGS = ("OPENBLAS_CORETYPE", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def row(what, size, ranks, values, unit, against, references):
    """One comparison, from runs that were interleaved.

    Parameters
    ----------
    what : str, ``<program or kernel> <variant> <backend>``
    size : int or str
    ranks : int
    values : sequence of float; more is better
    unit : str, of values and references
    against : str, one word: what the references are
    references : sequence of float, as many, each measured right beside its value

    Returns
    -------
    dict: ``value`` and ``reference`` are medians, ``ratio`` the median of the ratios of neighbours in time, ``spread``
    the distance of the ratios' quartiles as a fraction of it
    """
    ratios = [value / reference for value, reference in zip(values, references)]
    ratio = statistics.median(ratios)
    low, _, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return {"what": what, "size": size, "ranks": ranks, "value": statistics.median(values), "unit": unit,
            "against": against, "reference": statistics.median(references), "ratio": ratio,
            "spread": (high - low) / ratio}


def power(size):
    """A size for people: "2^20".

    Parameters
    ----------
    size : number > 0

    Returns
    -------
    str
    """
    return f"2^{round(math.log2(size))}"


def machine():
    """What the numbers were measured on, null where it cannot be told.

    Returns
    -------
    dict
    """
    asked = {"cpu": probe.cpu, "cores": probe.cores, "memory": probe.ram, "mpi": probe.mpi, "blas": probe.blas}
    facts = {name: probe.guarded(ask)[0] for name, ask in asked.items()}
    return facts | {"environment": {name: os.environ.get(name) for name in SETTINGS}}


def publish(name, rows, **further):
    """Print a benchmark's table, write its JSON, and all benchmarks' tables into ``bench/README.md``.

    Parameters
    ----------
    name : str, of the benchmark
    rows : list of dict, from ``row``
    **further : what else the JSON is to hold
    """
    found = {"machine": machine(), "time": datetime.now(UTC).isoformat(timespec="seconds"),
             "commit": provenance.commit(), "rows": rows, **further}
    cells = [_cells(entry) for entry in rows]
    table.show({heading: "left" if heading in ("what", "unit", "against") else "right" for heading in HEADINGS}, cells)
    RESULTS.mkdir(parents=True, exist_ok=True)
    atomic.write(RESULTS / f"{name}.json", json.dumps(found, indent=1) + "\n")
    atomic.write(RESULTS.parent / "README.md", render())


def last(name):
    """What was published of a benchmark.

    Parameters
    ----------
    name : str

    Returns
    -------
    dict; empty, if nothing was
    """
    try:
        return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}


HEADINGS = ("what", "size", "ranks", "value", "unit", "against", "reference", "ratio", "spread")


def _cells(entry):
    numbers = {"value": f"{entry['value']:.3g}", "reference": f"{entry['reference']:.3g}",
               "ratio": f"{entry['ratio']:.2f}", "spread": f"{100 * entry['spread']:.1f} %"}
    return [str(numbers.get(heading, entry[heading])) for heading in HEADINGS]


def fault(trial):
    """A fault's row of a table.

    Parameters
    ----------
    trial : dict, from ``faults.trial``

    Returns
    -------
    list of str
    """
    return [trial["fault"], str(trial["code"]), f"{trial['seconds']:.1f}", str(sum(trial["left"].values())),
            "yes" if trial["same"] else "NO"]


def render():
    """Markdown of every benchmark that has a result.

    Returns
    -------
    str
    """
    parts = ["# Benchmarks\n\nThe last runs. *Ratio* is value over reference, more is better; "
             "*spread* is the distance between the quartiles of the ratios, as a share of their median. Machines are "
             "noisy: compare ratios, not values.\n"]
    for file in sorted(RESULTS.glob("*.json")):
        found = json.loads(file.read_text(encoding="utf-8"))
        where = found["machine"]
        mpi = " ".join((where["mpi"] or {}).values()) or "no MPI"
        settings = ", ".join(f"{name}={value}" for name, value in where["environment"].items() if value) or "none"
        parts.append(f"## {file.stem}: `make bench-{file.stem}`\n\n{where['cpu']}, "
                     f"{(where['cores'] or {}).get('usable', '?')} cores, {mpi}, environment: {settings}; "
                     f"{found['time'][:10]}, commit {(found['commit'] or 'unknown')[:10]}\n")
        parts.append("| " + " | ".join(HEADINGS) + " |\n|" + " --- |" * len(HEADINGS) + "\n"
                     + "".join("| " + " | ".join(_cells(entry)) + " |\n" for entry in found["rows"]))
        if "faults" in found:
            parts.append("Faults under `brmpi run` on the five hosts, and after `--restart`:\n")
            parts.append("| fault | exit code | seconds to the end | processes left | the same bits |\n|" + " --- |" * 5
                         + "\n" + "".join("| " + " | ".join(fault(trial)) + " |\n" for trial in found["faults"]))
    return "\n".join(parts)
