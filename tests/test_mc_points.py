"""Ways of choosing points: every sample by its index, Sobol's nets wherever one begins, variances of closed forms."""

import math

import numpy as np
import pytest
from sampled import normal
from scipy import stats

from brmpi.errors import BadInput, Fault
from brmpi.kernels import philox
from brmpi.montecarlo import points

E = math.e


def made(way, function=lambda x: (x**2).sum(axis=1)[:, None], dimension=3, seed=9, **more):
    return points.estimator(way, function, dimension, seed, "test", **more)


def sampled(estimator, blocks, size):
    """Estimates and errors of some blocks."""
    return estimator.estimates(sum(estimator.block(block * size, size) for block in range(blocks)))


def seen(way, first, count, dimension=3, seed=9):
    """Points that a function gets, call by call."""
    calls = []
    estimator = made(way, lambda x: calls.append(x.copy()) or x[:, :1], dimension, seed)
    calls.clear()
    estimator.block(first, count)
    return calls


# ---- points -------------------------------------------------------------------------------------------------------


def test_points_are_the_middles_of_cells_of_words():
    x = made("plain").points(1000, 50)
    words = philox.words(made("plain").stream.key, 3000, 150)
    np.testing.assert_array_equal(x.ravel(), ((words >> np.uint64(12)) + 0.5) * 2.0**-52)


def test_no_point_and_no_mirror_image_is_on_an_edge(monkeypatch):
    estimator = made("plain", dimension=2)
    monkeypatch.setattr(philox, "words", lambda *_: np.array([0, 2**64 - 1], np.uint64))
    x = estimator.points(0, 1)
    assert x.tolist() == [[2.0**-53, 1 - 2.0**-53]] and (1 - x).tolist() == [[1 - 2.0**-53, 2.0**-53]]


@pytest.mark.parametrize("way", points.WAYS)
def test_points_belong_to_their_indices(way):
    size = 64
    one, other = made(way, histogram=True), made(way, histogram=True)
    rows = [one.block(first, size) for first in range(0, 4 * size, size)]
    backwards = [other.block(first, size) for first in range(3 * size, -1, -size)][::-1]
    np.testing.assert_array_equal(rows, backwards)
    if way != "stratified":
        np.testing.assert_allclose(np.sum(rows, axis=0), other.block(0, 4 * size), rtol=1e-12)
    assert not np.allclose(rows[0], made(way, seed=10, histogram=True).block(0, size))
    edges, density = one.histogram(np.sum(rows, axis=0))
    assert (density * np.diff(edges)).sum() == pytest.approx(1)
    middle = (density * np.diff(edges) * (edges[1:] + edges[:-1]) / 2).sum()  # of samples, whatever else is kept
    assert middle == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("way", points.WAYS)
def test_pieces_are_small_and_make_the_same_block(way, monkeypatch):
    whole = made(way, histogram=True).block(0, 4096)
    monkeypatch.setattr(points, "PIECE", 3 * 100)
    monkeypatch.setattr(points, "FEWEST", 100)
    assert max(map(len, seen(way, 0, 4096))) == 100
    np.testing.assert_allclose(made(way, histogram=True).block(0, 4096), whole, rtol=1e-12)


def test_pieces_of_many_dimensions_fit_into_memory():
    assert made("plain", dimension=20).piece == 2**17 // 20
    assert made("plain", dimension=1000).piece == 4096  # few calls of functions that go along a path
    assert made("plain", lambda x: x[:, :1], dimension=20000).piece * 20000 <= 2**22


# ---- Sobol's sequence ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [0, 32, 4096, 2**20 - 32])
def test_sobols_points_are_scipys(first):
    estimator = made("sobol", dimension=5)
    found = seen("sobol", 16 * first, 16 * 64, dimension=5)
    assert len(found) == 16 and all(part.shape == (64, 5) for part in found)
    for scrambling in (0, 4, 15):
        engine = points._engine(5, estimator.stream, scrambling)
        if first:
            engine.fast_forward(first)
        np.testing.assert_array_equal(found[scrambling], engine.random(64) + 2.0**-33)
    assert not np.array_equal(found[0], found[1])


@pytest.mark.parametrize("place", [0, 1, 37, 2**20 + 5, 2**22 - 1])
def test_sobols_points_are_nets_as_far_as_the_sequence_goes(place):
    """Of 1024 points from a multiple of 1024 on, each 1024th of an axis has one, and each cell of 32 by 32."""
    for x in seen("sobol", 16 * 1024 * place, 16 * 1024, dimension=4)[::5]:
        for axis in x.T:
            assert sorted((axis * 1024).astype(int)) == list(range(1024))
        cells = (x[:, 0] * 32).astype(int) * 32 + (x[:, 1] * 32).astype(int)
        assert len(set(cells)) == 1024
        assert x.min() > 0 and x.max() < 1


def test_sobols_points_follow_from_any_beginning():
    for first in (1, 5, 1023, 3_000_001):
        one, other = made("sobol"), made("sobol")
        there = one._scrambled(3, first, 9)
        around = np.vstack([other._scrambled(3, first - 1, 4), other._scrambled(3, first + 3, 6)])
        np.testing.assert_array_equal(around[1:], there)
        other._scrambled(3, first + 10**6, 2)
        np.testing.assert_array_equal(other._scrambled(3, first, 9), there)


