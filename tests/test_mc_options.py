"""Option prices: closed forms, published tables, a binomial tree; error bars that cover; the same bits on any ranks."""

import dataclasses
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from sampled import estimates, normal, off, told
from scipy import integrate, stats

from brmpi import case
from brmpi.errors import BadInput
from brmpi.montecarlo import blackscholes, heston
from brmpi.montecarlo.options import BARRIERS, Case, Options
from brmpi.montecarlo.paths import bridge

ROOT = Path(__file__).parent.parent
CASES = ROOT / "sims/montecarlo/options"
PUT = {"payoff": "american", "kind": "put", "strike": 40.0, "rate": 0.06}


def lognormal_mean(function, spot, rate, dividend, volatility, maturity):
    """The mean of a function of the price at expiry, by quadrature."""
    root = volatility * math.sqrt(maturity)
    drift = math.log(spot) + (rate - dividend - volatility**2 / 2) * maturity
    return integrate.quad(lambda z: function(math.exp(drift + root * z)) * stats.norm.pdf(z), -12, 12, limit=400,
                          points=[-1, 0, 1])[0]


@pytest.mark.parametrize("kind", ["call", "put"])
def test_black_and_scholes_by_quadrature(kind):
    terms = (0.03, 0.01, 0.25, 1.5)
    sign = {"call": 1, "put": -1}[kind]
    mean = lognormal_mean(lambda s: max(sign * (s - 110), 0), 100, *terms) * math.exp(-0.03 * 1.5)
    assert blackscholes.european(kind, 100, 110, *terms) == pytest.approx(mean, rel=1e-6)
    greeks = blackscholes.greeks(kind, 100, 110, *terms)
    up, here, down = (blackscholes.european(kind, spot, 110, *terms) for spot in (100.01, 100, 99.99))
    assert greeks["delta"] == pytest.approx((up - down) / 0.02, rel=1e-6)
    assert greeks["gamma"] == pytest.approx((up - 2 * here + down) / 1e-4, rel=1e-4)
    more, less = (blackscholes.european(kind, 100, 110, 0.03, 0.01, 0.25 + h, 1.5) for h in (1e-4, -1e-4))
    assert greeks["vega"] == pytest.approx((more - less) / 2e-4, rel=1e-6)


@pytest.mark.parametrize("payoff", BARRIERS)
@pytest.mark.parametrize("kind", ["call", "put"])
@pytest.mark.parametrize("strike", [80.0, 100.0, 125.0])
def test_barriers_by_the_reflected_density(payoff, kind, strike):
    """The density of paths that never touch the barrier is that of all less that of their mirror images, weighted."""
    spot, level, rate, dividend, volatility, maturity = 100.0, 115.0, 0.05, 0.02, 0.3, 0.7
    level = level if payoff.startswith("up") else 88.0
    drift, root = rate - dividend - volatility**2 / 2, volatility * math.sqrt(maturity)
    wall = math.log(level / spot)
    sign = 1 if kind == "call" else -1

    def _kept(x):
        alive = stats.norm.pdf(x, drift * maturity, root)
        mirrored = math.exp(2 * drift * wall / volatility**2) * stats.norm.pdf(x, drift * maturity + 2 * wall, root)
        return max(sign * (spot * math.exp(x) - strike), 0) * (alive - mirrored)

    edges = sorted({wall, math.log(strike / spot)})
    low, high = (-4, wall) if payoff.startswith("up") else (wall, 4)
    cuts = [low, *(edge for edge in edges if low < edge < high), high]
    outside = sum(integrate.quad(_kept, a, b, epsabs=1e-12, limit=200)[0] for a, b in itertools.pairwise(cuts))
    outside *= math.exp(-rate * maturity)
    terms = (rate, dividend, volatility, maturity)
    whole = blackscholes.european(kind, spot, strike, *terms)
    expected = outside if payoff.endswith("out") else whole - outside
    assert blackscholes.barrier(kind, payoff, spot, strike, level, *terms) == pytest.approx(expected, abs=2e-7)


def test_heston_against_a_published_price_and_black_and_scholes():
    # Broadie & Kaya, Operations Research 54 (2006) 217, table 1: 6.8061
    model = heston.Model(0.010201, 6.21, 0.019, 0.61, -0.70)
    assert heston.european("call", 100, 100, 0.0319, 0, 1, model) == pytest.approx(6.8061, abs=6e-5)
    still = heston.Model(0.04, 1.0, 0.04, 1e-4, 0.0)
    for strike in (80, 100, 130):
        for kind in ("call", "put"):
            expected = blackscholes.european(kind, 100, strike, 0.05, 0.02, 0.2, 1)
            assert heston.european(kind, 100, strike, 0.05, 0.02, 1, still) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 64])
