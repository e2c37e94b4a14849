"""Matrices in HDF5 files: in global order, whole or not at all, and never whole on one rank.

Through the root, strips of at most 16 MiB travel and the bytes of the file depend on nothing but the matrix. Where all
nodes see one file system, ranks may each read their own blocks, and, with a parallel HDF5, write them.
"""

from pathlib import Path

import numpy as np

from brmpi.errors import BadInput, Fault
from brmpi.linalg.matrix import BlockCyclic, suits
from brmpi.results import disk, hdf5
from brmpi.results.pieces import Piece, agreed, finish, parallel_hdf5

TAG = 7302


def to_hdf5(a, path, name="matrix", attributes=None, io="root"):
    """Write a matrix as one dataset of a new HDF5 file, which appears whole or not at all. Collective.

    Parameters
    ----------
    a : BlockCyclic, (m, n)
    path : path of the file; its folder is made if it is missing; what was there before is replaced
    name : str, of the dataset, with its groups: "model/weights"
    attributes : dict of str to str, number or array, said of the dataset; the root's count
    io : "root", or "mpio" to have each rank write its own blocks, on a file system that all nodes share

    Raises
    ------
    BadInput : another ``io``, "mpio" where h5py cannot, or a name that cannot be; on every rank
    Fault : a full disk or another failure of the file system; on every rank, and nothing is left behind
    """
    _known(io, name)
    comm, path = a.grid.comm, Path(path)
    if io == "mpio" and not all(comm.allgather(parallel_hdf5())):
        raise BadInput('io = "mpio": this h5py has no parallel HDF5 (Debian: apt install python3-h5py-mpi)')
    name = name.strip("/")
    datasets = {name: Piece(np.empty((0, 0), a.dtype), (0, 0), a.shape)}
    said = comm.bcast({name: attributes} if attributes else {}, 0)
    needed = hdf5.room(datasets, said)
    failure = _begin(path, needed) if comm.rank == 0 else None
    agreed(comm, failure)
    (_together if io == "mpio" else _through_root)(a, path, datasets, said, needed)


def from_hdf5(grid, path, name="matrix", nb=None, dtype=None, caps=None, io="root"):
    """A matrix from a dataset of two dimensions. Collective.

    Parameters
    ----------
    grid : ProcessGrid
    path : path of the file
    name : str, of the dataset
    nb : int, rows and columns of a block; None chooses
    dtype : dtype of the matrix; None for the file's own, or float64 where that is no type of matrices
    caps : as in ``BlockCyclic``
    io : "root", which reads and sends; or "mpio" to have each rank read its own blocks of a file that all nodes see

    Returns
    -------
    BlockCyclic

    Raises
    ------
    BadInput : a file or dataset that is not there, or is no matrix, or a dtype that cannot hold it; on every rank
    Fault : the file is damaged, or some node does not see it; on every rank
    NotEnoughMemory
    """
    _known(io, name)
    comm, path, dtype = grid.comm, Path(path), None if dtype is None else np.dtype(dtype)
    source = _Source(path, name) if comm.rank == 0 or io == "mpio" else None
    try:
        shape, kind, failure = comm.bcast(source and source.told(dtype), 0)
        if failure is not None:
            raise failure
        a = BlockCyclic(grid, shape, kind, nb, caps)
        if io == "mpio":
            for strip, boxes in _boxes(a):
                source.pick(boxes, a.local[strip])
        else:
            _deal(a, source)
        whys = comm.allgather(source and source.why)
    finally:
        if source is not None:
            source.close()
    for rank, why in enumerate(whys):
        if why is not None:
            raise Fault(f"{path}: cannot be read on rank {rank}: {why}")
    return a


def _known(io, name):
    if io not in ("root", "mpio"):
        raise BadInput(f'io = "{io}": must be "root" or "mpio"')
    if not isinstance(name, str) or not all(part not in ("", ".", "..") for part in name.strip("/").split("/")):
        raise BadInput(f"name = {name!r}: must be that of a dataset")


# ---- through the root


