"""Layers of a network, each with its own backward pass, in NumPy. No MPI here.

A layer is told its input's shape (without the samples) and says its parameters' shapes (``shapes``), its output's
(``out``), and how to fill the parameters at the start (``fans``: the inputs of each, 0 for what starts at zero).
``forward`` returns the output and what ``backward`` needs; ``backward`` fills the gradients, which are sums over
samples, and returns the gradient of its input, or None where nobody asks for that.
"""

import numpy as np


class Dense:
    """Every output a weighted sum of every input: y = x W + b.

    Parameters
    ----------
    shape : tuple of int, of an input; more than one axis is taken as one
    width : int, outputs
    """

    def __init__(self, shape, width):
        inputs = int(np.prod(shape))
        self.shapes, self.fans, self.out = ((inputs, width), (width,)), (inputs, 0), (width,)

    def forward(self, x, weights):
        """Outputs of some samples.

        Parameters
        ----------
        x : (n, …) array
        weights : (inputs, width) and (width,) arrays

        Returns
        -------
        y : (n, width) array
        kept : what ``backward`` needs
        """
        flat = x.reshape(len(x), -1)
        y = flat @ weights[0]
        y += weights[1]
        return y, (flat, x.shape)

    def backward(self, dy, kept, weights, gradients, wanted):
        """Gradients from those of the outputs.

        Parameters
        ----------
        dy : (n, width) array
        kept : from ``forward``
        weights, gradients : as ``forward``'s weights; gradients are filled
        wanted : bool, whether the input's gradient is asked for

        Returns
        -------
        (n, …) array or None
        """
        x, shape = kept
        np.matmul(x.T, dy, out=gradients[0])
        np.sum(dy, axis=0, out=gradients[1])
        return (dy @ weights[0].T).reshape(shape) if wanted else None


class Relu:
    """What is below zero becomes zero.

    Parameters
    ----------
    shape : tuple of int, of an input
    """

    shapes = fans = ()

    def __init__(self, shape):
        self.out = tuple(shape)

    def forward(self, x, weights):
        """As ``Dense.forward``; x is changed.

        Parameters
        ----------
        x, weights : as there
        """
        np.maximum(x, 0, out=x)
        return x, x

    def backward(self, dy, kept, weights, gradients, wanted):
        """As ``Dense.backward``; dy is changed.

        Parameters
        ----------
        dy, kept, weights, gradients, wanted : as there
        """
        dy *= kept > 0
        return dy


class Conv:
    """Each pixel's outputs from a square around it, with zeros beyond the edge, by one matrix product (im2col).

    Parameters
    ----------
    shape : (height, width, channels) of an image
    channels : int, outputs of each pixel
    side : int, odd, of the square
    """

    def __init__(self, shape, channels, side=3):
        height, width, inputs = shape
        self.side, self.reach, self.inputs = side, side // 2, inputs
        self.shapes = (side * side * inputs, channels), (channels,)
        self.fans, self.out = (side * side * inputs, 0), (height, width, channels)

    def _columns(self, x):
        """The square around each pixel as a row: (pixels of all images, side * side * channels)."""
        n, height, width, channels = x.shape
        reach = self.reach
        padded = np.zeros((n, height + 2 * reach, width + 2 * reach, channels), x.dtype)
        padded[:, reach:reach + height, reach:reach + width] = x
        columns = np.empty((n, height, width, self.side, self.side * channels), x.dtype)
        steps = padded.strides
        for row in range(self.side):  # a row of the square is one piece of memory
            columns[:, :, :, row] = np.lib.stride_tricks.as_strided(
                padded[:, row:], (n, height, width, self.side * channels), (*steps[:3], steps[3]), writeable=False)
        return columns.reshape(n * height * width, -1)

    def forward(self, x, weights):
        """As ``Dense.forward``, for (n, height, width, channels) images.

        Parameters
        ----------
        x, weights : as there
        """
        columns = self._columns(x)
        y = columns @ weights[0]
        y += weights[1]
        return y.reshape(len(x), *self.out), (columns, x.shape)

    def backward(self, dy, kept, weights, gradients, wanted):
        """As ``Dense.backward``.

        Parameters
        ----------
        dy, kept, weights, gradients, wanted : as there
        """
        columns, shape = kept
        flat = dy.reshape(-1, dy.shape[-1])
        np.matmul(columns.T, flat, out=gradients[0])
        np.sum(flat, axis=0, out=gradients[1])
        if not wanted:
            return None
        n, height, width, channels = shape
        squares = (flat @ weights[0].T).reshape(n, height, width, self.side, self.side, channels)
        dx = np.zeros((n, height + 2 * self.reach, width + 2 * self.reach, channels), dy.dtype)
        for row in range(self.side):
            for column in range(self.side):
                dx[:, row:row + height, column:column + width] += squares[:, :, :, row, column]
        return dx[:, self.reach:self.reach + height, self.reach:self.reach + width]


class Pool:
    """The largest of each square of four pixels; an odd last row or column is left out.

    Parameters
    ----------
    shape : (height, width, channels) of an image, at least 2 pixels high and wide
    """

    shapes = fans = ()

    def __init__(self, shape):
        height, width, channels = shape
        self.out = height // 2, width // 2, channels

    def _quarters(self, x):
        """The four pixels of each square, as views."""
        height, width = 2 * self.out[0], 2 * self.out[1]
        return [x[:, row:height:2, column:width:2] for row in (0, 1) for column in (0, 1)]

    def forward(self, x, weights):
        """As ``Conv.forward``.

        Parameters
        ----------
        x, weights : as there
        """
        a, b, c, d = self._quarters(x)
        y = np.maximum(np.maximum(a, b), np.maximum(c, d))
        return y, (x, y)

    def backward(self, dy, kept, weights, gradients, wanted):
        """As ``Conv.backward``; of equal pixels the first has the gradient.

        Parameters
        ----------
        dy, kept, weights, gradients, wanted : as there
        """
        x, y = kept
        dx = np.zeros(x.shape, dy.dtype)
        left = np.ones(y.shape, bool)
        for here, there in zip(self._quarters(x), self._quarters(dx)):
            first = left & (here == y)
            np.copyto(there, dy, where=first)
            left &= ~first
        return dx


def softmax(logits):
    """Probabilities of classes.

    Parameters
    ----------
    logits : (n, classes) float array

    Returns
    -------
    (n, classes) array of the same dtype; rows sum to 1
    """
    p = logits - logits.max(axis=1, keepdims=True)
    np.exp(p, out=p)
    p /= p.sum(axis=1, keepdims=True)
    return p


def cross_entropy(logits, labels):
    """How surprised each sample's label is, -log p(label), and its gradient.

    Parameters
    ----------
    logits : (n, classes) float array
    labels : (n,) int array

    Returns
    -------
    losses : (n,) float64
    gradient : (n, classes) array, of the sum of the losses
    """
    rows = np.arange(len(labels))
    shifted = logits - logits.max(axis=1, keepdims=True)
    p = np.exp(shifted)
    sums = p.sum(axis=1, keepdims=True)
    losses = np.log(sums[:, 0], dtype=np.float64) - shifted[rows, labels]
    p /= sums
    p[rows, labels] -= 1
    return losses, p
