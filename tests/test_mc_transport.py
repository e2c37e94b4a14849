"""Transport: closed forms, the integral equation, a simulation of another kind, games that agree, cases, any ranks."""

import itertools
import json
import math
import time
from pathlib import Path

import numpy as np
import pytest
from scipy import integrate, stats
from scipy.special import exp1, expn

from brmpi import case
from brmpi.errors import BadInput
from brmpi.kernels.transport import Slab, Sphere, histories
from brmpi.montecarlo import program, transport
from brmpi.streams import Stream

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "sims/montecarlo/transport"
SHIELD = ((10.0, 2.0, 15.0, 3.0), (0.4, 0.0, 0.5, 0.7), (0.8, 0.0, 0.7, 0.4))
LAYERS = ((1.0, 0.5, 2.0), (1.0, 0.0, 0.7), (0.5, 0.2, 0.9))


def estimates(problem, count, seed=1):
    """Means of what becomes of particles, and their standard errors."""
    total, squares = histories(Stream(seed, "test of transport").key, 0, count, problem)
    mean = total / count
    return mean, np.sqrt(np.maximum(squares / count - mean**2, 0) / (count - 1))


def agree(found, error, wanted, most=4.5):
    """Whether estimates are as near to what is wanted as their errors say."""
    return (np.abs(found - wanted) <= most * error + 1e-12).all()


def kernel(edges, n):
    """Gauss points, weights and layers of a slab, and the integral operator E1(|t - t'|) / 2, its singularity taken."""
    x, w = np.polynomial.legendre.leggauss(n)
    cells = [(a, b, number) for number, (a, b) in enumerate(itertools.pairwise(edges)) if b > a]
    t = np.concatenate([(a + b) / 2 + (b - a) / 2 * x for a, b, _ in cells])
    w = np.concatenate([(b - a) / 2 * w for a, b, _ in cells])
    far = np.abs(t[:, None] - t)
    np.fill_diagonal(far, 1)
    k = exp1(far) * w
    np.fill_diagonal(k, 0)
    k[np.diag_indices(len(t))] = 2 - expn(2, t - edges[0]) - expn(2, edges[-1] - t) - k.sum(axis=1)
    return t, w, np.repeat([number for *_, number in cells], n), k / 2


def slab(problem, n=150):
    """Transmission, reflection and absorption of a slab, by the integral equation for the density of collisions."""
    thick, total, ratio = problem.layers()
    edges = np.concatenate([[0], np.cumsum(thick * total)])
    t, w, layer, k = kernel(edges, n)
    ratio, depth, source = ratio[layer], edges[-1], problem.origin()
    if source == "uniform":
        born = np.array([np.sum(w[layer == i]) for i in range(len(thick))])
        density = (thick[layer] / born[layer]) / thick.sum()  # none in voids
        first = k @ density
        out, back = (w * density * expn(2, depth - t)).sum() / 2, (w * density * expn(2, t)).sum() / 2
    else:
        number = {"beam": (np.exp(-t), math.exp(-depth)), "cosine": (2 * expn(2, t), 2 * expn(3, depth)),
                  "isotropic": (exp1(t), expn(2, depth))}
        (first, out), back = number[source], 0.0
    hits = np.linalg.solve(np.eye(len(t)) - k * ratio, first)
    out += (w * ratio * hits * expn(2, depth - t)).sum() / 2
    back += (w * ratio * hits * expn(2, t)).sum() / 2
    return np.array([out, back, (w * (1 - ratio) * hits).sum()])


def sphere(radius, ratio, source, n=150):
    """The probability that a particle escapes from a homogeneous sphere: r times it is odd along a diameter."""
    t, w, _, k = kernel(np.array([-radius, 0, radius]), n)
    absorbed = np.linalg.solve(np.eye(len(t)) - ratio * k, (1 - ratio) * (k @ t)) / t
    if source == "centre":
        right = t > 0
        return 1 - (w * np.exp(-t) * (1 - ratio + ratio * absorbed))[right].sum()
    return 1 - (w * t * t * absorbed).sum() / (2 * radius**3 / 3)


