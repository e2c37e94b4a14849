"""The ping-pong: what it measures is held against a plain loop, and it works with any number of ranks."""

import json
import time

import pytest

from brmpi.bench import pingpong

PROGRAM = "-m", "brmpi.bench.pingpong"
QUICK = "--seconds", "0.02"


def told(done):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("ranks", [2, 3, 5])
def test_every_pair_is_measured(launch, ranks):
    answer = told(launch(ranks, *PROGRAM, *QUICK, "--json", "--sizes", "8,100000"))
    pairs = {(pair["from"], pair["to"]) for pair in answer["pairs"]}
    every = {(a, b) for a in range(ranks) for b in range(ranks) if a != b}
    assert pairs == (every if ranks > 2 else {(0, 1)}) and len(answer["pairs"]) == len(pairs)
    assert answer["ranks"] == len(answer["hosts"]) == ranks
    for pair in answer["pairs"]:
        assert [row["bytes"] for row in pair["messages"]] == [8, 100000]
        for row in pair["messages"]:
            assert 0 < row["fastest"] <= row["latency"] and row["repeats"] >= pingpong.TURNS[0]
            assert row["bandwidth"] == pytest.approx(row["bytes"] / row["latency"], rel=0.01)


@pytest.mark.parametrize("ranks", [0, 1])
def test_one_rank_has_nobody(launch, ranks):
    done = launch(ranks, *PROGRAM)
    assert done.returncode == 0 and "mpirun -np 2 python -m brmpi.bench.pingpong" in done.stdout
    assert told(launch(ranks, *PROGRAM, "--json"))["pairs"] == []


def test_people_read_sizes_of_one_pair_and_pairs_of_many(launch):
    lines = launch(2, *PROGRAM, *QUICK).stdout.splitlines()
    assert [int(line.split()[0]) for line in lines[2:]] == list(pingpong.SIZES)
    lines = launch(3, *PROGRAM, *QUICK).stdout.splitlines()
    assert "8 B [µs]" in lines[0] and "1048576 B [MB/s]" in lines[0] and len(lines) == 7


def test_pairs_of_one_host_alone(launch):
    host = told(launch(1, *PROGRAM, "--json"))["hosts"][0]
    assert len(told(launch(3, *PROGRAM, *QUICK, "--json", "--only", host))["pairs"]) == 6
    done = launch(3, *PROGRAM, "--only", "nobody")
    assert done.returncode == 2 and done.stderr.count("--only = 'nobody': must be a host of this job") == 1


@pytest.mark.parametrize("words, said", [
    (["--sizes", "8k"], "--sizes = '8k'"), (["--sizes", "0"], "--sizes = '0'"),
    (["--sizes", "8,,8"], "--sizes = '8,,8'"), (["--sizes", "2147483648"], "from 1 to 1073741824"),
    (["--seconds", "0"], "--seconds = 0"),
    (["--seconds", "nan"], "--seconds = nan"), (["--frobnicate"], "--frobnicate"), (["8"], "unrecognized")])
def test_bad_input_is_one_sentence(launch, words, said):
    done = launch(2, *PROGRAM, *words)
    assert done.returncode == 2 and said in done.stderr
    assert done.stderr.count("brmpi.bench.pingpong: ") == 1 and "Traceback" not in done.stderr


def test_help_needs_no_mpi(launch):
    done = launch(0, *PROGRAM, "--help", PATH="/nowhere")
    assert done.returncode == 0 and "--sizes" in done.stdout


def pairwise(comm):
    """A communicator of ranks 0 and 1; of one rank alone, None."""
    part = comm.Split(comm.rank < 2)
    return part if comm.size > 1 and comm.rank < 2 else None


@pytest.mark.mpi
def test_half_trips_are_those_of_a_plain_loop(comm, assert_all):
    part, ratio = pairwise(comm), 1.0
    if part is not None:
        size, message = 2**21, bytearray(2**21)
        plain = []
        for _ in range(12):
            start = time.perf_counter()
            if part.rank == 0:
                part.Send(message, 1)
                part.Recv(message, 1)
            else:
                part.Recv(message, 0)
                part.Send(message, 0)
            plain.append((time.perf_counter() - start) / 2)
        ours = pingpong.half_trips(part, 0, 1, size, 0.05)
        if part.rank == 0:
            ratio = min(ours) / min(plain)
    assert_all(1 / 5 < ratio < 5, f"{ratio:.2f} of a plain loop")


@pytest.mark.mpi
@pytest.mark.parametrize("size", [1, 8, 70_000])
def test_the_second_rank_ends_with_the_first(comm, assert_all, size):
    part, counts = pairwise(comm), None
    if part is not None:
        start = time.perf_counter()
        first = pingpong.half_trips(part, 0, 1, size, 0.01)
        second = pingpong.half_trips(part, 1, 0, size, 0.01)
        counts = part.gather((len(first), len(second), time.perf_counter() - start))
    if counts:
        (a, nothing, _), (none, b, _) = counts
        assert_all(a >= pingpong.TURNS[0] <= b and nothing == none == 0, str(counts))
    else:
        assert_all(True)
