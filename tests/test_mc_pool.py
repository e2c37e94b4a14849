"""The pool of ranks: order, exceptions, large arrays, many tiny tasks, futures, deaths; emcee's chain unchanged."""

import concurrent.futures
import os
import signal
import time

import numpy as np
import pytest

from brmpi.montecarlo import pool
from brmpi.montecarlo.pooling import Batch, Serial

HEAD = """
import os, signal, sys, time
import numpy as np
from brmpi.montecarlo import pool

def square(x):
    return x * x

def wrong(x):
    if x in (7, 9):
        raise ValueError(f"{x} is not right")
    return x

def slow(x):
    time.sleep(0.01 * (5 - x % 5))
    return x, os.getpid()

def double(array):
    return 2 * array

def add(a, b, scale=1):
    return scale * (a + b)

def leave(x):
    sys.exit(3)

def closure(x):
    return lambda: x

def nested(n):
    with pool() as inner:
        return sum(inner.map(square, range(n)))
"""


@pytest.fixture
def script(launch, tmp_path):
    """``script(ranks, text)``: run a script that begins as above."""
    def _run(ranks, text, **more):
        (tmp_path / "script.py").write_text(HEAD + text)
        return launch(ranks, "script.py", **more)

    return _run


WHOLE = """
with pool() as ranks:
    assert ranks.is_master()
    assert ranks.map(square, range(1000)) == [x * x for x in range(1000)]
    assert ranks.map(square, (x for x in range(17))) == [x * x for x in range(17)]  # without a length
    assert ranks.map(square, []) == [] and ranks.map(square, [3]) == [9]
    assert ranks.starmap(add, [(1, 2), (3, 4)]) == [3, 7] and ranks.map(add, [1, 2], [5, 6, 7]) == [6, 8]
    order = [x for x, _ in ranks.map(slow, range(20))]
    assert order == list(range(20))
    seen = []
    ranks.map(square, range(50), callback=seen.append)
    assert sorted(seen) == [x * x for x in range(50)]
    arrays = ranks.map(double, [np.full((300, 400), i, dtype=float) for i in range(7)])
    assert all((array == 2 * i).all() and array.flags.writeable for i, array in enumerate(arrays))
    try:
        ranks.map(wrong, range(40))
        raise SystemExit("nothing was raised")
    except ValueError as error:
        assert str(error) == "7 is not right" and "in wrong" in str(error.__cause__)
        assert error.__notes__ == ["task 7 of the pool"]
    for function, said in ((leave, "SystemExit(3)"), (closure, "cannot be sent" if ranks.size > 1 else None)):
        try:
            ranks.map(function, [1, 2])
            assert said is None
        except RuntimeError as error:
            assert said and said in str(error), error
    assert ranks.map(square, range(5)) == [0, 1, 4, 9, 16]  # and goes on after all that
    futures = [ranks.submit(add, i, 1, scale=2) for i in range(12)]
    import concurrent.futures
    done, late = concurrent.futures.wait(futures, timeout=20)
    assert not late and [future.result() for future in futures] == [2 * (i + 1) for i in range(12)]
    assert isinstance(ranks.submit(wrong, 7).exception(timeout=20), ValueError)
    assert ranks.map(nested, [3, 4, 5, 6]) == [5, 14, 30, 55]
print("all is well")
"""


@pytest.mark.parametrize("ranks", [0, 1, 2, 3, 5])
def test_what_a_pool_does(script, ranks):
    done = script(ranks, WHOLE)
    assert done.returncode == 0 and done.stdout == "all is well\n", done.stderr


def test_scripts_for_other_pools_work(script):
    done = script(3, """
ranks = pool()
if not ranks.is_master():
    ranks.wait()
    sys.exit(0)
print(sum(ranks.map(square, range(10))))
""")
    assert done.returncode == 0 and done.stdout == "285\n", done.stderr


def test_all_ranks_share_the_work(script):
    done = script(3, """
with pool() as ranks:
    print(len({pid for _, pid in ranks.map(slow, range(60))}))
""")
    assert done.returncode == 0 and int(done.stdout) >= 2, done.stderr


def test_many_tiny_tasks_take_little_memory_and_time(script):
    done = script(3, """
import resource
with pool() as ranks:
    begin = time.monotonic()
    assert sum(ranks.map(square, (x % 10 for x in range(200_000)))) == 5_700_000
    spent = time.monotonic() - begin
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    count = sum(1 for _ in ranks.completed(square, ((x,) for x in range(300_000))))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(count, spent < 20, grown < 30_000)
""", timeout=90)
    assert done.returncode == 0 and done.stdout == "300000 True True\n", done.stdout + done.stderr


def test_a_root_that_fails_ends_the_job_at_once(script):
    begin = time.monotonic()
    done = script(3, "ranks = pool()\nranks.map(square, range(3))\nraise RuntimeError('the root fails')\n")
    assert done.returncode == 1 and done.stderr.count("RuntimeError: the root fails") == 1
    assert time.monotonic() - begin < 20


def test_functions_that_workers_do_not_have_are_told_of(script):
    done = script(2, """
with pool() as ranks:
    def late(x):
        return x
    ranks.map(late, range(4))
""")
    assert done.returncode == 1 and "is it defined above pool()?" in done.stderr


@pytest.mark.parametrize("ranks", [2, 4])
def test_a_worker_that_dies_is_named_with_its_tasks(script, ranks):
    begin = time.monotonic()
    done = script(ranks, """
def deadly(x):
    if x == 6:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.05)
    return x

with pool() as ranks:
    ranks.map(deadly, range(500))
""")
    assert done.returncode not in (0, 124) and time.monotonic() - begin < 20
    told = [line for line in done.stderr.splitlines() if "which is gone" in line]
    assert len(told) == 1 and "task" in told[0]
    first, _, last = told[0].rpartition("task")[2].removeprefix("s").strip().partition(" to ")
    assert int(first) <= 6 <= int(last or first)


