"""The cases in sims/ run whole, and what each file says must hold, holds."""

import json
from pathlib import Path

import numpy as np
import pytest

from brmpi import case
from brmpi.results import diagnostics, snapshots
from brmpi.sims import nbody

ROOT = Path(__file__).parent.parent
CASES = sorted((ROOT / "sims" / "nbody").glob("*.toml"))
AU = 149597870.700  # km


def run(launch, tmp_path, name, *more, ranks=2, timeout=110):
    """Run a case, whole unless more is said; returns its diagnostics and all its snapshots in order."""
    done = launch(ranks, "-m", "brmpi.sims.nbody", ROOT / f"sims/nbody/{name}.toml", "--out", "run", *more,
                  timeout=timeout)
    assert done.returncode == 0, done.stderr
    files = sorted((tmp_path / "run/snapshots").iterdir())
    return diagnostics.read(tmp_path / "run/diagnostics.h5"), [snapshots.read(file) for file in files]


def positions(snapshot):
    return np.asarray(snapshot.particles["bodies"]["position"])


@pytest.mark.parametrize("file", CASES, ids=lambda file: file.stem)
def test_every_case_says_what_it_shows_costs_and_promises(file):
    text = file.read_text()
    made = case.load(nbody.Case, file)
    assert made.steps > 0 and text.startswith("# ")
    assert all(word in text.partition("\n\n")[0] + text for word in ("# Shows: ", "# Cost: ", "# Must hold: "))


def test_solar_system_stays_within_what_newton_allows(launch, tmp_path):
    rows, states = run(launch, tmp_path, "solar-system")
    reference = json.loads((ROOT / "tests/data/solar-system-2020.json").read_text())
    names = list(states[-1].particles["bodies"].attributes["names"])
    assert states[-1].time == 20 * 365.25 and names == list(reference["bodies"])
    found = dict(zip(names, positions(states[-1])))
    for name, expected in reference["bodies"].items():
        off = np.linalg.norm(found[name] - expected["position"]) * AU
        assert off < expected["bound_km"], f"{name} is {off:.1f} km from DE421"
        if name == "Mercury":
            assert off > 300, "Newton cannot be this close: relativity is missing here"
    moon = reference["bodies"]["Moon"]
    away = (found["Moon"] - found["Earth"]) - (np.array(moon["position"]) - reference["bodies"]["Earth"]["position"])
    assert np.linalg.norm(away) * AU < moon["geocentric_bound_km"]
    assert np.abs(rows["energy"] / rows["energy"][0] - 1).max() < 1e-10
    spin = np.array([rows[f"angular_momentum_{axis}"] for axis in "xyz"])
    assert np.abs(spin - spin[:, :1]).max() < 1e-12 * np.linalg.norm(spin[:, 0])


def test_figure_eight_closes(launch, tmp_path):
    rows, states = run(launch, tmp_path, "figure-eight")
    assert np.abs(positions(states[-1]) - positions(states[0])).max() < 1e-7
    assert np.abs(positions(states[len(states) // 2]) - positions(states[0])).max() > 0.5
    assert np.abs(rows["energy"] / rows["energy"][0] - 1).max() < 1e-9


@pytest.mark.soak
def test_plummer_sphere_stays_in_equilibrium(launch, tmp_path):
    rows, states = run(launch, tmp_path, "plummer")
    assert abs(rows["energy"][0] + 0.25) < 0.01
    assert rows["virial_ratio"].min() > 0.95 and rows["virial_ratio"].max() < 1.05
    half = [np.median(np.linalg.norm(positions(state), axis=1)) for state in states]
    assert np.ptp(half) < 0.05 * half[0]
    assert 0 < np.abs(rows["energy"] / rows["energy"][0] - 1).max() < 2e-5


@pytest.mark.soak
def test_two_galaxies_grow_tails(launch, tmp_path):
    rows, states = run(launch, tmp_path, "two-galaxies")
    far = {round(state.time): (np.linalg.norm(positions(state)[:, :2], axis=1) > 8).mean() for state in states}
    assert far[24] < 0.03 and far[32] > 0.10, far
    assert np.abs(rows["energy"] / rows["energy"][0] - 1).max() < 3e-3
    spin = rows["angular_momentum_z"]
    assert np.abs(spin / spin[0] - 1).max() < 1e-5


LONG = [pytest.mark.soak, pytest.mark.timeout(3600)]


@pytest.mark.parametrize(("most", "more"), [(4e-4, ("--set", "n=3000", "--set", "softening=0.05")),
                                            pytest.param(1e-4, (), marks=LONG)], ids=["few", "whole"])
def test_a_million_bodies_keep_their_energy(launch, tmp_path, most, more):
    rows, states = run(launch, tmp_path, "million", *more, timeout=3500)
    assert states[-1].time == pytest.approx(2.84) and len(states) == 3
    assert 0 < np.abs(rows["energy"] / rows["energy"][0] - 1).max() < most
    assert rows["virial_ratio"].min() > 0.95 and rows["virial_ratio"].max() < 1.05


@pytest.mark.parametrize(("most", "more"), [(4e-4, ("--set", "n=2000", "--steps", "200")),
                                            pytest.param(1e-4, (), marks=LONG)], ids=["few", "whole"])
def test_galaxies_of_many_bodies_keep_their_energy(launch, tmp_path, most, more):
    rows, _ = run(launch, tmp_path, "collision", *more, timeout=3500)
    away = np.abs(rows["energy"] / rows["energy"][0] - 1)
    assert 0 < away[rows["time"] <= 5].max() < most and away.max() < 4e-4
