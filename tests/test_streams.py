"""Streams: the published Philox vectors, position by index, and the right distributions."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from brmpi.streams import Stream

# Known answers of philox4x64 with 10 rounds, distributed with Random123: counter, key, output.
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B)),
    ((2**64 - 1,) * 4, (2**64 - 1,) * 2,
     (0x87B092C3013FE90B, 0x438C3C67BE8D0224, 0x9CC7D7C69CD777B6, 0xA09CAEBF594F0BA0)),
    ((0x243F6A8885A308D3, 0x13198A2E03707344, 0xA4093822299F31D0, 0x082EFA98EC4E6C89),
     (0x452821E638D01377, 0xBE5466CF34E90C6C),
     (0xA528F45403E61D95, 0x38C72DBD566E9788, 0xA5A1610E72FD18B5, 0x57BD43B5E52B7FE6)),
]


@pytest.mark.parametrize(("counter", "key", "output"), KNOWN)
def test_known_answers(counter, key, output):
    stream = Stream(0, "any")
    stream.key = key
    block = sum(word << (64 * place) for place, word in enumerate(counter))
    assert stream.words(4 * block, 4).tolist() == list(output)


@given(st.integers(0, 2**64 - 1), st.integers(0, 10**12), st.integers(0, 50), st.integers(0, 50))
def test_words_depend_on_their_position_alone(seed, first, skip, count):
    stream = Stream(seed, "test")
    assert stream.words(first, skip + count)[skip:].tolist() == stream.words(first + skip, count).tolist()


@pytest.mark.parametrize("draw", ["uniform", "normal"])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_any_partition_gives_the_same_numbers(draw, shape):
    whole = getattr(Stream(7, "x"), draw)(0, 1000, shape)
    cuts = [0, 0, 1, 333, 334, 999, 1000]
    parts = [getattr(Stream(7, "x"), draw)(a, b - a, shape) for a, b in itertools.pairwise(cuts)]
    assert whole.shape == (1000, *shape)
    assert np.concatenate(parts).tobytes() == whole.tobytes()


def test_distributions():
    count = 200_000
    assert stats.kstest(Stream(1, "u").uniform(0, count), "uniform").pvalue > 1e-3
    assert stats.kstest(Stream(1, "n").normal(0, count), "norm").pvalue > 1e-3


def test_extreme_words_stay_in_range(monkeypatch):
    stream = Stream(0, "x")
    monkeypatch.setattr(stream, "words", lambda first, count: np.array([0, 2**64 - 1], dtype=np.uint64))
    assert stream.uniform(0, 2).tolist() == [0, 1 - 2**-53]
    low, high = stream.normal(0, 2)
    assert -8.4 < low < -8.2 and 8.1 < high < 8.4


def test_purposes_and_seeds_differ():
    draws = {Stream(seed, purpose).words(0, 1)[0] for seed in range(10) for purpose in "abc"}
    assert len(draws) == 30


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_bad_seed(seed):
    with pytest.raises(ValueError, match=str(seed)):
        Stream(seed, "x")
