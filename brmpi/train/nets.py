"""Networks: layers in a row, with all parameters in one flat vector, in the order that their gradients come."""

from math import prod

import numpy as np

from brmpi.streams import Stream
from brmpi.train import layers


def layout(shapes):
    """Where each parameter is in the flat vector: the last first, as the backward pass fills in their gradients.

    Parameters
    ----------
    shapes : sequence of tuple of int, in the order of the forward pass

    Returns
    -------
    places : list of slice, in the order of ``shapes``
    total : int
    """
    places, end = [], 0
    for shape in reversed(shapes):
        places.append(slice(end, end + prod(shape)))
        end += prod(shape)
    return places[::-1], end


def views(flat, shapes):
    """Each parameter as a view of the flat vector.

    Parameters
    ----------
    flat : (total,) array
    shapes : sequence of tuple of int

    Returns
    -------
    list of array
    """
    places, _ = layout(shapes)
    return [flat[place].reshape(shape) for place, shape in zip(places, shapes)]


class Net:
    """A classifier: layers in a row, and a softmax over the last one's outputs.

    Parameters
    ----------
    stack : list of layers, as in ``layers``
    shape : tuple of int, of an input as the first layer takes it

    Attributes
    ----------
    shapes : list of tuple of int, of the parameters
    size : int, numbers in all of them
    """

    def __init__(self, stack, shape):
        self.stack, self.shape = stack, tuple(shape)
        self.shapes = [shape for layer in stack for shape in layer.shapes]
        self.places, self.size = layout(self.shapes)
        counts = [len(layer.shapes) for layer in stack]
        self.firsts = [sum(counts[:i]) for i in range(len(stack) + 1)]

    def initial(self, seed, dtype):
        """Parameters to begin with: normal with variance 2 / inputs, and biases 0.

        Parameters
        ----------
        seed : int
        dtype : float32 or float64

        Returns
        -------
        (size,) array

        Source: He, Zhang, Ren & Sun, "Delving deep into rectifiers", ICCV 2015.
        """
        flat = np.zeros(self.size, dtype)
        stream, fans = Stream(seed, "weights"), [fan for layer in self.stack for fan in layer.fans]
        for place, fan in zip(self.places, fans):
            if fan:
                flat[place] = stream.normal(place.start, place.stop - place.start) * np.sqrt(2 / fan)
        return flat

    def _of(self, parameters, i):
        """The parameters of a layer."""
        return parameters[self.firsts[i]:self.firsts[i + 1]]

    def logits(self, x, parameters):
        """What the last layer says of some samples.

        Parameters
        ----------
        x : (n, …) array; may be changed
        parameters : list of array, from ``views``

        Returns
        -------
        (n, classes) array
        """
        x = x.reshape(len(x), *self.shape)
        for i, layer in enumerate(self.stack):
            x, _ = layer.forward(x, self._of(parameters, i))
        return x

    def gradient(self, x, labels, parameters, gradients, scale=1.0, ready=lambda number: None):
        """Losses of some samples, and the gradient of their sum times ``scale``.

        Parameters
        ----------
        x : (n, …) array; may be changed
        labels : (n,) int array
        parameters, gradients : lists of array, from ``views``; gradients are filled
        scale : float
        ready : called with the number of each parameter when its gradient is there, from the last to the first

        Returns
        -------
        losses : (n,) float64
        right : int, samples whose largest output is their label's
        """
        x = x.reshape(len(x), *self.shape)
        kept = []
        for i, layer in enumerate(self.stack):
            x, keep = layer.forward(x, self._of(parameters, i))
            kept.append(keep)
        losses, d = layers.cross_entropy(x, labels)
        right = int(np.count_nonzero(x.argmax(axis=1) == labels))
        d *= d.dtype.type(scale)
        for i in reversed(range(len(self.stack))):
            layer = self.stack[i]
            wanted = self.firsts[i] > 0
            d = layer.backward(d, kept.pop(), self._of(parameters, i), self._of(gradients, i), wanted)
            for number in reversed(range(self.firsts[i], self.firsts[i + 1])):
                ready(number)
            if not wanted:
                break  # nothing before it has parameters
        return losses, right


def softmax(shape, classes):
    """Softmax regression: one layer.

    Parameters
    ----------
    shape : tuple of int, of a sample
    classes : int

    Returns
    -------
    Net
    """
    return Net([layers.Dense(shape, classes)], shape)


def mlp(shape, classes, hidden):
    """A perceptron of several layers, with rectifiers between them.

    Parameters
    ----------
    shape : tuple of int, of a sample
    classes : int
    hidden : sequence of int, widths of the layers before the last

    Returns
    -------
    Net
    """
    stack, out = [], shape
    for width in hidden:
        stack += [layers.Dense(out, width), layers.Relu((width,))]
        out = (width,)
    return Net([*stack, layers.Dense(out, classes)], shape)


def conv(shape, classes, channels, hidden):
    """A small convolutional net: for each number of channels 3 × 3 squares, a rectifier, and from the second on the
    largest of four pixels; then a perceptron.

    Parameters
    ----------
    shape : (height, width) or (height, width, channels) of an image
    classes : int
    channels : sequence of int
    hidden : sequence of int

    Returns
    -------
    Net
    """
    image = tuple(shape) if len(shape) == 3 else (*shape, 1)
    stack, out = [], image
    for i, count in enumerate(channels):
        stack.append(layers.Conv(out, count))
        out = stack[-1].out
        stack.append(layers.Relu(out))
        if i and min(out[:2]) >= 2:
            stack.append(layers.Pool(out))
            out = stack[-1].out
    for width in hidden:
        stack += [layers.Dense(out, width), layers.Relu((width,))]
        out = (width,)
    return Net([*stack, layers.Dense(out, classes)], image)
