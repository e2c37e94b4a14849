"""Stencils of the heat and the wave equation on arrays with a halo, which the caller fills; the interior is written.

    heat      out = u + sum_d c_d (u_-d - 2 u + u_+d)                         5 points in 2-D, 7 in 3-D
    heat9     out = u + c/6 (4 (sum of the 4 nearest) + (sum of the 4 corners) - 20 u)
    conduct   out = u + sum_d c_d (k_(+d/2) (u_+d - u) - k_(-d/2) (u - u_-d))     k at faces: a mean of two cells'
    wave      out = 2 u - before + c2 L u     L of 2nd order: near - 2 d u, or of 4th: 4/3 (near - 2 d u)
              - 1/12 (far - 2 d u); near, far: sums over the cells 1 and 2 away along each of the d dimensions

u_-d and u_+d are a cell's neighbours along dimension d. A cell's sum has one order, without fused operations: its bits
depend neither on ``rows`` nor on where an array was cut into blocks with halos, and NumPy's and Numba's are the same.
OpenCL's are within ``TOLERANCE`` of the largest magnitude among a step's terms (the same bits on PoCL).

These loops are bound by memory. Numbers that travel for each update, where planes stay in a cache (times 8 or 4 bytes;
a written number counts twice, as it is read first): ``TRAFFIC``.

Each scheme is checked in ``tests/test_stencil.py`` against the factor by which it multiplies a Fourier mode; the limits
of stability are where that factor reaches -1.
"""

import functools
import math
import operator

import numpy as np

from brmpi.kernels import choice

MEANS = ("harmonic", "arithmetic")
TOLERANCE = {"float64": 2e-15, "float32": 1e-6}
TRAFFIC = {"heat": 3, "heat9": 3, "conduct": 4, "wave": 4}  # u, k, before 1, out 2; c2 of each cell 1, in place -1


def heat(u, out, c, backend="auto", rows=None):
    """One explicit step of the heat equation, in two or three dimensions.

    Parameters
    ----------
    u : (n + 2, m + 2) or (l + 2, n + 2, m + 2) float64 or float32, C-contiguous, with a halo of 1 [temperature]
    out : as u, in other memory; its interior is written, its halo is left as it is
    c : float or one for each dimension, alpha * dt / dx**2 >= 0; stable while their sum is at most 1/2
    backend : one of ``kernels.BACKENDS``
    rows : slice of the interior's first dimension that is computed; None for all

    Raises
    ------
    ValueError : a shape, dtype, c, backend or rows as they may not be
    opencl.Unavailable : OpenCL is not there, or the device does not do this
    """
    first, last = _checked(u, out, 1, (2, 3), backend, rows)
    c = _each(c, u, "c")
    if first < last and out[_inner(u, 1)].size:
        name = "heat5" if u.ndim == 2 else "heat7"
        _run(name, backend, _heat, u, out, c, first, last)


def heat9(u, out, c, backend="auto", rows=None):
    """One explicit step of the heat equation in two dimensions with the 9-point Laplacian, whose error is isotropic.

    Parameters
    ----------
    u, out : as in ``heat``, 2-D
    c : float, alpha * dt / dx**2 >= 0, the same in both dimensions; stable while at most 3/8
    backend, rows : as in ``heat``

    Raises
    ------
    ValueError, opencl.Unavailable : as ``heat``
    """
    first, last = _checked(u, out, 1, (2,), backend, rows)
    sixth = _number(c, u, "c", 1 / 6)
    if first < last and out[_inner(u, 1)].size:
        _run("heat9", backend, _heat9, u, out, sixth, _typed(u, 4, 20), first, last)


