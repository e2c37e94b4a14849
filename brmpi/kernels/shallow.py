"""Shallow water on a regular grid: one Euler step of a Godunov scheme that keeps a lake at rest and no depth below 0.

State: level w = b + h of the surface, over the bottom b, and momenta h u and h v. A dry cell has w = b. Where water
rests, w is one number in all wet cells; what follows is made of differences of w, so that it rests to the bit.

    slopes     (order 2) half differences of w, h, u, v, limited: the smaller of THETA/2 times both one-sided ones and
               a quarter of their sum, 0 where they differ in sign, and of w in a dry cell; h stays >= 0, and b at a
               face is w - h there
    face       b* = max(b_l, b_r), h_l* = max(0, w_l - b*), h_r* alike: nothing flows up a step it does not reach
    speeds     a = min(u_l - c_l, u_r - c_r, 0), z = max(u_l + c_l, u_r + c_r, 0), c = sqrt(g h*); where the right bed
               is dry u_l + 2 c_l, where the left one is u_r - 2 c_r
    HLL        F = (f_l + f_r) / 2 + (a z (q_r - q_l) - (a + z)/2 (f_r - f_l)) / (z - a)
    cell       w - dt div F;  h u - dt/dx (F_e - p_e - (F_w - p_w) + g h (w_e - w_w)) - ..., p = g h*^2 / 2 on its side
    friction   h u / (1 + dt g n^2 |u| / h^(4/3)), Manning's n, from the depth and the speed after the step

Sources: Audusse, Bouchut, Bristeau, Klein & Perthame, SIAM J. Sci. Comput. 25 (2004) 2050 (hydrostatic reconstruction);
Toro, Riemann Solvers and Numerical Methods for Fluid Dynamics (2009), ch. 10 (HLL); van Leer, J. Comput. Phys. 32
(1979) 101 (slopes). Depths stay >= 0 while dt (s_x/dx + s_y/dy) <= LIMIT, with the fastest waves s along x and y: what
leaves a cell through a face is at most s h of that face, and the depths at two opposite faces sum up to 2 h.

All is made of additions, products, divisions and square roots in one order, without fused operations: NumPy's and
Numba's versions give the same bits, and a cell's depend neither on ``rows`` nor on where an array was cut. x and y are
treated alike: a transposed problem has the transposed result, to the bit. OpenCL takes Numba.
"""

import math

import numpy as np

from brmpi.kernels import choice

LIMIT = 0.5  # of dt (s_x/dx + s_y/dy)
THETA = 1.5  # of the slopes: 1 is minmod, 2 monotonized central
TRAFFIC = {1: 10, 2: 20}  # numbers that travel for a step of each order: w, hu, hv and b read, three written (twice)
STILL = 1e-30  # speed below which nothing flows through a face [m/s]: its inverse is to be a number
ROWS = 64  # that NumPy takes at a time
CUBE_ROOT = 5  # steps by Halley's method, from h^(3/8)


