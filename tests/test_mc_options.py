"""Option prices: closed forms, published tables, quadrature; error bars that cover; the same bits on any ranks."""

import dataclasses
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from conftest import made
from sampled import estimates, normal, off, told
from scipy import integrate, stats

from brmpi import case
from brmpi.errors import BadInput
from brmpi.montecarlo import blackscholes, heston
from brmpi.montecarlo.options import BARRIERS, Case, Options
from brmpi.montecarlo.paths import bridge

ROOT = Path(__file__).parent.parent
CASES = ROOT / "sims/montecarlo/options"
KINDS = {"call": 1, "put": -1}


def lognormal_mean(function, spot, rate, dividend, volatility, maturity):
    """The mean of a function of the price at expiry, by quadrature."""
    root = volatility * math.sqrt(maturity)
    drift = math.log(spot) + (rate - dividend - volatility**2 / 2) * maturity
    return integrate.quad(lambda z: function(math.exp(drift + root * z)) * stats.norm.pdf(z), -12, 12, limit=400,
                          points=[-1, 0, 1])[0]


@pytest.mark.parametrize("kind", ["call", "put"])
def test_black_and_scholes_by_quadrature(kind):
    terms = (0.03, 0.01, 0.25, 1.5)
    sign = KINDS[kind]
    mean = lognormal_mean(lambda s: max(sign * (s - 110), 0), 100, *terms) * math.exp(-0.03 * 1.5)
    assert blackscholes.european(kind, 100, 110, *terms) == pytest.approx(mean, rel=1e-6)
    greeks = blackscholes.greeks(kind, 100, 110, *terms)
    up, here, down = (blackscholes.european(kind, spot, 110, *terms) for spot in (100.01, 100, 99.99))
    assert greeks["delta"] == pytest.approx((up - down) / 0.02, rel=1e-6)
    assert greeks["gamma"] == pytest.approx((up - 2 * here + down) / 1e-4, rel=1e-4)
    more, less = (blackscholes.european(kind, 100, 110, 0.03, 0.01, 0.25 + h, 1.5) for h in (1e-4, -1e-4))
    assert greeks["vega"] == pytest.approx((more - less) / 2e-4, rel=1e-6)
    more, less = (blackscholes.european(kind, 100, 110, 0.03 + h, 0.01, 0.25, 1.5) for h in (1e-4, -1e-4))
    assert greeks["rho"] == pytest.approx((more - less) / 2e-4, rel=1e-6)
    more, less = (blackscholes.european(kind, 100, 110, 0.03, 0.01, 0.25, 1.5 + h) for h in (1e-4, -1e-4))
    assert greeks["theta"] == pytest.approx((less - more) / 2e-4, rel=1e-6)


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


def kept_at_dates(kind, spot, strike, level, rate, dividend, volatility, maturity, steps):
    """A knock-out option watched at dates: the density of the surviving logarithm, one step after the other."""
    dt, root = maturity / steps, volatility * math.sqrt(maturity / steps)
    wall, far = math.log(level / spot), 8 * volatility * math.sqrt(maturity)
    low, high = (-far, wall) if level > spot else (wall, far)
    edges = sorted({low, high, min(max(math.log(strike / spot), low), high)})
    nodes, weights = np.polynomial.legendre.leggauss(300)
    x = np.concatenate([(a + b + (b - a) * nodes) / 2 for a, b in itertools.pairwise(edges)])
    w = np.concatenate([(b - a) / 2 * weights for a, b in itertools.pairwise(edges)])
    drift = (rate - dividend - volatility**2 / 2) * dt
    density = stats.norm.pdf(x, drift, root)
    move = stats.norm.pdf(x[:, None] - x, drift, root) * w
    for _ in range(steps - 1):
        density = move @ density
    return math.exp(-rate * maturity) * float(w * density @ np.maximum(KINDS[kind] * (spot * np.exp(x) - strike), 0))


@pytest.mark.parametrize(("payoff", "kind", "level", "part"), [
    ("up-and-out", "call", 130.0, 0.012), ("down-and-out", "call", 90.0, 1e-3), ("down-and-in", "put", 85.0, 5e-3),
    ("up-and-in", "call", 110.0, 2e-3)])
