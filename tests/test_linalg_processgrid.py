"""Process grids: every rank has one place, weights that no rank is too slow for, nodes in columns."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brmpi.errors import BadInput
from brmpi.linalg import processgrid
from brmpi.linalg.processgrid import ProcessGrid, arrange

SPEEDS = st.floats(0.1, 100)


def lost(speeds, rows, cols):
    """The part of all ranks' speeds that waits."""
    return 1 - rows.sum() * cols.sum() / np.sum(speeds)


@settings(max_examples=60)
@given(speeds=st.lists(SPEEDS, min_size=1, max_size=24))
def test_no_rank_gets_more_than_its_speed(speeds):
    speeds = np.array(speeds)
    ranks, rows, cols = arrange(speeds, len(speeds))
    assert sorted(ranks.flat) == list(range(len(speeds)))
    assert (np.outer(rows, cols) <= speeds[ranks] * (1 + 1e-12)).all() and rows.min() > 0 and cols.min() > 0
    one, most = speeds.sum(), lost(speeds, rows, cols)
    assert most <= 1 - 0.95 * len(speeds) * speeds.min() / one + 1e-9, "no worse than all at the slowest's speed"


@settings(max_examples=60)
@given(down=st.lists(SPEEDS, min_size=1, max_size=4), across=st.lists(SPEEDS, min_size=1, max_size=6))
def test_speeds_that_are_products_are_used_wholly(down, across):
    speeds = np.outer(down, across).T.reshape(-1)  # ranks fill columns
    shape = len(down), len(across)
    ranks, rows, cols = arrange(speeds, len(speeds), shape)
    assert ranks.shape == shape and lost(speeds, rows, cols) < 1e-9


def test_a_node_makes_a_column():
    speeds = np.repeat([30.0, 12, 12, 12, 60], 4)  # four ranks a node, one after another
    ranks, rows, cols = arrange(speeds, 20)
    assert ranks.shape == (4, 5) and lost(speeds, rows, cols) < 1e-9
    assert [set(column // 4) for column in ranks.T] == [{0}, {1}, {2}, {3}, {4}]
    assert np.allclose(cols / cols[1], [2.5, 1, 1, 1, 5]) and np.allclose(rows, rows[0])


def test_one_rank_a_node_is_one_row():
    ranks, rows, cols = arrange([30, 12, 12, 12, 60], 5)
    assert ranks.tolist() == [[0, 1, 2, 3, 4]] and np.allclose(rows * cols, [30, 12, 12, 12, 60])


@pytest.mark.parametrize("size, shape", [(1, (1, 1)), (2, (1, 2)), (6, (2, 3)), (7, (1, 7)), (16, (4, 4))])
def test_squarest(size, shape):
    assert processgrid.squarest(size) == shape == arrange(np.ones(size), size)[0].shape


@pytest.mark.parametrize("speeds", [[1, 2], [1, 2, 0], [1, 2, -1], [1, 2, np.nan], [1, 2, np.inf], [[1, 2, 3]]])
def test_speeds_that_cannot_be(speeds):
    with pytest.raises(BadInput, match="must be 3 finite numbers > 0"):
        arrange(speeds, 3)


@pytest.mark.mpi
@pytest.mark.parametrize("weighted", [False, True])
def test_communicators_of_rows_and_columns(comm, assert_all, weighted):
    speeds = np.arange(1.0, comm.size + 1) if weighted else None
    for P in (P for P in range(1, comm.size + 1) if comm.size % P == 0):
        grid = ProcessGrid(comm, (P, comm.size // P), speeds)
        assert_all(grid.shape == (P, comm.size // P) == grid.ranks.shape)
        assert_all(grid.ranks[grid.p, grid.q] == grid.comm.rank == comm.rank)
        assert_all((grid.row.rank, grid.row.size, grid.col.rank, grid.col.size) == (grid.q, grid.Q, grid.p, grid.P))
        assert_all(grid.row.allgather(comm.rank) == grid.ranks[grid.p].tolist())
        assert_all(grid.col.allgather(comm.rank) == grid.ranks[:, grid.q].tolist())
        if weighted:
            assert_all((np.outer(grid.row_weights, grid.col_weights) <= speeds[grid.ranks] * (1 + 1e-12)).all())
        else:
            assert_all(grid.ranks.tolist() == np.arange(comm.size).reshape(grid.shape).tolist(), "as ScaLAPACK's")
            assert_all((grid.row_weights == 1).all() and (grid.col_weights == 1).all())
        grid.free()


@pytest.mark.mpi
def test_shapes_that_cannot_be(comm, assert_all):
    for shape in ((comm.size + 1, 1), (0, comm.size), (-1, -comm.size), (comm.size,)):
        with pytest.raises(BadInput, match=f"must hold {comm.size} ranks") as refused:
            ProcessGrid(comm, shape)
        assert_all(len(set(comm.allgather(str(refused.value)))) == 1)
