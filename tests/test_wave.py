"""Acoustic waves: the dispersion relation, orders of convergence, energy, sponges, the same bits on any ranks."""

import functools
from pathlib import Path

import numpy as np
import pytest
from conftest import made

from brmpi import speeds
from brmpi.results import diagnostics, snapshots
from brmpi.sims import wave

ROOT = Path(__file__).parents[1]
simulation = functools.partial(made, wave.Wave)


def inside(run):
    return run.grid.inside(run.u).copy()


@pytest.mark.parametrize("order", [2, 4])
@pytest.mark.parametrize("ends", [("periodic", "fixed"), ("free", "periodic"), ("fixed", "free"),
                                  ("fixed", "periodic", "free")], ids=str)
def test_a_standing_wave_has_the_frequency_of_the_scheme(alone, order, ends):
    """cos(omega n dt) times the mode, to rounding, where omega solves the scheme's dispersion relation."""
    d = len(ends)
    cells, size, waves = (16, 12, 20)[:d], (1.6, 1.2, 2.0)[:d], (2, 1, 3)[:d]
    dt = 0.9 * np.sqrt(wave.LIMIT[order] / d) * 0.1 / 1.5
    run = simulation(alone, cells=cells, size=size, ends=ends, waves=waves, order=order, speed=1.5, dt=dt,
                     initial="mode", centre=(0.5,) * d)
    start = inside(run)
    omega = wave.frequency(waves, cells, size, ends, 1.5, dt, order)
    for step in range(1, 40):
        run.step()
        np.testing.assert_allclose(inside(run), np.cos(omega * step * dt) * start, rtol=0, atol=1e-11)


@pytest.mark.parametrize("order", [2, 4])
def test_order_of_convergence(alone, order):
    """With dt ~ dx^(order / 2) the error against the exact frequency falls as dx^order."""
    errors = []
    for n in (16, 32, 64):
        steps = n if order == 2 else n**2 // 4
        run = simulation(alone, cells=(n, n), ends=("periodic", "fixed"), waves=(1, 1), order=order, dt=0.4 / steps,
                         initial="mode")
        exact = np.cos(np.sqrt(5) * np.pi * 0.4) * inside(run)
        for _ in range(steps):
            run.step()
        errors.append(abs(inside(run) - exact).max())
    slopes = np.diff(np.log(errors)) / np.log(0.5)
    assert (abs(slopes - order) < 0.25).all(), slopes


@pytest.mark.parametrize("order", [2, 4])
@pytest.mark.parametrize("material", ["uniform", "layers", "lens"])
@pytest.mark.parametrize("ends", [("periodic", "free"), ("fixed", "fixed")])
def test_energy_is_conserved(alone, order, material, ends):
    run = simulation(alone, cells=(40, 30), size=(1.0, 0.75), ends=ends, order=order, material=material, dt=0.015)
    before = run.sample()["energy"]
    for _ in range(200):
        run.step()
    assert run.sample()["energy"] == pytest.approx(before, rel=1e-11) and before > 0


def test_a_sponge_swallows_and_a_wall_does_not(alone):
    left = {}
    for kind in ("sponge", "free"):
        run = simulation(alone, cells=(100, 100), ends=(kind, kind), dt=5e-3, centre=(0.5, 0.5), sponge=0.2)
        before = run.sample()["energy"]
        energies = []
        for _ in range(300):
            run.step()
            energies.append(run.sample()["energy"])
        left[kind] = energies[-1] / before
        assert kind == "free" or (np.diff(energies) <= 1e-12).all()
    assert left["free"] == pytest.approx(1, rel=1e-10) and left["sponge"] < 0.02


