"""Shares that count messages: all are done at once; what is measured is there."""

import numpy as np
import pytest

from brmpi.linalg import pace


def test_without_messages_shares_are_speeds():
    found = pace.shares([1, 2, 5], [10, 10, 30], [0, 0, 0], 1e3, 1e6)
    assert found / found.sum() == pytest.approx(np.array([1, 2, 5]) / 8)


def test_all_are_done_at_once():
    speeds, handling = np.array([60, 30, 12, 12]) * 1e8, np.array([1, 2, 8, 4]) * 1e-9
    flops, sent = 1e11, 2e8
    found = pace.shares(speeds, speeds, handling, flops, sent)
    times = flops * found / found.sum() / speeds + handling * sent
    assert times == pytest.approx(np.full(4, times[0]))
    assert times[0] < (flops / speeds.sum() + handling * sent).max()


def test_who_has_no_time_left_keeps_a_little():
    found = pace.shares([1, 1, 1], [1e9] * 3, [0, 1e-9, 1.0], 1e9, 1e6)
    assert found.min() > 0
    assert found[2] < 0.2 * found[0]
    assert found[0] >= found[1]


@pytest.mark.mpi
def test_pace(comm, assert_all):
    rates, handling = pace.pace(comm)
    assert_all(rates.shape == handling.shape == (comm.size,))
    assert_all((rates > 1e7).all() and (handling >= 0).all() and (handling < 1e-5).all(), (rates, handling))
    assert_all(np.array_equal(comm.bcast(rates), rates))
