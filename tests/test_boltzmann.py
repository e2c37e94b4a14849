"""The lattice Boltzmann kernel: against the formula and exact flows, between versions, and however it is cut."""

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brmpi.kernels import boltzmann, opencl


@functools.cache
def lacking():
    try:
        opencl.devices()
    except opencl.Unavailable as reason:
        return str(reason)
    return ""


def need(name):
    if name == "opencl" and lacking():
        pytest.skip(lacking())


every = pytest.mark.parametrize("name", ("numpy", "numba", "opencl"))
lattices = pytest.mark.parametrize("d", [2, 3])
magics = pytest.mark.parametrize("magic", [None, 3 / 16])
INNER = (slice(None), *(slice(1, -1),) * 2), (slice(None), *(slice(1, -1),) * 3)


def inner(f):
    return f[INNER[f.ndim - 3]]


def lattice(d):
    return boltzmann.D2Q9 if d == 2 else boltzmann.D3Q19


def wrapped(f):
    return np.pad(inner(f), [(0, 0), *[(1, 1)] * (f.ndim - 1)], mode="wrap")


def after(f, steps, *args, name="numba", **options):
    """Populations after steps in a periodic box; their halo is filled."""
    f = wrapped(f)
    for _ in range(steps):
        out = np.zeros_like(f)
        boltzmann.step(f, out, *args, backend=name, **options)
        f = wrapped(out)
    return f


def fluid(shape, dtype=np.float64, seed=1, noise=0.02):
    """Random populations near equilibrium; shape is with the halo."""
    rng, d = np.random.default_rng(seed), len(shape)
    rho, u = 1 + 0.1 * rng.random(shape), 0.05 * rng.normal(size=(d, *shape))
    f = boltzmann.equilibrium(rho, u)
    return (f * (1 + noise * rng.random(f.shape))).astype(dtype)


def obstacles(shape, seed=1):
    rng = np.random.default_rng(seed)
    solid = rng.integers(1, 3, shape) * (rng.random(shape) < 0.2)
    return solid.astype(np.uint8), 0.05 * rng.normal(size=(2, len(shape)))


def by_formula(f, tau, magic, force, solid, walls):
    """One step as the module's docstring writes it, cell by cell, in extended precision."""
    c, w = lattice(f.ndim - 1)
    f, force, w = f.astype(np.longdouble), np.asarray(force, np.longdouble), w.astype(np.longdouble)
    odd = tau if magic is None else 0.5 + magic / (tau - 0.5)
    out = f.copy()
    opposite = [next(j for j in range(len(w)) if (c[j] == -c[i]).all()) for i in range(len(w))]
    for x in np.ndindex(*(n - 2 for n in f.shape[1:])):
        x = np.array(x) + 1
        if solid[tuple(x)]:
            continue
        g = np.empty(len(w), np.longdouble)
        for i in range(len(w)):
            y = tuple(x - c[i])
            g[i] = f[(i, *y)] if not solid[y] else f[(opposite[i], *x)] + 6 * w[i] * c[i] @ walls[solid[y] - 1]
        rho = g.sum()
        u = (c.T @ g + force / 2) / rho
        e = w * rho * (1 + 3 * c @ u + 4.5 * (c @ u) ** 2 - 1.5 * u @ u)
        push = w * (3 * (c - u) @ force + 9 * (c @ u) * (c @ force))
        for sign, time in ((1, tau), (-1, odd)):
            part = (g - e + sign * (g - e)[opposite]) / 2
            gain = (push + sign * push[opposite]) / 2
            g = g - part / time + (1 - 1 / (2 * time)) * gain
        out[(slice(None), *x)] = g
    return out.astype(float)


