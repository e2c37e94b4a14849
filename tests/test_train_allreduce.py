"""Gradients averaged over ranks: every method against the weighted mean, error feedback, misuse, choices."""

import numpy as np
import pytest

from brmpi.train import buckets, cost, wires
from brmpi.train.allreduce import GradientAllreduce
from brmpi.train.local import Outer

SHAPES = [(6, 5), (5,), (5, 40), (40,), ()]
EXACT = {"plain": 2e-6, "fixed": 2e-6, "float16": 2e-3, "bfloat16": 1.5e-2}


def parts(rank, step=0, dtype=np.float32):
    rng = np.random.default_rng(100 * step + rank)
    return [np.asarray(rng.standard_normal(shape) * 10.0 ** (i - 2), dtype) for i, shape in enumerate(SHAPES)]


def mean(size, counts, step=0, dtype=np.float32):
    every = [parts(rank, step, dtype) for rank in range(size)]
    return [sum(n * gradient[i].astype(float) for n, gradient in zip(counts, every)) / max(sum(counts), 1)
            for i in range(len(SHAPES))]


def off(found, wanted):
    """The largest error, over the largest number of each parameter."""
    return max(float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-30)) for a, b in zip(found, wanted))


@pytest.mark.mpi
@pytest.mark.parametrize("method", EXACT)
@pytest.mark.parametrize("bucket", [1, 300, 10**6])
def test_the_average_is_weighted_by_samples(comm, assert_all, method, bucket):
    reduce = GradientAllreduce(comm, parts(0), method, bucket)
    for step, counts in enumerate(([3] * comm.size, [2 * rank + 1 for rank in range(comm.size)],
                                   [0] * (comm.size - 1) + [7], [5] + [0] * (comm.size - 1), [1] * comm.size)):
        found = reduce.average(parts(comm.rank, step), counts[comm.rank])
        error = off(found, mean(comm.size, counts, step))
        assert_all(error < EXACT[method], f"{method} {bucket} step {step}: {error}")
    assert_all(not reduce.average(parts(comm.rank), 0)[2].any())


@pytest.mark.mpi
@pytest.mark.parametrize("method", ["plain", "fixed"])
def test_double_precision(comm, assert_all, method):
    reduce = GradientAllreduce(comm, parts(0, 0, np.float64), method, 200)
    counts = [rank + 1 for rank in range(comm.size)]
    found = reduce.average(parts(comm.rank, 0, np.float64), counts[comm.rank])
    error = off(found, mean(comm.size, counts, 0, np.float64))
    assert_all(error < 1e-14, error)


@pytest.mark.mpi
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_fixed_sums_have_the_same_bits_however_parts_are_dealt(comm, assert_all, alone, dtype):
    rng = np.random.default_rng(8)
    owner = rng.integers(0, comm.size, 11)
    reduce, single = (GradientAllreduce(where, parts(0, 0, dtype), "fixed", 256) for where in (comm, alone))
    for step in range(4):
        scale = 10.0 ** (3 * step)  # they outgrow their room each time
        for one, mine in ((reduce, [p for p in range(11) if owner[p] == comm.rank]), (single, range(11))):
            fits = False
            while not fits:
                one.start(parts=len(mine), whole=11, scale=1 / 11)
                for part in mine:
                    for i, values in reversed(list(enumerate(parts(part, 50 + step, dtype)))):
                        one.gradients[i][...] = scale * values.astype(float)
                        one.ready(i)
                fits = one.finish()
        assert_all(np.array_equal(reduce.flat, single.flat) and single.flat.any(), f"step {step}")
        error = off(single.gradients, [scale * g for g in mean(11, [1] * 11, 50 + step, dtype)])
        assert_all(error < (1e-5 if dtype == np.float32 else 1e-13), f"step {step}: {error}")


@pytest.mark.mpi
def test_a_gradient_that_is_not_finite_is_seen_by_all(comm, assert_all):
    reduce = GradientAllreduce(comm, parts(0), "fixed")
    broken = parts(comm.rank)
    if comm.rank == comm.size - 1:
        broken[2][3, 4] = np.inf
    assert_all(np.isnan(reduce.average(broken, 1)[0]).all())
    assert_all(np.isfinite(reduce.average(parts(comm.rank), 1)[0]).all())


