"""The loops of ``gravity`` on an OpenCL device; the sources are in ``kernels/gravity.cl``."""

import numpy as np

from brmpi.kernels import opencl
from brmpi.kernels.gravity import NEAREST, TILE, TINY

PART = 64  # sources in a chain of float32 sums: shorter than in gravity_numba, where a sum has many lanes
# Work items of a group; targets in the lanes of a vector, None for as many as the device has. The same bits in all.
PARAMETERS = {"group": (8, 1, 32, 64), "width": (None, 4, 2)}


def float64(targets, sources, eps2, unit, out, group=8, width=None):
    """Add accelerations, all in float64.

    Parameters
    ----------
    targets : (3, n) float64
    sources : (4, m) float64, m a multiple of TILE
    eps2 : float
    unit : float, what the accelerations are multiplied by
    out : (3, n) float64
    group, width : one of ``PARAMETERS`` each
    """
    values = np.float64(eps2), np.float64(unit)
    _run("float64", np.float64, targets, np.ascontiguousarray(sources.T), values, out, group, width)


def potential(targets, sources, eps2, out, group=8, width=None):
    """Subtract sum of mass over softened distance, all in float64.

    Parameters
    ----------
    targets : (3, n) float64
    sources : (4, m) float64, m a multiple of TILE
    eps2 : float
    out : (n,) float64
    group, width : one of ``PARAMETERS`` each
    """
    sources = np.ascontiguousarray(sources.T)
    _run("potential", np.float64, targets, sources, (np.float64(eps2),), out[None], group, width)


def mixed(high, low, source_high, source_low, masses, eps2, unit, out, group=8, width=None):
    """Add accelerations: pairs and parts of a tile in float32, the rest in float64.

    Parameters
    ----------
    high, low : (3, n) float32, positions are their sum
    source_high, source_low : (3, m) float32, m a multiple of TILE
    masses : (m,) float32
    eps2 : float32
    unit : float, what the accelerations are multiplied by
    out : (3, n) float64
    group, width : one of ``PARAMETERS`` each
    """
    sources = np.zeros((masses.size, 8), np.float32)
    sources[:, :3], sources[:, 3], sources[:, 4:7] = source_high.T, masses, source_low.T
    _run("mixed", np.float32, np.concatenate([high, low]), sources, (np.float32(eps2), np.float64(unit)), out,
         group, width)


def _run(name, dtype, targets, sources, values, out, group, width):
    device = opencl.device()
    opencl.need_float64(device)
    width = width or (device.width(dtype) if device.shares_memory else 1)
    program = device.program("gravity", WIDTH=width, TILE=TILE, PART=PART, NEAREST=f"{NEAREST!r}f",
                             TINY=TINY)
    count = out.shape[1]
    size = -(-count // width) * width
    inside, result = np.zeros((len(targets), size), dtype), np.zeros((len(out), size))
    inside[:, :count], result[:, :count] = targets, out
    buffer = device.bring(result, write=True)
    device.run(getattr(program, name), (size // width,), (group,), device.bring(inside), np.int32(size),
               device.bring(sources), np.int32(len(sources)), *values, buffer)
    device.take(buffer, result)
    out[:] = result[:, :count]
