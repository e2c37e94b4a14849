"""Steps of optimizers, one number at a time: every slice of a vector can be updated by itself, to the same bits.

Sources: Sutskever, Martens, Dahl & Hinton, ICML 2013 (momentum, as PyTorch has it); Kingma & Ba, arXiv 1412.6980,
algorithm 1; Loshchilov & Hutter, arXiv 1711.05101, algorithm 2.
"""

import numpy as np

from brmpi.kernels import choice

CHUNK = 1 << 14  # numbers that stay in a cache while NumPy works on them


def sgd(w, g, velocity, rate, momentum, decay, nesterov, backend="auto"):
    """A step of gradient descent with momentum; ``decay * w`` is added to the gradient.

    Parameters
    ----------
    w : (n,) float array, changed
    g : (n,) float array of the same type, gradient
    velocity : (n,) array of the same type, changed
    rate, momentum, decay : float
    nesterov : bool
    backend : one of ``kernels.BACKENDS``
    """
    real = w.dtype.type
    choice.run("descent sgd", max(1, w.size), backend, _sgd, "sgd", w, g, velocity, real(rate), real(momentum),
               real(decay), bool(nesterov))


def adam(w, g, m, v, size, first, second, root, eps, decay, shrink, backend="auto"):
    """A step of Adam: m and v follow g + decay * w and its square; w is times ``shrink``, less size m / (√v + ε).

    Parameters
    ----------
    w : (n,) float array, changed
    g : (n,) float array of the same type, gradient
    m, v : (n,) arrays of the same type, changed
    size : float, learning rate over 1 - first**t
    first, second : float, β1 and β2
    root : float, 1 / √(1 - second**t), that √v is times
    eps : float
    decay : float, of Adam
    shrink : float, 1 - rate * decay of AdamW
    backend : one of ``kernels.BACKENDS``
    """
    real = w.dtype.type
    choice.run("descent adam", max(1, w.size), backend, _adam, "adam", w, g, m, v, real(size), real(first),
               real(1 - first), real(second), real(1 - second), real(root), real(eps), real(decay), real(shrink))


def _chunks(count):
    return [slice(i, min(i + CHUNK, count)) for i in range(0, count, CHUNK)]


def _sgd(w, g, velocity, rate, momentum, decay, nesterov):
    for part in _chunks(len(w)):
        d = g[part] + w[part] * decay
        here = velocity[part]
        here *= momentum
        here += d
        w[part] -= (d + here * momentum if nesterov else here) * rate


def _adam(w, g, m, v, size, first, rest, second, other, root, eps, decay, shrink):
    for part in _chunks(len(w)):
        here = w[part]
        d = g[part] + here * decay
        here *= shrink
        m[part] *= first
        m[part] += d * rest
        v[part] *= second
        v[part] += d * d * other
        here -= m[part] / (np.sqrt(v[part]) * root + eps) * size
