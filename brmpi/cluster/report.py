"""What ``brmpi doctor`` found, for people and for programs."""

import shutil
import sys
import textwrap
from dataclasses import asdict

from brmpi.cluster import table, words

SHORT = {"no answer": "silent", "another computer answers": "other"}  # reasons, as they fit into a cell


def verdict(found):
    """The last line.

    Parameters
    ----------
    found : dict, as from ``doctor.examine``

    Returns
    -------
    str
    """
    errors = sum(one.severity == "error" for one in found["findings"])
    warnings = len(found["findings"]) - errors
    if errors:
        return f"Jobs cannot run: {errors} thing{'s' * (errors > 1)} to mend."
    tail = f" {warnings} thing{'s' * (warnings > 1)} could be better." if warnings else ""
    return ("Jobs can run." if found["pinged"] else "Jobs can run, as far as can be told without starting one.") + tail


def plain(found):
    """The same for programs.

    Parameters
    ----------
    found : dict, as from ``doctor.examine``

    Returns
    -------
    dict, of what JSON can hold
    """
    nodes = [{"name": node.name, "address": node.address, "facts": found["facts"].get(node.name)}
             for node in found["nodes"]]
    pairs = [{"from": a, "to": b, **tried} for (a, b), tried in found["pairs"].items()]
    return {"can_run": found["can_run"], "verdict": verdict(found), "nodes": nodes, "pairs": pairs,
            "findings": [asdict(one) for one in found["findings"]], "seconds": round(found["seconds"], 2)}


def show(found, file=None):
    """Print the table of nodes, findings with how to mend them, the matrix of pairs and the verdict.

    Parameters
    ----------
    found : dict, as from ``doctor.examine``
    file : text file, standard output if not given
    """
    file = file or sys.stdout
    width = min(shutil.get_terminal_size().columns, 120) if file.isatty() else 100
    sides = {"node": "left", "": "left", "MPI": "left", "Python": "left", "brmpi": "left", "arch": "left",
             "clock": "right", "free": "right", "°C": "right"}
    table.show(sides, [_row(node, found) for node in found["nodes"]], file=file)
    for one in found["findings"]:
        said = f"{one.severity.capitalize()}: {one.says}. [{one.code}]"
        lines = textwrap.wrap(said, width, break_long_words=False, break_on_hyphens=False)
        print("", *lines, f"    {one.fix}", sep="\n", file=file)
    _matrix(found, file)
    print(f"\n{verdict(found)} ({found['seconds']:.0f} s)", file=file)


def _row(node, found):
    about = [one for one in found["findings"] if node.name in one.nodes]
    mark = "✗" if any(one.severity == "error" for one in about) else "!" if about else "✓"
    facts = found["facts"].get(node.name)
    if facts is None:
        return [node.name, mark, about[0].code if about else "-", *["-"] * 6]
    package, python, heat = facts.get("brmpi"), facts.get("python"), facts.get("temperature")
    home = next(iter((facts.get("disks") or {}).values()), None)
    offset = (facts.get("clock") or {}).get("offset")
    return [node.name, mark, words.mpi({"mpi": (facts.get("mpi") or {}).get("library")}),
            python["version"] if python else "-", package["version"] if package else "none",
            facts.get("architecture") or "-", "-" if offset is None else f"{round(offset):+,} ms",
            "-" if home is None else f"{home['free'] / 2**30:.0f} GiB", "-" if heat is None else f"{heat:.0f}"]


def _matrix(found, file):
    """Latency and bandwidth from each node (row) to each (column), or why there is none."""
    names = [node.name for node in found["nodes"]]
    if len(names) < 2:
        for (a, _), tried in found["pairs"].items():
            if tried.get("latency") is not None:
                print(f"\nTwo ranks on {a}: {tried['latency']:.1f} µs for 8 B at least, "
                      f"{tried['bandwidth']:,.0f} MB/s in 1 MiB", file=file)
        return
    rows = [[a, *("" if a == b else _cell(found, a, b) for b in names)] for a in names]
    unit = ": least µs for 8 B / median MB/s in 1 MiB" if found["pinged"] else ""
    print(f"\nFrom row to column{unit}\n", file=file)
    table.show({"": "left", **dict.fromkeys(names, "right")}, rows, file=file)


def _cell(found, a, b):
    tried = found["pairs"].get((a, b))
    if tried is None:
        return "-"
    if tried.get("port") is not None:
        return SHORT.get(tried["port"], tried["port"])
    if tried.get("latency") is not None:
        return f"{tried['latency']:.0f} / {tried['bandwidth']:.0f}"
    return "no MPI" if tried.get("failed") else "reached"