def step(q, b, out, dt, spacing, gravity, dry, order=2, average=False, manning=0.0, backend="auto", rows=None):
    """One Euler step. Heun's method is one of them, and one from there that is averaged with the state before both.

    Parameters
    ----------
    q : (3, n + 2 order, m + 2 order) float64, C-contiguous, with its halo: level [m] and momenta along x and y [m^2/s]
    b : (n + 2 order, m + 2 order) float64, bottom [m] with its halo; at most the level
    out : as q, in other memory; its interior is written
    dt : float > 0 [s]
    spacing : (dy, dx), float > 0 [m]
    gravity : float > 0 [m/s^2]
    dry : float > 0 [m], depth up to which water does not move
    order : 1 or 2, in space
    average : bool, whether what is written is the mean with what ``out`` holds
    manning : float >= 0 [s/m^(1/3)]
    backend : one of ``kernels.BACKENDS``
    rows : slice of the interior's rows that are computed; None for all

    Returns
    -------
    (float, float) : the fastest waves at faces of these rows, along y and along x [m/s]

    Raises
    ------
    ValueError : a shape, dtype, number, backend or rows as they may not be
    """
    choice.check(backend)
    if order not in (1, 2):
        raise ValueError(f"order = {order!r}: must be 1 or 2")
    if not isinstance(q, np.ndarray) or q.ndim != 3 or len(q) != 3 or min(q.shape[1:]) < 2 * order:
        raise ValueError(f"q is {_words(q)}: must be an array of (3, n + {2 * order}, m + {2 * order})")
    for name, array, shape in (("q", q, q.shape), ("b", b, q.shape[1:]), ("out", out, q.shape)):
        if not isinstance(array, np.ndarray) or array.dtype != np.float64 or array.shape != shape:
            raise ValueError(f"{name} is {_words(array)}: must be an array of float64 {shape}")
        if not array.flags.c_contiguous:
            raise ValueError(f"{name} has strides {array.strides}: must be C-contiguous")
    if np.may_share_memory(q, out) or np.may_share_memory(b, out):
        raise ValueError("out shares memory with q or b: must be apart")
    if not out.flags.writeable:
        raise ValueError("out is read-only: must be writeable")
    for name, value in (("dt", dt), ("dy", spacing[0]), ("dx", spacing[1]), ("gravity", gravity), ("dry", dry)):
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} = {value!r}: must be finite and > 0")
    if not (math.isfinite(manning) and manning >= 0):
        raise ValueError(f"manning = {manning!r}: must be finite and >= 0")
    rows = slice(None) if rows is None else rows
    if not isinstance(rows, slice) or rows.step not in (None, 1):
        raise ValueError(f"rows = {rows!r}: must be a slice of step 1")
    first, last = rows.indices(q.shape[1] - 2 * order)[:2]
    across = q.shape[2] - 2 * order
    if first >= last or across == 0:
        return 0.0, 0.0
    numbers = (dt / spacing[0], dt / spacing[1], float(gravity), float(dry), dt * gravity * manning**2)
    backend = "numba" if backend == "opencl" else backend  # no kernel of its own
    return choice.run(f"shallow order{order} float64", (last - first) * across, backend, _step, "step", q, b, out,
                      numbers, order, bool(average), first, last)


def _words(array):
    return f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__


def _step(q, b, out, numbers, order, average, first, last):
    fastest = [_some_rows(q, b, out, numbers, order, average, begin, min(begin + ROWS, last))
               for begin in range(first, last, ROWS)]
    return tuple(float(max(each)) for each in zip(*fastest))


def _some_rows(q, b, out, numbers, order, average, first, last):
    ty, tx, g, dry, drag = numbers
    halo = order
    here = slice(first, last + 2 * halo)
    w, b = q[0, here], b[here]
    h = w - b
    wet = h > dry
    inverse = 1 / np.where(wet, h, 1.0)
    u, v = (np.where(wet, part[here] * inverse, 0.0) for part in q[1:])
    inner = slice(halo, -halo)
    south, north = _faces(w[:, inner], h[:, inner], v[:, inner], u[:, inner], g, dry, order)
    west, east = (tuple(part.T for part in side)
                  for side in _faces(w[inner].T, h[inner].T, u[inner].T, v[inner].T, g, dry, order))
    w, h, b = w[inner, inner], h[inner, inner], b[inner, inner]
    new = out[:, first + halo : last + halo, inner]
    old_u, old_v = q[1:, first + halo : last + halo, inner]
    gh = g * h
    level = w - (tx * (east[0] - west[0]) + ty * (north[0] - south[0]))
    hu = old_u - (tx * ((east[1] - west[2]) + gh * east[5]) + ty * (north[3] - south[3]))
    hv = old_v - (ty * ((north[1] - south[2]) + gh * north[5]) + tx * (east[3] - west[3]))
    if average:
        level, hu, hv = (0.5 * (one + other) for one, other in zip(new, (level, hu, hv)))
    level = np.where(level < b, b, level)
    h = level - b
    wet = h > dry
    hu, hv = np.where(wet, hu, 0.0), np.where(wet, hv, 0.0)
    if drag > 0:
        h = np.where(wet, h, 1.0)
        slow = 1 / (1 + drag * np.sqrt(hu * hu + hv * hv) / (h * h * _cube_root(h)))
        hu, hv = hu * slow, hv * slow
    new[0], new[1], new[2] = level, hu, hv
    return max(south[4].max(), north[4].max()), max(west[4].max(), east[4].max())


