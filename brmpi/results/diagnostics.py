"""``diagnostics.h5``: one growing dataset a quantity, readable while the run goes on and after it was killed."""

import math
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from brmpi.errors import Fault
from brmpi.results import disk, hdf5

CHUNK = 512  # rows
PATIENCE = 0.5  # seconds that a row waits in memory


@dataclass(frozen=True)
class Column:
    """What is said of a quantity.

    Attributes
    ----------
    unit : str, as it is written on an axis; empty for a pure number
    conserved : bool, whether the physics keeps it constant
    """

    unit: str = ""
    conserved: bool = False


class Diagnostics:
    """The growing file of the root rank; also a context manager. Not collective: for one rank only.

    Parameters
    ----------
    path : Path of ``diagnostics.h5``; the file appears once it can be read
    columns : dict of str to Column (or to a unit), or names; ``step`` and ``time`` are added where they are missing
    wall : the same, or names out of ``columns``: what depends on the clock or on the ranks, kept under ``/wall``
    after : int or None, go on from the file that is there with its rows up to and including this step

    Raises
    ------
    Fault : a full disk, or an earlier file that cannot be read
    """

    def __init__(self, path, columns, wall=(), after=None):
        import h5py

        self.path = Path(path)
        columns, wall = _columns(columns), {name.removeprefix("wall/"): c for name, c in _columns(wall).items()}
        self._columns = {"step": Column(), "time": Column()}
        self._columns |= {name: column for name, column in columns.items() if name not in wall}
        self._columns |= {f"wall/{name}": columns.get(name, column) for name, column in wall.items()}
        old = {}
        if after is not None:
            try:
                old = read(self.path)
            except FileNotFoundError:
                old = {}  # killed before its first row
            except OSError as error:
                raise Fault(f"{self.path}: cannot go on from it: {error}") from error
        kept = old["step"] <= after if old else np.zeros(0, bool)
        self._rows, self._file, self._failure = [], None, None
        self._datasets = {}  # kept open: HDF5 that fails while one is let go is lost
        self._length, self._room = int(kept.sum()), 0
        self._demand(self._length)
        part = disk.part(self.path)
        try:
            try:
                self._file = h5py.File(part, "w", libver=("v110", "v110"), locking=False)
            except ValueError:  # an HDF5 library too old to be asked
                self._file = h5py.File(part, "w", libver=("v110", "v110"))
            for name, column in self._columns.items():
                dataset = self._file.create_dataset(
                    name, (self._length,), "i8" if name == "step" else "f8", maxshape=(None,), chunks=(CHUNK,))
                dataset.attrs["unit"] = column.unit
                dataset.attrs["conserved"] = column.conserved
                dataset[:] = old[name][kept] if name in old else np.full(self._length, np.nan)
                self._datasets[name] = dataset
            self._file.flush()
            self._file.swmr_mode = True
            disk.settle(self.path)
        except OSError as error:
            self._refuse(error)
            disk.discard(self.path)
            raise self._failure from error
        self._flushed = -math.inf

    def append(self, row):
        """Add a row; it reaches the file with this call if the last writing was half a second ago.

        Parameters
        ----------
        row : dict of str to number, one for each column; those of ``wall`` with or without ``"wall/"`` before

        Raises
        ------
        Fault : the disk is full; every row before is in the file
        ValueError : the row lacks a column, has one too many, or the file is closed
        """
        if self._failure is not None:
            raise self._failure
        if self._file is None:
            raise ValueError(f"{self.path}: is closed")
        row = {name if name in self._columns else f"wall/{name}": value for name, value in row.items()}
        if row.keys() != self._columns.keys():
            raise ValueError(f"{self.path}: this row has other columns: {sorted(row.keys() ^ self._columns.keys())}")
        self._rows.append([row[name] for name in self._columns])
        if time.monotonic() - self._flushed >= PATIENCE:
            self.flush()

    def flush(self):
        """Write the rows that wait; readers see them after this call.

        Raises
        ------
        Fault : the disk is full
        """
        if self._failure is not None:
            raise self._failure
        if self._file is None or not self._rows:
            return
        try:
            length = self._length + len(self._rows)
            self._demand(length)
            for name, values in zip(self._columns, zip(*self._rows)):
                self._datasets[name].resize((length,))
                self._datasets[name][self._length:] = values
            self._file.flush()
        except (OSError, RuntimeError, Fault) as error:
            self._refuse(error)
            raise self._failure from error
        self._length, self._rows, self._flushed = length, [], time.monotonic()

    def close(self):
        """Write the rows that wait and close the file. May be called twice.

        Raises
        ------
        Fault : the disk is full
        """
        if self._file is None:
            return
        self.flush()
        try:
            os.fsync(self._file.id.get_vfd_handle())
            self._file.close()
        except (OSError, RuntimeError) as error:
            self._refuse(error)
            raise self._failure from error
        self._file = None

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if kind is None or self._failure is None:
            self.close()

    def _demand(self, length):
        """Make sure of room for the chunks that this many rows take, and for their index."""
        chunks = -(-length // CHUNK)
        if chunks <= self._room and self._room:
            return
        needed = len(self._columns) * (max(1, chunks - self._room) * (CHUNK + 4) * 8 + 2048)
        disk.demand(self.path, needed)
        if self._file is not None:
            try:  # a quota is known only to those who ask for the blocks
                os.posix_fallocate(self._file.id.get_vfd_handle(), self._file.id.get_filesize(), needed)
            except OSError as error:
                if error.errno in disk.FULL:
                    raise disk.fault(error, self.path, needed) from error
        self._room = chunks

    def _refuse(self, error):
        """Remember why nothing can be written any more, and let HDF5 close on memory instead of the disk.

        HDF5 that cannot write its last words neither closes nor leaves the process in order. What it wrote
        before stays on the disk as after a kill: whole up to the last row.
        """
        if self._failure is None:
            needed = len(self._columns) * (CHUNK * 8 + 2048)
            self._failure = error if isinstance(error, Fault) else disk.fault(_system(error), self.path, needed)
        file, self._file = self._file, None
        if file is not None and file.id.valid:
            handle = file.id.get_vfd_handle()
            memory = os.memfd_create("diagnostics")
            for place in range(0, os.fstat(handle).st_size, 1 << 20):
                os.write(memory, os.pread(handle, 1 << 20, place))
            os.dup2(memory, handle)
            os.close(memory)
            file.close()


def _system(error):
    """The operating system's failure in what HDF5 raised (it may hold the number only in its text)."""
    text = str(error)
    if isinstance(error, OSError) and error.errno:
        return error
    number = text.partition("errno = ")[2].partition(",")[0]
    return OSError(int(number), os.strerror(int(number))) if number.isdigit() else OSError(text)


def _columns(columns):
    """Columns by name, from any of the forms a caller may give."""
    if not isinstance(columns, dict):
        columns = dict.fromkeys(columns, Column())
    return {name: column if isinstance(column, Column) else Column(column) for name, column in columns.items()}


def _datasets(file):
    """The growing datasets by name, those that depend on the clock as ``wall/…``."""
    found = {name: node for name, node in file.items() if name != "wall"}
    return found | {f"wall/{name}": node for name, node in (file["wall"].items() if "wall" in file else ())}


def read(path):
    """All rows that are whole, also while the run goes on or after it was killed.

    Parameters
    ----------
    path : Path of ``diagnostics.h5``

    Returns
    -------
    dict of str to (n,) ndarray: ``step`` int64, others float64; those that depend on the clock as ``wall/…``

    Raises
    ------
    OSError : missing, or not readable as HDF5
    """
    with hdf5.opened(path, swmr=True) as file:
        found = {name: node[:] for name, node in _datasets(file).items()}
    shortest = min((len(values) for values in found.values()), default=0)
    return {name: values[:shortest] for name, values in found.items()}


def columns(path):
    """What the file says of its quantities.

    Parameters
    ----------
    path : Path of ``diagnostics.h5``

    Returns
    -------
    dict of str to Column

    Raises
    ------
    OSError : missing, or not readable as HDF5
    """
    with hdf5.opened(path, swmr=True) as file:
        return {name: Column(hdf5.text(node.attrs.get("unit", "")), bool(node.attrs.get("conserved", False)))
                for name, node in _datasets(file).items()}
