"""Genz's six families of functions on the unit cube, each with its exact integral.

Parameters ``a`` say how hard a function is and ``u`` where its peak, kink or step is; d is the number of dimensions.

Source: Genz, "A package for testing multiple integration subroutines", in Numerical Integration, Reidel (1987) 337.
"""

import math

import numpy as np

# The sum of a for ten dimensions, as Barthelmann, Novak & Ritter, Adv. Comput. Math. 12 (2000) 273, took them.
DIFFICULTY = {"oscillatory": 9.0, "product-peak": 7.25, "corner-peak": 1.85, "gaussian": 7.03, "continuous": 20.4,
              "discontinuous": 4.3}
SHORT = 64  # dimensions


def parameters(family, uniform, difficulty):
    """The parameters of a member of a family.

    Parameters
    ----------
    family : one of ``DIFFICULTY``
    uniform : (2, d) float64 in [0, 1)
    difficulty : float > 0, what a adds up to; 0 for the family's own

    Returns
    -------
    a, u : (d,) float64
    """
    a = uniform[0] + 1e-3
    return a * ((difficulty or DIFFICULTY[family]) / a.sum()), uniform[1]


def oscillatory(x, a, u):
    """cos(2 pi u_1 + sum a_i x_i).

    Parameters
    ----------
    x : (n, d) float64
    a, u : (d,) float64

    Returns
    -------
    (n,) float64
    """
    return np.cos(2 * np.pi * u[0] + x @ a)


def product_peak(x, a, u):
    """prod 1 / (a_i**-2 + (x_i - u_i)**2).

    Parameters
    ----------
    x, a, u : as in ``oscillatory``
    """
    factors = x - u
    factors *= factors
    factors += a**-2
    return 1 / product(factors)


def corner_peak(x, a, u):
    """(1 + sum a_i x_i)**-(d + 1).

    Parameters
    ----------
    x, a, u : as in ``oscillatory``
    """
    return (1 + x @ a) ** -(len(a) + 1.0)


def gaussian(x, a, u):
    """exp(-sum a_i**2 (x_i - u_i)**2).

    Parameters
    ----------
    x, a, u : as in ``oscillatory``
    """
    scaled = (x - u) * a
    return np.exp(-np.einsum("ij,ij->i", scaled, scaled))


def continuous(x, a, u):
    """exp(-sum a_i |x_i - u_i|).

    Parameters
    ----------
    x, a, u : as in ``oscillatory``
    """
    return np.exp(-np.abs(x - u) @ a)


def discontinuous(x, a, u):
    """exp(sum a_i x_i) where the first two coordinates are at most u's, else 0.

    Parameters
    ----------
    x, a, u : as in ``oscillatory``
    """
    values = np.exp(x @ a)
    for column, edge in zip(x.T[:2], u):
        values *= column <= edge
    return values


def product(factors):
    """Products along rows, quicker than NumPy's where these are short.

    Parameters
    ----------
    factors : (n, d) float64

    Returns
    -------
    (n,) float64
    """
    if factors.shape[1] > SHORT:
        return np.prod(factors, axis=1)
    values = factors[:, 0].copy()
    for column in factors.T[1:]:
        values *= column
    return values


FAMILIES = {"oscillatory": oscillatory, "product-peak": product_peak, "corner-peak": corner_peak, "gaussian": gaussian,
            "continuous": continuous, "discontinuous": discontinuous}


def exact(family, a, u):
    """The integral over the unit cube.

    Parameters
    ----------
    family : one of ``FAMILIES``
    a, u : (d,) float64, a > 0

    Returns
    -------
    float
    """
    from scipy.special import erf

    if family == "oscillatory":
        return float(math.cos(2 * math.pi * u[0] + a.sum() / 2) * np.prod(np.sin(a / 2) / (a / 2)))
    if family == "product-peak":
        return float(np.prod(a * (np.arctan(a * (1 - u)) + np.arctan(a * u))))
    if family == "corner-peak":
        return _corner_peak(a)
    if family == "gaussian":
        return float(np.prod(math.sqrt(math.pi) / 2 / a * (erf(a * (1 - u)) + erf(a * u))))
    if family == "continuous":
        return float(np.prod(-(np.expm1(-a * u) + np.expm1(-a * (1 - u))) / a))
    ends = np.where(np.arange(len(a)) < 2, u, 1.0)
    return float(np.prod(np.expm1(a * ends) / a))


def _corner_peak(a):
    """Its integral as one over t: s**-(d + 1) is the integral of t**d exp(-s t) / d!; the usual sum would cancel."""
    from scipy.integrate import quad

    scale = math.lgamma(len(a) + 1) + float(np.log(a).sum())

    def _density(t):
        return math.exp(float(np.log(-np.expm1(-a * t)).sum()) - t - scale)

    peak = max(1.0, len(a) / (1 + a.sum()) ** 0.5)
    parts = [quad(_density, low, high, epsabs=0, epsrel=1e-13, limit=500)[0]
             for low, high in ((0, peak), (peak, 8 * peak), (8 * peak, 8 * peak + 750))]
    return math.fsum(parts)
