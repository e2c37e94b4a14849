"""Latency and bandwidth between ranks: ``mpirun -np 2 python -m brmpi.bench.pingpong``.

A message goes to the other rank and comes back; its time is half of that, the median of many, as the field has it.
Among more than two ranks every ordered pair is measured, one after another, while the others sleep.
"""

import json
import sys
import time

from brmpi import mpi
from brmpi.arguments import Parser
from brmpi.errors import BadInput

SIZES = tuple(8**power for power in range(1, 8))  # 8 B to 2 MiB
EDGES = (8, 2**20)  # of pairs among many ranks: latency and bandwidth
MOST = 2**30  # bytes of one message
TURNS = (3, 10_000)  # fewest and most round trips of one measurement
WARM = 2  # round trips before, in which connections open


def half_trips(comm, first, second, size, seconds):
    """Times of messages between two ranks: half of each round trip. Collective over the two.

    Parameters
    ----------
    comm : communicator
    first, second : int, ranks; the first sends first, keeps the time and decides when it is enough
    size : int, bytes of a message, >= 1
    seconds : float, how long to measure, but never fewer than three round trips [s]

    Returns
    -------
    list of float [s] on the first, an empty one on the second
    """
    message = bytearray(size)
    turn = 0
    if comm.rank == second:
        while not message[0]:  # the first byte says that this is the last
            turn += 1
            _receive(comm, message, first, turn <= WARM)
            comm.Send(message, first)
        return []
    times = []
    end = time.perf_counter() + seconds
    while not message[0]:
        turn += 1
        start = time.perf_counter()
        message[0] = turn >= WARM + TURNS[0] and (start > end or turn >= WARM + TURNS[1])
        comm.Send(message, second)
        _receive(comm, message, second, turn <= WARM)
        times.append((time.perf_counter() - start) / 2)
    return times[WARM:]


def _receive(comm, message, source, patiently):
    # a rank held to a part of a core must not have spent it, spinning, when the measurement begins
    while patiently and not comm.Iprobe(source):
        time.sleep(0.0002)
    comm.Recv(message, source)


def measure(comm, sizes, seconds, only=None):
    """Every ordered pair of ranks, one after another; of two ranks, the pair from 0 to 1. Collective.

    Parameters
    ----------
    comm : communicator
    sizes : sequence of int, bytes
    seconds : float, of each pair and size [s]
    only : collection of int, ranks: pairs without one of them are left out

    Returns
    -------
    list of dict on rank 0, None on others: ``from`` and ``to`` (ranks) and ``messages``, each of ``bytes``, ``latency``
    (median one way) and ``fastest`` [µs], ``bandwidth`` [MB/s] and ``repeats``
    """
    ranks = range(comm.size)
    pairs = [(a, b) for a in ranks for b in ranks if a != b] if comm.size > 2 else [(0, 1)][:comm.size - 1]
    mine = []
    for first, second in pairs:
        if only is not None and not {first, second} & set(only):
            continue
        if comm.rank in (first, second):
            rows = [_row(size, half_trips(comm, first, second, size, seconds)) for size in sizes]
            if comm.rank == first:
                mine.append({"from": first, "to": second, "messages": rows})
        _doze(comm)
    parts = comm.gather(mine)
    return None if parts is None else [pair for part in parts for pair in part]


def _row(size, times):
    if not times:
        return None
    middle = sorted(times)[len(times) // 2]
    return {"bytes": size, "latency": round(1e6 * middle, 3), "fastest": round(1e6 * min(times), 3),
            "bandwidth": round(1e-6 * size / middle, 3), "repeats": len(times)}


def _doze(comm):
    """Wait for all, asleep: ranks that wait by spinning would take the cores of those that measure."""
    request = comm.Ibarrier()
    while not request.Test():
        time.sleep(0.0005)


def main(comm, argv=None):
    """Measure and print. Collective.

    Parameters
    ----------
    comm : communicator
    argv : list of str, instead of the process's own arguments

    Returns
    -------
    int, exit code 0

    Raises
    ------
    BadInput : on every rank alike, for a mistake on the command line
    """
    options = _parser().parse_args(argv)
    sizes = _sizes(options.sizes) if options.sizes else SIZES if comm.size == 2 else EDGES
    if not 0 < options.seconds <= 3600:
        raise BadInput(f"--seconds = {options.seconds:g}: must be > 0 and at most 3600 s")
    from mpi4py import MPI

    hosts = comm.allgather(MPI.Get_processor_name())
    only = None if options.only is None else [rank for rank, host in enumerate(hosts) if host == options.only]
    if only == []:
        raise BadInput(f"--only = {options.only!r}: must be a host of this job: {', '.join(dict.fromkeys(hosts))}")
    pairs = measure(comm, sizes, options.seconds, only)
    if comm.rank == 0:
        mpi.say(json.dumps({"ranks": comm.size, "hosts": hosts, "pairs": pairs}) if options.json
                else _told(hosts, pairs, sizes))
    return 0


def _parser():
    parser = Parser(prog="python -m brmpi.bench.pingpong",
                    description="Time of a message one way and bandwidth, between two ranks or all pairs of more.")
    parser.add_argument("--sizes", metavar="BYTES,…",
                        help="of messages (8 … 2097152; among more than two ranks 8,1048576)")
    parser.add_argument("--seconds", metavar="S", type=float, default=0.2, help="of each pair and size (0.2)")
    parser.add_argument("--only", metavar="HOST", help="only pairs with a rank on this host")
    parser.add_argument("--json", action="store_true", help="for programs: one object")
    return parser


def _sizes(written):
    sizes = []
    for word in written.split(","):
        if not (word.isascii() and word.isdigit() and 1 <= int(word) <= MOST):
            raise BadInput(f"--sizes = {written!r}: each must be whole bytes from 1 to {MOST}, not {word!r}")
        sizes.append(int(word))
    return sizes


def _told(hosts, pairs, sizes):
    """What a person reads: all sizes of one pair, or latency and bandwidth of every pair."""
    if not pairs:
        return "One rank has no other to play with: mpirun -np 2 python -m brmpi.bench.pingpong"
    named = [f"{rank} ({host})" for rank, host in enumerate(hosts)]
    if len(hosts) == 2:
        lines = [f"rank {named[0]} to rank {named[1]}, median one way", f"{'bytes':>10}{'µs':>12}{'MB/s':>12}"]
        rows = [(row["bytes"], row["latency"], row["bandwidth"]) for row in pairs[0]["messages"]]
        return "\n".join([*lines, *(f"{size:>10}{time:>12.2f}{rate:>12.2f}" for size, time, rate in rows)])
    width, least, most = max(map(len, named)) + 2, min(sizes), max(sizes)
    heads = f"{f'{least} B [µs]':>14}{f'{most} B [MB/s]':>20}"
    lines = [f"{'from':<{width}}{'to':<{width}}{heads}"]
    for pair in pairs:
        by = {row["bytes"]: row for row in pair["messages"]}
        lines.append(f"{named[pair['from']]:<{width}}{named[pair['to']]:<{width}}"
                     f"{by[least]['latency']:>14.2f}{by[most]['bandwidth']:>20.2f}")
    return "\n".join(lines)


if __name__ == "__main__":
    if {"-h", "--help"}.isdisjoint(sys.argv[1:]):
        mpi.run(main)
    else:
        _parser().print_help()