def flights(shells, count, seed):
    """Escape from a sphere in shells by delta tracking in three dimensions: no chords, no boundaries, other numbers."""
    random = np.random.default_rng(seed)
    thick, total, ratio = map(np.array, shells)
    radii, most = np.cumsum(thick), total.max()

    def _isotropic(n):
        way = random.normal(size=(n, 3))
        return way / np.linalg.norm(way, axis=1)[:, None]

    place = _isotropic(count) * (radii[-1] * random.random(count) ** (1 / 3))[:, None]
    way, escaped = _isotropic(count), 0
    while len(place):
        place = place + way * (random.exponential(size=len(place)) / most)[:, None]
        r = np.linalg.norm(place, axis=1)
        escaped += (r >= radii[-1]).sum()
        place, way, r = place[r < radii[-1]], way[r < radii[-1]], r[r < radii[-1]]
        shell = np.searchsorted(radii, r, side="right")
        real = random.random(len(r)) < total[shell] / most
        lost = real & (random.random(len(r)) >= ratio[shell])
        way[real] = _isotropic(real.sum())
        place, way = place[~lost], way[~lost]
    return escaped / count


def test_closed_forms_are_their_integrals():
    beam = integrate.quad(lambda mu: 2 * mu * math.exp(-1.7 / mu), 0, 1)[0]
    assert transport.uncollided(Slab(1.7, 1.0, 0.3, "cosine")) == pytest.approx(beam, rel=1e-9)
    plane = integrate.quad(lambda mu: math.exp(-1.7 / mu), 0, 1)[0]
    assert transport.uncollided(Slab(1.7, 1.0, 0.3, "isotropic")) == pytest.approx(plane, rel=1e-9)
    assert transport.uncollided(Slab(*LAYERS)) == pytest.approx(math.exp(-2.4))
    assert transport.uncollided(Sphere(*LAYERS)) == pytest.approx(math.exp(-2.4))
    edges = np.concatenate([[0], np.cumsum(LAYERS[0])])

    def _leaves(x):
        t = np.interp(x, edges, [0, 1, 1, 2.4])
        return (expn(2, t) + expn(2, 2.4 - t)) / 2

    inside = integrate.quad(_leaves, 0, 3.5, points=[1, 1.5])[0] / 3.5
    assert transport.uncollided(Slab(*LAYERS, source="uniform")) == pytest.approx(inside, rel=1e-8)
    for depth in (1e-3, 0.00999, 0.01001, 0.5, 4.0):
        def _chord(mu, r, depth=depth):
            return 1.5 * r * r * math.exp(-depth * (-r * mu + math.sqrt(1 - r * r * (1 - mu * mu))))

        chord = integrate.dblquad(_chord, 0, 1, -1, 1)[0]
        assert transport.uncollided(Sphere(depth, 1.0, 0.3, "uniform")) == pytest.approx(chord, rel=1e-8), depth
    assert transport.uncollided(Sphere(*LAYERS, source="uniform")) is None
    assert transport.uncollided(Sphere((1.0, 2.0), (0.7, 0.7), (0.1, 0.2), "uniform")) is not None


GAMES = {"analogue": {}, "biased": {"biased": True}, "split": {"surfaces": (0.5, 1.2, 2.0)},
         "both": {"biased": True, "surfaces": (0.7, 2.5), "split": 3}}


@pytest.mark.parametrize("game", GAMES)
@pytest.mark.parametrize("source", ["beam", "cosine", "isotropic", "uniform"])
def test_slabs_obey_the_integral_equation_whatever_the_game(game, source):
    layers = LAYERS if source != "uniform" else ((1.0, 2.0), (1.0, 0.7), (0.5, 0.9))
    problem = Slab(*layers, source=source, **GAMES[game])
    found, error = estimates(problem, 300_000)
    assert agree(found[:3], error[:3], slab(problem)), (found, error, slab(problem))
    assert agree(found[3], error[3], transport.uncollided(problem)) and (error < 0.0025).all()
    assert abs(found[:3].sum() - 1) < (1e-9 if game == "analogue" else 4.5 * np.linalg.norm(error[:3]))


@pytest.mark.parametrize(("problem", "count"), [
    (Slab(3.0, 1.0, 0.6, "isotropic", biased=True), 4_000_000),
    (Slab(6.0, 1.0, 0.9, biased=True, surfaces=(1, 2, 3, 4, 5)), 500_000)], ids=["roulette", "surfaces"])
