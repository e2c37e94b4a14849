"""The Ising simulation: exact averages, Onsager's energy, clusters, the same spins on any ranks, restarts."""

import functools
from pathlib import Path

import numpy as np
import pytest
from conftest import made
from hypothesis import given, settings
from hypothesis import strategies as st

from brmpi import speeds
from brmpi.kernels import clusters
from brmpi.results import diagnostics, snapshots
from brmpi.sims import ising

ROOT = Path(__file__).parents[1]
simulation = functools.partial(made, ising.Ising)
WAYS = ["metropolis", "swendsen-wang"]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 9), st.integers(0, 9), st.integers(0, 2**32), st.floats(0, 1))
def test_clusters_of_both_versions(rows, columns, seed, chance):
    right, down = np.random.default_rng(seed).random((2, rows, columns)) < chance
    found = clusters.labels(right, down, "numba")
    np.testing.assert_array_equal(found, clusters.labels(right, down, "numpy"))
    assert found.shape == (rows, columns) and (found.ravel() <= np.arange(found.size)).all()
    assert (found[:, :-1] == found[:, 1:])[right[:, :-1]].all() and (found[:-1] == found[1:])[down[:-1]].all()


def test_a_spiral_is_one_cluster():
    bonds = np.zeros((2, 9, 9), bool)
    bonds[0, ::4], bonds[0, 2::4] = True, True
    bonds[1, :, -1], bonds[1, :, 0] = np.arange(9) % 4 < 2, np.arange(9) % 4 >= 2
    for name in ("numba", "numpy", "opencl"):
        found = clusters.labels(*bonds, name)
        assert (found[::2] == 0).all()
    with pytest.raises(ValueError, match="right: int64"):
        clusters.labels(np.ones((2, 2), int), np.ones((2, 2), bool))


def exact(temperature, shape):
    """Mean energy and magnitude of the magnetisation per site, from all states."""
    sites = int(np.prod(shape))
    states = (np.arange(2**sites)[:, None] >> np.arange(sites) & 1).astype(np.int8) * 2 - 1
    spins = states.reshape(-1, *shape)
    energy = -(spins * (np.roll(spins, 1, 1) + np.roll(spins, 1, 2))).sum(axis=(1, 2), dtype=float)
    weight = np.exp(-(energy - energy.min()) / temperature)
    magnitude = abs(states.sum(axis=1, dtype=float))
    return [(weight * each).sum() / weight.sum() / sites for each in (energy, magnitude)]


def averages(run, sweeps, skip):
    """Means over sweeps and their errors, by the spread of 20 blocks."""
    rows = []
    for sweep in range(sweeps):
        run.step()
        if sweep >= skip:
            row = run.sample()
            rows.append((row["energy"], row["magnitude"]))
    blocks = np.array([block.mean(axis=0) for block in np.array_split(np.array(rows), 20)])
    return blocks.mean(axis=0), blocks.std(axis=0, ddof=1) / np.sqrt(20)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("temperature", [1.8, 3.0])
def test_averages_of_a_small_lattice_are_exact(alone, way, temperature):
    run = simulation(alone, cells=(4, 4), algorithm=way, temperature=temperature, seed=5)
    mean, error = averages(run, 6000, 100)
    wanted = exact(temperature, (4, 4))
    assert (abs(mean - wanted) < 4.5 * error).all() and (error < 0.02).all(), (mean, wanted, error)


@pytest.mark.parametrize(("way", "temperature"), [("metropolis", 1.8), ("swendsen-wang", 2.1), ("swendsen-wang", 2.6)])
def test_a_large_lattice_has_onsagers_energy_and_yangs_magnetisation(alone, way, temperature):
    run = simulation(alone, cells=(64, 64), algorithm=way, temperature=temperature, initial="up", seed=3)
    (energy, magnitude), error = averages(run, 700, 100)
    wanted = ising.onsager(temperature)
    assert abs(energy - wanted[0]) < 5 * error[0] + 1e-3 and error[0] < 6e-3, (energy, wanted, error)
    assert abs(magnitude - wanted[1]) < 5 * error[1] + (1e-3 if temperature < 2.2 else 0.1), (magnitude, wanted, error)


