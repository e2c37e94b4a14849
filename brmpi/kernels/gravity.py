"""Gravity of point masses by direct sum: accelerations and potentials with Plummer softening.

    a_i = sum_j G m_j (x_j - x_i) / (|x_j - x_i|^2 + eps^2)^(3/2)        phi_i = -sum_j G m_j / (…)^(1/2)

Sources come in tiles of ``TILE`` bodies. A tile's sum is one loop of fixed length, and tiles are added in order:
a body's result is the same bits wherever it sits among the targets, however the sources are cut into calls.
A pair at distance 0 with eps = 0, as a body with itself, adds nothing; with eps > 0 a body adds nothing to its own
acceleration, and ``potentials`` leaves pairs at distance 0 out.
"""

import numpy as np

from brmpi.kernels import choice

TILE = 512  # sources; a multiple of every vector width, 16 kB of them in float64
PRECISIONS = ("float64", "mixed")
TINY = 1e-36  # what a squared distance counts for at least, in units of the scale's: it is also a float32 then
NEAREST = np.float32(1e-25)  # squared distance in mixed precision, in units of the scale's: its root's cube is finite


def tiles(count):
    """Tiles that a number of bodies fills, the last one perhaps in part.

    Parameters
    ----------
    count : int >= 0, bodies

    Returns
    -------
    int
    """
    return -(-count // TILE)


def scale_of(pos, mass):
    """Powers of two near the largest coordinate and the largest mass: the units that mixed precision computes in.

    Parameters
    ----------
    pos : array of float64, positions [length]
    mass : array of float64, G * mass [length**3 / time**2]

    Returns
    -------
    length, mass : float
    """
    return tuple(2.0 ** np.frexp(np.abs(values).max(initial=0) or 0.5)[1] for values in (pos, mass))


def accelerations(targets, sources, eps, out, precision="float64", backend="auto", scale=None):
    """Add the acceleration that sources give to targets.

    ``precision`` "mixed" takes differences of positions from float32 pairs (48 bits), inverse roots and sums of 256
    pairs in float32, and adds those up in float64: an acceleration is off by at most 5e-7 of the sum of its pairs'
    magnitudes, which cancel in part; the root mean square over a cluster's bodies is below 5e-8 of that sum. Pairs
    nearer than 3e-13 of the scale's length take the inverse root of that distance: float32 holds no greater force. In
    float64 that is so for pairs nearer than 1e-18 of it.

    Parameters
    ----------
    targets : (3, n) float64, C-contiguous, positions [length]
    sources : (4, m) float64, C-contiguous, rows x, y, z [length] and G * mass [length**3 / time**2]; m a multiple
        of TILE, filled up with mass 0
    eps : float >= 0, softening [length]
    out : (3, n) float64, C-contiguous, is added to [length / time**2]
    precision : "float64" or "mixed"
    backend : one of ``kernels.BACKENDS``
    scale : from ``scale_of``, the same in all calls whose results are to agree bit for bit; None is that of these
        bodies

    Raises
    ------
    ValueError : m is not a multiple of TILE; unknown precision or backend
    brmpi.kernels.opencl.Unavailable : OpenCL is asked for and cannot do it
    """
    _check(sources, backend)
    if precision not in PRECISIONS:
        raise ValueError(f"precision = {precision!r}: known are {', '.join(PRECISIONS)}")
    if targets.shape[1] == 0 or sources.shape[1] == 0:
        return
    pairs = targets.shape[1] * sources.shape[1]
    length, mass = scale or scale_of(np.concatenate([targets, sources[:3]], axis=1), sources[3])
    if precision == "float64":
        near = np.concatenate([sources[:3] / length, sources[3:]])  # a power of two: rounds nothing
        choice.run("gravity float64", pairs, backend, _float64, "float64", targets / length, near, (eps / length) ** 2,
                   1 / length**2, out)
        return
    near = _pair_of_float32(targets / length), _pair_of_float32(sources[:3] / length)
    masses = (sources[3] / mass).astype(np.float32)
    choice.run("gravity mixed", pairs, backend, _mixed, "mixed", *near[0], *near[1], masses,
               np.float32((eps / length) ** 2), mass / length**2, out)


def potentials(targets, sources, eps, out, backend="auto"):
    """Add the potential of sources at targets, in float64; a body's own is left out.

    Parameters
    ----------
    targets, sources, eps : as in ``accelerations``
    out : (n,) float64, is added to [length**2 / time**2]
    backend : one of ``kernels.BACKENDS``

    Raises
    ------
    ValueError, brmpi.kernels.opencl.Unavailable : as ``accelerations``
    """
    _check(sources, backend)
    if targets.shape[1] == 0 or sources.shape[1] == 0:
        return
    pairs = targets.shape[1] * sources.shape[1]
    choice.run("gravity potential", pairs, backend, _potential, "potential", targets, sources, eps * eps, out)


def _check(sources, backend):
    choice.check(backend)
    if sources.shape[1] % TILE:
        raise ValueError(f"sources has {sources.shape[1]} columns: must be a multiple of {TILE}")


def _pairs(targets, sources, block=256):
    """For each tile and block of targets: slice of targets, x_j - x_i (3, block, TILE), distances squared, masses."""
    for tile in range(0, sources.shape[1], TILE):
        x, mass = sources[:3, tile : tile + TILE], sources[3, tile : tile + TILE]
        for first in range(0, targets.shape[1], block):
            here = slice(first, first + block)
            d = x[:, None, :] - targets[:, here, None]
            yield here, d, d[0] ** 2 + d[1] ** 2 + d[2] ** 2, mass


def _inverse_root(r2):
    return np.divide(1, np.sqrt(r2), out=np.zeros_like(r2), where=r2 > 0)


def _float64(targets, sources, eps2, unit, out):
    for here, d, r2, mass in _pairs(targets, sources):
        out[:, here] += unit * (d * (mass / np.sqrt(np.maximum(r2 + eps2, TINY)) ** 3)).sum(axis=-1)


def _potential(targets, sources, eps2, out):
    for here, _, r2, mass in _pairs(targets, sources):
        out[here] -= np.where(r2 > 0, mass * _inverse_root(r2 + eps2), 0).sum(axis=-1)


def _pair_of_float32(values):
    high = values.astype(np.float32)
    return high, (values - high).astype(np.float32)


def _mixed(high, low, source_high, source_low, masses, eps2, unit, out):
    for tile in range(0, masses.size, TILE):
        s = slice(tile, tile + TILE)
        for first in range(0, high.shape[1], 256):
            t = slice(first, first + 256)
            d = (source_high[:, None, s] - high[:, t, None]) + (source_low[:, None, s] - low[:, t, None])
            w = 1 / np.sqrt(np.maximum(d[0] ** 2 + d[1] ** 2 + d[2] ** 2 + eps2, NEAREST))
            out[:, t] += unit * (d * (masses[s] * w**3)).sum(axis=-1).astype(np.float64)
