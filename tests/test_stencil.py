"""The stencil kernels: against what they do to a Fourier mode, between backends, and the same bits in any cut."""

import functools
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brmpi.kernels import opencl, stencil

KERNELS = ("heat", "heat9", "harmonic", "arithmetic", "wave2", "wave4")
EPS = {np.float64: 2.0**-52, np.float32: 2.0**-23}
DTYPES = [np.float64, np.float32]


@functools.cache
def lacking():
    try:
        opencl.need_float64(opencl.device())
    except opencl.Unavailable as reason:
        return str(reason)
    return ""


@pytest.fixture(params=("numpy", "numba", "opencl"))
def backend(request):
    if request.param == "opencl" and lacking():
        pytest.skip(lacking())
    return request.param


def halo(kernel):
    return 2 if kernel == "wave4" else 1


def arrays(kernel, inner, dtype, seed=1):
    """Random u, out and what else a kernel takes; out's halo is its own."""
    rng = np.random.default_rng(seed)
    shape = tuple(n + 2 * halo(kernel) for n in inner)
    u, before = (rng.normal(size=shape).astype(dtype) for _ in range(2))
    k = rng.uniform(0.1, 2, shape).astype(dtype)
    k[rng.random(shape) < 0.2] = 0  # insulators
    return {"u": u, "before": before, "k": k, "c2": rng.uniform(0, 0.3, inner).astype(dtype),
            "out": np.full(shape, 7, dtype), "c": tuple(0.05 * (d + 1) for d in range(len(inner)))}


def step(kernel, a, backend, rows=None, out=None, c2=None):
    out = a["out"].copy() if out is None else out
    if kernel == "heat":
        stencil.heat(a["u"], out, a["c"], backend, rows)
    elif kernel == "heat9":
        stencil.heat9(a["u"], out, 0.3, backend, rows)
    elif kernel in stencil.MEANS:
        stencil.conduct(a["u"], out, a["k"], a["c"], kernel, backend, rows)
    else:
        stencil.wave(a["u"], a["before"], out, a["c2"] if c2 is None else c2, int(kernel[-1]), backend, rows)
    return out


def filled(inner, width=1):
    """With a periodic halo."""
    return np.ascontiguousarray(np.pad(inner, width, mode="wrap"))


def interior(array, width=1):
    return array[(slice(width, -width),) * array.ndim]


def mode(shape, waves):
    """A Fourier mode on a periodic grid, and the angle that it turns by from cell to cell along each dimension."""
    turn = [2 * np.pi * w / n for w, n in zip(waves, shape)]
    return np.cos(sum(t * x for t, x in zip(turn, np.indices(shape)))), turn


def second(turn, order):
    """The factor that a difference of second order in one dimension stands for, times dx**2."""
    near = 2 - 2 * math.cos(turn)
    return near if order == 2 else 4 / 3 * near - (2 - 2 * math.cos(2 * turn)) / 12


MODES = [((12, 10), (1, 0)), ((12, 10), (0, 3)), ((12, 10), (5, 2)), ((12, 10), (6, 5)), ((1, 9), (0, 2)),
         ((6, 8, 10), (1, 2, 3)), ((6, 8, 10), (3, 4, 5)), ((5, 7, 9), (0, 1, 0)), ((5, 7, 9), (2, 0, 1))]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "waves"), MODES)
def test_heat_multiplies_a_mode_by_its_factor(shape, waves, dtype, backend):
    u, turn = mode(shape, waves)
    c = (0.1, 0.15, 0.05)[: len(shape)]
    factor = 1 - sum(c_d * second(t, 2) for c_d, t in zip(c, turn))
    a = {"u": filled(u.astype(dtype)), "c": c}
    assert np.abs(interior(step("heat", a, backend, out=np.zeros_like(a["u"]))) - factor * u).max() < 8 * EPS[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "waves"), [m for m in MODES if len(m[0]) == 2])
