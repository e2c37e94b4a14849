"""Lattice Boltzmann flow on D2Q9 and D3Q19: stream and collide in one pass, with walls and a body force.

    g_i(x) = f_i(x - c_i)                                        pull; from a solid cell: f_i'(x) + 6 w_i c_i . u_wall
    f_i(x, t + 1) = g_i - (g+ - e+) / tau+ - (g- - e-) / tau- + (1 - 1 / (2 tau+)) F+ + (1 - 1 / (2 tau-)) F-
    e_i = w_i rho (1 + 3 c_i.u + 9/2 (c_i.u)^2 - 3/2 u^2)       rho = sum g_i      rho u = sum c_i g_i + F / 2
    F_i = w_i (3 (c_i - u) + 9 (c_i.u) c_i) . F

i' is the direction opposite to i; + and - are the even and odd half of a pair: (g_i + g_i') / 2 and (g_i - g_i') / 2.
Both are relaxed at one rate in BGK; two-relaxation-time collision (TRT) takes tau- from the magic number
(tau+ - 1/2) (tau- - 1/2). The kinematic viscosity is (tau+ - 1/2) / 3 in either. Units are those of the lattice: a cell
and a step are 1, and so is the density that flow deviates little from.

Populations are arrays (q, rows, ..., columns) with one halo cell on every side of space, filled by the caller;
component k of a velocity is along axis k of space. They are those after the collision, as ``step`` leaves them.
Even and odd numbers, 2k - 1 and 2k, are opposite directions. A cell is computed from its neighbours alone, in one order
of operations: its bits do not depend on how rows are cut into calls.

Sources: Guo, Zheng and Shi, Phys. Rev. E 65 (2002) 046308, for the force; Ginzburg, Verhaeghe and d'Humieres,
Commun. Comput. Phys. 3 (2008) 427, for TRT; Ladd, J. Fluid Mech. 271 (1994) 285, for the moving wall.
"""

import math
from typing import NamedTuple

import numpy as np

from brmpi.kernels import choice


class Lattice(NamedTuple):
    """Velocities and weights of a lattice."""

    c: np.ndarray  # (q, d) int64, velocities; the rest first, then pairs of opposites
    w: np.ndarray  # (q,) float64

    @property
    def opposite(self):
        """Number of the opposite direction, (q,) int64."""
        i = np.arange(len(self.w))
        return np.where(i == 0, 0, np.where(i % 2 == 1, i + 1, i - 1))


def _lattice(pairs, weights):
    c = [np.zeros_like(pairs[:1])] + [sign * pairs[k : k + 1] for k in range(len(pairs)) for sign in (1, -1)]
    c = np.concatenate(c)
    return Lattice(c, np.array(weights)[(c**2).sum(axis=1)])


D2Q9 = _lattice(np.array([[1, 0], [0, 1], [1, 1], [1, -1]]), [4 / 9, 1 / 9, 1 / 36])
D3Q19 = _lattice(np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, -1, 0], [1, 0, 1], [1, 0, -1], [0, 1, 1],
                           [0, 1, -1]]), [1 / 3, 1 / 18, 1 / 36])
LATTICES = {(9, 2): D2Q9, (19, 3): D3Q19}


def step(f, out, tau, magic=None, force=None, solid=None, walls=None, rows=slice(None), backend="auto"):
    """Stream and collide once: read ``f`` with its halo, write the inner cells of ``out``.

    NumPy and Numba agree within 4 epsilon of the dtype in units of the density, OpenCL with both within 8, for each
    step. Memory traffic is 2 q numbers a cell, and q more where a written line is read first (write-allocate).
    Solid cells keep their populations, which nobody reads. A wall lies half-way between a fluid and a solid cell; the
    momentum that a moving one gives is taken at density 1.

    Parameters
    ----------
    f : (9, r + 2, s + 2) or (19, r + 2, s + 2, t + 2) float64 or float32, C-contiguous, populations after collision
    out : as f, another array; its halo is left alone
    tau : float > 1/2, relaxation time of the even half, which sets the viscosity (tau - 1/2) / 3
    magic : float > 0, for TRT; 3/16 puts a wall along the lattice exactly half-way, 1/4 is the most stable; None is BGK
    force : (d,) float, body force on a unit of volume, the same everywhere; None is none
    solid : (r + 2, ...) uint8, C-contiguous, with its halo: 0 is fluid, k wall number k; None is fluid everywhere
    walls : (n, d) float, velocity of wall k in row k - 1, n <= 255; None is all at rest, whatever their number
    rows : slice of step 1 of the r inner rows that are computed; the others of ``out`` are left alone
    backend : one of ``kernels.BACKENDS``

    Raises
    ------
    ValueError : a shape, dtype or value that is not as above; f and out overlap
    brmpi.kernels.opencl.Unavailable : OpenCL is wanted and cannot do it
    """
    _checked(f, "f", backend)
    if out.shape != f.shape or out.dtype != f.dtype or not out.flags.c_contiguous:
        raise ValueError(f"out is {_words(out)}: must be as f, {_words(f)}")
    if np.may_share_memory(f, out):
        raise ValueError("out overlaps f: must be another array")
    _run(f, out, None, tau, magic, force, solid, walls, rows, backend)


