"""Moments of samples: merged by rows they are NumPy's; control variates are the regression that they stand for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brmpi.montecarlo.moments import Moments


def merged(moments, values, parts):
    """The sum of the rows of parts of samples."""
    return sum(moments.row(part) for part in np.array_split(values, parts))


@given(st.integers(2, 400), st.integers(1, 3), st.integers(1, 9), st.integers(0, 2**32))
def test_moments_merged_by_rows_are_numpys(n, k, parts, seed):
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((n, k)) * 10.0 ** rng.integers(-3, 4, k) + rng.uniform(-9, 9, k)
    moments = Moments(values[:1].mean(axis=0))
    mean, error = moments.estimates(merged(moments, values, parts))
    spread = values.std(axis=0, ddof=1)
    np.testing.assert_allclose(mean, values.mean(axis=0), rtol=1e-13, atol=1e-14 * spread.max())
    np.testing.assert_allclose(error, spread / np.sqrt(n), rtol=1e-9)


def test_no_variance_is_lost_beside_a_large_mean():
    values = 1e6 + np.random.default_rng(2).standard_normal((3001, 2)) * [1.0, 1e-3]
    moments = Moments(values[:10].mean(axis=0))
    mean, error = moments.estimates(merged(moments, values, 13))
    np.testing.assert_allclose(mean, values.mean(axis=0), rtol=3e-15)
    np.testing.assert_allclose(error, values.std(axis=0, ddof=1) / np.sqrt(3001), rtol=1e-9)


def test_too_few_samples_have_no_error():
    values = np.ones((5, 3))
    for known, least in (((), 2), ((1.0,), 3), ((1.0, 1.0), 4)):
        moments = Moments(np.zeros(3), known)
        for few in range(5):
            value, error = moments.estimates(moments.row(values[:few]))
            assert len(value) == len(error) == 3 - len(known)
            assert np.isinf(error).all() == (few < least) and np.isnan(value).all() == (few == 0)


def test_histograms_are_numpys_and_nothing_is_left_out():
    values = np.random.default_rng(3).standard_normal((2000, 2))
    values[:3, 0] = np.inf, -np.inf, np.nan
    moments = Moments([0.0, 0.0], edges=np.linspace(-2, 2, 9))
    with np.errstate(invalid="ignore"):
        edges, density = moments.histogram(merged(moments, values, 7))
    counts, _ = np.histogram(np.clip(np.nan_to_num(values[:, 0], nan=-2), -2, 2), edges)
    np.testing.assert_array_equal(np.round(density * 2000 * 0.5), counts)
    assert counts.sum() == 2000 and moments.histogram(np.zeros(moments.width)) is None
    assert Moments([0.0]).histogram(np.ones(3)) is None


def test_sums_known_already_make_the_same_row():
    values = np.random.default_rng(4).random((100, 2))
    for moments in (Moments([0.1, 0.2]), Moments([0.1, 0.2], [0.5])):
        row = moments.row(values)
        from_centre = values - moments.centre
        products = from_centre.T @ from_centre
        wanted = products[np.triu_indices(2)] if len(moments.known) else np.diag(products)
        np.testing.assert_allclose(row, moments.sums(100, from_centre.sum(axis=0), wanted), rtol=1e-13)
        np.testing.assert_allclose(moments.total(values), row[1:3], rtol=1e-15)


@given(st.integers(1, 3), st.integers(1, 4), st.integers(0, 2**32))
def test_control_variates_are_the_regression_on_what_they_are_off(kept, q, seed):
    rng = np.random.default_rng(seed)
    n = 60
    control = rng.standard_normal((n, q)) + 5
    known = rng.uniform(4.9, 5.1, q)
    values = control @ rng.uniform(-2, 2, (q, kept)) + rng.standard_normal((n, kept)) + 7
    moments = Moments(rng.uniform(4, 8, kept + q), known)
    value, error = moments.estimates(merged(moments, np.column_stack([values, control]), 4))
    design = np.column_stack([np.ones(n), control - known])
    fit, left, _, _ = np.linalg.lstsq(design, values, rcond=None)
    np.testing.assert_allclose(value, fit[0], rtol=1e-9)
    intercept = np.linalg.inv(design.T @ design)[0, 0]  # its variance counts that the slopes are fitted, too
    np.testing.assert_allclose(error, np.sqrt(left / (n - 1 - q) * intercept), rtol=1e-7)


def test_a_control_variate_leaves_what_it_does_not_explain():
    rng = np.random.default_rng(5)
    x, noise = rng.standard_normal((2, 50000))
    moments = Moments([0.0, 0.0], known=[0.0])
    value, error = moments.estimates(merged(moments, np.column_stack([3 + 2 * x + 0.5 * noise, x]), 3))
    assert abs(value[0] - 3) < 4 * error[0]
    assert error[0] == pytest.approx(0.5 / np.sqrt(50000), rel=0.02)  # the deviation of the noise alone


def test_control_variates_that_say_the_same_or_nothing_do_no_harm():
    rng = np.random.default_rng(6)
    x = rng.random(1000)
    y = np.exp(x)
    one = Moments([1.7, 0.5], [0.5])
    wanted = one.estimates(one.row(np.column_stack([y, x])))
    for other, mean in ((x, 0.5), (np.full(1000, 0.25), 0.25), (3 * x - 1, 0.5)):
        many = Moments([1.7, 0.5, mean], [0.5, mean])
        found = many.estimates(many.row(np.column_stack([y, x, other])))
        np.testing.assert_allclose(np.ravel(found), np.ravel(wanted), rtol=2e-3)
        np.testing.assert_allclose(found[0], wanted[0], rtol=1e-9)
