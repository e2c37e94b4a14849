"""LU and products on the five hosts of a lab: blocks by speed beside equal ones, and beside what each host does alone."""

import re

from brmpi.bench import report

KINDS = {"lu": ("brmpi.linalg.hpl", re.compile(r"^W[RC]\d.*\s(\S+)$", re.M), "PASSED"),
         "matmul": ("brmpi.bench.multiply", re.compile(r"(\S+) GFLOP/s$", re.M), "GFLOP/s")}
BARS = {("weighted", "equal"): 1.6, ("equal", "limit"): 0.85, ("weighted", "summed"): 0.8}
UNIT = "flop/s"


def rates(ask, kind, n, nb, launcher=("brmpi", "run"), shares="speed"):
    """Speed of one run.

    Parameters
    ----------
    ask : callable of the words of a command, returning what it prints
    kind : "lu" or "matmul"
    n, nb : int
    launcher : sequence of str, what goes before the module
    shares : "speed" or "equal"

    Returns
    -------
    float [flop/s]

    Raises
    ------
    Fault : it failed, or its residual is too large
    """
    module, pattern, _ = KINDS[kind]
    said = ask(*launcher, module, "--n", str(n), "--nb", str(nb), "--shares", shares)
    return 1e9 * float(pattern.findall(said)[-1])


def rows(asked, nodes, start, n, nb, repeats):
    """Rows of both kinds of work.

    Parameters
    ----------
    asked : callable of a node and the words of a command, returning what it prints there
    nodes : sequence of str
    start : str, the node where jobs are started
    n, nb : int, of five nodes; one node alone has n / 2, as much work in as much time, about
    repeats : int, each of all measurements in turn

    Returns
    -------
    list of dict, from ``report.row``
    """
    found = []
    for kind in KINDS:
        weighted, equal, summed, limit = [], [], [], []
        for _ in range(repeats):
            alone = [rates(lambda *words, node=node: asked(node, *words), kind, n // 2, nb, ("python", "-m"))
                     for node in nodes]
            summed.append(sum(alone))
            limit.append(len(nodes) * min(alone))
            weighted.append(rates(lambda *words: asked(start, *words), kind, n, nb))
            equal.append(rates(lambda *words: asked(start, *words), kind, n, nb, shares="equal"))
        for variant, values, against, references in (
                ("weighted", weighted, "equal", equal), ("weighted", weighted, "summed", summed),
                ("equal", equal, "limit", limit)):
            found.append(report.row(f"{kind} {variant} blas", n, len(nodes), values, UNIT, against, references))
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
