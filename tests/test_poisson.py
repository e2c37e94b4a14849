"""Poisson's equation: known solutions at second order, any ranks within the tolerance, what PETSc lacks is told."""

import functools
import importlib.util
from pathlib import Path

import numpy as np
import pytest
from conftest import made

from brmpi.errors import BadInput
from brmpi.sims import poisson

ROOT = Path(__file__).parents[1]
simulation = functools.partial(made, poisson.Poisson)


def lacking():
    return "" if importlib.util.find_spec("petsc4py") else "petsc4py is not installed"


PETSC = pytest.mark.skipif(bool(lacking()), reason=lacking() or "-")


@PETSC
@pytest.mark.parametrize("ends", [
    ("dirichlet", "dirichlet"), ("periodic", "dirichlet"), ("neumann", "periodic"), ("periodic", "periodic"),
    ("neumann", "neumann"), ("neumann", "dirichlet", "periodic")], ids=str)
@pytest.mark.parametrize("swing", [0.0, 0.7])
def test_a_known_solution_at_second_order(alone, ends, swing):
    errors = []
    for n in (8, 16, 32):
        run = simulation(alone, cells=(n, n, n)[: len(ends)], size=(1.0, 0.8, 1.2)[: len(ends)], ends=ends,
                         waves=(2, 1, 1)[: len(ends)], swing=swing)
        run.step()
        row = run.sample()
        assert row["residual"] <= 2e-10 and 0 < row["iterations"] < 60
        errors.append(row["error"])
    slopes = np.diff(np.log(errors)) / np.log(0.5)
    assert (abs(slopes - 2) < 0.35).all() and abs(slopes[-1] - 2) < 0.15, slopes


@PETSC
@pytest.mark.parametrize("solver", ["gamg", "hypre"])
def test_solvers_agree(alone, solver):
    one, other = simulation(alone, cells=(40, 30)), None
    try:
        other = simulation(alone, cells=(40, 30), solver=solver)
    except BadInput as lack:
        assert "gamg always works" in str(lack)
        return
    one.step()
    other.step()
    assert np.allclose(one.u, other.u, rtol=0, atol=1e-9)


@pytest.mark.mpi
@PETSC
@pytest.mark.parametrize("keys", [
    {"cells": (37, 21)}, {"cells": (2, 3)}, {"cells": (20, 16), "ends": ("periodic", "neumann")},
    {"cells": (9, 8, 7), "ends": ("dirichlet", "periodic", "neumann"), "size": (1.0,) * 3, "waves": (1, 1, 1)},
], ids=str)
def test_any_ranks_within_the_tolerance(comm, assert_all, keys):
    from mpi4py import MPI

    one, many = simulation(MPI.COMM_SELF, **keys), simulation(comm, **keys)
    one.step()
    many.step()
    here = tuple(slice(first, end) for first, end in many.grid.box)
    assert_all(np.allclose(many.grid.inside(many.u), one.grid.inside(one.u)[here], rtol=0, atol=1e-8))
    found, told = many.sample(), one.sample()
    assert_all(abs(found["error"] - told["error"]) < 1e-8, f"{found} {told}")


@pytest.mark.parametrize(("arguments", "words"), [
    (("--set", "cells=[4]"), "cells has 1 values: must be 2 or 3"),
    (("--set", "size=[1,1,1]"), "size has 3 values: must be 2, as many as cells"),
    (("--set", 'ends=["neumann","neumann"]', "--set", "waves=[0,0]"), "waves are all 0: a constant has no source"),
    (("--set", "swing=1"), "swing = 1: must be <= 0.99")])
def test_bad_input(launch, arguments, words):
    done = launch(2, "-m", "brmpi.sims.poisson", *arguments)
    assert done.returncode == 2 and done.stderr.count(words) == 1, done.stderr


def test_without_petsc_it_says_what_to_install(launch, tmp_path):
    (tmp_path / "petsc4py.py").write_text("raise ImportError('no PETSc here')\n")
    done = launch(2, "-m", "brmpi.sims.poisson", PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert done.returncode == 2 and done.stderr.count("needs petsc4py") == 1, done.stderr


@PETSC
@pytest.mark.parametrize("name", [file.stem for file in sorted((ROOT / "sims/poisson").glob("*.toml"))])
def test_cases_run_and_are_drawn(launch, name):
    done = launch(2, "-m", "brmpi.sims.poisson", ROOT / f"sims/poisson/{name}.toml", "--out", "run")
    assert done.returncode == 0 and "unknowns/s" in done.stdout, done.stderr
    for words in (("plot", "run"), ("show", "run")):
        done = launch(0, "-m", "brmpi", *words)
        assert done.returncode == 0, done.stderr
