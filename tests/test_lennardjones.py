"""The Lennard-Jones kernel: against all pairs, lattice sums and its own energy, and the same bits however it is cut."""

import functools
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brmpi.kernels import lennardjones as lj
from brmpi.kernels import opencl

try:
    opencl.devices()
    NO_OPENCL = ""
except opencl.Unavailable as lacking:
    NO_OPENCL = str(lacking)
OPENCL = pytest.param("opencl", marks=pytest.mark.skipif(bool(NO_OPENCL), reason=NO_OPENCL))
EVERY = pytest.mark.parametrize("backend", ["numpy", "numba", OPENCL])
COMPILED = pytest.mark.parametrize("backend", ["numba", OPENCL])
ALL, NONE = (True, True, True), (False, False, False)


def liquid(n, seed=1, density=0.8):
    """Atoms in a cubic box, none much nearer than 0.8 to another: a lattice, shaken."""
    side = max(1, round(np.ceil(n ** (1 / 3))))
    edge = density ** (-1 / 3)
    rng = np.random.default_rng(seed)
    sites = rng.permutation(side**3)[:n]
    pos = np.array(np.unravel_index(sites, (side,) * 3), float) * edge + rng.uniform(-0.1, 0.1, (3, n))
    return pos, max(side * edge, 5.2)


def ids(n):
    return np.arange(n, dtype=np.int64)


def computed(pos, edge, periodic, rc=2.5, skin=0.1, shifted=True, backend="numba", own=None, names=None):
    own = pos.shape[1] if own is None else own
    names = ids(pos.shape[1]) if names is None else names
    near = lj.neighbours(pos, own, names, rc + skin, np.zeros(3), np.full(3, edge), periodic, backend)
    out = np.full((5, own), np.nan)
    lj.forces(pos, near, rc, out, shifted, backend=backend)
    return out


def by_formula(pos, edge, periodic, rc, shifted):
    """Rows as of ``forces`` and the sums of their terms' magnitudes, in extended precision, over all images beside."""
    x = pos.astype(np.longdouble)
    out, size = np.zeros((5, x.shape[1]), np.longdouble), np.zeros((5, x.shape[1]), np.longdouble)
    shift = 4 * (np.longdouble(rc) ** -12 - np.longdouble(rc) ** -6) if shifted else 0
    for image in itertools.product(*((-1, 0, 1) if wraps else (0,) for wraps in periodic)):
        d = x[:, :, None] - x[:, None] - np.longdouble(edge) * np.array(image)[:, None, None]
        r2 = (d**2).sum(axis=0)
        inside = (r2 > 0) & (r2 < np.longdouble(rc) ** 2)
        r6 = np.where(inside, 1 / np.where(inside, r2, 1) ** 3, 0)
        r2 = np.where(inside, r2, 1)
        out += [*(48 * r6 * (r6 - 0.5) / r2 * d).sum(axis=-1), (4 * r6 * (r6 - 1) - shift * inside).sum(axis=-1) / 2,
                24 * (r6 * (r6 - 0.5)).sum(axis=-1)]
        size += [*(48 * r6 * (r6 + 0.5) / r2 * abs(d)).sum(axis=-1), 2 * (r6 * (r6 + 1)).sum(axis=-1),
                 24 * (r6 * (r6 + 0.5)).sum(axis=-1)]
    return out, size


@functools.cache
def exactly(n, periodic, shifted):
    pos, edge = liquid(n)
    return by_formula(pos, edge, periodic, 2.5, shifted)


def fcc(cells, nearest):
    a = nearest * np.sqrt(2)
    base = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
    corners = np.array(list(itertools.product(range(cells), repeat=3)))
    return np.ascontiguousarray((corners[:, None] + base).reshape(-1, 3).T * a), cells * a


@EVERY
@pytest.mark.parametrize("shifted", [True, False])
@pytest.mark.parametrize("periodic", [NONE, ALL, (True, False, True)])
@pytest.mark.parametrize("n", [0, 1, 2, 7, 129, 301])
def test_against_the_sum_over_all_pairs_and_images(n, periodic, shifted, backend):
    pos, edge = liquid(n)
    exact, size = exactly(n, periodic, shifted)
    found = computed(pos, edge, periodic, shifted=shifted, backend=backend)
    assert found.shape == (5, n) and (abs(found - exact) <= 1e-14 * size).all()
    if n > 100:
        assert abs(exact[:3]).max() > 1 and (exact[3] < 0).any()


