"""Shallow water: dam breaks, a lake at rest, a bowl, waves, friction: exact solutions; any ranks the same bits."""

import functools
import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from conftest import made

from brmpi import case, mpi, speeds
from brmpi.errors import BadInput, Fault
from brmpi.kernels import shallow as kernel
from brmpi.results import diagnostics, snapshots
from brmpi.sims import shallow

ROOT = Path(__file__).parents[1]
simulation = functools.partial(made, shallow.Shallow)
G = 9.81


def inside(run):
    return run.grid.inside(run.q).copy()


def mountains(tmp_path, shape, low=-3.0, high=1.5, seed=3):
    """A file of a rough bottom, some of it above the water; its path."""
    path = tmp_path / "mountains.npy"
    np.save(path, np.random.default_rng(seed).uniform(low, high, shape))
    return {"bathymetry": "file", "bathymetry_file": str(path)}


# ---- exact solutions -----------------------------------------------------------------------------------------------


def ritter(speed, high):
    """Depth and velocity where x / t is speed, of water that runs over a dry bed (Ritter 1892)."""
    c = np.sqrt(G * high)
    fan = (speed > -c) & (speed < 2 * c)
    h = np.where(speed <= -c, high, np.where(fan, (2 * c - speed) ** 2 / (9 * G), 0))
    return h, np.where(fan, 2 / 3 * (speed + c), 0)


def stoker(speed, high, low):
    """The same over a wet bed: a bore runs ahead (Stoker 1957)."""
    from scipy.optimize import brentq

    c = np.sqrt(G * high)
    middle = brentq(lambda h: 2 * (c - np.sqrt(G * h)) - (h - low) * np.sqrt(G / 2 * (h + low) / (h * low)), low, high)
    u = 2 * (c - np.sqrt(G * middle))
    tail, bore = u - np.sqrt(G * middle), middle * u / (middle - low)
    h = np.select([speed <= -c, speed < tail, speed < bore], [high, (2 * c - speed) ** 2 / (9 * G), middle], low)
    return h, np.select([speed <= -c, speed < tail, speed < bore], [0, 2 / 3 * (speed + c), u], 0)


@pytest.mark.parametrize(("low", "order", "error", "slope"), [
    (0.0, 1, 0.0100, 0.5), (0.0, 2, 0.0018, 0.95), (0.5, 1, 0.0095, 0.7), (0.5, 2, 0.0019, 0.85)])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_dam_breaks_as_ritter_and_stoker_say(alone, low, order, error, slope, axis):
    """L1 errors of depth and of momentum fall about as dx at second order, shocks and fronts included."""
    found = []
    for n in (100, 200, 400):
        cells, size, ends = (n, 1), (20.0, 1.0), ("open", "wall")
        run = simulation(alone, cells=cells, size=size, ends=ends, initial="dam", centre=(10.0, 0.0), level=low,
                         amplitude=2.0 - low, profile_x=(0.0,), profile_b=(0.0,), dt=1 / n, order=order, dry=1e-8)
        if axis:  # the same along y
            start = inside(run)
            run = simulation(alone, cells=cells[::-1], size=size[::-1], ends=ends[::-1], initial="still",
                             profile_x=(0.0,), profile_b=(0.0,), dt=1 / n, order=order, dry=1e-8)
            run.grid.inside(run.q)[0] = start[0].T
        for _ in range(n):
            run.step()
        assert run.sample()["step_courant"] <= kernel.LIMIT
        x = (np.arange(n) + 0.5) * 20 / n - 10
        h, u = ritter(x, 2.0) if not low else stoker(x, 2.0, low)
        depth, *velocity = (part.ravel() for part in run.flow())
        assert depth.min() >= 0 and not velocity[1 - axis].any()
        found.append((abs(depth - h).mean(), abs(depth * velocity[axis] - h * u).mean()))
    slopes = np.diff(np.log(found), axis=0) / np.log(0.5)
    assert found[-1][0] < error and (slopes > slope).all(), (found, slopes)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("ends", list(itertools.product(shallow.ENDS, repeat=2)), ids=str)
