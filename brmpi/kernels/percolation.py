"""Site percolation on a periodic square lattice: sites are filled in random order until a cluster goes around.

Clusters are trees of sites (union-find). Each site knows its displacement to its parent: where two sites of one cluster
meet again and their displacements differ, the cluster winds around the lattice in the directions that differ. It spans
the lattice both ways once it winds in two independent directions; two clusters that wind do so in parallel.

Source: Newman & Ziff, Phys. Rev. E 64 (2001) 016706.
"""

import numpy as np

from brmpi.kernels import choice
from brmpi.kernels.philox import words

LARGEST = 2**15  # side of a lattice


def thresholds(key, first, count, size, backend="auto"):
    """How many sites are filled when a cluster first winds around along x, along y, and both ways independently.

    Lattice s takes words s n to (s + 1) n of the key, n = size**2: site i changes places with one of those after it.

    Parameters
    ----------
    key : two ints, each >= 0 and < 2**64
    first : int >= 0, index of the first lattice
    count : int >= 0, lattices
    size : int, side of a lattice, from 2 to ``LARGEST``
    backend : one of ``kernels.BACKENDS``

    Returns
    -------
    (count, 3) int64

    Raises
    ------
    ValueError : a size or a number out of range
    """
    if not 2 <= size <= LARGEST:
        raise ValueError(f"size = {size}: must be >= 2 and <= {LARGEST}")
    if first < 0 or count < 0:
        raise ValueError(f"first = {first}, count = {count}: must be >= 0")
    sites = size * size
    return choice.run("percolation thresholds", max(count, 1) * sites, backend, _thresholds, "thresholds",
                      tuple(map(int, key)), int(first), int(count), int(size))


def _thresholds(key, first, count, size):
    out = np.zeros((count, 3), np.int64)
    sites = size * size
    for lattice in range(count):
        order = list(range(sites))
        for i, word in enumerate(words(key, (first + lattice) * sites, sites, "numpy").tolist()):
            j = i + (word * (sites - i) >> 64)
            order[i], order[j] = order[j], order[i]
        out[lattice] = _filled(order, size)
    return out


def _filled(order, size):
    """Fill one lattice; returns how many sites are filled when it is wound around along x, along y, both ways."""
    parent, across, up, found, winding = {}, {}, {}, [0, 0, 0], None

    def _root(site):
        x = y = 0
        while parent[site] != site:
            x, y, site = x + across[site], y + up[site], parent[site]
        return site, x, y

    for filled, site in enumerate(order, 1):
        parent[site], across[site], up[site] = site, 0, 0
        column, row = site % size, site // size
        for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
            other = (row + dy) % size * size + (column + dx) % size
            if other not in parent:
                continue
            (mine, x, y), (its, x2, y2) = _root(site), _root(other)
            if mine != its:
                parent[mine], across[mine], up[mine] = its, dx + x2 - x, dy + y2 - y
                continue
            apart = x - dx - x2, y - dy - y2
            for direction in (0, 1):
                if apart[direction] and not found[direction]:
                    found[direction] = filled
            if any(apart):
                winding = winding or apart
                if not found[2] and winding[0] * apart[1] != winding[1] * apart[0]:
                    found[2] = filled
        if found[2]:
            break
    return found
