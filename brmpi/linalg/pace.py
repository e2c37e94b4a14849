"""Shares that count messages too: a slow rank handles as many bytes as a fast one, and has less time left to compute.

Every rank receives each panel of a factorisation and sends it on, which costs a processor time by the byte,
whatever it is dealt. So a rank gets the share that it can do in the time that messages leave it, and all are done
at once.
"""

import time

import numpy as np

from brmpi.linalg.broadcast import Broadcast

BYTES = 1 << 23  # of the messages that are timed
SECONDS = 0.2  # s of arithmetic that is timed


def pace(comm):
    """What arithmetic and messages take each rank, all at work at the same time. Collective.

    Parameters
    ----------
    comm : communicator

    Returns
    -------
    rates : (size,) float64, DGEMM [flop/s]
    handling : (size,) float64 [s/byte], of a message that is received and sent on, where others want the processor too
    """
    a = np.full((512, 512), 0.5)
    out = a @ a
    comm.Barrier()
    count, start, used = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() < start + SECONDS or not count:
        np.matmul(a, a, out=out)
        count += 1
    spent, used = time.perf_counter() - start, time.process_time() - used
    buffer = np.zeros(BYTES, dtype=np.uint8)
    chain = list(range(comm.size))
    _pass(comm, buffer, chain)  # connections are made
    comm.Barrier()
    handled = time.process_time()
    for turn in range(2):  # the ends of the one chain are the middle of the other
        _pass(comm, buffer, chain[turn * comm.size // 2:] + chain[: turn * comm.size // 2])
    handled = time.process_time() - handled
    part = min(max(used / spent, 1e-3), 1.0)
    mine = np.array([2 * 512**3 * count / spent, handled / (2 * BYTES) / part])
    both = np.empty((comm.size, 2))
    comm.Allgather(mine, both)
    return both[:, 0], both[:, 1]


def _pass(comm, buffer, chain):
    broadcast = Broadcast(comm, buffer, chain)
    broadcast.wait()
    broadcast.finish()


def shares(speeds, rates, handling, flops, sent):
    """What each rank should be dealt so that all are done at once.

    Parameters
    ----------
    speeds : (size,) floats > 0, of the ranks beside each other
    rates : (size,) floats > 0, whose sum is that of all ranks together [flop/s]
    handling : (size,) floats >= 0 [s/byte]
    flops : float, of the whole work
    sent : float, bytes that each rank handles

    Returns
    -------
    (size,) float64 > 0, to be used as speeds: never below a tenth of them, beside each other
    """
    speeds = np.asarray(speeds, dtype=np.float64)
    rates = speeds * (np.sum(rates) / speeds.sum())
    lost = np.asarray(handling) * sent
    working = np.ones(len(rates), dtype=bool)
    while True:
        end = (flops + (rates * lost)[working].sum()) / rates[working].sum()
        late = working & (lost >= end)
        if not late.any():
            break
        working &= ~late
    return np.maximum(rates * (end - lost), rates * end / 10)
