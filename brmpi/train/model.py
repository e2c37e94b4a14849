"""``model.h5``: a trained network by itself, with all that is needed to use it."""

import io
import json
from pathlib import Path

import numpy as np

from brmpi.errors import BadInput
from brmpi.results import disk, folder, hdf5
from brmpi.train import layers, nets

FORMAT = "brmpi model 1"
TILE = 64  # samples that are classified together, always, as the last bits may depend on it


class Model:
    """A network and its parameters, the scaling of its inputs and the names of its classes.

    Parameters
    ----------
    kind : "softmax", "mlp" or "conv"
    shape : tuple of int, of an input
    classes : list of str
    sizes : dict of str to list of int, further arguments of ``nets``' function
    w : (n,) float array, parameters
    mean, factor : arrays of an input's shape: the mean is subtracted, and the rest times the factor
    """

    def __init__(self, kind, shape, classes, sizes, w, mean, factor):
        self.kind, self.shape, self.classes, self.sizes = kind, tuple(shape), list(classes), sizes
        self.net = getattr(nets, kind)(self.shape, len(self.classes), **sizes)
        if w.shape != (self.net.size,):
            raise ValueError(f"w has shape {w.shape}: this {kind} has {self.net.size} parameters")
        self.w, self.parameters = w, nets.views(w, self.net.shapes)
        self.mean, self.factor = mean.astype(w.dtype), factor.astype(w.dtype)

    def scaled(self, x):
        """Inputs as the network takes them.

        Parameters
        ----------
        x : (n, …) array

        Returns
        -------
        (n, …) array of the parameters' type, a copy
        """
        x = x.astype(self.w.dtype)
        x -= self.mean
        x *= self.factor
        return x

    def logits(self, x):
        """What the network says of up to ``TILE`` samples: a sample's bits do not depend on the others.

        Parameters
        ----------
        x : (n, …) array

        Returns
        -------
        (n, classes) array
        """
        n = len(x)
        whole = np.zeros((TILE, *self.shape), self.w.dtype)
        whole[:n] = self.scaled(x)
        return self.net.logits(whole, self.parameters)[:n]

    def probabilities(self, x):
        """Probabilities of classes, of any number of samples.

        Parameters
        ----------
        x : (n, …) array

        Returns
        -------
        (n, classes) array; rows sum to 1
        """
        found = [layers.softmax(self.logits(x[i:i + TILE])) for i in range(0, len(x), TILE)]
        return np.concatenate(found) if found else np.empty((0, len(self.classes)), self.w.dtype)

    def save(self, path):
        """Write the file, whole or not at all. Not collective.

        Parameters
        ----------
        path : Path

        Raises
        ------
        Fault : the disk is full
        """
        import h5py

        memory = io.BytesIO()
        with h5py.File(memory, "w") as file:
            file.attrs["format"] = FORMAT
            told = {"kind": self.kind, "shape": self.shape, "classes": self.classes, "sizes": self.sizes}
            file.attrs["network"] = json.dumps(told)
            file["w"], file["mean"], file["factor"] = self.w, self.mean, self.factor
        disk.write(Path(path), memory.getvalue())


def load(run):
    """The network of a training run.

    Parameters
    ----------
    run : path of the run's folder, or of a ``model.h5``

    Returns
    -------
    Model

    Raises
    ------
    BadInput : there is none, or it cannot be read
    """
    path = Path(run)
    path = path / folder.MODEL if path.is_dir() else path
    if not path.exists():
        raise BadInput(f"{run}: holds no {folder.MODEL}: is it a training run that was ended or stopped?")
    try:
        with hdf5.opened(path) as file:
            if hdf5.text(file.attrs.get("format", "")) != FORMAT:
                raise BadInput(f"{path}: is not a {FORMAT!r}")
            told = json.loads(file.attrs["network"])
            w, mean, factor = file["w"][:], file["mean"][...], file["factor"][...]
        return Model(told["kind"], told["shape"], told["classes"], told["sizes"], w, mean, factor)
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(f"{path}: cannot be read as a model: {error}") from None
