"""Clusters of sites that bonds connect, on a rectangle: a site's label is the lowest number of a site of its cluster.

All versions give the same labels. OpenCL takes Numba: a union of trees has nothing to gain there.
Source of the method: Newman & Barkema, Monte Carlo Methods in Statistical Physics (1999), ch. 13.
"""

import numpy as np

from brmpi.kernels import choice


def labels(right, down, backend="auto"):
    """Label clusters.

    Parameters
    ----------
    right : (rows, columns) bool, C-contiguous, whether a site is bound to the one on its right; not in the last column
    down : (rows, columns) bool, C-contiguous, whether to the one below; not in the last row
    backend : one of ``kernels.BACKENDS``

    Returns
    -------
    (rows, columns) int64, of each site, row * columns + column of the lowest site of its cluster

    Raises
    ------
    ValueError : shapes, types or an order of memory that are not as above; unknown backend
    """
    choice.check(backend)
    for name, bonds in (("right", right), ("down", down)):
        if bonds.ndim != 2 or bonds.dtype != bool or bonds.shape != right.shape or not bonds.flags.c_contiguous:
            raise ValueError(f"{name}: {bonds.dtype} of shape {bonds.shape}, must be C-contiguous bool {right.shape}")
    if right.size == 0:
        return np.empty(right.shape, np.int64)
    backend = "numba" if backend == "opencl" else backend
    return choice.run("clusters labels", right.size, backend, _labels, "labels", right, down)


def _labels(right, down):
    from scipy import sparse
    from scipy.sparse import csgraph

    number = np.arange(right.size).reshape(right.shape)
    across, along = np.nonzero(right[:, :-1]), np.nonzero(down[:-1])
    start = np.concatenate([number[:, :-1][across], number[:-1][along]])
    end = np.concatenate([number[:, 1:][across], number[1:][along]])
    graph = sparse.coo_matrix((np.ones(start.size, bool), (start, end)), shape=(right.size,) * 2)
    count, cluster = csgraph.connected_components(graph, directed=False)
    lowest = np.full(count, right.size)
    np.minimum.at(lowest, cluster, number.ravel())
    return lowest[cluster].reshape(right.shape)