@lattices
def test_lattices_are_isotropic_to_fourth_order_and_paired(d):
    c, w = lattice(d)
    one = np.eye(d)
    assert np.isclose(w.sum(), 1) and np.allclose(np.einsum("i,ia,ib", w, c, c), one / 3)
    delta = np.einsum("ab,ce->abce", one, one)
    fourth = (delta + delta.transpose(0, 2, 1, 3) + delta.transpose(0, 3, 2, 1)) / 9
    assert np.allclose(np.einsum("i,ia,ib,ic,ie", w, c, c, c, c), fourth)
    assert (c[lattice(d).opposite] == -c).all() and len(np.unique(c, axis=0)) == len(w)


@every
@magics
@pytest.mark.parametrize("shape", [(6, 9), (3, 4), (5, 4, 7)])
def test_against_the_formula(shape, magic, name):
    need(name)
    f, (solid, walls), force = fluid(shape), obstacles(shape), 1e-3 * np.arange(1, len(shape) + 1)
    exact = by_formula(f, 0.8, magic, force, solid, walls)
    out = f.copy()
    boltzmann.step(f, out, 0.8, magic, force, solid, walls, backend=name)
    assert abs(out - exact).max() < 1e-15
    assert (out[:, 0] == f[:, 0]).all() and (out[..., -1] == f[..., -1]).all()


extents = st.one_of(st.integers(0, 3), st.integers(4, 40), st.sampled_from([127, 128, 129, 511, 512, 513, 600]))


