"""The gravity kernel: against the formula, between backends, and the same bits however the work is cut."""

import functools
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brmpi.errors import BadInput
from brmpi.kernels import backend, gravity, opencl

try:
    LACKING = "" if opencl.devices() else "no device"
except opencl.Unavailable as error:
    LACKING = str(error)
ON_DEVICE = pytest.mark.skipif(bool(LACKING), reason=LACKING)
CHOICES = [("float64", "numba"), ("float64", "numpy"), ("mixed", "numba"), ("mixed", "numpy"),
           *(pytest.param((precision, "opencl"), marks=ON_DEVICE) for precision in ("float64", "mixed"))]
BACKENDS = ["numba", "numpy", pytest.param("opencl", marks=ON_DEVICE)]


def bodies(n, seed=1, scale=1.0, mass=1.0):
    rng = np.random.default_rng(seed)
    return scale * rng.normal(size=(3, n)), mass * rng.uniform(0.5, 1.5, n) / max(n, 1)


def packed(pos, mass):
    sources = np.zeros((4, gravity.TILE * gravity.tiles(mass.size)))
    sources[:3, : mass.size], sources[3, : mass.size] = pos, mass
    return sources


def accelerations(pos, sources, eps, *choice):
    out = np.zeros_like(pos)
    gravity.accelerations(np.ascontiguousarray(pos), sources, eps, out, *choice)
    return out


def by_formula(pos, mass, eps):
    """Accelerations, their pairs' summed magnitudes and potentials in extended precision."""
    x, m = pos.astype(np.longdouble), mass.astype(np.longdouble)
    acc, size, phi = np.zeros_like(x), np.zeros_like(m), np.zeros_like(m)
    for i in range(m.size):
        d = x - x[:, i : i + 1]
        others = np.arange(m.size) != i
        r2 = (d**2).sum(axis=0)[others] + np.longdouble(eps) ** 2
        acc[:, i] = (m[others] * d[:, others] / r2**1.5).sum(axis=-1)
        size[i] = (m[others] * np.sqrt((d[:, others] ** 2).sum(axis=0)) / r2**1.5).sum()
        phi[i] = -(m[others] / np.sqrt(r2)).sum()
    return acc.astype(float), size.astype(float), phi.astype(float)


@functools.cache
def exactly(n, eps):
    return by_formula(*bodies(n), eps)


def error(acc, exact):
    return np.linalg.norm(acc - exact, axis=0) / np.linalg.norm(exact, axis=0)


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("eps", [0.0, 0.05])
@pytest.mark.parametrize("n", [2, 3, 511, 513, 1500])
def test_against_the_formula(n, eps, choice):
    pos, mass = bodies(n)
    exact, size, _ = exactly(n, eps)
    acc = accelerations(pos, packed(pos, mass), eps, *choice)
    off = np.linalg.norm(acc - exact, axis=0) / size
    assert off.max() < (1e-14 if choice[0] == "float64" else 5e-7)
    if choice[0] == "mixed" and n > 500:
        assert 1e-9 < np.sqrt((off**2).mean()) < 5e-8


