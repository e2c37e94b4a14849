"""Prices along paths, from points of the unit cube."""

import numpy as np


def bridge(steps):
    """A matrix that makes a Brownian path of normal numbers, the first of which have the most weight.

    The end comes first, then the middles of what is left, so that few dimensions carry most of the variance: what
    Sobol's sequence and strata need.

    Parameters
    ----------
    steps : int >= 1

    Returns
    -------
    (steps, steps) float64: the path at times 1 to steps is the matrix times standard normal numbers

    Source: Glasserman, "Monte Carlo methods in financial engineering" (2003), section 3.1.
    """
    matrix = np.zeros((steps + 1, steps))
    matrix[steps, 0] = np.sqrt(steps)
    spans, used = [(0, steps)], 1
    while spans:
        low, high = spans.pop(0)
        if high - low < 2:
            continue
        middle = (low + high) // 2
        part = (middle - low) / (high - low)
        matrix[middle] = (1 - part) * matrix[low] + part * matrix[high]
        matrix[middle, used] += np.sqrt((middle - low) * (1 - part))
        used += 1
        spans += [(low, middle), (middle, high)]
    return matrix[1:]


class Lognormal:
    """Prices of one or more assets under Black and Scholes.

    Parameters
    ----------
    volatility : (assets,) float64 >= 0 [1 / sqrt(year)]
    correlation : (assets, assets) float64, positive definite
    maturity : float > 0 [years]
    steps : int >= 1
    bridged : bool, whether the first numbers are to carry most of the variance

    Attributes
    ----------
    times : (steps,) float64 [years]
    endwards : (steps,) float64, of length 1: how one asset's normal numbers move so that only the end of its Brownian
        path is more likely to be elsewhere
    """

    def __init__(self, volatility, correlation, maturity, steps, bridged):
        self.volatility = np.asarray(volatility, dtype=float)
        self.factor = np.linalg.cholesky(correlation)
        self.steps, self.times = steps, maturity / steps * np.arange(1, steps + 1)
        self.root = np.sqrt(maturity / steps)
        self.matrix = bridge(steps) if bridged and steps > 1 else None
        self.endwards = np.full(steps, steps**-0.5) if self.matrix is None else np.eye(steps)[0]

    def brownian(self, normal):
        """Brownian paths of all assets.

        Parameters
        ----------
        normal : (n, steps assets) float64, standard normal numbers

        Returns
        -------
        (n, steps, assets) float64 [sqrt(year)]
        """
        assets = len(self.volatility)
        z = normal.reshape(len(normal), self.steps, assets)
        if assets > 1:
            z = z @ self.factor.T
        if self.matrix is None:
            return np.cumsum(z, axis=1) * self.root
        return np.einsum("ij,njk->nik", self.matrix, z, optimize=True) * self.root

    def prices(self, motion, spot, drift, volatility=None):
        """Prices along Brownian paths.

        Parameters
        ----------
        motion : (n, steps, assets) float64, from ``brownian``
        spot : (assets,) float64 [money]
        drift : float, rate less dividend [1 / year]
        volatility : (assets,) float64, if other than the model's

        Returns
        -------
        (n, steps, assets) float64 [money]
        """
        sigma = self.volatility if volatility is None else volatility
        return spot * np.exp((drift - sigma**2 / 2) * self.times[:, None] + sigma * motion)
