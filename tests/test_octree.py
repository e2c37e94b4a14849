"""The octree: forces against the direct sum by opening angle, the same bits on any number of ranks, odd bodies."""

import numpy as np
import pytest

from brmpi import models, mpi, partition
from brmpi.kernels import gravity, tree, tree_numba
from brmpi.octree import END, Octree, Tree

KINDS = ("float64", "mixed", "potential")


class Alone:
    """A communicator of one rank, without MPI."""

    rank, size = 0, 1

    def Allreduce(self, mine, whole, operation=None):
        whole[:] = mine


def plummer(n, seed=5):
    pos, _ = models.plummer(np.random.default_rng(seed).random((n, models.DRAWS)), 1.0, 1.0)
    return np.ascontiguousarray(pos), np.full(n, 1 / n)


def direct(pos, mass, eps):
    """Accelerations (n, 3) and potentials by direct sum."""
    sources = np.zeros((4, gravity.tiles(len(pos)) * gravity.TILE))
    sources[:3, : len(pos)], sources[3, : len(pos)] = pos.T, mass
    acc, phi, targets = np.zeros((3, len(pos))), np.zeros(len(pos)), np.ascontiguousarray(pos.T)
    gravity.accelerations(targets, sources, eps, acc, backend="numba")
    gravity.potentials(targets, sources, eps, phi, backend="numba")
    return acc.T, phi


def octree(pos, mass, eps, theta, precision="float64", backend="numba", comm=None):
    comm = comm or Alone()
    return Octree(comm, np.array([len(pos)]), mass, eps, theta, precision, np.ones(1), mpi.Timers(), backend)


def errors(found, expected):
    """Root mean square of relative errors of vectors."""
    away = np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)
    return np.sqrt((away**2).mean())


# What sims/nbody/README.md says of each opening angle, for a Plummer sphere of 20,000 bodies.
@pytest.mark.parametrize(("theta", "most"), [pytest.param(0.3, 1e-4, marks=pytest.mark.soak), (0.5, 4e-4), (0.6, 8e-4),
                                            (0.75, 1.2e-3), (1.0, 5e-3)])
@pytest.mark.parametrize("precision", ["float64", "mixed"])
def test_error_of_an_opening_angle(theta, most, precision):
    pos, mass = plummer(20_000)
    acc, phi = direct(pos, mass, 1e-3)
    forces = octree(pos, mass, 1e-3, theta, precision)
    error = errors(forces(pos), acc)
    assert most / 4 < error < most
    assert np.abs(forces.potentials(pos) / phi - 1).max() < most / 2
    assert abs((mass * forces.potentials(pos)).sum() / (mass * phi).sum() - 1) < most / 10


def test_quadrupoles_make_the_error_fall_with_the_third_power():
    """A far cell's error: the next moment's, (size / distance)^3 of its force."""
    rng = np.random.default_rng(2)
    cloud, mass = rng.uniform(-0.5, 0.5, (300, 3)), rng.uniform(1, 2, 301)
    mass[300] = 0.0  # who is acted on
    found = []
    for distance in (4.0, 8.0):
        pos = np.vstack([cloud, [[distance, 0.3, 0.2]]])
        expected = direct(pos, mass, 0.1)[0][300]
        found.append(np.linalg.norm(octree(pos, mass, 0.1, 1.0)(pos)[300] - expected) / np.linalg.norm(expected))
    assert 6 < found[0] / found[1] < 11


@pytest.mark.parametrize("kind", KINDS)
def test_a_narrow_opening_angle_is_the_direct_sum(kind):
    pos, mass = plummer(700)
    for eps in (0.0, 0.05):
        acc, phi = direct(pos, mass, eps)
        forces = octree(pos, mass, eps, 1e-3, "mixed" if kind == "mixed" else "float64")
        if kind == "potential":
            np.testing.assert_allclose(forces.potentials(pos), phi, rtol=1e-12)
        else:
            size = np.abs(acc).max()
            np.testing.assert_allclose(forces(pos), acc, atol={"mixed": 2e-6, "float64": 1e-13}[kind] * size)


