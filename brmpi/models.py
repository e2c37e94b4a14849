"""Initial states of star clusters and galaxies, drawn by global index: the same bodies on any number of ranks."""

import numpy as np

DRAWS = 8  # uniform numbers that each body has

def directions(u):
    """Unit vectors, isotropic.

    Parameters
    ----------
    u : (n, 2) float64, uniform in [0, 1)

    Returns
    -------
    (n, 3) float64
    """
    z = 2 * u[:, 0] - 1
    angle = 2 * np.pi * u[:, 1]
    around = np.sqrt(1 - z**2)
    return np.column_stack([around * np.cos(angle), around * np.sin(angle), z])


def plummer(u, mass, scale, G=1.0):
    """Bodies of a Plummer sphere in equilibrium.

    Radii come from the inverse of the enclosed mass, cut at 99.9 % of it; speeds in units of the escape speed have
    q^2 distributed as Beta(3/2, 9/2), which is the density q^2 (1 - q^2)^(7/2) of the source without its rejection.

    Source: Aarseth, Henon & Wielen, Astron. Astrophys. 37 (1974) 183, appendix.

    Parameters
    ----------
    u : (n, DRAWS) float64, uniform in [0, 1)
    mass : float, of the whole sphere
    scale : float, Plummer radius [length]
    G : float

    Returns
    -------
    pos, vel : (n, 3) float64, about the sphere's centre
    """
    from scipy.special import betaincinv

    inside = 0.999 * np.maximum(u[:, 0], 2.0**-54)
    radius = scale / np.sqrt(inside ** (-2 / 3) - 1)
    escape = np.sqrt(2 * G * mass) * (radius**2 + scale**2) ** -0.25
    speed = escape * np.sqrt(betaincinv(1.5, 4.5, u[:, 3]))
    return radius[:, None] * directions(u[:, 1:3]), speed[:, None] * directions(u[:, 4:6])


def centred(values, mass):
    """Positions or velocities with their mean, weighted by mass, taken off.

    Parameters
    ----------
    values : (n, 3) float64
    mass : (n,) float64, not negative

    Returns
    -------
    (n, 3) float64
    """
    total = mass.sum()
    return values - (mass[:, None] * values).sum(axis=0) / total if total > 0 else values