def test_against_the_formula_where_vectors_are_short(tmp_path):
    """Sums are longer chains of float32 there: as on a Raspberry Pi, whatever this processor is."""
    env = os.environ | {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "", "NUMBA_CACHE_DIR": str(tmp_path)}
    words = ["-m", "pytest", __file__, "-k", "test_against_the_formula and choice2 and not short"]
    done = subprocess.run([sys.executable, *words], env=env, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0 and "10 passed" in done.stdout, done.stdout


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("eps", [0.0, 0.05])
def test_potentials_leave_a_body_itself_out(eps, name):
    pos, mass = bodies(700)
    *_, exact = by_formula(pos, mass, eps)
    phi = np.zeros(700)
    gravity.potentials(pos, packed(pos, mass), eps, phi, name)
    assert np.allclose(phi, exact, rtol=1e-13)


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("n", [0, 1])
def test_nobody_and_one_body(n, choice):
    pos, mass = bodies(n)
    assert accelerations(pos, packed(pos, mass), 0.0, *choice).tolist() == np.zeros((3, n)).tolist()


@pytest.mark.parametrize("choice", CHOICES)
def test_two_bodies_at_one_place_give_nothing_without_softening(choice):
    pos = np.array([[1.0, 1.0, 2.0], [0, 0, 0], [0, 0, 0]])
    acc = accelerations(pos, packed(pos, np.ones(3)), 0.0, *choice)
    assert np.allclose(acc[0], [1, 1, -2], rtol=1e-6) and np.isfinite(acc).all()


@pytest.mark.parametrize("choice", CHOICES)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_cutting_targets_and_sources_changes_no_bit(choice, data):
    n = data.draw(st.integers(1, 1800))
    pos, mass = bodies(n, seed=n)
    sources = packed(pos, mass)
    whole = accelerations(pos, sources, 0.01, *choice)
    cuts = [0, *sorted(data.draw(st.lists(st.integers(0, n), max_size=5))), n]
    pieces = sorted(data.draw(st.sets(st.integers(1, gravity.tiles(n)), max_size=3)) | {0, gravity.tiles(n)})
    for a, b in zip(cuts, cuts[1:]):  # noqa: RUF007
        mine = np.ascontiguousarray(pos[:, a:b])
        out = np.zeros_like(mine)
        for p, q in zip(pieces, pieces[1:]):  # noqa: RUF007
            part = np.ascontiguousarray(sources[:, p * gravity.TILE : q * gravity.TILE])
            gravity.accelerations(mine, part, 0.01, out, *choice)
        assert out.tobytes() == whole[:, a:b].tobytes()


@pytest.mark.parametrize(("scale", "mass"), [(1e13, 1e30), (1e-9, 1e-20), (1e20, 1e45)])
def test_mixed_in_any_units(scale, mass):
    pos, masses = bodies(600, scale=scale, mass=mass)
    exact = accelerations(pos, packed(pos, masses), 0.0, "float64")
    found = accelerations(pos, packed(pos, masses), 0.0, "mixed", "numba", gravity.scale_of(pos, masses))
    assert error(found, exact).max() < 2e-6


@pytest.mark.parametrize("name", BACKENDS)
def test_mixed_stays_finite_and_the_same_however_near_a_pair_is(name):
    pos = np.array([[1.0, 1.0 + 1e-9, 1e6], [0, 0, 0], [0, 0, 0]])
    pos = np.concatenate([pos, np.full((3, 600), 2e5)], axis=1)  # a second tile
    mass = np.ones(603)
    sources, scale = packed(pos, mass), gravity.scale_of(pos, mass)
    whole = accelerations(pos, sources, 0.0, "mixed", name, scale)
    parts = np.zeros_like(pos)
    for first in (0, gravity.TILE):
        part = np.ascontiguousarray(sources[:, first : first + gravity.TILE])
        gravity.accelerations(pos, part, 0.0, parts, "mixed", name, scale)
    assert np.isfinite(whole).all() and whole[0, 0] > 1e9 and parts.tobytes() == whole.tobytes()


def test_mixed_sees_a_close_pair_far_from_the_origin():
    pos = np.array([[1.0, 1.0 + 2.57e-3, -30.0], [0, 0, 0], [0, 0, 0]])  # as the Moon beside the Earth, in au
    mass = np.array([3e-6, 3.7e-8, 1.0])
    exact, *_ = by_formula(pos, mass, 0.0)
    assert error(accelerations(pos, packed(pos, mass), 0.0, "mixed"), exact).max() < 1e-6


def test_wrong_arguments():
    with pytest.raises(ValueError, match="5 columns"):
        accelerations(np.zeros((3, 1)), np.zeros((4, 5)), 0.0)
    with pytest.raises(ValueError, match="half"):
        accelerations(np.zeros((3, 1)), np.zeros((4, 512)), 0.0, "half")
    with pytest.raises(BadInput, match="cuda"):
        backend("cuda")
    assert backend("numpy") == "numpy" and backend("auto") == "auto" and backend("numba") == "numba"
    assert backend("auto", ["aria"]) == "numpy"  # the same for all, or the bits would depend on the host
    with pytest.raises(BadInput, match="aria, alice"):
        backend("numba", ["aria", "alice"])
    with pytest.raises(BadInput, match="not on aria: there is none"):
        backend("opencl", [], ["aria: there is none"])
    assert backend("opencl") == "opencl"
