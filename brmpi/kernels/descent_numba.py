"""The loops of ``descent``, compiled by Numba. Imported when they are first used: Numba takes long to load."""

import functools

import numpy as np

from brmpi.kernels.compiled import compiled

exact = functools.partial(compiled, fastmath=False)


@exact
def sgd(w, g, velocity, rate, momentum, decay, nesterov):
    """A step of gradient descent.

    Parameters
    ----------
    w, g, velocity, rate, momentum, decay, nesterov : as in ``descent.sgd``, numbers of the arrays' type
    """
    for i in range(w.size):
        d = g[i] + w[i] * decay
        here = velocity[i] * momentum + d
        velocity[i] = here
        w[i] -= (d + here * momentum if nesterov else here) * rate


@exact
def adam(w, g, m, v, size, first, rest, second, other, root, eps, decay, shrink):
    """A step of Adam.

    Parameters
    ----------
    w, g, m, v, size, first, rest, second, other, root, eps, decay, shrink : as ``descent.adam`` makes them
    """
    for i in range(w.size):
        d = g[i] + w[i] * decay
        here = m[i] * first + d * rest
        square = v[i] * second + d * d * other
        m[i] = here
        v[i] = square
        w[i] = w[i] * shrink - here / (np.sqrt(square) * root + eps) * size