def test_the_bridge_makes_brownian_paths(steps):
    times = np.arange(1, steps + 1)
    np.testing.assert_allclose(bridge(steps) @ bridge(steps).T, np.minimum.outer(times, times), atol=1e-12 * steps)


KEYS = [
    {}, {"kind": "put", "dividend": 0.03}, {"way": "antithetic", "greeks": "pathwise"},
    {"greeks": "bump", "bump": 0.02}, {"way": "stratified", "block": 512}, {"payoff": "geometric-asian", "steps": 7},
    {"strike": 150.0, "shift": 2.0}, {"payoff": "up-and-in", "barrier": 115.0, "steps": 5, "kind": "put"},
    {"payoff": "down-and-out", "barrier": 92.0, "steps": 4},
    {"payoff": "up-and-out", "barrier": 140.0, "steps": 3, "control": True},
    {"model": "heston", "steps": 40, "control": True},
]


@pytest.mark.parametrize("keys", KEYS, ids=str)
def test_prices_and_greeks_are_as_far_off_as_their_errors_say(keys, alone):
    scores = [off(Options, alone, 8192, seed=seed, **{"block": 8192, **keys}) for seed in range(60)]
    for name in scores[0]:
        found = np.array([score[name] for score in scores])
        bias = 1.0 if name == "gamma" or keys.get("model") == "heston" else 0.55  # bumps and steps leave some
        assert normal(found) > 1e-3 and abs(found.mean()) < bias, (name, found.mean(), found.std())


@pytest.mark.parametrize("keys", [{}, {"payoff": "asian", "steps": 8}, {"greeks": "pathwise"}], ids=str)
def test_sobols_errors_are_student_and_small(keys, alone):
    scores, errors = [], []
    _, near, _ = estimates(Options, alone, 2**20, way="sobol", seed=99, block=2**16, **keys)
    for seed in range(40):
        program, values, error = estimates(Options, alone, 2**14, way="sobol", seed=seed, block=2**14, **keys)
        scores.append((values[0] - program.exact().get("price", near[0])) / error[0])
        errors.append(error[0])
    _, _, plain = estimates(Options, alone, 2**14, way="plain", **keys)
    assert normal(scores, 15) > 1e-3 and max(errors) < plain[0] / 5


def test_controls_and_shifts_reduce_the_error(alone):
    for keys, part in (({"payoff": "asian", "steps": 20}, 0.06),
                       ({"payoff": "basket", "spot": (100.0, 80.0, 120.0)}, 0.15),
                       ({"model": "heston", "steps": 20}, 0.7), (PUT | {"spot": (36.0,), "steps": 20}, 0.9)):
        _, _, plain = estimates(Options, alone, 2**15, **keys)
        _, _, less = estimates(Options, alone, 2**15, control=True, **keys)
        assert less[0] < part * plain[0], keys
    _, _, plain = estimates(Options, alone, 2**15, strike=170.0)
    _, _, less = estimates(Options, alone, 2**15, strike=170.0, shift=2.7)
    assert less[0] < plain[0] / 10


def test_a_basket_of_one_kind_and_calls_less_puts(alone):
    _, one, error = estimates(Options, alone, 2**16, payoff="basket", spot=(100.0, 100.0), correlation=0.9999999)
    assert abs(one[0] - blackscholes.european("call", 100, 100, 0.05, 0, 0.2, 1)) < 4 * error[0]
    for keys in ({}, {"payoff": "asian", "steps": 6}, {"model": "heston", "steps": 6}):
        pair = [estimates(Options, alone, 2**15, kind=kind, dividend=0.02, strike=90.0, control=True, **keys)
                for kind in ("call", "put")]
        forwards = [100 * math.exp(0.03 * (step + 1) / 6) for step in range(6)]
        forward = np.mean(forwards) if "payoff" in keys else forwards[-1]
        apart = pair[0][1][0] - pair[1][1][0] - math.exp(-0.05) * (forward - 90)
        assert abs(apart) < 5 * (pair[0][2][0] + pair[1][2][0]), keys


def test_the_kernel_prices_as_the_points_do(alone):
    program, fast, _ = estimates(Options, alone, 2**14, block=4096)
    assert program.by_kernel
    general, slow, _ = estimates(Options, alone, 2**14, block=4097)
    assert not general.by_kernel
    assert abs(fast[0] - slow[0]) < 0.3  # other numbers, the same price
    _, asian, error = estimates(Options, alone, 2**18, payoff="asian", steps=10)
    _, known, least = estimates(Options, alone, 2**18, payoff="asian", steps=10, control=True)
    assert abs(asian[0] - known[0]) < 4 * (error[0] + least[0])