@EVERY
def test_two_atoms(backend):
    far = 48 * (2**-13 - 2**-8), 4 * (2**-12 - 2**-6)
    for r, force, energy in ((2 ** (1 / 6), 0, -1), (1, 24, 0), (2, *far), (2.5, 0, 0)):
        pos = np.array([[0.0, r], [0, 0], [0, 0]])
        out = computed(pos, 9.0, NONE, shifted=False, backend=backend)
        assert np.allclose(out[0], [-force, force], atol=1e-12) and np.allclose(out[3], energy / 2, atol=1e-14)
        assert np.allclose(out[4], force * r / 2, atol=1e-12)


@EVERY
def test_forces_cancel_and_are_the_energys_gradient(backend):
    pos, edge = liquid(343, seed=5)
    out = computed(pos, edge, ALL, backend=backend)
    assert (abs(out[:3].sum(axis=1)) < 1e-12 * abs(out[:3]).sum()).all()
    step = 1e-5
    for atom, axis in ((0, 0), (100, 1), (342, 2)):
        energies = []
        for sign in (1, -1):
            moved = pos.copy()
            moved[axis, atom] += sign * step
            energies.append(computed(moved, edge, ALL, backend=backend)[3].sum())
        force = -(energies[0] - energies[1]) / (2 * step)
        assert force == pytest.approx(out[axis, atom], rel=1e-6, abs=1e-5)


@EVERY
def test_virial_is_the_energys_change_with_the_volume(backend):
    pos, edge = liquid(343, seed=6)
    out = computed(pos, edge, ALL, rc=2.5, skin=0.1, backend=backend)
    step = 1e-6
    more, less = (computed(pos * s, edge * s, ALL, backend=backend)[3].sum() for s in (1 + step, 1 - step))
    assert -(more - less) / (2 * step) == pytest.approx(out[4].sum(), rel=1e-6)  # r . f = -r du/dr


