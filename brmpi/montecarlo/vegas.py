"""VEGAS: importance sampling with a density that is a product of steps, fitted to the function while warming up.

Each dimension has a grid of intervals that are equally likely; where the square of the function is large they become
narrow. The grid is fitted on a fixed number of points and then kept, so that the estimate is an ordinary mean.

Source: Lepage, J. Comput. Phys. 27 (1978) 192 and 439 (2021) 110386.
"""

import numpy as np

from brmpi.montecarlo import genz
from brmpi.montecarlo.sampling import Sampling

BLOCK = 4096  # points that a rank takes together
DIMENSIONS = 1024  # most, whose weights are sent as one row of 64 numbers each
FLOOR = 0.05  # of the weights, spread over all intervals


class Grid:
    """Intervals of each dimension, all equally likely.

    Parameters
    ----------
    dimension : int
    intervals : int, of a dimension

    Attributes
    ----------
    edges : (dimension, intervals + 1) float64, from 0 to 1
    """

    def __init__(self, dimension, intervals=64):
        self.edges = np.tile(np.linspace(0, 1, intervals + 1), (dimension, 1))

    def mapped(self, points):
        """Points where the grid puts them.

        Parameters
        ----------
        points : (n, dimension) float64 in (0, 1)

        Returns
        -------
        x : (n, dimension) float64 in (0, 1], 1 by rounding alone
        jacobian : (n,) float64, volume of x's by that of points
        place : (n, dimension) int64, interval of each coordinate
        """
        dimension, count = len(self.edges), self.edges.shape[1] - 1
        within = points * count
        place = within.astype(np.intp)
        np.minimum(place, count - 1, out=place)
        within -= place
        flat = place + np.arange(dimension) * count
        width = np.diff(self.edges).ravel()[flat]
        within *= width
        within += self.edges[:, :-1].ravel()[flat]
        width *= count
        return within, genz.product(width), place

    def refine(self, weights, damping):
        """Move the edges so that intervals carry more alike weights.

        Parameters
        ----------
        weights : (dimension, intervals) float64 >= 0
        damping : float, 0 for no move; 0.5 to 1.5 is usual
        """
        count = weights.shape[1]
        for edges, weight in zip(self.edges, weights):
            if not 0 < weight.sum() < np.inf:
                continue
            near = np.pad(weight, 1, mode="edge")
            smooth = (near[:-2] + 6 * weight + near[2:]) / 8
            part = (1 - FLOOR) * smooth / smooth.sum() + FLOOR / count  # no place is left out for want of points
            part = np.where(part < 1, ((1 - part) / -np.log(np.minimum(part, 1 - 1e-15))), 1.0) ** damping
            heights = np.concatenate([[0.0], np.cumsum(part)])
            inner = np.interp(np.arange(1, count) * (heights[-1] / count), heights, edges)
            edges[1:-1] = inner


class Warmup:
    """The estimator of the weights by which a grid is refined, for ``sampling``.

    Parameters
    ----------
    grid : Grid
    function : of (n, dimension) float64 to (n,) float64
    sample : function of first and count to (count, dimension) float64 in (0, 1), points by index
    offset : int, index of the first point

    Attributes
    ----------
    width : int, of a row
    """

    def __init__(self, grid, function, sample, offset):
        self.grid, self.function, self.sample, self.offset = grid, function, sample, offset
        self.width = len(grid.edges) * (grid.edges.shape[1] - 1)

    def block(self, first, count):
        """Squares of the function over the density, summed by interval of each dimension.

        Parameters
        ----------
        first, count : int

        Returns
        -------
        (width,) float64
        """
        x, jacobian, place = self.grid.mapped(self.sample(self.offset + first, count))
        squares = (self.function(x) * jacobian) ** 2
        intervals = self.grid.edges.shape[1] - 1
        return np.concatenate([np.bincount(column, squares, intervals) for column in place.T])


def fitted(comm, function, sample, dimension, iterations, points, damping, speeds):
    """A grid fitted to a function, the same bits on any number of ranks. Collective.

    Parameters
    ----------
    comm : communicator
    function : of (n, dimension) float64 to (n,) float64
    sample : function of first and count to (count, dimension) float64 in (0, 1), points by index
    dimension, iterations : int
    points : int, of an iteration
    damping : float, as ``Grid.refine`` has it
    speeds : (ranks,) float64 > 0

    Returns
    -------
    Grid
    """
    grid = Grid(dimension)
    for iteration in range(iterations):
        sampling = Sampling(comm, Warmup(grid, function, sample, iteration * points), points, BLOCK, speeds)
        sampling.run(lambda sums, decided: False)
        grid.refine(sampling.sums.total.reshape(dimension, -1), damping)
    return grid
