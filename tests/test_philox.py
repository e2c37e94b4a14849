"""Philox and its payoffs: published vectors, analytic answers, versions alike bit for bit, any cut into calls."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import ndtri

from brmpi.kernels import opencl, philox
from brmpi.streams import Stream


def lack():
    try:
        opencl.devices()
    except opencl.Unavailable as reason:
        return str(reason)
    return ""


BACKENDS = ["numpy", "numba", pytest.param("opencl", marks=pytest.mark.skipif(bool(lack()), reason=lack() or "-"))]
KEY = (0x452821E638D01377, 0xBE5466CF34E90C6C)
OPTION = {"spot": 100.0, "strike": 105.0, "rate": 0.05, "volatility": 0.3, "time": 0.75}
# Known answers of philox4x64 with 10 rounds, distributed with Random123: counter, key, output.
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B)),
    ((2**64 - 1,) * 4, (2**64 - 1,) * 2,
     (0x87B092C3013FE90B, 0x438C3C67BE8D0224, 0x9CC7D7C69CD777B6, 0xA09CAEBF594F0BA0)),
    ((0x243F6A8885A308D3, 0x13198A2E03707344, 0xA4093822299F31D0, 0x082EFA98EC4E6C89), KEY,
     (0xA528F45403E61D95, 0x38C72DBD566E9788, 0xA5A1610E72FD18B5, 0x57BD43B5E52B7FE6)),
]
WRAPS = (4 * 2**bits for bits in (64, 128, 192))  # where one word of the counter carries into the next
FIRST = st.one_of(st.integers(0, 10**12), *(st.integers(wrap - 3000, wrap + 9) for wrap in WRAPS))
COUNT = st.one_of(st.sampled_from([0, 1, 3, 1023, 1024, 1025]), st.integers(0, 5000))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("counter", "key", "output"), KNOWN)
def test_known_answers(counter, key, output, backend):
    block = sum(word << (64 * place) for place, word in enumerate(counter))
    assert philox.words(key, 4 * block, 4, backend).tolist() == list(output)
    assert philox.words(key, 4 * block + 1, 2, backend).tolist() == list(output[1:3])


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**64 - 1), first=FIRST, count=COUNT)
def test_numbers_are_those_of_a_stream(backend, seed, first, count):
    stream = Stream(seed, "test")
    assert philox.words(stream.key, first, count, backend).tobytes() == stream.words(first, count).tobytes()
    assert philox.uniform(stream.key, first, count, backend).tobytes() == stream.uniform(first, count).tobytes()
    normal = philox.normal(stream.key, first, count, backend)
    np.testing.assert_allclose(normal, stream.normal(first, count), rtol=2e-15)


@pytest.mark.parametrize("backend", BACKENDS[1:])
@settings(max_examples=50, deadline=None)
@given(first=FIRST, count=COUNT)
def test_versions_agree_bit_for_bit(backend, first, count):
    assert philox.normal(KEY, first, count, backend).tobytes() == philox.normal(KEY, first, count, "numpy").tobytes()
    inside = philox.inside_circle(KEY, first, count, backend)
    assert inside == philox.inside_circle(KEY, first, count, "numpy") <= count


@pytest.mark.parametrize("backend", BACKENDS[1:])
@settings(max_examples=30, deadline=None)
@given(row=st.integers(0, 10**9), count=COUNT, steps=st.sampled_from([1, 2, 3, 12, 65]))
def test_payoffs_agree_bit_for_bit(backend, row, count, steps):
    one, two = (philox.asian(KEY, row * philox.BLOCK, count, **OPTION, steps=steps, backend=name)
                for name in (backend, "numpy"))
    assert one.shape == (-(-count // philox.BLOCK), 2)
    assert one.tobytes() == two.tobytes()


@pytest.mark.parametrize("backend", BACKENDS[1:])
def test_versions_agree_on_many(backend):
    assert philox.words(KEY, 5, 10**6 + 1, backend).tobytes() == philox.words(KEY, 5, 10**6 + 1, "numpy").tobytes()
    rare = philox.normal(KEY, 0, 3 * 10**6, backend)
    assert rare.tobytes() == philox.normal(KEY, 0, 3 * 10**6, "numpy").tobytes()


@pytest.mark.skipif(bool(lack()), reason=lack() or "-")
@pytest.mark.timeout(600)  # compiles often
def test_parameters_make_no_difference():
    from brmpi.kernels import philox_opencl

    option = philox._option(*OPTION.values(), 3)
    names = philox_opencl.PARAMETERS
    for values in itertools.product(*names.values()):
        parameters = dict(zip(names, values))
        for first, count in ((5, 2600), (6, 1), (3, 1021), (4 * 2**64 - 1023, 1500)):
            for call in ("words", "uniform", "normal"):
                made = getattr(philox_opencl, call)(KEY, first, count, **parameters)
                expected = getattr(philox, call)(KEY, first, count, "numpy")
                assert made.tobytes() == expected.tobytes(), (call, first, parameters)
            inside = philox_opencl.inside_circle(KEY, first, count, **parameters)
            assert inside == philox.inside_circle(KEY, first, count, "numpy"), (first, parameters)
        sums = philox_opencl.payoffs(KEY, 3 * 1024, 1777, 3, option, **parameters)
        expected = philox.asian(KEY, 1024, 1777, **OPTION, steps=3, backend="numpy")
        assert sums.tobytes() == expected.tobytes(), parameters
    with pytest.raises(TypeError, match="breadth"):
        philox_opencl.words(KEY, 0, 1, breadth=4)


def test_the_far_tail():
    """One in 7e10 words: here made, not drawn."""
    p = np.concatenate([np.exp(-np.linspace(20, 36, 5000)), [2.0**-54, 1 - 2.0**-53, 0.5, 0.075, 0.925]])
    np.testing.assert_allclose(philox._inverse(p), ndtri(p), rtol=2e-15, atol=1e-300)


@pytest.mark.parametrize("backend", BACKENDS[1:])
def test_the_far_tail_alike(backend, monkeypatch):
    """A word whose normal number is beyond 7, found by turning the last block's rounds backwards."""
    block, lane, key = far_word()
    first = 4 * block + lane
    z = philox.normal(key, first - 2, 5, backend)
    assert z[2] < -7 and z.tobytes() == philox.normal(key, first - 2, 5, "numpy").tobytes()
    np.testing.assert_allclose(z[2], Stream.normal(stream_of(key), first, 1)[0], rtol=2e-15)