@EVERY
def test_fcc_lattice(backend):
    """Each atom as in the lattice sum within the cutoff, and with the tail beyond as published: -8.61 at 1.09."""
    rc, nearest = 5.0, 1.0902
    pos, edge = fcc(7, nearest)
    points = np.array(list(itertools.product(range(-10, 11), repeat=3)))
    points = points[points.sum(axis=1) % 2 == 0]  # fcc in units of half its cube's edge
    r2 = (points**2).sum(axis=1) * nearest**2 / 2
    r2 = r2[(r2 > 0) & (r2 < rc**2)]
    exact = 2 * (r2**-6.0 - r2**-3.0).sum()
    out = computed(pos, edge, ALL, rc=rc, shifted=False, backend=backend)
    assert np.allclose(out[3], exact, rtol=1e-13) and abs(out[:3]).max() < 1e-11
    density = np.sqrt(2) / nearest**3
    tail = 8 * np.pi * density / 3 * (rc**-9 / 3 - rc**-3)
    assert exact + tail == pytest.approx(-8.610, abs=0.01)
    assert out[4].mean() == pytest.approx(0, abs=0.4)  # pressure 0 but for the tail's


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_cells_hold_each_atom_once_in_order(backend):
    pos, edge = liquid(1001, seed=2)
    low, high = np.zeros(3), np.full(3, edge)
    for periodic in (NONE, ALL):
        grid = lj.cells(pos, low, high, 1.5, periodic, backend)
        assert (grid.width >= 1.5).all() and sorted(grid.order.tolist()) == list(range(1001))
        assert grid.starts[0] == 0 and grid.starts[-1] == 1001 and grid.starts.size == np.prod(grid.shape) + 1
        for cell in range(grid.starts.size - 1):
            atoms = grid.order[grid.starts[cell] : grid.starts[cell + 1]].astype(int)
            corner = low + grid.width * np.array(np.unravel_index(cell, grid.shape))
            inside = pos[:, atoms] % edge if periodic == ALL else pos[:, atoms].clip(0, np.nextafter(edge, 0))
            assert (np.diff(atoms) > 0).all()
            place = (inside.T - corner) / grid.width
            assert (place >= -1e-12).all() and (place <= 1 + 1e-12).all()


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_lists_are_those_of_all_pairs(data):
    n = data.draw(st.sampled_from([0, 1, 2, 3, 50, 333, 1000]))
    own = data.draw(st.integers(0, n))
    seed = data.draw(st.integers(0, 99))
    rng = np.random.default_rng(seed)
    periodic = tuple(data.draw(st.lists(st.booleans(), min_size=3, max_size=3)))
    edges = rng.uniform(1, 9, 3)
    pos = rng.uniform(-0.3, 1.3, (3, n)) * edges[:, None]
    names = rng.permutation(n)
    arguments = own, names, edges.min() / data.draw(st.sampled_from([2.0, 3.0, 4.5])), np.zeros(3), edges, periodic
    fast, slow = lj.neighbours(pos, *arguments), lj.neighbours(pos, *arguments, "numpy")
    assert fast.starts.tolist() == slow.starts.tolist() and fast.index.tolist() == slow.index.tolist()
    assert fast.index.dtype == slow.index.dtype == np.uint32 and (fast.starts % lj.PAD == 0).all()
    for i in range(own):
        row = fast.index[fast.starts[i] : fast.starts[i + 1]]
        assert (np.diff(names[row[row != i]]) > 0).all() and (row[(row != i).sum() :] == i).all()


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_lists_by_cells_are_those_of_all_pairs(data):
    n = data.draw(st.sampled_from([0, 1, 2, 3, 50, 333, 1500]))
    own = data.draw(st.integers(0, n))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    pos = rng.uniform(-2, 2, 3)[:, None] + rng.uniform(0, 1, (3, n)) * rng.uniform(1, 9, 3)[:, None]
    names, width = rng.permutation(n), rng.uniform(0.4, 3, 3)
    if data.draw(st.booleans()):  # own atoms in the order of cells, as it is fast
        order = lj.in_cells(pos[:, :own], names[:own], width)
        assert order.tolist() == lj.in_cells(pos[:, :own], names[:own], width, "numpy").tolist()
        pos[:, :own], names[:own] = pos[:, order], names[order]
    arguments = pos, own, names, data.draw(st.sampled_from([0.3, 1.0, 2.5])), width
    fast, slow = lj.by_cells(*arguments), lj.by_cells(*arguments, "numpy")
    assert fast.starts.tolist() == slow.starts.tolist() and fast.index.tolist() == slow.index.tolist()
    assert fast.index.dtype == slow.index.dtype == np.uint32 and (fast.starts % lj.PAD == 0).all()
    every = lj.neighbours(pos, own, names, arguments[3], pos.min(axis=1, initial=0) - 1, pos.max(axis=1, initial=0) + 1)
    for i in range(own):
        rows = [set(near.index[near.starts[i] : near.starts[i + 1]].tolist()) for near in (fast, every)]
        assert rows[0] == rows[1]


def test_cells_for_lists_are_half_the_reach_and_few_in_a_thin_gas():
    assert np.allclose(lj.cell_width((10.0, 11.2, 30.0), 2.8, 10**6), (10 / 7, 1.6, 30 / 21))
    assert np.prod(1e6 / lj.cell_width((1e6,) * 3, 2.8, 100)) <= 100 * lj.CROWD
    assert np.array_equal(lj.cell_width((1.0,) * 3, 2.8, 0), (1.0,) * 3)


def test_a_thin_gas_takes_few_cells():
    pos = np.random.default_rng(1).uniform(0, 1e6, (3, 100))
    pos[:, 1] = pos[:, 0] + 0.5
    near = lj.neighbours(pos, 100, ids(100), 1.0, np.zeros(3), np.full(3, 1e6))
    assert near.index[:: lj.PAD].tolist() == [1, 0]
    assert lj.cells(pos, np.zeros(3), np.full(3, 1e6), 1.0).starts.size <= 1 + 100 * lj.CROWD


