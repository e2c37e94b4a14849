"""Reproducible sums: the same bits for any order and any distribution, and right to the last bit."""

import math

import numpy as np
import pytest

from brmpi import partition, sums


def wild(rows, columns, seed):
    """Values over forty orders of magnitude with heavy cancellation: naive sums differ by order."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(rows, columns)) * 10.0 ** rng.uniform(-20, 20, size=(rows, columns))
    return np.concatenate([values, -values[: rows // 2] * (1 + 1e-13)])[rng.permutation(rows + rows // 2)]


@pytest.mark.mpi
@pytest.mark.parametrize("rows", [0, 1, 2, 7, 1000])
def test_the_distribution_does_not_change_a_bit(comm, assert_all, rows):
    values = wild(rows, 4, seed=rows)
    n = len(values)
    answers = set()
    for trial in range(8):
        rng = np.random.default_rng(trial)
        cuts = partition.offsets(partition.shares(n, rng.uniform(0, 1, comm.size) ** 3 + 1e-9))
        mine = values[rng.permutation(n)][cuts[comm.rank] : cuts[comm.rank + 1]]
        answers.add(sums.total(comm, mine).tobytes())
    assert_all(len(answers) == 1)
    exact = [math.fsum(column) for column in values.T]
    assert_all(np.allclose(np.frombuffer(answers.pop()), exact, rtol=1e-15, atol=1e-20 * np.abs(values).max(initial=0)))
    if rows == 1000:
        naive = {values[np.random.default_rng(t).permutation(n)].sum(axis=0).tobytes() for t in range(8)}
        assert_all(len(naive) > 1, "the values are too tame to show anything")


@pytest.mark.mpi
def test_zero_tiny_and_broken_columns(comm):
    mine = np.array([[0.0, 5e-324, 1.0, np.inf, np.nan]])
    total = sums.total(comm, mine)
    assert total[:3].tolist() == [0.0, comm.size * 5e-324, comm.size]
    assert np.isnan(total[3:]).all()


@pytest.mark.mpi
def test_overflow_is_refused(comm):
    with pytest.raises(OverflowError, match=r"1\.7e\+308"):
        sums.total(comm, np.array([[1.7e308]]))