def test_barriers_watched_at_dates(payoff, kind, level, part, alone):
    terms = (0.05, 0.02, 0.2, 1.0)
    out = kept_at_dates(kind, 100, 100, level, *terms, 50)
    expected = out if payoff.endswith("out") else blackscholes.european(kind, 100, 100, *terms) - out
    near = blackscholes.watched(kind, payoff, 100, 100, level, *terms, 50)
    always = blackscholes.barrier(kind, payoff, 100, 100, level, *terms)
    assert near == pytest.approx(expected, rel=part) and abs(near - expected) < abs(always - expected) / 8
    program, value, error = estimates(Options, alone, 2**15, payoff=payoff, kind=kind, barrier=level, dividend=0.02,
                                      monitoring="discrete", control=True, steps=50)
    assert abs(value[0] - expected) < 3.5 * error[0] < abs(always - expected)
    assert f"{near:.6g}" in program.told(value, error)[0]


def test_heston_against_published_prices_and_black_and_scholes():
    # Broadie & Kaya, Operations Research 54 (2006) 217, table 1: 6.8061
    model = heston.Model(0.010201, 6.21, 0.019, 0.61, -0.70)
    assert heston.european("call", 100, 100, 0.0319, 0, 1, model) == pytest.approx(6.8061, abs=6e-5)
    # Andersen, J. Comput. Finance 11(3) (2008) 1, case I: 44.330, 13.085, 0.296
    hard = heston.Model(0.04, 0.5, 0.04, 1.0, -0.9)
    for strike, published in ((60, 44.330), (100, 13.085), (140, 0.296)):
        assert heston.european("call", 100, strike, 0, 0, 10, hard) == pytest.approx(published, abs=6e-4)
    still = heston.Model(0.04, 1.0, 0.04, 1e-4, 0.0)
    for strike, maturity, kind in itertools.product((80, 100, 130), (1.0, 1 / 3650), ("call", "put")):
        expected = blackscholes.european(kind, 100, strike, 0.05, 0.02, 0.2, maturity)
        assert heston.european(kind, 100, strike, 0.05, 0.02, maturity, still) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("psi", [1e-6, 0.4, 1.49, 1.51, 4.0, 60.0])
def test_the_variance_after_a_step_has_its_moments(psi):
    """Whichever form it is drawn from; and the expected exponential that keeps the price a martingale."""
    u, mean, tilt = (np.arange(2**20) + 0.5) / 2**20, 0.03, -4.0
    after, exponent = heston._variance(u, np.full(len(u), mean), np.full(len(u), psi), tilt)
    assert after.min() >= 0 and after.mean() == pytest.approx(mean, rel=1e-4)
    assert after.var() == pytest.approx(psi * mean**2, rel=5e-3)
    assert np.exp(tilt * after).mean() == pytest.approx(math.exp(-exponent[0]), rel=1e-4)


@pytest.mark.parametrize("way", ["plain", "sobol"])
def test_heston_paths_price_what_is_published(way, alone):
    keys = {"v0": 0.010201, "kappa": 6.21, "theta": 0.019, "xi": 0.61, "rho": -0.7, "rate": 0.0319, "steps": 20}
    _, value, error = estimates(Options, alone, 2**16, model="heston", way=way, control=way == "plain", **keys)
    assert abs(value[0] - 6.8061) < 4 * error[0] < 0.08


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 64])
def test_the_bridge_makes_brownian_paths(steps):
    times = np.arange(1, steps + 1)
    np.testing.assert_allclose(bridge(steps) @ bridge(steps).T, np.minimum.outer(times, times), atol=1e-12 * steps)


KEYS = [
    {}, {"kind": "put", "dividend": 0.03}, {"way": "antithetic", "greeks": "pathwise"},
    {"greeks": "bump", "bump": 0.02}, {"way": "stratified", "block": 512}, {"payoff": "geometric-asian", "steps": 7},
    {"strike": 150.0, "shift": 2.0, "greeks": "pathwise"}, {"kind": "put", "steps": 3, "strike": 60.0, "shift": -2.0},
    {"payoff": "basket", "spot": (100.0, 90.0), "weights": (1.0, -1.0), "strike": 0.0, "volatility": (0.2, 0.4),
     "correlation": (-0.3,)}, {"payoff": "up-and-in", "barrier": 115.0, "steps": 5, "kind": "put"},
    {"payoff": "down-and-out", "barrier": 92.0, "steps": 4},
    {"payoff": "up-and-out", "barrier": 140.0, "steps": 3, "control": True},
    {"model": "heston", "steps": 40, "control": True},
]


