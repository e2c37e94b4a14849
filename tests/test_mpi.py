"""The door: exit codes, one message however many ranks, no rank left hanging; timers."""

import time

import pytest

from brmpi import mpi
from brmpi.errors import BadInput

PROGRAM = """
import sys, time
from brmpi import mpi
from brmpi.errors import BadInput, Fault

def main(comm):
    {body}

mpi.run(main)
"""
RANKS = [0, 1, 2, 3, 5]


def program(tmp_path, body):
    file = tmp_path / "program.py"
    file.write_text(PROGRAM.format(body=body))
    return file


@pytest.mark.parametrize("ranks", RANKS)
def test_bad_input_is_one_sentence_and_exit_2(tmp_path, launch, ranks):
    done = launch(ranks, program(tmp_path, "raise BadInput('x.toml: dt = -1: must be > 0')"))
    assert done.returncode == 2
    assert done.stderr.count("program.py: x.toml: dt = -1: must be > 0 (see --help)") == 1
    assert "Traceback" not in done.stderr + done.stdout and "usage" not in done.stderr


@pytest.mark.parametrize("ranks", [1, 3])
def test_a_fault_is_one_sentence_and_exit_1(tmp_path, launch, ranks):
    done = launch(ranks, program(tmp_path, "raise Fault('the disk is full')"))
    assert done.returncode == 1
    assert done.stderr.count("program.py: the disk is full") == 1 and "Traceback" not in done.stderr


@pytest.mark.parametrize(("ranks", "failing", "rest"), [
    *((3, failing, rest) for failing in ("comm.rank == 0", "comm.rank == 2", "comm.rank", "True")
      for rest in ("comm.Barrier()", "time.sleep(60)")),
    (2, "comm.rank == 1", "comm.recv(source=0, tag=9)"),
    (5, "comm.rank in (2, 4)", "comm.Barrier()"),
])
def test_an_uncaught_error_ends_the_job(tmp_path, launch, ranks, failing, rest):
    start = time.monotonic()
    done = launch(ranks, program(tmp_path, f"1 / (0 if {failing} else 1); {rest}"), timeout=20)
    assert done.returncode not in (0, 2)
    assert done.stderr.count("Traceback (most recent call last)") == 1
    assert done.stderr.count("ZeroDivisionError") == 1
    assert time.monotonic() - start < 5 + 2  # two of them are for starting Python


@pytest.mark.parametrize("orderly", ["raise BadInput('bad')", "raise Fault('full')", "sys.exit(4)"])
@pytest.mark.parametrize("rank", [0, 2])
def test_ranks_that_fail_in_different_ways_end_the_job_too(tmp_path, launch, orderly, rank):
    body = f"""
    if comm.rank == {rank}:
        {orderly}
    1 / 0"""
    done = launch(3, program(tmp_path, body), timeout=20)
    assert done.returncode not in (0, 124) and done.stderr.count("Traceback (most recent call last)") == 1


@pytest.mark.parametrize("ranks", [0, 2])
def test_an_output_that_has_gone_away_ends_nothing(tmp_path, launch, ranks):
    body = """
    if comm.rank == 0:
        import os
        reading, writing = os.pipe()
        os.close(reading)
        os.dup2(writing, 1)
        mpi.say("nobody reads this")
        mpi.say("nor this")"""
    assert launch(ranks, program(tmp_path, body)).returncode == 0


def test_an_uncaught_error_without_mpirun(tmp_path, launch):
    done = launch(0, program(tmp_path, "1 / 0"))
    assert done.returncode == 1 and done.stderr.count("ZeroDivisionError") == 1


@pytest.mark.parametrize("ranks", [0, 2])
@pytest.mark.parametrize("code", [0, 1, 75])
def test_exit_codes_pass_through(tmp_path, launch, ranks, code):
    assert launch(ranks, program(tmp_path, f"return {code}")).returncode == code
    assert launch(ranks, program(tmp_path, f"sys.exit({code})")).returncode == code


def test_one_rank_that_exits_takes_the_others_along(tmp_path, launch):
    done = launch(3, program(tmp_path, "sys.exit(3) if comm.rank == 2 else comm.Barrier()"), timeout=20)
    assert done.returncode == 3


@pytest.mark.mpi
def test_on_root(comm):
    assert mpi.on_root(comm, lambda a: (a, comm.rank), 5) == (5, 0)

    def refuse():
        raise BadInput("no")

    with pytest.raises(BadInput, match="no"):
        mpi.on_root(comm, refuse)


@pytest.mark.mpi
def test_node_by_node_runs_everywhere_and_the_first_rank_first(comm, assert_all):
    times = []
    mpi.node_by_node(comm, lambda: (time.sleep(0.05), times.append(time.monotonic())))
    every = comm.allgather(times)
    assert_all(all(len(mine) == 1 for mine in every) and min(every) == every[0])


@pytest.mark.mpi
def test_timers_reduce_over_ranks_and_nest(comm, assert_all):
    timers = mpi.Timers()
    with timers("outer"):
        time.sleep(0.02)
        with timers("inner"):
            time.sleep(0.05 * (comm.rank + 1))
    if comm.rank == 0:
        with timers("root"):
            time.sleep(0.01)
    table = timers.reduce(comm)
    assert_all(set(table) == {"outer", "inner", "root"})
    assert_all(0.05 <= table["inner"]["min"] < 0.09, table)
    assert_all(0.05 * comm.size <= table["inner"]["max"] < 0.05 * comm.size + 0.04, table)
    assert_all(0.02 <= table["outer"]["max"] < 0.06, table)
    assert_all(comm.size == 1 or table["root"]["min"] == 0)
    assert_all(all(row["min"] <= row["mean"] <= row["max"] for row in table.values()))
