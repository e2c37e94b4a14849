"""Which samples a step takes, who computes which of them, and how they are changed on the way."""

import numpy as np

from brmpi.streams import Stream

AUGMENTATIONS = ("shift", "flip", "noise")


class Order:
    """The order of samples in each epoch: a shuffle of all of them, the same on any number of ranks.

    Parameters
    ----------
    places : (n,) int array, samples that are trained on
    batch : int >= 1, samples of a step; the last of an epoch may have fewer
    seed : int

    Attributes
    ----------
    steps : int, of an epoch
    """

    def __init__(self, places, batch, seed):
        self.places, self.batch = np.asarray(places), batch
        self.stream, self.steps = Stream(seed, "order"), -(-len(places) // batch)
        self.epoch, self.shuffled = None, None

    def of(self, step):
        """Samples of a step.

        Parameters
        ----------
        step : int >= 0

        Returns
        -------
        places : (k,) int array
        first : int, how many samples were taken before, in all epochs: what random numbers are addressed by
        """
        epoch, number = divmod(step, self.steps)
        count = len(self.places)
        if epoch != self.epoch:
            words = self.stream.words(epoch * count, count)
            self.epoch, self.shuffled = epoch, self.places[np.argsort(words, kind="stable")]
        start = number * self.batch
        return self.shuffled[start:start + self.batch], epoch * count + start

    def samples(self, step):
        """How many samples some steps take.

        Parameters
        ----------
        step : int, steps from the start

        Returns
        -------
        int
        """
        epochs, rest = divmod(step, self.steps)
        return epochs * len(self.places) + min(rest * self.batch, len(self.places))


def tiles(count, size, share=None):
    """Pieces of a number of samples, in order.

    Parameters
    ----------
    count : int
    size : int >= 1
    share : (first, last) tuple of int, numbers of the tiles that are wanted; all, if None

    Returns
    -------
    list of slice
    """
    found = [slice(i, min(i + size, count)) for i in range(0, count, size)]
    return found if share is None else found[share[0]:share[1]]


class Augment:
    """Changes of inputs, drawn for each sample anew in each epoch by its place in the order.

    Parameters
    ----------
    kinds : sequence of str, of ``AUGMENTATIONS``: images are moved by up to ``reach`` pixels (with zeros behind them),
        turned left to right every other time; noise is added to scaled inputs
    reach : int, pixels
    noise : float, standard deviation
    seed : int
    """

    def __init__(self, kinds, reach, noise, seed):
        self.kinds, self.reach, self.noise = kinds, reach, noise
        self.moves, self.grain = Stream(seed, "augment"), Stream(seed, "noise")

    def raw(self, x, first):
        """Move and turn images.

        Parameters
        ----------
        x : (n, height, width, …) float array
        first : int, place in the order of the first

        Returns
        -------
        array of the same shape
        """
        if "shift" not in self.kinds and "flip" not in self.kinds:
            return x
        draws = self.moves.uniform(first, len(x), (3,))
        if "flip" in self.kinds:
            turned = draws[:, 2] < 0.5
            x[turned] = x[turned, :, ::-1]
        if "shift" not in self.kinds:
            return x
        reach, (height, width) = self.reach, x.shape[1:3]
        padded = np.zeros((len(x), height + 2 * reach, width + 2 * reach, *x.shape[3:]), x.dtype)
        padded[:, reach:reach + height, reach:reach + width] = x
        down, right = (draws[:, :2] * (2 * reach + 1)).astype(int).T
        rows = down[:, None] + np.arange(height)
        columns = right[:, None] + np.arange(width)
        return padded[np.arange(len(x))[:, None, None], rows[:, :, None], columns[:, None, :]]

    def scaled(self, x, first):
        """Add noise.

        Parameters
        ----------
        x : (n, …) float array, changed
        first : int, as above

        Returns
        -------
        array
        """
        if "noise" in self.kinds:
            x += self.noise * self.grain.normal(first, len(x), x.shape[1:])
        return x