def conduct(u, out, k, c, mean="harmonic", backend="auto", rows=None):
    """One explicit step of the heat equation with a conductivity of each cell, in two or three dimensions.

    What flows through a face leaves one cell and enters the other. The harmonic mean 2 a b / (a + b), 0 between two
    insulators, is that of two half cells in series: it keeps the flux right where conductivities jump, and nothing
    enters an insulator. The arithmetic mean (a + b) / 2 is for smooth ones.

    Parameters
    ----------
    u, out : as in ``heat``
    k : as u, with its halo, conductivity of cells >= 0; its values are not checked
    c : float or one for each dimension, dt / (rho * cp * dx**2) >= 0; stable while max(k) * sum(c) is at most 1/2
    mean : "harmonic" or "arithmetic"
    backend, rows : as in ``heat``

    Raises
    ------
    ValueError, opencl.Unavailable : as ``heat``
    """
    first, last = _checked(u, out, 1, (2, 3), backend, rows)
    _like(k, "k", u, u.shape, out)
    if mean not in MEANS:
        raise ValueError(f"mean = {mean!r}: known are {', '.join(MEANS)}")
    harmonic = mean == "harmonic"
    c = _each(c, u, "c", 2 if harmonic else 0.5)
    if first < last and out[_inner(u, 1)].size:
        name = "conduct5" if u.ndim == 2 else "conduct7"
        _run(name, backend, _conduct, u, out, k, c, harmonic, first, last)


def wave(u, before, out, c2, order=2, backend="auto", rows=None):
    """One leapfrog step of the wave equation, of second order in time, in two or three dimensions of equal spacing.

    Parameters
    ----------
    u : (n + 2 h, m + 2 h) or (l + 2 h, …) float64 or float32, C-contiguous, with a halo of h = order / 2
    before : as u, one step earlier; its halo is not read
    out : as u, in other memory; its interior is written. It may be ``before`` itself: a number less travels
    c2 : float >= 0, or array of the interior's shape and u's dtype: (speed * dt / dx)**2; stable, in d dimensions,
        while at most 1 / d (order 2) or 3 / (4 d) (order 4)
    order : 2 or 4, of the differences in space
    backend, rows : as in ``heat``

    Raises
    ------
    ValueError, opencl.Unavailable : as ``heat``
    """
    if order not in (2, 4):
        raise ValueError(f"order = {order!r}: must be 2 or 4")
    halo = order // 2
    first, last = _checked(u, out, halo, (2, 3), backend, rows)
    in_place = _same(before, out)
    _like(before, "before", u, u.shape, None if in_place else out)
    inner = tuple(n - 2 * halo for n in u.shape)
    if isinstance(c2, np.ndarray) and c2.ndim:
        _like(c2, "c2", u, inner, out)
        step = 1
    else:
        c2, step = np.full((1, inner[-1]), _number(c2, u, "c2")), 0
    weights = _typed(u, 2 * u.ndim) if order == 2 else _typed(u, 2 * u.ndim, 4 / 3, 1 / 12)
    if first < last and out[_inner(u, halo)].size:
        name = {(2, 2): "wave5", (2, 4): "wave9", (3, 2): "wave7", (3, 4): "wave13"}[u.ndim, order]
        c2 = c2.reshape(-1, inner[-1])
        _run(name, backend, _wave, u, before, out, c2, step, weights, in_place, first, last)


def _checked(u, out, halo, dimensions, backend, rows):
    """First and last row of the interior that is asked for."""
    choice.check(backend)
    if not isinstance(u, np.ndarray) or u.dtype not in (np.float64, np.float32):
        raise ValueError(f"u is {getattr(u, 'dtype', type(u).__name__)}: must be an array of float64 or float32")
    if u.ndim not in dimensions:
        raise ValueError(f"u has {u.ndim} dimensions: must have {' or '.join(map(str, dimensions))}")
    if min(u.shape) < 2 * halo:
        raise ValueError(f"u has shape {u.shape}: must be at least {2 * halo} each way, for its halo of {halo}")
    _like(out, "out", u, u.shape)
    _like(u, "u", u, u.shape, out)
    if not out.flags.writeable:
        raise ValueError("out is read-only: must be writeable")
    if rows is None:
        rows = slice(None)
    if not isinstance(rows, slice) or rows.step not in (None, 1):
        raise ValueError(f"rows = {rows!r}: must be a slice of step 1")
    return rows.indices(u.shape[0] - 2 * halo)[:2]


def _like(array, name, u, shape, apart=None):
    if not isinstance(array, np.ndarray) or array.dtype != u.dtype or array.shape != shape:
        is_it = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        raise ValueError(f"{name} is {is_it}: must be an array of {u.dtype} {shape}")
    if not array.flags.c_contiguous:
        raise ValueError(f"{name} has strides {array.strides}: must be C-contiguous")
    if apart is not None and np.may_share_memory(array, apart):
        raise ValueError(f"{name} and out share memory: must be apart")


