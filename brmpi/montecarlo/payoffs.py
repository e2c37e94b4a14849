"""What options pay, given the prices along paths, and how that changes with what the prices depend on.

Arrays of prices are (n, steps, assets), those after each of some equal steps; all but a basket look at the first asset.
"""

from dataclasses import dataclass

import numpy as np

BARRIERS = ("up-and-out", "up-and-in", "down-and-out", "down-and-in")
PAYOFFS = ("european", "asian", "geometric-asian", "basket", "american", *BARRIERS)
SMOOTH = ("european", "asian", "geometric-asian", "basket")  # without jumps: these have pathwise derivatives


@dataclass(frozen=True)
class Payoff:
    """What an option pays.

    Attributes
    ----------
    name : one of ``PAYOFFS``
    sign : 1.0 for a call, -1.0 for a put
    strike : float >= 0 [money]
    weights : (assets,) float64, of a basket
    barrier : float > 0, where there is one [money]
    """

    name: str
    sign: float
    strike: float
    weights: np.ndarray
    barrier: float

    def exercised(self, price):
        """What exercise pays at some prices.

        Parameters
        ----------
        price : float64 array [money]

        Returns
        -------
        float64 array of the same shape [money]
        """
        return np.maximum(self.sign * (price - self.strike), 0)

    def underlying(self, prices):
        """The number that is compared with the strike.

        Parameters
        ----------
        prices : (n, steps, assets) float64 [money]

        Returns
        -------
        (n,) float64 [money]
        """
        if self.name == "asian":
            return prices[:, :, 0].mean(axis=1)
        if self.name == "geometric-asian":
            return np.exp(logarithms(prices[:, :, 0]).mean(axis=1))
        if self.name == "basket":
            return weighted(prices[:, -1], self.weights)
        return prices[:, -1, 0]

    def geometric(self, prices):
        """The geometric mean beside the arithmetic one of an Asian option or a basket, whose distribution is known.

        Parameters
        ----------
        prices : (n, steps, assets) float64 [money]

        Returns
        -------
        (n,) float64 [money]
        """
        if self.name == "asian":
            return np.exp(logarithms(prices[:, :, 0]).mean(axis=1))
        return np.exp(weighted(logarithms(prices[:, -1]), self.weights))

    def paid(self, prices, start, spread=0.0):
        """What is paid at expiry. Not for American options, which ``longstaff`` values.

        Parameters
        ----------
        prices : (n, steps, assets) float64 [money]
        start : float > 0, price before the first step [money]
        spread : float >= 0, variance of a step's logarithm, where a barrier is watched between the steps too

        Returns
        -------
        (n,) float64 [money]; where a barrier is watched between the steps, the mean given the prices at the steps
        """
        payment = self.exercised(self.underlying(prices))
        if self.name not in BARRIERS:
            return payment
        kept = untouched(prices[:, :, 0], start, self.barrier, self.name.startswith("up"), spread)
        return payment * (kept if self.name.endswith("out") else 1 - kept)

    def change(self, prices, by):
        """How much more exercise pays for a change of the prices: the derivative along each path. For ``SMOOTH``.

        Parameters
        ----------
        prices : (n, steps, assets) float64 [money]
        by : (n, steps, assets) float64, or what spreads to that: derivative of the prices' logarithms

        Returns
        -------
        (n,) float64 [money]
        """
        here = self.underlying(prices)
        inside = self.sign * (self.sign * (here - self.strike) > 0)
        by = np.broadcast_to(by, prices.shape)
        if self.name == "asian":
            return inside * (prices[:, :, 0] * by[:, :, 0]).mean(axis=1)
        if self.name == "geometric-asian":
            return inside * here * by[:, :, 0].mean(axis=1)
        if self.name == "basket":
            return inside * weighted(prices[:, -1] * by[:, -1], self.weights)
        return inside * here * by[:, -1, 0]


def logarithms(prices):
    """Logarithms of prices, without a warning for one that became 0 because float64 has none smaller.

    Parameters
    ----------
    prices : float64 array >= 0

    Returns
    -------
    float64 array of the same shape
    """
    with np.errstate(divide="ignore"):
        return np.log(prices)


def weighted(values, weights):
    """Sums with weights, added up one after the other, so that no row's sum depends on the other rows.

    Parameters
    ----------
    values : (n, k) float64
    weights : (k,) float64

    Returns
    -------
    (n,) float64
    """
    total = values[:, 0] * weights[0]
    for column, weight in zip(values.T[1:], weights[1:]):
        total = total + column * weight
    return total


def untouched(prices, start, barrier, up, spread):
    """The probability that a path did not touch a barrier, given its prices at the steps.

    Between two prices on one side, at distances a and b of their logarithms from that of the barrier, a lognormal path
    touches it with probability exp(-2 a b / spread).

    Parameters
    ----------
    prices : (n, steps) float64 [money]
    start : float > 0, price before the first step [money]
    barrier : float > 0 [money]
    up : bool, whether paths come from below
    spread : float >= 0, variance of a step's logarithm; 0: the barrier is watched at the steps alone

    Returns
    -------
    (n,) float64, 0 to 1

    Source: Glasserman, "Monte Carlo methods in financial engineering" (2003), section 6.4.
    """
    away = logarithms(np.hstack([np.full((len(prices), 1), start), prices]) / barrier) * (-1 if up else 1)
    kept = (away > 0).all(axis=1).astype(float)
    if spread > 0:
        away = np.maximum(away, 0)
        kept = kept * np.prod(-np.expm1(-2 * away[:, :-1] * away[:, 1:] / spread), axis=1)
    return kept
