"""Integrals: Genz's exact values, VEGAS, errors that cover and their slopes, functions of one's own."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import made
from sampled import estimates, normal, off, told
from scipy import integrate, stats

from brmpi import case
from brmpi.errors import BadInput
from brmpi.montecarlo import genz, vegas
from brmpi.montecarlo.integrate import Case, Integrate
from brmpi.montecarlo.sampling import Sampling
from brmpi.streams import Stream

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


def test_vegas_keeps_its_grid_where_it_learns_nothing():
    grid = vegas.Grid(3, 8)
    before = grid.edges.copy()
    weights = np.ones((3, 8)) * [[0], [1], [2]]
    weights[0, 3], weights[2, 5] = np.nan, np.inf
    grid.refine(weights, 1.0)
    np.testing.assert_array_equal(grid.edges[[0, 2]], before[[0, 2]])
    np.testing.assert_allclose(grid.edges[1], before[1], rtol=1e-12)  # alike already
    grid.refine(np.zeros((3, 8)), 1.0)
    grid.refine(np.eye(3, 8), 0.0)  # no damping, no move
    np.testing.assert_allclose(grid.edges, before, rtol=1e-12)


@pytest.mark.mpi
@pytest.mark.parametrize("points", [1, 5000, 70000])
def test_vegas_fits_the_same_grid_on_any_number_of_ranks(comm, assert_all, points):
    from mpi4py import MPI

    def _sample(first, count):
        return Stream(3, "test").uniform(first, count, (2,)) + 2.0**-54

    def _peak(x):
        return np.exp(-50 * ((x - 0.3) ** 2).sum(axis=1))

    one = vegas.fitted(MPI.COMM_SELF, _peak, _sample, 2, 3, points, 1.0, np.ones(1))
    for speeds in (np.ones(comm.size), np.arange(1.0, comm.size + 1)):
        many = vegas.fitted(comm, _peak, _sample, 2, 3, points, 1.0, speeds)
        assert_all(many.edges.tobytes() == one.edges.tobytes())


@pytest.mark.mpi
@pytest.mark.parametrize("keys", [{"way": "vegas", "warmup": 20000}, {"way": "sobol", "block": 512}], ids=str)
@pytest.mark.parametrize("dynamic", [True, False])
def test_the_same_bits_on_any_number_of_ranks(comm, assert_all, keys, dynamic):
    from mpi4py import MPI

    keys = {"block": 1000, "family": "continuous", **keys}
    one = estimates(Integrate, MPI.COMM_SELF, 30001, **keys)
    many = made(Integrate, comm, **keys)
    many.prepare()
    sampling = Sampling(comm, many.estimator, 30001, keys["block"], np.arange(1.0, comm.size + 1), dynamic)
    sampling.run(lambda sums, decided: False)
    found = many.estimator.estimates(sampling.sums.total)
    assert_all(np.array_equal(np.ravel(found), np.ravel(one[1:])), f"{found} {one[1:]}")


@pytest.mark.parametrize("keys", [{"way": "vegas", "warmup": 20000}, {"way": "sobol", "block": 4096}], ids=str)
def test_five_ranks_tell_what_one_process_does(launch, tmp_path, alone, keys):
    words = [word for key, value in keys.items() for word in ("--set", f"{key}={value}")]
    done = launch(5, "-m", "brmpi.montecarlo.integrate", *words, "--samples", 150000, "--out", "run")
    assert done.returncode == 0, done.stderr
    _, value, error = estimates(Integrate, alone, 150000, **keys)
    found = told(tmp_path / "run")[0]["integral"]
    assert (found["value"], found["error"]) == (value[0], error[0])


def test_parameters_of_ones_own(alone):
    keys = {"family": "gaussian", "dimension": 2, "a": (3.0, 5.0), "u": (0.1, 0.9)}
    program, value, error = estimates(Integrate, alone, 2**14, **keys)
    wanted = integrate.quad(lambda x: np.exp(-((3 * (x - 0.1)) ** 2)), 0, 1)[0]
    wanted *= integrate.quad(lambda x: np.exp(-((5 * (x - 0.9)) ** 2)), 0, 1)[0]
    assert program.exact()["integral"] == pytest.approx(wanted, rel=1e-12)
    assert abs(value[0] - wanted) < 4 * error[0]
    drawn = [made(Integrate, alone, **(keys | other)) for other in ({"a": ()}, {"u": ()}, {"seed": 2})]
    for one in drawn:
        one.prepare()
    values = {one.exact()["integral"] for one in (*drawn, program)}
    assert len(values) == 3  # a seed is of no account where both are given


MINE = """import numpy as np