def stream_of(key):
    stream = Stream(0, "x")
    stream.key = key
    return stream


def far_word():
    """Counter, lane and key that give the word 5 * 2**20: Philox is a bijection of counters."""
    mask, (k0, k1) = 2**64 - 1, KEY
    a, b = 0xD2E7470EE14C6C93, 0xCA5A826395121157
    c = [1, 5 * 2**20, 3, 4]
    for n in range(9, -1, -1):
        key0, key1 = (k0 + n * 0x9E3779B97F4A7C15) & mask, (k1 + n * 0xBB67AE8584CAA73B) & mask
        c0, c2 = c[3] * pow(a, -1, 2**64) & mask, c[1] * pow(b, -1, 2**64) & mask
        c = [c0, c[0] ^ (b * c2 >> 64) ^ key0, c2, c[2] ^ (a * c0 >> 64) ^ key1]
    return sum(word << (64 * place) for place, word in enumerate(c)), 1, KEY


@pytest.mark.parametrize("backend", BACKENDS)
def test_any_cut_gives_the_same(backend):
    cuts = [0, 0, 1, 777, 3072, 3073, 6000]
    parts = [philox.inside_circle(KEY, a, b - a, backend) for a, b in zip(cuts, cuts[1:])]  # noqa: RUF007
    assert sum(parts) == philox.inside_circle(KEY, 0, 6000, backend)
    parts = [philox.normal(KEY, a, b - a, backend) for a, b in zip(cuts, cuts[1:])]  # noqa: RUF007
    assert np.concatenate(parts).tobytes() == philox.normal(KEY, 0, 6000, backend).tobytes()
    for steps in (1, 7):
        cuts = [0, 1024, 1024, 5120, 6000]
        parts = [philox.asian(KEY, a, b - a, **OPTION, steps=steps, backend=backend)
                 for a, b in zip(cuts, cuts[1:])]  # noqa: RUF007
        whole = philox.asian(KEY, 0, 6000, **OPTION, steps=steps, backend=backend)
        assert np.concatenate(parts).tobytes() == whole.tobytes()


