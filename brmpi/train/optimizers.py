"""How parameters follow gradients, one number at a time: any slice of the flat vector can be updated by itself.

An optimizer has ``names``, the vectors of its state, and ``update``. Symbols are those of the papers.
"""

import math

from brmpi.kernels import descent


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
        if self.names:
            descent.sgd(w, g, state["velocity"], rate, self.momentum, self.decay, self.nesterov)
        elif self.decay:
            w -= (g + w * w.dtype.type(self.decay)) * w.dtype.type(rate)
        else:
            w -= g * w.dtype.type(rate)


class Adam:
    """Adam; with ``decoupled`` weight decay AdamW.

    Parameters
    ----------
    decay : float >= 0
    decoupled : bool
    beta1, beta2, eps : float, as in the papers
    """

    names = ("m", "v")

    def __init__(self, decay=0.0, decoupled=False, beta1=0.9, beta2=0.999, eps=1e-8):
        self.decay, self.decoupled, self.beta1, self.beta2, self.eps = decay, decoupled, beta1, beta2, eps

    def update(self, w, g, state, rate, step):
        """Take one step; as ``Sgd.update``.

        Parameters
        ----------
        w, g, state, rate, step : as there
        """
        first, second = 1 - self.beta1 ** (step + 1), 1 - self.beta2 ** (step + 1)
        decay, shrink = (0.0, 1 - rate * self.decay) if self.decoupled else (self.decay, 1.0)
        descent.adam(w, g, state["m"], state["v"], rate / first, self.beta1, self.beta2, 1 / math.sqrt(second),
                     self.eps, decay, shrink)


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
