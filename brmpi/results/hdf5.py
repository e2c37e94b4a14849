"""How HDF5 files are laid out here: the same data make the same bytes, at any time, from any number of ranks."""

import math
import posixpath

import numpy as np

SLAB = 16 << 20  # bytes that travel, and are written, at once
CHUNK = 1 << 18  # bytes under one checksum


def slabs(shape, itemsize, limit=SLAB):
    """Slices that cover a block in order, each of bounded size (but at least one element).

    Parameters
    ----------
    shape : tuple of int
    itemsize : int [bytes]
    limit : int [bytes]

    Yields
    ------
    tuple of slice, one for each axis
    """
    if 0 in shape:
        return
    if not shape:
        yield ()
        return
    row = itemsize * math.prod(shape[1:])
    if row > limit:
        for i in range(shape[0]):
            for rest in slabs(shape[1:], itemsize, limit):
                yield (slice(i, i + 1), *rest)
        return
    step = max(1, limit // row)
    for i in range(0, shape[0], step):
        yield (slice(i, min(i + step, shape[0])), *(slice(0, n) for n in shape[1:]))


def extent(slab):
    """Shape of a slab.

    Parameters
    ----------
    slab : tuple of slice
    """
    return tuple(s.stop - s.start for s in slab)


def chunks(shape, itemsize):
    """Blocks of at most 256 KiB, all nearly alike, each under a checksum; depends on nothing but the whole.

    Parameters
    ----------
    shape : tuple of int > 0
    itemsize : int [bytes]

    Returns
    -------
    tuple of int
    """
    largest = extent(next(slabs(shape, itemsize, CHUNK)))
    return tuple(-(-n // -(-n // c)) for n, c in zip(shape, largest))


def room(datasets, attributes, checksum=False):
    """Bytes that a file takes on the disk, rather too many than too few.

    Parameters
    ----------
    datasets : dict of str to Piece
    attributes : dict of str to dict
    checksum : bool
    """
    total = 16384 + 1024 * len(datasets) + 2048 * len(attributes)
    for piece in datasets.values():
        shape, itemsize = tuple(map(int, piece.shape)), piece.data.dtype.itemsize
        if checksum and 0 not in shape:
            chunk = chunks(shape, itemsize)
            count = math.prod(-(-n // c) for n, c in zip(shape, chunk))
            total += count * (math.prod(chunk) * itemsize + 32)
        else:
            total += math.prod(shape) * itemsize
    return total


def opened(path, swmr=False):
    """An HDF5 file for reading, on any file system, also while another process appends to it.

    Finished files never change and SWMR needs no lock, so none is taken: NFS often has none to give.

    Parameters
    ----------
    path : Path
    swmr : bool, whether the file may be growing

    Returns
    -------
    h5py.File

    Raises
    ------
    OSError : missing, damaged or not HDF5
    """
    import h5py

    try:
        return h5py.File(path, "r", swmr=swmr, locking=False)
    except ValueError:  # an HDF5 library too old to be asked
        return h5py.File(path, "r", swmr=swmr)


def create(sink, checksum=False):
    """A new HDF5 file that goes to a ``disk.Sink``.

    Parameters
    ----------
    sink : file-like
    checksum : bool, whether the file's structure is under checksums too (readable since HDF5 1.10)

    Returns
    -------
    h5py.File
    """
    import h5py

    oldest = h5py.h5f.LIBVER_V110 if checksum else h5py.h5f.LIBVER_EARLIEST
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_fclose_degree(h5py.h5f.CLOSE_STRONG)
    access.set_libver_bounds(oldest, h5py.h5f.LIBVER_V110)
    access.set_fileobj_driver(h5py.h5fd.fileobj_driver, sink)
    root = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    root.set_obj_track_times(False)
    return h5py.File(h5py.h5f.create(b"brmpi", h5py.h5f.ACC_TRUNC, fcpl=root, fapl=access))


def make(file, datasets, attributes, checksum=False):
    """Make groups, datasets and attributes, before any data are written. Collective where the file is.

    Parameters
    ----------
    file : h5py.File, new
    datasets : dict of str to Piece (only the dtype of the data and the shape of the whole count)
    attributes : dict of str to dict, by the name of the object; a name that is no dataset is a group
    checksum : bool, whether data are kept under Fletcher-32 checksums

    Returns
    -------
    dict of str to h5py.Dataset
    """
    import h5py

    for name in attributes:
        if name not in datasets:
            _group(file, name)
    made = {}
    for name, piece in datasets.items():
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_obj_track_times(False)
        plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)  # places in the file follow this order, not that of arrival
        shape = tuple(map(int, piece.shape))
        if checksum and 0 not in shape:
            plist.set_chunk(chunks(shape, piece.data.itemsize))
            plist.set_fletcher32()
        group = _group(file, posixpath.dirname(name))
        made[name] = h5py.Dataset(h5py.h5d.create(
            group.id, posixpath.basename(name).encode(), h5py.h5t.py_create(piece.data.dtype, logical=True),
            h5py.h5s.create_simple(shape), plist))
    for name, values in attributes.items():
        for key, value in values.items():
            file[name].attrs[key] = attribute(value)
    return made


def _group(file, name):
    """A group, made with those above it where it is missing; it holds no times."""
    import h5py

    group = file["/"]
    for word in name.strip("/").split("/") if name.strip("/") else ():
        if word not in group:
            plist = h5py.h5p.create(h5py.h5p.GROUP_CREATE)
            plist.set_obj_track_times(False)
            h5py.h5g.create(group.id, word.encode(), gcpl=plist)
        group = group[word]
    return group


def attribute(value):
    """A value as HDF5 keeps it in place: strings of fixed length, not references into a heap.

    Parameters
    ----------
    value : str, sequence of str, number or array

    Returns
    -------
    what ``h5py`` is to be given
    """
    import h5py

    if isinstance(value, str):
        data = value.encode()
        if value.isascii():
            return np.bytes_(data or b" ")
        return np.array(data, dtype=h5py.string_dtype("utf-8", len(data)))
    if isinstance(value, (list, tuple)) and value and all(isinstance(v, str) for v in value):
        data = [v.encode() for v in value]
        longest = max(1, max(map(len, data)))
        kind = f"S{longest}" if all(v.isascii() for v in value) else h5py.string_dtype("utf-8", longest)
        return np.array(data, dtype=kind)
    return value


def text(value):
    """An attribute as it was given: strings instead of bytes.

    Parameters
    ----------
    value : what ``h5py`` returned
    """
    if isinstance(value, bytes):
        return value.decode().strip(" ")
    if isinstance(value, np.ndarray) and value.dtype.kind in "SO":
        return [v.decode() if isinstance(v, bytes) else v for v in value.tolist()]
    return value.item() if isinstance(value, np.generic) else value
