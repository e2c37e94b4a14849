"""Markov chains: moments that are known, peaks that lie apart, what chains are worth in closed form, the same bits."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from conftest import made
from scipy import signal, stats

from brmpi import case
from brmpi.errors import BadInput
from brmpi.montecarlo import chains
from brmpi.montecarlo.mcmc import KEPT, Case, Mcmc, exchanged, proposed
from brmpi.results import diagnostics, snapshots

ROOT = Path(__file__).parent.parent
CASES = ROOT / "sims/montecarlo/mcmc"


def autoregressive(rho, m, n, seed):
    """Chains x' = rho x + noise, begun as they go on."""
    noise = np.random.default_rng(seed).standard_normal((m, n))
    start = noise[:, :1] / np.sqrt(1 - rho**2) - noise[:, :1]
    return signal.lfilter([1], [1, -rho], np.hstack([noise[:, :1] + start, noise[:, 1:]]), axis=1)


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9, -0.4])
def test_effective_samples_of_autoregressive_chains(rho):
    n = 20000
    found = [chains.effective(autoregressive(rho, 4, n, seed)) for seed in range(6)]
    assert np.mean(found) == pytest.approx(4 * n * (1 - rho) / (1 + rho), rel=0.08)
    scores = []
    for seed in range(150):
        chain = autoregressive(rho, 2, 4000, seed)
        scores.append(chain.mean() / chains.error(chain))
    assert stats.kstest(scores, "norm").pvalue > 1e-3


def test_autocovariance_is_the_sum_that_defines_it():
    x = np.random.default_rng(1).standard_normal((2, 50))
    off = x - x.mean(axis=1, keepdims=True)
    expected = [[(row[: 50 - lag] * row[lag:]).sum() / 50 for lag in range(50)] for row in off]
    np.testing.assert_allclose(chains.autocovariance(x), expected, atol=1e-12)


def test_rhat_sees_chains_that_differ_in_place_or_width():
    alike = autoregressive(0.3, 4, 2000, 3)
    assert abs(chains.rhat(alike) - 1) < 0.01
    assert chains.rhat(alike + np.array([0, 0, 0, 1.5])[:, None]) > 1.1
    assert chains.rhat(alike * np.array([1, 1, 1, 4.0])[:, None]) > 1.05
    assert chains.rhat(alike + np.linspace(0, 3, 2000)) > 1.1  # chains that drift together
    heavy = np.random.default_rng(5).standard_cauchy((4, 1000))
    assert abs(chains.rhat(heavy) - 1) < 0.02  # ranks do not mind
    for few in (np.zeros((3, 10)), np.zeros((2, 2)), np.zeros((1, 0))):
        assert np.isnan(chains.rhat(few)) and np.isnan(chains.effective(few))


def test_stretches_have_the_density_that_makes_them_fair():
    random = np.random.default_rng(2).random((1, 200_000, 3))
    walkers, others = np.full((1, 200_000, 1), 1.0), np.zeros((1, 3, 1))
    places, volume = proposed(walkers, others, random)
    stretch = places[0, :, 0]
    assert stretch.min() >= 0.5 and stretch.max() <= 2 and not volume.any()  # one dimension
    cdf = (np.sqrt(stretch) - np.sqrt(0.5)) / (np.sqrt(2) - np.sqrt(0.5))  # g(z) ~ 1 / sqrt(z)
    assert stats.kstest(cdf[:5000], "uniform").pvalue > 1e-3
    _, volume = proposed(np.ones((1, 4, 3)), np.zeros((1, 4, 3)), random[:, :4])
    np.testing.assert_allclose(volume, 2 * np.log(stretch[None, :4]))


def test_exchanges_keep_the_balance():
    """Two temperatures of a density of two states: the joint weights do not change."""
    log, powers = np.log([0.8, 0.2]), np.array([1.0, 0.3])
    weights = np.array([[np.exp(powers[0] * log[i] + powers[1] * log[j]) for j in (0, 1)] for i in (0, 1)])
    after, grid = np.zeros((2, 2)), (np.arange(2000) + 0.5) / 2000
    for i in (0, 1):
        for j in (0, 1):
            taken = exchanged(np.array([[log[i]] * 2000, [log[j]] * 2000]), powers, 0, np.tile(grid, (2, 1)))[0].mean()
            after[j, i] += taken * weights[i, j]
            after[i, j] += (1 - taken) * weights[i, j]
    np.testing.assert_allclose(after, weights, rtol=2e-3)


@pytest.mark.parametrize("keys", [{}, {"density": "banana", "dimension": 2, "walkers": 30, "steps": 3000}], ids=str)
def test_moments_of_known_densities(keys, alone):
    scores = []
    for seed in range(4):
        chain = made(Mcmc, alone, **({"steps": 1500, "seed": seed} | keys))
        for _ in range(chain.case.steps):
            chain.step()
        values, errors = chain.moments()
        scores.append((values - chain.mean) / errors)
        spread = chain.history.reshape(-1, chain.case.dimension).var(axis=0)
        np.testing.assert_allclose(spread, chain.variance, rtol=0.3)
        assert 0.15 < chain.counts[1] / chain.counts[0] < 0.85
    assert np.abs(scores).max() < 4.5 and np.sqrt(np.mean(np.square(scores))) < 2.0


