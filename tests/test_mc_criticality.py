"""Criticality: published critical sizes, the integral equation, errors that are right, the same bits on any ranks."""

import functools
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from conftest import made
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import exp1, expn

from brmpi import balance, case, program, speeds
from brmpi.errors import BadInput, Fault
from brmpi.montecarlo import criticality
from brmpi.results import diagnostics, snapshots

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "sims/montecarlo/criticality"
simulation = functools.partial(made, criticality.Criticality)
# Sood, Forster & Parsons, Prog. Nucl. Energy 42 (2003) 55: half thickness or radius [cm], and nu of Pu (a) and (b).
PUBLISHED = {"PUa-1-0-SL": ("slab", 1.853722, 3.24), "PUb-1-0-SL": ("slab", 2.256751, 2.84),
             "PUb-1-0-SP": ("sphere", 6.082547, 2.84)}


def multiplication(geometry, size, nu, total=0.32640, scattering=0.225216, fission=0.0816, n=120):
    """k by the integral equation, and the sources' density at depths or radii: E1 between Gauss points.

    A sphere is the odd mode of a slab as thick as its diameter, for r times the density.
    """
    thick = (size if geometry == "slab" else 2 * size) * total
    t, w = np.polynomial.legendre.leggauss(n)
    t, w = (t + 1) * thick / 2, w * thick / 2
    far = np.abs(t[:, None] - t)
    np.fill_diagonal(far, 1)
    k = exp1(far) * w
    np.fill_diagonal(k, 0)
    k[np.diag_indices(n)] = 2 - expn(2, t) - expn(2, thick - t) - k.sum(axis=1)
    values, modes = np.linalg.eig(k / 2)
    at = np.argsort(values.real)[-1 if geometry == "slab" else -2]
    mode = np.abs(modes[:, at].real)
    if geometry == "sphere":
        t, w, mode = np.abs(t - thick / 2), w, mode * np.abs(t - thick / 2)  # r**2 density
    return nu * fission / (total / values.real[at] - scattering), t / total, w * mode / (w * mode).sum()


def run(comm, generations, **keys):
    """A simulation after some generations."""
    made = simulation(comm, **keys)
    for _ in range(generations):
        made.step()
    return made


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_critical_sizes_are_critical(alone, name):
    geometry, half, nu = PUBLISHED[name]
    size = half if geometry == "sphere" else 2 * half
    assert multiplication(geometry, size, nu, n=300)[0] == pytest.approx(1, abs=5e-6)
    row = run(alone, 250, geometry=geometry, size=size, nu=nu, neutrons=10000).sample()
    assert abs(row["k_mean"] - 1) < 4 * row["k_error"] and 2e-4 < row["k_error"] < 1.5e-3, row


@pytest.mark.parametrize("keys", [{"geometry": "slab", "size": 1.5}, {"geometry": "slab", "size": 15.0},
                                  {"geometry": "sphere", "size": 3.0}, {"geometry": "sphere", "size": 12.0},
                                  {"geometry": "sphere", "size": 4.0, "scattering": 0.0, "nu": 2.0}], ids=str)
def test_k_obeys_the_integral_equation_off_criticality_too(alone, keys):
    wanted = multiplication(**{"nu": 2.84} | keys)[0]
    row = run(alone, 250, neutrons=5000, **keys).sample()
    assert abs(row["k_mean"] - wanted) < 4 * row["k_error"] and row["k_error"] < 2e-3 * wanted, (row, wanted)
    assert abs(wanted - 1) > 0.1


@pytest.mark.parametrize(("geometry", "size"), [("slab", 15.0), ("sphere", 8.0)])
def test_neutrons_are_born_where_the_fundamental_mode_says(alone, geometry, size):
    _, depth, weight = multiplication(geometry, size, 2.84, n=300)
    state, edges = simulation(alone, geometry=geometry, size=size, neutrons=20000, bins=8), np.linspace(0, 1, 9)
    share = depth / size if geometry == "slab" else (depth / size) ** 3
    order = np.argsort(share)
    wanted = np.diff(np.interp(edges, share[order], np.cumsum(weight[order]) - weight[order] / 2, 0, 1))
    found = []
    for generation in range(160):
        state.step()
        if generation >= 60:
            found.append(state.counts() / 20000)
    batches = np.array(found).reshape(10, 10, 8).mean(axis=1)
    error = batches.std(axis=0, ddof=1) / math.sqrt(10)
    assert (np.abs(batches.mean(axis=0) - wanted) < 5 * error + 5e-4).all(), (batches.mean(axis=0), wanted, error)
    assert wanted.max() / wanted.min() > 1.5
    last = criticality.entropy(state.counts())
    assert abs(last + (wanted * np.log2(wanted)).sum()) < 0.01 < 3 - last


def test_k_is_off_as_often_as_its_error_says(alone):
    """By 20 batches of 5 generations, whose means follow Student's distribution with 19 degrees of freedom."""
    wanted, z = multiplication("slab", 4.513502, 2.84)[0], []
    for seed in range(150):
        row = run(alone, 110, neutrons=200, inactive=10, batch=5, seed=seed).sample()
        z.append((row["k_mean"] - wanted) / row["k_error"])
    assert stats.kstest(z, stats.t(19).cdf).pvalue > 0.01
    assert 0.84 < np.std(z) / math.sqrt(19 / 17) < 1.17, np.std(z)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 10**6), st.integers(1, 3000), st.floats(0, 1, exclude_max=True), st.data())
