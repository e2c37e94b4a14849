"""Initial states of star clusters and disc galaxies, drawn by global index: the same bodies on any number of ranks.

Each body takes ``DRAWS`` uniform numbers whatever it is, and none is rejected. sims/nbody/README.md has the formulas
and how they were checked.
"""

import numpy as np

DRAWS = 6  # uniform numbers of a body
KEPT = 0.999  # of a Plummer sphere's mass: within 38.7 scale radii
EDGE = 6.0  # radius of a disc [scale lengths]
THICKNESS = 0.1  # scale height of a disc [scale lengths]
DISPERSION = 0.12  # of each velocity component in a disc [circular speed]


def directions(u):
    """Unit vectors, isotropic.

    Parameters
    ----------
    u : (n, 2) float64, uniform in [0, 1)

    Returns
    -------
    (n, 3) float64
    """
    z, angle = 1 - 2 * u[:, 0], 2 * np.pi * u[:, 1]
    around = np.sqrt(1 - z * z)
    return np.column_stack([around * np.cos(angle), around * np.sin(angle), z])


def plummer(u, mass, scale, G=1.0):
    """Bodies of a Plummer sphere in equilibrium.

    The radius is the inverse of the mass within it. The speed is q times that of escape, and q^2 follows the beta
    distribution (3/2, 9/2): the density q^2 (1 - q^2)^(7/2) of the source, without its rejection.

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

    radius = _plummer_radius(u[:, 0], scale)
    speed = np.sqrt(2 * G * mass / np.hypot(radius, scale) * betaincinv(1.5, 4.5, u[:, 3]))
    return radius[:, None] * directions(u[:, 1:3]), speed[:, None] * directions(u[:, 4:6])


def rotation(radius, galaxy, G, eps):
    """Square of the circular speed around a galaxy, sphere and disc both taken as spherical.

    Parameters
    ----------
    radius : (n,) float64 [length]
    galaxy : object with mass, disk, scale and disk_scale
    G : float
    eps : float >= 0, softening [length]

    Returns
    -------
    (n,) float64 [length**2 / time**2]
    """
    disc = galaxy.disk * _disc_mass(np.minimum(radius / galaxy.disk_scale, EDGE)) / _disc_mass(EDGE)
    sphere = (1 - galaxy.disk) * (radius / np.hypot(radius, galaxy.scale)) ** 3
    return G * galaxy.mass * (sphere + disc) * radius**2 / (radius**2 + eps**2) ** 1.5


def bulge(u, galaxy, G, eps):
    """Bodies of a galaxy's Plummer sphere.

    Their speeds are those of a sphere of another mass, such that the virial theorem <v^2> = <r dPhi/dr> holds in the
    field of sphere and disc together.

    Parameters
    ----------
    u : (n, DRAWS) float64, uniform in [0, 1)
    galaxy, G, eps : as in ``rotation``

    Returns
    -------
    pos, vel : (n, 3) float64, about the galaxy's centre
    """
    radius = _plummer_radius((np.arange(1000) + 0.5) / 1000, galaxy.scale)  # a thousandth of the sphere in each shell
    within = (radius / np.hypot(radius, galaxy.scale)) ** 3
    alone = (G * galaxy.mass * within / radius).mean()
    mass = galaxy.mass * rotation(radius, galaxy, G, eps).mean() / alone if alone > 0 else 0.0
    return plummer(u, mass, galaxy.scale, G)


def disc(u, galaxy, G, eps):
    """Bodies of a galaxy's exponential disc in the xy plane, turning about +z.

    The radius is the inverse of the mass within it, 1 - (1 + x) exp(-x) in scale lengths, by Lambert's W_-1; the height
    follows sech^2; each velocity component spreads uniformly about the circular motion.

    Parameters
    ----------
    u : (n, DRAWS) float64, uniform in [0, 1)
    galaxy, G, eps : as in ``rotation``

    Returns
    -------
    pos, vel : (n, 3) float64, about the galaxy's centre
    """
    from scipy.special import lambertw

    # fmax: at u = 0 rounding may pass W_-1's branch point, where it is NaN
    x = np.fmax(-1 - lambertw((_disc_mass(EDGE) * u[:, 0] - 1) / np.e, -1).real, 1e-9)
    radius, angle = galaxy.disk_scale * x, 2 * np.pi * u[:, 1]
    height = THICKNESS * galaxy.disk_scale * np.arctanh(0.999 * (2 * u[:, 2] - 1))
    circular = np.sqrt(rotation(radius, galaxy, G, eps))
    outward, along, up = DISPERSION * np.sqrt(3) * circular * (2 * u[:, 3:6].T - 1)
    along = along + circular
    cos, sin = np.cos(angle), np.sin(angle)
    pos = np.column_stack([radius * cos, radius * sin, height])
    return pos, np.column_stack([outward * cos - along * sin, outward * sin + along * cos, up])


def encounter(u, galaxies, G, eps):
    """Bodies of several galaxies, each a disc in a Plummer sphere, in the order of the galaxies.

    Parameters
    ----------
    u : (n, DRAWS) float64, uniform in [0, 1)
    galaxies : sequence of objects with fraction, mass, disk, scale, disk_scale, position, velocity, tilt and azimuth
    G : float
    eps : float >= 0, softening [length]

    Returns
    -------
    pos, vel : (n, 3) float64
    mass : (n,) float64
    """
    from brmpi import partition

    counts = partition.shares(len(u), [galaxy.fraction for galaxy in galaxies])
    pos, vel, mass = np.empty((len(u), 3)), np.empty((len(u), 3)), np.empty(len(u))
    for galaxy, first, n in zip(galaxies, partition.offsets(counts), counts):
        flat = round(galaxy.disk * n)
        parts = disc(u[first : first + flat], galaxy, G, eps), bulge(u[first + flat : first + n], galaxy, G, eps)
        here = slice(first, first + n)
        mass[here] = galaxy.mass / max(n, 1)
        for whole, disc_part, bulge_part, place in zip((pos, vel), *parts, (galaxy.position, galaxy.velocity)):
            both = centred(np.concatenate([disc_part, bulge_part]), mass[here])
            whole[here] = _turned(both, galaxy.tilt, galaxy.azimuth) + place
    return pos, vel, mass


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


def _plummer_radius(u, scale):
    s = np.cbrt(KEPT * u)
    return scale * s / np.sqrt(1 - s * s)


def _disc_mass(x):
    """Mass of an exponential disc within x scale lengths, as a fraction of an endless one's."""
    return 1 - (1 + x) * np.exp(-x)


def _turned(values, tilt, azimuth):
    """Vectors with the z axis tilted about x, then turned about z [degrees]."""
    x, y, z = values.T
    cos, sin = np.cos(np.radians(tilt)), np.sin(np.radians(tilt))
    y, z = cos * y - sin * z, sin * y + cos * z
    cos, sin = np.cos(np.radians(azimuth)), np.sin(np.radians(azimuth))
    return np.column_stack([cos * x - sin * y, sin * x + cos * y, z])
