"""Heat conduction: modes that decay, orders of convergence, conserved heat, any ranks the same bits, bad input."""

import dataclasses
import functools
import importlib.util
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from conftest import made

from brmpi import speeds
from brmpi.results import snapshots
from brmpi.sims import heat

ROOT = Path(__file__).parents[1]
simulation = functools.partial(made, heat.Heat)


def lacking():
    return "" if importlib.util.find_spec("petsc4py") else "petsc4py is not installed"


PETSC = pytest.mark.skipif(bool(lacking()), reason=lacking() or "-")
SCHEMES = ["explicit", pytest.param("crank-nicolson", marks=PETSC)]


def inside(run):
    return run.grid.inside(run.u).copy()


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("ends", [("periodic", "dirichlet"), ("neumann", "periodic"), ("dirichlet", "neumann"),
                                  ("dirichlet", "periodic", "neumann")], ids=str)
def test_a_mode_decays_by_its_factor(alone, scheme, ends):
    """Each step multiplies a mode of the discrete operator by one number, which theory gives."""
    d, n = len(ends), (12, 10, 8)
    case = {"cells": n[:d], "size": (1.0, 0.8, 1.3)[:d], "ends": ends, "waves": (1, 2, 1)[:d], "diffusivity": 0.7}
    dt = heat.stable(0.7, [length / cells for length, cells in zip(case["size"], case["cells"])])
    run = simulation(alone, scheme=scheme, dt=dt, tolerance=1e-13, **case)
    start = inside(run)
    rate = 0.0  # eigenvalue of the operator
    for kind, cells, length, waves in zip(ends, *(case[key] for key in ("cells", "size", "waves"))):
        angle = np.pi * waves / cells * (2 if kind == "periodic" else 1)
        rate -= 0.7 * (2 - 2 * np.cos(angle)) * (cells / length) ** 2
    factor = 1 + dt * rate if scheme == "explicit" else (1 + dt * rate / 2) / (1 - dt * rate / 2)
    for step in range(1, 6):
        run.step()
        np.testing.assert_allclose(inside(run), factor**step * start, rtol=0, atol=1e-11)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_order_of_convergence(alone, scheme):
    """Against exp(-rate t): explicit with dt ~ dx^2, Crank-Nicolson with dt ~ dx; both of second order in dx."""
    errors = []
    for n in (8, 16, 32):
        steps = n**2 // 8 if scheme == "explicit" else n // 2  # to t = 0.025
        run = simulation(alone, cells=(n, n), ends=("dirichlet", "neumann"), waves=(1, 1), scheme=scheme,
                         dt=0.025 / steps, tolerance=1e-12)
        exact = np.exp(-2 * np.pi**2 * 0.025) * inside(run)
        for _ in range(steps):
            run.step()
        errors.append(abs(inside(run) - exact).max())
    slopes = np.diff(np.log(errors)) / np.log(0.5)
    assert (abs(slopes - 2) < 0.15).all(), slopes


@PETSC
def test_crank_nicolson_is_of_second_order_in_time(alone):
    ends = []
    for steps in (4, 8, 16, 256):
        run = simulation(alone, cells=(16, 16), initial="gaussian", width=0.2, scheme="crank-nicolson",
                         dt=0.02 / steps, tolerance=1e-13)
        for _ in range(steps):
            run.step()
        ends.append(inside(run))
    errors = [abs(one - ends[-1]).max() for one in ends[:3]]
    slopes = np.diff(np.log(errors)) / np.log(0.5)
    assert (abs(slopes - 2) < 0.2).all(), slopes


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("material", ["uniform", "layers", "inclusion"])
@pytest.mark.parametrize("end", ["periodic", "neumann"])
def test_heat_is_conserved_and_extremes_shrink(alone, scheme, material, end):
    run = simulation(alone, cells=(20, 24), ends=(end, end), material=material, initial="disc", scheme=scheme,
                     dt=2e-5, contrast=10.0, tolerance=1e-13)
    before = run.sample()
    for _ in range(30):
        run.step()
    after = run.sample()
    assert after["heat"] == pytest.approx(before["heat"], rel=1e-11)
    assert after["highest"] < before["highest"] and after["lowest"] >= before["lowest"] - 1e-12
    assert after["rms"] < before["rms"]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_steady_state_between_two_materials(alone, scheme):
    """Temperatures 1 and 0 at the ends of layers in series: the flow is the same through all, by the harmonic mean."""
    run = simulation(alone, cells=(2, 16), size=(1.0, 1.0), ends=("periodic", "dirichlet"), values=(0, 0, 1.0, 0.0),
                     material="layers", contrast=4.0, scheme=scheme, dt=4e-4 if scheme == "explicit" else 5e-3,
                     tolerance=1e-13)
    for _ in range(6000 if scheme == "explicit" else 800):
        run.step()
    u, k = inside(run)[:, 0], run.grid.inside(run.k)[:, 0]
    faces = 2 * k[1:] * k[:-1] / (k[1:] + k[:-1])
    flow = -faces * np.diff(u) * 16
    resistance = (1 / k).sum() / 16
    np.testing.assert_allclose(flow, 1 / resistance, rtol=1e-8)


