"""American options: published tables, a binomial tree, calls that nobody exercises early; one rule on any ranks."""

import math

import numpy as np
import pytest
from conftest import made
from sampled import estimates, told

from brmpi.montecarlo import blackscholes, longstaff
from brmpi.montecarlo.options import Options

PUT = {"payoff": "american", "kind": "put", "strike": 40.0, "rate": 0.06}


def tree(spot, strike, rate, volatility, maturity, steps, every=1):
    """An American put by a binomial tree, or one that may be exercised after some of its steps alone."""
    dt = maturity / steps
    up = math.exp(volatility * math.sqrt(dt))
    part, fade = (math.exp(rate * dt) - 1 / up) / (up - 1 / up), math.exp(-rate * dt)
    value = np.maximum(strike - spot * up ** (2.0 * np.arange(steps + 1) - steps), 0)
    for step in range(steps - 1, -1, -1):
        value = fade * (part * value[1:] + (1 - part) * value[:-1])
        if step % every == 0 and (step or every == 1):
            value = np.maximum(value, strike - spot * up ** (2.0 * np.arange(step + 1) - step))
    return value[0]


@pytest.mark.parametrize(("spot", "volatility", "maturity", "published", "simulated"), [
    (36.0, 0.2, 1.0, 4.478, 4.472), (36.0, 0.4, 1.0, 7.101, 7.091), (40.0, 0.2, 1.0, 2.314, 2.313),
    (44.0, 0.4, 2.0, 5.647, 5.622)])
def test_puts_of_longstaff_and_schwartz(alone, spot, volatility, maturity, published, simulated):
    """Table 1: by finite differences, and by simulation with standard errors of 0.009 to 0.024."""
    dates = round(50 * maturity)
    assert tree(spot, 40.0, 0.06, volatility, maturity, 2000) == pytest.approx(published, abs=0.01)
    exact = tree(spot, 40.0, 0.06, volatility, maturity, 20 * dates, 20)
    _, value, error = estimates(Options, alone, 2**15, spot=(spot,), volatility=(volatility,), maturity=maturity,
                                steps=dates, control=True, **PUT)
    assert error[0] < 0.03 and abs(value[0] - simulated) < 0.03 + 2 * error[0]
    assert exact - 0.005 * exact - 3 * error[0] < value[0] < exact + 3 * error[0]  # from below


def test_error_bars_of_one_rule_cover(alone):
    """Over seeds, each with a rule of its own: the spread is what the errors say, and the mean is below the tree's."""
    keys = PUT | {"spot": (38.0,), "steps": 8, "training": 4096, "block": 4096}
    found = [estimates(Options, alone, 4096, seed=seed, control=True, **keys)[1:] for seed in range(100)]
    values, errors = np.array([(value[0], error[0]) for value, error in found]).T
    exact = tree(38.0, 40.0, 0.06, 0.2, 1.0, 800, 100)
    low = (values - exact) / errors
    assert 0.8 < low.std() < 1.25 and -1.0 < low.mean() < 0.3
    assert exact * 0.99 < values.mean() < exact + 3 * errors.mean() / 10


def test_a_call_without_dividends_is_not_exercised_early(alone):
    exact = blackscholes.european("call", 100, 100, 0.05, 0, 0.2, 1)
    _, value, error = estimates(Options, alone, 2**16, payoff="american", steps=10)
    assert -0.01 * exact - 3 * error[0] < value[0] - exact < 3 * error[0]


def test_derivatives_of_a_put(alone):
    program, values, errors = estimates(Options, alone, 2**16, spot=(40.0,), steps=25, greeks="bump", bump=0.02, **PUT)
    up, here, down = (tree(40.0 + h, 40.0, 0.06, 0.2, 1.0, 1500) for h in (0.8, 0, -0.8))
    more, less = (tree(40.0, 40.0, 0.06, 0.2 + h, 1.0, 1500) for h in (0.01, -0.01))
    exact = {"delta": (up - down) / 1.6, "gamma": (up - 2 * here + down) / 0.64, "vega": (more - less) / 0.02}
    for name, value, error in list(zip(program.quantities, values, errors))[1:]:
        assert abs(value - exact[name]) < 4 * error + 0.02 * abs(exact[name]), name
        assert error < 0.2 * abs(exact[name])


def test_when_to_exercise_now_is_said(alone):
    program, values, errors = estimates(Options, alone, 2**12, spot=(20.0,), steps=5, training=1024, block=4096, **PUT)
    assert program.told(values, errors) == ["to exercise now pays more: 20"]
    program, values, errors = estimates(Options, alone, 2**12, spot=(40.0,), steps=5, training=1024, block=4096, **PUT)
    assert program.told(values, errors) == []


@pytest.mark.mpi
@pytest.mark.parametrize("training", [64, 5000, 20000])
def test_the_rule_is_the_same_bits_on_any_ranks(comm, alone, assert_all, training):
    """Whatever the speeds; with fewer blocks of paths than ranks, too."""
    keys = PUT | {"spot": (36.0,), "steps": 12, "training": training}
    mine = made(Options, alone, **keys)
    mine.prepare()
    for speeds in (np.ones(comm.size), 1.0 + np.arange(comm.size)):
        program = made(Options, comm, **keys)
        program.speeds = speeds
        program.prepare()
        assert_all(program.rule.tobytes() == mine.rule.tobytes(), "another rule")
    values = [part.tobytes() for part in (program.estimator.block(0, 1000), mine.estimator.block(0, 1000))]
    assert_all(values[0] == values[1], "another row")


def test_regression_finds_a_polynomial(alone):
    """Where going on is worth a cubic of the price for certain, the rule is that cubic."""
    rng = np.random.default_rng(5)
    now = rng.uniform(0.6, 1.4, 9000)

    def _worth(price):
        return 0.5 + 0.3 * (price - 1) - 0.4 * (price - 1) ** 3

    prices = np.column_stack([now, _worth(now)])  # what the second step pays is the price itself
    found = longstaff.fitted(alone, lambda first, count: prices[first:first + count], lambda price: price, len(now),
                             0.9, 1.0, 3, np.ones(1))
    grid = np.linspace(0.6, 1.4, 33)
    np.testing.assert_allclose(longstaff.basis(grid, 1.0, 3) @ found[0], 0.9 * _worth(grid), atol=1e-9)


def test_the_same_bits_on_any_number_of_ranks(launch, tmp_path):
    words = [word for key in ("payoff=american", "kind=put", "training=9000", "steps=9", "samples=30000", "block=2048")
             for word in ("--set", key)]
    for ranks, dealing in ((0, "dynamic"), (2, "dynamic"), (5, "static")):
        done = launch(ranks, "-m", "brmpi.montecarlo.options", *words, "--set", f"dealing={dealing}", "--out",
                      f"on-{ranks}")
        assert done.returncode == 0, done.stderr
        assert told(tmp_path / "on-0") == told(tmp_path / f"on-{ranks}")