@pytest.mark.mpi
@pytest.mark.parametrize("keys", [
    {"cells": (37, 23), "size": (3.7, 2.3)}, {"cells": (37, 23), "size": (3.7, 2.3), "order": 2, "material": "lens"},
    {"cells": (12, 9, 14), "size": (1.2, 0.9, 1.4), "material": "layers"}, {"cells": (4, 3), "size": (0.4, 0.3)},
    {"cells": (1, 1), "size": (0.1, 0.1)}, {"cells": (2, 5), "size": (0.2, 0.5), "ends": ("free", "fixed")},
    {"cells": (30, 20), "size": (3.0, 2.0), "ends": ("sponge", "free")},
], ids=str)
@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_any_ranks_and_shares_give_the_same_bits(comm, assert_all, monkeypatch, keys, backend):
    from mpi4py import MPI

    d = len(keys["cells"])
    keys = {"dt": 0.03, "ends": ("fixed", "free", "periodic")[:d], "centre": (0.3,) * d, "width": 0.1, **keys}
    one = simulation(MPI.COMM_SELF, backend, **keys)
    many = [simulation(comm, backend, **keys)]
    for trial in range(2):
        uneven = np.random.default_rng(trial).uniform(0.2, 3, comm.size)
        monkeypatch.setattr(speeds, "measured", lambda comm, kind, uneven=uneven: (uneven, kind))
        many.append(simulation(comm, backend, **keys))
    for _ in range(6):
        one.step()
    expected, told = one.grid.inside(one.u), one.sample()
    for run in many:
        for _ in range(6):
            run.step()
        here = tuple(slice(first, end) for first, end in run.grid.box)
        assert_all(run.grid.inside(run.u).tobytes() == expected[here].tobytes(), "pressure")
        found = run.sample()
        assert_all(found == told, f"{found} {told}")


@pytest.mark.parametrize(("arguments", "words"), [
    (("--set", "dt=0.1"), "dt = 0.1: must be <= 0.00478"), (("--set", "order=3"), "order = 3: must be 2 or 4"),
    (("--set", "cells=[64,32]"), "size and cells make cells of [0.015625, 0.03125]: must be cubes"),
    (("--set", "cells=[4]"), "cells has 1 values: must be 2 or 3"),
    (("--set", "centre=[0.1,0.2,0.3]"), "centre has 3 values: must be 2, as many as cells"),
    (("--set", 'ends=["fixed","open"]'), "ends[1] = 'open': must be one of periodic, fixed, free, sponge")])
def test_bad_input(launch, arguments, words):
    done = launch(2, "-m", "brmpi.sims.wave", *arguments)
    assert done.returncode == 2 and done.stderr.count(words) == 1, done.stderr


@pytest.mark.parametrize("ranks", [0, 5])
def test_a_run_and_its_restart(launch, tmp_path, ranks):
    """Stopped half way and gone on with on other ranks, the files are those of a run that never stopped."""
    words = ["-m", "brmpi.sims.wave", "--set", "cells=[40,40]", "--set", "every=5", "--quiet"]
    assert launch(0, *words, "--steps", 20, "--out", "whole").returncode == 0
    assert launch(ranks, *words, "--steps", 10, "--out", "cut").returncode == 0
    done = launch(2, *words, "--steps", 20, "--out", "cut", "--restart")
    assert done.returncode == 0, done.stderr
    for step in (0, 5, 10, 15, 20):
        name = f"snapshots/wave_{step:08d}.h5"
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes()
    assert (diagnostics.read(tmp_path / "whole/diagnostics.h5")["energy"].tolist()
            == diagnostics.read(tmp_path / "cut/diagnostics.h5")["energy"].tolist())


@pytest.mark.parametrize("name", [file.stem for file in sorted((ROOT / "sims/wave").glob("*.toml"))])
def test_cases_run_and_are_drawn(launch, tmp_path, name):
    done = launch(2, "-m", "brmpi.sims.wave", ROOT / f"sims/wave/{name}.toml", "--steps", 4, "--out", "run", "--set",
                  "every=2")
    assert done.returncode == 0 and "updates/s" in done.stdout, done.stderr
    mesh = snapshots.read(tmp_path / "run/snapshots/wave_00000004.h5").meshes["pressure"]
    assert mesh.axes == (("y", "x") if name == "lens" else ("z", "y", "x"))
    for words in (("plot", "run"), ("plot", "run", "--movie"), ("show", "run")):
        done = launch(0, "-m", "brmpi", *words)
        assert done.returncode == 0, done.stderr


def test_what_the_cases_say_must_hold(launch, tmp_path):
    assert launch(2, "-m", "brmpi.sims.wave", ROOT / "sims/wave/room.toml", "--out", "room", "--quiet").returncode == 0
    energy = diagnostics.read(tmp_path / "room/diagnostics.h5")["energy"]
    assert abs(energy / energy[0] - 1).max() < 1e-12
    assert launch(2, "-m", "brmpi.sims.wave", ROOT / "sims/wave/lens.toml", "--out", "lens", "--quiet").returncode == 0
    energy = diagnostics.read(tmp_path / "lens/diagnostics.h5")["energy"]
    assert (np.diff(energy) <= 1e-9 * energy[0]).all() and energy[-1] < 0.2 * energy[0]
