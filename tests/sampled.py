"""Estimates of sampling programs within a test, without a folder."""

import json

import numpy as np
from conftest import made
from scipy import stats

from brmpi.results import diagnostics


def estimates(kind, comm, samples, /, **keys):
    """A program, and its estimates and errors after some samples of whole blocks, on one rank."""
    program = made(kind, comm, **keys)
    program.prepare()
    total = np.zeros(program.estimator.width)
    for first in range(0, samples, program.case.block):
        total += program.estimator.block(first, min(program.case.block, samples - first))
    return program, *program.estimator.estimates(total)


def off(kind, comm, samples, /, **keys):
    """How many standard errors each quantity is off its exact value, by name."""
    program, values, errors = estimates(kind, comm, samples, **keys)
    exact = program.exact()
    return {name: (value - exact[name]) / error for name, value, error in zip(program.quantities, values, errors)
            if name in exact}


def normal(scores, freedom=None):
    """The p-value of Kolmogorov and Smirnov's test of scores against the normal, or Student's distribution."""
    law = stats.norm if freedom is None else stats.t(freedom)
    return stats.kstest(scores, law.cdf).pvalue


def told(folder):
    """What depends on nothing but the case: estimates of run.json, rows of diagnostics, the last checkpoint's bytes."""
    rows = diagnostics.read(folder / "diagnostics.h5")
    kept = sorted((folder / "checkpoints").iterdir())[-1]
    return (json.loads((folder / "run.json").read_text())["estimates"],
            {name: values.tobytes() for name, values in rows.items() if not name.startswith("wall/")},
            kept.name, kept.read_bytes())
