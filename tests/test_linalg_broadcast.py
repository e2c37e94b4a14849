"""Broadcasts along a chain: every rank has the root's bytes, whatever their order and what else is under way."""

import numpy as np
import pytest

from brmpi.linalg.broadcast import Broadcast, patiently


def sent(root, shape, order="C", dtype=np.float64):
    """What a root sends."""
    return np.array(np.random.default_rng(root).standard_normal(shape), dtype=dtype, order=order)


@pytest.mark.mpi
@pytest.mark.parametrize("order", "CF")
@pytest.mark.parametrize("shape", [(0,), (0, 3), (1,), (1, 1), (7, 5), (300, 41)])
@pytest.mark.parametrize("segment", [97, 1000, 1 << 18])
def test_every_rank_has_the_roots_bytes(comm, assert_all, order, shape, segment):
    for root in range(comm.size):
        chain = [int(rank) for rank in np.random.default_rng(root).permutation(comm.size)]
        chain.insert(0, chain.pop(chain.index(root)))
        buffer = sent(root, shape, order)
        if comm.rank != root:
            buffer[...] = np.nan
        broadcast = Broadcast(comm, buffer, chain, 5, segment)
        broadcast.wait()
        assert_all(np.array_equal(buffer, sent(root, shape)), (root, chain))
        broadcast.finish()
        assert_all(broadcast.poll() and broadcast.here())


@pytest.mark.mpi
def test_several_under_way(comm, assert_all):
    count = 2 * comm.size + 1
    buffers = [sent(k, (90 + k, 50)) if comm.rank == k % comm.size else np.zeros((90 + k, 50)) for k in range(count)]
    under_way = [Broadcast(comm, buffer, [(k + step) % comm.size for step in range(comm.size)], k, 5000)
                 for k, buffer in enumerate(buffers)]
    patiently(lambda: not [one for one in reversed(under_way) if not one.poll()])
    assert_all(all(np.array_equal(buffer, sent(k, buffer.shape)) for k, buffer in enumerate(buffers)))


@pytest.mark.mpi
def test_waiting_in_another_order(comm, assert_all):
    """The last begun is waited for first: what comes before it is passed on later, and nobody hangs."""
    buffers = [sent(k, 5000) if comm.rank == 0 else np.zeros(5000) for k in range(4)]
    chain = list(range(comm.size))
    under_way = [Broadcast(comm, buffer, chain, k, 1000) for k, buffer in enumerate(buffers)]
    for k in reversed(range(4)):
        under_way[k].wait()
        assert_all(np.array_equal(buffers[k], sent(k, 5000)), k)
    for broadcast in under_way:
        broadcast.finish()


@pytest.mark.mpi
def test_ranks_outside_the_chain_have_no_part(comm, assert_all):
    chain = list(range(comm.size))[::2][::-1]
    buffer = sent(0, 1000) if comm.rank == chain[0] else np.zeros(1000)
    broadcast = Broadcast(comm, buffer, chain, 0, 800)
    broadcast.wait()
    broadcast.finish()
    assert_all(np.array_equal(buffer, sent(0, 1000) if comm.rank in chain else np.zeros(1000)))


@pytest.mark.mpi
def test_views_of_one_order_and_other_types(comm, assert_all):
    whole = np.zeros((6, 40), np.complex64)
    part = whole[2:4]  # rows that follow each other
    if comm.rank == comm.size - 1:
        part[...] = sent(1, (2, 40), dtype=np.complex64)
    broadcast = Broadcast(comm, part, list(range(comm.size))[::-1], 0, 64)
    broadcast.finish()
    assert_all(np.array_equal(whole[2:4], sent(1, (2, 40), dtype=np.complex64)) and not whole[:2].any())
    assert_all(not whole[4:].any())