def test_a_lake_rests_to_the_bit(alone, tmp_path, order, ends):
    """Rough ground, islands, dry shores and puddles: no bit of the level changes, and nothing moves."""
    run = simulation(alone, cells=(40, 30), size=(40.0, 45.0), ends=ends, order=order, level=0.1, initial="still",
                     dt=0.03, manning=0.03, **mountains(tmp_path, (30, 40)))
    before = inside(run)
    wet = before[0] == 0.1
    assert 0.5 < wet.mean() < 0.9
    for _ in range(50):
        run.step()
    assert inside(run).tobytes() == before.tobytes() and not before[1:].any()
    row = run.sample()
    assert row["fastest"] == 0 and row["energy"] == 0 and row["highest"] == 0.1
    assert row["runup"] == run.grid.inside(run.bottom)[wet].max()


@pytest.mark.parametrize("order", [1, 2])
def test_the_shore_goes_round_in_a_bowl(alone, order):
    """After a turn the water is where it was (Thacker 1981), the nearer the finer the grid; half way it is opposite."""
    depth, radius, away = 10.0, 3000.0, 600.0
    turn = 2 * np.pi * radius / np.sqrt(2 * G * depth)
    found = []
    for n in (32, 64):
        steps = 12 * n
        run = simulation(alone, cells=(n, n), size=(8000.0, 8000.0), ends=("wall", "wall"), bathymetry="bowl",
                         depth=depth, radius=radius, initial="planar", amplitude=away, dt=turn / steps, order=order)
        volume = run.sample()["volume"]
        y, x = (at - 4000 for at in run.centres())
        for step in range(1, steps + 1):
            run.step()
            if step % (steps // 2) == 0:
                level, _, _ = shallow.planar(x, y, depth, radius, away, G, step * run.case.dt)
                exact = np.maximum(level - run.grid.inside(run.bottom), 0)
                h, _, _ = run.flow()
                assert h.min() >= 0
                found.append(abs(h - exact).sum() / exact.sum())
        assert run.sample()["volume"] == pytest.approx(volume, rel=1e-13)
        centre = (x * h).sum() / h.sum() / away, (y * h).sum() / h.sum() / away
        assert np.hypot(centre[0] - 1, centre[1]) < {1: 0.6, 2: 0.05}[order], centre
    assert found[1] < {1: 0.18, 2: 0.02}[order] and found[3] < found[1] / {1: 1.6, 2: 2.6}[order], found


@pytest.mark.parametrize("order", [1, 2])
def test_order_of_convergence(alone, order):
    """A simple wave, which steepens: h and u go along characteristics of speed 3 c - 2 c0."""
    c0 = np.sqrt(G)

    def exact(n, time, fine=8):
        x = (np.arange(fine * n) + 0.5) * 100 / (fine * n)
        start = x.copy()
        for _ in range(100):
            c = np.sqrt(G * (1 + 0.05 * np.sin(2 * np.pi * start / 100)))
            start = x - (3 * c - 2 * c0) * time
        c = np.sqrt(G * (1 + 0.05 * np.sin(2 * np.pi * start / 100)))
        h = c**2 / G
        return (each.reshape(n, fine).mean(1) for each in (h, 2 * h * (c - c0)))

    errors = []
    for n in (64, 128, 256):
        run = simulation(alone, cells=(n, 1), size=(100.0, 1.0), ends=("periodic", "periodic"), initial="still",
                         profile_x=(0.0,), profile_b=(-1.0,), dt=5 / n, order=order)
        h, hu = exact(n, 0.0)
        run.grid.inside(run.q)[0], run.grid.inside(run.q)[1] = h - 1, hu
        for _ in range(2 * n):
            run.step()
        h, _ = exact(n, 10.0)
        errors.append(abs(run.flow()[0][0] - h).mean())
    slopes = np.diff(np.log(errors)) / np.log(0.5)
    assert (abs(slopes - order) < 0.15).all(), slopes


def test_friction_slows_a_current_as_it_should(alone):
    """du/dt = -g n^2 u |u| / h^(4/3) has the solution u / (1 + k |u| t), which the scheme has, too."""
    run = simulation(alone, cells=(3, 4), ends=("periodic", "periodic"), initial="still", profile_x=(0.0,),
                     profile_b=(-2.0,), manning=0.04, dt=5.0)
    run.grid.inside(run.q)[1:] = 2 * np.array([3.0, -4.0])[:, None, None]
    for _ in range(40):
        run.step()
    left = 1 / (1 + G * 0.04**2 / 2 ** (4 / 3) * 5.0 * 200.0)
    _, u, v = run.flow()
    np.testing.assert_allclose(u, 3 * left, rtol=1e-12)
    np.testing.assert_allclose(v, -4 * left, rtol=1e-12)


def test_open_ends_let_waves_out_and_walls_do_not(alone):
    left = {}
    for kind in ("open", "wall"):
        run = simulation(alone, cells=(60, 60), size=(6e4, 6e4), ends=(kind, kind), initial="hump", amplitude=1.0,
                         centre=(3e4, 3e4), width=(4e3, 4e3), profile_x=(0.0,), profile_b=(-1000.0,), dt=2.4)
        before = run.sample()
        for _ in range(400):
            run.step()
        after = run.sample()
        left[kind] = after["energy"] / before["energy"]
        assert run.columns["volume"].conserved == (kind == "wall")
        assert kind == "open" or after["volume"] == pytest.approx(before["volume"], rel=1e-13)
    assert left["open"] < 0.01 and 0.5 < left["wall"] <= 1


# ---- symmetry, positivity, the kernel ------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [1, 2])
def test_no_direction_is_preferred(alone, tmp_path, order):
    """A transposed problem has the transposed result, a mirrored one the mirrored, to the bit."""
    ground = np.random.default_rng(1).uniform(-2, 1, (24, 31))
    results = []
    for turn in (lambda a: a, np.transpose, lambda a: a[..., ::-1], lambda a: a[..., ::-1, :]):
        bottom = turn(ground)
        np.save(tmp_path / "ground.npy", bottom)
        n = bottom.shape[::-1]
        run = simulation(alone, cells=n, size=tuple(map(float, n)), ends=("wall", "wall"), order=order, dt=0.02,
                         initial="still", bathymetry="file", bathymetry_file=str(tmp_path / "ground.npy"), manning=0.02)
        level = np.zeros_like(ground)
        level[3:12, 5:14] = 2.0
        run.grid.inside(run.q)[0] = np.maximum(turn(level), bottom)
        for _ in range(60):
            run.step()
        results.append(inside(run))
    (w, hu, hv), turned, across, along = results
    assert abs(hu).max() > 0.1 and run.sample()["step_courant"] <= kernel.LIMIT
    for found, expected in ((turned, (w.T, hv.T, hu.T)), (across, (w[:, ::-1], -hu[:, ::-1], hv[:, ::-1])),
                            (along, (w[::-1], hu[::-1], -hv[::-1]))):
        for one, other in zip(found, expected):
            assert np.array_equal(one, other)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("manning", [0.0, 0.05])
def test_water_that_falls_on_mountains_stays_whole(alone, tmp_path, order, manning):
    run = simulation(alone, cells=(50, 40), size=(50.0, 40.0), ends=("wall", "periodic"), order=order, dt=0.008,
                     initial="column", centre=(20.0, 15.0), width=(8.0, 1.0), amplitude=6.0, level=-1.0, dry=1e-6,
                     manning=manning, **mountains(tmp_path, (40, 50), 0.0, 4.0))
    before, dry = run.sample(), run.flow()[0] == 0
    assert 0 < dry.mean() < 1
    for _ in range(600):
        run.step()
        assert (run.flow()[0] >= 0).all()
    after = run.sample()
    assert after["volume"] == pytest.approx(before["volume"], rel=1e-13)
    assert after["energy"] < before["energy"] and after["wet"] > 1.5 * before["wet"]


def arrays(order, n, m, seed=1):
    rng = np.random.default_rng(seed)
    shape = (n + 2 * order, m + 2 * order)
    b = rng.uniform(-3, 1, shape)
    w = np.maximum(b, rng.uniform(-1, 0.5, shape))
    q = np.stack([w, *rng.normal(size=(2, *shape)) * (w - b > 1e-3)])
    return q, b, rng.uniform(1, 2, q.shape)


def step(a, order, backend, rows=None, **keys):
    q, b, out = a[0], a[1], a[2].copy()
    fastest = kernel.step(q, b, out, 0.01, (1.0, 1.3), G, 1e-3, order, backend=backend, rows=rows, **keys)
    return out, fastest


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("average", [False, True])
@pytest.mark.parametrize("manning", [0.0, 0.03])
def test_versions_and_cuts_give_the_same_bits(order, average, manning):
    keys = {"average": average, "manning": manning}
    for n, m in ((1, 1), (1, 300), (3, 5), (40, 259), (70, 33), (9, 256), (0, 4), (4, 0)):
        a = arrays(order, n, m)
        whole, fastest = step(a, order, "numpy", **keys)
        inner = (slice(None), slice(order, order + n), slice(order, order + m))
        edge = np.ones(whole.shape, bool)
        edge[inner] = False
        assert (whole[edge] == a[2][edge]).all() and (whole[inner] != a[2][inner]).all()
        found, waves = step(a, order, "numba", **keys)
        assert found.tobytes() == whole.tobytes() and waves == fastest
        for backend, cuts in itertools.product(("numpy", "numba", "opencl"), ((0, n // 3, n), (0, 1, n // 2, n))):
            cut, most = a[2].copy(), (0.0, 0.0)
            for first, last in itertools.pairwise(sorted(min(place, n) for place in cuts)):
                part, waves = step((a[0], a[1], cut), order, backend, slice(first, last), **keys)
                cut, most = part, np.maximum(most, waves)
            assert cut.tobytes() == whole.tobytes() and tuple(most) == fastest
        for columns in ((0, m // 3), (m // 3, m)):  # as blocks of other ranks
            part = tuple(np.ascontiguousarray(each[..., columns[0] : columns[1] + 2 * order]) for each in a)
            found, _ = step(part, order, "numba", **keys)
            assert found[inner[:2]][..., order : found.shape[2] - order].tobytes() == np.ascontiguousarray(
                whole[inner[:2]][..., order + columns[0] : order + columns[1]]).tobytes()


def test_cube_roots():
    h = np.logspace(-9, 5, 1000)
    np.testing.assert_allclose(kernel._cube_root(h), np.cbrt(h), rtol=1e-15)


def test_wrong_arguments():
    q, b, out = arrays(2, 4, 5)
    good = {"dt": 0.1, "spacing": (1.0, 1.0), "gravity": G, "dry": 1e-3}
    bad = [
        (lambda: kernel.step(q, b, out, **good, order=3), "order = 3"),
        (lambda: kernel.step(q[:2], b, out, **good), r"q is float64 \(2, 8, 9\)"),
        (lambda: kernel.step(q[:, :3].copy(), b, out, **good), r"must be an array of \(3, n \+ 4, m \+ 4\)"),
        (lambda: kernel.step(q.astype(np.float32), b, out, **good), "q is float32"),
        (lambda: kernel.step(q, b[1:], out, **good), r"b is float64 \(7, 9\)"),
        (lambda: kernel.step(q, b, out[..., ::-1], **good), "strides"),
        (lambda: kernel.step(q, b, q, **good), "out shares memory"),
        (lambda: kernel.step(q, b, np.frombuffer(bytes(q.nbytes)).reshape(q.shape), **good), "read-only"),
        (lambda: kernel.step(q, b, out, **good | {"dt": 0.0}), "dt = 0.0: must be finite and > 0"),
        (lambda: kernel.step(q, b, out, **good | {"spacing": (1.0, -1.0)}), "dx = -1.0"),
        (lambda: kernel.step(q, b, out, **good, manning=float("nan")), "manning = nan"),
        (lambda: kernel.step(q, b, out, **good, rows=slice(0, 4, 2)), "step 1"),
        (lambda: kernel.step(q, b, out, **good, backend="cuda"), "cuda"),
    ]
    before = out.copy()
    for call, words in bad:
        with pytest.raises(ValueError, match=words):
            call()
    assert (out == before).all()


def test_the_loops_compute_in_vectors():
    """Compiled anew, as what comes from disk shows no code."""
    from numba import boolean, float64, int64, njit, types

    from brmpi.kernels import shallow_numba
    from brmpi.kernels.compiled import LOOP

    row = types.Array(float64, 1, "C")
    four = types.UniTuple(row, 4)
    signatures = {
        "still": (row, row, int64, int64, row, row, row, int64, int64, float64),
        "slopes": (row, int64, int64, row, row, row, int64, int64, int64, row, row, row, row, int64, int64, float64),
        "faces": (row, int64, int64, row, row, row, int64, int64, four, int64, int64, row, row, row, row, int64, row,
                  int64, float64, float64),
        "cells": (row, row, row, int64, int64, row, int64, row, int64, row, int64, four, int64, four, int64, int64,
                  types.UniTuple(float64, 5), boolean, int64)}
    for name, signature in signatures.items():
        code = next(iter(njit(signature, **LOOP)(getattr(shallow_numba, name).py_func).inspect_llvm().values()))
        assert re.search(r"f(sub|mul) <\d+ x double>", code), name


# ---- ranks, files, the command line --------------------------------------------------------------------------------


@pytest.mark.mpi
@pytest.mark.parametrize("keys", [
    {}, {"order": 1}, {"ends": ("periodic", "open"), "manning": 0.03}, {"cells": (1, 1)}, {"cells": (3, 2)},
    {"cells": (23, 4), "ends": ("wall", "periodic")}, {"cells": (2, 40), "ends": ("open", "periodic")},
    {"bathymetry": "bowl", "initial": "planar", "depth": 8.0, "radius": 12.0, "amplitude": 3.0,
     "ends": ("wall", "wall")},
], ids=str)
@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_any_ranks_and_shares_give_the_same_bits(comm, assert_all, monkeypatch, keys, backend):
    from mpi4py import MPI

    keys = {"cells": (41, 29), "size": (41.0, 29.0), "ends": ("wall", "open"), "initial": "column",
            "centre": (20.0, 9.0), "width": (8.0, 1.0), "amplitude": 3.0, "profile_x": (15.0, 30.0),
            "profile_b": (-2.0, 2.5), "island": 4.0, "island_centre": (9.0, 12.0), "island_width": 3.0,
            "dt": 0.02, **keys}
    keys |= {"island": 0.0} if keys["initial"] == "planar" else {}
    one = simulation(MPI.COMM_SELF, backend, **keys)
    many = [simulation(comm, backend, **keys)]
    for trial in range(2):
        uneven = np.random.default_rng(trial).uniform(0.2, 3, comm.size)
        monkeypatch.setattr(speeds, "measured", lambda comm, kind, uneven=uneven: (uneven, kind))
        many.append(simulation(comm, backend, **keys))
    for _ in range(12):
        one.step()
    expected, told = inside(one), one.sample()
    for run in many:
        for _ in range(12):
            run.step()
        here = (slice(None), *(slice(first, end) for first, end in run.grid.box))
        assert_all(inside(run).tobytes() == expected[here].tobytes(), "state")
        found = run.sample()
        assert_all(found == told, f"{found} {told}")


@pytest.mark.mpi
def test_a_bottom_from_a_file_on_any_ranks(comm, assert_all, tmp_path):
    ground = np.random.default_rng(2).uniform(-5, 1, (13, 11))
    path = comm.bcast(str(tmp_path / "ground.npy"))
    if comm.rank == 0:
        np.save(path, ground.astype(np.float32))
    run = simulation(comm, cells=(11, 13), size=(11.0, 13.0), initial="still", bathymetry="file", bathymetry_file=path)
    here = tuple(slice(first, end) for first, end in run.grid.box)
    assert_all(np.array_equal(run.grid.inside(run.bottom), ground.astype(np.float32)[here]), "bottom")
    if comm.rank == 0:
        np.save(path, ground[1:])
    with pytest.raises(BadInput, match=r"has shape \(12, 11\): must be \(13, 11\)"):
        simulation(comm, cells=(11, 13), size=(11.0, 13.0), bathymetry="file", bathymetry_file=path)


def test_waves_that_become_too_fast_stop_the_run(alone, launch):
    keys = {"cells": (100, 1), "size": (20.0, 1.0), "ends": ("open", "wall"), "initial": "dam", "centre": (10.0, 0.0),
            "level": 0.5, "amplitude": 1.5, "profile_x": (0.0,), "profile_b": (0.0,)}
    run = simulation(alone, dt=0.021, **keys)  # the water runs at 2.3 m/s soon, and waves on it at more
    with pytest.raises(Fault, match=r"step [1-9]\d*: dt = 0.021 s: must be <= 0.01\d+ s, for waves of up to 5.\d+ m/s"):
        for _ in range(50):
            run.step()
    stable = kernel.LIMIT * 0.2 / np.sqrt(2 * G)
    assert simulation(alone, dt=stable * 0.9999, **keys).sample()["step_courant"] < kernel.LIMIT
    with pytest.raises(Fault, match=f"^dt = {stable * 1.0001:g} s: must be <= 0.0225"):
        simulation(alone, dt=stable * 1.0001, **keys).sample()
    words = [f"{name}={value if isinstance(value, str) else list(value) if isinstance(value, tuple) else value}"
             for name, value in keys.items()]
    words = [word.replace("'", '"') for word in words]
    done = launch(2, "-m", "brmpi.sims.shallow", *itertools.chain(*(("--set", word) for word in words)), "--set",
                  "dt=0.021", "--steps", 300, "--out", "run")
    assert done.returncode == 1 and "dt = 0.021 s: must be <= 0.0" in done.stderr, done.stderr
    assert done.stderr.count("must be <=") == 1 and "Traceback" not in done.stderr, done.stderr


@pytest.mark.parametrize(("arguments", "words"), [
    (("dt=5",), "dt = 5 s: must be <= 3.94"), (("order=3",), "order = 3: must be <= 2"),
    (("cells=[4]",), "cells has 1 values: must have 2"), (('ends=["sponge","open"]',), "must be one of wall, open, "),
    (("profile_x=[1,1]", "profile_b=[0,0]"), "profile_x = [1.0, 1.0]: must rise"),
    (("profile_b=[0]",), "profile_b has 1 values: must have as many as profile_x, 4"),
    (("bathymetry=file",), "bathymetry_file = '': must be a file where bathymetry is file"),
    (("bathymetry_file=x.npy",), "must be a file where bathymetry is file, and here it is profile"),
    (("bathymetry=file", "bathymetry_file=nowhere.npy"), "bathymetry_file = 'nowhere.npy': cannot be read"),
    (("bathymetry=file", "bathymetry_file=hole.npy"), "bathymetry_file = 'hole.npy': 1 heights are not finite"),
    (("bathymetry=file", "bathymetry_file=words.npy"), "bathymetry_file = 'words.npy': must hold one array of numbers"),
    (("bathymetry=file", "bathymetry_file=text.npy"), "bathymetry_file = 'text.npy': cannot be read as .npy"),
    (("initial=planar",), "initial = 'planar': must be in a bowl"), (("dry=0",), "dry = 0: must be > 0"),
    (("amplitude=inf",), "amplitude = inf: must be finite"), (("gravity=-1",), "gravity = -1: must be > 0")])
def test_bad_input(alone, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    np.save("hole.npy", np.where(np.arange(96 * 128) == 7, np.nan, -1.0).reshape(96, 128))
    np.save("words.npy", np.array(["a"]))
    Path("text.npy").write_text("1 2 3\n")
    with pytest.raises((BadInput, Fault), match=re.escape(words)):
        made = case.load(shallow.Case, None, [one.split("=", 1) for one in arguments])
        shallow.Shallow(made, alone, mpi.Timers(), "numba").sample()


@pytest.mark.parametrize("arguments", [("dt=5",), ("bathymetry=file", "bathymetry_file=nowhere.npy")])
def test_bad_input_is_told_once(launch, tmp_path, arguments):
    done = launch(2, "-m", "brmpi.sims.shallow", *itertools.chain(*(("--set", one) for one in arguments)))
    assert done.returncode == 2 and done.stderr.count(arguments[-1].partition("=")[0] + " = ") == 1, done.stderr
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(("ranks", "order"), [(0, 1), (5, 2)])
def test_a_run_and_its_restart(launch, tmp_path, ranks, order):
    """Stopped half way and gone on with on other ranks, the files are those of a run that never stopped."""
    x, y = np.meshgrid(np.linspace(-2, 3, 40), np.linspace(-2, 2, 30))
    np.save(tmp_path / "ground.npy", 20 * x + 5 * y**2 - 30)
    words = ["-m", "brmpi.sims.shallow", "--quiet"]
    for one in ("cells=[40,30]", "size=[4e3,3e3]", "bathymetry=file", "bathymetry_file=ground.npy", "every=5",
                "sample=5", "dt=0.8", "initial=hump", "centre=[1e3,1e3]", "width=[500,500]", f"order={order}"):
        words += ["--set", one]
    assert launch(0, *words, "--steps", 20, "--out", "whole").returncode == 0
    assert launch(ranks, *words, "--steps", 10, "--out", "cut").returncode == 0
    done = launch(2, *words, "--steps", 20, "--out", "cut", "--restart")
    assert done.returncode == 0, done.stderr
    for number in (0, 5, 10, 15, 20):
        name = f"snapshots/shallow_{number:08d}.h5"
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes()
    one, other = (diagnostics.read(tmp_path / name / "diagnostics.h5") for name in ("whole", "cut"))
    assert all(one[name].tolist() == other[name].tolist() for name in one if not name.startswith("wall/"))
    np.save(tmp_path / "ground.npy", 20 * x + 5 * y**2 - 29)
    done = launch(2, *words, "--steps", 30, "--out", "cut", "--restart")
    assert done.returncode == 2 and "bathymetry_file = 'ground.npy': is not what the run began with" in done.stderr


@pytest.mark.parametrize("name", [file.stem for file in sorted((ROOT / "sims/shallow").glob("*.toml"))])
def test_cases_run_and_are_drawn(launch, tmp_path, name):
    done = launch(2, "-m", "brmpi.sims.shallow", ROOT / f"sims/shallow/{name}.toml", "--steps", 4, "--out", "run",
                  "--set", "every=2")
    assert done.returncode == 0 and "updates/s" in done.stdout, done.stderr
    meshes = snapshots.read(tmp_path / "run/snapshots/shallow_00000004.h5").meshes
    assert set(meshes) == {"level", "velocity", "bottom", "water_depth"} and meshes["level"].axes == ("y", "x")
    dry = np.isnan(meshes["level"].piece.data)
    assert 0 < dry.mean() < 1 and (meshes["water_depth"].piece.data[dry] < 0.1).all()
    for words in (("plot", "run"), ("plot", "run", "--movie"), ("show", "run")):
        done = launch(0, "-m", "brmpi", *words)
        assert done.returncode == 0, done.stderr


def test_what_the_cases_say_must_hold(launch, tmp_path):
    for name in ("dambreak", "bowl"):
        file = ROOT / f"sims/shallow/{name}.toml"
        assert launch(2, "-m", "brmpi.sims.shallow", file, "--out", name, "--quiet", "--steps",
                      {"dambreak": 500, "bowl": 2000}[name], "--set", "every=500").returncode == 0
        table = diagnostics.read(tmp_path / name / "diagnostics.h5")
        assert abs(table["volume"] / table["volume"][0] - 1).max() < 1e-12
        assert (np.diff(table["energy"]) <= 1e-3 * table["energy"][0]).all()
    first, last = (snapshots.read(tmp_path / f"bowl/snapshots/shallow_{number:08d}.h5").meshes["water_depth"].piece.data
                   for number in (0, 2000))
    assert abs(last - first).sum() < 2e-3 * first.sum()
    depth = snapshots.read(tmp_path / "dambreak/snapshots/shallow_00000500.h5").meshes["water_depth"].piece.data
    assert abs(depth[:, 159:161].mean(axis=1) / 4 - 4 / 9).max() < 2e-3
