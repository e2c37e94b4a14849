"""Lists of neighbours in the order of cells, compiled by Numba. Imported when they are first used.

Own atoms of one column of cells (alike in x and y) follow each other. What is in and around the column is copied once,
layer by layer in z, so that the atoms in reach of one are a contiguous part of that.
"""

import numpy as np

from brmpi.kernels.lennardjones_numba import exactly, sort


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
def surround(low, high, shape, starts, order, packed, layers, near, atoms):
    """Copy the atoms of a block of cells, layer by layer.

    Parameters
    ----------
    low, high : (3,) int64, its first and last cell
    shape : (3,) int64, of all cells; cell (x, y, z) has number (z shape[0] + x) shape[1] + y
    starts, order : as in ``Cells``, by that number
    packed : (3, n) float64, positions in that order
    layers : (high[2] - low[2] + 2,) int64, is written: where each layer begins, and the last one's end
    near : (3, room) float64, is written
    atoms : (room,) uint32, is written

    Returns
    -------
    int, how many there are: nothing is written where that exceeds the room
    """
    count = 0
    for z in range(low[2], high[2] + 1):
        layers[z - low[2]] = count
        for x in range(low[0], high[0] + 1):
            row = (z * shape[0] + x) * shape[1]
            count += starts[row + high[1] + 1] - starts[row + low[1]]
    layers[high[2] + 1 - low[2]] = count
    if count <= atoms.size:
        place = 0
        for z in range(low[2], high[2] + 1):
            for x in range(low[0], high[0] + 1):
                row = (z * shape[0] + x) * shape[1]
                for k in range(starts[row + low[1]], starts[row + high[1] + 1]):
                    near[0, place], near[1, place], near[2, place] = packed[0, k], packed[1, k], packed[2, k]
                    atoms[place] = order[k]
                    place += 1
    return count


@exactly
def within(x, y, z, place, reach2, inside):
    """Say which of some atoms are within reach of a place.

    Parameters
    ----------
    x, y, z : (count,) float64, positions
    place : three float
    reach2 : float
    inside : (room,) uint8, is written from 0 on
    """
    for k in range(x.size):
        dx, dy, dz = x[k] - place[0], y[k] - place[1], z[k] - place[2]
        inside[k] = dx * dx + dy * dy + dz * dz < reach2


@exactly
def pick(inside, atoms, i, row, pad):
    """Write the atoms that are inside, but for one, which fills the row up.

    Parameters
    ----------
    inside : (room,) uint8
    atoms : (count,) uint32
    i : int
    row : uint32, is written; room for all and for filling up
    pad : int, the length is a multiple of this

    Returns
    -------
    int, the length
    """
    end = 0
    for k in range(atoms.size):  # without branches
        row[end] = atoms[k]
        end += inside[k] & (atoms[k] != i)
    while end % pad:
        row[end] = i
        end += 1
    return end


@exactly
def listed(pos, own, ids, home, shape, span, reach2, pad):
    """List neighbours, in the order of cells (z, x, y) and ids.

    Parameters
    ----------
    pos : (3, n) float64
    own : int
    ids : (n,) int64
    home : (3, n) int64, cell of each atom
    shape : (3,) int64, cells
    span : (3,) int64, cells to either side that are within reach
    reach2 : float
    pad : int

    Returns
    -------
    rows : (own + 1,) int64, where each own atom's list begins
    index : uint32, the lists
    """
    n = ids.size
    cell = np.empty(n, np.int64)
    for i in range(n):
        cell[i] = (home[2, i] * shape[0] + home[0, i]) * shape[1] + home[1, i]
    order, starts = sort(cell, shape[0] * shape[1] * shape[2])
    order_ids(order, starts, ids)
    packed = np.empty((3, n))
    for axis in range(3):
        for k in range(n):
            packed[axis, k] = pos[axis, order[k]]
    rows, index = np.zeros(own + 1, np.int64), np.empty(96 * own + 1024, np.uint32)
    near, atoms, inside = np.empty((3, 1024)), np.empty(1024, np.uint32), np.empty(1024, np.uint8)
    layers, low, high = np.empty(shape[2] + 1, np.int64), np.empty(3, np.int64), np.empty(3, np.int64)
    begin = end = 0
    while begin < own:
        after, low[:], high[:] = begin + 1, home[:, begin], home[:, begin]
        while after < own and home[0, after] == home[0, begin] and home[1, after] == home[1, begin]:
            low[2], high[2] = min(low[2], home[2, after]), max(high[2], home[2, after])
            after += 1
        low, high = np.maximum(low - span, 0), np.minimum(high + span, shape - 1)
        count = surround(low, high, shape, starts, order, packed, layers, near, atoms)
        if count > atoms.size:
            near, atoms, inside = np.empty((3, count)), np.empty(count, np.uint32), np.empty(count, np.uint8)
            surround(low, high, shape, starts, order, packed, layers, near, atoms)
        for i in range(begin, after):
            a = layers[max(home[2, i] - span[2], 0) - low[2]]
            b = layers[min(home[2, i] + span[2], shape[2] - 1) + 1 - low[2]]
            if end + b - a + pad > index.size:
                index = np.concatenate((index, np.empty(index.size // 2 + b - a + pad, np.uint32)))
            within(near[0, a:b], near[1, a:b], near[2, a:b], (pos[0, i], pos[1, i], pos[2, i]), reach2, inside)
            end += pick(inside, atoms[a:b], i, index[end:], pad)
            rows[i + 1] = end
        begin = after
    return rows, index[:end].copy()
