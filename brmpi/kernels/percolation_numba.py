"""The loops of ``percolation``, compiled by Numba. Imported when they are first used: Numba takes long to load."""

import numpy as np
from numba import uint64

from brmpi.kernels.philox_numba import _start, exact, fill, part, product


def thresholds(key, first, count, size):
    """Filled sites at which clusters wind around.

    Parameters
    ----------
    key, first, count, size : as in ``percolation.thresholds``, checked
    """
    out = np.zeros((count, 3), np.int64)
    for lattice in range(count):
        wound(*_start(key, (first + lattice) * size * size), size, out[lattice])
    return out


@part
def root(parent, across, up, site):
    """The root of a site's cluster and the displacement to it; all on the way are hung directly under it.

    Parameters
    ----------
    parent : (n,) int32: of a root, minus the size of its cluster
    across, up : (n,) int32, displacement to the parent
    site : int
    """
    x = y = 0
    top = site
    while parent[top] >= 0:
        x += across[top]
        y += up[top]
        top = parent[top]
    left, below = x, y
    while parent[site] >= 0 and parent[site] != top:
        above, dx, dy = parent[site], across[site], up[site]
        parent[site], across[site], up[site] = top, left, below
        left -= dx
        below -= dy
        site = above
    return top, x, y


@exact
def wound(key, start, lane, size, out):
    """Fill one lattice until a cluster winds around in two independent directions.

    Parameters
    ----------
    key, start, lane : as in ``philox_numba.fill``
    size : int
    out : (3,) int64, written
    """
    sites = size * size
    order, random = np.arange(sites).astype(np.int32), np.empty(sites, np.uint64)
    fill(key, start, lane, random)
    for i in range(sites):
        j = i + np.int64(product(random[i], uint64(sites - i))[0])
        order[i], order[j] = order[j], order[i]
    empty = -sites - 1
    parent = np.full(sites, empty, np.int32)
    across, up = np.zeros(sites, np.int32), np.zeros(sites, np.int32)
    first_x, first_y = 0, 0
    for filled in range(sites):
        site = np.int64(order[filled])
        parent[site] = -1
        column, row = site % size, site // size
        for direction in range(4):
            dx = 1 - direction if direction in (0, 2) else 0
            dy = 2 - direction if direction in (1, 3) else 0
            other = (row + dy + size) % size * size + (column + dx + size) % size
            if parent[other] == empty:
                continue
            mine, x, y = root(parent, across, up, site)
            its, x2, y2 = root(parent, across, up, other)
            if mine == its:
                apart_x, apart_y = x - dx - x2, y - dy - y2
                if apart_x != 0 and out[0] == 0:
                    out[0] = filled + 1
                if apart_y != 0 and out[1] == 0:
                    out[1] = filled + 1
                if first_x == 0 and first_y == 0:
                    first_x, first_y = apart_x, apart_y
                elif out[2] == 0 and first_x * apart_y != first_y * apart_x:
                    out[2] = filled + 1
            elif parent[mine] < parent[its]:  # the larger cluster keeps its root
                parent[mine] += parent[its]
                parent[its], across[its], up[its] = mine, x - dx - x2, y - dy - y2
            else:
                parent[its] += parent[mine]
                parent[mine], across[mine], up[mine] = its, dx + x2 - x, dy + y2 - y
        if out[2] > 0:
            break