@pytest.mark.parametrize("keys", KEYS, ids=str)
def test_prices_and_greeks_are_as_far_off_as_their_errors_say(keys, alone):
    samples = 1024 if "model" in keys else 8192
    scores = [off(Options, alone, samples, seed=seed, **{"block": samples, **keys}) for seed in range(100)]
    names = made(Options, alone, **keys).quantities
    assert list(scores[0]) == list(names)
    for name in names:
        found = np.array([score[name] for score in scores])
        bias = 0.5  # five errors of a mean over 100 seeds
        assert abs(found.mean()) < bias and 0.75 < found.std() < 1.3, (name, found.mean(), found.std())
        assert normal(found) > 1e-3 or name == "gamma", name  # of kinks that few paths meet


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


@pytest.mark.parametrize("keys", [
    {"payoff": "asian", "steps": 8, "kind": "put"}, {"payoff": "geometric-asian", "steps": 5},
    {"payoff": "asian", "steps": 4, "way": "sobol"},
    {"payoff": "basket", "spot": (100.0, 80.0, 120.0), "volatility": (0.2, 0.3, 0.4), "steps": 2}], ids=str)
def test_pathwise_derivatives_are_those_of_the_price(keys, alone):
    """On the same random numbers, but for the few paths that cross the strike."""
    keys = {"dividend": 0.02, "block": 2**14, **keys}
    program, values, errors = estimates(Options, alone, 2**16, greeks="pathwise", **keys)
    found = dict(zip(program.quantities, zip(values, errors)))
    spot, volatility = np.array(keys.get("spot", (100.0,))), np.array(keys.get("volatility", (0.2,)))

    def _slope(h, **pair):
        (more, less) = (estimates(Options, alone, 2**16, **(keys | {name: both[i] for name, both in pair.items()}))[1]
                        for i in (0, 1))
        return (more[0] - less[0]) / (2 * h)

    for asset, one in enumerate(np.eye(len(spot))):
        name = f"_{asset + 1}" if len(spot) > 1 else ""
        value, error = found[f"delta{name}"]
        assert abs(_slope(0.1, spot=(tuple(spot + 0.1 * one), tuple(spot - 0.1 * one))) - value) < error
        value, error = found[f"vega{name}"]
        pair = tuple(volatility + 1e-3 * one), tuple(volatility - 1e-3 * one)
        assert abs(_slope(1e-3, volatility=pair) - value) < error
    assert abs(_slope(1e-3, rate=(0.051, 0.049)) - found["rho"][0]) < found["rho"][1]
    assert abs(_slope(1e-3, maturity=(0.999, 1.001)) - found["theta"][0]) < found["theta"][1]
    if "gamma" in found:
        more, less = (estimates(Options, alone, 2**16, greeks="pathwise", **keys, spot=(100.0 + h,))[1][1]
                      for h in (3.0, -3.0))
        assert abs((more - less) / 6 - found["gamma"][0]) < 5 * found["gamma"][1] < 0.2 * found["gamma"][0]


def test_derivatives_of_barriers_by_bumps(alone):
    h, terms = 0.02, (0.05, 0.0)
    program, values, errors = estimates(Options, alone, 2**16, payoff="up-and-out", kind="put", barrier=110.0,
                                        steps=3, bump=h, greeks="bump", way="antithetic")

    def _price(spot, volatility):
        return blackscholes.barrier("put", "up-and-out", spot, 100, 110, *terms, volatility, 1)

    up, here, down = (_price(spot, 0.2) for spot in (102, 100, 98))
    exact = {"price": here, "delta": (up - down) / 4, "gamma": (up - 2 * here + down) / 4,
             "vega": (_price(100, 0.204) - _price(100, 0.196)) / 0.008}
    for name, value, error in zip(program.quantities, values, errors):
        assert abs(value - exact[name]) < 4 * error < 0.35 * abs(exact[name]), name


def test_gamma_takes_the_whole_path(alone):
    """Its error does not grow with steps that nobody looks at."""
    _, _, one = estimates(Options, alone, 2**14, greeks="pathwise")
    _, _, many = estimates(Options, alone, 2**14, greeks="pathwise", steps=16)
    assert many[3] < 1.5 * one[3]


