"""Checkpoints: the last two states in global order, under checksums, to go on from with any number of ranks."""

import json
import sys
from pathlib import Path

import numpy as np

from brmpi.errors import Fault
from brmpi.results import hdf5, pieces

FORMAT = "brmpi checkpoint 1"
TAG = 7102


def path(folder, program, step):
    """Where the checkpoint of a step is.

    Parameters
    ----------
    folder : Path, of the run
    program : str
    step : int >= 0
    """
    return Path(folder) / "checkpoints" / f"{program}_{step:08d}.h5"


def steps(folder, program):
    """Steps of which there is a checkpoint, the oldest first.

    Parameters
    ----------
    folder : Path, of the run
    program : str
    """
    names = [file.stem.removeprefix(f"{program}_") for file in (Path(folder) / "checkpoints").glob(f"{program}_*.h5")]
    return sorted(int(name) for name in names if name.isdigit())


def write(comm, folder, step, arrays, scalars, program, io="root"):
    """Write the state after a step, then remove all but this checkpoint and the one before it. Collective.

    Parameters
    ----------
    comm : communicator
    folder : Path, of the run
    step : int
    arrays : dict of str to Piece; names without ``/``, the same on every rank
    scalars : dict of what JSON knows (floats keep every bit) and NumPy numbers; the root's counts
    program : str
    io : "root" or "mpio", as in ``pieces.write``; with "mpio" damage to the data is not noticed later

    Raises
    ------
    Fault : as ``pieces.write``: a full disk leaves the earlier checkpoints as they were
    """
    told = json.dumps(scalars, sort_keys=True, default=lambda value: value.item()) if comm.rank == 0 else None
    told = np.frombuffer(comm.bcast(told, root=0).encode(), np.uint8)
    data = {f"arrays/{name}": piece for name, piece in arrays.items()}
    data["scalars"] = pieces.rows(told if comm.rank == 0 else told[:0], 0 if comm.rank == 0 else len(told), len(told))
    target = path(folder, program, step)
    pieces.write(comm, target, data, {"/": {"format": FORMAT, "program": program, "step": step}, "arrays": {}}, io,
                 checksum=True)
    if comm.rank == 0:
        _prune(folder, program, step)


def _prune(folder, program, step):
    """Keep this checkpoint and the one before; later ones belong to a future that this run has left."""
    before = [other for other in steps(folder, program) if other < step]
    for other in steps(folder, program):
        if other != step and other not in before[-1:]:
            path(folder, program, other).unlink(missing_ok=True)
    for left in (Path(folder) / "checkpoints").glob(f"{program}_*.h5.part"):
        left.unlink(missing_ok=True)


def read(comm, folder, layout, program):
    """Read the newest checkpoint that is whole; a damaged one is reported once, and the one before it used. Collective.

    Parameters
    ----------
    comm : communicator
    folder : Path, of the run
    layout : function of (name, shape of the whole) to (offset, shape): the block that this rank wants
    program : str

    Returns
    -------
    (step, dict of str to this rank's ndarray, dict of scalars), or None where there is no checkpoint

    Raises
    ------
    Fault : there are checkpoints, and all are damaged; on every rank
    whatever ``layout`` raised on any rank; on every rank
    """
    found = comm.bcast(steps(folder, program)[::-1] if comm.rank == 0 else None, root=0)
    reasons = []
    for i, step in enumerate(found):
        state, why = _load(comm, path(folder, program, step), step, layout)
        if why is None:
            return state
        reasons.append(f"{path(folder, program, step)}: damaged: {why}")
        if comm.rank == 0 and i + 1 < len(found):
            print(f"brmpi: {reasons[-1]}; going on from step {found[i + 1]}", file=sys.stderr, flush=True)
    if reasons:
        raise Fault(f"no checkpoint can be used: {'; '.join(reasons)}")
    return None


def _load(comm, file, step, layout):
    """The state in one file and None, or None and what is wrong with the file; the same on every rank."""
    source = _Source(file, step) if comm.rank == 0 else None
    try:
        known, scalars, why = comm.bcast((source.known, source.scalars, source.why) if source else None, root=0)
        if why is not None:
            return None, why
        wants, failure = {}, None
        try:
            wants = {name: _want(name, shape, layout) for name, (_, shape) in known.items()}
        except Exception as error:
            failure = error
        every = comm.allgather((wants, failure))
        failure = next((told for _, told in every if told is not None), failure)
        if failure is not None:
            raise failure
        arrays = {name: _deliver(comm, source, name, np.dtype(kind), [want[name] for want, _ in every])
                  for name, (kind, _) in known.items()}
        why = comm.bcast(source.why if source else None, root=0)
        return (None, why) if why is not None else ((step, arrays, scalars), None)
    finally:
        if source is not None:
            source.close()


def _want(name, shape, layout):
    """The block that ``layout`` names, checked against the whole."""
    offset, local = layout(name, shape)
    offset, local = tuple(map(int, offset)), tuple(map(int, local))
    if not len(offset) == len(local) == len(shape) or any(
            o < 0 or n < 0 or o + n > total for o, n, total in zip(offset, local, shape)):
        raise ValueError(f"{name}: wanted a block {local} at {offset}, the checkpoint has {shape}")
    return offset, local


def _deliver(comm, source, name, dtype, wants):
    """Each rank's block of one array: the root reads and sends one bounded slab at a time."""
    mine = np.empty(wants[comm.rank][1], dtype)
    for rank, (offset, shape) in enumerate(wants):
        for slab in hdf5.slabs(shape, dtype.itemsize):
            if comm.rank == 0:
                data = source.slab(name, pieces.within(slab, offset), hdf5.extent(slab), dtype)
                if rank:
                    comm.Ssend(data.reshape(-1).view(np.uint8), rank, TAG)
            elif comm.rank == rank:
                data = np.empty(hdf5.extent(slab), dtype)
                comm.Recv(data.reshape(-1).view(np.uint8), 0, TAG)
            if comm.rank == rank:
                mine[slab] = data
    return mine


class _Source:
    """The root's open checkpoint, which keeps the first thing that is wrong with it in ``why``."""

    def __init__(self, file, step):
        self._file, self.known, self.scalars, self.why = None, {}, {}, None
        try:
            self._file = hdf5.opened(file)
            if hdf5.text(self._file.attrs["format"]) != FORMAT or self._file.attrs["step"] != step:
                raise ValueError(f"it is not {FORMAT!r} of step {step}")
            arrays = self._file["arrays"]
            self.known = {name: (arrays[name].dtype.str, arrays[name].shape) for name in arrays}
            self.scalars = json.loads(self._file["scalars"][:].tobytes())
        except Exception as error:  # what damage looks like to HDF5 cannot be listed
            self.why = _reason(error)

    def slab(self, name, place, shape, dtype):
        """Part of an array; zeros once something was wrong, so that the ranks that wait get what they wait for."""
        if self.why is None:
            try:
                return np.ascontiguousarray(self._file["arrays"][name][place], dtype)
            except Exception as error:
                self.why = _reason(error)
        return np.zeros(shape, dtype)

    def close(self):
        """Close the file, if it could be opened."""
        if self._file is not None:
            self._file.close()


def _reason(error):
    """What HDF5 says, short."""
    return str(error).strip("'\"").partition("\n")[0]