def test_heat9_multiplies_a_mode_by_its_factor(shape, waves, dtype, backend):
    u, (p, q) = mode(shape, waves)
    factor = 1 + 0.3 / 6 * (8 * (math.cos(p) + math.cos(q)) + 4 * math.cos(p) * math.cos(q) - 20)
    padded = filled(u.astype(dtype))
    out = step("heat9", {"u": padded}, backend, out=np.zeros_like(padded))
    assert np.abs(interior(out) - factor * u).max() < 8 * EPS[dtype]


@pytest.mark.parametrize("mean", stencil.MEANS)
@pytest.mark.parametrize(("shape", "waves"), MODES)
def test_conduct_with_one_conductivity_is_heat(shape, waves, mean, backend):
    u, turn = mode(shape, waves)
    u, c = filled(u), (0.1, 0.15, 0.05)[: len(shape)]
    factor = 1 - sum(0.5 * c_d * second(t, 2) for c_d, t in zip(c, turn))
    out = step(mean, {"u": u, "k": np.full_like(u, 0.5), "c": c}, backend, out=np.zeros_like(u))
    assert np.abs(interior(out - factor * u)).max() < 1e-15


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", [2, 4])
@pytest.mark.parametrize(("shape", "waves"), MODES)
def test_wave_turns_a_mode_by_the_frequency_of_its_dispersion_relation(shape, waves, order, dtype, backend):
    """sin²(w/2) = c2/4 sum_d D(k_d): the step takes cos(k x - w t) at t = 0 and -1 to that at t = 1."""
    turn = mode(shape, waves)[1]
    c2 = 0.9 / len(shape) * (1 if order == 2 else 0.75)
    w = 2 * math.asin(math.sqrt(c2 / 4 * sum(second(t, order) for t in turn)))
    phase = sum(t * x for t, x in zip(turn, np.indices(shape)))
    u, before = (filled(np.cos(phase - w * t).astype(dtype), order // 2) for t in (0, -1))
    out = np.zeros_like(u)
    stencil.wave(u, before, out, c2, order, backend)
    assert np.abs(interior(out, order // 2) - np.cos(phase - w)).max() < 40 * EPS[dtype]  # phases are up to 30


@pytest.mark.parametrize(("order", "least"), [(2, 1.9), (4, 3.8)])
def test_wave_converges_in_space_with_its_order(order, least, backend):
    errors = []
    for n in (16, 32):
        x = 2 * np.pi * np.arange(n) / n
        u = filled(np.ascontiguousarray(np.broadcast_to(np.sin(x), (3, n))), order // 2)
        out = np.zeros_like(u)
        stencil.wave(u, u, out, 1.0, order, backend)  # out - u is the Laplacian times dx**2
        errors.append(np.abs(interior(out - u, order // 2) * (n / (2 * np.pi)) ** 2 + np.sin(x)).max())
    assert math.log2(errors[0] / errors[1]) > least


@pytest.mark.parametrize("kernel", ["heat", "heat9", "harmonic", "arithmetic"])
@pytest.mark.parametrize("inner", [(9, 14), (5, 6, 7)])
def test_heat_in_a_periodic_box_is_kept(kernel, inner, backend):
    if kernel == "heat9" and len(inner) == 3:
        inner = (30, 1)
    rng = np.random.default_rng(5)
    u, k = rng.uniform(1, 2, inner), rng.uniform(0, 1, inner)
    total = math.fsum(u.flat)
    for _ in range(10):
        a = {"u": filled(u), "k": filled(k), "c": (0.1,) * len(inner)}
        u = interior(step(kernel, a, backend, out=np.zeros_like(a["u"])))
    assert abs(math.fsum(u.flat) - total) < 1e-15 * total * 10 and u.std() < 0.25


def test_an_insulator_takes_nothing_and_two_materials_settle_at_their_series(backend):
    u = np.zeros((3, 12))
    k = np.ones((3, 12))
    k[:, 6:], k[1, 3] = 0.25, 1.0
    x = np.concatenate([np.arange(6) + 0.5, 6 + 4 * (np.arange(6) + 0.5)])  # resistance from the left end
    u[:] = x
    for mean, still in (("harmonic", True), ("arithmetic", False)):
        out = step(mean, {"u": u, "k": k, "c": (0.2, 0.2)}, backend, out=np.zeros_like(u))
        assert (np.abs(interior(out - u)).max() < 1e-15 * x.max()) == still
    k[:, 6:] = 0
    out = step("harmonic", {"u": u**2, "k": k, "c": (0.2, 0.2)}, backend, out=np.zeros_like(u))
    assert (out[1, 6:-1] == u[1, 6:-1] ** 2).all() and (out[1, 1:5] != u[1, 1:5] ** 2).all()


def test_nine_points_are_isotropic_and_five_are_not(backend):
    """The factor of a mode at 45 degrees beside one along an axis, of the same wavelength: differs as k**6, or k**4."""

    def spread(kernel, n):
        found = []
        for shape, waves in (((n, n), (5, 0)), ((n, n), (3, 4))):  # 3² + 4² = 5²
            u, _ = mode(shape, waves)
            a = {"u": filled(u), "c": (0.3, 0.3)}
            found.append(interior(step(kernel, a, backend, out=np.zeros_like(a["u"])))[0, 0] - 1)
        return abs(found[0] / found[1] - 1)

    nine, five = ([spread(kernel, n) for n in (40, 80)] for kernel in ("heat9", "heat"))
    assert nine[0] < five[0] / 20 and math.log2(nine[0] / nine[1]) > 3.8 and math.log2(five[0] / five[1]) < 2.2


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_level_field_stays_to_the_bit(kernel, dtype, backend):
    for inner in ((5, 40), (3, 4, 40))[: 1 if kernel == "heat9" else 2]:
        a = arrays(kernel, inner, dtype)
        a["u"][:] = a["before"][:] = 0.1
        assert (interior(step(kernel, a, backend), halo(kernel)) == dtype(0.1)).all()


shapes = st.one_of(st.tuples(*[st.sampled_from([0, 1, 2, 3, 7, 17, 33, 130])] * 2),
                   st.tuples(*[st.sampled_from([0, 1, 2, 5, 9, 19])] * 2, st.sampled_from([0, 1, 4, 9, 67])))


@pytest.mark.parametrize("kernel", KERNELS)
@settings(max_examples=25, deadline=None)
@given(inner=shapes, dtype=st.sampled_from(DTYPES), scalar=st.booleans(), seed=st.integers(0, 99))
def test_versions_agree(kernel, inner, dtype, scalar, seed):
    inner = inner[:2] if kernel == "heat9" else inner
    a = arrays(kernel, inner, dtype, seed)
    c2 = 0.2 if scalar else None
    reference = step(kernel, a, "numpy", c2=c2)
    width = halo(kernel)
    edge = np.ones(reference.shape, bool)
    edge[tuple(slice(width, n - width) for n in reference.shape)] = False
    assert (reference[edge] == 7).all()  # the halo of out is the caller's
    assert step(kernel, a, "numba", c2=c2).tobytes() == reference.tobytes()
    if not lacking():
        size = max(np.abs(a[name]).max(initial=0) for name in ("u", "before"))
        off = np.abs(step(kernel, a, "opencl", c2=c2) - reference).max(initial=0)
        assert off <= stencil.TOLERANCE[np.dtype(dtype).name] * size
        assert reference.size == edge.sum() or reference[~edge].std() > 0 or (~edge).sum() == 1


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_versions_agree_on_large_arrays(kernel, dtype, backend):
    for inner in ((301, 1003), (20, 70, 333))[: 1 if kernel == "heat9" else 2]:
        a = arrays(kernel, inner, dtype)
        found, reference = step(kernel, a, backend), step(kernel, a, "numpy")
        if backend == "opencl":
            assert np.abs(found - reference).max() <= stencil.TOLERANCE[np.dtype(dtype).name] * np.abs(a["u"]).max()
        else:
            assert found.tobytes() == reference.tobytes()


@pytest.mark.parametrize("kernel", KERNELS)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_rows_in_any_cut_give_the_same_bits(kernel, data):
    inner = data.draw(shapes)
    inner = inner[:2] if kernel == "heat9" else inner
    dtype = data.draw(st.sampled_from(DTYPES))
    a = arrays(kernel, inner, dtype)
    n = inner[0]
    cuts = [0, *sorted(data.draw(st.lists(st.integers(0, n), max_size=4))), n]
    for backend in ("numpy", "numba", "opencl"):
        if backend == "opencl" and lacking():
            continue
        whole, out = step(kernel, a, backend), a["out"].copy()
        for first, last in sorted(itertools.pairwise(cuts), reverse=True):
            step(kernel, a, backend, slice(first, last), out)
        assert out.tobytes() == whole.tobytes(), backend


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_blocks_with_halos_give_the_bits_of_the_whole(kernel, dtype, backend):
    """Cut along the last two dimensions too, at odd places."""
    inner, width = (11, 23, 45) if kernel != "heat9" else (23, 45), halo(kernel)
    a = arrays(kernel, inner, dtype)
    whole = step(kernel, a, backend)
    for y, z in (((0, 9), (0, 17)), ((9, 23), (17, 18)), ((3, 23), (18, 45))):
        cut = (..., slice(y[0], y[1] + 2 * width), slice(z[0], z[1] + 2 * width))
        part = {name: np.ascontiguousarray(a[name][cut]) for name in ("u", "before", "k", "out")} | {"c": a["c"]}
        part["c2"] = np.ascontiguousarray(a["c2"][..., slice(*y), slice(*z)])
        found = step(kernel, part, backend)
        assert interior(found, width).tobytes() == interior(whole[cut], width).tobytes()


def test_only_the_rows_asked_for_are_written(backend):
    for kernel in KERNELS:
        a = arrays(kernel, (6, 9), np.float64)
        width = halo(kernel)
        out, whole = step(kernel, a, backend, slice(-4, 3)), step(kernel, a, backend)
        assert (out[: 2 + width] == 7).all() and (out[3 + width :] == 7).all()
        assert out[2 + width].tobytes() == whole[2 + width].tobytes()
        assert (step(kernel, a, backend, slice(4, 4)) == 7).all()


@pytest.mark.parametrize("kernel", ["wave2", "wave4"])
@pytest.mark.parametrize("inner", [(9, 37), (4, 5, 37)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_wave_may_write_over_the_step_before(kernel, inner, dtype, backend):
    a = arrays(kernel, inner, dtype)
    apart, width = step(kernel, a, backend), halo(kernel)
    for rows in (slice(0, 2), slice(2, None)):
        step(kernel, a, backend, rows, out=a["before"])
    assert interior(a["before"], width).tobytes() == interior(apart, width).tobytes()


def test_wrong_arguments():
    u, out = np.zeros((4, 5)), np.zeros((4, 5))
    bad = [
        (lambda: stencil.heat(u, out, 0.1, "cuda"), "cuda"),
        (lambda: stencil.heat(u.astype(int), out, 0.1), "int64"),
        (lambda: stencil.heat(u.tolist(), out, 0.1), "list"),
        (lambda: stencil.heat(np.zeros(4), np.zeros(4), 0.1), "1 dimensions"),
        (lambda: stencil.heat9(np.zeros((3, 3, 3)), np.zeros((3, 3, 3)), 0.1), "3 dimensions"),
        (lambda: stencil.heat(np.zeros((1, 5)), np.zeros((1, 5)), 0.1), r"\(1, 5\): must be at least 2"),
        (lambda: stencil.wave(np.zeros((3, 5)), np.zeros((3, 5)), np.zeros((3, 5)), 0.1, 4), "at least 4"),
        (lambda: stencil.heat(u, np.zeros((4, 6)), 0.1), r"out is float64 \(4, 6\).*\(4, 5\)"),
        (lambda: stencil.heat(u, np.zeros((4, 5), np.float32), 0.1), "out is float32"),
        (lambda: stencil.heat(u, None, 0.1), "out is NoneType"),
        (lambda: stencil.heat(u, u, 0.1), "share memory"),
        (lambda: stencil.heat(np.zeros((5, 4)).T, out, 0.1), "strides"),
        (lambda: stencil.heat(u, np.broadcast_to(0.0, (4, 5)), 0.1), "strides"),
        (lambda: stencil.heat(u, np.frombuffer(bytes(160)).reshape(4, 5), 0.1), "read-only"),
        (lambda: stencil.heat(u, out, -0.1), "c = -0.1: must be finite and >= 0"),
        (lambda: stencil.heat(u, out, float("nan")), "c = nan"),
        (lambda: stencil.heat(u, out, "much"), "c = 'much'"),
        (lambda: stencil.heat(u, out, (0.1, 0.1, 0.1)), "3 values: must be one or 2"),
        (lambda: stencil.heat(u, out, 0.1, rows=3), "rows = 3"),
        (lambda: stencil.heat(u, out, 0.1, rows=slice(0, 2, 2)), "step 1"),
        (lambda: stencil.conduct(u, out, np.ones((2, 3)), 0.1), r"k is float64 \(2, 3\)"),
        (lambda: stencil.conduct(u, out, u, 0.1, "geometric"), "geometric"),
        (lambda: stencil.wave(u, u, out, 0.1, 3), "order = 3: must be 2 or 4"),
        (lambda: stencil.wave(u, u, out, np.ones((4, 5))), r"c2 is float64 \(4, 5\).*\(2, 3\)"),
        (lambda: stencil.wave(u, u, out, np.ones((2, 3), np.float32)), "c2 is float32"),
        (lambda: stencil.wave(u, np.zeros((2, 3)), out, 0.1), "before is float64"),
    ]
    for call, words in bad:
        with pytest.raises(ValueError, match=words):
            call()
    assert (out == 0).all()


@pytest.mark.parametrize("name", ["heat5", "heat7", "heat9", "conduct5", "conduct7", "wave5", "wave7", "wave9",
                                  "wave13"])
@pytest.mark.parametrize("kind", ["double", "float"])
def test_the_loops_compute_in_vectors(kind, name):
    """Compiled anew, as what comes from disk shows no code."""
    import re

    from numba import boolean, float32, float64, int64, njit, types

    from brmpi.kernels import stencil_numba
    from brmpi.kernels.compiled import LOOP

    real, d = float64 if kind == "double" else float32, 3 if name in stencil_numba.BLOCKED else 2
    array = types.Array(real, d, "C")
    rest = {"heat5": (types.UniTuple(real, 2),), "heat7": (types.UniTuple(real, 3),),
            "heat9": (real, types.UniTuple(real, 2)), "conduct5": (array, types.UniTuple(real, 2), boolean),
            "conduct7": (array, types.UniTuple(real, 3), boolean)}.get(name)
    if rest is None:
        weights = types.UniTuple(real, 1 if name in ("wave5", "wave7") else 3)
        rest = array, real[:, ::1], int64, weights, boolean
    whole = (array, array, *rest, int64, int64, *((int64,) if d == 3 else ()))
    loop = getattr(stencil_numba, f"{name}_rows" if d == 3 else name)
    code = njit(whole, **LOOP)(loop.py_func)
    assert re.search(rf"f(add|mul) <\d+ x {kind}>", next(iter(code.inspect_llvm().values())))
