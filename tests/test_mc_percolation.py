"""Percolation: windings against a search that unrolls the lattice, exact small lattices, the literature's threshold."""

import dataclasses
import itertools
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from sampled import estimates, normal, told

from brmpi import case
from brmpi.errors import BadInput
from brmpi.kernels import percolation
from brmpi.kernels.percolation import _filled
from brmpi.montecarlo.percolation import THRESHOLD, Case, Percolation, Winding

ROOT = Path(__file__).parent.parent
CASES = ROOT / "sims/montecarlo/percolation"
KEY = (5, 2**63 + 9)


def windings(filled, size):
    """All displacements by which some cluster comes back to its start, up to a few: walk on the unrolled lattice."""
    found, seen = set(), set()
    for start in filled:
        if start in seen:
            continue
        places, queue = {start: (0, 0)}, [start]
        for site in queue:
            x, y = places[site]
            for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
                other = (site // size + dy) % size * size + (site % size + dx) % size
                if other not in filled:
                    continue
                there = x + dx, y + dy
                if other not in places:
                    places[other] = there
                    queue.append(other)
                elif places[other] != there:
                    found.add((there[0] - places[other][0], there[1] - places[other][1]))
        seen |= set(places)
    return found


def searched(order, size):
    """As the kernel: numbers of filled sites at which windings appear."""
    answer = [0, 0, 0]
    for count in range(1, len(order) + 1):
        found = windings(set(order[:count]), size)
        hold = (any(x for x, _ in found), any(y for _, y in found),
                any(a * d != b * c for (a, b), (c, d) in itertools.combinations(found, 2)))
        answer = [was or (count if now else 0) for was, now in zip(answer, hold)]
        if answer[2]:
            return answer
    raise AssertionError("a full lattice winds both ways")


@pytest.mark.parametrize("size", [2, 3, 4, 6])
def test_windings_by_search(size):
    rng = np.random.default_rng(size)
    for _ in range(40):
        order = rng.permutation(size * size).tolist()
        assert list(_filled(order, size)) == searched(order, size)


@pytest.mark.parametrize("size", [2, 3, 5, 16])
def test_versions_are_alike_and_lattices_known_by_index(size):
    reference = percolation.thresholds(KEY, 3, 12, size, "numpy")
    np.testing.assert_array_equal(reference, percolation.thresholds(KEY, 3, 12, size, "numba"))
    parts = [percolation.thresholds(KEY, first, 4, size, "numba") for first in (3, 7, 11)]
    np.testing.assert_array_equal(reference, np.concatenate(parts))
    assert percolation.thresholds(KEY, 0, 0, size).shape == (0, 3)


def test_all_orders_of_the_smallest_lattices():
    orders = list(itertools.permutations(range(4)))
    exact = [Fraction(sum(_filled(list(order), 2)[which] for order in orders), len(orders)) for which in range(3)]
    found = percolation.thresholds(KEY, 0, 40000, 2, "numba").astype(float)
    error = found.std(axis=0) / np.sqrt(len(found))
    assert (np.abs(found.mean(axis=0) - np.array(exact, dtype=float)) <= 4 * error).all()
    # every set of 4 or 5 sites of a 3 x 3 lattice is met as often as any other
    found = percolation.thresholds(KEY, 0, 60000, 3, "numba")
    for count in (3, 4, 5):
        sets = list(itertools.combinations(range(9), count))
        share = sum(any(x for x, _ in windings(set(one), 3)) for one in sets) / len(sets)
        met = (found[:, 0] <= count).mean()
        assert abs(met - share) < 4 * np.sqrt(share * (1 - share) / len(found)) + 1e-12


def test_winding_probabilities_at_the_threshold():
    """Newman & Ziff, Phys. Rev. Lett. 85 (2000) 4104: 0.521058 along one direction, 0.690474 along any."""
    size, count = 64, 6000
    found = percolation.thresholds((9, 9), 0, count, size, "numba")
    rng = np.random.default_rng(1)
    filled = rng.binomial(size * size, THRESHOLD, count)[:, None]  # sites that are there at the threshold
    along = (found[:, :2] <= filled).mean()
    either = (found[:, :2] <= filled).any(axis=1).mean()
    assert abs(along - 0.521058290) < 4 * np.sqrt(0.25 / count)
    assert abs(either - 0.690473725) < 4 * np.sqrt(0.21 / count)


def test_estimates_are_normal_and_finite_lattices_are_off_as_they_should_be(alone):
    scores = []
    for seed in range(60):
        _, values, errors = estimates(Percolation, alone, 256, sizes=(16, 32), seed=seed)
        scores.append((values[0] - THRESHOLD) / errors[0])
    assert normal(scores) > 1e-3 and abs(np.mean(scores)) < 0.5
    _, values, errors = estimates(Percolation, alone, 2**16, sizes=(8, 16), block=2**12)
    apart = (THRESHOLD - values[1]) / (THRESHOLD - values[2])
    assert 2.3 < apart < 3.5 and errors[1] < 3e-4  # 2**1.5 = 2.83


def test_bad_input_is_refused():
    for keys in ({"sizes": (8, 8)}, {"sizes": (1, 4)}, {"sizes": (4, 2**16)}, {"samples": -1}, {"block": 0}):
        with pytest.raises(BadInput):
            case.build(Case, keys, {}, "--set")
    for size, first in ((1, 0), (2**16, 0), (4, -1)):
        with pytest.raises(ValueError):
            percolation.thresholds(KEY, first, 1, size)


def test_the_same_bits_on_any_number_of_ranks(launch, tmp_path):
    for ranks, backend in ((0, "numba"), (3, "numpy"), (5, "numba")):
        done = launch(ranks, "-m", "brmpi.montecarlo.percolation", "--set", "sizes=[4,8]", "--samples", "530", "--set",
                      "block=16", "--backend", backend, "--out", f"on-{ranks}")
        assert done.returncode == 0, done.stderr
        assert told(tmp_path / "on-0") == told(tmp_path / f"on-{ranks}")


@pytest.mark.parametrize("file", sorted(CASES.glob("*.toml")), ids=lambda file: file.stem)
def test_what_the_cases_say_holds(file, alone):
    text = file.read_text()
    assert text.startswith("# ") and "Takes" in text and "Must hold" in text
    loaded = case.load(Case, file)
    estimator = Winding(dataclasses.replace(loaded, block=64), "numba")
    samples = min(loaded.samples, 20_000 if file.stem == "threshold" else loaded.samples)
    values, errors = estimator.estimates(estimator.block(0, samples))
    assert abs(values[0] - THRESHOLD) < 4 * errors[0]
    if file.stem == "small":
        assert errors[0] < 2.2e-4 and (np.abs(values[1:3] - THRESHOLD) > 5 * errors[1:3]).all()