def f(x):
    return x[:, 0] * x[:, 1]

def one(x):
    return [1] * len(x)

def wide(x):
    return x

def complex_one(x):
    return x[:, 0] + 1j

def words(x):
    return np.full(len(x), "a")

def huge(x):
    return x[:, 0] * 1e200

def tiny(x):
    return x[:, 0] * 1e-200

def pole(x):
    return 1 / (x[:, 0] * 0)

def rare(x):
    return np.where(x[:, 0] < 1e-4, np.nan, 1.0)
"""


def test_functions_of_ones_own_and_those_of_which_nothing_can_be_told(alone, tmp_path, monkeypatch):
    (tmp_path / "my_functions.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    refused = {"wide": r"float64 of shape \(1024, 2\) for 1024 points: must be real, \(1024,\)", "words": "<U1",
               "complex_one": "complex128", "huge": "1e-120 and <= 1e.120", "tiny": "must be >= 1e-120",
               "none": "no attribute", "pole": r"is inf at \(0\.[0-9]+, 0\.[0-9]+\)"}
    try:
        for way in ("plain", "vegas"):
            for name, sentence in refused.items():
                with pytest.raises(BadInput, match=sentence) as caught:
                    made(Integrate, alone, function=f"my_functions:{name}", dimension=2, way=way).prepare()
                assert f"function = 'my_functions:{name}'" in str(caught.value)
            _, value, error = estimates(Integrate, alone, 4096, function="my_functions:one", dimension=2, way=way,
                                        block=512, iterations=1, warmup=1024)
            assert value[0] == pytest.approx(1, abs=5 * error[0] + 1e-12) and error[0] < 0.02
            _, value, error = estimates(Integrate, alone, 4096, function="my_functions:f", dimension=2, way=way,
                                        block=512)
            assert abs(value[0] - 0.25) < 4 * error[0] and error[0] < 4e-3
    finally:
        sys.modules.pop("my_functions", None)
    for family, dimension in (("product-peak", 100), ("product-peak", 1000), ("corner-peak", 500)):
        with pytest.raises(BadInput, match=f"in dimension = {dimension}: must be >= 1e-120"):
            made(Integrate, alone, family=family, dimension=dimension).prepare()


def test_a_function_that_goes_wrong_on_the_way_ends_the_run_with_one_sentence(launch, tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    done = launch(2, "-m", "brmpi.montecarlo.integrate", "--set", "function=mine:rare", "--samples", 400000)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert "function = 'mine:rare': is nan at (" in done.stderr


BAD = [({"dimension": 0}, "dimension = 0: must be >= 1"), ({"dimension": 2**21}, "must be <= 1048576"),
       ({"dimension": 21202, "way": "sobol"}, "dimension = 21202: Sobol's table ends at 21201"),
       ({"way": "sobol", "samples": 2**36 + 1}, "Sobol's sequence ends at 68719476736"),
       ({"way": "vegas", "dimension": 1025}, "dimension = 1025: must be <= 1024 with way = 'vegas'"),
       ({"family": "genz"}, "family = 'genz': must be one of oscillatory"), ({"way": "best"}, "way = 'best': must be"),
       ({"function": "nothing"}, "function = 'nothing': must be module:name"),
       ({"way": "sobol", "block": 100}, "block = 100: must be a multiple of 16"),
       ({"way": "sobol", "controls": "coordinates"}, "cannot be combined with way = 'sobol'"),
       ({"controls": "coordinates", "dimension": 65}, "dimension = 65 must be <= 64"),
       ({"error": -1.0}, "error = -1.0: must be > 0"), ({"error": 0.0}, "error = 0.0: must be > 0"),
       ({"a": [1.0, 2.0], "dimension": 3}, "a has 2 values: must have 3"),
       ({"u": [0.5], "dimension": 3}, "u has 1 values: must have 3"),
       ({"a": [0.0]}, "a[0] = 0.0: must be > 0"), ({"u": [1.5]}, "u[0] = 1.5: must be <= 1"),
       ({"a": [1.0], "dimension": 1, "difficulty": 2.0}, "difficulty = 2: cannot be combined with a"),
       ({"u": [1.0], "dimension": 1, "function": "m:f"}, "cannot be combined with function")]


@pytest.mark.parametrize(("keys", "sentence"), BAD, ids=[str(keys) for keys, _ in BAD])
def test_bad_input_is_one_sentence(keys, sentence):
    with pytest.raises(BadInput) as caught:
        case.build(Case, keys, {}, "--set")
    assert sentence in str(caught.value)


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