@pytest.mark.parametrize("name", ["numba", "opencl"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_versions_agree(dtype, name, data):
    need(name)
    d = data.draw(st.sampled_from([2, 3]))
    shape = [n + 2 for n in data.draw(st.tuples(*[st.integers(0, 5)] * (d - 1), extents))]
    magic = data.draw(st.sampled_from([None, 0.25]))
    f, options = fluid(shape, dtype), {"force": 1e-3 * np.arange(1, d + 1)}
    if data.draw(st.booleans()):
        options["solid"], options["walls"] = obstacles(shape)
    outs = [f.copy(), f.copy()]
    for out, version in zip(outs, ["numpy", name]):
        boltzmann.step(f, out, 0.6, magic, **options, backend=version)
    limit = (4 if name == "numba" else 8) * np.finfo(dtype).eps
    assert abs(outs[0] - outs[1]).max() <= limit
    assert outs[1].dtype == dtype and (min(shape) == 2 or not np.array_equal(outs[1], f) or "solid" in options)
    for a, b in zip(*(boltzmann.moments(f, options["force"], version) for version in ("numpy", name))):
        assert a.shape == b.shape and a.dtype == dtype and abs(a - b).max(initial=0) <= 4 * np.finfo(dtype).eps


@pytest.mark.parametrize("name", ["numba", "opencl"])
def test_versions_agree_on_a_large_box_over_many_steps(name):
    need(name)
    f = fluid((32, 32, 34))
    runs = [after(f, 20, 0.55, 0.25, force=(1e-5, 0, 0), name=version) for version in ("numpy", name)]
    assert abs(runs[0] - runs[1]).max() < 1e-14


@every
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_cutting_rows_changes_no_bit(name, data):
    need(name)
    d = data.draw(st.sampled_from([2, 3]))
    n = data.draw(st.integers(1, 9))
    shape = (n + 2, 533) if d == 2 else (n + 2, 5, data.draw(st.sampled_from([5, 21, 140])))
    f, (solid, walls) = fluid(shape, np.float32), obstacles(shape)
    solid[n // 2 :] = 0  # parts without walls, too
    whole, pieces = np.zeros_like(f), np.zeros_like(f)
    boltzmann.step(f, whole, 0.6, 0.25, (1e-3,) * d, solid, walls, backend=name)
    cuts = [0, *sorted(data.draw(st.lists(st.integers(0, n), max_size=4))), n]
    for a, b in zip(cuts, cuts[1:]):  # noqa: RUF007
        boltzmann.step(f, pieces, 0.6, 0.25, (1e-3,) * d, solid, walls, slice(a, b), name)
    assert pieces.tobytes() == whole.tobytes() and whole.any()


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@lattices
def test_a_cell_has_the_same_bits_wherever_it_lies_in_a_row(d, dtype):
    shape = (5, 700) if d == 2 else (4, 4, 700)
    f, (solid, walls) = fluid(shape, dtype), obstacles(shape)
    solid[..., :400] = 0
    out = np.zeros_like(f)
    boltzmann.step(f, out, 0.6, 0.25, None, solid, walls)
    for first, last in ((1, 20), (123, 300), (390, 471), (509, 523), (600, 700)):
        part = np.ascontiguousarray(f[..., first:last])
        found = np.zeros_like(part)
        boltzmann.step(part, found, 0.6, 0.25, None, np.ascontiguousarray(solid[..., first:last]), walls)
        assert inner(found).tobytes() == inner(out[..., first:last]).tobytes()


@every
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_steps_in_place_have_the_bits_of_those_from_array_to_array(name, data):
    """There and home again in a periodic box, rows in any order."""
    need(name)
    d, dtype = data.draw(st.sampled_from([2, 3])), data.draw(st.sampled_from([np.float64, np.float32]))
    shape = [n + 2 for n in data.draw(st.tuples(*[st.integers(1, 5)] * (d - 1), extents.filter(bool)))]
    order = data.draw(st.permutations(range(shape[0] - 2)))
    args = (0.6, data.draw(st.sampled_from([None, 0.25])), (1e-3,) * d)
    solid, walls = None, None
    if data.draw(st.booleans()):
        solid, walls = obstacles([n - 2 for n in shape])
        solid = np.pad(solid, 1, mode="wrap")
    flowing = np.ones([n - 2 for n in shape], bool) if solid is None else inner(solid[None])[0] == 0
    one = wrapped(fluid(shape, dtype))
    place, expected = one.copy(), []
    for _ in range(2):
        out = one.copy()
        boltzmann.step(one, out, *args, solid, walls, backend=name)
        expected.append(inner(out)[:, flowing].tobytes())
        one = wrapped(out)
    for row in order:
        boltzmann.step_in_place(place, False, *args, solid, walls, slice(row, row + 1), name)
    left = inner(boltzmann.home(place))
    assert left[:, flowing].tobytes() == expected[0]
    for i, back in enumerate(lattice(d).opposite):
        inner(place)[back] = np.roll(left[i], lattice(d).c[i], range(d))
    for row in order:
        boltzmann.step_in_place(place, True, *args, solid, walls, slice(row, row + 1), name)
    assert inner(place)[:, flowing].tobytes() == expected[1]


@every
@magics
@lattices
def test_a_periodic_box_keeps_mass_and_momentum_and_a_force_adds_to_it(d, magic, name):
    need(name)
    f, force = fluid((7, 9, 8)[:d]), np.array([1e-3, -2e-3, 3e-3])[:d]
    c = lattice(d).c
    cells = inner(f)[0].size
    flat = inner(f).reshape(len(c), -1)
    for push in (None, force):
        last = inner(after(f, 10, 0.7, magic, push, name=name)).reshape(len(c), -1)
        gain = (c.T @ (last - flat)).sum(axis=1) - (0 if push is None else 10 * cells * push)
        assert abs(last.sum() - flat.sum()) < 1e-14 * flat.sum() and abs(gain).max() < 1e-14 * flat.sum()


@every
@lattices
def test_walls_at_rest_keep_mass_and_solid_cells_keep_what_they_have(d, name):
    need(name)
    f = fluid((9, 10, 8)[:d])
    solid = np.pad(obstacles([n - 2 for n in f.shape[1:]])[0], 1, mode="wrap")
    f[:, solid > 0] = np.nan
    last = after(f, 10, 0.7, None, None, solid, name=name)
    fluid_cells = inner(solid[None])[0] == 0
    masses = [inner(one)[:, fluid_cells].sum() for one in (f, last)]
    assert abs(masses[1] - masses[0]) < 1e-14 * masses[0]
    assert np.isnan(inner(last)[:, ~fluid_cells]).all() and not np.isnan(inner(last)[:, fluid_cells]).any()


@every
@magics
@lattices
def test_uniform_flow_stays(d, magic, name):
    need(name)
    shape = (6, 5, 7)[:d]
    u = np.broadcast_to(np.array([0.05, -0.03, 0.08])[:d].reshape(-1, *[1] * d), (d, *shape))
    f = boltzmann.equilibrium(np.full(shape, 1.1), u)
    assert abs(after(f, 50, 0.6, magic, name=name) - f).max() < 1e-14
    rho, found = boltzmann.moments(f, backend=name)
    assert abs(rho - 1.1).max() < 1e-15 and abs(found - inner(u)).max() < 1e-15


def decay(n, d, tau, magic, name):
    """Rate at which Taylor and Green's vortices in the last two axes die out, over what the viscosity gives."""
    k = 2 * np.pi / n
    x, y = np.meshgrid(*[k * (np.arange(-1, n + 1) + 0.5)] * 2, indexing="ij")
    u = np.zeros((d, *(4,) * (d - 2), n + 2, n + 2))
    u[-2], u[-1] = np.sin(x) * np.cos(y), -np.cos(x) * np.sin(y)
    f = boltzmann.equilibrium(np.ones(u.shape[1:]), 1e-4 * u)
    flows = []
    for _ in range(2):
        f = after(f, n * n // 8, tau, magic, name=name)
        flows.append(abs(boltzmann.moments(f, backend=name)[1]).max())
    return np.log(flows[0] / flows[1]) / (n * n // 8) / (2 * k * k * (tau - 0.5) / 3)


@magics
@lattices
def test_vortices_decay_with_the_viscosity_to_second_order(d, magic):
    errors = [abs(decay(n, d, 0.8, magic, "numba") - 1) for n in (32, 64)]
    assert errors[1] < 1e-3 and 3.5 < errors[0] / errors[1] < 4.5


def channel(d, axis, width):
    """Cells between two walls across an axis, as an array with halo, and where they lie, from -1 to 1."""
    shape = [5] * d
    shape[axis] = width + 2
    solid = np.zeros(shape, np.uint8)
    np.moveaxis(solid, axis, 0)[0], np.moveaxis(solid, axis, 0)[-1] = 1, 2
    return solid, (np.arange(width) + 0.5) * 2 / width - 1


def between(f, steps, solid, axis, *args, **options):
    """Steps in a box that is periodic along the walls."""
    for _ in range(steps):
        out = np.zeros_like(f)
        boltzmann.step(f, out, *args, solid=solid, **options)
        pads = [(0, 0), *[(int(k == axis),) * 2 if k == axis else (1, 1) for k in range(f.ndim - 1)]]
        f = np.pad(inner(out), pads, mode="wrap")
    return f


@pytest.mark.parametrize(("d", "axis"), [(2, 0), (2, 1), (3, 0), (3, 1), (3, 2)])
def test_poiseuille_flow_is_exact_with_the_magic_number(d, axis):
    width, tau, along = 7, 1.1, (axis + 1) % d
    solid, y = channel(d, axis, width)
    force = np.where(np.arange(d) == along, 1e-5, 0)
    exact = 1e-5 * (width / 2) ** 2 * (1 - y**2) / (2 * (tau - 0.5) / 3)
    start = boltzmann.equilibrium(np.ones(solid.shape), np.zeros((d, *solid.shape)))
    errors = []
    for magic in (3 / 16, None):
        f = between(start, 1200, solid, axis, tau, magic, force)
        u = np.moveaxis(boltzmann.moments(f, force)[1], axis + 1, -1)
        errors.append(abs(u[along] - exact).max() / exact.max())
        assert abs(np.delete(u, along, axis=0)).max() < 1e-15
    assert errors[0] < 1e-11 and errors[1] > 1e-3


@every
@lattices
def test_a_moving_wall_drags_the_fluid_in_a_straight_profile(d, name):
    need(name)
    solid, y = channel(d, 0, 6)
    walls = np.zeros((2, d))
    walls[:, -1] = -0.01, 0.03
    start = boltzmann.equilibrium(np.ones(solid.shape), np.zeros((d, *solid.shape)))
    f = between(start, 900, solid, 0, 1.1, 0.25, walls=walls, backend=name)
    rho, u = boltzmann.moments(f)
    assert abs(np.moveaxis(u[-1], 0, -1) - (0.01 + 0.02 * y)).max() < 1e-14 and abs(rho - 1).max() < 1e-13


@pytest.mark.parametrize("loop", ["d2q9", "d3q19"])
@pytest.mark.parametrize("kind", ["double", "float"])
def test_the_loop_computes_in_vectors(kind, loop):
    """Compiled anew, as what comes from disk shows no code: a promise on memory that LLVM no longer knew costs half."""
    import re

    from numba import float32, float64, int64, njit

    from brmpi.kernels import boltzmann_numba
    from brmpi.kernels.compiled import LOOP

    real = (float64 if kind == "double" else float32)[::1]
    types = (real, int64[::1], real, int64[::1], int64, int64, real)
    code = njit(types, **LOOP)(getattr(boltzmann_numba, loop).py_func)
    assert re.search(rf"fdiv <\d+ x {kind}>", next(iter(code.inspect_llvm().values())))


def test_a_device_without_float64_is_told(monkeypatch):
    need("opencl")
    monkeypatch.setattr(opencl.Device, "has_float64", False)
    f = fluid((4, 5))
    with pytest.raises(opencl.Unavailable, match="float64"):
        boltzmann.step(f, np.zeros_like(f), 0.7, backend="opencl")


@pytest.mark.parametrize(("change", "words"), [
    ({"tau": 0.5}, "tau = 0.5: must be > 0.5"),
    ({"tau": float("nan")}, "tau = nan"),
    ({"magic": 0}, "magic = 0: must be > 0"),
    ({"force": [1, 2, 3]}, r"force has shape \(3,\): must be \(2,\)"),
    ({"backend": "cuda"}, "backend = 'cuda'"),
    ({"rows": slice(0, 2, 2)}, "step must be 1"),
    ({"f": np.zeros((8, 4, 5))}, r"\(8, 4, 5\)"),
    ({"f": np.zeros((9, 1, 5))}, r"\(9, 1, 5\)"),
    ({"f": np.zeros((9, 4, 5), int)}, "int64"),
    ({"f": np.zeros((9, 5, 4)).transpose(0, 2, 1)}, "not C-contiguous"),
    ({"out": np.zeros((9, 4, 6))}, r"\(9, 4, 6\)"),
    ({"out": np.zeros((9, 4, 5), np.float32)}, "float32"),
    ({"solid": np.zeros((4, 5))}, "solid is .*float64"),
    ({"solid": np.zeros((4, 6), np.uint8)}, r"\(4, 6\)"),
    ({"solid": np.full((4, 5), 3, np.uint8), "walls": np.zeros((2, 2))}, "wall number 3: walls has 2"),
    ({"walls": np.zeros((2, 3))}, r"walls has shape \(2, 3\)"),
])
def test_wrong_arguments(change, words):
    good = {"f": fluid((4, 5)), "out": np.zeros((9, 4, 5)), "tau": 0.7}
    boltzmann.step(**good)
    with pytest.raises(ValueError, match=words):
        boltzmann.step(**good | change)


def test_wrong_arguments_of_the_others():
    f = fluid((4, 5))
    with pytest.raises(ValueError, match="overlaps"):
        boltzmann.step(f, f, 0.7)
    with pytest.raises(ValueError, match=r"force has shape \(1,\)"):
        boltzmann.moments(f, [1.0])
    with pytest.raises(ValueError, match=r"rho has shape \(4,\)"):
        boltzmann.equilibrium(np.ones(4), np.zeros((2, 4)))