def test_controls_and_shifts_reduce_the_error(alone):
    for keys, part in (({"payoff": "asian", "steps": 20}, 0.06),
                       ({"payoff": "basket", "spot": (100.0, 80.0, 120.0)}, 0.15),
                       ({"model": "heston", "steps": 20}, 0.7),
                       ({"model": "heston", "steps": 10, "payoff": "asian"}, 0.8)):
        _, one, plain = estimates(Options, alone, 2**15, **keys)
        _, other, less = estimates(Options, alone, 2**15, control=True, **keys)
        assert less[0] < part * plain[0] and abs(one[0] - other[0]) < 4 * plain[0], keys
    for keys in ({"strike": 170.0, "shift": 2.7}, {"strike": 150.0, "shift": 3.0, "payoff": "asian", "steps": 9}):
        _, _, plain = estimates(Options, alone, 2**15, **(keys | {"shift": 0.0}))
        _, _, less = estimates(Options, alone, 2**15, **keys)
        assert 0 < less[0] < plain[0] / 8
    _, far, error = estimates(Options, alone, 2**14, strike=600.0, shift=9.0, block=2**14)
    exact = blackscholes.european("call", 100, 600, 0.05, 0, 0.2, 1)
    assert exact < 1e-16 and abs(far[0] - exact) < 4 * error[0] < exact / 5


def test_baskets_of_two_by_quadrature(alone):
    """Given one price the other is lognormal, with the rest of the strike."""
    spot, volatility, weights, rho, rate = (100.0, 80.0), (0.2, 0.35), (0.4, 0.6), -0.3, 0.05
    rest = volatility[1] * math.sqrt(1 - rho**2)

    def _given(z):
        first = spot[0] * math.exp(rate - volatility[0] ** 2 / 2 + volatility[0] * z)
        forward = weights[1] * spot[1] * math.exp(rate - (volatility[1] * rho) ** 2 / 2 + volatility[1] * rho * z)
        strike = 90 - weights[0] * first
        value = (blackscholes.lognormal("call", forward, strike, rest, math.exp(-rate)) if strike > 0
                 else math.exp(-rate) * (forward - strike))
        return stats.norm.pdf(z) * value

    exact = integrate.quad(_given, -9, 9, limit=200)[0]
    keys = {"payoff": "basket", "spot": spot, "volatility": volatility, "weights": weights, "strike": 90.0}
    _, value, error = estimates(Options, alone, 2**17, correlation=(rho,), control=True, **keys)
    assert abs(value[0] - exact) < 3.5 * error[0] < 0.03
    _, three, error = estimates(Options, alone, 2**17, **(keys | {
        "spot": (100.0, 100.0, 80.0), "volatility": (0.2, 0.2, 0.35), "weights": (0.1, 0.3, 0.6),
        "correlation": (0.9999999, -0.3, -0.3)}), control=True)  # the first two move as one
    assert abs(three[0] - exact) < 3.5 * error[0] < 0.03


def test_calls_less_puts(alone):
    for keys in ({"block": 4097}, {"payoff": "asian", "steps": 6}, {"model": "heston", "steps": 6}):
        pair = [estimates(Options, alone, 2**15, kind=kind, dividend=0.02, strike=90.0, control=True, **keys)
                for kind in ("call", "put")]
        forwards = [100 * math.exp(0.03 * (step + 1) / 6) for step in range(6)]
        forward = np.mean(forwards) if "payoff" in keys else forwards[-1]
        apart = pair[0][1][0] - pair[1][1][0] - math.exp(-0.05) * (forward - 90)
        assert abs(apart) < 4 * (pair[0][2][0] + pair[1][2][0]), keys


@pytest.mark.parametrize("payoff", ["european", "asian"])
def test_the_kernel_prices_as_the_points_do(payoff, alone):
    """On the same words of the same stream."""
    keys = {"payoff": payoff, "steps": 0 if payoff == "european" else 6, "dividend": 0.03}
    program, fast, error = estimates(Options, alone, 2**13, block=4096, **keys)
    assert program.by_kernel
    general, slow, other = estimates(Options, alone, 2**13, block=4097, **keys)
    assert not general.by_kernel
    assert fast[0] == pytest.approx(slow[0], rel=1e-12) and error[0] == pytest.approx(other[0], rel=1e-12)


