"""Flow by lattice Boltzmann: exact profiles, decay, a published cavity, a wake's frequency, any ranks the same bits."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from brmpi import mpi, speeds
from brmpi.results import snapshots
from brmpi.sims import lbm

ROOT = Path(__file__).parents[1]
# Ghia, Ghia & Shin, J. Comput. Phys. 48 (1982) 387, tables I and II: u along the middle from the floor to the lid,
# v from wall to wall, in units of the lid's speed
Y = (0.0547, 0.0625, 0.0703, 0.1016, 0.1719, 0.2813, 0.4531, 0.5, 0.6172, 0.7344, 0.8516, 0.9531, 0.9609, 0.9688,
     0.9766)
U = {100: (-0.03717, -0.04192, -0.04775, -0.06434, -0.10150, -0.15662, -0.21090, -0.20581, -0.13641, 0.00332, 0.23151,
           0.68717, 0.73722, 0.78871, 0.84123),
     400: (-0.08186, -0.09266, -0.10338, -0.14612, -0.24299, -0.32726, -0.17119, -0.11477, 0.02135, 0.16256, 0.29093,
           0.55892, 0.61756, 0.68439, 0.75837),
     1000: (-0.18109, -0.20196, -0.22220, -0.29730, -0.38289, -0.27805, -0.10648, -0.06080, 0.05702, 0.18719, 0.33304,
            0.46604, 0.51117, 0.57492, 0.65928)}
X = (0.0625, 0.0703, 0.0781, 0.0938, 0.1563, 0.2266, 0.2344, 0.5, 0.8047, 0.8594, 0.9063, 0.9453, 0.9531, 0.9609,
     0.9688)
V = {100: (0.09233, 0.10091, 0.10890, 0.12317, 0.16077, 0.17507, 0.17527, 0.05454, -0.24533, -0.22445, -0.16914,
           -0.10313, -0.08864, -0.07391, -0.05906),
     1000: (0.27485, 0.29012, 0.30353, 0.32627, 0.37095, 0.33075, 0.32235, 0.02526, -0.31966, -0.42665, -0.51550,
            -0.39188, -0.33714, -0.27669, -0.21388)}


def simulation(comm, backend="numba", **keys):
    case = dataclasses.replace(lbm.Case(), **keys)
    problem = case.problem()
    assert problem is None, problem
    return lbm.LBM(case, comm, mpi.Timers(), backend)


@pytest.fixture
def alone():
    from mpi4py import MPI

    return MPI.COMM_SELF


@pytest.mark.parametrize("cells", [(4, 17), (4, 16, 3)], ids=str)
def test_a_channel_has_its_parabola_exactly(alone, cells):
    """With two relaxation times and the magic number 3/16 the steady profile is exact, walls half a cell outside."""
    run = simulation(alone, flow="channel", cells=cells, reynolds=10.0, speed=0.05)
    for _ in range(9000):
        run.step()
    _, u = run.moments()
    along = u[(-1, 0, slice(None), 1) if len(cells) == 3 else (-1, slice(None), 1)]
    y, width = np.arange(cells[1]) + 0.5, cells[1]
    np.testing.assert_allclose(along, 0.05 * 4 * y * (width - y) / width**2, rtol=1e-9)


@pytest.mark.parametrize("cells", [(48, 32), (32, 32, 4)], ids=str)
def test_vortices_decay_by_the_viscosity(alone, cells):
    run = simulation(alone, flow="vortex", cells=cells, reynolds=40.0, speed=0.02)
    start = run.sample()["energy"]
    for _ in range(400):
        run.step()
    rate = run.case.viscosity * sum((2 * np.pi / n) ** 2 for n in cells[:2])
    assert run.sample()["energy"] / start == pytest.approx(np.exp(-2 * rate * 400), rel=0.015)
    assert run.sample()["mass"] == pytest.approx(np.prod(cells), rel=1e-12)


def test_vortices_converge_at_second_order(alone):
    """With the lattice's speed ~ dx (diffusive scaling) the error falls as dx^2."""
    errors = []
    for n in (16, 32, 64):
        run = simulation(alone, flow="vortex", cells=(n, n), reynolds=20.0, speed=0.64 / n)
        steps = n * n // 8
        for _ in range(steps):
            run.step()
        _, u = run.moments()
        rate = run.case.viscosity * 2 * (2 * np.pi / n) ** 2
        exact, _ = lbm.vortices(run.centres(), run.grid.shape, run.case.speed * np.exp(-rate * steps))
        errors.append(abs(u - exact).max() / abs(exact).max())
    slopes = np.diff(np.log(errors)) / np.log(0.5)
    assert (abs(slopes - 2) < 0.3).all(), slopes