def decomposed(pos, edge, names, cuts, backend, rng, reach=2.6):
    """Forces by id, each slab's own atoms computed with shifted ghosts of all images, in any order."""
    images = [(pos + edge * np.array(k)[:, None], names) for k in itertools.product((-1, 0, 1), repeat=3)]
    every, keys = np.concatenate([p for p, _ in images], axis=1), np.concatenate([k for _, k in images])
    home = np.arange(every.shape[1]) // pos.shape[1] == 13  # the image (0, 0, 0)
    result = np.full((5, pos.shape[1]), np.nan)
    for low, high in zip(cuts, cuts[1:]):  # noqa: RUF007
        mine = home & (every[0] >= low) & (every[0] < high)
        around = (every[0] > low - reach) & (every[0] < high + reach) & (every[1:] > -reach).all(axis=0)
        ghosts = around & (every[1:] < edge + reach).all(axis=0) & ~mine
        chosen = np.concatenate([rng.permutation(np.flatnonzero(mine)), rng.permutation(np.flatnonzero(ghosts))])
        here = np.ascontiguousarray(every[:, chosen])
        near = lj.neighbours(here, mine.sum(), keys[chosen], reach, (low, 0, 0), (high, edge, edge), backend=backend)
        out = np.full((5, mine.sum()), np.nan)
        cut = rng.integers(0, mine.sum() + 1)
        lj.forces(here, near, 2.5, out, first=cut, backend=backend)
        lj.forces(here, near, 2.5, out, last=cut, backend=backend)
        result[:, keys[chosen][: mine.sum()]] = out
    return result


@COMPILED
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 999), n=st.sampled_from([1, 40, 400]))
def test_any_decomposition_gives_the_same_bits(backend, seed, n):
    rng = np.random.default_rng(seed)
    pos, edge = liquid(n, seed)
    pos %= edge
    names = rng.permutation(n)
    whole = decomposed(pos, edge, names, [0, edge], backend, rng)
    cuts = [0, *sorted(rng.uniform(0, edge, rng.integers(1, 4))), edge]
    assert decomposed(pos, edge, names, cuts, backend, rng).tobytes() == whole.tobytes()
    exact, size = by_formula(pos, edge, ALL, 2.5, True)
    assert (abs(whole[:, names] - exact) <= 1e-14 * size).all()


@EVERY
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 999))
def test_the_same_bits_with_nearest_images_whichever_atoms_are_own(backend, seed):
    rng = np.random.default_rng(seed)
    pos, edge = liquid(200, seed)
    whole = computed(pos, edge, ALL, backend=backend)
    order, own = rng.permutation(200), rng.integers(0, 201)
    part = computed(np.ascontiguousarray(pos[:, order]), edge, ALL, backend=backend, own=own, names=order)
    assert part.tobytes() == whole[:, order[:own]].tobytes()


@COMPILED
@settings(max_examples=25, deadline=None)
@given(n=st.sampled_from([0, 1, 2, 3, 63, 65, 1000, 3001]), seed=st.integers(0, 99), wraps=st.booleans(),
       rc=st.floats(0.9, 2.5))
def test_versions_agree(backend, n, seed, wraps, rc):
    pos, edge = liquid(n, seed)
    near = lj.neighbours(pos, n, ids(n), 2.6, np.zeros(3), np.full(3, edge), (wraps,) * 3)
    slow, fast, size = np.empty((5, n)), np.empty((5, n)), np.empty((5, n))
    lj.forces(pos, near, rc, slow, backend="numpy")
    lj.forces(pos, near, rc, fast, backend=backend)
    magnitudes(pos, near, rc, size)
    assert (abs(fast - slow) <= 1e-14 * size).all()


def magnitudes(pos, near, rc, out):
    i = np.repeat(np.arange(out.shape[1]), np.diff(near.starts))
    d = pos[:, i] - pos[:, near.index]
    d -= np.array(near.period)[:, None] * np.rint(d / np.where(near.period, near.period, 1)[:, None])
    r2 = (d**2).sum(axis=0)
    i, d, r2 = (part[..., (r2 > 0) & (r2 < rc**2)] for part in (i, d, r2))
    r6 = r2**-3
    terms = [*(48 * r6 * (r6 + 0.5) / r2 * abs(d)), 2 * r6 * (r6 + 1) + rc**-6.0, 24 * r6 * (r6 + 0.5)]
    out[:] = [np.bincount(i, term, minlength=out.shape[1]) for term in terms]