@PETSC
def test_both_schemes_come_to_the_same(alone):
    ends = []
    for scheme, steps in (("explicit", 1600), ("crank-nicolson", 100)):
        run = simulation(alone, cells=(16, 12, 8), size=(1.0, 1.0, 1.0), ends=("dirichlet", "neumann", "periodic"),
                         values=(1.0, 0.2, 0.5, -0.3, 0, 0), material="inclusion", contrast=3.0, initial="gaussian",
                         width=0.2, scheme=scheme, dt=0.04 / steps, tolerance=1e-12)
        for _ in range(steps):
            run.step()
        ends.append(inside(run))
    assert abs(ends[0] - ends[1]).max() < 2e-4


@pytest.mark.mpi
@pytest.mark.parametrize("cells", [(37, 23), (9, 14, 11), (3, 2), (1, 1)], ids=str)
@pytest.mark.parametrize("material", ["uniform", "inclusion"])
@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_any_ranks_and_shares_give_the_same_bits(comm, assert_all, monkeypatch, cells, material, backend):
    from mpi4py import MPI

    d = len(cells)
    keys = {"cells": cells, "size": (1.0,) * d, "initial": "noise", "material": material, "dt": 1e-5,
            "ends": ("dirichlet", "neumann", "periodic")[:d], "values": (1.0, 2.0, 3.0, 4.0, 0.0, 0.0)[: 2 * d]}
    one = simulation(MPI.COMM_SELF, backend, **keys)
    many = [simulation(comm, backend, **keys)]
    for trial in range(2):
        uneven = np.random.default_rng(trial).uniform(0.2, 3, comm.size)
        monkeypatch.setattr(speeds, "measured", lambda comm, kind, uneven=uneven: (uneven, kind))
        many.append(simulation(comm, backend, **keys))
    for _ in range(5):
        one.step()
    expected, told = one.grid.inside(one.u), one.sample()
    for run in many:
        for _ in range(5):
            run.step()
        here = tuple(slice(first, end) for first, end in run.grid.box)
        assert_all(run.grid.inside(run.u).tobytes() == expected[here].tobytes(), "temperatures")
        found = run.sample()
        assert_all(found == told, f"{found} {told}")


@pytest.mark.mpi
@PETSC
def test_implicit_on_any_ranks_within_the_tolerance(comm, assert_all):
    from mpi4py import MPI

    keys = {"cells": (21, 17), "ends": ("dirichlet", "periodic"), "values": (1.0, 0.0, 0.0, 0.0), "initial": "noise",
            "material": "inclusion", "scheme": "crank-nicolson", "dt": 1e-3, "tolerance": 1e-12}
    one, many = simulation(MPI.COMM_SELF, **keys), simulation(comm, **keys)
    for _ in range(4):
        one.step()
        many.step()
    here = tuple(slice(first, end) for first, end in many.grid.box)
    assert_all(np.allclose(many.grid.inside(many.u), one.grid.inside(one.u)[here], rtol=0, atol=1e-9))


@pytest.mark.parametrize(("arguments", "words"), [
    (("--set", "cells=[64,64]", "--set", "dt=0.1"), "dt = 0.1: must be <= 6.10352e-05 for the explicit scheme"),
    (("--set", "cells=[4]"), "cells has 1 values: must be 2 or 3"),
    (("--set", "cells=[0,4]"), "cells[0] = 0: must be >= 1"),
    (("--set", 'ends=["periodic","open"]'), "ends[1] = 'open': must be one of periodic, dirichlet, neumann"),
    (("--set", 'ends=["periodic","periodic","neumann"]'), "ends has 3 values: must be 2, as many as cells"),
    (("--set", "values=[1,0]"), "values has 2 values: must be 4, two for each axis"),
    (("--set", "values=[1,0,0,0]"), "values along x are (1.0, 0.0): a periodic axis has no ends")])
