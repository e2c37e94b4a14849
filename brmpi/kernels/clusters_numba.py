"""The loop of ``clusters``, compiled by Numba. Imported when it is first used: Numba takes long to load."""

import numpy as np

from brmpi.kernels.compiled import compiled


@compiled
def root(parent, site):
    """The lowest site of a site's tree, whose branches are made shorter on the way.

    Parameters
    ----------
    parent : (sites,) int64, changed
    site : int

    Returns
    -------
    int
    """
    while parent[site] != site:
        parent[site] = parent[parent[site]]
        site = parent[site]
    return site


@compiled
def labels(right, down):
    """Label clusters.

    Parameters
    ----------
    right, down : as in ``clusters.labels``
    """
    rows, columns = right.shape
    parent = np.arange(rows * columns)
    for i in range(rows):
        for j in range(columns):
            site = i * columns + j
            if j + 1 < columns and right[i, j]:
                a, b = root(parent, site), root(parent, site + 1)
                parent[max(a, b)] = min(a, b)
            if i + 1 < rows and down[i, j]:
                a, b = root(parent, site), root(parent, site + columns)
                parent[max(a, b)] = min(a, b)
    for site in range(parent.size):
        parent[site] = parent[parent[site]]  # a parent is lower, and done before
    return parent.reshape(rows, columns)