def step_in_place(f, ahead, tau, magic=None, force=None, solid=None, walls=None, rows=slice(None), backend="auto"):
    """Stream and collide once in one array: half the memory of ``step``, and two thirds of its traffic.

    The arrangement of populations changes at each step. At home they are where they left the collision: f_i of a cell
    x is at f[i, x]. Ahead they are where they arrive, at the number of the opposite direction: f_i of x is at
    f[i', x + c_i], for each x that is not solid. From home to ahead the halo is read, and its numbers are replaced by
    those that leave the block: they belong to the cells that these halo cells stand for, where the step back home
    needs them. That one reads no halo, except for what bounces from solid cells there, which is in this block's own.
    No cell touches numbers of another, so that rows may be computed in any order, and halos travel meanwhile.

    A step has the bits of ``step`` by the same version, except in solid cells, whose numbers hold what bounces.

    Source: Bailey, Myre, Walsh, Lilja and Saar, Int. Conf. on Parallel Processing (2009) 550, the A-A pattern.

    Parameters
    ----------
    f : as in ``step``; changed
    ahead : bool, arrangement of f; it is the other one when all rows are done
    tau, magic, force, solid, walls, rows, backend : as in ``step``

    Raises
    ------
    ValueError : a shape, dtype or value that is not as above
    brmpi.kernels.opencl.Unavailable : OpenCL is wanted and cannot do it
    """
    _checked(f, "f", backend)
    _run(f, f, bool(ahead), tau, magic, force, solid, walls, rows, backend)


def home(f):
    """Populations at home, from those that lie ahead.

    Parameters
    ----------
    f : as in ``step_in_place``, whose halo has what left this block; it is left alone

    Returns
    -------
    as f; the halo is 0, and solid cells have what nobody reads
    """
    lattice, out = _checked(f, "f", "numpy"), np.zeros_like(f)
    inner = range(f.shape[1] - 2)
    here = _shifted(inner, f, lattice.c[0])
    for i, back in enumerate(lattice.opposite):
        out[(i, *here)] = f[(back, *_shifted(inner, f, -lattice.c[i]))]
    return out


def _run(f, out, ahead, tau, magic, force, solid, walls, rows, backend):
    lattice = LATTICES[len(f), f.ndim - 1]
    d = lattice.c.shape[1]
    if not tau > 0.5:
        raise ValueError(f"tau = {tau}: must be > 0.5")
    if magic is not None and not magic > 0:
        raise ValueError(f"magic = {magic}: must be > 0")
    inner = _rows(rows, f.shape[1] - 2)
    force = _force(force, d)
    if solid is not None and (solid.shape != f.shape[1:] or solid.dtype != np.uint8 or not solid.flags.c_contiguous):
        raise ValueError(f"solid is {_words(solid)}: must be C-contiguous uint8 {f.shape[1:]}")
    table = _momenta(lattice, walls, solid, inner).astype(f.dtype)
    if min(f.shape[1:]) == 2 or not inner:
        return
    odd = tau if magic is None else 0.5 + magic / (tau - 0.5)
    constants = _constants(lattice, 1 / tau, 1 / odd, force, f.dtype)
    cells = len(inner) * math.prod(f.shape[2:])
    name = f"boltzmann d{d}q{len(f)} {f.dtype}"
    choice.run(name, cells, backend, _step, "step", f, out, ahead, constants, solid, table, inner)


