"""Shares: exact sums, fair quotas, owners that agree with offsets."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brmpi import partition

COUNTS = st.integers(0, 10**15)
SPEEDS = st.lists(st.floats(0, 1e12, allow_subnormal=False), min_size=1, max_size=40).filter(any)


@given(COUNTS, SPEEDS)
def test_shares_sum_exactly_and_keep_the_quota(n, speeds):
    counts = partition.shares(n, speeds)
    assert sum(counts.tolist()) == n
    total = sum(map(Fraction, speeds))
    for count, speed in zip(counts.tolist(), speeds):
        assert abs(count - n * Fraction(speed) / total) < 1


@given(COUNTS, SPEEDS)
def test_the_faster_rank_never_gets_less(n, speeds):
    counts = partition.shares(n, speeds)
    by_speed = sorted(zip(speeds, counts.tolist()))
    assert all(slow <= fast for (a, slow), (b, fast) in itertools.pairwise(by_speed) if a < b)


@given(COUNTS, st.integers(1, 60))
def test_equal_speeds_give_equal_shares(n, size):
    assert partition.shares(n, [0.1] * size).tolist() == partition.equal(n, size).tolist()


@given(COUNTS, SPEEDS, st.integers(-20, 20))
def test_the_unit_of_speed_does_not_matter(n, speeds, power):
    assert partition.shares(n, speeds).tolist() == partition.shares(n, [s * 2.0**power for s in speeds]).tolist()


@given(st.integers(0, 2000), SPEEDS)
def test_owner_inverts_offsets(n, speeds):
    counts = partition.shares(n, speeds)
    offsets = partition.offsets(counts)
    assert offsets[0] == 0 and offsets[-1] == n and len(offsets) == len(speeds) + 1
    ranks = partition.owner(np.arange(n), offsets)
    assert ranks.tolist() == np.repeat(np.arange(len(counts)), counts).tolist()
    if n:
        assert partition.owner(n - 1, offsets) == ranks[-1]


def test_largest_remainder_by_hand():
    assert partition.shares(10, [30, 12, 12, 12, 20]).tolist() == [4, 2, 1, 1, 2]  # quotas 3.49 1.40 1.40 1.40 2.33
    assert partition.shares(2, [1, 1, 1]).tolist() == [1, 1, 0]
    assert partition.shares(7, [0, 2, 0]).tolist() == [0, 7, 0]
    assert partition.shares(0, [1.5, 2]).tolist() == [0, 0]


@pytest.mark.parametrize(("n", "speeds", "what"), [
    (-1, [1], "n = -1"), (1.5, [1], "n = 1.5"), (1, [], "speeds"), (1, [1, -2.0], r"speeds\[1\] = -2"),
    (1, [float("nan")], "nan"), (1, [float("inf")], "inf"), (1, [0, 0], "all 0"),
])
def test_bad_shares_name_the_value(n, speeds, what):
    with pytest.raises(ValueError, match=what):
        partition.shares(n, speeds)


def test_bad_arguments_elsewhere():
    with pytest.raises(ValueError, match="size = 0"):
        partition.equal(3, 0)
    with pytest.raises(ValueError, match=r"\[1, -1\]"):
        partition.offsets([1, -1])
    for index in (-1, 3):
        with pytest.raises(IndexError, match=str(index)):
            partition.owner(index, [0, 1, 3])