@pytest.mark.mpi
@pytest.mark.parametrize("method", ["topk", "powersgd"])
def test_what_compression_leaves_out_is_sent_later(comm, assert_all, method):
    reduce = GradientAllreduce(comm, parts(0), method, 256, fraction=0.1, rank=2, seed=1)
    sent, wanted = np.zeros(len(reduce.flat)), np.zeros(len(reduce.flat))
    for step in range(5):
        whole = mean(comm.size, [rank + 1 for rank in range(comm.size)], step)
        reduce.average(parts(comm.rank, step), comm.rank + 1)
        sent += reduce.flat
        for place, values in zip(reduce.places, whole):
            wanted[place] += values.ravel()
    left = comm.allreduce(reduce.state()[1]["left"].astype(float))
    error = np.abs(sent + left - wanted).max() / np.abs(wanted).max()
    assert_all(error < 1e-5, error)
    assert_all(np.abs(left).max() > 0)


@pytest.mark.mpi
@pytest.mark.parametrize("method", ["topk", "powersgd"])
def test_a_step_of_nobody_leaves_what_is_left(comm, assert_all, method):
    reduce = GradientAllreduce(comm, parts(0), method, 256, fraction=0.1, rank=2, seed=1)
    reduce.average(parts(comm.rank), 5)
    left = comm.allreduce(np.abs(reduce.state()[1]["left"]).max())
    reduce.average(parts(comm.rank), 0)
    assert_all(comm.allreduce(np.abs(reduce.state()[1]["left"]).max()) <= left)


@pytest.mark.mpi
def test_bases_of_matrices_without_full_rank_are_the_same_everywhere(comm, assert_all):
    reduce = GradientAllreduce(comm, [np.zeros((20, 30), np.float32)], "powersgd", rank=4)
    found = reduce.average([np.outer(np.arange(20), np.ones(30)).astype(np.float32)], 1)[0]
    assert_all(np.array_equal(found, comm.bcast(found)))
    assert_all(np.allclose(found, np.outer(np.arange(20), np.ones(30)), atol=1e-4))


@pytest.mark.mpi
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_fixed_sums_have_room_for_the_largest_numbers(comm, assert_all, dtype):
    large = float(np.finfo(dtype).max) / 1.5
    reduce = GradientAllreduce(comm, [np.zeros(3, dtype)], "fixed")
    for _ in range(3):  # the first one is done twice
        found = reduce.average([np.array([large, -large, 1.0], dtype)], 1)[0]
        assert_all(np.allclose(found[:2] / large, [1, -1], rtol=1e-6), found)


@pytest.mark.mpi
def test_buckets_of_plain_sums_end_in_order(comm, assert_all):
    flat = np.full(30, comm.rank + 1.0)
    plain = buckets.Plain(comm, flat, [slice(0, 10), slice(10, 20), slice(20, 30)])
    for number in range(3):
        plain.begin(number)
    assert_all(plain.done == 3)  # whoever waits for that needs no more
    plain.finish()
    assert_all((flat == comm.size * (comm.size + 1) / 2).all())


@pytest.mark.mpi
def test_compression_that_leaves_nothing_out_is_exact(comm, assert_all):
    for method, options in (("topk", {"fraction": 1.0}), ("powersgd", {"rank": 5})):
        reduce = GradientAllreduce(comm, parts(0), method, 128, **options)
        error = off(reduce.average(parts(comm.rank), 2), mean(comm.size, [2] * comm.size))
        assert_all(error < 1e-5, f"{method}: {error}")


@pytest.mark.mpi
def test_ranks_meet_at_the_average_of_their_ways(comm, assert_all):
    start = np.arange(6.0)
    outer, w = Outer(comm, start, rate=1.0, momentum=0.0), start.copy()
    ways = [np.full(6, rank + 1.0) for rank in range(comm.size)]
    counts = [3 * rank for rank in range(comm.size)]
    w -= ways[comm.rank]
    outer.took(counts[comm.rank])
    outer.meet(w)
    wanted = start - (sum(n * way for n, way in zip(counts, ways)) / sum(counts) if sum(counts) else 0)
    assert_all(np.allclose(w, wanted, rtol=1e-14), w)
    outer = Outer(comm, start, rate=0.5, momentum=0.9)
    for _ in range(2):
        w[:] = outer.whole - 1
        outer.took(1)
        outer.meet(w)
    assert_all(np.allclose(w, start - 0.5 * (1.9 + 1 + 0.9 * 1.9), rtol=1e-14), w)


