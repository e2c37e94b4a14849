"""Gravity by an octree: cells with moments to second order, and forces of whole groups of bodies at once.

Bodies are sorted by keys that interleave the bits of their coordinates, so that each cell of the octree is a range of
them. A cell's bodies act on a body at a distance d from their centre of mass as one term of a Taylor series:

    a = -(m / R^3 - 3 T / (2 R^5) + 15 S / (2 R^7)) d + 3 M d / R^5        M = sum m x x^T about the centre, T = tr M
    phi = -(m / R - T / (2 R^3) + 3 S / (2 R^5))                           S = d.M d, R^2 = d^2 + eps^2

where its size is below theta times its distance to a box around the group of bodies acted on; else its parts act. A
cell's size is that of a cube around its centre of mass that reaches as far as its bodies do. So the terms of a group
are those of the group and the tree alone, in the tree's order, and the tree is that of the bodies alone: a result is
the same bits whoever computes it, given the parts of the tree that his groups open.

Positions are in units of the side of a cube around all bodies, masses in units of the sum of all, or a power of two
near those. A node of the tree is a row of several arrays, a parent before its children, those in the order of keys:

    level        int8, above the parent's, and the same for siblings: 0 for a node without parent
    first, last  int64: a leaf holds bodies first to last - 1; another node tells by last - first < 0 how many there are
                 in it, and by last = first that it is not known what is in it
    skip         int64, the node that follows when its own parts are left out
    rows         (nodes, COLUMNS) float64: centre of mass, mass, 3 T / 2, 3 M (xx, xy, xz, yy, yz, zz), size
    box          (nodes, 6) float64: lower and upper corner of a box around its bodies

Source: Barnes & Hut, Nature 324 (1986) 446; groups: Barnes, J. Comput. Phys. 87 (1990) 161; keys: Warren & Salmon,
Proc. Supercomputing '93, 12.
"""

import numpy as np

from brmpi.kernels import choice
from brmpi.kernels.gravity import TINY

BITS = 21  # of a key for each axis
LEAF = 32  # bodies of a leaf at most
GROUP = 256  # bodies of a group at most
DIRECT = 2  # so few bodies of a leaf act one by one, whatever their distance
MASS, TRACE, SIZE = 3, 4, 11  # columns of a row
COLUMNS = 12
ROUND = 2 / np.sqrt(3)  # side of a cube over half its diagonal
CELL_COST = 2  # of a cell's term, in those of a body
KINDS = ("float64", "mixed", "potential")
SPREAD = ((32, 0x1F00000000FFFF), (16, 0x1F0000FF0000FF), (8, 0x100F00F00F00F00F), (4, 0x10C30C30C30C30C3),
          (2, 0x1249249249249249))  # two zeros between neighbouring bits


def loops(backend):
    """The loops below as a backend runs them.

    Parameters
    ----------
    backend : one of ``kernels.BACKENDS``; OpenCL makes trees with Numba

    Returns
    -------
    module with ``keys``, ``sort``, ``forest``, ``skips``, ``groups``, ``moments``, ``opened``, ``essential``
    """
    choice.check(backend)
    if (choice.without_measurement("tree") if backend == "auto" else backend) == "numpy":
        from brmpi.kernels import tree as module
    else:
        from brmpi.kernels import tree_numba as module
    return module