def test_roulette_and_splitting_keep_what_is_expected(problem, count):
    found, error = estimates(problem, count)
    assert agree(found[:3], error[:3], slab(problem), 4), (found, error, slab(problem))
    assert (error[:3] < 0.003 * found[:3]).all()


@pytest.mark.parametrize("game", GAMES)
@pytest.mark.parametrize("source", ["centre", "uniform"])
def test_spheres_obey_the_integral_equation_whatever_the_game(game, source):
    problem = Sphere(3.0, 0.8, 0.7, source=source, **GAMES[game])
    (out, _, lost, free), (error, _, lost_error, free_error) = estimates(problem, 300_000)
    wanted = sphere(2.4, 0.7, source)
    assert agree(out, error, wanted) and agree(lost, lost_error, 1 - wanted), (out, error, wanted)
    assert agree(free, free_error, transport.uncollided(problem)) and 0 < error < 0.0025


@pytest.mark.parametrize("game", GAMES)
def test_shells_agree_with_delta_tracking(game):
    shells = ((0.8, 0.4, 1.0, 0.5), (2.0, 0.0, 0.7, 1.4), (0.9, 0.0, 0.5, 0.8))
    (out, *_), (error, *_) = estimates(Sphere(*shells, source="uniform", **GAMES[game]), 300_000)
    wanted = flights(shells, 200_000, 5)
    assert agree(out, math.hypot(error, math.sqrt(wanted * (1 - wanted) / 200_000)), wanted), (out, error, wanted)


def test_the_integral_equation_is_solved():
    """The oracle itself: against its closed forms, and with more points."""
    assert slab(Slab(2.0, 1.0, 0.0)) == pytest.approx([math.exp(-2), 0, 1 - math.exp(-2)], abs=1e-6)
    assert sphere(1.5, 0.0, "centre") == pytest.approx(math.exp(-1.5), abs=1e-5)
    free = transport.uncollided(Sphere(1.5, 1.0, 0.0, "uniform"))
    assert sphere(1.5, 0.0, "uniform") == pytest.approx(free, abs=1e-5)
    for problem in (Slab(*LAYERS), Slab(*SHIELD, source="isotropic")):
        np.testing.assert_allclose(slab(problem), slab(problem, 300), rtol=3e-4)


def test_splitting_reduces_the_error_in_a_deep_shield():
    """By errors squared times the seconds they took, a hundred times and more: 20 must be left on a busy machine."""
    plain = Slab(*SHIELD, source="isotropic")
    split = Slab(*SHIELD, source="isotropic", biased=True, surfaces=(2.5, 5, 7.5, 10, 15, 20, 25), split=3)
    wanted, costs = slab(plain, 300)[0], []
    for problem, count in ((plain, 2_000_000), (split, 50_000)):
        estimates(problem, 10)
        start = time.process_time()
        found, error = estimates(problem, count)
        costs.append(error[0] ** 2 * (time.process_time() - start))
        assert agree(found[0], error[0], wanted), (found[0], error[0], wanted)
    assert costs[0] > 20 * costs[1], costs


@pytest.mark.parametrize("problem", [Slab(1.5, 1.0, 0.8), Slab(1.5, 1.0, 0.8, biased=True, surfaces=(0.7,))],
                         ids=["analogue", "biased"])
def test_estimates_are_off_as_often_as_their_errors_say(problem):
    wanted, z = slab(problem), []
    for seed in range(300):
        found, error = estimates(problem, 4000, seed)
        z.append((found[:3] - wanted) / error[:3])
    for column in np.array(z).T:
        assert stats.kstest(column, "norm").pvalue > 0.01
        assert abs((np.abs(column) < 1).mean() - 0.6827) < 3 * math.sqrt(0.6827 * 0.3173 / 300)