class Other:
    """An engine that shows nothing of what is in it."""

    def __init__(self, engine):
        self.engine = engine
        self.fast_forward, self.random, self.reset = engine.fast_forward, engine.random, engine.reset

    @property
    def num_generated(self):
        return self.engine.num_generated


def test_an_engine_that_cannot_be_looked_into_counts_all_the_way():
    plain, hidden = made("sobol"), made("sobol")
    hidden.engines[2] = Other(points._engine(3, hidden.stream, 2))
    for first in (0, 64, 640, 128, 0, 3):
        np.testing.assert_array_equal(hidden._scrambled(2, first, 16), plain._scrambled(2, first, 16))


def test_sobols_error_is_the_spread_of_its_scramblings():
    means = [np.exp(x[:, 0]).mean() for x in seen("sobol", 0, 16 * 100)]
    value, error = sampled(made("sobol", exponential), 4, 16 * 25)
    assert value[0] == pytest.approx(np.mean(means), rel=1e-14)
    assert error[0] == pytest.approx(np.std(means, ddof=1) / 4, rel=1e-9)


def test_what_sobols_sequence_cannot_do_is_refused():
    with pytest.raises(BadInput, match="dimension = 21202: Sobol's table ends at 21201"):
        made("sobol", dimension=21202)
    with pytest.raises(BadInput, match="control variates"):
        made("sobol", lambda x: x, dimension=2, known=[0.5])
    estimator, end = made("sobol"), 2**36
    assert estimator.block(end - 32, 32)[0] == 32
    with pytest.raises(Fault, match=f"samples = {end + 16}: Sobol's sequence ends at {end}"):
        estimator.block(end - 16, 32)
    value, error = estimator.estimates(estimator.block(0, 8))
    assert np.isnan(value).all() and np.isinf(error).all()


# ---- variances ----------------------------------------------------------------------------------------------------
# Of e**u: mean e - 1, variance V, covariance with e**(1 - u) of e - (e - 1)**2, and with u of (3 - e) / 2.

V = (E**2 - 1) / 2 - (E - 1) ** 2


def exponential(x):
    return np.exp(x[:, :1])


def with_control(x):
    return np.column_stack([np.exp(x[:, 0]), x[:, 0]])


def strata(n):
    """Variance of the mean of e**u with one point in each nth of [0, 1)."""
    edges = np.arange(n) / n
    means, squares = np.exp(edges) * math.expm1(1 / n) * n, np.exp(2 * edges) * math.expm1(2 / n) * n / 2
    return (squares - means**2).sum() / n**2


@pytest.mark.parametrize(("way", "function", "known", "variance"), [
    ("plain", exponential, (), V),
    ("antithetic", exponential, (), (V + E - (E - 1) ** 2) / 2),
    ("plain", with_control, (0.5,), V - 12 * ((3 - E) / 2) ** 2)], ids=["plain", "antithetic", "control"])
def test_variances_are_those_of_theory(way, function, known, variance):
    n = 2**17
    value, error = sampled(made(way, function, 1, known=known), 8, n // 8)
    assert error[0] ** 2 * n == pytest.approx(variance, rel=0.02)
    assert abs(value[0] - (E - 1)) < 4 * error[0] and variance <= V


@pytest.mark.parametrize("size", [1, 4, 64])
def test_strata_leave_the_variance_within_them_and_that_of_the_other_dimensions(size):
    blocks = 4000
    value, error = sampled(made("stratified", exponential, 1), blocks, size)
    assert error[0] ** 2 * blocks == pytest.approx(strata(size), rel=4 * math.sqrt(2 / blocks))
    assert abs(value[0] - (E - 1)) < 4 * error[0]
    value, error = sampled(made("stratified", lambda x: exponential(x) + x[:, 1:2], 2), blocks, size)
    assert error[0] ** 2 * blocks == pytest.approx(strata(size) + 1 / 12 / size, rel=4 * math.sqrt(2 / blocks))
    assert strata(1) == pytest.approx(V) and strata(64) == pytest.approx((E**2 - 1) / 24 / 64**3, rel=1e-3)


@pytest.mark.parametrize(("way", "known", "size"), [
    ("plain", (), 512), ("antithetic", (), 512), ("stratified", (), 4), ("plain", (0.5,), 512), ("sobol", (), 512)])
def test_error_bars_cover_at_the_rate_they_state(way, known, size):
    """Over 400 seeds: z-scores are normal, those of 16 scramblings Student's, and as many as should are within."""
    function = with_control if known else lambda x: np.exp(x.sum(axis=1))[:, None]
    dimension = 1 if known else 2
    scores = []
    for seed in range(400):
        value, error = sampled(made(way, function, dimension, seed, known=known), 512 // size, size)
        scores.append((value[0] - (E - 1) ** dimension) / error[0])
    freedom = 15 if way == "sobol" else None
    assert normal(scores, freedom) > 1e-3
    law = stats.t(15) if freedom else stats.norm
    for level in (0.68, 0.95):
        within = int((np.abs(scores) < law.ppf((1 + level) / 2)).sum())
        assert stats.binomtest(within, len(scores), level).pvalue > 1e-3, (level, within)