def test_bad_input(launch, arguments, words):
    done = launch(2, "-m", "brmpi.sims.heat", *arguments)
    assert done.returncode == 2 and done.stderr.count(words) == 1, done.stderr


def test_without_petsc_it_says_what_to_install(launch, tmp_path):
    (tmp_path / "petsc4py.py").write_text("raise ImportError('no PETSc here')\n")
    done = launch(2, "-m", "brmpi.sims.heat", "--set", "scheme=crank-nicolson", PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert done.returncode == 2 and done.stderr.count("needs petsc4py") == 1, done.stderr
    assert "apt-get install python3-petsc4py petsc-dev" in done.stderr


@pytest.mark.parametrize("ranks", [0, 5])
def test_a_run_and_its_restart(launch, tmp_path, ranks):
    """Stopped half way and gone on with on other ranks, the files are those of a run that never stopped."""
    words = ["-m", "brmpi.sims.heat", "--set", "cells=[40,30]", "--set", "every=5", "--quiet"]
    assert launch(0, *words, "--steps", 20, "--out", "whole").returncode == 0
    assert launch(ranks, *words, "--steps", 10, "--out", "cut").returncode == 0
    done = launch(2, *words, "--steps", 20, "--out", "cut", "--restart")
    assert done.returncode == 0, done.stderr
    for step in (0, 5, 10, 15, 20):
        name = f"snapshots/heat_{step:08d}.h5"
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes()
    run = json.loads((tmp_path / "cut/run.json").read_text())
    assert sum(run["shares"]) == 1200 and len(run["boxes"]) == 2 and run["agreed"] == {"stencil heat5 float64": "numba"}


@pytest.mark.parametrize("name", [file.stem for file in sorted((ROOT / "sims/heat").glob("*.toml"))])
def test_cases_run_and_are_drawn(launch, tmp_path, name):
    if name == "cube" and lacking():
        pytest.skip(lacking())
    done = launch(2, "-m", "brmpi.sims.heat", ROOT / f"sims/heat/{name}.toml", "--steps", 4, "--out", "run",
                  "--set", "every=2")
    assert done.returncode == 0 and "updates/s" in done.stdout, done.stderr
    shot = snapshots.read(tmp_path / "run/snapshots/heat_00000004.h5")
    mesh = shot.meshes["temperature"]
    assert mesh.axes == (("y", "x") if name == "plate" else ("z", "y", "x")) and mesh.position[0] == 0.5
    assert mesh.spacing == pytest.approx([1 / n for n in mesh.piece.shape])
    for words in (("plot", "run"), ("plot", "run", "--movie"), ("show", "run")):
        done = launch(0, "-m", "brmpi", *words)
        assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "run").glob("*.*")} >= {"fields.png", "movie.gif", "diagnostics.png"}


@PETSC
def test_petsc_leaves_signals_alone(launch):
    code = ("import os, signal\n"
            "asked = []\n"
            "signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))\n"
            "from brmpi import elliptic\n"
            "elliptic.petsc().Vec().createMPI(3)\n"
            "os.kill(os.getpid(), signal.SIGTERM)\n"
            "reading, writing = os.pipe()\n"
            "os.close(reading)\n"
            "try:\n"
            "    os.write(writing, b'x')\n"
            "except BrokenPipeError:\n"
            "    print(asked == [signal.SIGTERM], 'and a closed pipe is an error')\n")
    for ranks in (0, 1):
        done = launch(ranks, "-c", code)
        assert done.returncode == 0 and done.stdout == "True and a closed pipe is an error\n", done


def test_every_key_that_two_dimensions_leave_out_goes_on(alone):
    case = heat.case_of_all_axes(dataclasses.replace(heat.Case(), cells=(4, 4, 4)))
    assert case.size == (1.0, 1.0, 1.0) and case.ends == ("periodic",) * 3 and case.waves == (1, 1, 1)
    assert case.problem() is None
    for ends in itertools.product(heat.ENDS, repeat=2):
        assert dataclasses.replace(heat.Case(), ends=ends).problem() is None
