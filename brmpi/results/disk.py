"""Files that appear whole or not at all, and a full disk told in one sentence."""

import contextlib
import errno
import os
import shutil
from pathlib import Path

from brmpi.errors import Fault

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def size(count):
    """A number of bytes as a person reads it, in powers of 1000: ``12.3 MB``.

    Parameters
    ----------
    count : int >= 0 [bytes]
    """
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{int(count)} B"


def free(path):
    """Bytes that this person may still write on the disk that will hold a path.

    Parameters
    ----------
    path : Path, need not exist
    """
    path = Path(path).absolute()
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def demand(path, needed):
    """Make sure that there is room before anything is written.

    Parameters
    ----------
    path : Path, the file to be written
    needed : int [bytes]

    Raises
    ------
    Fault : fewer bytes are free
    """
    available = free(path)
    if available < needed:
        raise Fault(f"{path}: needs {size(needed)}, {size(available)} free on that disk")


def fault(error, path, needed=None, written=0):
    """The sentence for a file that could not be written.

    Parameters
    ----------
    error : OSError
    path : Path, the file as the person knows it
    needed : int [bytes], how much it takes; None where that is not known
    written : int [bytes], how much of it is on the disk now

    Returns
    -------
    Fault
    """
    if error.errno in FULL and needed is not None:
        available = written + free(path)
        if error.errno == errno.EDQUOT or available >= needed:  # what is free is not what this person may have
            return Fault(f"{path}: needs {size(needed)}, the disk or the quota was full after {size(written)}")
        return Fault(f"{path}: needs {size(needed)}, {size(available)} free on that disk")
    return Fault(f"{path}: cannot be written: {error.strerror or error}")


def part(path):
    """Where a file is written before it is put in place.

    Parameters
    ----------
    path : Path
    """
    return Path(f"{path}.part")


def discard(path):
    """Remove ``path.part``, if it is there and the file system allows it.

    Parameters
    ----------
    path : Path
    """
    with contextlib.suppress(OSError):
        part(path).unlink()


def settle(path):
    """Put the finished ``path.part`` in place, so that it survives a power cut.

    Parameters
    ----------
    path : Path

    Raises
    ------
    OSError : the file system refused
    """
    with part(path).open("rb") as file:
        os.fsync(file.fileno())
    part(path).replace(path)
    folder = os.open(Path(path).absolute().parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write(path, data):
    """Write a small file whole or not at all.

    Parameters
    ----------
    path : Path
    data : bytes

    Raises
    ------
    Fault : no room, or the file system refused; what was there before is still there
    """
    try:
        demand(path, len(data))
        with part(path).open("wb") as file:
            file.write(data)
        settle(path)
    except OSError as error:
        raised = fault(error, path, len(data))
        discard(path)
        raise raised from error


class Sink:
    """A new file as HDF5 writes to it, which keeps its first failure instead of raising it.

    HDF5 that is refused a write can neither close its file nor leave the process in order. So after the first
    failure nothing more is written, HDF5 closes in peace, and ``failure`` says what happened.

    Parameters
    ----------
    path : Path, created or emptied

    Attributes
    ----------
    failure : OSError or None
    """

    def __init__(self, path):
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
        self._place = 0
        self.failure = None

    def _try(self, call, *arguments):
        if self.failure is None:
            try:
                return call(self._file, *arguments)
            except OSError as error:
                self.failure = error
        return None

    def seek(self, offset, whence=os.SEEK_SET):
        """Move to a place; returns it.

        Parameters
        ----------
        offset : int
        whence : int
        """
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: os.fstat(self._file).st_size}[whence]
        self._place = base + offset
        return self._place

    def tell(self):
        """The place where the next byte goes."""
        return self._place

    def readinto(self, buffer):
        """Read back what was written; zeros where that failed.

        Parameters
        ----------
        buffer : writable buffer
        """
        count = os.preadv(self._file, [buffer], self._place)
        if count < len(buffer):
            buffer[count:] = bytes(len(buffer) - count)
        self._place += len(buffer)
        return len(buffer)

    def read(self, count):
        """Read back what was written; zeros where that failed.

        Parameters
        ----------
        count : int [bytes]
        """
        buffer = bytearray(count)
        self.readinto(memoryview(buffer))
        return bytes(buffer)

    def write(self, buffer):
        """Write at the present place; returns the number of bytes.

        Parameters
        ----------
        buffer : bytes-like
        """
        view = memoryview(buffer).cast("B")
        done = 0
        while done < len(view) and self.failure is None:
            done += self._try(os.pwrite, view[done:], self._place + done) or 0
        self._place += len(view)
        return len(view)

    def truncate(self, length=None):
        """Set the length of the file.

        Parameters
        ----------
        length : int [bytes]; None means the present place
        """
        self._try(os.ftruncate, self._place if length is None else length)

    def flush(self):
        """Nothing waits here."""

    def close(self):
        """Close the file; a late failure (as network file systems have them) is kept too. May be called twice."""
        if self._file is not None:
            self._try(os.fsync)
            try:
                os.close(self._file)
            except OSError as error:
                self.failure = self.failure or error
            self._file = None