def _strips(a):
    """For each slab of the whole matrix, in order: its (rows, columns), and each rank's part, in local places."""
    places = list(np.ndenumerate(a.grid.ranks))
    for rows, cols in hdf5.slabs(a.shape, a.dtype.itemsize):
        parts = {}
        for (p, q), rank in places:
            i = slice(a.rows.before(p, rows.start), a.rows.before(p, rows.stop))
            j = slice(a.cols.before(q, cols.start), a.cols.before(q, cols.stop))
            if i.start < i.stop and j.start < j.stop:
                parts[rank] = (p, q), i, j
        yield (rows, cols), parts


class _Places:
    """Global indices of each part of the grid; each made once."""

    def __init__(self, a):
        self.rows = [a.rows.indices(part) for part in range(a.rows.parts)]
        self.cols = [a.cols.indices(part) for part in range(a.cols.parts)]

    def within(self, slab, place, i, j):
        """Where a rank's part lies in a slab."""
        return np.ix_(self.rows[place[0]][i] - slab[0].start, self.cols[place[1]][j] - slab[1].start)


def _collect(a):
    """Every slab of the matrix at the root, one after another; None elsewhere. Collective."""
    comm = a.grid.comm
    places = _Places(a) if comm.rank == 0 else None
    for slab, parts in _strips(a):
        data = np.empty(hdf5.extent(slab), a.dtype) if comm.rank == 0 else None
        for rank, (place, i, j) in parts.items():
            if rank == comm.rank:
                part = a.local[i, j]
            elif comm.rank == 0:
                part = np.empty((i.stop - i.start, j.stop - j.start), a.dtype)
                comm.Recv(part, rank, TAG)
            if comm.rank == 0:
                data[places.within(slab, place, i, j)] = part
            elif rank == comm.rank:
                comm.Ssend(np.ascontiguousarray(part), 0, TAG)  # synchronous: the root holds one part at a time
        yield slab, data


def _deal(a, source):
    """Send every slab of a file to the ranks that it belongs to. Collective; ``source`` at the root."""
    comm = a.grid.comm
    places = _Places(a) if comm.rank == 0 else None
    for slab, parts in _strips(a):
        if comm.rank == 0:
            data = np.zeros(hdf5.extent(slab), a.dtype)
            source.read(slab, data)
        for rank, (place, i, j) in parts.items():
            if comm.rank == 0:
                part = data[places.within(slab, place, i, j)]
                if rank:
                    comm.Ssend(part, rank, TAG)
            elif rank == comm.rank:
                part = np.empty((i.stop - i.start, j.stop - j.start), a.dtype)
                comm.Recv(part, 0, TAG)
            if rank == comm.rank:
                a.local[i, j] = part


class _Source:
    """An open file, which keeps the first thing that is wrong with it: in ``refused`` as the person should read it
    where it cannot be used, in ``why`` where it was found while others wait for what it holds."""

    def __init__(self, path, name):
        import h5py

        self._file = self._data = self.why = self.refused = None
        try:
            self._file = hdf5.opened(path)
            self._data = self._file.get(name)
            if not isinstance(self._data, h5py.Dataset):
                there = ", ".join(sorted(_names(self._file))) or "none"
                self.refused = BadInput(f'{path}: has no dataset "{name}": must be one of these: {there}')
        except FileNotFoundError:
            self.refused = BadInput(f"{path}: there is no such file")
        except Exception as error:  # what damage looks like to HDF5 cannot be listed
            self.refused = BadInput(f"{path}: is no HDF5 file that can be read ({_reason(error)})")
        if self.refused is None and (self._data.shape is None or len(self._data.shape) != 2):
            self.refused = BadInput(f'{path}: dataset "{name}" has shape {self._data.shape}: must be a matrix')
        self._known = f'{path}: dataset "{name}"'
        self.why = str(self.refused) if self.refused else None

    def told(self, dtype):
        """(shape, dtype) of the matrix to make, and why there can be none."""
        if self.refused is not None:
            return None, None, self.refused
        try:
            return self._data.shape, suits(self._data.dtype, dtype), None
        except BadInput as error:
            return None, None, BadInput(f"{self._known}: {error}")

    def _try(self, out, read):
        """What a function reads; zeros once something was wrong."""
        try:
            if self.why is None:
                out[...] = read()
        except Exception as error:
            self.why = _reason(error)
        if self.why is not None:
            out[...] = 0

    def read(self, slab, out):
        """A slab of the whole."""
        self._try(out, lambda: self._data[slab])

    def pick(self, boxes, out):
        """What is in some boxes, in its order in the file."""
        import h5py

        def _read():
            held = np.empty(out.shape, self._data.dtype)
            self._data.id.read(h5py.h5s.create_simple(out.shape), _selected(self._data, boxes), held)
            return held

        self._try(out, _read)

    def close(self):
        """Close the file, if it could be opened."""
        if self._file is not None:
            self._file.close()


