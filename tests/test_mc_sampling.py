"""Sampling: every block once, the same bits whoever took it, ends that depend on sums alone, slow and failing ranks."""

import itertools
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brmpi.montecarlo import counter
from brmpi.montecarlo.dealing import CLOSED, Dealer
from brmpi.montecarlo.sampling import Sampling, Sums, checked


@pytest.fixture(params=["one-sided", "messages"])
def way(request, monkeypatch):
    """Ranks share the counter in each of the two ways."""
    if request.param == "messages":
        monkeypatch.setattr(counter, "shared", lambda comm, start: counter.Messages(comm.Dup(), start))


class Estimator:
    """Sums whose last bits show every change of order; it remembers what it sampled."""

    width = 3

    def __init__(self, pause=0.0):
        self.seen, self.pause = [], pause

    def block(self, first, count):
        self.seen.append((first, count))
        if self.pause:
            time.sleep(self.pause)
        places = np.arange(first, first + count)
        return np.array([count, np.sin(places).sum(), (np.cos(places) * 1e8).sum()])


def plain(samples, size, number=None):
    """The sum of the rows of blocks, one after the other."""
    total = np.zeros(3)
    for block in range(-(-samples // size) if number is None else number):
        total = total + Estimator().block(block * size, min(size, samples - block * size))
    return total


def never(sums, decided):
    return False


@given(st.integers(0, 2**50), st.sampled_from([1, 4, 32]))
def test_ends_are_dense_and_ordered(number, parts):
    after = checked(number, parts)
    assert number < after <= max(number + 1, number * (1 + 1 / parts) + 1)
    assert checked(after - 1, parts) == after  # whether a number is one does not depend on where one comes from
    middle = (number + after) // 2
    assert middle == after or checked(middle, parts) == after


@given(st.data(), st.integers(1, 60), st.integers(0, 2))
def test_sums_do_not_depend_on_who_sends_what_when(data, blocks, cut):
    rows = np.random.default_rng(blocks).standard_normal((blocks, 2)) * 10.0 ** np.arange(2)
    edges = sorted({0, blocks, *data.draw(st.lists(st.integers(0, blocks), max_size=8))})
    parts = data.draw(st.permutations([(a, rows[a:b]) for a, b in itertools.pairwise(edges)]))
    whole = max(blocks - 1, 0) if cut else blocks
    sums, ends = Sums(np.zeros(2), 0, whole, blocks), []
    for first, part in parts:
        sums.add(first, part)
        ends += [(number, sums.total.copy()) for number in sums.checks()]
    expected = np.zeros(2)
    for number, row in enumerate(rows, 1):
        expected = expected + row
        if number == whole:
            np.testing.assert_array_equal(sums.full[1], expected)
    np.testing.assert_array_equal(sums.total, expected)
    assert sums.full[0] == whole and sums.number == blocks and not sums.waiting
    assert [number for number, _ in ends] == [n for n in range(1, blocks + 1) if n == blocks or n == checked(n - 1)]


@pytest.mark.mpi
@pytest.mark.parametrize("dynamic", [True, False])
@pytest.mark.parametrize("samples", [1, 7, 64, 65, 1000, 12345])
def test_every_block_is_sampled_once_and_adds_up_to_the_same_bits(comm, assert_all, dynamic, samples, way):
    size = 64
    for speeds in (np.ones(comm.size), np.arange(1.0, comm.size + 1), 1000.0 ** np.arange(comm.size)):
        estimator = Estimator()
        sampling = Sampling(comm, estimator, samples, size, speeds, dynamic)
        stopped = sampling.run(never)
        seen = sorted(itertools.chain.from_iterable(comm.allgather(estimator.seen)))
        last = -(-samples // size)
        assert_all(seen == [(block * size, min(size, samples - block * size)) for block in range(last)])
        assert_all(not stopped and sampling.sums.number == last and sampling.sums.full[0] == samples // size)
        assert_all(sampling.sums.total.tobytes() == plain(samples, size).tobytes())
        assert_all(sampling.blocks == len(estimator.seen))


@pytest.mark.mpi
@pytest.mark.parametrize("dynamic", [True, False])
def test_an_end_that_sums_decide_is_the_same_for_all(comm, assert_all, dynamic, way):
    for least in (1, 5, 33, 100, 257):
        estimator = Estimator(pause=2e-4 * (1 + comm.rank))
        sampling = Sampling(comm, estimator, 0, 10, np.ones(comm.size), dynamic)
        stopped = sampling.run(lambda sums, decided, least=least: decided and sums.number >= least)
        expected = checked(least - 1)
        assert_all(not stopped and sampling.sums.number == expected)
        assert_all(sampling.sums.total.tobytes() == plain(10**9, 10, expected).tobytes())


@pytest.mark.mpi
def test_going_on_gives_the_bits_of_never_having_stopped(comm, assert_all):
    first = Sampling(comm, Estimator(), 1015, 10, np.ones(comm.size))
    first.run(never)
    number, total = first.sums.full
    assert_all(number == 101)
    estimator = Estimator()
    second = Sampling(comm, estimator, 3333, 10, np.arange(comm.size, 0.0, -1), False, number, total)
    second.run(never)
    seen = list(itertools.chain.from_iterable(comm.allgather(estimator.seen)))
    assert_all(min(seen)[0] == 1010 and second.sums.total.tobytes() == plain(3333, 10).tobytes())


@pytest.mark.mpi
@pytest.mark.parametrize("dynamic", [True, False])
@pytest.mark.parametrize("who", [0, -1])
def test_any_rank_can_stop_all(comm, assert_all, dynamic, who, way):
    estimator, who = Estimator(pause=2e-3), who % comm.size
    sampling = Sampling(comm, estimator, 10**8, 10, np.ones(comm.size), dynamic)
    begin = time.monotonic()
    stopped = sampling.run(never, lambda: comm.rank == who and time.monotonic() - begin > 0.3)
    assert_all(stopped and time.monotonic() - begin < 3)
    sums = sampling.sums
    assert_all(sums.number > 0 and sums.total.tobytes() == plain(10**8, 10, sums.number).tobytes())


@pytest.mark.mpi
def test_the_clock_can_end_it(comm, assert_all, way):
    begin = time.monotonic()
    sampling = Sampling(comm, Estimator(pause=1e-3), 0, 10, np.ones(comm.size))
    stopped = sampling.run(lambda sums, decided: not decided and time.monotonic() - begin > 0.4)
    assert_all(not stopped and 0.4 < time.monotonic() - begin < 2.5)
    done = comm.allreduce(sampling.blocks)
    assert_all(sampling.sums.number == done)  # what was claimed was done, and nothing is lost


@pytest.mark.mpi
def test_a_rank_that_is_slower_than_its_speed_says_does_not_hold_up_the_others(comm, assert_all):
    if comm.size == 1:
        pytest.skip("takes another rank")
    slow = comm.rank == comm.size - 1
    speeds = np.ones(comm.size)
    speeds[-1] = 20.0  # says the probe
    sampling = Sampling(comm, Estimator(pause=0.05 if slow else 2e-3), 6000, 10, speeds)
    begin = time.monotonic()
    sampling.run(never)
    spent = time.monotonic() - begin
    ideal = 600 / ((comm.size - 1) / 2.1e-3 + 1 / 0.05)
    # its first claim, of two blocks a rank, and one more
    assert_all(spent < 1.5 * ideal + 0.6, f"{spent:.2f} s, ideal {ideal:.2f}")
    assert_all(sampling.sums.total.tobytes() == plain(6000, 10).tobytes())


@pytest.mark.mpi
def test_first_claims_are_by_speed(comm, assert_all):
    speeds = np.arange(1.0, comm.size + 1)
    dealer = Dealer(comm, 0, CLOSED, speeds, True)
    mine = dealer.claim()
    claims = comm.allgather((mine.start, len(mine)))
    dealer.close()
    assert_all(len(dealer.claim()) == 0)
    dealer.free()
    assert_all(sum(count for _, count in claims) >= 2 * comm.size and claims[-1][1] >= claims[0][1])


def test_a_failing_rank_ends_the_job_with_its_traceback(launch, tmp_path):
    (tmp_path / "fails.py").write_text('''
import numpy as np
from brmpi import mpi
from brmpi.montecarlo.sampling import Sampling

class Failing:
    width = 1

    def block(self, first, count):
        if first == 700:
            raise ArithmeticError("block 70 is not well")
        return np.ones(1)

mpi.run(lambda comm: Sampling(comm, Failing(), 10**7, 10, np.ones(comm.size)).run(lambda sums, decided: False))
''')
    for ranks in (1, 3):
        done = launch(ranks, "fails.py")
        assert done.returncode == 1 and done.stderr.count("ArithmeticError: block 70 is not well") == 1