def test_parts_of_a_comb_make_the_whole(total, count, offset, data):
    start, whole = criticality.comb(0, total, total, count, offset)
    assert start == 0 and len(whole) == count and (np.diff(whole) >= 0).all() and 0 <= whole[0] <= whole[-1] < total
    times = np.bincount(whole - whole[0])
    assert times.max() <= math.ceil(count / total) + 1 and (total > count or times.min() >= count // total - 1)
    cuts = [0, *sorted(data.draw(st.lists(st.integers(0, total), max_size=4))), total]
    at = 0
    for first, end in itertools.pairwise(cuts):
        start, chosen = criticality.comb(first, end, total, count, offset)
        assert not len(chosen) or start == at
        np.testing.assert_array_equal(chosen, whole[at : at + len(chosen)])
        assert ((chosen >= first) & (chosen < end)).all()
        at += len(chosen)
    assert at == count


def test_entropy_and_batches_of_known_numbers():
    assert criticality.entropy(np.array([5, 5, 5, 5])) == 2 and criticality.entropy(np.array([0, 7])) == 0
    mean, error = criticality.averaged(np.array([1.0, 3.0, 5.0, 7.0, 100.0]), 2)
    assert mean == 23.2 and error == pytest.approx(2.0)
    assert criticality.averaged(np.array([1.0, 3.0, 5.0]), 2) == (3.0, math.inf)
    assert math.isnan(criticality.averaged(np.zeros(0), 2)[0])


@pytest.mark.mpi
@pytest.mark.parametrize("neutrons", [1, 2, 7, 1000])
@pytest.mark.parametrize("geometry", ["slab", "sphere"])
@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_any_ranks_and_shares_give_the_same_bits(comm, assert_all, monkeypatch, neutrons, geometry, backend):
    from mpi4py import MPI

    keys = {"geometry": geometry, "neutrons": neutrons, "size": 40.0, "seed": 2, "inactive": 2, "batch": 2}
    one, many = simulation(MPI.COMM_SELF, **keys), [simulation(comm, backend, **keys)]
    for trial in range(2):
        uneven = np.random.default_rng(trial).uniform(0.2, 3, comm.size)
        monkeypatch.setattr(speeds, "measured", lambda comm, kind, uneven=uneven: (uneven, kind))
        many.append(simulation(comm, backend, **keys))
    for generation in range(8):
        one.step()
        told = one.sample()
        for number, state in enumerate(many):
            state.step()
            here = slice(state.first, state.first + len(state.places))
            assert_all((state.places == one.places[here]).all(), f"generation {generation}")
            found = state.sample()
            assert_all(found == told and (state.ks == one.ks).all(), f"{found} {told}")
            if generation == 4:
                balance.move(state, np.random.default_rng(number).uniform(0.2, 3, comm.size))
    assert_all(len(set(one.ks)) > 1 or neutrons == 1)


def test_a_generation_without_offspring_ends_the_run(alone):
    with pytest.raises(Fault, match="none of 1 neutrons had offspring: more neutrons, or a larger body"):
        run(alone, 200, neutrons=1, size=0.5)


def test_a_run_and_its_restart(launch, alone, tmp_path):
    """Stopped half way and gone on with on other ranks, the files are those of a run that never stopped."""
    words = ["--set", "neutrons=600", "--set", "inactive=10", "--set", "every=20", "--quiet"]
    whole = [*words, "--steps", "60", "--out", str(tmp_path / "whole")]
    assert program.run(criticality.Criticality, alone, whole) == 0
    words = ["-m", "brmpi.montecarlo.criticality", *words]
    assert launch(5, *words, "--steps", 40, "--out", "cut").returncode == 0
    done = launch(2, *words, "--steps", 60, "--out", "cut", "--restart")
    assert done.returncode == 0, done.stderr
    for step in (0, 20, 40, 60):
        name = f"snapshots/criticality_{step:08d}.h5"
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes()
    whole, cut = (diagnostics.read(tmp_path / name / "diagnostics.h5") for name in ("whole", "cut"))
    for column in ("step", "k", "k_mean", "k_error", "entropy"):
        np.testing.assert_array_equal(whole[column], cut[column])
    assert snapshots.read(tmp_path / "whole" / name).meshes["sources"].piece.data[:].mean() == pytest.approx(1)


@pytest.mark.parametrize(("pair", "words"), [
    ("geometry=cube", "geometry = 'cube': must be one of slab, sphere"), ("size=0", "size = 0: must be > 0"),
    ("scattering=0.3", "total = 0.3264: must be >= scattering + fission = 0.3816"),
    ("size=4000", "size = 4000.0: is 1305.6 mean free paths, must be <= 1000"), ("nu=-1", "nu = -1: must be > 0"),
    ("neutrons=0", "neutrons = 0: must be >= 1"), ("batch=0", "batch = 0: must be >= 1"),
    ("fission=0", "fission = 0: must be > 0"), ("inactiv=1", "did you mean 'inactive'?")])
def test_bad_input(pair, words):
    with pytest.raises(BadInput) as told:
        case.load(criticality.Case, None, [pair.split("=")])
    assert words in str(told.value)


@pytest.mark.parametrize("name", sorted(file.stem for file in FOLDER.glob("*.toml")))
def test_cases_do_what_they_say(alone, capsys, tmp_path, name):
    text = (FOLDER / f"{name}.toml").read_text()
    assert all(word in text for word in ("# Shows: ", "# Cost: ", "# Must hold: "))
    words = [str(FOLDER / f"{name}.toml"), "--out", str(tmp_path / "run")]
    assert program.run(criticality.Criticality, alone, words) == 0
    assert "neutrons/s; k = " in capsys.readouterr().out
    rows = diagnostics.read(tmp_path / "run/diagnostics.h5")
    assert abs(rows["k_mean"][-1] - 1) < 4 * rows["k_error"][-1] and 0 < rows["k_error"][-1] < 1e-3
    assert len(rows["k"]) == 301 and rows["entropy"][0] > rows["entropy"][-1]