def field(kind, targets, group, first, last, skip, rows, box, bodies, theta, eps2, out, cost, backend="auto"):
    """Accelerations or potentials of groups of bodies.

    ``kind`` "mixed" takes terms in float32: positions relative to the group's middle, those of bodies in pairs of
    float32, sums of 256 terms. That adds less than 1e-6 of the acceleration to the errors of the tree.

    Parameters
    ----------
    kind : one of ``KINDS``
    targets : (4, n) float64, C-contiguous, bodies acted on: positions and masses
    group : (groups, 2) int64, the first body of each and the one after its last
    first, last, skip, rows : of the tree
    box : (groups, 6) float64, of each group
    bodies : (4, m) float64, C-contiguous, of the tree
    theta : float > 0, opening angle
    eps2 : float >= 0, softening squared
    out : (3 or 1, n) float64, is written
    cost : (n,) int64, is written: bodies' terms that each of these bodies' took, as ``CELL_COST`` counts those of cells
    backend : one of ``kernels.BACKENDS``; OpenCL is not one for trees: Numba does it

    Raises
    ------
    ValueError : unknown kind or backend
    RuntimeError : a group opens a cell of which the parts are not known
    """
    choice.check(backend)
    if kind not in KINDS:
        raise ValueError(f"kind = {kind!r}: known are {', '.join(KINDS)}")
    backend = "numba" if backend == "opencl" else backend
    unknown = choice.run(f"tree {kind}", max(targets.shape[1], 1), backend, _field, "field", KINDS.index(kind), targets,
                         group, first, last, skip, rows, box, bodies, float(theta), float(eps2), out, cost)
    if unknown:
        raise RuntimeError(f"{unknown} cells of the tree are to be opened, and their parts are not known")


def keys(pos, low, side):
    """Keys of positions: bits of x, y and z in turn.

    Parameters
    ----------
    pos : (3, n) float64
    low : (3,) float64, corner of the cube
    side : float > 0, of the cube; what lies outside counts for the border

    Returns
    -------
    (n,) int64, 3 BITS bits
    """
    found = np.zeros(pos.shape[1], np.int64)
    for x, corner in zip(pos, low):
        x = ((x - corner) * (2.0**BITS / side)).astype(np.int64).clip(0, 2**BITS - 1)
        for shift, mask in SPREAD:
            x = (x | x << shift) & mask
        found = found << 1 | x
    return found


def sort(key):
    """Places of keys in ascending order, equal ones as they come.

    Parameters
    ----------
    key : (n,) int64

    Returns
    -------
    (n,) int64
    """
    return np.argsort(key, kind="stable")


def forest(key, start, stop, leaf):
    """The parts of the tree of all bodies whose keys lie in a range, given the bodies of that range.

    The range must be such that each cell that is in it in part only has more than ``leaf`` bodies. A cell whose bodies
    are all in one of its eight parts is left out: that part stands for it.

    Parameters
    ----------
    key : (n,) int64, ascending
    start, stop : int, the first and the last key of the range
    leaf : int > 0, bodies of a leaf at most, but for those that have the same key

    Returns
    -------
    level, first, last : arrays
    """
    n = key.size
    level, first, last = np.empty(2 * n, np.int8), np.empty(2 * n, np.int64), np.empty(2 * n, np.int64)
    stack = np.zeros((8 * (BITS + 1), 4), np.int64)
    stack[0, 1] = n
    top, count = 1, 0
    while top:
        top -= 1
        a, b, depth, inside = stack[top]
        if a == b:
            continue
        shift = 3 * (BITS - depth)
        low = key[a] >> shift << shift
        if start <= low and low | ~(-1 << shift) <= stop:  # all of the cell lies in the range
            level[count], first[count] = depth if inside else 0, a
            while depth < BITS and key[a] >> (shift - 3) == key[b - 1] >> (shift - 3):
                depth += 1
                shift -= 3
            last[count] = b
            count += 1
            if b - a <= leaf or depth == BITS:
                continue
            last[count - 1] = a - (b - a)
            inside = 1
        shift -= 3
        until = b
        for digit in range(7, -1, -1):
            part = key[a] >> (shift + 3) << 3 | digit
            lo, hi = a, until
            while lo < hi:
                middle = (lo + hi) // 2
                if key[middle] >> shift < part:
                    lo = middle + 1
                else:
                    hi = middle
            if lo < until:
                stack[top, 0], stack[top, 1], stack[top, 2], stack[top, 3] = lo, until, depth + 1, inside
                top += 1
            until = lo
    return level[:count].copy(), first[:count].copy(), last[:count].copy()


