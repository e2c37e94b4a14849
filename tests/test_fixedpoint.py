"""Sums in integers: NumPy's version defines them, Numba's agrees bit for bit, and no order changes them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brmpi.kernels import fixedpoint

TYPES = [(np.float32, np.int32), (np.float64, np.int64)]


@pytest.mark.parametrize(("real", "whole"), TYPES)
@given(seed=st.integers(0, 2**32), size=st.integers(0, 70), power=st.integers(-40, 40), bits=st.integers(1, 28))
def test_versions_agree(real, whole, seed, size, power, bits):
    rng = np.random.default_rng(seed)
    values = (rng.standard_normal(size) * 10.0 ** rng.integers(-6, 6, size)).astype(real)
    if size > 3:
        values[rng.integers(0, size, 2)] = rng.choice([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-40])
    found = []
    for backend in ("numpy", "numba"):
        sums = np.full(size, 3, whole)
        largest = fixedpoint.add(values, 2.0**power, 2.0**bits, sums, backend)
        back = np.empty(size, real)
        fixedpoint.scaled(sums, 2.0**-power / 3, back, backend)
        found.append((largest, sums.tolist(), back.tobytes()))
    assert found[0] == found[1]
    finite = np.isfinite(values).all()
    assert found[0][0] == (np.abs(values).max(initial=0) if finite else np.inf)
    with np.errstate(all="ignore"):
        product = values.astype(float) * 2.0**power
        wanted = 3 + np.where(np.abs(product) <= 2.0**bits, np.rint(np.nan_to_num(product)), 0)
    assert found[0][1] == wanted.tolist()


@pytest.mark.parametrize(("real", "whole"), TYPES)
def test_no_order_changes_a_sum(real, whole):
    rng = np.random.default_rng(1)
    parts = rng.standard_normal((20, 50)).astype(real)
    totals = []
    for order in (range(20), rng.permutation(20)):
        sums = np.zeros(50, whole)
        for part in order:
            fixedpoint.add(parts[part], 2.0**20, 2.0**25, sums)
        totals.append(sums.tolist())
    assert totals[0] == totals[1]
    assert np.array(totals[0]) / 2.0**20 == pytest.approx(parts.sum(axis=0), abs=20 * 2.0**-21)


def test_types_that_do_not_belong_together_are_refused():
    for values, sums in ((np.zeros(2, "f4"), np.zeros(2, "i8")), (np.zeros(2), np.zeros(3, "i8")),
                         (np.zeros(2, "i4"), np.zeros(2, "i4"))):
        with pytest.raises(ValueError, match="must be float32 and int32"):
            fixedpoint.add(values, 1.0, 1.0, sums)