def test_numpy_and_numba_agree():
    pos, mass = plummer(1500)
    forces = {backend: octree(pos, mass, 0.01, 0.7, backend=backend) for backend in ("numpy", "numba")}
    acc = {backend: one(pos) for backend, one in forces.items()}
    phi = {backend: one.potentials(pos) for backend, one in forces.items()}
    np.testing.assert_allclose(acc["numba"], acc["numpy"], rtol=0, atol=1e-13 * np.abs(acc["numpy"]).max())
    np.testing.assert_allclose(phi["numba"], phi["numpy"], rtol=1e-13)
    assert (forces["numba"].costs == forces["numpy"].costs).all()


def test_loops_of_numpy_and_numba_find_the_same():
    pos, mass = plummer(3000)
    low, side = pos.min(axis=0), 128.0
    key = tree.keys(pos.T, low, side)
    np.testing.assert_array_equal(tree_numba.keys(np.ascontiguousarray(pos.T), low, side), key)
    order = tree.sort(key)
    np.testing.assert_array_equal(tree_numba.sort(key), order)
    bodies = np.ascontiguousarray(np.vstack([pos[order].T, mass]))
    one, other = (Tree(loops, key[order], bodies, 0, END) for loops in (tree, tree_numba))
    for name in ("level", "first", "last", "skip", "rows", "box"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    boxes = one.box[one.groups(200)][:5]
    for mine, theirs in zip(one.parcel(boxes, 0.6), other.parcel(boxes, 0.6)):
        np.testing.assert_array_equal(mine, theirs)


def test_moments_are_those_of_the_bodies():
    pos, mass = plummer(2000)
    key = tree_numba.keys(np.ascontiguousarray(pos.T), pos.min(axis=0), 128.0)
    order = tree_numba.sort(key)
    whole = Tree(tree_numba, key[order], np.ascontiguousarray(np.vstack([pos[order].T, mass])), 0, END)
    for node in (0, 1, *np.random.default_rng(1).integers(0, whole.level.size, 50)):
        first, end = whole.ranges(np.array([node]))[0]
        x, m = pos[order][first:end], mass[first:end]
        centre = (m[:, None] * x).sum(axis=0) / m.sum()
        second = 3 * np.einsum("i,ij,ik->jk", m, x - centre, x - centre)
        row = whole.rows[node]
        np.testing.assert_allclose(row[:3], centre, atol=1e-12)
        assert row[tree.MASS] == pytest.approx(m.sum(), rel=1e-12)
        np.testing.assert_allclose(row[5:11], second[np.triu_indices(3)], atol=1e-12 * np.trace(second) + 1e-300)
        reach = np.linalg.norm(x - centre, axis=1).max()
        assert reach <= row[tree.SIZE] / tree.ROUND * (1 + 1e-9) + 1e-12
        np.testing.assert_array_equal(whole.box[node], [*x.min(axis=0), *x.max(axis=0)])


@pytest.mark.parametrize("case", ["none", "one", "two", "one place", "a line", "far away", "without mass"])
def test_odd_bodies(case):
    pos = {"none": np.empty((0, 3)), "one": np.ones((1, 3)), "two": np.array([[0.0, 0, 0], [1, 2, 2]]),
           "one place": np.vstack([np.ones((300, 3)), [[3.0, 1, 1]]]),
           "a line": np.outer(np.arange(500), [1.0, 0, 0]),
           "far away": np.vstack([plummer(400)[0], [[1e9, 0, 0]]]), "without mass": plummer(400)[0]}[case]
    mass = np.zeros(len(pos)) if case == "without mass" else np.ones(len(pos))
    acc, phi = direct(pos, mass, 0.1)
    forces = octree(pos, mass, 0.1, 0.4)
    np.testing.assert_allclose(forces(pos), acc, rtol=2e-2, atol=2e-3 * np.abs(acc).max(initial=1e-9))
    np.testing.assert_allclose(forces.potentials(pos), phi, rtol=2e-3)


@pytest.mark.parametrize("scale", [1e-12, 1e20])
def test_any_unit_of_length(scale):
    """Powers of two: the same bits, but for the exponent."""
    scale = 2.0 ** np.round(np.log2(scale))
    pos, mass = plummer(1000)
    expected = octree(pos, mass, 0.01, 0.6)(pos)
    found = octree(pos * scale, mass * 2.0**40, 0.01 * scale, 0.6)(pos * scale)
    np.testing.assert_array_equal(found, expected * 2.0**40 / scale**2)


def test_unknown_cells_are_told():
    pos, mass = plummer(1000)
    key = tree_numba.keys(np.ascontiguousarray(pos.T), pos.min(axis=0), 128.0)
    order = tree_numba.sort(key)
    bodies = np.ascontiguousarray(np.vstack([pos[order].T, mass]))
    whole = Tree(tree_numba, key[order], bodies, 0, END)
    group = whole.groups(tree.GROUP)
    whole.last[0], whole.skip[:] = 0, 1  # the root alone, and not what is in it
    with pytest.raises(RuntimeError, match="parts are not known"):
        tree.field("float64", bodies, whole.ranges(group), whole.first[:1], whole.last[:1], whole.skip[:1],
                   whole.rows[:1], whole.box[group], bodies, 0.5, 0.0, np.zeros((3, 1000)), np.zeros(1000, np.int64))


@pytest.mark.mpi
@pytest.mark.parametrize("n", [0, 1, 3, 300, 4000])
@pytest.mark.parametrize("kind", KINDS)
def test_ranks_find_the_bits_of_one(comm, assert_all, n, kind):
    pos, mass = plummer(n) if n else (np.empty((0, 3)), np.empty(0))
    precision = "mixed" if kind == "mixed" else "float64"

    def _found(forces, mine):
        return forces.potentials(mine) if kind == "potential" else forces(mine)

    expected = _found(octree(pos, mass, 0.01, 0.7, precision), pos)
    rng = np.random.default_rng(4)
    for speeds in (np.ones(comm.size), rng.uniform(0.1, 1, comm.size), np.arange(comm.size, dtype=float) + (n == 0)):
        if not speeds.sum():
            continue
        counts = partition.shares(n, rng.uniform(0.1, 1, comm.size))
        rows = slice(*partition.offsets(counts)[comm.rank : comm.rank + 2])
        forces = Octree(comm, counts, mass, 0.01, 0.7, precision, speeds, mpi.Timers(), "numba")
        for _ in range(3):  # domains by number, then by cost
            found = _found(forces, pos[rows])
            assert_all(np.array_equal(found, expected[rows]), f"{np.abs(found - expected[rows]).max(initial=0)}")


@pytest.mark.mpi
def test_domains_have_work_by_speed(comm, assert_all):
    pos, mass = plummer(30_000)
    counts = partition.equal(len(pos), comm.size)
    rows = slice(*partition.offsets(counts)[comm.rank : comm.rank + 2])
    speeds = np.arange(comm.size) + 1.0
    forces = Octree(comm, counts, mass, 0.01, 0.7, "float64", speeds, mpi.Timers(), "numba")
    spent = []
    field = tree.field

    def counting(*arguments):
        field(*arguments)
        spent.append(int(arguments[12].sum()))

    tree.field = counting
    try:
        for _ in range(3):
            forces(pos[rows])
    finally:
        tree.field = field
    everyone = np.array(comm.allgather(spent[-1]), float)
    assert_all(np.abs(everyone / everyone.sum() - speeds / speeds.sum()).max() < 0.02, f"{everyone}")