def _same(a, b):
    """Whether two arrays are one; their shapes are compared elsewhere."""
    return isinstance(a, np.ndarray) and a.ctypes.data == b.ctypes.data


def _number(value, u, name, times=1.0):
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name} = {value!r}: must be a number") from None
    if not (math.isfinite(number) and number >= 0):
        raise ValueError(f"{name} = {value!r}: must be finite and >= 0")
    return u.dtype.type(number * times)


def _each(values, u, name, times=1.0):
    if np.ndim(values) == 0:
        values = (values,) * u.ndim
    if len(values) != u.ndim:
        raise ValueError(f"{name} has {len(values)} values: must be one or {u.ndim}")
    return tuple(_number(value, u, name, times) for value in values)


def _typed(u, *weights):
    return tuple(u.dtype.type(weight) for weight in weights)


def _inner(u, halo):
    return tuple(slice(halo, n - halo) for n in u.shape)


def _run(name, backend, reference, u, *arguments):
    first, last = arguments[-2:]
    cells = (last - first) * math.prod(u.shape[1:])
    choice.run(f"stencil {name} {u.dtype}", cells, backend, reference, name, u, *arguments)


def _near(u, halo, first, last):
    """A function of steps along each dimension: u of those cells, for the interior's rows first to last."""

    def cells(*steps):
        ends = [(halo + first, halo + last)] + [(halo, n - halo) for n in u.shape[1:]]
        return u[tuple(slice(a + step, b + step) for (a, b), step in zip(ends, steps))]

    return cells


def _along(dimensions, distance=1):
    """For each dimension, the steps to both neighbours along it."""
    for d in range(dimensions):
        yield tuple(tuple(sign * distance * (d == e) for e in range(dimensions)) for sign in (-1, 1))


def _sum(terms):
    return functools.reduce(operator.add, terms)  # sum() begins with 0, and 0 + -0.0 is not -0.0


def _heat(u, out, c, first, last):
    at = _near(u, 1, first, last)
    here = at(*(0,) * u.ndim)
    two = here + here
    flow = _sum(c_d * ((at(*low) + at(*high)) - two) for c_d, (low, high) in zip(c, _along(u.ndim)))
    _near(out, 1, first, last)(*(0,) * u.ndim)[:] = here + flow


def _heat9(u, out, c, weights, first, last):
    at = _near(u, 1, first, last)
    four, twenty = weights
    near = (at(-1, 0) + at(1, 0)) + (at(0, -1) + at(0, 1))
    corners = (at(-1, -1) + at(-1, 1)) + (at(1, -1) + at(1, 1))
    _near(out, 1, first, last)(0, 0)[:] = at(0, 0) + c * ((four * near + corners) - twenty * at(0, 0))


def _conduct(u, out, k, c, harmonic, first, last):
    at, k_at = _near(u, 1, first, last), _near(k, 1, first, last)
    centre = (0,) * u.ndim

    def flux(low, high, c_d):
        a, b = k_at(*low), k_at(*high)
        both = a + b
        mean = a * (b / np.where(both != 0, both, u.dtype.type(1))) if harmonic else both
        return c_d * mean * (at(*high) - at(*low))

    flow = _sum(flux(centre, high, c_d) - flux(low, centre, c_d) for c_d, (low, high) in zip(c, _along(u.ndim)))
    _near(out, 1, first, last)(*centre)[:] = at(*centre) + flow


def _wave(u, before, out, c2, step, weights, in_place, first, last):
    halo = 1 if len(weights) == 1 else 2
    at = _near(u, halo, first, last)
    centre = (0,) * u.ndim
    here = at(*centre)

    def total(distance):
        return _sum(at(*low) + at(*high) for low, high in _along(u.ndim, distance)) - weights[0] * here

    laplacian = total(1) if halo == 1 else weights[1] * total(1) - weights[2] * total(2)
    c2 = c2.reshape(-1, *here.shape[1:])[first:last] if step else c2[0]
    old, new = (_near(array, halo, first, last)(*centre) for array in (before, out))
    new[:] = ((here + here) - old) + c2 * laplacian
