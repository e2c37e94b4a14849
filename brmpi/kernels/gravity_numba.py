"""The loops of ``gravity``, compiled by Numba. Imported when they are first used: Numba takes long to load."""

import numpy as np
from numba import njit

from brmpi.kernels.compiled import SUMS, compiled
from brmpi.kernels.gravity import NEAREST, TILE, TINY

PART = 256  # sources summed in float32: where vectors are short, longer sums would lose digits


@njit(error_model="numpy", fastmath=SUMS, inline="always")
def inverse_root(r2):
    """1 / sqrt(r2) to all bits: float32's, then two terms of the series. A division and a root take twice as long.

    Parameters
    ----------
    r2 : float, TINY to 1 / TINY

    Returns
    -------
    float
    """
    w = np.float64(np.float32(1) / np.sqrt(np.float32(r2)))
    e = 1 - r2 * (w * w)
    return w + w * e * (0.5 + 0.375 * e)  # (1 - e)^(-1/2)


@njit(error_model="numpy", fastmath=SUMS, inline="always")
def inverse_cube(r2):
    """1 / sqrt(r2)^3, in the same way.

    Parameters
    ----------
    r2 : float, TINY to 1 / TINY

    Returns
    -------
    float
    """
    w = np.float64(np.float32(1) / np.sqrt(np.float32(r2)))
    e = 1 - r2 * (w * w)
    w = w * w * w
    return w + w * e * (1.5 + 1.875 * e)  # (1 - e)^(-3/2)


@compiled
def float64(targets, sources, eps2, unit, out):
    """Add accelerations, all in float64.

    Parameters
    ----------
    targets : (3, n) float64
    sources : (4, m) float64, m a multiple of TILE
    eps2 : float
    unit : float, what the accelerations are multiplied by
    out : (3, n) float64
    """
    tx, ty, tz = targets[0], targets[1], targets[2]
    for first in range(0, sources.shape[1], TILE):
        x, y, z = sources[0, first : first + TILE], sources[1, first : first + TILE], sources[2, first : first + TILE]
        mass = sources[3, first : first + TILE]
        for i in range(tx.size):
            xi, yi, zi = tx[i], ty[i], tz[i]
            ax = ay = az = 0.0
            for j in range(TILE):
                dx, dy, dz = x[j] - xi, y[j] - yi, z[j] - zi
                w = mass[j] * inverse_cube(max(dx * dx + dy * dy + dz * dz + eps2, TINY))
                ax += w * dx
                ay += w * dy
                az += w * dz
            out[0, i] += unit * ax
            out[1, i] += unit * ay
            out[2, i] += unit * az


@compiled
def potential(targets, sources, eps2, out):
    """Subtract sum of mass over softened distance, all in float64.

    Parameters
    ----------
    targets : (3, n) float64
    sources : (4, m) float64, m a multiple of TILE
    eps2 : float
    out : (n,) float64
    """
    tx, ty, tz = targets[0], targets[1], targets[2]
    for first in range(0, sources.shape[1], TILE):
        x, y, z = sources[0, first : first + TILE], sources[1, first : first + TILE], sources[2, first : first + TILE]
        mass = sources[3, first : first + TILE]
        for i in range(tx.size):
            xi, yi, zi = tx[i], ty[i], tz[i]
            phi = 0.0
            for j in range(TILE):
                dx, dy, dz = x[j] - xi, y[j] - yi, z[j] - zi
                r2 = dx * dx + dy * dy + dz * dz
                phi += mass[j] / np.sqrt(r2 + eps2) if r2 > 0 else 0.0
            out[i] -= phi


@njit(error_model="numpy", fastmath={"contract"})
def difference(high, high_i, low, low_i):
    """Difference of two numbers, each a pair of float32: here the order of the terms must stay.

    Parameters
    ----------
    high, high_i, low, low_i : float32

    Returns
    -------
    float32
    """
    return (high - high_i) + (low - low_i)


@compiled
def mixed(high, low, source_high, source_low, masses, eps2, unit, out):
    """Add accelerations: pairs and parts of a tile in float32, the rest in float64.

    Parameters
    ----------
    high, low : (3, n) float32, positions are their sum
    source_high, source_low : (3, m) float32, m a multiple of TILE
    masses : (m,) float32
    eps2 : float32
    unit : float, what the accelerations are multiplied by
    out : (3, n) float64
    """
    one, zero = np.float32(1), np.float32(0)
    for first in range(0, masses.size, TILE):
        end = first + TILE
        x, y, z = source_high[0, first:end], source_high[1, first:end], source_high[2, first:end]
        xl, yl, zl = source_low[0, first:end], source_low[1, first:end], source_low[2, first:end]
        mass = masses[first:end]
        for i in range(high.shape[1]):
            xi, yi, zi, xli, yli, zli = high[0, i], high[1, i], high[2, i], low[0, i], low[1, i], low[2, i]
            sx = sy = sz = 0.0
            for part in range(0, TILE, PART):
                ax = ay = az = zero
                for j in range(part, part + PART):
                    dx = difference(x[j], xi, xl[j], xli)
                    dy = difference(y[j], yi, yl[j], yli)
                    dz = difference(z[j], zi, zl[j], zli)
                    w = one / np.sqrt(max(dx * dx + dy * dy + dz * dz + eps2, NEAREST))
                    w = mass[j] * w * w * w
                    ax += w * dx
                    ay += w * dy
                    az += w * dz
                sx += ax
                sy += ay
                sz += az
            out[0, i] += unit * sx
            out[1, i] += unit * sy
            out[2, i] += unit * sz