def test_ranks_go_on_together_after_a_pool(script):
    done = script(3, """
from mpi4py import MPI
ranks = pool(MPI.COMM_WORLD, leave=False)
if ranks.is_master():
    print(ranks.map(square, range(4)))
    ranks.close()
    ranks.close()
else:
    try:
        ranks.map(square, range(4))
        raise SystemExit("a worker must not hand out")
    except RuntimeError:
        pass
print(MPI.COMM_WORLD.allreduce(1)) if MPI.COMM_WORLD.rank == 0 else MPI.COMM_WORLD.allreduce(1)
""")
    assert done.returncode == 0 and done.stdout == "[0, 1, 4, 9]\n3\n", done.stderr


def test_chunks_last_a_moment_and_shrink_near_the_end():
    from brmpi.montecarlo import pooling

    class Made(pooling.Pool):
        def __init__(self):
            self.own, self.ranks = 1.0, [pooling._Rank(1, 1.0), pooling._Rank(2, 3.0)]

    made = Made()
    batch = Batch(1, abs, [(1,)] * 10_000, None)
    assert made._length(batch, 1, 1.0) == 1
    batch.pace = {1: 1e-4}
    assert made._length(batch, 1, 1.0) == round(pooling.CHUNK / 1e-4)
    assert made._length(batch, 2, 3.0) == pytest.approx(3 * pooling.CHUNK / 1e-4, abs=1)  # three times as fast
    batch.take(9_970)
    assert made._length(batch, 1, 1.0) == 3 and made._length(batch, 2, 3.0) == 9
    batch.take(40)
    assert batch.empty and batch.next == 10_000


def test_a_serial_pool_is_an_executor():
    with pool() as ranks:
        assert isinstance(ranks, Serial) and isinstance(ranks, concurrent.futures.Executor)
        assert ranks.map(abs, [-1, 2]) == [1, 2] and ranks.submit(divmod, 7, 2).result() == (3, 1)
        with pytest.raises(ZeroDivisionError) as caught:
            ranks.starmap(divmod, [(1, 1), (1, 0)])
    assert caught.value.__notes__ == ["task 1 of the pool"]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL and os.getpid() and np.__version__


def test_emcee_gives_the_same_chain(script):
    pytest.importorskip("emcee")
    done = script(3, """
import emcee

def density(x):
    return -0.5 * np.sum(x**2)

def chain(ranks):
    sampler = emcee.EnsembleSampler(16, 3, density, pool=ranks)
    sampler.random_state = np.random.RandomState(5).get_state()
    sampler.run_mcmc(np.random.RandomState(1).randn(16, 3), 30)
    return sampler.get_chain()

with pool() as ranks:
    print(np.array_equal(chain(ranks), chain(None)))
""")
    assert done.returncode == 0 and done.stdout == "True\n", done.stderr


@pytest.mark.parametrize("ranks", [2, 3])
def test_arguments_that_cannot_be_sent_fail_alone(script, ranks):
    done = script(ranks, """
with pool() as ranks:
    try:
        ranks.map(closure, [1, lambda: 1, 2])
    except Exception as error:
        print(type(error).__name__, "cannot be sent" in str(error))
    try:
        ranks.submit(square, lambda: 1).result(20)
    except Exception as error:
        print(type(error).__name__, "cannot be sent" in str(error))
    print(ranks.map(square, range(5)))
""")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "Ended True\nEnded True\n[0, 1, 4, 9, 16]\n"


def test_a_pool_within_a_task_is_a_serial_one_on_every_rank(script):
    done = script(2, """
with pool() as ranks:
    print(ranks.map(nested, [n % 5 for n in range(3000)])[:6])
""")
    assert done.returncode == 0 and done.stdout == "[0, 0, 1, 5, 14, 0]\n", done.stderr


def test_what_the_tasks_raise_is_raised_also_where_futures_go_on(script):
    done = script(3, """
def things():
    yield from range(200)
    raise OSError("no more")

with pool() as ranks:
    print(ranks.submit(square, 3).result(20))
    try:
        ranks.map(square, things())
    except OSError as error:
        print(error)
    print(ranks.submit(square, 4).result(20))
""")
    assert done.returncode == 0 and done.stdout == "9\nno more\n16\n", done.stderr


def test_an_exception_that_cannot_be_made_again_costs_its_own_task_alone(script):
    done = script(3, """
class Odd(Exception):
    def __init__(self, a, b):
        super().__init__(a)

def odd(x):
    if x == 50:
        raise Odd("fifty", 2)
    return x

with pool() as ranks:
    answers = list(ranks.completed(odd, [(x,) for x in range(2000)]))
    wrong = [(index, answer) for index, failed, answer in answers if failed]
    print(len(answers), [index for index, _ in wrong], "fifty" in str(wrong[0][1][0]), "raise Odd" in wrong[0][1][1])
""")
    assert done.returncode == 0 and done.stdout == "2000 [50] True True\n", done.stderr


def test_probes_that_cannot_be_read_are_told_once(script, tmp_path):
    (tmp_path / "hostfiles/probes").mkdir(parents=True)
    (tmp_path / "hostfiles/probes/a.json").write_text("{")
    done = script(3, "\nwith pool() as ranks:\n    print(ranks.map(square, range(3)))\n", timeout=30)
    assert done.returncode != 0 and "a.json: is not JSON" in done.stderr