def equilibrium(rho, u):
    """Populations of a fluid in equilibrium: what a flow without force begins with.

    Parameters
    ----------
    rho : (...) float64 or float32, density in two or three dimensions
    u : (d, ...) same dtype, velocity

    Returns
    -------
    (9, ...) or (19, ...), same dtype; no halo is added

    Raises
    ------
    ValueError : other shapes
    """
    lattice = next((one for (_, d), one in LATTICES.items() if (d, rho.ndim) == (len(u), len(u))), None)
    if lattice is None or u.shape[1:] != rho.shape:
        raise ValueError(f"rho has shape {rho.shape}, u {u.shape}: must be (r, s) and (2, r, s), or in 3 dimensions")
    f = np.empty((len(lattice.w), *rho.shape), rho.dtype)
    square = sum(one**2 for one in u)
    for i, (c, w) in enumerate(zip(lattice.c, lattice.w)):
        along = sum(int(ck) * uk for ck, uk in zip(c, u))
        f[i] = rho * (w * (1 + 3 * along + 4.5 * along**2 - 1.5 * square))
    return f


def moments(f, force=None, backend="auto"):
    """Density and velocity of the inner cells.

    All versions agree within 4 epsilon of the dtype, in units of the density. Solid cells give what they keep.

    Parameters
    ----------
    f : as in ``step``, populations after collision; the halo is not read
    force : as in ``step``: half of it is yet to act at the time of ``f``, u = (sum c_i f_i - F / 2) / rho
    backend : one of ``kernels.BACKENDS``; for "opencl" Numba is taken: there is nothing to gain elsewhere

    Returns
    -------
    rho : (r, s) or (r, s, t), dtype of f
    u : (d, r, s) or (d, r, s, t), dtype of f

    Raises
    ------
    ValueError : a shape, dtype or value that is not as above
    """
    lattice = _checked(f, "f", backend)
    d = lattice.c.shape[1]
    half = (_force(force, d) / 2).astype(f.dtype)
    inner = tuple(n - 2 for n in f.shape[1:])
    rho, u = np.empty(inner, f.dtype), np.empty((d, *inner), f.dtype)
    if rho.size:
        backend = "numba" if backend == "opencl" else backend  # no kernel of its own
        choice.run(f"boltzmann moments {f.dtype}", rho.size, backend, _moments, "moments_of", f, half, rho, u)
    return rho, u


def _words(array):
    order = "C-contiguous" if array.flags.c_contiguous else "not C-contiguous"
    return f"{order} {array.dtype} {array.shape}"


def _checked(f, name, backend):
    choice.check(backend)
    lattice = LATTICES.get((f.shape[0] if f.ndim else 0, f.ndim - 1))
    if lattice is None or min(f.shape[1:]) < 2:
        raise ValueError(f"{name} has shape {f.shape}: must be (9, r + 2, s + 2) or (19, r + 2, s + 2, t + 2)")
    if f.dtype not in (np.float32, np.float64) or not f.flags.c_contiguous:
        raise ValueError(f"{name} is {_words(f)}: must be C-contiguous float64 or float32")
    return lattice


def _rows(rows, count):
    inner = range(count)[rows]
    if inner.step != 1:
        raise ValueError(f"rows = {rows}: its step must be 1")
    return inner


def _force(force, d):
    values = np.zeros(d) if force is None else np.asarray(force, np.float64)
    if values.shape != (d,):
        raise ValueError(f"force has shape {values.shape}: must be ({d},)")
    return values


def _momenta(lattice, walls, solid, inner):
    """What a population gains at each wall: (q, 256), by direction and value of solid."""
    table = np.zeros((len(lattice.w), 256))
    if walls is not None:
        walls = np.asarray(walls, np.float64)
        if walls.ndim != 2 or walls.shape[1] != lattice.c.shape[1] or len(walls) > 255:
            raise ValueError(f"walls has shape {walls.shape}: must be (n, {lattice.c.shape[1]}) with n <= 255")
        if solid is not None and inner:
            most = solid[inner.start : inner.stop + 2].max(initial=0)
            if most > len(walls):
                raise ValueError(f"solid has wall number {most}: walls has {len(walls)}")
        table[:, 1 : len(walls) + 1] = 6 * lattice.w[:, None] * (lattice.c @ walls.T)
    return table


