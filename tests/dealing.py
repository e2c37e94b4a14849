"""Grids, dealings and matrices that tests of linear algebra share."""

import numpy as np

from brmpi.linalg.axis import Axis
from brmpi.linalg.matrix import BlockCyclic
from brmpi.linalg.processgrid import ProcessGrid

UNEQUAL = [2, 0.7, 0, 1, 3, 0.4]  # a part of weight zero holds nothing


def grids(comm):
    """Every shape of grid, each with equal weights of rows and columns and with unequal ones."""
    for P in range(1, comm.size + 1):
        if comm.size % P == 0:
            grid = ProcessGrid(comm, (P, comm.size // P))
            yield grid, np.ones(grid.P), np.ones(grid.Q)
            if comm.size > 1:
                yield grid, UNEQUAL[: grid.P], UNEQUAL[::-1][: grid.Q]
            grid.free()


def dealt(place, array, nb):
    """An array dealt out over a place that ``grids`` gives."""
    grid, rows, cols = place
    (m, n) = array.shape
    matrix = BlockCyclic(grid, (m, n), array.dtype, nb, rows=Axis(m, nb, rows), cols=Axis(n, nb, cols))
    matrix.local[...] = array[np.ix_(*matrix.indices)]
    return matrix


def numbers(rng, shape, letter):
    """Normal ones of a type."""
    both = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    return (both if letter in "FD" else both.real).astype(letter)
