"""Rows dealt out in blocks: each to one part, as ScaLAPACK does where weights are equal, and fairly at every step."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brmpi.errors import BadInput
from brmpi.linalg.axis import Axis, deal

WEIGHTS = st.lists(st.floats(0, 100), min_size=1, max_size=6).filter(any)


def numroc(n, nb, part, parts):
    """How many indices a part owns, as ScaLAPACK's NUMROC counts them."""
    blocks = n // nb
    count, extra = blocks // parts * nb, blocks % parts
    return count + (nb if part < extra else n % nb if part == extra else 0)


def indxg2l(index, nb, parts):
    """Local place of a global index, as ScaLAPACK's INDXG2L has it, from 0."""
    return nb * (index // (nb * parts)) + index % nb


@given(n=st.integers(0, 300), nb=st.integers(1, 17), parts=st.integers(1, 7))
def test_equal_weights_are_scalapack(n, nb, parts):
    axis = Axis(n, nb, [3.5] * parts)
    for part in range(parts):
        assert axis.count(part) == numroc(n, nb, part, parts)
    for index in range(n):
        part = (index // nb) % parts
        assert axis.owner(index) == part
        assert axis.before(part, index) == indxg2l(index, nb, parts)


@given(blocks=st.integers(0, 60), weights=WEIGHTS, data=st.data())
def test_every_block_has_one_owner_within_its_cap(blocks, weights, data):
    caps = data.draw(st.none() | st.lists(st.integers(0, 80), min_size=len(weights), max_size=len(weights)))
    if caps is not None and sum(min(cap, blocks) for cap in caps) < blocks:
        with pytest.raises(BadInput, match=f"and there are {blocks}"):
            deal(blocks, weights, caps)
        return
    owners = deal(blocks, weights, caps)
    assert len(owners) == blocks and all(0 <= owner < len(weights) for owner in owners)
    counts = np.bincount(owners, minlength=len(weights))
    if caps is not None:
        assert (counts <= caps).all()
    room = blocks if caps is None else sum(min(cap, blocks) for cap, weight in zip(caps, weights) if weight)
    beyond = sum(counts[part] for part, weight in enumerate(weights) if not weight)
    assert beyond == max(0, blocks - room), "parts of weight 0 hold only what others have no room for"


def least(blocks, weights):
    """The least time of the slowest part, over all ways to share blocks out."""
    ways = (way for way in itertools.product(range(blocks + 1), repeat=len(weights)) if sum(way) == blocks)
    return min(max(count / weight for count, weight in zip(way, weights)) for way in ways)


@pytest.mark.parametrize("weights", [(1, 2), (30, 12, 5), (1, 1, 1), (1, 1, 7), (2.5, 1, 1.5), (30, 12, 12, 60)])
def test_every_trailing_part_is_shared_as_well_as_can_be(weights):
    blocks = 12 if len(weights) < 4 else 8
    owners = deal(blocks, weights)
    for first in range(blocks):
        counts = np.bincount(owners[first:], minlength=len(weights))
        assert max(counts / weights) == pytest.approx(least(blocks - first, weights), rel=1e-12)


def test_caps_are_shared_as_well_as_can_be():
    counts = np.bincount(deal(12, (1, 2, 3), (9, 9, 2)))
    assert counts.tolist() == [3, 7, 2]  # max(3 / 1, 7 / 2) = 3.5: neither 4 + 6 nor 2 + 8 is faster
    assert np.bincount(deal(12, (1, 0, 3), (2, 9, 4)), minlength=3).tolist() == [2, 6, 4]


@given(n=st.integers(0, 70), nb=st.integers(1, 9), weights=WEIGHTS)
def test_places_are_those_found_by_looking(n, nb, weights):
    axis = Axis(n, nb, weights)
    owner = [int(axis.owners[index // nb]) for index in range(n)]
    assert (axis.owner(np.arange(n)) == owner).all()
    for part in range(len(weights)):
        mine = [index for index in range(n) if owner[index] == part]
        assert axis.indices(part).tolist() == mine and axis.count(part) == len(mine)
        assert [axis.before(part, index) for index in range(n + 1)] == [sum(i < index for i in mine)
                                                                        for index in range(n + 1)]
    assert sum(axis.width(block) for block in range(axis.blocks)) == n
    assert [i for block in range(axis.blocks) for i in range(*axis.span(block))] == list(range(n))


@given(n=st.integers(0, 70), nb=st.integers(1, 9), weights=WEIGHTS, data=st.data())
def test_a_head_is_dealt_as_the_whole(n, nb, weights, data):
    axis, most = Axis(n, nb, weights), data.draw(st.integers(0, n))
    head = axis.head(most)
    assert head.n == most
    for part in range(len(weights)):
        assert head.indices(part).tolist() == [index for index in axis.indices(part) if index < most]


def test_axes_are_equal_where_their_blocks_are():
    assert Axis(20, 3, (1, 2)) == Axis(20, 3, (2, 4)) != Axis(20, 3, (2, 1))
    assert Axis(20, 3, (1, 1)) != Axis(20, 4, (1, 1)) and Axis(20, 3, (1, 1)) != Axis(19, 3, (1, 1))


@pytest.mark.parametrize("arguments, words", [
    ((5, 0, (1,)), "nb = 0: must be >= 1"), ((-1, 2, (1,)), "n = -1: must be >= 0"),
    ((5, 2, (1, -2)), r"weights\[1\] = -2.0: must be finite and >= 0"), ((5, 2, (0, 0)), "one at least must be > 0"),
    ((5, 2, (1, np.nan)), r"weights\[1\] = nan"), ((5, 2, (1, np.inf)), r"weights\[1\] = inf"),
    ((5, 2, (1, 1), (1, 1)), r"caps = \[1, 1\]: 2 blocks together, and there are 3")])
def test_what_cannot_be_is_refused(arguments, words):
    with pytest.raises(BadInput, match=words):
        Axis(*arguments)