def test_the_same_bits_on_any_ranks_and_after_a_restart(launch, alone, tmp_path):
    plan = ((0, 30_500, ()), (5, 30_500, ("shares=equal",)), (3, 14_000, ()),
            (2, 30_500, ("dealing=static", "restart")))
    found = []
    for ranks, samples, more in plan:
        pairs = ("game=biased", "surfaces=[1,2,3]", "block=1000", "error=1e-9", "seconds=1e6", *more)
        words = [word for pair in pairs if pair != "restart" for word in ("--set", pair)]
        words += ["--samples", str(samples), "--quiet", "--out", str(tmp_path / "r"),
                  "--restart" if "restart" in more else "--overwrite"]
        if ranks:
            done = launch(ranks, "-m", "brmpi.montecarlo.transport", *words)
            assert done.returncode == 0, done.stderr
        else:
            assert program.run(transport.Transport, alone, words) == 0
        found.append(json.loads((tmp_path / "r/run.json").read_text())["estimates"])
    assert set(found[0]) == {"transmission", "reflection", "absorption", "uncollided"}
    assert all((one == found[0]) == (samples == 30_500) for one, (_, samples, _) in zip(found, plan))


BAD = [(("geometry=cube",), "geometry = 'cube': must be one of slab, sphere"),
       (("geometry=sphere",), "source = 'beam': a sphere has centre, uniform"),
       (("source=centre",), "source = 'centre': a slab has beam, cosine, isotropic, uniform"),
       (("layers=[{thickness = -1}]",), "layers[0]: thickness = -1: must be > 0"),
       (("layers=[{}, {scattering = 1.5}]",), "layers[1]: scattering = 1.5: must be <= 1"),
       (("layers=[{thick = 1}]",), "unknown key 'thick': did you mean 'thickness'?"),
       (("layers=[{total = -1}]",), "layers[0]: total = -1: must be >= 0"),
       (("layers=[{total = 1000}]",), "layers have 5000 mean free paths: must be <= 1000"),
       (("surfaces=[6]",), "surfaces = [6.0]: must go up, between 0 and 5"),
       (("surfaces=[2,1]",), "surfaces = [2.0, 1.0]: must go up"),
       (("surfaces=[1,2,3,4]", "split=16"), "surfaces with split = 16 may make 10^4.82 of a particle"),
       (("split=1",), "split = 1: must be >= 2"), (("game=chess",), "game = 'chess': must be one of analogue, biased"),
       (("error=0",), "error = 0: must be > 0"), (("samples=-1",), "samples = -1: must be >= 0")]


@pytest.mark.parametrize(("pairs", "words"), BAD, ids=lambda value: "".join(value))
def test_bad_input(pairs, words):
    with pytest.raises(BadInput) as told:
        case.load(transport.Case, None, [tuple(pair.split("=", 1)) for pair in pairs])
    assert words in str(told.value) and "\n" not in str(told.value)


def test_bad_input_ends_with_one_sentence(launch, tmp_path):
    done = launch(0, "-m", "brmpi.montecarlo.transport", "--set", "geometry=sphere")
    assert done.returncode == 2 and done.stderr.count("source = 'beam': a sphere has") == 1, done.stderr
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("name", sorted(file.stem for file in FOLDER.glob("*.toml")))
def test_cases_do_what_they_say(alone, capsys, tmp_path, name):
    text = (FOLDER / f"{name}.toml").read_text()
    assert all(word in text for word in ("# Shows: ", "# Cost: ", "# Must hold: "))
    fewer = () if name == "absorber" else ("--samples", "400000")
    words = [str(FOLDER / f"{name}.toml"), "--out", str(tmp_path / "run"), *fewer]
    assert program.run(transport.Transport, alone, words) == 0 and "samples/s" in capsys.readouterr().out
    about = json.loads((tmp_path / "run/run.json").read_text())
    found = {key: (row["value"], row["error"]) for key, row in about["estimates"].items()}
    for key, wanted in about["exact"].items():
        assert agree(found[key][0], found[key][1], wanted), (key, found[key], wanted)
    if name == "absorber":
        assert set(about["exact"]) == set(found) and about["exact"]["transmission"] == math.exp(-8)
    elif name == "shield":
        wanted = slab(case.load(transport.Case, FOLDER / "shield.toml").shield(), 300)
        assert wanted[0] == pytest.approx(7.5545e-6, rel=1e-4)
        assert agree(*found["transmission"], wanted[0]) and found["transmission"][1] < 0.02 * wanted[0]
    else:
        assert found["escape"][0] + found["absorption"][0] == pytest.approx(1, abs=1e-12)
        assert agree(*found["escape"], sphere(2.0, 0.6, "uniform"))
