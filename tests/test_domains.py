"""Atoms in boxes of ranks: each has one owner, and every image within reach of a box is there as a ghost."""

import itertools

import numpy as np
import pytest

from brmpi import domains, partition

EDGES = np.array([9.0, 7.0, 11.0])


def made(comm, seed=1, grain=0.1, edges=EDGES):
    """Boxes of uneven ranks."""
    uneven = np.random.default_rng(seed).uniform(0.3, 3, comm.size)
    return domains.Domains(comm, edges, uneven, grain), uneven


def atoms(count, seed=2, edges=EDGES):
    return np.random.default_rng(seed).uniform(0, 1, (3, count)) * edges[:, None]


@pytest.mark.mpi
def test_boxes_fill_the_whole_in_proportion_to_speeds(comm, assert_all):
    boxes, speeds = made(comm)
    volume = (boxes.high - boxes.low).prod(axis=1)
    assert_all(np.isclose(volume.sum(), EDGES.prod()))
    assert_all(np.allclose(volume / volume.sum(), speeds / speeds.sum(), atol=0.02))


@pytest.mark.mpi
@pytest.mark.parametrize("grain", [0.1, 4.0])
def test_every_atom_has_one_owner_that_all_agree_on(comm, assert_all, grain):
    boxes, _ = made(comm, grain=grain)
    corners = np.array(list(itertools.product((0.0, 1 - 1e-16), repeat=3))).T * EDGES[:, None]
    pos = np.concatenate([atoms(500), corners, np.nextafter(EDGES, 0)[:, None]], axis=1)
    owners = boxes.owners(pos)
    assert_all(np.array_equal(owners, comm.bcast(owners)))
    low, high = boxes.low[owners].T, boxes.high[owners].T
    assert_all((pos >= low - 1e-12).all() and (pos <= high + 1e-12).all())


def test_wrapped_is_the_image_in_the_box():
    from mpi4py import MPI

    boxes, _ = made(MPI.COMM_SELF)
    pos = atoms(300)
    assert np.array_equal(boxes.wrapped(pos), pos)
    far = np.concatenate([pos + 3 * EDGES[:, None], -EDGES[:, None], EDGES[:, None], np.full((3, 1), -1e-18)], axis=1)
    inside = boxes.wrapped(far)
    assert ((inside >= 0) & (inside < EDGES[:, None])).all() and np.allclose(inside[:, :300], pos, atol=1e-13)
    assert np.array_equal(inside[:, 300:], np.zeros((3, 3)))


@pytest.mark.mpi
def test_atoms_go_home_with_all_that_is_theirs(comm, assert_all):
    boxes, _ = made(comm)
    pos = atoms(400)
    offsets = partition.offsets(partition.equal(400, comm.size))
    mine = np.arange(offsets[comm.rank], offsets[comm.rank + 1])
    ids, place, twice = boxes.home(mine, pos[:, mine], np.stack([2.0 * mine, -pos[0, mine]]))
    assert_all((boxes.owners(place) == comm.rank).all() and np.array_equal(place, pos[:, ids]))
    assert_all(np.array_equal(twice, [2.0 * ids, -pos[0, ids]]))
    assert_all(sorted(i for rank in comm.allgather(ids.tolist()) for i in rank) == list(range(400)))
    rows, = domains.by_row(comm, ids, offsets, place)
    assert_all(np.array_equal(rows, pos[:, mine].T))


@pytest.mark.mpi
@pytest.mark.parametrize(("count", "reach", "grain"), [(400, 1.3, 0.1), (60, 6.9, 0.1), (5, 2.0, 4.0), (0, 1.0, 0.1)])
def test_ghosts_are_all_images_within_reach(comm, assert_all, count, reach, grain):
    boxes, _ = made(comm, grain=grain)
    pos = atoms(count)
    ids = np.flatnonzero(boxes.owners(pos) == comm.rank)
    ghosts = domains.Ghosts(comm, boxes.chosen(pos[:, ids], reach), len(ids))
    here = np.full((3, len(ids) + ghosts.count), np.nan)
    for moved in (pos, pos + 0.01 * np.arange(count)):
        here[:, : len(ids)] = moved[:, ids]
        ghosts.start(here)
        ghosts.finish(here)
        keys = ghosts.keys(ids)
        assert_all(np.array_equal(keys[: len(ids)], ids))
        places = set(zip(keys[len(ids) :].tolist(), *here[:, len(ids) :].tolist()))
        assert_all(len(places) == ghosts.count, "an image comes once")
        wanted = set()
        low, high = boxes.low[comm.rank], boxes.high[comm.rank]
        if (low < high).all():
            for turns in itertools.product((-1, 0, 1), repeat=3):
                near = ((pos.T + turns * EDGES >= low - reach) & (pos.T + turns * EDGES <= high + reach)).all(axis=1)
                for i in np.flatnonzero(near):
                    if any(turns) or i not in ids:
                        wanted.add((int(i), *(moved[:, i] + turns * EDGES).tolist()))
        assert_all(places == wanted, f"{len(places)} ghosts, {len(wanted)} wanted, {len(places ^ wanted)} differ")
