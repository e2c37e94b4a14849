"""A global array in pieces, one a rank, and the one collective writer of files made of them."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from brmpi.errors import BadInput, Fault
from brmpi.results import disk, hdf5
from brmpi.results.hdf5 import extent, slabs

TAG = 7101
MOVED = 7102


@dataclass(frozen=True)
class Piece:
    """This rank's block of a global array.

    Attributes
    ----------
    data : ndarray of int, float, complex or bool; may be empty, then with the right dtype and number of axes
    offset : tuple of int, index of its first element in the whole
    shape : tuple of int, the whole
    """

    data: np.ndarray
    offset: tuple
    shape: tuple


def rows(data, first, total):
    """The piece of an array that is shared out along its first axis.

    Parameters
    ----------
    data : (n, …) ndarray, this rank's rows
    first : int, global index of the first of them
    total : int, number of rows of all ranks

    Returns
    -------
    Piece
    """
    data = np.asarray(data)
    return Piece(data, (int(first), *(0,) * (data.ndim - 1)), (int(total), *data.shape[1:]))


def within(slab, offset):
    """The place of a slab of a block in the whole.

    Parameters
    ----------
    slab : tuple of slice, in the block
    offset : tuple of int, of the block
    """
    return tuple(slice(s.start + o, s.stop + o) for s, o in zip(slab, offset))


def parallel_hdf5():
    """Whether h5py can write one file from several ranks in this process."""
    import h5py

    return bool(h5py.get_config().mpi)


def agreed(comm, failure):
    """Raise the root's failure on every rank. Collective.

    Parameters
    ----------
    comm : communicator
    failure : Exception or None, looked at on the root only
    """
    told = comm.bcast(failure, root=0)
    if told is not None:
        raise failure if comm.rank == 0 else told


def write(comm, path, datasets, attributes, io="root", checksum=False):
    """Write one HDF5 file from the pieces of all ranks; it appears whole or not at all. Collective.

    With ``io="root"`` the root receives one slab of at most 16 MiB at a time and the bytes of the file depend
    neither on the number of ranks nor on the clock. With ``io="mpio"`` each rank writes its own blocks.

    Parameters
    ----------
    comm : communicator
    path : Path; its folder is made if it is missing; written as ``path.part`` first
    datasets : dict of str to Piece, in the order of writing; the same names on every rank
    attributes : dict of str to dict, what is said of ``"/"``, groups and datasets; the root's counts
    io : "root" or "mpio"
    checksum : bool, whether damage must be noticed on reading (``io="root"`` only)

    Raises
    ------
    BadInput : an unknown ``io``, or ``"mpio"`` where h5py cannot; on every rank
    Fault : a full disk or another failure of the file system; on every rank, and nothing is left behind
    ValueError : the pieces do not fit together; on every rank
    """
    if io not in ("root", "mpio"):
        raise BadInput(f'io = "{io}": must be "root" or "mpio"')
    if io == "mpio" and not all(comm.allgather(parallel_hdf5())):
        raise BadInput('io = "mpio": this h5py has no parallel HDF5 (Debian: apt install python3-h5py-mpi)')
    path = Path(path)
    blocks = _blocks(comm, datasets)
    needed = hdf5.room(datasets, attributes, checksum and io == "root")
    if io == "mpio":
        _write_together(comm, path, datasets, comm.bcast(attributes, root=0), needed)
    elif comm.rank == 0:
        _write_at_root(comm, path, datasets, attributes, checksum, needed, blocks)
    else:
        agreed(comm, None)
        for piece in datasets.values():
            for slab in slabs(piece.data.shape, piece.data.itemsize):
                # synchronous: the root holds one slab of one rank at a time
                comm.Ssend(_raw(np.ascontiguousarray(piece.data[slab])), 0, TAG)
        agreed(comm, None)


def _raw(data):
    """The bytes of a contiguous array as an array, without a copy."""
    return data.reshape(-1).view(np.uint8)


def _blocks(comm, datasets):
    """Each dataset's (offset, shape) on each rank, at the root; raises on all ranks where they do not fit."""
    mine = [(name, p.data.dtype.str, tuple(map(int, p.shape)), tuple(map(int, p.offset)), p.data.shape)
            for name, p in datasets.items()]
    every = comm.gather(mine, root=0)
    failure, blocks = None, {}
    if comm.rank == 0:
        try:
            if any([row[0] for row in rank] != list(datasets) for rank in every):
                raise ValueError(f"ranks write different datasets: {[[row[0] for row in rank] for rank in every]}")
            for i, (name, kind, shape, _, _) in enumerate(mine):
                blocks[name] = [(rank[i][3], rank[i][4]) for rank in every]
                _fit(name, kind, shape, [rank[i] for rank in every])
        except ValueError as error:
            failure = error
    agreed(comm, failure)
    return blocks