def skips(level):
    """The node that follows each when its parts are left out.

    Parameters
    ----------
    level : (nodes,) int8

    Returns
    -------
    (nodes,) int64
    """
    skip, following = np.empty(level.size, np.int64), np.full(BITS + 1, level.size, np.int64)
    for i in range(level.size - 1, -1, -1):
        skip[i] = following[level[i]]
        following[level[i] :] = i
    return skip


def groups(first, last, skip, most):
    """The largest cells that hold few bodies, and all other leaves.

    Parameters
    ----------
    first, last, skip : of the tree
    most : int > 0, bodies

    Returns
    -------
    (groups,) int64, nodes
    """
    found, count, i = np.empty(first.size, np.int64), 0, 0
    while i < first.size:
        if abs(last[i] - first[i]) <= most or skip[i] == i + 1:
            found[count] = i
            count += 1
            i = skip[i]
        else:
            i += 1
    return found[:count].copy()


def moments(nodes, first, last, skip, bodies, rows, box):
    """Write rows and boxes of some nodes, from their bodies or from their parts'.

    Parameters
    ----------
    nodes : (k,) int64, children before parents
    first, last, skip : of the tree
    bodies : (4, m) float64
    rows, box : of the tree, those of ``nodes`` are written
    """
    for i in nodes:
        row, lo, hi = rows[i], box[i, :3], box[i, 3:]
        row[:], lo[:], hi[:] = 0.0, np.inf, -np.inf
        leaf = last[i] > first[i]
        j, end = (first[i], last[i]) if leaf else (i + 1, skip[i])
        while j < end:
            m = bodies[MASS, j] if leaf else rows[j, MASS]
            row[MASS] += m
            for a in range(3):
                row[a] += m * (bodies[a, j] if leaf else rows[j, a])
                lo[a] = min(lo[a], bodies[a, j] if leaf else box[j, a])
                hi[a] = max(hi[a], bodies[a, j] if leaf else box[j, 3 + a])
            j = j + 1 if leaf else skip[j]
        for a in range(3):
            row[a] = row[a] / row[MASS] if row[MASS] > 0 else (lo[a] + hi[a]) / 2
        j, reach = (first[i] if leaf else i + 1), 0.0
        while j < end:
            if leaf:
                m, x, y, z = 3 * bodies[MASS, j], bodies[0, j] - row[0], bodies[1, j] - row[1], bodies[2, j] - row[2]
            else:
                m, x, y, z = 3 * rows[j, MASS], rows[j, 0] - row[0], rows[j, 1] - row[1], rows[j, 2] - row[2]
                for a in range(5, 11):
                    row[a] += rows[j, a]
            row[5] += m * x * x
            row[6] += m * x * y
            row[7] += m * x * z
            row[8] += m * y * y
            row[9] += m * y * z
            row[10] += m * z * z
            distance = np.sqrt(x * x + y * y + z * z)
            reach = max(reach, distance if leaf else distance + rows[j, SIZE] / ROUND)
            j = j + 1 if leaf else skip[j]
        corner = 0.0
        for a in range(3):
            corner += max(hi[a] - row[a], row[a] - lo[a]) ** 2
        row[TRACE] = (row[5] + row[8] + row[10]) / 2
        row[SIZE] = ROUND * min(reach, np.sqrt(corner))


def opened(row, held, lx, ly, lz, hx, hy, hz, theta):
    """Whether a cell's parts act on what is in a box, instead of the cell.

    Parameters
    ----------
    row : (COLUMNS,) float64, of the cell
    held : int, bodies, if it is a leaf
    lx, ly, lz, hx, hy, hz : float, corners of the box
    theta : float

    Returns
    -------
    bool
    """
    dx = max(lx - row[0], row[0] - hx, 0.0)
    dy = max(ly - row[1], row[1] - hy, 0.0)
    dz = max(lz - row[2], row[2] - hz, 0.0)
    d = theta * np.sqrt(dx * dx + dy * dy + dz * dz)  # rounding keeps order: a larger box opens what a part of it does
    return row[SIZE] >= d or 0 < held <= DIRECT


