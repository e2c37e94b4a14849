"""Local SGD with outer momentum: ranks go their own ways for some steps, and then meet.

Source: Douillard et al., "DiLoCo", arXiv 2311.08105, algorithm 1; Stich, "Local SGD", arXiv 1805.09767.
"""

import numpy as np

from brmpi.train.place import Place


class Outer:
    """The parameters that ranks meet at.

    Parameters
    ----------
    comm : communicator
    w : (n,) float array, the same on all ranks
    rate, momentum : float, of Nesterov's method on the average of the ranks' ways

    Attributes
    ----------
    whole : (n,) array, where they met last; the same on all ranks
    velocity : (n,) array, the same on all ranks
    """

    def __init__(self, comm, w, rate=0.7, momentum=0.9):
        self.rate, self.momentum = rate, momentum
        self.whole, self.velocity = w.copy(), np.zeros_like(w)
        self.way = Place(comm, len(w) + 1, w.dtype)
        self.sums = self.way.sums([slice(0, len(w) + 1)])
        self.samples = 0.0  # of this rank, since

    def took(self, samples):
        """Take down a step of this rank.

        Parameters
        ----------
        samples : int
        """
        self.samples += samples

    def meet(self, w):
        """Average the ways of all ranks, weighted by samples, and go on from there. Collective.

        Parameters
        ----------
        w : (n,) float array, this rank's parameters; the new ones replace them
        """
        way = self.way.vector
        np.multiply(self.whole - w, w.dtype.type(self.samples), out=way[:-1])
        way[-1] = self.samples
        self.sums.begin(0)
        self.sums.finish()
        if way[-1] > 0:
            d = way[:-1] / way[-1]
            self.velocity *= w.dtype.type(self.momentum)
            self.velocity += d
            self.whole -= w.dtype.type(self.rate) * (d + w.dtype.type(self.momentum) * self.velocity)
        w[:] = self.whole
        self.samples = 0.0