@pytest.mark.parametrize("backend", BACKENDS)
def test_sums_are_those_of_their_samples(backend):
    z = philox.normal(KEY, 2048 * 3, 1500 * 3, backend).reshape(1500, 3)
    dt = OPTION["time"] / 3
    price = 100 * np.exp(np.cumsum((0.05 - 0.3**2 / 2) * dt + 0.3 * math.sqrt(dt) * z, axis=1))
    payoff = math.exp(-0.05 * 0.75) * np.maximum(price.mean(axis=1) - 105, 0)
    expected = [[part.sum(), (part**2).sum()] for part in (payoff[:1024], payoff[1024:])]
    np.testing.assert_allclose(philox.asian(KEY, 2048, 1500, **OPTION, steps=3, backend=backend), expected, rtol=1e-13)
    one = philox.european(KEY, 1024, 1100, **OPTION, backend=backend)
    assert one.tobytes() == philox.asian(KEY, 1024, 1100, **OPTION, steps=1, backend=backend).tobytes()


@pytest.mark.parametrize("backend", BACKENDS)
def test_european_price_is_that_of_black_and_scholes(backend):
    count, (s, k, r, v, t) = 1024 * 1000, OPTION.values()
    d = (math.log(s / k) + (r + v * v / 2) * t) / (v * math.sqrt(t))
    price = s * stats.norm.cdf(d) - k * math.exp(-r * t) * stats.norm.cdf(d - v * math.sqrt(t))
    total, squares = philox.european((1, 2), 0, count, **OPTION, backend=backend).sum(axis=0)
    error = math.sqrt((squares / count - (total / count) ** 2) / count)
    assert 0 < error < 0.03 and abs(total / count - price) < 3 * error


@pytest.mark.parametrize("backend", BACKENDS)
def test_without_volatility_the_asian_payoff_is_certain(backend):
    option = OPTION | {"volatility": 0.0, "strike": 90.0}
    mean = np.mean([100 * math.exp(0.05 * 0.75 * step / 4) for step in (1, 2, 3, 4)])
    sums = philox.asian(KEY, 0, 1024, **option, steps=4, backend=backend)
    assert sums[0, 0] == pytest.approx(1024 * math.exp(-0.05 * 0.75) * (mean - 90), rel=1e-13)


@pytest.mark.parametrize("backend", BACKENDS)
def test_pi(backend):
    count = 2**22
    inside = philox.inside_circle((7, 8), 0, count, backend)
    assert abs(4 * inside / count - math.pi) < 3 * math.sqrt(math.pi * (4 - math.pi) / count)


def test_distribution():
    assert stats.kstest(philox.normal((1, 2), 0, 200_000), "norm").pvalue > 1e-3


@pytest.mark.parametrize("backend", BACKENDS)
def test_wrong_arguments(backend):
    with pytest.raises(ValueError, match="key"):
        philox.words((0, 2**64), 0, 1, backend)
    with pytest.raises(ValueError, match="first = -1"):
        philox.normal(KEY, -1, 1, backend)
    with pytest.raises(ValueError, match="count = 5"):
        philox.inside_circle(KEY, 2**258 - 4, 5, backend)
    with pytest.raises(ValueError, match="first = 5: must be a multiple of 1024"):
        philox.european(KEY, 5, 1, **OPTION, backend=backend)
    with pytest.raises(ValueError, match="steps = 0"):
        philox.asian(KEY, 0, 1, **OPTION, steps=0, backend=backend)
    for name, value in (("spot", 0.0), ("strike", -1.0), ("volatility", math.nan), ("time", -0.1), ("rate", math.inf)):
        with pytest.raises(ValueError, match=f"{name} = "):
            philox.european(KEY, 0, 1, **OPTION | {name: value}, backend=backend)
    with pytest.raises(ValueError, match="exponents reach"):
        philox.european(KEY, 0, 1, **OPTION | {"volatility": 100.0}, backend=backend)


def test_unknown_version():
    with pytest.raises(ValueError, match="'cuda'"):
        philox.words(KEY, 0, 1, "cuda")


def test_fused_operations_are_rounded_once():
    rng = np.random.default_rng(3)
    a, b, near = rng.standard_normal((3, 4000)) * 10.0 ** rng.integers(-8, 8, (3, 4000))
    c = np.where(rng.random(4000) < 0.5, near, -a * b * (1 + rng.integers(-4, 4, 4000) * 2.0**-52))  # which cancels
    exact = [float(Fraction(x) * Fraction(y) + Fraction(z)) for x, y, z in zip(a.tolist(), b.tolist(), c.tolist())]
    assert philox._fused(a, b, c).tolist() == exact
