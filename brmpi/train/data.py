"""Samples and their labels: sets that scikit-learn brings, or any HDF5 or npz file, in memory or read when needed.

What fits is read once by the root and sent to all ranks, so that only the root needs the file. A larger HDF5 file stays
where it is, and each rank reads the rows that it needs.
"""

import ast
import os
import zipfile
import zlib
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from brmpi import mpi, partition, sums
from brmpi.errors import BadInput, Fault
from brmpi.results import hdf5
from brmpi.streams import Stream

BUNDLED = {"digits": "load_digits", "breast-cancer": "load_breast_cancer", "wine": "load_wine"}
TILE = 4096  # rows that are looked at together
KINDS = "biuf"  # kinds of numbers that inputs may have
BROKEN = (OSError, ValueError, KeyError, TypeError, SyntaxError, EOFError, RuntimeError, MemoryError,
          zipfile.BadZipFile, zlib.error)  # what a damaged file may end in


@dataclass
class Samples:
    """All samples of a set, the same on every rank.

    Attributes
    ----------
    inputs : (n, …) array, or an open HDF5 dataset
    labels : (n,) int64, class of each sample; None where the file has none
    classes : list of str, what people call them
    source : str, where they come from
    """

    inputs: object
    labels: np.ndarray
    classes: list
    source: str

    def __len__(self):
        return self.inputs.shape[0]

    @property
    def shape(self):
        """Shape of one sample."""
        return tuple(self.inputs.shape[1:])

    def rows(self, places):
        """Some samples.

        Parameters
        ----------
        places : (k,) int array of numbers of samples, in any order

        Returns
        -------
        (k, …) array, a copy

        Raises
        ------
        Fault : the file can no longer be read
        """
        if isinstance(self.inputs, np.ndarray):
            return self.inputs[places]
        wanted, back = np.unique(places, return_inverse=True)
        if not wanted.size:
            return np.empty((0, *self.shape), self.inputs.dtype)
        try:
            if wanted[-1] - wanted[0] < 4 * wanted.size:  # nearly all in one piece
                return self.inputs[wanted[0]:wanted[-1] + 1][places - wanted[0]]
            return self.inputs[wanted][back]
        except OSError as error:
            raise Fault(f"{self.source}: cannot be read any more: {error}") from None


def folder():
    """Where sets that come with a library are kept as HDF5: ``$BRMPI_DATA``, else a folder of the person's cache.

    Returns
    -------
    Path, which need not exist
    """
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("BRMPI_DATA") or Path(cache) / "brmpi" / "datasets")


def bundled(name):
    """The HDF5 file of a set that scikit-learn brings, written the first time that it is asked for.

    Parameters
    ----------
    name : one of ``BUNDLED``

    Returns
    -------
    Path

    Raises
    ------
    BadInput : scikit-learn is not installed, and there is no file yet
    Fault : the file cannot be written
    """
    from brmpi.results import disk

    path = folder() / f"{name}.h5"
    if path.exists():
        return path
    try:
        from sklearn import datasets
    except ImportError:
        raise BadInput(f"data = {name!r}: {path} is not there yet, and making it needs scikit-learn "
                       "(make install installs it)") from None
    found = getattr(datasets, BUNDLED[name])()
    x = np.asarray(getattr(found, "images", found.data))
    x = x.astype(np.uint8) if name == "digits" else x.astype(np.float64)  # pixels are whole, 0 to 16
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk.fault(error, path) from None
    write(path, x, found.target, [str(word) for word in found.target_names])
    return path


def write(path, inputs, labels=None, classes=None):
    """Write samples as an HDF5 file that ``load`` reads: datasets ``x`` and ``y``. Not collective.

    Parameters
    ----------
    path : path
    inputs : (n, …) array of numbers
    labels : (n,) array of ints, optional
    classes : list of str, optional, names of labels 0, 1 …

    Raises
    ------
    Fault : the disk is full
    """
    import io

    import h5py

    from brmpi.results import disk

    memory = io.BytesIO()
    with h5py.File(memory, "w") as file:
        file["x"] = np.asarray(inputs)
        if labels is not None:
            file["y"] = np.asarray(labels)
            if classes:
                file["y"].attrs["classes"] = hdf5.attribute(list(classes))
    disk.write(Path(path), memory.getvalue())


def load(comm, name, inputs="x", labels="y", memory=256.0, labelled=True):
    """A set of samples. Collective.

    Parameters
    ----------
    comm : communicator
    name : one of ``BUNDLED``, or the path of an HDF5 or npz file
    inputs, labels : str, names of the datasets in it
    memory : float [MB], the largest set that is kept in memory
    labelled : bool, whether there have to be labels

    Returns
    -------
    Samples

    Raises
    ------
    BadInput : no such file or dataset, or no samples in it; on every rank alike
    """
    told, path, key = mpi.on_root(comm, _examined, name, inputs, labels, labelled)
    shape, dtype, classes, codes, size = told
    needed = prod(shape) * dtype.itemsize / 1e6
    if needed <= memory:
        return Samples(_sent(comm, path, key, shape, dtype), codes, classes, str(path))
    if path.suffix == ".npz":
        raise BadInput(f"{path}: {key} takes {needed:.0f} MB: more than memory = {memory:g} MB; larger sets are read "
                       "from HDF5 as they are needed: convert it, or raise memory")
    return Samples(_opened(comm, path, key, shape, size), codes, classes, str(path))