class _Constants(NamedTuple):
    """Numbers of a collision, in the dtype of the populations."""

    even: np.ndarray  # rate of the even half, 1 / tau+
    odd: np.ndarray  # of the odd half
    half_even: np.ndarray
    keep_even: np.ndarray  # of the sum of two opposites, (1 - 1 / tau+) / 2
    keep_odd: np.ndarray  # of their difference
    w: np.ndarray  # weights at rest, along an axis, along a diagonal
    three: np.ndarray
    sixth: np.ndarray
    half_force: np.ndarray  # F / 2, two components or three
    even_force: np.ndarray  # (1 - 1 / (2 tau+)) F
    even_along: np.ndarray  # (1 - 1 / (2 tau+)) 3 c.F for each pair
    odd_along: np.ndarray  # (1 - 1 / (2 tau-)) 3 c.F


def _constants(lattice, even, odd, force, dtype):
    k, along = 1 - even / 2, 3 * lattice.c[1::2] @ force
    w = [lattice.w[0], lattice.w[1], lattice.w[-1]]
    values = (even, odd, even / 2, (1 - even) / 2, (1 - odd) / 2, w, 3, 1 / 6, force / 2, k * force, k * along,
              (1 - odd / 2) * along)
    return _Constants(*(np.asarray(value, dtype) for value in values))


def _shifted(inner, f, c):
    """Where the populations come from that arrive in the inner cells with velocity c."""
    rows = slice(inner.start + 1 - c[0], inner.stop + 1 - c[0])
    return (rows, *(slice(1 - ck, n - 1 - ck) for ck, n in zip(c[1:], f.shape[2:])))


def _step(f, out, ahead, constants, solid, table, inner):
    lattice = LATTICES[len(f), f.ndim - 1]
    here = _shifted(inner, f, lattice.c[0])
    g, start = np.empty((len(f), *f[0][here].shape), f.dtype), []
    for i, back in enumerate(lattice.opposite):
        there = _shifted(inner, f, lattice.c[i])
        arrives, bounces = ((back, *here), (i, *there)) if ahead else ((i, *there), (back, *here))
        start.append(arrives)
        g[i] = f[arrives]
        if solid is not None:
            wall = solid[there]
            g[i] = np.where(wall > 0, f[bounces] + table[i][wall], g[i])
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # in solid cells
        _collide(lattice, g, constants)
    for i, back in enumerate(lattice.opposite):
        to = (i, *here) if ahead is None else start[back]
        out[to] = g[i] if solid is None else np.where(solid[here] > 0, f[to], g[i])


def _collide(lattice, g, k):
    """Collide in place; u stands for 3 u here, which saves factors."""
    total, skew = g[1::2] + g[2::2], g[1::2] - g[2::2]
    rho = g[0] + total.sum(axis=0)
    u = np.zeros((lattice.c.shape[1], *rho.shape), g.dtype)
    for c, one in zip(lattice.c[1::2], skew):
        for axis, ck in enumerate(c):
            if ck:
                u[axis] += ck.astype(g.dtype) * one
    for axis, half in enumerate(k.half_force):
        u[axis] = (u[axis] + half) * (k.three / rho)
    square, pull = sum(one * one for one in u), sum(one * part for one, part in zip(u, k.even_force))
    rest = k.even * rho * (1 - k.sixth * square) - pull
    bend, drift = k.half_even * rho, k.odd * rho
    g[0] -= k.even * g[0] - k.w[0] * rest
    for i, both, across, even_along, odd_along in zip(range(1, len(g), 2), total, skew, k.even_along, k.odd_along):
        c, w = lattice.c[i], k.w[(lattice.c[i] ** 2).sum()]
        along = sum(ck.astype(g.dtype) * uk for ck, uk in zip(c, u) if ck)
        even = k.keep_even * both + w * (rest + along * (bend * along + even_along))
        odd = k.keep_odd * across + w * (drift * along + odd_along)
        g[i], g[i + 1] = even + odd, even - odd


def _moments(f, half, rho, u):
    here = (slice(1, -1),) * rho.ndim
    rho[:], u[:] = 0, 0
    for c, row in zip(LATTICES[len(f), rho.ndim].c, f):
        rho += row[here]
        for axis, ck in enumerate(c):
            u[axis] += ck.astype(f.dtype) * row[here]
    for axis in range(len(u)):
        u[axis] = (u[axis] - half[axis]) / rho