def _fit(name, kind, shape, ranks):
    """Raise ValueError where the blocks of one dataset cannot make up the whole."""
    dtype = np.dtype(kind)
    if dtype.kind not in "biufc" or dtype.itemsize > (16 if dtype.kind == "c" else 8):
        raise ValueError(f"{name}: dtype {dtype} differs between machines; use at most 64-bit numbers")
    for rank, (_, other, whole, offset, block) in enumerate(ranks):
        if other != kind or whole != shape:
            raise ValueError(f"{name}: rank {rank} has {np.dtype(other)} {whole}, rank 0 {dtype} {shape}")
        if not len(shape) == len(offset) == len(block) or any(
                o < 0 or o + n > total for o, n, total in zip(offset, block, shape) if 0 not in block):
            raise ValueError(f"{name}: rank {rank} has a block {block} at {offset}, outside {shape}")
    held = sum(math.prod(block) for *_, block in ranks)
    if held != math.prod(shape):
        raise ValueError(f"{name}: the ranks hold {held} elements, {shape} has {math.prod(shape)}")


def _write_at_root(comm, path, datasets, attributes, checksum, needed, blocks):
    """The root's side of ``write``: it goes on receiving whatever happens to its disk."""
    sink = file = failure = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        disk.demand(path, needed)
        sink = disk.Sink(disk.part(path))
        file = hdf5.create(sink, checksum)
        made = hdf5.make(file, datasets, attributes, checksum)
    except Exception as error:
        failure = finish(path, file, sink, needed, error)
    agreed(comm, failure)

    for name, piece in datasets.items():
        for rank, (offset, shape) in enumerate(blocks[name]):
            for slab in slabs(shape, piece.data.itemsize):
                if rank:
                    data = np.empty(extent(slab), piece.data.dtype)
                    comm.Recv(_raw(data), rank, TAG)
                else:
                    data = np.ascontiguousarray(piece.data[slab])
                if failure is None and sink.failure is None:
                    try:
                        made[name][within(slab, offset)] = data
                    except Exception as error:
                        failure = error
    agreed(comm, finish(path, file, sink, needed, failure))


def finish(path, file, sink, needed, failure):
    """Close and put a file in place that was written beside it, or remove it. Not collective.

    Parameters
    ----------
    path : Path, of the file
    file : h5py.File, or None where others close it
    sink : disk.Sink that it went through, or None
    needed : int, bytes that it needs
    failure : exception or None, what went wrong so far

    Returns
    -------
    exception or None, what went wrong as the person should read it
    """
    try:
        if file is not None:
            file.close()
    except Exception as error:
        failure = failure or error
    written = 0
    if sink is not None:
        sink.close()
        failure = sink.failure or failure  # the disk's word, rather than HDF5's complaint that follows from it
        written = _allocated(disk.part(path))
    if failure is None:
        try:
            disk.settle(path)
        except OSError as error:
            failure = error
    if isinstance(failure, OSError):
        failure = disk.fault(failure, path, needed, written)
    if failure is not None:
        disk.discard(path)
    return failure


def _allocated(path):
    """Bytes of the disk that a file takes up."""
    return path.stat().st_blocks * 512 if path.exists() else 0


def _write_together(comm, path, datasets, attributes, needed):
    """Every rank writes its own slabs: independent transfers, since a rank may have nothing to write."""
    import h5py

    failure = None
    if comm.rank == 0:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            disk.demand(path, needed)
        except OSError as error:
            failure = disk.fault(error, path, needed)
        except Fault as error:
            failure = error
    agreed(comm, failure)
    file = None
    try:
        file = h5py.File(disk.part(path), "w", driver="mpio", comm=comm, libver=("earliest", "v110"))
        made = hdf5.make(file, datasets, attributes)
        for name, piece in datasets.items():
            for slab in slabs(piece.data.shape, piece.data.itemsize):
                made[name][within(slab, piece.offset)] = np.ascontiguousarray(piece.data[slab])
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


def moved(comm, piece, offset, shape):
    """A block of an array that is in pieces on all ranks. Collective.

    Parameters
    ----------
    comm : communicator
    piece : Piece, this rank's; those of all ranks make the whole once
    offset, shape : tuple of int, the block that this rank is to have; blocks may overlap

    Returns
    -------
    array
    """
    mine = np.array([piece.offset, piece.data.shape, offset, shape], np.int64)
    boxes = np.empty((comm.size, *mine.shape), np.int64)
    comm.Allgather(mine, boxes)
    out, requests, arrived = np.zeros(shape, piece.data.dtype), [], []
    for rank, (held, sides, *_) in enumerate(boxes):
        if common := _common(held, sides, offset, shape):
            buffer = np.empty([end - first for first, end in common], out.dtype)
            arrived.append((_slices(common, offset), buffer))
            requests.append(comm.Irecv(buffer, rank, MOVED))
    for rank, (*_, wanted, sides) in enumerate(boxes):
        if common := _common(piece.offset, piece.data.shape, wanted, sides):
            requests.append(comm.Isend(np.ascontiguousarray(piece.data[_slices(common, piece.offset)]), rank, MOVED))
    for request in requests:
        request.Wait()
    for place, buffer in arrived:
        out[place] = buffer
    return out


def _common(offset, shape, other, sides):
    """What two boxes have in common, (first, end) of each axis; None for nothing."""
    both = [(int(max(a, b)), int(min(a + n, b + m))) for a, n, b, m in zip(offset, shape, other, sides)]
    return both if all(first < end for first, end in both) else None


def _slices(box, offset):
    return tuple(slice(first - start, end - start) for (first, end), start in zip(box, offset))
