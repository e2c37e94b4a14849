"""Integrals of Genz's families, VEGAS, and the ways of choosing points: errors that cover, slopes, less variance."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from sampled import estimates, normal, off, told
from scipy import integrate, stats

from brmpi import case
from brmpi.errors import BadInput
from brmpi.montecarlo import genz, points, vegas
from brmpi.montecarlo.integrate import Case, Integrate
from brmpi.montecarlo.moments import Moments

ROOT = Path(__file__).parent.parent
CASES = ROOT / "sims/montecarlo/integrate"


@pytest.mark.parametrize("family", genz.FAMILIES)
@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_exact_integrals_by_quadrature(family, dimension):
    a, u = genz.parameters(family, np.random.default_rng(dimension).random((2, dimension)), 3.0)
    assert a.sum() == pytest.approx(3.0)
    function = genz.FAMILIES[family]
    kinks = [[edge] for edge in u] if family in ("continuous", "discontinuous") else [[]] * dimension
    nodes, weights = np.polynomial.legendre.leggauss(20)
    axes = []
    for cuts in kinks:  # Gauss between the kinks
        edges = np.array([0, *cuts, 1])
        half, middle = np.diff(edges) / 2, (edges[1:] + edges[:-1]) / 2
        axes.append(((middle[:, None] + half[:, None] * nodes).ravel(), (half[:, None] * weights).ravel()))
    x = np.stack(np.meshgrid(*(axis for axis, _ in axes), indexing="ij"), axis=-1).reshape(-1, dimension)
    weight = np.ones(1)
    for _, part in axes:
        weight = np.outer(weight, part).ravel()
    assert genz.exact(family, a, u) == pytest.approx(float(function(x, a, u) @ weight), rel=1e-9)


def test_the_corner_peak_where_the_usual_sum_still_holds():
    a = np.array([0.4, 0.7, 1.1, 0.2])
    total = 0.0
    for subset in range(16):
        inside = [i for i in range(4) if subset >> i & 1]
        total += (-1) ** len(inside) / (1 + a[inside].sum())
    assert genz.exact("corner-peak", a, a) == pytest.approx(total / (24 * a.prod()), rel=1e-11)
    many = np.full(60, 0.05)  # that sum has 2**60 terms; the mean of independent points has a known error
    x = np.random.default_rng(1).random((200000, 60))
    values = genz.corner_peak(x, many, many)
    off_by = values.mean() - genz.exact("corner-peak", many, many)
    assert abs(off_by) < 4 * values.std() / np.sqrt(len(values))


WAYS = [{}, {"way": "antithetic"}, {"way": "stratified", "block": 128}, {"controls": "coordinates"},
        {"way": "vegas", "warmup": 4096, "iterations": 4}, {"way": "vegas", "controls": "coordinates", "warmup": 2048}]


@pytest.mark.parametrize("keys", WAYS, ids=str)
@pytest.mark.parametrize("family", ["oscillatory", "gaussian", "discontinuous"])
def test_estimates_are_normal_about_the_exact_value(keys, family, alone):
    scores = [off(Integrate, alone, 8192, family=family, dimension=3, difficulty=3.0, seed=seed,
                  **{"block": 8192, **keys})["integral"] for seed in range(100)]
    assert normal(scores) > 1e-3
    for level in (0.683, 0.954):  # error bars cover at the rate they state
        within = int((np.abs(scores) < stats.norm.ppf((1 + level) / 2)).sum())
        assert stats.binomtest(within, len(scores), level).pvalue > 1e-3


@pytest.mark.parametrize("family", ["oscillatory", "continuous"])
def test_sobols_estimates_are_students(family, alone):
    scores = [off(Integrate, alone, 2**13, family=family, dimension=4, difficulty=3.0, seed=seed, way="sobol",
                  block=2**13)["integral"] for seed in range(60)]
    assert normal(scores, 15) > 1e-3
    within = int((np.abs(scores) < stats.t(15).ppf(0.975)).sum())
    assert stats.binomtest(within, len(scores), 0.95).pvalue > 1e-3


@pytest.mark.parametrize(("way", "low", "high"), [("sobol", -1.8, -0.8), ("plain", -0.55, -0.45)])
def test_slopes_of_the_error_on_smooth_functions(way, low, high, alone):
    sizes = 2 ** np.arange(9, 18, 2)
    for family in ("oscillatory", "gaussian"):
        errors = [np.mean([estimates(Integrate, alone, int(size), family=family, dimension=4, difficulty=2.0, way=way,
                                     seed=seed, block=int(size))[2][0] for seed in range(5)]) for size in sizes]
        slope = np.polyfit(np.log(sizes), np.log(errors), 1)[0]
        assert low < slope < high, (family, slope)


def test_ways_that_need_fewer_samples_need_fewer(alone):
    def error(**keys):
        return estimates(Integrate, alone, 2**15, **({"block": 2**12, "dimension": 3, "difficulty": 2.0} | keys))[2][0]

    monotone = {"family": "corner-peak"}
    assert error(way="antithetic", **monotone) < 0.5 * error(**monotone)
    assert error(controls="coordinates", **monotone) < 0.6 * error(**monotone)
    assert error(way="stratified", **monotone, dimension=1) < 0.05 * error(**monotone, dimension=1)
    peak = {"family": "product-peak", "difficulty": 60.0, "dimension": 4}
    assert error(way="vegas", **peak) < 0.15 * error(**peak)


def test_a_control_variate_leaves_what_it_does_not_explain():
    rng = np.random.default_rng(5)
    x, noise = rng.standard_normal((2, 50000))
    moments = Moments([0.0, 0.0], known=[0.0])
    total = sum(moments.row(np.column_stack([3 + 2 * x[part] + 0.5 * noise[part], x[part]]))
                for part in np.split(np.arange(50000), 7 * [0] + [1000, 30000]))
    value, error = moments.estimates(total)
    assert abs(value[0] - 3) < 4 * error[0]
    assert error[0] == pytest.approx(0.5 / np.sqrt(50000), rel=0.02)  # the deviation of the noise alone


def test_moments_are_numpys():
    rng = np.random.default_rng(2)
    values = 1e6 + rng.standard_normal((3001, 2)) * [1.0, 1e-3]
    moments = Moments(values[:10].mean(axis=0), edges=np.linspace(1e6 - 2, 1e6 + 2, 9))
    total = sum(moments.row(part) for part in np.array_split(values, 13))
    mean, error = moments.estimates(total)
    np.testing.assert_allclose(mean, values.mean(axis=0), rtol=3e-15)
    np.testing.assert_allclose(error, values.std(axis=0, ddof=1) / np.sqrt(3001), rtol=1e-9)
    edges, density = moments.histogram(total)
    counts, _ = np.histogram(np.clip(values[:, 0], edges[0], edges[-1]), edges)
    np.testing.assert_array_equal(np.round(density * 3001 * np.diff(edges)), counts)
    for few in (0, 1):
        value, error = moments.estimates(few * moments.row(values[:1]))
        assert np.isinf(error).all() and (few or np.isnan(value).all())


@pytest.mark.parametrize("way", points.WAYS)
def test_points_belong_to_their_indices(way):
    def _norm(x):
        return (x**2).sum(axis=1)[:, None]

    size = 64
    one, other = (points.estimator(way, _norm, 3, 9, "test") for _ in range(2))
    rows = [one.block(first, size) for first in range(0, 4 * size, size)]
    backwards = [other.block(first, size) for first in range(3 * size, -1, -size)][::-1]
    np.testing.assert_array_equal(rows, backwards)
    if way != "stratified":
        np.testing.assert_allclose(np.sum(rows, axis=0), other.block(0, 4 * size), rtol=1e-12)


def test_sobols_points_are_scipys():
    from scipy.stats import qmc

    seen = []
    made = points.estimator("sobol", lambda x: seen.append(x.copy()) or x[:, :1], 5, 3, "test")
    seen.clear()
    made.block(16 * 32, 16 * 64)
    assert len(seen) == 16 and all(part.shape == (64, 5) for part in seen)
    for part in seen:
        assert qmc.discrepancy(part) < 0.02 and part.min() > 0 and part.max() < 1
    engine = points._engine(5, made.stream, 4)
    engine.fast_forward(32)
    np.testing.assert_array_equal(seen[4], engine.random(64) + 2.0**-33)


def test_vegas_moves_its_intervals_to_the_peak():
    grid = vegas.Grid(1, 50)
    x = (np.arange(200000) + 0.5) / 200000
    for _ in range(12):
        there, jacobian, place = grid.mapped(x[:, None])
        assert jacobian.mean() == pytest.approx(1, abs=1e-3)  # the density integrates to one
        values = np.exp(-0.5 * ((there[:, 0] - 0.7) / 0.02) ** 2) * jacobian
        grid.refine(np.bincount(place[:, 0], values**2, 50)[None], 1.0)
    inside = (np.abs(grid.edges[0] - 0.7) < 0.06).sum()
    assert inside > 40 and (np.diff(grid.edges[0]) > 0).all()
    assert values.std() / values.mean() < 0.3
    assert integrate.trapezoid(values, x) == pytest.approx(0.02 * np.sqrt(2 * np.pi), rel=1e-3)


def test_a_function_of_ones_own(launch, tmp_path):
    (tmp_path / "mine.py").write_text("def f(x):\n    return x[:, 0] * x[:, 1]\n\ndef bad(x):\n    return x\n")
    keys = ("--set", "dimension=2", "--samples", "200000", "--quiet")
    done = launch(2, "-m", "brmpi.montecarlo.integrate", "--set", "function=mine:f", *keys, "--out", "run")
    assert done.returncode == 0, done.stderr
    found = told(tmp_path / "run")[0]["integral"]
    assert abs(found["value"] - 0.25) < 4 * found["error"] and found["error"] < 1e-3
    for wrong, sentence in (("mine:bad", "must be (1024,)"), ("mine:none", "has no attribute")):
        done = launch(1, "-m", "brmpi.montecarlo.integrate", "--set", f"function={wrong}", *keys)
        assert done.returncode == 2 and done.stderr.count(sentence) == 1, done.stderr


def test_bad_input_is_refused():
    for keys in ({"dimension": 0}, {"dimension": 30000, "way": "sobol"}, {"family": "genz"}, {"function": "nothing"},
                 {"way": "sobol", "block": 100}, {"controls": "coordinates", "dimension": 65}, {"error": -1.0}):
        with pytest.raises(BadInput):
            case.build(Case, keys, {}, "--set")


@pytest.mark.parametrize(("keys", "others"), [
    (("way=vegas", "warmup=20000"), [(2, "dynamic"), (5, "static")]), (("way=sobol", "block=4096"), [(3, "static")])],
    ids=str)
def test_the_same_bits_on_any_number_of_ranks(launch, tmp_path, keys, others):
    words = [word for key in (*keys, "samples=150000") for word in ("--set", key)]
    for ranks, dealing in ((0, "dynamic"), *others):
        done = launch(ranks, "-m", "brmpi.montecarlo.integrate", *words, "--set", f"dealing={dealing}", "--out",
                      f"on-{ranks}")
        assert done.returncode == 0, done.stderr
        assert told(tmp_path / "on-0") == told(tmp_path / f"on-{ranks}")


@pytest.mark.parametrize("file", sorted(CASES.glob("*.toml")), ids=lambda file: file.stem)
def test_what_the_cases_say_holds(file, alone):
    text = file.read_text()
    assert text.startswith("# ") and "Takes" in text and "Must hold" in text
    loaded = case.load(Case, file)
    keys = {field.name: getattr(loaded, field.name) for field in dataclasses.fields(Case)}
    samples = keys.pop("samples")
    program, values, errors = estimates(Integrate, alone, samples, **keys)
    assert abs(values[0] - program.exact()["integral"]) < (5 if keys["way"] == "sobol" else 4) * errors[0]
    if file.stem == "smooth":
        assert errors[0] < 2e-6
    if file.stem == "peak":
        assert errors[0] < 0.1 * estimates(Integrate, alone, samples, **(keys | {"way": "plain"}))[2][0]
