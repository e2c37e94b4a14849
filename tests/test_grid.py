"""Grids in blocks: cells by speed, halos as a serial copy has them, moves from one sharing to another."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brmpi import grid

SHAPES = st.lists(st.integers(0, 40), min_size=1, max_size=3).map(tuple)


@settings(max_examples=200, deadline=None)
@given(shape=SHAPES, speeds=st.lists(st.floats(0.1, 100), min_size=1, max_size=20), axes=st.integers(1, 3))
def test_boxes_hold_every_cell_once(shape, speeds, axes):
    seen = np.zeros(shape, int)
    for box in grid.boxes(shape, speeds, min(axes, len(shape))):
        seen[tuple(slice(first, end) for first, end in box)] += 1
    assert (seen == 1).all()


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("ranks", [2, 3, 5, 8, 20])
def test_cells_are_in_proportion_to_speeds(axes, ranks):
    speeds = np.random.default_rng(ranks).uniform(1, 5, ranks)
    boxes = grid.boxes((240, 250, 260), speeds, axes)
    cells = np.array([np.prod([end - first for first, end in box]) for box in boxes])
    assert abs(cells / cells.sum() / (speeds / speeds.sum()) - 1).max() < 0.1


def test_more_axes_mean_less_surface():
    surface = [sum(grid._surface(box) for box in grid.boxes((128, 128, 128), np.ones(8), axes)) for axes in (1, 2, 3)]
    assert surface[0] > surface[1] > surface[2] == 8 * 6 * 64**2


class One:
    """A communicator of one rank, where nothing is sent."""

    size, rank = 1, 0


def test_slabs_where_they_are_thick_enough():
    class Four(One):
        size = 4

    assert grid.Grid(Four(), (64, 64)).box == ((0, 16), (0, 64))
    assert grid.Grid(Four(), (8, 64)).box != ((0, 2), (0, 64))


def test_wrong_arguments():
    with pytest.raises(ValueError, match="periodic has 3 values: must be one or 2"):
        grid.Grid(One(), (4, 4), periodic=(True, False, True))
    here = grid.Grid(One(), (4, 4))
    words = r"arrays are \[\('float32', \(6, 6\)\)\]: must be \[\('float64', \(6, 6\)\)\]"
    with pytest.raises(ValueError, match=words):
        here.halos(here.zeros()).start(here.zeros(dtype=np.float32))


def value(place, shape):
    """What a cell holds: its own number, so that no other can be taken for it."""
    return np.ravel_multi_index(place, shape).astype(float) + 1


def expected(here, lead):
    """This block with its halo as a serial copy has it; NaN where the halo is the caller's."""
    index = [np.arange(first - here.halo, end + here.halo) for first, end in here.box]
    known = np.ones([len(i) for i in index], bool)
    for axis, (i, n, wraps) in enumerate(zip(index, here.shape, here.periodic)):
        inside = np.ones(len(i), bool) if wraps else (i >= 0) & (i < n)
        known &= inside.reshape([-1 if a == axis else 1 for a in range(len(index))])
    places = np.meshgrid(*[np.clip(i, 0, n - 1) if not wraps else i % n
                           for i, n, wraps in zip(index, here.shape, here.periodic)], indexing="ij")
    cells = np.where(known, value(places, here.shape), np.nan)
    return cells + 1e6 * np.arange(int(np.prod(lead, dtype=int))).reshape(*lead, *(1,) * cells.ndim)


def filled(here, lead=()):
    """An array whose cells hold their numbers, and whose halo is NaN."""
    array = here.zeros(lead)
    array[:] = np.nan
    if all(here.sides):
        here.inside(array)[:] = here.inside(expected(here, lead))
    return array


def check(comm, shape, halo, periodic, axes, speeds):
    """Whether the halos are right on this rank."""
    here = grid.Grid(comm, shape, halo, periodic, speeds, axes)
    one, many = filled(here), filled(here, (2, 3))
    exchange = here.halos(one, many)
    good = True
    for _ in range(2):  # the requests stay
        exchange.start(one, many)
        exchange.finish(one, many)
        if all(here.sides):
            good &= np.array_equal(one, expected(here, ()), equal_nan=True)
            good &= np.array_equal(many, expected(here, (2, 3)), equal_nan=True)
        here.inside(one)[:], here.inside(many)[:] = here.inside(filled(here)), here.inside(filled(here, (2, 3)))
    free, blind = here.free(), filled(here)
    early = here.halos(blind)
    early.start(blind)
    if free.stop > free.start:  # these rows see no other rank's cells
        rows = slice(free.start, free.stop + 2 * halo)
        good &= np.array_equal(blind[rows], expected(here, ())[rows], equal_nan=True)
    early.finish(blind)
    early.free()
    exchange.free()
    return good


def trials(comm):
    """What is wrong for any number of ranks up to this communicator's, any axes, periodicity and shares."""
    wrong = []
    for size in range(1, comm.size + 1):
        part = comm.Split(0 if comm.rank < size else 1)
        rng = np.random.default_rng(size)
        for d, axes, halo in itertools.product((1, 2, 3), (None, 1, 2, 3), (1, 2, 3)):
            if axes is not None and axes > d:
                continue
            for periodic in itertools.product((False, True), repeat=d):
                shape = tuple(rng.integers(1, (40, 14, 9)[d - 1], d))
                speeds = rng.uniform(0.1, 3, size)
                if comm.rank < size and not check(part, shape, halo, periodic, axes, speeds):
                    wrong.append((size, shape, halo, periodic, axes))
        part.Free()
    return wrong


