"""The loops of ``stencil`` on an OpenCL device; source in ``kernels/stencil.cl``. Arguments as in ``stencil_numba``."""

import functools

import numpy as np

from brmpi.kernels import opencl

# What one work item does, and the work items of a group along the last axis.
PROCESSOR = {"STRIP": 8192, "ROWS": 16, "PLANES": 8, "group": 1}
OTHER = {"STRIP": 1, "ROWS": 1, "PLANES": 4, "group": 64}


def heat(name, u, out, c, first, last, block=None):
    """``heat5`` and ``heat7``.

    Parameters
    ----------
    name : str, of the kernel
    u, out : arrays with a halo
    c : tuple of float
    first, last : int, of the interior's first dimension
    block : not used here
    """
    _run(name, 1, (u,), out, first, last, after=c)


def heat9(u, out, c, weights, first, last):
    """The 9-point step.

    Parameters
    ----------
    u, out : arrays with a halo
    c : float
    weights : not used here
    first, last : int, of the interior's first dimension
    """
    _run("heat9", 1, (u,), out, first, last, after=(c,))


def conduct(name, u, out, k, c, harmonic, first, last, block=None):
    """``conduct5`` and ``conduct7``.

    Parameters
    ----------
    name : str, of the kernel
    u, out, k : arrays with a halo
    c : tuple of float
    harmonic : bool
    first, last : int, of the interior's first dimension
    block : not used here
    """
    _run(name, 1, (u,), out, first, last, (k,), after=c, HARMONIC=int(harmonic))


def wave(name, u, before, out, c2, step, weights, in_place, first, last, block=None):
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
    block : not used here
    """
    inputs = (u, u if in_place else before)
    numbers = np.int32(step), c2[0, 0]
    _run(name, 1 if len(weights) == 1 else 2, inputs, out, first, last, (c2,), numbers, weights[1:],
         IN_PLACE=int(in_place))


heat5, heat7 = (functools.partial(heat, name) for name in ("heat5", "heat7"))
conduct5, conduct7 = (functools.partial(conduct, name) for name in ("conduct5", "conduct7"))
wave5, wave7, wave9, wave13 = (functools.partial(wave, name) for name in ("wave5", "wave7", "wave9", "wave13"))


def _run(name, halo, inputs, out, first, last, inputs_after=(), numbers=(), after=(), **defines):
    device = opencl.device()
    if out.dtype == np.float64:
        opencl.need_float64(device)
    tile = dict(PROCESSOR if device.shares_memory else OTHER)
    group = tile.pop("group")
    program = device.program("stencil", REAL="double" if out.dtype == np.float64 else "float", **tile, **defines)
    *planes, n, m = (size - 2 * halo for size in out.shape)
    work = [(m, tile["STRIP"]), (n if planes else last - first, tile["ROWS"])]
    if planes:
        work.append((last - first, tile["PLANES"]))
    brought = {id(array): device.bring(array) for array in (*inputs, *inputs_after)}
    target = device.bring(out, write=True)
    device.run(getattr(program, name), tuple(-(-count // of) for count, of in work), (group,) + (1,) * (len(work) - 1),
               *(brought[id(array)] for array in inputs), target, *(brought[id(array)] for array in inputs_after),
               *numbers, *(np.int32(number) for number in (n, m, first, last)), *after)
    device.take(target, out)