def _cube_root(h):
    root = np.sqrt(np.sqrt(h * np.sqrt(h)))
    for _ in range(CUBE_ROOT):
        cube = root * root * root
        root = root * ((cube + (h + h)) / ((cube + cube) + h))
    return root


def _limited(values):
    """Half differences along the first axis of all but the first and the last row."""
    before, after = values[1:-1] - values[:-2], values[2:] - values[1:-1]
    least = 0.5 * THETA * np.where(np.abs(before) < np.abs(after), before, after)
    mean = 0.25 * (before + after)
    return np.where(before * after > 0, np.where(np.abs(mean) < np.abs(least), mean, least), 0.0)


def _faces(w, h, n, t, g, dry, order):
    """What goes through the low and the high faces of cells, along the first axis.

    n and t are the velocities through and along a face. Each face: mass, momentum without the low side's pressure and
    without the high side's, momentum along it, the fastest wave; and w_e - w_w of the cells, beside their high faces.
    """
    if order == 1:
        low = high = (w, h, n, t)
        rise = np.zeros_like(w[1:-1])
    else:
        slopes = [_limited(values) for values in (w, h, n, t)]
        slopes[0] = np.where(h[1:-1] > dry, slopes[0], 0.0)
        low = [values[1:-1] + slope for values, slope in zip((w, h, n, t), slopes)]
        high = [values[1:-1] - slope for values, slope in zip((w, h, n, t), slopes)]
        rise = (slopes[0] + slopes[0])[1:-1]
    found = _face(*(values[:-1] for values in low), *(values[1:] for values in high), g, dry)
    return (*(part[:-1] for part in found), rise), (*(part[1:] for part in found), rise)


def _face(wl, hl, ul, vl, wr, hr, ur, vr, g, dry):
    bl, br = wl - hl, wr - hr
    top = np.where(bl > br, bl, br)
    hl, hr = wl - top, wr - top
    hl, hr = np.where(hl > 0, hl, 0.0), np.where(hr > 0, hr, 0.0)
    cl, cr = np.sqrt(g * hl), np.sqrt(g * hr)
    a, other = ur - np.where(hl > dry, cr, cr + cr), ul - cl
    a = np.where(other < a, other, a)
    a = np.where(a < 0, a, 0.0)
    z, other = ul + np.where(hr > dry, cl, cl + cl), ur + cr
    z = np.where(other > z, other, z)
    z = np.where(z > 0, z, 0.0)
    width = z - a
    inverse = 1 / np.where(width > STILL, width, 1.0)
    product, middle = a * z, 0.5 * (a + z)
    ml, mr = hl * ul, hr * ur
    kl, kr = ml * ul, mr * ur
    dh, dm = hr - hl, mr - ml
    half = 0.5 * (0.5 * g * (dh * (hl + hr)))  # of the difference of pressures
    mass = 0.5 * (ml + mr) + (product * dh - middle * dm) * inverse
    push = 0.5 * (kl + kr) + (product * dm - middle * ((kr - kl) + (half + half))) * inverse
    along = 0.5 * (ml * vl + mr * vr) + (product * (hr * vr - hl * vl) - middle * (mr * vr - ml * vl)) * inverse
    return mass, push + half, push - half, along, np.where(z > -a, z, -a)
