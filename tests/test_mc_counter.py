"""The shared counter: every number once, by one-sided access and by messages; closing; asking while others work."""

import time

import pytest

from brmpi.montecarlo import counter
from brmpi.montecarlo.counter import CLOSED, Messages, OneSided


def taken(comm, one, last):
    """Numbers that this rank takes, one or more at a time, until they are past the last."""
    found, count = [], 1 + comm.rank
    while True:
        one.ask(count)
        start = one.result()
        one.serve()
        if start >= last:
            return found
        found += range(start, min(start + count, last))


def made(comm, kind, start):
    if kind is Messages:
        return Messages(comm.Dup(), start)
    found = counter.shared(comm, start)
    assert isinstance(found, OneSided)  # ranks of one host
    return found


def served(comm, one):
    """Let the root answer until all ranks are here."""
    request = comm.Ibarrier()
    while not request.Test():
        one.serve()
        time.sleep(1e-4)


@pytest.mark.mpi
@pytest.mark.parametrize("kind", [OneSided, Messages])
def test_every_number_is_taken_once(comm, assert_all, kind):
    one = made(comm, kind, 7)
    mine = taken(comm, one, 500)
    served(comm, one)
    numbers = sorted(number for part in comm.allgather(mine) for number in part)
    one.free()
    assert_all(numbers == list(range(7, 500)))


@pytest.mark.mpi
@pytest.mark.parametrize("kind", [OneSided, Messages])
@pytest.mark.parametrize("who", [0, -1])
def test_any_rank_closes_it_for_all(comm, assert_all, kind, who):
    one = made(comm, kind, 0)
    if comm.rank == who % comm.size:
        one.close()
    end = time.monotonic() + 5
    while comm.rank == 0 and one.look() < CLOSED and time.monotonic() < end:
        one.serve()  # the message may be on its way
    served(comm, one)
    seen = one.look()
    served(comm, one)
    one.ask(3)
    after = one.result()
    served(comm, one)
    one.free()
    assert_all(seen >= CLOSED and after >= CLOSED)
