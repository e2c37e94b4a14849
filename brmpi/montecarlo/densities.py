"""Densities to try Markov chains on, with moments that are known.

A density is a function of (n, dimension) places to the (n,) logarithms of what it is there, up to a constant.
"""

import numpy as np

APART = 8.0  # of the two peaks
SHARE = 0.3  # of the peak on the left


def gaussian(dimension):
    """Normal numbers with correlations 0.9, 0.81 and so on with those next to them, and variances 1, 4, 9 and so on.

    Parameters
    ----------
    dimension : int

    Returns
    -------
    function, (dimension,) means, (dimension,) variances
    """
    scale = np.arange(1, dimension + 1.0)
    covariance = 0.9 ** np.abs(np.subtract.outer(scale, scale)) * np.outer(scale, scale)
    inverse = np.linalg.inv(covariance)

    def _log(x):
        return -0.5 * np.einsum("ni,ij,nj->n", x, inverse, x)

    return _log, np.zeros(dimension), scale**2


def banana(dimension):
    """Rosenbrock's valley as a density: the second number is normal about the square of the first, times 2 or so.

    Parameters
    ----------
    dimension : int, an even number: pairs that are independent

    Returns
    -------
    function, (dimension,) means, (dimension,) variances
    """
    def _log(x):
        first, second = x[:, ::2], x[:, 1::2]
        return -0.5 * (first**2 + ((second - first**2) / 0.5) ** 2).sum(axis=1)

    return _log, np.tile([0.0, 1.0], dimension // 2), np.tile([1.0, 2.25], dimension // 2)


def peaks(dimension):
    """Two narrow normal peaks far apart along the first coordinate, the left of which has 0.3 of the weight.

    Parameters
    ----------
    dimension : int

    Returns
    -------
    function, (dimension,) means, (dimension,) variances
    """
    def _log(x):
        rest = -0.5 * (x[:, 1:] ** 2).sum(axis=1)
        left = np.log(SHARE) - 0.5 * (x[:, 0] + APART / 2) ** 2
        right = np.log(1 - SHARE) - 0.5 * (x[:, 0] - APART / 2) ** 2
        return rest + np.logaddexp(left, right)

    mean, variance = np.zeros(dimension), np.ones(dimension)
    mean[0] = APART / 2 * (1 - 2 * SHARE)
    variance[0] = 1 + (APART / 2) ** 2 - mean[0] ** 2
    return _log, mean, variance


def line(dimension):
    """Intercept and slope of a straight line through 40 measured points, and the logarithm of their scatter.

    Parameters
    ----------
    dimension : int, 3

    Returns
    -------
    function, None, None: its moments have no closed form
    """
    x = np.linspace(-1, 1, 40)
    y = 1.0 + 2.0 * x + 0.3 * np.sin(37.0 * np.arange(40))  # points that are the same everywhere

    def _log(place):
        off = y - place[:, :1] - place[:, 1:2] * x
        scatter = place[:, 2:3]
        inside = (np.abs(scatter[:, 0]) < 10) & (np.abs(place[:, :2]) < 100).all(axis=1)
        scatter = np.clip(scatter, -10, 10)
        value = (-0.5 * (off * np.exp(-scatter)) ** 2 - scatter).sum(axis=1)
        return np.where(inside, value, -np.inf)

    return _log, None, None


DENSITIES = {"gaussian": gaussian, "banana": banana, "peaks": peaks, "line": line}