@pytest.mark.skipif(bool(NO_OPENCL), reason=NO_OPENCL)
@pytest.mark.parametrize("width", [1, 2, 4, 8])
@pytest.mark.parametrize("group", [1, 64])
def test_opencl_of_any_width_and_group(width, group):
    from brmpi.kernels import lennardjones_opencl

    pos, edge = liquid(300)
    for periodic in (ALL, NONE):
        exact, size = by_formula(pos, edge, periodic, 2.5, False)
        near = lj.neighbours(pos, 300, ids(300), 2.6, np.zeros(3), np.full(3, edge), periodic)
        out = np.full((5, 300), np.nan)
        turns = lj._turns(near.period)
        lennardjones_opencl.forces(pos, near.starts, near.index, turns, 6.25, 0.0, 0, 300, out, group, width)
        assert (abs(out - exact) <= 1e-14 * size).all()


@EVERY
def test_atoms_at_one_place_give_each_other_nothing(backend):
    pos = np.array([[1.0, 1.0, 2.5], [1, 1, 1], [1, 1, 1]])
    out = computed(pos, 9.0, NONE, backend=backend)
    assert np.isfinite(out).all() and out[0, 0] == out[0, 1] > 0 and out[0, 2] == pytest.approx(-2 * out[0, 0])


def test_images_of_one_atom_come_by_position():
    pos = np.array([[1.0, 4.0, -2.0, 2.0], [1, 1, 1, 1], [1, 1, 1, 1]])
    for backend in ("numpy", "numba"):
        near = lj.neighbours(pos, 1, np.array([5, 5, 5, 3]), 4.0, np.zeros(3), np.full(3, 3.0), backend=backend)
        assert near.index.tolist() == [3, 2, 1, 0, 0, 0, 0, 0]


def test_wrong_arguments():
    pos, box = np.zeros((3, 2)), (np.zeros(3), np.ones(3))
    with pytest.raises(ValueError, match=r"\(2, 3\) of float64"):
        lj.cells(np.zeros((2, 3)), *box, 1.0)
    with pytest.raises(ValueError, match="float32"):
        lj.cells(pos.astype(np.float32), *box, 1.0)
    with pytest.raises(ValueError, match="atom 1: must be finite"):
        lj.cells(np.array([[0, np.nan]] * 3), *box, 1.0)
    with pytest.raises(ValueError, match="high above low"):
        lj.cells(pos, np.zeros(3), np.zeros(3), 1.0)
    with pytest.raises(ValueError, match=r"= 0.0: must be finite and above 0"):
        lj.cells(pos, *box, 0.0)
    with pytest.raises(ValueError, match="own = 3 of n = 2"):
        lj.neighbours(pos, 3, ids(2), 0.5, *box)
    with pytest.raises(ValueError, match=r"\(1,\) of int64, must be \(2,\)"):
        lj.neighbours(pos, 2, ids(1), 0.5, *box)
    with pytest.raises(ValueError, match=r"0.6: must be at most half the period, 0.5"):
        lj.neighbours(pos, 2, ids(2), 0.6, *box, (False, True, False))
    near = lj.neighbours(pos, 2, ids(2), 0.5, *box)
    with pytest.raises(ValueError, match=r"rc = 0.6: must be above 0 and at most 0.5"):
        lj.forces(pos, near, 0.6, np.zeros((5, 2)))
    with pytest.raises(ValueError, match=r"out: \(3, 2\)"):
        lj.forces(pos, near, 0.5, np.zeros((3, 2)))
    with pytest.raises(ValueError, match="out of 3 atoms, pos of 2: the list is of 2 among 2"):
        lj.forces(pos, near, 0.5, np.zeros((5, 3)))
    with pytest.raises(ValueError, match="first = 2, last = 1"):
        lj.forces(pos, near, 0.5, np.zeros((5, 2)), first=2, last=1)
    with pytest.raises(ValueError, match="cuda"):
        lj.forces(pos, near, 0.5, np.zeros((5, 2)), backend="cuda")
