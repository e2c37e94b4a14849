"""Random numbers of neighbouring indices, seeds and purposes have nothing to do with each other."""

import itertools

import numpy as np
import pytest
from scipy import stats

from brmpi.streams import Stream

COUNT = 2**16
FAMILIES = {
    "seeds": [Stream(seed, "a") for seed in range(12)],
    "purposes": [Stream(7, f"purpose {number}") for number in range(12)],
    "far seeds": [Stream(2**number, "a") for number in range(52, 64)],
}
NEIGHBOURS = {name: np.array([stream.uniform(0, COUNT) for stream in streams]) for name, streams in FAMILIES.items()}
NEIGHBOURS["indices"] = Stream(3, "a").uniform(0, 12 * COUNT).reshape(COUNT, 12).T
NEIGHBOURS["blocks"] = Stream(3, "b").uniform(0, 12 * COUNT).reshape(12, COUNT)
NEIGHBOURS["far indices"] = np.array([Stream(5, "a").uniform(place * 2**48, COUNT) for place in range(12)])


def least(values):
    """The smallest of some p-values, as the p-value of that many tests."""
    return 1 - (1 - min(values)) ** len(values)


@pytest.mark.parametrize("family", NEIGHBOURS)
def test_each_is_uniform(family):
    assert least([stats.kstest(row, "uniform").pvalue for row in NEIGHBOURS[family]]) > 1e-4


@pytest.mark.parametrize("family", NEIGHBOURS)
def test_no_two_are_correlated(family):
    rows = NEIGHBOURS[family] - 0.5
    for transformed in (rows, rows**2 - 1 / 12, np.abs(rows) - 0.25):
        transformed = transformed / transformed.std(axis=1, keepdims=True)
        for shift in (0, 1, -1, 4):
            z = transformed @ np.roll(transformed, shift, axis=1).T / np.sqrt(COUNT)
            off = z[~np.eye(len(z), dtype=bool)] if shift == 0 else z.ravel()
            assert least(2 * stats.norm.sf(np.abs(off))) > 1e-4, shift


@pytest.mark.parametrize("family", NEIGHBOURS)
def test_pairs_fill_all_cells_alike(family):
    values = []
    for one, other in itertools.pairwise(NEIGHBOURS[family]):
        counts = np.histogram2d(one, other, bins=64, range=[[0, 1], [0, 1]])[0]
        values.append(stats.chisquare(counts.ravel()).pvalue)
    assert least(values) > 1e-4 and least(1 - np.array(values)) > 1e-4


@pytest.mark.parametrize("family", NEIGHBOURS)
def test_differences_of_neighbours_are_uniform_on_the_circle(family):
    values = []
    for one, other in itertools.combinations(NEIGHBOURS[family], 2):
        values.append(stats.kstest((one - other) % 1, "uniform").pvalue)
    assert least(values) > 1e-4


def test_birthdays_of_streams_in_turns():
    """Marsaglia's birthday spacings: repeated gaps among 2**10 birthdays in 2**28 days are Poisson with mean 1."""
    streams = [Stream(seed, "birthdays") for seed in range(64)]
    words = np.column_stack([stream.words(0, 2**10) for stream in streams]).ravel()  # in turns
    repeats = []
    for shift in (0, 13, 36):
        days = np.sort(((words >> np.uint64(shift)) & np.uint64(2**28 - 1)).reshape(64, 2**10), axis=1).astype(np.int64)
        gaps = np.sort(np.diff(days, axis=1, prepend=0), axis=1)
        repeats += (np.diff(gaps, axis=1) == 0).sum(axis=1).tolist()
    total = sum(repeats)
    assert 2 * min(stats.poisson.cdf(total, len(repeats)), stats.poisson.sf(total - 1, len(repeats))) > 1e-4


def test_every_bit_is_a_coin_and_none_knows_another():
    words = np.column_stack([Stream(seed, "bits").words(0, 2**13) for seed in range(8)]).ravel()
    bits = (words[:, None] >> np.arange(64, dtype=np.uint64) & np.uint64(1)).astype(float) - 0.5
    assert least(2 * stats.norm.sf(np.abs(bits.sum(axis=0)) * 2 / np.sqrt(len(bits)))) > 1e-4
    z = (bits.T @ bits) * 4 / np.sqrt(len(bits))
    assert least(2 * stats.norm.sf(np.abs(z[np.triu_indices(64, 1)]))) > 1e-4


def test_a_spectrum_without_lines():
    row = np.stack([Stream(seed, "spectrum").uniform(0, 2**14) for seed in range(4)], axis=1).ravel() - 0.5
    power = np.abs(np.fft.rfft(row))[1:-1] ** 2 / (len(row) / 12)
    assert stats.kstest(power, "expon").pvalue > 1e-4
    assert 1 - (1 - np.exp(-power.max())) ** len(power) > 1e-4
