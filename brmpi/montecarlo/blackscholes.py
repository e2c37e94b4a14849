"""Closed forms under Black and Scholes: a lognormal price with constant rate, dividend yield and volatility.

Sources: Black & Scholes, J. Polit. Econ. 81 (1973) 637; Kemna & Vorst, J. Bank. Finance 14 (1990) 113; Reiner &
Rubinstein, Risk 4(8) (1991) 28; Broadie, Glasserman & Kou, Math. Finance 7 (1997) 325; Margrabe, J. Finance 33 (1978)
177.
"""

import math

import numpy as np
from scipy.special import log_ndtr, ndtr

SIGN = {"call": 1.0, "put": -1.0}
OVERSHOOT = 0.5825971579390107  # -zeta(1/2) / sqrt(2 pi): how far a random walk goes past a level, in steps' deviations


def lognormal(kind, forward, strike, deviation, discount):
    """The price of an option on what is lognormal at expiry.

    Parameters
    ----------
    kind : "call" or "put"
    forward : float > 0, expected value at expiry [money]
    strike : float >= 0 [money]
    deviation : float >= 0, of the logarithm at expiry
    discount : float > 0

    Returns
    -------
    float [money]
    """
    sign = SIGN[kind]
    if deviation == 0 or strike == 0:
        return discount * max(sign * (forward - strike), 0.0)
    upper = math.log(forward / strike) / deviation + deviation / 2
    return discount * sign * (forward * ndtr(sign * upper) - strike * ndtr(sign * (upper - deviation)))


def european(kind, spot, strike, rate, dividend, volatility, maturity):
    """The price of a European option.

    Parameters
    ----------
    kind : "call" or "put"
    spot : float > 0 [money]
    strike : float >= 0 [money]
    rate, dividend : float, continuous [1 / year]
    volatility : float >= 0 [1 / sqrt(year)]
    maturity : float >= 0 [years]

    Returns
    -------
    float [money]
    """
    forward = spot * math.exp((rate - dividend) * maturity)
    return lognormal(kind, forward, strike, volatility * math.sqrt(maturity), math.exp(-rate * maturity))


def greeks(kind, spot, strike, rate, dividend, volatility, maturity):
    """Derivatives of the price of a European option.

    Parameters
    ----------
    kind, spot, strike, rate, dividend, volatility, maturity : as in ``european``, the last two > 0

    Returns
    -------
    dict: delta, gamma [1 / money], vega [money for a volatility of 1], rho [money for a rate of 1] and theta
        [money / year]
    """
    sign, deviation = SIGN[kind], volatility * math.sqrt(maturity)
    upper = (math.log(spot / strike) + (rate - dividend) * maturity) / deviation + deviation / 2
    density = math.exp(-upper * upper / 2) / math.sqrt(2 * math.pi)
    off = math.exp(-dividend * maturity)
    delta = sign * off * float(ndtr(sign * upper))
    cash = sign * strike * math.exp(-rate * maturity) * float(ndtr(sign * (upper - deviation)))
    vega = spot * off * density * math.sqrt(maturity)
    return {"delta": delta, "gamma": off * density / (spot * deviation), "vega": vega, "rho": maturity * cash,
            "theta": dividend * spot * delta - rate * cash - vega * volatility / (2 * maturity)}


def geometric_asian(kind, spot, strike, rate, dividend, volatility, maturity, steps):
    """The price of an option on the geometric mean of the prices after each of some equal steps.

    Parameters
    ----------
    kind, spot, strike, rate, dividend, volatility, maturity : as in ``european``
    steps : int >= 1

    Returns
    -------
    float [money]
    """
    mean_time = maturity * (steps + 1) / (2 * steps)
    variance = volatility**2 * maturity * (steps + 1) * (2 * steps + 1) / (6 * steps**2)
    forward = spot * math.exp((rate - dividend - volatility**2 / 2) * mean_time + variance / 2)
    return lognormal(kind, forward, strike, math.sqrt(variance), math.exp(-rate * maturity))


