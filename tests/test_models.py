"""Initial states: the right distributions, in equilibrium."""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from brmpi import models
from brmpi.kernels import gravity
from brmpi.streams import Stream


def uniforms(n, seed=3):
    return Stream(seed, "test").uniform(0, n, (models.DRAWS,))


def virial_ratio(pos, vel, mass):
    sources = np.zeros((4, gravity.TILE * gravity.tiles(len(mass))))
    sources[:3, : len(mass)], sources[3, : len(mass)] = pos.T, mass
    phi = np.zeros(len(mass))
    gravity.potentials(np.ascontiguousarray(pos.T), sources, 0.0, phi)
    return 2 * (mass * (vel**2).sum(axis=1) / 2).sum() / -(mass * phi / 2).sum()


def test_directions_are_isotropic():
    found = models.directions(uniforms(100_000)[:, :2])
    assert np.allclose((found**2).sum(axis=1), 1)
    assert all(stats.kstest(axis, "uniform", args=(-1, 2)).pvalue > 1e-3 for axis in found.T)  # Archimedes


def test_plummer_radii_follow_the_enclosed_mass():
    pos, _ = models.plummer(uniforms(50_000), mass=1.0, scale=2.0)
    radius = np.linalg.norm(pos, axis=1)
    assert stats.kstest(radius, lambda r: (1 + (2 / r) ** 2) ** -1.5 / 0.999).pvalue > 1e-3


def test_plummer_speeds_follow_the_density_that_the_rejection_would_give():
    n = 50_000
    pos, vel = models.plummer(uniforms(n), mass=3.0, scale=1.0, G=2.0)
    escape = np.sqrt(2 * 2.0 * 3.0) * ((pos**2).sum(axis=1) + 1) ** -0.25
    q = np.linalg.norm(vel, axis=1) / escape
    assert q.max() < 1
    grid = np.linspace(0, 1, 2001)
    density = grid**2 * (1 - grid**2) ** 3.5
    cumulative = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2)])
    assert stats.kstest(q, lambda x: np.interp(x, grid, cumulative / cumulative[-1])).pvalue > 1e-3


def test_plummer_sphere_is_virialised():
    n = 16_384
    pos, vel = models.plummer(uniforms(n), mass=1.0, scale=3 * np.pi / 16)
    mass = np.full(n, 1 / n)
    assert abs(virial_ratio(pos, vel, mass) - 1) < 3 / np.sqrt(n)


@dataclass(frozen=True)
class Galaxy:
    """Two galaxies with which every formula matters."""

    fraction: float = 1.0
    mass: float = 2.0
    disk: float = 0.4
    scale: float = 0.4
    disk_scale: float = 1.4
    position: tuple = (0.0, 0.0, 0.0)
    velocity: tuple = (0.0, 0.0, 0.0)
    tilt: float = 0.0
    azimuth: float = 0.0


def test_disc_radii_follow_the_exponential_profile():
    pos, vel = models.disc(uniforms(50_000), Galaxy(), 1.0, 0.1)
    radius = np.hypot(*pos[:, :2].T)
    inside = lambda r: (1 - (1 + r / 1.4) * np.exp(-r / 1.4)) / (1 - 7 * np.exp(-6))  # noqa: E731
    assert stats.kstest(radius, inside).pvalue > 1e-3 and radius.max() < 6 * 1.4
    assert 0.1 < np.abs(pos[:, 2]).std() / 0.14 < 1
    along = (pos[:, 0] * vel[:, 1] - pos[:, 1] * vel[:, 0]) / radius
    assert (along > 0).mean() > 0.999  # it turns about +z
    assert np.allclose(np.median(along / np.sqrt(models.rotation(radius, Galaxy(), 1.0, 0.1))), 1, atol=0.01)


def test_extreme_numbers_give_finite_bodies():
    u = np.array([[0.0] * 6, [1 - 2.0**-53] * 6])
    for draw in (models.disc, models.bulge):
        assert all(np.isfinite(values).all() for values in draw(u, Galaxy(), 1.0, 0.0))


def test_a_galaxy_is_near_equilibrium_and_an_encounter_puts_each_in_its_place():
    n = 8192
    pos, vel, mass = models.encounter(uniforms(n), [Galaxy()], 1.0, 0.0)
    assert np.isclose(mass.sum(), 2.0) and 0.85 < virial_ratio(pos, vel, mass) < 1.1
    spin = (mass[:, None] * np.cross(pos, vel)).sum(axis=0)
    first = Galaxy(position=(10.0, 0.0, 0.0), velocity=(0.0, 0.5, 0.0), tilt=30.0, azimuth=90.0)
    both = models.encounter(uniforms(n), [first, Galaxy(fraction=0.5, mass=1.0)], 1.0, 0.0)
    split = round(n * 2 / 3)
    assert np.allclose([both[0][:split].mean(axis=0), both[1][:split].mean(axis=0)], [[10, 0, 0], [0, 0.5, 0]])
    assert np.allclose(both[0][split:].mean(axis=0), 0) and np.isclose(both[2][:split].sum(), 2.0)
    turned = (both[2][:split, None] * np.cross(both[0][:split] - [10, 0, 0], both[1][:split] - [0, 0.5, 0])).sum(axis=0)
    tilted = np.array([0.5, 0, np.sqrt(0.75)])  # z tilted by 30 degrees towards -y, then turned by 90: towards x
    assert turned @ tilted / np.linalg.norm(turned) > 0.999 and spin[2] / np.linalg.norm(spin) > 0.999


def test_centred():
    values, mass = np.random.default_rng(0).normal(size=(50, 3)), np.linspace(0, 1, 50)
    assert np.abs(mass @ models.centred(values, mass)).max() < 1e-14
    assert models.centred(np.zeros((0, 3)), np.zeros(0)).shape == (0, 3)
