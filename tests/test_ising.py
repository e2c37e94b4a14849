"""The Ising kernel: exact enumeration, Onsager's energy, versions alike bit for bit, and any cut of the lattice."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ellipk

from brmpi.kernels import ising, opencl


def lack():
    try:
        opencl.devices()
    except opencl.Unavailable as reason:
        return str(reason)
    return ""


BACKENDS = ["numpy", "numba", pytest.param("opencl", marks=pytest.mark.skipif(bool(lack()), reason=lack() or "-"))]
KEY = (11, 2**64 - 5)


def lattice(rows, columns, seed=1):
    spins = np.random.default_rng(seed).choice(np.array([-1, 1], np.int8), (rows + 2, columns + 2))
    wrap(spins)
    return spins


def wrap(spins):
    spins[0], spins[-1] = spins[-2], spins[1]
    spins[:, 0], spins[:, -1] = spins[:, -2], spins[:, 1]


def sweeps(spins, coupling, numbers, backend="numba", seen=None):
    limits = ising.limits(coupling)
    for sweep in numbers:
        for colour in (0, 1):
            ising.half_sweep(spins, colour, sweep, limits, KEY, backend=backend)
            wrap(spins)
        if seen is not None:
            seen.append((ising.energy(spins), abs(ising.magnetisation(spins))))


def mean_and_error(seen, bins=40):
    parts = np.array(seen, dtype=float).reshape(bins, -1, 2).mean(axis=1)
    return parts.mean(axis=0), parts.std(axis=0) / np.sqrt(bins - 1)


@pytest.mark.parametrize("coupling", [0.25, 0.5])
def test_four_by_four_against_all_its_states(coupling):
    states = (np.arange(2**16)[:, None] >> np.arange(16) & 1).reshape(-1, 4, 4) * 2 - 1
    energy = -(states * (np.roll(states, 1, axis=1) + np.roll(states, 1, axis=2))).sum(axis=(1, 2))
    weight = np.exp(-coupling * (energy + 32))
    exact = [(weight * what).sum() / weight.sum() for what in (energy, abs(states.sum(axis=(1, 2))))]
    spins, seen = lattice(4, 4), []
    sweeps(spins, coupling, range(100))
    sweeps(spins, coupling, range(100, 40_100), seen=seen)
    mean, error = mean_and_error(seen)
    assert (error > 0).all() and (error < [0.2, 0.1]).all()
    assert (abs(mean - exact) < 3.5 * error).all(), (mean, exact, error)


@pytest.mark.parametrize("coupling", [0.3, 0.6])
def test_onsagers_energy(coupling):
    size, seen = 256, []
    spins = np.ones((size + 2, size + 2), np.int8)
    sweeps(spins, coupling, range(200))
    sweeps(spins, coupling, range(200, 1000), seen=seen)
    (energy, _), (error, _) = mean_and_error(seen)
    modulus = 2 * np.sinh(2 * coupling) / np.cosh(2 * coupling) ** 2
    bracket = 1 + 2 / np.pi * (2 * np.tanh(2 * coupling) ** 2 - 1) * ellipk(modulus**2)
    onsager = -bracket / np.tanh(2 * coupling)
    assert 0 < error / size**2 < 5e-4
    assert abs(energy - size**2 * onsager) < 3.5 * error


def test_chances_of_turning_over():
    for coupling in (0.0, 0.44, -0.3, 3.0, 1000.0):
        chance = np.minimum(1, np.exp(np.minimum(-2 * coupling * np.array([-4, -2, 0, 2, 4]), 0)))
        assert (abs((ising.limits(coupling) + 1.0) / 2**31 - chance) <= 2.0**-32 + 1e-15).all()
    assert ising.limits(1000.0).tolist() == [2**31 - 1] * 3 + [-1] * 2
    with pytest.raises(ValueError, match="nan"):
        ising.limits(float("nan"))


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_numbers_are_those_of_the_site(backend):
    """One site by hand, from the published generator: global row 5, column 2**33 + 6, sweep 9, colour 1."""
    column = 2**33 + 6
    p = column // 2
    counter = p // 8 + (5 << 64) + ((2 * 9 + 1) << 128)
    block = np.random.Philox(key=np.array(KEY, np.uint64), counter=counter - 1).random_raw(4)
    number = int(block[p % 8 // 2]) >> (32 * (p % 2)) & (2**32 - 1)
    for limit, turns in ((number // 2, True), (number // 2 - 1, False)):
        spins = np.ones((3, 3), np.int8)
        limits = np.full(5, limit, np.int32)
        ising.half_sweep(spins, 1, 9, limits, KEY, 5, column, backend)
        assert (spins[1, 1] == -1) == turns
        assert spins.sum() == (7 if turns else 9)
        ising.half_sweep(spins, 0, 9, np.full(5, 2**31 - 1, np.int32), KEY, 5, column, backend)
        assert spins.sum() == (7 if turns else 9)  # not of this colour


@pytest.mark.parametrize("backend", BACKENDS[1:])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_versions_agree_bit_for_bit(backend, data):
    size = st.one_of(st.sampled_from([0, 1, 2, 3, 15, 16, 17, 257]), st.integers(0, 100))
    place = st.one_of(st.integers(0, 40), st.integers(0, 2**61))
    spins = lattice(data.draw(size), data.draw(size), seed=data.draw(st.integers(0, 99)))
    row, column, sweep, colour = data.draw(place), data.draw(place), data.draw(place), data.draw(st.integers(0, 1))
    limits = ising.limits(data.draw(st.floats(-1, 1)))
    one, two = spins.copy(), spins.copy()
    for name, part in ((backend, one), ("numpy", two)):
        ising.half_sweep(part, colour, sweep, limits, KEY, row, column, name)
    assert one.tobytes() == two.tobytes()
    assert one[[0, -1]].tobytes() == spins[[0, -1]].tobytes()  # the halo is the caller's
    assert ising.energy(one, backend) == ising.energy(one, "numpy")
    assert ising.magnetisation(one, backend) == ising.magnetisation(one, "numpy")


@pytest.mark.parametrize("backend", BACKENDS[1:])
def test_versions_agree_on_a_large_lattice(backend):
    one, two = lattice(600, 1402), lattice(600, 1402)
    sweeps(one, 0.44, range(2), backend)
    sweeps(two, 0.44, range(2), "numpy")
    assert one.tobytes() == two.tobytes()
    inside = one[1:-1, 1:-1].astype(int)
    energy = -(inside * (np.roll(inside, -1, axis=0) + np.roll(inside, -1, axis=1))).sum()
    assert ising.energy(one, backend) == energy and ising.magnetisation(one, backend) == inside.sum()


@pytest.mark.skipif(bool(lack()), reason=lack() or "-")
@pytest.mark.timeout(600)  # compiles often
def test_parameters_make_no_difference():
    from brmpi.kernels import ising_opencl

    limits, names = ising.limits(0.3), ising_opencl.PARAMETERS
    for values in itertools.product(*names.values()):
        parameters = dict(zip(names, values))
        for rows, columns, row, column in ((7, 1, 3, 2**33 + 5), (5, 333, 0, 7), (3, 2 * 1024 + 31, 2**40, 10)):
            spins = lattice(rows, columns)
            for colour in (0, 1):
                one, two = spins.copy(), spins.copy()
                ising_opencl.half_sweep(one, colour, 5, limits, KEY, row, column, **parameters)
                ising.half_sweep(two, colour, 5, limits, KEY, row, column, "numpy")
                assert one.tobytes() == two.tobytes(), (columns, colour, parameters)
    with pytest.raises(TypeError, match="breadth"):
        ising_opencl.half_sweep(spins, 0, 0, limits, KEY, 0, 0, breadth=4)


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_any_cut_gives_the_same_bits(backend, data):
    rows, columns = (2 * data.draw(st.integers(1, 30)) for _ in range(2))
    whole = lattice(rows, columns, seed=rows + columns)
    cut, sums = whole.copy(), []
    lines = [sorted({0, n, *data.draw(st.lists(st.integers(0, n), max_size=3))}) for n in (rows, columns)]
    limits = ising.limits(0.4)
    sweeps(whole, 0.4, range(2), backend)
    for sweep, colour in itertools.product(range(2), (0, 1)):
        sums = []
        for (top, bottom), (left, right) in itertools.product(*(itertools.pairwise(line) for line in lines)):
            part = cut[top : bottom + 2, left : right + 2].copy()
            ising.half_sweep(part, colour, sweep, limits, KEY, top, left, backend)
            cut[top + 1 : bottom + 1, left + 1 : right + 1] = part[1:-1, 1:-1]
        wrap(cut)
        for (top, bottom), (left, right) in itertools.product(*(itertools.pairwise(line) for line in lines)):
            part = cut[top : bottom + 2, left : right + 2].copy()
            sums.append((ising.energy(part, backend), ising.magnetisation(part, backend)))
    assert cut.tobytes() == whole.tobytes()
    assert tuple(np.sum(sums, axis=0)) == (ising.energy(whole, backend), ising.magnetisation(whole, backend))


@pytest.mark.parametrize("backend", BACKENDS)
def test_wrong_arguments(backend):
    spins, limits = lattice(4, 6), ising.limits(0.4)
    with pytest.raises(ValueError, match="int64"):
        ising.energy(spins.astype(np.int64), backend)
    with pytest.raises(ValueError, match=r"\(1, 5\)"):
        ising.magnetisation(np.ones((1, 5), np.int8), backend)
    with pytest.raises(ValueError, match="C-contiguous"):
        ising.half_sweep(spins[:, ::2], 0, 0, limits, KEY, backend=backend)
    with pytest.raises(ValueError, match="limits: float64"):
        ising.half_sweep(spins, 0, 0, np.ones(5), KEY, backend=backend)
    with pytest.raises(ValueError, match="colour = 2"):
        ising.half_sweep(spins, 2, 0, limits, KEY, backend=backend)
    with pytest.raises(ValueError, match="row = -1"):
        ising.half_sweep(spins, 0, 0, limits, KEY, row=-1, backend=backend)
    with pytest.raises(ValueError, match="sweep = "):
        ising.half_sweep(spins, 0, 2**63, limits, KEY, backend=backend)
    with pytest.raises(ValueError, match="key"):
        ising.half_sweep(spins, 0, 0, limits, (1, -1), backend=backend)
    spins.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        ising.half_sweep(spins, 0, 0, limits, KEY, backend=backend)


def test_unknown_version():
    with pytest.raises(ValueError, match="'cuda'"):
        ising.energy(lattice(2, 2), "cuda")
