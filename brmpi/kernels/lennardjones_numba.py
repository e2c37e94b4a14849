"""The loops of ``lennardjones``, compiled by Numba. Imported when they are first used: Numba takes long to load."""

from functools import partial

import numpy as np
from numba import njit

from brmpi.kernels.compiled import compiled
from brmpi.kernels.lennardjones_columns import WIDTH, columns

exactly = partial(compiled, fastmath=False)  # a list holds the same atoms wherever it is made


@exactly
def sort(cell, count):
    """Sort by counting.

    Parameters
    ----------
    cell : (n,) int64, cell of each atom
    count : int, cells

    Returns
    -------
    order : (n,) uint32, atoms cell by cell, in a cell as they were
    starts : (count + 1,) int64
    """
    starts = np.zeros(count + 1, np.int64)
    for c in cell:
        starts[c + 1] += 1
    for c in range(count):
        starts[c + 1] += starts[c]
    order, free = np.empty(cell.size, np.uint32), starts[:-1].copy()
    for i in range(cell.size):
        order[free[cell[i]]] = i
        free[cell[i]] += 1
    return order, starts


@njit(error_model="numpy", inline="always")
def distance2(x, y, z, turns):
    """Distance squared, to the nearest image unless turns is None.

    Parameters
    ----------
    x, y, z : float, differences of positions
    turns : periods and their inverses, or None

    Returns
    -------
    float
    """
    if turns is not None:
        x -= turns[0] * np.rint(x * turns[3])
        y -= turns[1] * np.rint(y * turns[4])
        z -= turns[2] * np.rint(z * turns[5])
    return x * x + y * y + z * z


@exactly
def meet(pos, sequence, home, around, shape, starts, order, packed, turns, reach2):
    """Find the own atoms within reach of each atom.

    Parameters
    ----------
    pos : (3, n) float64
    sequence : (n,) int64, atoms in the order of ids
    home : (3, n) int64, cell of each atom
    around : (3, cells, 3) int64, cells beside each cell in each dimension, -1 for none
    shape : three int, cells
    starts, order : as in ``Cells``, of the own atoms
    packed : (3, own) float64, positions of own atoms cell by cell
    turns : six float or None
    reach2 : float

    Returns
    -------
    found : uint32, places in ``order`` of own atoms within reach, for one atom after the other in ``sequence``
    ends : (n,) int64, where those of each atom end
    """
    x, y, z = packed[0], packed[1], packed[2]
    found, ends, end = np.empty(64 * order.size, np.uint32), np.empty(sequence.size, np.int64), 0
    for place in range(sequence.size):
        j = sequence[place]
        xj, yj, zj = pos[0, j], pos[1, j], pos[2, j]
        for cx in around[0, home[0, j]]:
            for cy in around[1, home[1, j]]:
                for cz in around[2, home[2, j]]:
                    if cx < 0 or cy < 0 or cz < 0:
                        continue
                    cell = (cx * shape[1] + cy) * shape[2] + cz
                    most = end + starts[cell + 1] - starts[cell]
                    if most > found.size:
                        found = np.concatenate((found, np.empty(most, np.uint32)))
                    for k in range(starts[cell], starts[cell + 1]):  # without branches
                        found[end] = k
                        end += (distance2(x[k] - xj, y[k] - yj, z[k] - zj, turns) < reach2) & (order[k] != j)
        ends[place] = end
    return found[:end], ends


@exactly
def enter(found, ends, sequence, order, rows, index):
    """Enter each atom in the lists of own atoms within reach, and fill these up with the own atom itself.

    Parameters
    ----------
    found, ends : from ``meet``
    sequence, order : as for ``meet``
    rows : (own + 1,) int64, where each own atom's list begins
    index : (rows[own],) uint32, is written
    """
    free = np.empty(order.size, np.int64)
    for k in range(order.size):
        free[k] = rows[order[k]]
    start = 0
    for place in range(sequence.size):
        for k in found[start : ends[place]]:
            index[free[k]] = sequence[place]
            free[k] += 1
        start = ends[place]
    for k in range(order.size):
        index[free[k] : rows[order[k] + 1]] = order[k]


@compiled
def forces(pos, rows, index, turns, rc2, shift, first, last, out):
    """Write forces, energies and virials.

    Parameters
    ----------
    pos : (3, n) float64
    rows : (own + 1,) int64, where each own atom's list begins: multiples of ``WIDTH``
    index : uint32, the lists: unsigned, or each would be compared with 0
    turns : six float or None
    rc2, shift : float
    first, last : int
    out : (5, own) float64
    """
    places, longest = np.empty((pos.shape[1], 4)), 0
    for j in range(pos.shape[1]):
        places[j, 0], places[j, 1], places[j, 2], places[j, 3] = pos[0, j], pos[1, j], pos[2, j], 0.0
    for i in range(first, last):
        longest = max(longest, rows[i + 1] - rows[i])
    x, y, z = np.empty(longest), np.empty(longest), np.empty(longest)
    for i in range(first, last):
        xi, yi, zi = pos[0, i], pos[1, i], pos[2, i]
        fx = fy = fz = energy = virial = 0.0
        start, count = rows[i], rows[i + 1] - rows[i]
        for k in range(0, count, WIDTH):
            columns(places, index, start + k, x, y, z, k)
        for k in range(count):
            dx, dy, dz = xi - x[k], yi - y[k], zi - z[k]
            if turns is not None:
                dx -= turns[0] * np.rint(dx * turns[3])
                dy -= turns[1] * np.rint(dy * turns[4])
                dz -= turns[2] * np.rint(dz * turns[5])
            r2 = dx * dx + dy * dy + dz * dz
            s2 = 1 / r2 if 0 < r2 < rc2 else 0.0  # a select: outside, all that follows is 0
            s6 = s2 * s2 * s2
            pull = 48 * s6 * (s6 - 0.5)
            virial += pull
            energy += 4 * s6 * (s6 - 1) - (shift if 0 < r2 < rc2 else 0.0)
            fx += pull * s2 * dx
            fy += pull * s2 * dy
            fz += pull * s2 * dz
        out[0, i], out[1, i], out[2, i], out[3, i], out[4, i] = fx, fy, fz, energy / 2, virial / 2