def tree(spot, strike, rate, volatility, maturity, steps):
    """An American put by a binomial tree."""
    dt = maturity / steps
    up = math.exp(volatility * math.sqrt(dt))
    part, fade = (math.exp(rate * dt) - 1 / up) / (up - 1 / up), math.exp(-rate * dt)
    value = np.maximum(strike - spot * up ** (2.0 * np.arange(steps + 1) - steps), 0)
    for step in range(steps - 1, -1, -1):
        value = fade * (part * value[1:] + (1 - part) * value[:-1])
        value = np.maximum(value, strike - spot * up ** (2.0 * np.arange(step + 1) - step))
    return value[0]


@pytest.mark.parametrize(("spot", "volatility", "maturity", "published"), [
    (36.0, 0.2, 1.0, 4.478), (36.0, 0.4, 1.0, 7.101), (40.0, 0.2, 1.0, 2.314), (44.0, 0.4, 2.0, 5.647)])
def test_american_puts_of_longstaff_and_schwartz(alone, spot, volatility, maturity, published):
    assert tree(spot, 40.0, 0.06, volatility, maturity, 2000) == pytest.approx(published, abs=0.01)
    dates = round(50 * maturity)
    _, value, error = estimates(Options, alone, 2**17, spot=(spot,), volatility=(volatility,), maturity=maturity,
                                steps=dates, control=True, **PUT)
    assert error[0] < 0.015
    assert published - 0.03 - 3 * error[0] < value[0] < published + 3 * error[0]  # a rule from below, 50 dates a year


def test_bad_input_is_refused():
    for keys in ({"payoff": "up-and-out", "barrier": 90.0}, {"volatility": (-0.1,)}, {"payoff": "lookback"},
                 {"payoff": "basket", "spot": (1.0, 1.0, 1.0), "correlation": -0.6}, {"way": "sobol", "steps": 30000},
                 {"greeks": "pathwise", "payoff": "american"}, {"error": 0.0}, {"spot": (1.0, 2.0)}, {"rho": -1.5},
                 {"model": "heston", "payoff": "american"}, {"way": "sobol", "control": True}, {"weights": (1.0,) * 3}):
        with pytest.raises(BadInput):
            case.build(Case, keys, {}, "--set")
    assert dataclasses.fields(Case)


@pytest.mark.parametrize(("keys", "others"), [
    ((), [(2, "static"), (5, "dynamic")]), (("way=sobol", "greeks=bump", "block=2048"), [(3, "dynamic")]),
    (("payoff=american", "kind=put", "training=9000", "steps=9"), [(5, "static")])], ids=str)
def test_the_same_bits_on_any_number_of_ranks(launch, tmp_path, keys, others):
    words = [word for key in (*keys, "samples=70000") for word in ("--set", key)]
    for ranks, dealing in ((0, "dynamic"), *others):
        done = launch(ranks, "-m", "brmpi.montecarlo.options", *words, "--set", f"dealing={dealing}", "--out",
                      f"on-{ranks}")
        assert done.returncode == 0, done.stderr
        assert told(tmp_path / "on-0") == told(tmp_path / f"on-{ranks}")


def test_refusals_are_one_sentence(launch):
    for ranks in (1, 3):
        done = launch(ranks, "-m", "brmpi.montecarlo.options", "--set", "volatility=[-0.2]")
        assert done.returncode == 2 and done.stdout == ""
        assert done.stderr.count("volatility[0] = -0.2: must be >= 0") == 1


@pytest.mark.parametrize("file", sorted(CASES.glob("*.toml")), ids=lambda file: file.stem)
def test_what_the_cases_say_holds(file, alone):
    text = file.read_text()
    assert text.startswith("# ") and "Takes" in text and "Must hold" in text
    loaded = case.load(Case, file)
    keys = {field.name: getattr(loaded, field.name) for field in dataclasses.fields(Case)}
    samples = keys.pop("samples")
    program, values, errors = estimates(Options, alone, samples, **keys)
    exact = program.exact()
    if file.stem == "american":
        assert abs(values[0] - 4.472) < 0.02 and abs(values[0] - 4.478) < 0.02
    elif file.stem == "asian":
        _, _, without = estimates(Options, alone, samples, **(keys | {"control": False}))
        assert errors[0] < without[0] / 20
    else:
        near = 5 if keys["way"] == "sobol" else 4
        for name, value, error in zip(program.quantities, values, errors):
            assert name == "gamma" or abs(value - exact[name]) < near * error, name
