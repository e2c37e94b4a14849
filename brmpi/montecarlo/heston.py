"""Heston's model: the variance of the price reverts to a mean, and is correlated with the price.

    dS = (rate - dividend) S dt + sqrt(v) S dW,    dv = kappa (theta - v) dt + xi sqrt(v) dZ,    dW dZ = rho dt

Prices of European options come from the characteristic function; paths from Andersen's quadratic-exponential (QE-M)
steps, which keep the discounted price a martingale (but for steps so long that the expectation this takes is infinite,
with rho > 0). They leave a bias that falls with the step: measured to +-0.005, none in the call of Broadie and Kaya's
table (6.806, one year) from 8 steps on; to +-0.012, in Andersen's hard case I (13.085, ten years, xi = 1) 0.23, 0.13
and 0.02 with 1, 2 and 4 steps a year.

Sources: Heston, Rev. Financ. Stud. 6 (1993) 327; Albrecher, Mayer, Schoutens & Tistaert, Wilmott (2007), for a form of
the characteristic function without jumps; Andersen, J. Comput. Finance 11(3) (2008) 1.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

SWITCH = 1.5  # psi above which the exponential form is taken
FAINT, WIDEST = 1e-13, 1e7  # where Fourier's integral ends: at what is left of the integrand times w, or at last
UNSURE = 1e-6  # of the integral, which is of the order of 1: an error that is not one of rounding


@dataclass(frozen=True)
class Model:
    """Heston's parameters.

    Attributes
    ----------
    v0 : float >= 0, variance today [1 / year]
    kappa : float > 0, rate of reversion [1 / year]
    theta : float >= 0, mean variance [1 / year]
    xi : float > 0, volatility of the variance [1 / year]
    rho : float, -1 to 1, correlation
    """

    v0: float
    kappa: float
    theta: float
    xi: float
    rho: float


def european(kind, spot, strike, rate, dividend, maturity, model):
    """The price of a European option, by Fourier's integral.

    Parameters
    ----------
    kind : "call" or "put"
    spot, strike : float > 0 [money]
    rate, dividend : float [1 / year]
    maturity : float > 0 [years]
    model : Model

    Returns
    -------
    float [money]; NaN where the integral is not found to 6 digits
    """
    from scipy.integrate import quad

    forward = spot * math.exp((rate - dividend) * maturity)
    moneyness = math.log(forward / strike)

    def _part(w):  # of the covered call's transform along Im = -1/2 (Lewis): one integral, and no cancellation
        return _characteristic(w - 0.5j, maturity, model) / (w * w + 0.25)

    parts, off, low, high = [], 0.0, 0.0, 5.0
    while high < WIDEST and (not parts or abs(_part(low)) * low > FAINT):
        for weight, function in (("cos", lambda w: _part(w).real), ("sin", lambda w: -_part(w).imag)):
            part, error, *_ = quad(function, low, high, weight=weight, wvar=moneyness, epsabs=1e-11, epsrel=1e-10,
                                   limit=400, full_output=1)
            parts.append(part)
            off += error
        low, high = high, 2 * high
    if not off < UNSURE:
        return math.nan
    total = math.fsum(parts)
    call = math.exp(-rate * maturity) * (forward - math.sqrt(forward * strike) / math.pi * total)
    return call if kind == "call" else call - math.exp(-rate * maturity) * (forward - strike)


def _characteristic(u, maturity, model):
    """E exp(i u X) of the logarithm X of the price over its forward."""
    i, xi2 = 1j, model.xi**2
    b = model.kappa - i * model.rho * model.xi * u
    d = np.sqrt(b * b + xi2 * (i * u + u * u))
    g = (b - d) / (b + d)
    fade = np.exp(-d * maturity)
    mean = model.kappa * model.theta / xi2 * ((b - d) * maturity - 2 * np.log((1 - g * fade) / (1 - g)))
    return np.exp(mean + model.v0 / xi2 * (b - d) * (1 - fade) / (1 - g * fade))


def paths(uniform, spot, rate, dividend, maturity, steps, model, matrix=None):
    """Prices after each of some equal steps.

    Parameters
    ----------
    uniform : (n, 2 steps) float64 in (0, 1): those of the price first, which are of more weight, then the variance's
    spot : float > 0 [money]
    rate, dividend : float [1 / year]
    maturity : float > 0 [years]
    steps : int >= 1
    model : Model
    matrix : (steps, steps) float64, as from ``paths.bridge``, which makes the Brownian path that is the price's own;
        None: each step takes one normal number

    Returns
    -------
    (n, steps) float64 [money]
    """
    dt = maturity / steps
    kappa, theta, xi, rho = model.kappa, model.theta, model.xi, model.rho
    fade = math.exp(-kappa * dt)
    k1 = dt / 2 * (kappa * rho / xi - 0.5) - rho / xi
    k2 = dt / 2 * (kappa * rho / xi - 0.5) + rho / xi
    k3 = dt / 2 * (1 - rho * rho)
    tilt = k2 + k3 / 2  # the exponent of the variance after a step in the expected price
    v = np.full(len(uniform), model.v0)
    log = np.full(len(uniform), math.log(spot))
    out = np.empty((len(uniform), steps))
    normal = ndtri(uniform[:, :steps])
    if matrix is not None:
        normal = normal @ np.diff(matrix, axis=0, prepend=0).T
    for step in range(steps):
        z, u = normal[:, step], uniform[:, steps + step]
        mean = theta + (v - theta) * fade
        spread = v * xi * xi * fade / kappa * (1 - fade) + theta * xi * xi / (2 * kappa) * (1 - fade) ** 2
        psi = spread / np.maximum(mean * mean, 1e-300)
        after, k0 = _variance(u, mean, psi, tilt)
        k0 = k0 - (k1 + k3 / 2) * v
        log = log + (rate - dividend) * dt + k0 + k1 * v + k2 * after + np.sqrt(np.maximum(k3 * (v + after), 0)) * z
        v = after
        out[:, step] = np.exp(log)
    return out


def _variance(u, mean, psi, tilt):
    """The variance after a step with given mean and variance / mean**2, and minus the logarithm of E exp(tilt v)."""
    inverse = 2 / np.maximum(psi, 1e-200)
    b2 = np.maximum(inverse - 1 + np.sqrt(inverse) * np.sqrt(np.maximum(inverse - 1, 0)), 0)
    a = mean / (1 + b2)
    quadratic = a * (np.sqrt(b2) + ndtri(u)) ** 2
    room = 1 - 2 * tilt * a
    with np.errstate(divide="ignore", invalid="ignore"):
        k_quadratic = -tilt * b2 * a / room + np.log(room) / 2
        p = (psi - 1) / (psi + 1)
        beta = (1 - p) / np.maximum(mean, 1e-300)
        exponential = np.where(u > p, np.log((1 - p) / (1 - u)) / beta, 0.0)
        k_exponential = np.where(beta > tilt, -np.log(p + beta * (1 - p) / (beta - tilt)), np.nan)
    low = psi <= SWITCH
    k0 = np.where(low, k_quadratic, k_exponential)
    plain = -tilt * mean  # where E exp(tilt v) is infinite no correction is possible
    return np.where(low, quadratic, exponential), np.where(np.isfinite(k0), k0, plain)
