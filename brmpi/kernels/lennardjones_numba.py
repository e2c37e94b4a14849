"""The loops of ``lennardjones``, compiled by Numba. Imported when they are first used: Numba takes long to load."""

from functools import partial

import numpy as np
from numba import njit

from brmpi.kernels.compiled import compiled

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
def count(pos, sequence, home, around, shape, starts, order, packed, turns, reach2, counts):
    """Count all atoms within reach of each own atom, itself among them.

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
    counts : (own,) int64, cell by cell, is added to
    """
    x, y, z = packed[0], packed[1], packed[2]
    for j in sequence:
        xj, yj, zj = pos[0, j], pos[1, j], pos[2, j]
        for cx in around[0, home[0, j]]:
            for cy in around[1, home[1, j]]:
                for cz in around[2, home[2, j]]:
                    if cx < 0 or cy < 0 or cz < 0:
                        continue
                    cell = (cx * shape[1] + cy) * shape[2] + cz
                    for k in range(starts[cell], starts[cell + 1]):
                        counts[k] += distance2(x[k] - xj, y[k] - yj, z[k] - zj, turns) < reach2


@exactly
def enter(pos, sequence, home, around, shape, starts, order, packed, turns, reach2, rows, index):
    """Enter each atom in the lists of own atoms within reach, and fill these up with the own atom itself.

    Parameters
    ----------
    pos, sequence, home, around, shape, starts, order, packed, turns, reach2 : as in ``count``
    rows : (own + 1,) int64, where each own atom's list begins
    index : (rows[own],) uint32, is written
    """
    x, y, z = packed[0], packed[1], packed[2]
    free, inside = np.empty(order.size, np.int64), np.empty(np.diff(starts).max(), np.bool_)
    for k in range(order.size):
        free[k] = rows[order[k]]
    for j in sequence:
        xj, yj, zj = pos[0, j], pos[1, j], pos[2, j]
        for cx in around[0, home[0, j]]:
            for cy in around[1, home[1, j]]:
                for cz in around[2, home[2, j]]:
                    if cx < 0 or cy < 0 or cz < 0:
                        continue
                    cell = (cx * shape[1] + cy) * shape[2] + cz
                    start, end = starts[cell], starts[cell + 1]
                    for k in range(start, end):  # apart from the branches, so that it runs in vectors
                        inside[k - start] = distance2(x[k] - xj, y[k] - yj, z[k] - zj, turns) < reach2
                    for k in range(start, end):
                        if inside[k - start] and order[k] != j:
                            index[free[k]] = j
                            free[k] += 1
    for k in range(order.size):
        index[free[k] : rows[order[k] + 1]] = order[k]


@compiled
def forces(pos, rows, index, turns, rc2, shift, first, last, out):
    """Write forces, energies and virials.

    Parameters
    ----------
    pos : (3, n) float64
    rows : (own + 1,) int64, where each own atom's list begins
    index : uint32, the lists: unsigned, or each would be compared with 0
    turns : six float or None
    rc2, shift : float
    first, last : int
    out : (5, own) float64
    """
    x, y, z = pos[0], pos[1], pos[2]
    for i in range(first, last):
        xi, yi, zi = x[i], y[i], z[i]
        fx = fy = fz = energy = virial = 0.0
        row = index[rows[i] : rows[i + 1]]
        for k in range(row.size):
            j = row[k]
            dx, dy, dz = xi - x[j], yi - y[j], zi - z[j]
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
