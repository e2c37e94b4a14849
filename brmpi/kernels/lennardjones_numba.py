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


@exactly
def order_ids(order, starts, ids):
    """Sort the atoms of each cell by id: few, and mostly sorted before.

    Parameters
    ----------
    order : (n,) uint32, atoms cell by cell; changed in place
    starts : (cells + 1,) int64
    ids : (n,) int64
    """
    for c in range(starts.size - 1):
        for k in range(starts[c] + 1, starts[c + 1]):
            atom, place = order[k], k
            while place > starts[c] and ids[order[place - 1]] > ids[atom]:
                order[place] = order[place - 1]
                place -= 1
            order[place] = atom


@exactly
def candidates(home, span, shape, starts, order, packed, near, atoms):
    """Copy the atoms of all cells around one, in their order.

    Parameters
    ----------
    home : (3,) int64, the cell
    span : (3,) int64, cells to either side
    shape : (3,) int64, of all cells
    starts, order : as in ``Cells``
    packed : (3, n) float64, positions in that order
    near : (3, room) float64, is written
    atoms : (room,) uint32, is written

    Returns
    -------
    int, how many there are: nothing is written where that exceeds the room
    """
    low, high = np.maximum(home - span, 0), np.minimum(home + span, shape - 1)
    count = 0
    for writing in range(2):
        if writing and count > atoms.size:
            return count
        count = 0
        for cx in range(low[0], high[0] + 1):
            for cy in range(low[1], high[1] + 1):
                row = (cx * shape[1] + cy) * shape[2]
                a, b = starts[row + low[2]], starts[row + high[2] + 1]
                if writing:
                    for k in range(a, b):
                        near[0, count + k - a], near[1, count + k - a] = packed[0, k], packed[1, k]
                        near[2, count + k - a], atoms[count + k - a] = packed[2, k], order[k]
                count += b - a
    return count


@exactly
def within(near, count, x, y, z, reach2, inside):
    """Say which of some atoms are within reach of a place.

    Parameters
    ----------
    near : (3, room) float64, positions
    count : int, how many
    x, y, z : float
    reach2 : float
    inside : (room,) uint8, is written
    """
    for k in range(count):
        dx, dy, dz = near[0, k] - x, near[1, k] - y, near[2, k] - z
        inside[k] = dx * dx + dy * dy + dz * dz < reach2


@exactly
def pick(inside, atoms, count, i, row, pad):
    """Write the atoms that are inside, but for one, which fills the row up.

    Parameters
    ----------
    inside : (room,) uint8
    atoms : (room,) uint32
    count : int, how many
    i : int
    row : uint32, is written; room for one more than ``count``, and filling up
    pad : int, the length is a multiple of this

    Returns
    -------
    int, the length
    """
    end = 0
    for k in range(count):  # without branches
        row[end] = atoms[k]
        end += inside[k] & (atoms[k] != i)
    while end % pad:
        row[end] = i
        end += 1
    return end


@exactly
def listed(pos, own, ids, home, cell, shape, span, reach2, pad):
    """List neighbours, in the order of cells and ids.

    Parameters
    ----------
    pos : (3, n) float64
    own : int
    ids : (n,) int64
    home : (3, n) int64, cell of each atom
    cell : (n,) int64, its number
    shape : (3,) int64, cells
    span : (3,) int64, cells to either side that are within reach
    reach2 : float
    pad : int

    Returns
    -------
    rows : (own + 1,) int64, where each own atom's list begins
    index : uint32, the lists
    """
    order, starts = sort(cell, shape[0] * shape[1] * shape[2])
    order_ids(order, starts, ids)
    packed = np.empty((3, ids.size))
    for axis in range(3):
        for k in range(ids.size):
            packed[axis, k] = pos[axis, order[k]]
    rows, index = np.zeros(own + 1, np.int64), np.empty(96 * own + 1024, np.uint32)
    near, atoms, inside = np.empty((3, 1024)), np.empty(1024, np.uint32), np.empty(1024, np.uint8)
    last, count, end = -1, 0, 0
    for i in range(own):
        if cell[i] != last:
            last = cell[i]
            count = candidates(home[:, i], span, shape, starts, order, packed, near, atoms)
            if count > atoms.size:
                near, atoms, inside = np.empty((3, count)), np.empty(count, np.uint32), np.empty(count, np.uint8)
                candidates(home[:, i], span, shape, starts, order, packed, near, atoms)
        if end + count + pad > index.size:
            index = np.concatenate((index, np.empty(index.size // 2 + count + pad, np.uint32)))
        within(near, count, pos[0, i], pos[1, i], pos[2, i], reach2, inside)
        end += pick(inside, atoms, count, i, index[end:], pad)
        rows[i + 1] = end
    return rows, index[:end].copy()


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