@pytest.mark.parametrize(("reynolds", "cells", "turns"), [
    (100, 64, 20), pytest.param(400, 96, 30, marks=pytest.mark.soak),
    pytest.param(1000, 128, 60, marks=pytest.mark.soak)])
@pytest.mark.timeout(600)
def test_a_cavity_is_that_of_ghia(alone, reynolds, cells, turns):
    """After so many turnovers velocities on the middle lines are the table's, within 2 % of the lid's speed."""
    run = simulation(alone, flow="cavity", cells=(cells, cells), reynolds=float(reynolds), speed=0.1)
    for _ in range(turns * cells * 10):
        run.step()
    _, u = run.moments()
    at = (np.arange(cells) + 0.5) / cells
    middle = cells // 2
    across = (u[-1][:, middle - 1] + u[-1][:, middle]) / 0.2
    assert abs(np.interp(Y, at, across) - U[reynolds]).max() < 0.02
    if reynolds in V:
        up = (u[-2][middle - 1] + u[-2][middle]) / 0.2
        assert abs(np.interp(X, at, up) - V[reynolds]).max() < 0.02
    assert run.sample()["mass"] == pytest.approx(cells**2, rel=1e-9)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_the_wake_of_a_cylinder_swings(alone):
    """Strouhal number f D / U at Re = 100: 0.165 in open flow (Williamson 1989), more where the box is narrow."""
    run = simulation(alone, flow="cylinder", cells=(400, 200), reynolds=100.0, speed=0.1, diameter=20.0)
    values = []
    for step in range(24000):
        run.step()
        if step >= 12000 and step % 10 == 0:
            values.append(run.sample()["across"])
    values = np.array(values) - np.mean(values)
    power = abs(np.fft.rfft(values * np.hanning(len(values)), 16 * len(values)))
    frequency = np.fft.rfftfreq(16 * len(values), 10.0)[power.argmax()]
    assert 0.155 < frequency * 20 / 0.1 < 0.19 and values.std() > 0.01


@pytest.mark.mpi
@pytest.mark.parametrize("keys", [
    {"flow": "cavity", "cells": (19, 23)}, {"flow": "channel", "cells": (9, 31)}, {"flow": "vortex", "cells": (17, 12)},
    {"flow": "cylinder", "cells": (60, 40), "diameter": 8.0, "reynolds": 20.0},
    {"flow": "cavity", "cells": (8, 9, 13)}, {"flow": "vortex", "cells": (5, 3)}, {"flow": "cavity", "cells": (4, 2)},
], ids=str)
@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_any_ranks_and_shares_give_the_same_bits(comm, assert_all, monkeypatch, keys, backend):
    from mpi4py import MPI

    keys = {"reynolds": 5.0, **keys}
    one = simulation(MPI.COMM_SELF, backend, **keys)
    many = [simulation(comm, backend, **keys)]
    for trial in range(2):
        uneven = np.random.default_rng(trial).uniform(0.2, 3, comm.size)
        monkeypatch.setattr(speeds, "measured", lambda comm, kind, uneven=uneven: (uneven, kind))
        many.append(simulation(comm, backend, **keys))
    for _ in range(6):
        one.step()
    expected, told = one.grid.inside(one.f), one.sample()
    for run in many:
        for _ in range(6):
            run.step()
        here = (slice(None), *(slice(first, end) for first, end in run.grid.box))
        assert_all(run.grid.inside(run.f).tobytes() == expected[here].tobytes(), "populations")
        found = run.sample()
        assert_all(found == told, f"{found} {told}")


