"""How parameters follow gradients, one number at a time: any slice of the flat vector can be updated by itself.

An optimizer has ``names``, the vectors of its state, and ``update``. Symbols are those of the papers.
"""

import math

import numpy as np

CHUNK = 1 << 14  # numbers that stay in a cache while they are worked on


def _chunks(count):
    return [slice(i, min(i + CHUNK, count)) for i in range(0, count, CHUNK)]


class Sgd:
    """Stochastic gradient descent with momentum, perhaps Nesterov's; weight decay is added to the gradient.

    Parameters
    ----------
    momentum : float, 0 to 1
    decay : float >= 0
    nesterov : bool
    """

    def __init__(self, momentum=0.9, decay=0.0, nesterov=False):
        self.momentum, self.decay, self.nesterov = momentum, decay, nesterov
        self.names = ("velocity",) if momentum else ()

    def update(self, w, g, state, rate, step):
        """Take one step.

        Parameters
        ----------
        w : (n,) float array, changed
        g : (n,) float array, gradient
        state : dict of name to (n,) array, changed
        rate : float, learning rate
        step : int, steps taken before
        """
        v = state.get("velocity")
        for part in _chunks(len(w)):
            d = g[part] + w[part] * w.dtype.type(self.decay) if self.decay else g[part]
            if v is not None:
                here = v[part]
                here *= w.dtype.type(self.momentum)
                here += d
                d = d + here * w.dtype.type(self.momentum) if self.nesterov else here
            w[part] -= d * w.dtype.type(rate)


class Adam:
    """Adam; with ``decoupled`` weight decay AdamW.

    Parameters
    ----------
    decay : float >= 0
    decoupled : bool
    beta1, beta2, eps : float, as in the papers

    Source: Kingma & Ba, arXiv 1412.6980, algorithm 1; Loshchilov & Hutter, arXiv 1711.05101, algorithm 2.
    """

    names = ("m", "v")

    def __init__(self, decay=0.0, decoupled=False, beta1=0.9, beta2=0.999, eps=1e-8):
        self.decay, self.decoupled, self.beta1, self.beta2, self.eps = decay, decoupled, beta1, beta2, eps

    def update(self, w, g, state, rate, step):
        """Take one step; as ``Sgd.update``."""
        real = w.dtype.type
        first, second = 1 - self.beta1 ** (step + 1), 1 - self.beta2 ** (step + 1)
        size, eps = real(rate / first), real(self.eps)
        m, v = state["m"], state["v"]
        for part in _chunks(len(w)):
            d, here = g[part], w[part]
            if self.decay:
                if self.decoupled:
                    here *= real(1 - rate * self.decay)
                else:
                    d = d + here * real(self.decay)
            m[part] *= real(self.beta1)
            m[part] += d * real(1 - self.beta1)
            v[part] *= real(self.beta2)
            v[part] += d * d * real(1 - self.beta2)
            root = np.sqrt(v[part])
            root *= real(1 / math.sqrt(second))
            root += eps
            here -= m[part] / root * size


OPTIMIZERS = ("sgd", "nesterov", "adam", "adamw")


def optimizer(name, momentum, decay):
    """An optimizer by its name.

    Parameters
    ----------
    name : one of ``OPTIMIZERS``
    momentum : float, of sgd and nesterov
    decay : float, weight decay

    Returns
    -------
    Sgd or Adam
    """
    if name in ("sgd", "nesterov"):
        return Sgd(momentum, decay, name == "nesterov")
    return Adam(decay, name == "adamw")


SCHEDULES = ("constant", "cosine", "linear", "step")


def rate(schedule, base, epoch, epochs, warmup=0.0, drop=0.1):
    """The learning rate at a time.

    Parameters
    ----------
    schedule : one of ``SCHEDULES``: cosine and linear go down to 0 at the end, step is times ``drop`` after one half
        and again after three quarters
    base : float
    epoch, epochs : float, now and at the end
    warmup : float, epochs in which it rises from 0 to ``base``
    drop : float

    Returns
    -------
    float
    """
    if epoch < warmup:
        return base * (epoch / warmup) if epoch else base * 1e-3
    done = min(1.0, (epoch - warmup) / max(epochs - warmup, 1e-12))
    if schedule == "cosine":
        return base * 0.5 * (1 + math.cos(math.pi * done))
    if schedule == "linear":
        return base * (1 - done)
    if schedule == "step":
        return base * drop ** ((done >= 0.5) + (done >= 0.75))
    return base