@pytest.mark.mpi
@pytest.mark.timeout(300)
def test_halos_are_those_of_a_serial_copy(comm, assert_all):
    wrong = trials(comm)
    assert_all(not wrong, wrong[:3])


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_halos_on_eight_ranks(launch):
    code = ("import json, sys\n"
            f"sys.path.insert(0, {json.dumps(str(__file__.rpartition('/')[0]))})\n"
            "from mpi4py import MPI\n"
            "import test_grid\n"
            "wrong = MPI.COMM_WORLD.gather(test_grid.trials(MPI.COMM_WORLD))\n"
            "if MPI.COMM_WORLD.rank == 0:\n"
            "    print(json.dumps([str(one) for rank in wrong for one in rank]))\n")
    done = launch(8, "-c", code, timeout=250)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []


@pytest.mark.mpi
@pytest.mark.parametrize("axes", [1, 2])
@pytest.mark.parametrize("periodic", [True, False])
def test_only_what_comes_into_the_block(comm, assert_all, axes, periodic):
    """Number 0 stays where it is, 1 comes from above, 2 from the right, 3 from below on the left."""
    here = grid.Grid(comm, (12, 10), 1, periodic, None, axes)
    array, full = filled(here, (4,)), expected(here, (4,))
    here.halos(array, moves=((0, 0), (-1, 0), (0, -1), (1, 1)))(array)
    inner, first = slice(1, -1), slice(0, -2)

    def _same(number, *place):
        assert_all(np.array_equal(array[(number, *place)], full[(number, *place)], equal_nan=True), number)

    _same(1, -1, inner)
    _same(2, inner, -1)
    _same(3, 0, first)
    _same(3, first, 0)
    assert_all(np.isnan(array[0, 0]).all() and np.isnan(array[0, :, -1]).all(), "nobody asked for it")
    assert_all(np.isnan(array[1, 0]).all() and np.isnan(array[2, :, 0]).all(), "it moves the other way")
    assert_all(np.isnan(array[3, -1]).all() and np.isnan(array[3, :, -1]).all(), "it moves the other way")


@pytest.mark.mpi
@pytest.mark.parametrize("periodic", [True, False])
def test_halos_go_back_to_the_cells_that_they_stand_for(comm, assert_all, periodic):
    here = grid.Grid(comm, (12, 10), 1, periodic, None, 1)
    array = here.zeros((1,))
    array[...] = np.nan
    here.inside(array)[...] = -1
    first = here.box[0][0]
    array[0, 0, 1:-1] = 1000 + first  # what moved downwards out of this block
    here.halos(array, moves=((1, 0),), back=True)(array)
    other = next((box[0][0] for box in here.boxes if box[0][0] == here.box[0][1]), 0 if periodic else None)
    top = here.inside(array)[0, -1]
    assert_all((top == (-1 if other is None else 1000 + other)).all(), f"{top} {other}")
    assert_all((here.inside(array)[0, :-1] == -1).all())


@pytest.mark.mpi
@pytest.mark.parametrize("shape", [(9, 4), (3, 3), (1, 2), (2, 1)])
@pytest.mark.parametrize("halo", [1, 2, 3])
@pytest.mark.parametrize("sign", [1, -1])
def test_mirrors_are_those_of_a_serial_copy(comm, assert_all, shape, halo, sign):
    """As NumPy pads a whole array symmetrically, in blocks thinner than the halo, too."""
    padded = np.pad(value(np.indices(shape), shape), halo, mode="symmetric")
    if sign == -1:  # odd about a wall half a cell outside
        index = [np.arange(-halo, n + halo) for n in shape]
        signs = [np.where(i // n % 2, -1, 1) for i, n in zip(index, shape)]
        padded = padded * signs[0][:, None] * signs[1]
    here = grid.Grid(comm, shape, halo)
    array = filled(here)
    here.halos(array)(array)
    for axis in range(2):
        for place, mirror, odd in here.mirrors(axis):
            array[(slice(None),) * axis + (place,)] = (sign if odd else 1) * array[(slice(None),) * axis + (mirror,)]
    part = tuple(slice(first, end + 2 * halo) for first, end in here.box)
    assert_all(not all(here.sides) or np.array_equal(array, padded[part]), (shape, halo))


@pytest.mark.mpi
def test_pieces_and_ends(comm, assert_all):
    here = grid.Grid(comm, (23, 5), 1, (False, True))
    piece = here.piece(filled(here, (2,)))
    assert_all(piece.shape == (2, 23, 5) and piece.offset == (0, here.box[0][0], 0))
    assert_all(piece.data.flags.c_contiguous and np.isfinite(piece.data).all())
    low, high = here.ends(0)
    assert_all(low == (comm.rank == 0) and high == (comm.rank == comm.size - 1) and here.ends(1) == (False, False))