@pytest.mark.parametrize(("keys", "said"), [
    ({"payoff": "lookback"}, "payoff = 'lookback': must be one of european"),
    ({"volatility": (-0.1,)}, "volatility[0] = -0.1: must be >= 0"),
    ({"payoff": "up-and-out", "barrier": 90.0}, "barrier = 90.0: must be above spot = 100.0"),
    ({"payoff": "down-and-in", "barrier": 99.5, "greeks": "bump"}, "barrier = 99.5: must be below spot"),
    ({"payoff": "basket", "spot": (1.0, 1.0, 1.0), "correlation": (-0.6,)}, "correlation = -0.6: not positive def"),
    ({"payoff": "basket", "spot": (1.0,) * 3, "correlation": (0.9, 0.9, -0.9)}, "correlation = [0.9, 0.9, -0.9]"),
    ({"payoff": "basket", "spot": (1.0,) * 3, "correlation": (0.9, 0.9)}, "correlation has 2 values: must be 1 or 3"),
    ({"payoff": "basket", "spot": (1.0,) * 3, "weights": (1.0,)}, "weights has 1 values: must be 3"),
    ({"spot": (1.0, 2.0)}, "spot has 2 values: must be 1"),
    ({"strike": 0.0}, "strike = 0: must be > 0"), ({"error": 0.0}, "error = 0.0: must be > 0"),
    ({"way": "sobol", "payoff": "asian", "steps": 9999, "model": "heston", "monitoring": "discrete"}, None),
    ({"way": "sobol", "payoff": "basket", "spot": (1.0,) * 3, "correlation": (0.1,), "steps": 9000},
     "steps = 9000: makes 27000 dimensions, and Sobol's table ends at 21201"),
    ({"way": "sobol", "control": True}, "control = true: cannot be combined"),
    ({"way": "sobol", "block": 1000}, "block = 1000: must be a multiple of 16"),
    ({"rho": -1.5}, "rho = -1.5: must be >= -1"), ({"kappa": 0.0}, "kappa = 0.0: must be > 0"),
    ({"v0": -0.01}, "v0 = -0.01: must be >= 0"), ({"xi": 0.0}, "xi = 0.0: must be >= 0.001"),
    ({"model": "heston", "theta": 10.0, "maturity": 99.0}, "theta = 10.0: exponents of prices may reach"),
    ({"model": "heston", "payoff": "american"}, "model = 'heston': prices no payoff = 'american'"),
    ({"model": "heston", "payoff": "up-and-out"}, "monitoring = 'continuous': must be 'discrete'"),
    ({"greeks": "pathwise", "payoff": "american"}, "greeks = 'pathwise': only for european"),
    ({"greeks": "bump", "payoff": "basket"}, "greeks = 'bump': must be 'pathwise'"),
    ({"greeks": "bump", "volatility": (0.0,)}, "volatility = 0: must be > 0 for derivatives"),
    ({"shift": 1.0, "model": "heston"}, "shift = 1.0: only for one asset"),
    ({"volatility": (10.0,), "maturity": 100.0}, "volatility = 10.0: exponents of prices may reach"),
], ids=str)
def test_bad_input_is_refused(keys, said):
    if said is None:
        assert case.build(Case, keys, {}, "--set").dimension == 19998
        return
    with pytest.raises(BadInput) as error:
        case.build(Case, keys, {}, "--set")
    assert said in str(error.value) and "\n" not in str(error.value)


def test_the_same_bits_on_any_number_of_ranks(launch, tmp_path):
    words = [word for key in ("way=sobol", "greeks=bump", "block=2048", "samples=70000") for word in ("--set", key)]
    for ranks in (0, 3):
        done = launch(ranks, "-m", "brmpi.montecarlo.options", *words, "--out", f"on-{ranks}")
        assert done.returncode == 0, done.stderr
    assert told(tmp_path / "on-0") == told(tmp_path / "on-3")


def test_refusals_are_one_sentence(launch):
    done = launch(0, "-m", "brmpi.montecarlo.options", "--set", "volatility=[-0.2]")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("volatility[0] = -0.2: must be >= 0") == 1


@pytest.mark.parametrize("file", sorted(CASES.glob("*.toml")), ids=lambda file: file.stem)
def test_what_the_cases_say_holds(file, alone):
    text = file.read_text()
    assert text.startswith("# ") and "Takes" in text and "Must hold" in text
    loaded = case.load(Case, file)
    keys = {field.name: getattr(loaded, field.name) for field in dataclasses.fields(Case)}
    samples = keys.pop("samples") // 4
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
            assert name == "gamma" or name not in exact or abs(value - exact[name]) < near * error, name
        assert "price" in exact