@pytest.mark.mpi
@pytest.mark.parametrize("keys", [
    {"flow": "cavity", "cells": (19, 23)}, {"flow": "vortex", "cells": (7, 8, 9)},
    {"flow": "cylinder", "cells": (60, 40), "diameter": 8.0},
    {"flow": "cylinder", "cells": (9, 12, 5), "diameter": 3.0}, {"flow": "channel", "cells": (5, 30)},
], ids=str)
@pytest.mark.parametrize("stop", [3, 4])
def test_a_run_goes_on_from_any_step_in_other_shares(comm, assert_all, keys, stop):
    """After an odd number of steps populations lie ahead; what a restart needs are those at home."""
    from mpi4py import MPI

    keys = {"reynolds": 5.0, **keys}
    one, run = simulation(MPI.COMM_SELF, **keys), simulation(comm, **keys)
    for _ in range(7):
        one.step()
    for _ in range(stop):
        run.step()
    piece = run.arrays()["f"]
    whole = np.zeros(piece.shape)
    for offset, data in comm.allgather((piece.offset, piece.data)):
        whole[tuple(slice(first, first + n) for first, n in zip(offset, data.shape))] = data
    run.lay_out(np.random.default_rng(stop).uniform(0.2, 3, comm.size))
    here = (slice(None), *(slice(first, end) for first, end in run.grid.box))
    run.restore({"f": whole[here]})
    for _ in range(7 - stop):
        run.step()
    expected, found = one.arrays()["f"].data[here], run.arrays()["f"].data
    assert_all(found.tobytes() == expected.tobytes(), "populations")
    told, sample = one.sample(), run.sample()
    assert_all(told == sample, f"{told} {sample}")


@pytest.mark.parametrize(("arguments", "words"), [
    (("--set", "reynolds=100000"), "reynolds = 100000: tau = 0.5001 must be >= 0.505"),
    (("--set", "cells=[4]"), "cells has 1 values: must be 2 or 3"),
    (("--set", "speed=0.5"), "speed = 0.5: must be <= 0.3"),
    (("--set", "dt=2"), "dt = 2: must be <= 1"),
    (("--set", "flow=cylinder", "--set", "cells=[40,50]"), "diameter = 20: must be <= 13.3333, a third of the box")])
def test_bad_input(launch, arguments, words):
    done = launch(2, "-m", "brmpi.sims.lbm", *arguments)
    assert done.returncode == 2 and done.stderr.count(words) == 1, done.stderr


@pytest.mark.parametrize("ranks", [0, 5])
def test_a_run_and_its_restart(launch, tmp_path, ranks):
    """Stopped half way and gone on with on other ranks, the files are those of a run that never stopped."""
    words = ["-m", "brmpi.sims.lbm", "--set", "flow=cavity", "--set", "cells=[40,30]", "--set", "every=5", "--quiet"]
    assert launch(0, *words, "--steps", 20, "--out", "whole").returncode == 0
    assert launch(ranks, *words, "--steps", 10, "--out", "cut").returncode == 0
    done = launch(3, *words, "--steps", 20, "--out", "cut", "--restart")
    assert done.returncode == 0, done.stderr
    for step in (0, 5, 10, 15, 20):
        name = f"snapshots/lbm_{step:08d}.h5"
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes()


@pytest.mark.parametrize("name", [file.stem for file in sorted((ROOT / "sims/lbm").glob("*.toml"))])
def test_cases_run_and_are_drawn(launch, tmp_path, name):
    done = launch(2, "-m", "brmpi.sims.lbm", ROOT / f"sims/lbm/{name}.toml", "--steps", 4, "--out", "run", "--set",
                  "every=2")
    assert done.returncode == 0 and "updates/s" in done.stdout, done.stderr
    meshes = snapshots.read(tmp_path / "run/snapshots/lbm_00000004.h5").meshes
    assert set(meshes) == {"density", "velocity"} and set(meshes["velocity"].piece) == {"x", "y"}
    for words in (("plot", "run"), ("plot", "run", "--movie"), ("show", "run")):
        done = launch(0, "-m", "brmpi", *words)
        assert done.returncode == 0, done.stderr
