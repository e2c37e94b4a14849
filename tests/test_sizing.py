"""How large a system of equations is, from memory and time; its blocks and its grid."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brmpi.errors import BadInput
from brmpi.linalg import sizing
from brmpi.linalg.sizing import Problem

PI, OCTAVIA = 4e9, 16e9  # bytes


def test_operations_are_those_that_hpl_counts():
    """N = 200 took hpcc 0.000557738 s, of which it says 0.00967001 Tflop/s."""
    assert sizing.flops(200) / 0.000557738 == pytest.approx(0.00967001e12, rel=1e-5)


def test_the_poorest_rank_decides():
    assert sizing.together([2.0, 3.0, 4.0]) == 6.0
    assert sizing.together([2.0, 3.0, 4.0], [2, 3, 4]) == 9.0  # in proportion: the sum
    assert sizing.together([2.0, 3.0, 4.0], [0, 1, 1]) == 6.0  # a rank without a share holds nobody back
    for values, shares in (([], None), ([1, 0], None), ([1, math.nan], None), ([1, 1], [1]), ([1, 1], [0, 0]),
                           ([1, 1], [2, -1])):
        with pytest.raises(BadInput):
            sizing.together(values, shares)


@given(st.lists(st.floats(1e8, 1e11), min_size=1, max_size=30), st.integers(1, 300), st.floats(0.05, 1),
       st.booleans())
def test_the_largest_that_fits(memory, nb, fraction, weighted):
    shares = memory if weighted else [1.0] * len(memory)
    n = sizing.fitting(memory, nb, fraction, shares)
    part = [share / sum(shares) for share in shares]
    assert n % nb == 0
    assert all(8 * n**2 * own <= fraction * room * (1 + 1e-12) for own, room in zip(part, memory))
    more = n + nb
    assert more > sizing.MOST or any(8 * more**2 * own > fraction * room * (1 - 1e-12)
                                     for own, room in zip(part, memory))


def test_memory_in_numbers():
    assert sizing.fitting([PI] * 4, 128, 0.8) == 39936  # 8 N^2 <= 0.8 * 16e9: N <= 40000
    assert sizing.fitting([PI] * 4 + [OCTAVIA], 1, 0.8) == 44721  # as five of 4 GB
    assert sizing.fitting([PI] * 4 + [OCTAVIA], 1, 0.8, [1, 1, 1, 1, 4]) == 56568  # as 32 GB


@given(st.floats(1, 1e5), st.lists(st.floats(1e9, 1e12), min_size=1, max_size=30), st.integers(1, 300))
def test_the_largest_within_a_time(seconds, rates, nb):
    n = sizing.lasting(seconds, rates, nb, 0.7)
    rate = 0.7 * min(rates) * len(rates)
    assert n % nb == 0 and sizing.flops(n) <= seconds * rate
    assert n + nb > sizing.MOST or sizing.flops(n + nb) > seconds * rate


def test_shares_by_speed_have_the_summed_rate():
    assert sizing.lasting(60, [10e9, 40e9], 128, 1.0) == sizing.lasting(60, [20e9], 128, 1.0)
    assert sizing.lasting(60, [10e9, 40e9], 128, 1.0, [1, 4]) == sizing.lasting(60, [50e9], 128, 1.0)


@pytest.mark.parametrize("ranks, shape", [(1, (1, 1)), (2, (1, 2)), (4, (2, 2)), (6, (2, 3)), (7, (1, 7)), (12, (3, 4)),
                                          (20, (4, 5)), (36, (6, 6))])
def test_the_squarest_grid(ranks, shape):
    assert sizing.square(ranks) == shape


@given(st.integers(1, 10**6), st.integers(1, 500))
def test_blocks(n, across):
    nb = sizing.block(n, across)
    assert 8 <= nb <= 128 and nb % 8 == 0
    assert nb == 8 or n >= 8 * nb * across  # enough blocks for every rank


def test_blocks_in_numbers():
    assert sizing.block(8000, 2) == 128 and sizing.block(1024, 2) == 64 and sizing.block(100, 2) == 8


def test_what_a_person_writes():
    assert sizing.grid_of("2x3", 6) == sizing.grid_of("2 X 3", 6) == (2, 3) and sizing.grid_of("3x2", 6) == (3, 2)
    assert [sizing.seconds_of(said) for said in ("90", "90s", "5m", "1.5h", " .5 m ")] == [90, 90, 300, 5400, 30]


@pytest.mark.parametrize("call, said", [
    (lambda: sizing.grid_of("2", 2), "--grid = '2': must be P x Q, such as 1x2"),
    (lambda: sizing.grid_of("2x2", 2), "--grid = '2x2': is a grid of 4, but there are 2 ranks"),
    (lambda: sizing.grid_of("0x2", 2), "--grid = '0x2': is a grid of 0, but there are 2 ranks"),
    (lambda: sizing.seconds_of("soon"), "--time-budget = 'soon': must be a time"),
    (lambda: sizing.seconds_of("0s"), "--time-budget = '0s': must be a time > 0"),
    (lambda: sizing.seconds_of("-5m"), "--time-budget = '-5m': must be a time > 0"),
    (lambda: sizing.seconds_of("9999h"), "--time-budget = '9999h': must be a time > 0 and at most 1000h"),
    (lambda: sizing.fitting([1e9], 128, 1.5), "--memory = 1.5: must be > 0 and at most 1"),
    (lambda: sizing.fitting([1e9], 128, math.nan), "--memory = nan: must be > 0 and at most 1"),
    (lambda: sizing.fitting([1e3], 128), "--memory = 0.8: leaves 800 bytes, too few for one block of NB = 128"),
    (lambda: sizing.lasting(1e-6, [1e9], 128), "--time-budget = 1e-06 s: too short for one block of NB = 128"),
    (lambda: sizing.problem(2, [1e9, 1e9], n=0), "--n = 0: must be >= 1"),
    (lambda: sizing.problem(2, [1e9, 1e9], n=20000),
     "--n = 20000: needs 3.2 GB, but so shared out these ranks hold 2 GB, N = 15811"),
    (lambda: sizing.problem(2, n=100, nb=0), "--nb = 0: must be >= 1"),
    (lambda: sizing.problem(2), "N: needs each node's memory: run brmpi probe, or give --n"),
    (lambda: sizing.problem(2, [1e9, 1e9], seconds=9), "--time-budget: needs each node's speed: run brmpi probe"),
])
def test_what_cannot_be_is_one_sentence(call, said):
    with pytest.raises(BadInput) as wrong:
        call()
    assert str(wrong.value).startswith(said) and "\n" not in str(wrong.value)


def test_problems():
    memory, rates = [OCTAVIA / 4] * 4, [10e9] * 4
    assert sizing.problem(4, memory) == Problem(39936, 128, 2, 2)
    assert sizing.problem(4, memory, rates, seconds=60, efficiency=1.0) == Problem(15232, 128, 2, 2)
    assert sizing.problem(4, memory, rates, seconds=1e5) == Problem(39936, 128, 2, 2)  # memory is the limit
    assert sizing.problem(4, memory, n=1000, grid=(1, 4)) == Problem(1000, 24, 1, 4)
    assert sizing.problem(4, n=1001, nb=64) == Problem(1001, 64, 2, 2)
    small = sizing.problem(20, rates=[1e9] * 20, seconds=0.1)
    assert small.nb < 128 and small.n % small.nb == 0
