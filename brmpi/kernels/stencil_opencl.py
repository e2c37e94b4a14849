"""The loops of ``stencil`` on an OpenCL device; source in ``kernels/stencil.cl``. Arguments as in ``stencil_numba``."""

import functools

import numpy as np

from brmpi.kernels import opencl

# What one work item does: cells along the last axis, rows, planes; and the work items of a group along the last axis.
# None takes a processor's, or another device's.
PROCESSOR = (8192, 16, 8, 1)
OTHER = (1, 1, 4, 64)
PARAMETERS = {"tile": (None, (8192, 64, 32, 1), (8192, 4, 4, 1), (512, 16, 8, 1), (1, 1, 16, 64), (1, 4, 4, 256))}


def heat(name, u, out, c, first, last, tile=None):
    """``heat5`` and ``heat7``.

    Parameters
    ----------
    name : str, of the kernel
    u, out : arrays with a halo
    c : tuple of float
    first, last : int, of the interior's first dimension
    tile : one of ``PARAMETERS``
    """
    _run(name, tile, 1, (u,), out, first, last, after=c)


def heat9(u, out, c, weights, first, last, tile=None):
    """The 9-point step.

    Parameters
    ----------
    u, out : arrays with a halo
    c : float
    weights : not used here
    first, last : int, of the interior's first dimension
    tile : one of ``PARAMETERS``
    """
    _run("heat9", tile, 1, (u,), out, first, last, after=(c,))


def conduct(name, u, out, k, c, harmonic, first, last, tile=None):
    """``conduct5`` and ``conduct7``.

    Parameters
    ----------
    name : str, of the kernel
    u, out, k : arrays with a halo
    c : tuple of float
    harmonic : bool
    first, last : int, of the interior's first dimension
    tile : one of ``PARAMETERS``
    """
    _run(name, tile, 1, (u,), out, first, last, (k,), after=c, HARMONIC=int(harmonic))


def wave(name, u, before, out, c2, step, weights, in_place, first, last, tile=None):
    """``wave5``, ``wave7``, ``wave9`` and ``wave13``.

    Parameters
    ----------
    name : str, of the kernel
    u, before, out : arrays with a halo
    c2 : (rows, m) array
    step : int, 0 where c2 is one number
    weights : tuple of float
    in_place : bool
    first, last : int, of the interior's first dimension
    tile : one of ``PARAMETERS``
    """
    inputs = (u, u if in_place else before)
    numbers = np.int32(step), c2[0, 0]
    _run(name, tile, 1 if len(weights) == 1 else 2, inputs, out, first, last, (c2,), numbers, weights[1:],
         IN_PLACE=int(in_place))


heat5, heat7 = (functools.partial(heat, name) for name in ("heat5", "heat7"))
conduct5, conduct7 = (functools.partial(conduct, name) for name in ("conduct5", "conduct7"))
wave5, wave7, wave9, wave13 = (functools.partial(wave, name) for name in ("wave5", "wave7", "wave9", "wave13"))


def _run(name, tile, halo, inputs, out, first, last, inputs_after=(), numbers=(), after=(), **defines):
    device = opencl.device()
    if out.dtype == np.float64:
        opencl.need_float64(device)
    strip, rows, depth, group = tile or (PROCESSOR if device.shares_memory else OTHER)
    program = device.program("stencil", REAL="double" if out.dtype == np.float64 else "float", STRIP=strip, ROWS=rows,
                             PLANES=depth, **defines)
    *planes, n, m = (size - 2 * halo for size in out.shape)
    work = [(m, strip), (n if planes else last - first, rows)]
    if planes:
        work.append((last - first, depth))
    brought = {id(array): device.bring(array) for array in (*inputs, *inputs_after)}
    target = device.bring(out, write=True)
    device.run(getattr(program, name), tuple(-(-count // of) for count, of in work), (group,) + (1,) * (len(work) - 1),
               *(brought[id(array)] for array in inputs), target, *(brought[id(array)] for array in inputs_after),
               *numbers, *(np.int32(number) for number in (n, m, first, last)), *after)
    device.take(target, out)