def geometric_basket(kind, spots, weights, strike, rate, dividend, covariance, maturity):
    """The price of an option on a weighted geometric mean of several prices.

    Parameters
    ----------
    kind : "call" or "put"
    spots : (assets,) float64 > 0 [money]
    weights : (assets,) float64 > 0, adding up to 1
    strike, rate, dividend : as in ``european``
    covariance : (assets, assets) float64, of the logarithms in a year
    maturity : float > 0 [years]

    Returns
    -------
    float [money]
    """
    variance = float(weights @ covariance @ weights) * maturity
    drift = (rate - dividend) * maturity - float(weights @ np.diag(covariance)) * maturity / 2
    forward = math.exp(float(weights @ np.log(spots)) + drift + variance / 2)
    return lognormal(kind, forward, strike, math.sqrt(variance), math.exp(-rate * maturity))


def exchange(kind, spots, weights, dividend, covariance, maturity):
    """The price of a call or put of strike 0 on one asset less another: the right to exchange them (Margrabe).

    Parameters
    ----------
    kind : "call" or "put"
    spots : (2,) float64 > 0 [money]
    weights : (2,) float64, one > 0 and one < 0
    dividend : float, of both [1 / year]
    covariance : (2, 2) float64, of the logarithms in a year
    maturity : float > 0 [years]

    Returns
    -------
    float [money]
    """
    variance = max(0.0, float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])) * maturity
    parts = np.asarray(spots) * weights
    return lognormal(kind, float(parts.max()), -float(parts.min()), math.sqrt(variance), math.exp(-dividend * maturity))


def barrier(kind, payoff, spot, strike, level, rate, dividend, volatility, maturity):
    """The price of an option that comes to life, or ends, when the price touches a level at any time.

    Parameters
    ----------
    kind : "call" or "put"
    payoff : "up-and-out", "up-and-in", "down-and-out" or "down-and-in"
    spot, strike : as in ``european``
    level : float > 0, above the spot for up and below it for down [money]
    rate, dividend, volatility, maturity : as in ``european``, the last two > 0

    Returns
    -------
    float [money]; NaN or infinite where the volatility is so small that the formula's parts are not in range
    """
    phi, eta = SIGN[kind], 1.0 if payoff.startswith("down") else -1.0
    deviation, carry = volatility * math.sqrt(maturity), rate - dividend
    mu = carry / volatility**2 - 0.5
    shift = (1 + mu) * deviation
    kept, paid = math.exp(-dividend * maturity), math.exp(-rate * maturity)

    def _term(at, side, power):  # the power may pass float64 where the probability beside it is as small
        power = 2 * math.log(level / spot) if power else 0.0
        with np.errstate(over="ignore", invalid="ignore"):
            return phi * (spot * kept * np.exp((mu + 1) * power + log_ndtr(side * at))
                          - strike * paid * np.exp(mu * power + log_ndtr(side * (at - deviation))))

    a = _term(math.log(spot / strike) / deviation + shift, phi, False)
    b = _term(math.log(spot / level) / deviation + shift, phi, False)
    c = _term(math.log(level**2 / (spot * strike)) / deviation + shift, eta, True)
    d = _term(math.log(level / spot) / deviation + shift, eta, True)
    with np.errstate(invalid="ignore"):
        inside = {(1.0, 1.0, True): c, (1.0, 1.0, False): a - b + d, (1.0, -1.0, True): a,
                  (1.0, -1.0, False): b - c + d, (-1.0, 1.0, True): b - c + d, (-1.0, 1.0, False): a,
                  (-1.0, -1.0, True): a - b + d, (-1.0, -1.0, False): c}[phi, eta, strike > level]
    return float(inside if payoff.endswith("in") else a - inside)


def watched(kind, payoff, spot, strike, level, rate, dividend, volatility, maturity, steps):
    """Nearly the price of a barrier option that is watched after each of some equal steps only.

    It is that of one which is watched at all times, with its level moved away by exp(0.5826 volatility sqrt(step)).

    Parameters
    ----------
    kind, payoff, spot, strike, level, rate, dividend, volatility, maturity : as in ``barrier``
    steps : int >= 1

    Returns
    -------
    float [money], off by what falls faster than 1 / sqrt(steps)

    Source: Broadie, Glasserman & Kou, Math. Finance 7 (1997) 325.
    """
    away = OVERSHOOT * volatility * math.sqrt(maturity / steps) * (1 if level > spot else -1)
    return barrier(kind, payoff, spot, strike, level * math.exp(away), rate, dividend, volatility, maturity)
