"""QR of a few columns whose rows lie with several ranks: each factors its own, then triangles meet pair by pair.

A tree of such factorisations (TSQR) sends one triangle up and one square down for every level, however many rows
there are, and is as stable as Householder's own, for columns of any rank.

Source: Demmel, Grigori, Hoemmen, Langou, Communication-optimal parallel and sequential QR and LU factorizations,
SIAM J. Sci. Comput. 34 (2012).
"""

import numpy as np

from brmpi.linalg import blas
from brmpi.linalg.householder import rebuilt, reflect, reflectors


class Tree:
    """The factorisation. Collective over the ranks in ``order``; Q stays in the tree.

    Parameters
    ----------
    comm : communicator
    order : list of ranks that have rows, the root first
    heights : (comm.size,) ints, how many rows each has
    block : (heights[comm.rank], n) ndarray, column by column; overwritten

    Attributes
    ----------
    r : (k, n) ndarray, upper trapezoidal, where k = min(rows of all, n), on the root; on others, of the rows that
        came together there
    """

    def __init__(self, comm, order, heights, block):
        self.comm, place, n = comm, order.index(comm.rank), block.shape[1]
        self.v, self.t, self.r = reflectors(block)
        self.met, self.parent, self.k = [], None, min(sum(heights[rank] for rank in order), n)
        height = [min(heights[rank], n) for rank in order]  # of the triangles that go up
        step = 1
        while step < len(order) and self.parent is None:
            if place % (2 * step):
                self.parent = order[place - step]
                comm.Send(self.r.T, self.parent)
            elif place + step < len(order):
                own, other = height[place], height[place + step]
                both = np.empty((own + other, n), dtype=block.dtype, order="F")
                both[:own] = self.r
                come = np.empty((n, other), dtype=block.dtype)
                comm.Recv(come, order[place + step])
                both[own:] = come.T
                v, t, self.r = reflectors(both)
                self.met.append((order[place + step], own, v, t))
            for at in range(0, len(order) - step, 2 * step):
                height[at] = min(height[at] + height[at + step], n)
            step *= 2

    def down(self, c):
        """What the leaf here makes its rows from, and what is to go to the ranks that were met.

        Parameters
        ----------
        c : (len(r), n) ndarray

        Returns
        -------
        (h, n) ndarray, list of (rank, ndarray)
        """
        going = []
        for rank, own, v, t in reversed(self.met):
            both = reflect(v, t, c)
            going.append((rank, both[own:]))
            c = both[:own]
        return c, going

    def _send(self, going, told):
        for rank, c in going:
            self.comm.Send(np.concatenate([c.ravel(), told.ravel()]), rank)

    def _come(self, size):
        """c from the rank above, and what it told besides: ``size`` elements."""
        come = np.empty(len(self.r) * self.k + size, dtype=self.r.dtype)
        self.comm.Recv(come, self.parent)
        return come[: len(self.r) * self.k].reshape(len(self.r), self.k), come[len(self.r) * self.k:]

    def explicit(self, out=None):
        """This rank's rows of Q. Collective over the tree.

        Parameters
        ----------
        out : (rows, k) ndarray, with a contiguous dimension, that they are to be in; None for a new one

        Returns
        -------
        (rows, k) ndarray
        """
        none = np.empty(0, dtype=self.r.dtype)
        c = np.eye(self.k, dtype=self.r.dtype, order="F") if self.parent is None else self._come(0)[0]
        c, going = self.down(c)
        self._send(going, none)
        return reflect(self.v, self.t, c, out)

    def reflectors(self, out):
        """The reflectors that factor all rows at once, the root's n first rows on top. Collective over the tree.

        Parameters
        ----------
        out : (rows, n) ndarray, with a contiguous dimension, for this rank's rows of V

        Returns
        -------
        t : (n, n) ndarray, column by column
        r : (n, n) ndarray, on the root; None on others
        """
        n = self.k
        if self.parent is not None:
            c, t = self._come(n * n)
            c, going = self.down(c)
            self._send(going, t)
            reflect(self.v, self.t, c, out)
            return np.asfortranarray(t.reshape(n, n)), None
        c, going = self.down(np.eye(n, dtype=self.r.dtype, order="F"))
        top, u, t, s = rebuilt(reflect(self.v[:n], self.t, c))
        for _, part in going:
            blas.trsm("R", "U", "N", "N", 1, u, part)
        self._send(going, t)
        blas.trsm("R", "U", "N", "N", 1, u, c)
        out[:n] = top
        reflect(self.v, self.t, c, out[n:], n)
        return t, s[:, None] * self.r