def test_halves_round_to_nearest():
    values = np.array([0.0, 1.0, -2.5, 65504.0, 1 + 2.0**-11, 1 + 3 * 2.0**-11], np.float32)
    assert wires.doubled(wires.halved(values, "float16"), "float16").tolist() == [0, 1, -2.5, 65504, 1, 1 + 2.0**-9]
    values = np.array([1 + 2.0**-8, 1 + 3 * 2.0**-8, -3e38, 1e-30], np.float32)
    assert wires.doubled(wires.halved(values, "bfloat16"), "bfloat16")[:2].tolist() == [1, 1 + 2.0**-6]
    assert np.allclose(wires.doubled(wires.halved(values, "bfloat16"), "bfloat16"), values, rtol=2.0**-8)
    values = np.array([0x7FFFFFFF, 0xFFFFFFFF, 0x7FC00000, 0x7F800001], np.uint32).view(np.float32)
    assert np.isnan(wires.doubled(wires.halved(values, "bfloat16"), "bfloat16")).all()


def test_buckets_end_where_parameters_do():
    assert buckets.edges([3, 5, 9, 10, 30], 24, 4) == [slice(0, 5), slice(5, 10), slice(10, 30)]
    assert buckets.edges([3], 1, 4) == [slice(0, 3)] and buckets.edges([0, 0, 4], 100, 4) == [slice(0, 4)]
    assert buckets.edges([], 8, 4) == []
    assert buckets.size(cost.Link(100e-6, 100e6)) == 100_000 and buckets.size(cost.Link(1e-9, 1e9)) == buckets.LEAST
    assert buckets.size(cost.Link(1.0, 1e12)) == buckets.MOST


def test_a_step_in_disorder_is_refused(alone):
    reduce = GradientAllreduce(alone, parts(0))
    with pytest.raises(RuntimeError, match="no step was started"):
        reduce.finish()
    reduce.start(1)
    with pytest.raises(RuntimeError, match="not finished"):
        reduce.start(1)
    reduce.ready(4)
    with pytest.raises(RuntimeError, match="ready 1 times already"):
        reduce.ready(4)
    with pytest.raises(RuntimeError, match=r"\[0, 1, 2, 3\] are not ready"):
        reduce.finish()
    with pytest.raises(ValueError, match="whole = 1: must be the parts of all ranks, and this one has 64"):
        GradientAllreduce(alone, parts(0), "fixed").start(1, parts=64)
    with pytest.raises(ValueError, match="known are fixed, plain"):
        GradientAllreduce(alone, parts(0), "fast")
    with pytest.raises(ValueError, match="all float32 or all float64"):
        GradientAllreduce(alone, [np.zeros(2, np.float32), np.zeros(2)])
    with pytest.raises(ValueError, match="none"):
        GradientAllreduce(alone, [])


def test_the_choice_loses_nothing_where_that_is_cheap():
    fast, slow = cost.Link(2e-6, 8e9), cost.Link(300e-6, 50e6)

    def chosen(link, compute, count=10**6):
        costs = {name: cost.predicted(link, name, count, 4, 3, 5, sent=count // 20, every=16)
                 for name in ("fixed", "plain", "float16", "powersgd", "local")}
        return cost.choose(costs, compute), costs

    assert chosen(fast, 0.05)[0] == "fixed" and chosen(slow, 10.0)[0] == "fixed"
    method, costs = chosen(slow, 0.05)
    assert method in ("powersgd", "local") and costs["plain"] == pytest.approx(3 * 300e-6 + 4e6 / 50e6)
    assert costs["float16"] < costs["plain"] and costs["fixed"] > costs["plain"] > 10 * costs["local"]
    assert cost.predicted(slow, "plain", 10**6, 4, 3, 1) == 0