def _examined(name, inputs, labels, labelled):
    """What a file holds: shape, dtype, classes, labels, size; its path; the name of the inputs. Root only."""
    path = bundled(name) if name in BUNDLED else Path(name)
    if not path.exists():
        known = ", ".join(BUNDLED)
        raise BadInput(f"data = {str(name)!r}: no such file, and none of {known}")
    try:
        with _Reader(path) as file:
            for key in (inputs, labels) if labelled else (inputs,):
                if key not in file.names:
                    raise BadInput(f"{path}: has no {key!r}: there are {', '.join(file.names) or 'no arrays'}")
            shape, dtype = file.about(inputs)
            if len(shape) < 2 or 0 in shape or dtype.kind not in KINDS:
                raise BadInput(f"{path}: {inputs} is {dtype} of shape {shape}: must be numbers, (samples, …), at least "
                               "one of each")
            codes, classes = None, []
            if labels in file.names:
                codes, classes = _coded(file, path, labels, shape[0])
    except BROKEN as error:
        raise _broken(path, error) from None
    return (shape, dtype, classes, codes, path.stat().st_size), path, inputs


def _broken(path, error):
    """The sentence for a file that is damaged."""
    if isinstance(error, (BadInput, Fault)):
        return error
    return BadInput(f"{path}: cannot be read as HDF5 or npz: {error}")


def _coded(file, path, labels, count):
    """Labels as numbers of classes, and the names of the classes."""
    raw = file.whole(labels)
    if raw.shape not in ((count,), (count, 1)):
        raise BadInput(f"{path}: {labels} has shape {raw.shape}: must be ({count},), a label for each sample")
    raw = raw.reshape(-1)
    if raw.dtype.kind == "f" and not (np.isfinite(raw).all() and np.array_equal(raw, np.rint(raw))):
        raise BadInput(f"{path}: {labels} holds numbers that are not whole: must be classes")
    if raw.dtype.kind in "OSU":
        raw = np.array([value.decode() if isinstance(value, bytes) else str(value) for value in raw])
    values, codes = np.unique(raw, return_inverse=True)
    names = file.classes(labels)
    if names and raw.dtype.kind in "iu" and values.min() >= 0 and values.max() < len(names):
        return raw.astype(np.int64), list(names)
    return codes.astype(np.int64), [str(int(value)) if value.dtype.kind in "iufb" else str(value) for value in values]


class _Reader:
    """An HDF5 or npz file, open for reading.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path):
        self.path, self.zip = path, path.suffix == ".npz"

    def __enter__(self):
        if self.zip:
            self.file = zipfile.ZipFile(self.path)
            self.names = [name.removesuffix(".npy") for name in self.file.namelist() if name.endswith(".npy")]
        else:
            self.file = hdf5.opened(self.path)
            found = []
            self.file.visititems(lambda name, node: found.append(name) if hasattr(node, "dtype") else None)
            self.names = found
        return self

    def __exit__(self, *_):
        self.file.close()

    def _header(self, stream):
        """Shape and dtype of an array in an npz, whose order must be C's."""
        magic = stream.read(8)
        if magic[:6] != b"\x93NUMPY":
            raise BadInput(f"{self.path}: holds something that is no NumPy array")
        length = int.from_bytes(stream.read(2 if magic[6] == 1 else 4), "little")
        told = ast.literal_eval(stream.read(length).decode("latin1"))
        dtype = np.dtype(told["descr"])
        if told["fortran_order"] and len(told["shape"]) > 1:
            raise BadInput(f"{self.path}: holds an array in Fortran's order: save it in C's order")
        return tuple(told["shape"]), dtype

    def about(self, key):
        """Shape and dtype of an array."""
        if not self.zip:
            return tuple(self.file[key].shape), self.file[key].dtype
        with self.file.open(f"{key}.npy") as stream:
            return self._header(stream)

    def slabs(self, key):
        """Rows in order, in bounded pieces."""
        shape, dtype = self.about(key)
        stream = None
        if self.zip:
            stream = self.file.open(f"{key}.npy")
            self._header(stream)
        for slab in hdf5.slabs(shape, dtype.itemsize):
            extent = hdf5.extent(slab)
            if stream is None:
                yield np.ascontiguousarray(self.file[key][slab])
            else:
                yield np.frombuffer(stream.read(prod(extent) * dtype.itemsize), dtype).reshape(extent)
        if stream is not None:
            stream.close()

    def whole(self, key):
        """An array, whole."""
        shape, dtype = self.about(key)
        if not self.zip:
            return self.file[key][...]
        if dtype.hasobject:
            raise BadInput(f"{self.path}: {key} holds Python objects: must be numbers or text")
        return np.concatenate([slab.reshape(-1) for slab in self.slabs(key)] or [np.empty(0, dtype)]).reshape(shape)

    def classes(self, key):
        """Names of classes beside the labels, or nothing."""
        if self.zip:
            return [str(name) for name in self.whole("classes")] if "classes" in self.names else []
        return hdf5.text(self.file[key].attrs.get("classes", np.array([], "S1")))


