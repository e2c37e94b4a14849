"""LU and products on the hosts of a lab: blocks by speed beside equal ones, and beside what each host does alone."""

import re

from brmpi.bench import report

KINDS = {"lu": ("brmpi.linalg.hpl", re.compile(r"^W[RC]\d.* (\S+)$", re.M), 1.0),
         "matmul": ("brmpi.bench.multiply", re.compile(r"(\S+) GFLOP/s$", re.M), 0.75)}  # and n, beside LU's
ALONE = 1 / 3  # n of one node, beside that of five: a part in as much time
BARS = {("weighted", "equal"): 1.6, ("equal", "limit"): 0.85, ("weighted", "summed"): 0.8}
UNIT = "flop/s"


def rate(ask, kind, n, nb, shares="speed", on=()):
    """Speed of one run.

    Parameters
    ----------
    ask : callable of the words of a command, returning what it prints
    kind : "lu" or "matmul"
    n, nb : int
    shares : "speed" or "equal"
    on : words of ``brmpi run`` that say where; all nodes, if none

    Returns
    -------
    float [flop/s]

    Raises
    ------
    Fault : it failed, or its residual is too large
    """
    module, pattern, _ = KINDS[kind]
    said = ask("brmpi", "run", *on, module, "--n", str(n), "--nb", str(nb), "--shares", shares)
    return 1e9 * float(pattern.findall(said)[-1])


def rows(ask, nodes, n, nb, repeats):
    """Rows of both kinds of work.

    Parameters
    ----------
    ask : callable of the words of a command, returning what it prints
    nodes : sequence of str
    n, nb : int, of LU on all nodes
    repeats : int, of all measurements in turn

    Returns
    -------
    list of dict, from ``report.row``
    """
    found = []
    for kind, (_, _, part) in KINDS.items():
        size = round(n * part)
        weighted, equal, summed, limit = [], [], [], []
        for _ in range(repeats):
            alone = [rate(ask, kind, round(size * ALONE), nb, on=("--on", node)) for node in nodes]
            summed.append(sum(alone))
            limit.append(len(nodes) * min(alone))
            weighted.append(rate(ask, kind, size, nb))
            equal.append(rate(ask, kind, size, nb, "equal"))
            singles = ", ".join(f"{node} {1e-9 * one:.3g}" for node, one in zip(nodes, alone))
            print(f"{kind} alone: {singles}; together by speed {1e-9 * weighted[-1]:.3g}, equal {1e-9 * equal[-1]:.3g} "
                  "GFLOP/s", flush=True)
        for variant, values, against, references in (
                ("weighted", weighted, "equal", equal), ("weighted", weighted, "summed", summed),
                ("equal", equal, "limit", limit)):
            found.append(report.row(f"{kind} {variant} blas", size, len(nodes), values, UNIT, against, references))
    return found


def wrong(found):
    """What is below what blocks by speed are there for.

    Parameters
    ----------
    found : list of dict, from ``rows``

    Returns
    -------
    list of str, a sentence each
    """
    said = []
    for row in found:
        kind, variant, _ = row["what"].split()
        bar = BARS.get((variant, row["against"]))
        if kind in KINDS and bar and row["ratio"] < bar:
            said.append(f"{row['what']} reaches {row['ratio']:.2f} of {row['against']}: must be >= {bar}")
    return said