def essential(opened, first, last, skip, rows, whole, others, theta):
    """What of a tree is needed for the bodies in some boxes.

    Parameters
    ----------
    opened : the function above, compiled or not
    first, last, skip, rows : the tree
    whole : (6,) float64, a box around all boxes
    others : (k, 6) float64, boxes
    theta : float

    Returns
    -------
    nodes : int64, the nodes, in their order
    open : bool, whether each is opened
    """
    nodes, open = np.empty(first.size, np.int64), np.empty(first.size, np.bool_)
    count, i = 0, 0
    while i < first.size and others.shape[0]:
        row, held, found = rows[i], last[i] - first[i], False
        if opened(row, held, whole[0], whole[1], whole[2], whole[3], whole[4], whole[5], theta):
            for b in others:
                if opened(row, held, b[0], b[1], b[2], b[3], b[4], b[5], theta):
                    found = True
                    break
        nodes[count], open[count] = i, found
        count += 1
        i = i + 1 if found else skip[i]
    return nodes[:count].copy(), open[:count].copy()


def _field(kind, targets, group, first, last, skip, rows, box, bodies, theta, eps2, out, cost):
    """As ``field``; returns how many cells are to be opened whose parts are not known."""
    unknown = 0
    for (begin, end), b in zip(group, box):
        cells, near, i = [], [], 0
        while i < skip.size:
            held = last[i] - first[i]
            if not opened(rows[i], held, *b, theta):
                cells.append(i)
                i = skip[i]
            elif held > 0:
                near.append(np.arange(first[i], last[i]))
                i += 1
            else:
                unknown += skip[i] == i + 1
                i += 1
        near = np.concatenate([*near, []]).astype(np.int64)
        cost[begin:end] = near.size + CELL_COST * len(cells)
        terms = _potential if KINDS[kind] == "potential" else _acceleration
        out[:, begin:end] = terms(targets[:3, begin:end], bodies[:, near], rows[cells].T, eps2)
    return unknown


def _terms(targets, sources, eps2):
    """Sources less targets (3, sources, targets), squared distance without softening, inverse of that with it."""
    d = sources[:3, :, None] - targets[:, None, :]
    r2 = d[0] ** 2 + d[1] ** 2 + d[2] ** 2
    return d, r2, 1 / np.sqrt(np.maximum(r2 + eps2, TINY))


def _second(d, cells):
    """M d and d.M d, three times."""
    xx, xy, xz, yy, yz, zz = cells[5:11, :, None]
    q = np.stack([xx * d[0] + xy * d[1] + xz * d[2], xy * d[0] + yy * d[1] + yz * d[2],
                  xz * d[0] + yz * d[1] + zz * d[2]])
    return q, (d * q).sum(axis=0)


def _acceleration(targets, bodies, cells, eps2):
    d, _, w = _terms(targets, bodies, eps2)
    near = (bodies[MASS][:, None] * w**3 * d).sum(axis=1)
    d, _, w = _terms(targets, cells, eps2)
    q, s = _second(d, cells)
    pull = cells[MASS][:, None] * w**3 - cells[TRACE][:, None] * w**5 + 2.5 * s * w**7
    return near + (pull * d - w**5 * q).sum(axis=1)


def _potential(targets, bodies, cells, eps2):
    _, r2, w = _terms(targets, bodies, eps2)
    near = np.where(r2 > 0, bodies[MASS][:, None] * w, 0).sum(axis=0)
    d, _, w = _terms(targets, cells, eps2)
    _, s = _second(d, cells)
    return -near - (cells[MASS][:, None] * w - cells[TRACE][:, None] * w**3 / 3 + s * w**5 / 2).sum(axis=0)