def test_onsagers_formula_at_its_limits():
    assert ising.onsager(ising.CRITICAL + 1e-9) == pytest.approx((-np.sqrt(2), 0), abs=1e-6)
    assert ising.onsager(0.3) == pytest.approx((-2, 1), abs=1e-5)
    assert ising.onsager(2.0)[1] == pytest.approx(0.911319, abs=1e-6)


@pytest.mark.mpi
@pytest.mark.parametrize("cells", [(20, 14), (6, 4), (2, 2), (8, 2), (2, 30)], ids=str)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_any_ranks_and_shares_give_the_same_spins(comm, assert_all, monkeypatch, cells, way, backend):
    from mpi4py import MPI

    keys = {"cells": cells, "algorithm": way, "temperature": 2.0}
    one = simulation(MPI.COMM_SELF, **keys)
    many = [simulation(comm, backend, **keys)]
    for trial in range(2):
        uneven = np.random.default_rng(trial).uniform(0.2, 3, comm.size)
        monkeypatch.setattr(speeds, "measured", lambda comm, kind, uneven=uneven: (uneven, kind))
        many.append(simulation(comm, backend, **keys))
    for sweep in range(8):
        one.step()
        expected, told = one.grid.inside(one.spins), one.sample()
        for run in many:
            run.step()
            here = tuple(slice(first, end) for first, end in run.grid.box)
            assert_all((run.grid.inside(run.spins) == expected[here]).all(), f"sweep {sweep}")
            found = run.sample()
            assert_all(found == told, f"{found} {told}")


@pytest.mark.parametrize(("arguments", "words"), [
    (("--set", "cells=[5,4]"), "cells = [5, 4]: must be even"),
    (("--set", "cells=[4]"), "cells has 1 values: must be 2"),
    (("--set", "cells=[0,4]"), "cells[0] = 0: must be >= 2"),
    (("--set", "temperature=0"), "temperature = 0: must be > 0"),
    (("--set", "algorithm=wolff"), "algorithm = 'wolff': must be one of metropolis, swendsen-wang")])
def test_bad_input(launch, arguments, words):
    done = launch(2, "-m", "brmpi.sims.ising", *arguments)
    assert done.returncode == 2 and done.stderr.count(words) == 1, done.stderr


@pytest.mark.parametrize(("ranks", "way"), [
    (0, "swendsen-wang"), pytest.param(3, "swendsen-wang", marks=pytest.mark.soak), (5, "metropolis")])
def test_a_run_and_its_restart(launch, tmp_path, ranks, way):
    """Stopped half way and gone on with on other ranks, the files are those of a run that never stopped."""
    words = ["-m", "brmpi.sims.ising", "--set", "cells=[40,30]", "--set", f"algorithm={way}", "--set", "every=5",
             "--quiet"]
    assert launch(0, *words, "--steps", 20, "--out", "whole").returncode == 0
    assert launch(ranks, *words, "--steps", 10, "--out", "cut").returncode == 0
    done = launch(2, *words, "--steps", 20, "--out", "cut", "--restart")
    assert done.returncode == 0, done.stderr
    for step in (0, 5, 10, 15, 20):
        name = f"snapshots/ising_{step:08d}.h5"
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes()


@pytest.mark.parametrize("name", [file.stem for file in sorted((ROOT / "sims/ising").glob("*.toml"))])
def test_cases_do_what_they_say(launch, tmp_path, name):
    done = launch(2, "-m", "brmpi.sims.ising", ROOT / f"sims/ising/{name}.toml", "--out", "run")
    assert done.returncode == 0 and "spins/s" in done.stdout, done.stderr
    energy = diagnostics.read(tmp_path / "run/diagnostics.h5")["energy"]
    assert energy[-1] < -1.7 if name == "quench" else abs(energy[len(energy) // 4 :].mean() + np.sqrt(2)) < 0.02
    last = sorted((tmp_path / "run/snapshots").iterdir())[-1]
    assert set(np.unique(snapshots.read(last).meshes["spin"].piece.data)) == {-1, 1}
    for words in (("plot", "run"), ("show", "run")):
        done = launch(0, "-m", "brmpi", *words)
        assert done.returncode == 0, done.stderr