def test_temperatures_find_both_peaks_and_one_does_not(alone):
    def _left(**keys):
        chain = made(Mcmc, alone, density="peaks", dimension=5, walkers=20, width=0.3, steps=1500, **keys)
        chain.places[..., 0] += 4.0  # all begin in one peak
        chain.log = chain._densities(chain.places)
        for _ in range(1500):
            chain.step()
        return (chain.history[..., 0] < 0).mean(), chain

    alone_left, _ = _left()
    share, chain = _left(temperatures=6)
    assert alone_left < 0.15
    inside = (chain.history[..., 0] < 0).mean(axis=1)
    assert abs(share - 0.3) < 4 * chains.error(inside[None]) and chains.error(inside[None]) < 0.06
    assert 0.2 < chain.counts[3] / chain.counts[2] < 0.95


def test_history_is_thinned_where_it_grows_too_long(alone):
    chain = made(Mcmc, alone, dimension=1, walkers=4, burn=0)
    kept = []
    for _ in range(KEPT + 300):
        chain.step()
        kept.append(chain.places[0].copy())
    assert chain.every == 2 and len(chain.history) == KEPT // 2 + 150
    np.testing.assert_array_equal(chain.history, np.array(kept)[1::2])


def test_the_same_bits_on_any_number_of_ranks_and_after_a_restart(launch, tmp_path):
    def _run(ranks, out, *words):
        keys = ("temperatures=3", "walkers=14", "dimension=3", "burn=5", "every=20", "sample=7")
        words = [*(word for key in keys for word in ("--set", key)), "--out", out, *words]
        done = launch(ranks, "-m", "brmpi.montecarlo.mcmc", *words)
        assert done.returncode == 0, done.stderr
        rows = diagnostics.read(tmp_path / out / "diagnostics.h5")
        last = sorted((tmp_path / out / "snapshots").iterdir())[-1]
        return {name: row.tobytes() for name, row in rows.items() if not name.startswith("wall/")}, last.read_bytes()

    whole = _run(0, "one", "--steps", "60")
    assert _run(5, "five", "--steps", "60") == whole
    _run(2, "again", "--steps", "33")
    assert _run(3, "again", "--steps", "60", "--restart") == whole
    file = sorted((tmp_path / "one/snapshots").iterdir())[-1]
    assert snapshots.read(file).particles["walkers"].total == 14 * 56


@pytest.mark.mpi
def test_ranks_without_walkers(comm, assert_all):
    chain = made(Mcmc, comm, dimension=1, walkers=4)
    for _ in range(5):
        chain.step()
    assert_all(all(np.array_equal(places, chain.places) for places in comm.allgather(chain.places)))


def test_a_density_of_ones_own(launch, tmp_path):
    (tmp_path / "mine.py").write_text("def log(x):\n    return -0.5 * ((x[:, 0] - 3) / 0.5) ** 2\n\n"
                                      "def short(x):\n    return x[0]\n\n"
                                      "def nan(x):\n    return x[:, 0] * float('nan')\n")
    keys = ("--set", "dimension=1", "--set", "walkers=10", "--set", "width=4", "--steps", "800", "--quiet")
    done = launch(2, "-m", "brmpi.montecarlo.mcmc", "--set", "function=mine:log", *keys, "--out", "run")
    assert done.returncode == 0, done.stderr
    rows = diagnostics.read(tmp_path / "run/diagnostics.h5")
    assert abs(rows["mean_0"][-1] - 3) < 4 * rows["mean_0_error"][-1] < 0.2
    for name, sentence in (("mine:short", "must be one log density a place"), ("mine:nan", "is NaN or +inf"),
                           ("mine:no", "has no attribute")):
        done = launch(2, "-m", "brmpi.montecarlo.mcmc", "--set", f"function={name}", *keys)
        assert done.returncode == 2 and done.stderr.count(sentence) == 1, done.stderr


def test_bad_input_is_refused():
    for keys in ({"walkers": 5}, {"walkers": 4, "dimension": 3}, {"density": "banana", "dimension": 3},
                 {"density": "line", "dimension": 2}, {"hottest": 1.0, "temperatures": 3}, {"function": "mine"}):
        with pytest.raises(BadInput):
            case.build(Case, keys, {}, "--set")


@pytest.mark.parametrize("file", sorted(CASES.glob("*.toml")), ids=lambda file: file.stem)
def test_what_the_cases_say_holds(launch, tmp_path, file):
    text = file.read_text()
    assert text.startswith("# ") and "Takes" in text and "Must hold" in text
    done = launch(0, "-m", "brmpi.montecarlo.mcmc", file, "--steps", 2500, "--out", "run", timeout=90)
    assert done.returncode == 0, done.stderr
    last = {name: row[-1] for name, row in diagnostics.read(tmp_path / "run/diagnostics.h5").items()}
    if file.stem == "peaks":
        assert abs(last["mean_0"] - 1.6) < 4 * last["mean_0_error"] < 0.4
    else:
        x = np.linspace(-1, 1, 40)
        slope, intercept = np.polyfit(x, 1.0 + 2.0 * x + 0.3 * np.sin(37.0 * np.arange(40)), 1)
        assert abs(last["mean_0"] - intercept) < 0.01 and abs(last["mean_1"] - slope) < 0.01 and last["rhat"] < 1.05
    assert dataclasses.asdict(case.load(Case, file))["steps"] == 4000