def _names(file):
    """Names of the datasets in a file."""
    import h5py

    found = []
    file.visititems(lambda name, one: found.append(name) if isinstance(one, h5py.Dataset) else None)
    return found


def _reason(error):
    """What HDF5 says, short."""
    return str(error).strip("'\"").partition("\n")[0]


# ---- each rank its own blocks


def _boxes(a):
    """(strip of local rows, the two axes' regular runs in the whole) of this rank."""
    i, j = a.indices
    across = _regular(j)
    for strip in a.strips(a.grid.p, a.grid.q):
        yield strip, (_regular(i[strip]), across)


def _regular(indices):
    """Indices as (first, stride, count, length): runs of one length that follow each other at one distance."""
    if not len(indices):
        return []
    cuts = np.flatnonzero(np.diff(indices) != 1) + 1
    begins = indices[np.concatenate([[0], cuts])].tolist()
    lengths = np.diff(np.concatenate([[0], cuts, [len(indices)]])).tolist()
    found = []
    for begin, length in zip(begins, lengths):
        if found and found[-1][3] == length:
            first, stride, count, _ = found[-1]
            if count == 1 or begin == first + stride * count:
                found[-1] = first, begin - first if count == 1 else stride, count + 1, length
                continue
        found.append((begin, length, 1, length))
    return found


def _selected(dataset, boxes):
    """The file's elements in the product of two axes' runs."""
    import h5py

    space = dataset.id.get_space()
    space.select_none()
    for row in boxes[0]:
        for col in boxes[1]:
            first, stride, count, length = zip(row, col)
            space.select_hyperslab(first, count, stride, length, h5py.h5s.SELECT_OR)
    return space


# ---- writing


def _begin(path, needed):
    """Make room for a file; what went wrong, as the person should read it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        disk.demand(path, needed)
    except OSError as error:
        return disk.fault(error, path, needed)
    except Fault as error:
        return error
    return None


def _through_root(a, path, datasets, attributes, needed):
    """The root writes what it collects, and goes on receiving whatever happens to its disk."""
    comm = a.grid.comm
    sink = file = made = failure = None
    if comm.rank == 0:
        try:
            sink = disk.Sink(disk.part(path))
            file = hdf5.create(sink)
            (made,) = hdf5.make(file, datasets, attributes).values()
        except Exception as error:  # whatever it is, the others wait to be told
            failure = error
    for slab, data in _collect(a):
        if comm.rank == 0 and failure is None and sink.failure is None:
            try:
                made[slab] = data
            except Exception as error:
                failure = error
    if comm.rank == 0:
        failure = finish(path, file, sink, needed, failure)
    agreed(comm, failure)


def _together(a, path, datasets, attributes, needed):
    """Every rank writes its own blocks: independent transfers, since a rank may have nothing to write."""
    import h5py

    comm, failure, file = a.grid.comm, None, None
    try:
        file = h5py.File(disk.part(path), "w", driver="mpio", comm=comm, libver=("earliest", "v110"))
        (made,) = hdf5.make(file, datasets, attributes).values()
        for strip, boxes in _boxes(a):
            held = a.local[strip]
            made.id.write(h5py.h5s.create_simple(held.shape), _selected(made, boxes), held)
    except Exception as error:
        failure = error
    try:
        if file is not None:
            file.close()
    except Exception as error:
        failure = failure or error
    failure = next((told for told in comm.allgather(failure) if told is not None), None)
    if comm.rank == 0:
        failure = finish(path, None, None, needed, failure)
    agreed(comm, failure)