def _sent(comm, path, key, shape, dtype):
    """The inputs in every rank's memory, from the root's file."""
    native = dtype.newbyteorder("=")
    whole = np.empty(shape, native)
    flat = whole.reshape(-1)

    def _slabs():
        with _Reader(path) as file:
            yield from file.slabs(key)

    def _next(part):
        try:
            part[:] = next(source).reshape(-1)
        except (*BROKEN, StopIteration) as error:
            raise _broken(path, error) from None

    source, end = iter(_slabs()) if comm.rank == 0 else None, 0
    for slab in hdf5.slabs(shape, dtype.itemsize):
        count = prod(hdf5.extent(slab))
        mpi.on_root(comm, _next, flat[end:end + count])
        if comm.size > 1:
            comm.Bcast(flat[end:end + count].view(np.uint8), 0)
        end += count
    return whole


def _opened(comm, path, key, shape, size):
    """The inputs in each rank's own file."""
    import socket

    why, dataset = None, None
    try:
        dataset = hdf5.opened(path)[key]
        if tuple(dataset.shape) != shape or path.stat().st_size != size:
            why = f"{socket.gethostname()} (another file of that name)"
    except (OSError, KeyError):
        why = socket.gethostname()
    lacking = sorted({host for host in comm.allgather(why) if host})
    if lacking:
        raise BadInput(f"{path}: is too large to be sent round (memory), and not to be read on {', '.join(lacking)}: "
                       "copy it there (brmpi sync), or raise memory")
    return dataset


def split(labels, fraction, seed, purpose="split"):
    """Part of the samples set aside, with as many of each class as its share of all.

    Parameters
    ----------
    labels : (n,) int array, class of each
    fraction : float, 0 to 1, that is set aside
    seed : int
    purpose : str, another purpose gives another choice

    Returns
    -------
    kept, aside : int64 arrays of places, in order
    """
    words = Stream(seed, purpose).words(0, len(labels))
    classes, counts = np.unique(labels, return_counts=True)
    total = round(fraction * len(labels))
    takes = partition.shares(total, counts) if total else np.zeros(len(classes), int)
    aside = np.zeros(len(labels), bool)
    for one, take in zip(classes, takes):
        places = np.flatnonzero(labels == one)
        aside[places[np.argsort(words[places], kind="stable")[:take]]] = True
    return np.flatnonzero(~aside), np.flatnonzero(aside)


SCALES = ("standard", "whole", "none")


def scaling(comm, samples, places, how):
    """What is to be subtracted from inputs, and what they are divided by then. Collective.

    Parameters
    ----------
    comm : communicator
    samples : Samples
    places : (k,) int array, samples that are looked at: those trained on
    how : "standard", mean and standard deviation of each number of an input; "whole", one for all numbers of an
        input; "none"

    Returns
    -------
    mean, deviation : float64 arrays of an input's shape; the same bits for any number of ranks

    Raises
    ------
    BadInput : an input is not finite; on every rank alike
    """
    shape, width = samples.shape, prod(samples.shape)
    tiles = [places[i:i + TILE] for i in range(0, len(places), TILE)]
    totals = np.zeros((2, width))
    for first in range(0, len(tiles), comm.size):
        mine = tiles[first + comm.rank] if first + comm.rank < len(tiles) else places[:0]
        rows = samples.rows(mine).reshape(len(mine), width).astype(np.float64)
        broken = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        worst = min((int(mine[row]) for row in broken), default=len(samples))
        worst = min(comm.allgather(worst))
        if worst < len(samples):
            raise BadInput(f"{samples.source}: sample {worst} holds a number that is not finite")
        with np.errstate(over="ignore"):
            totals += sums.total(comm, np.hstack([rows, rows**2])).reshape(2, width)
    if how == "none":
        return np.zeros(shape), np.ones(shape)
    mean, square = totals / len(places)
    if how == "whole":
        mean, square = np.full(width, mean.mean()), np.full(width, square.mean())
    variance = np.maximum(square - mean**2, 0)
    variance[variance <= 1e-12 * square] = 0
    return mean.reshape(shape), np.where(variance > 0, np.sqrt(variance), 1.0).reshape(shape)
