"""A run is a folder: where it is, what it says of itself, and how it is never mixed up with another."""

import contextlib
import fcntl
import itertools
import json
import os
import re
from pathlib import Path

from brmpi.errors import BadInput, Fault
from brmpi.results import disk

INDEX = "snapshots.xmf"  # of snapshots, for other programs
MODEL = "model.h5"  # of a training run, for predictions
PICTURES = ("diagnostics.png", "convergence.png", "learning.png", "bodies.png", "fields.png", "movie.gif")


def create(program, case, out=None, overwrite=False, base="results"):
    """Make the folder of a new run.

    Without ``out`` it is ``base/<program>-<case>``, or the next free ``-2``, ``-3`` … ; two programs that start at
    once get two folders. With ``overwrite`` what an earlier run wrote there is removed, and nothing else.

    Parameters
    ----------
    program : str, such as ``"nbody"``
    case : str, such as ``"plummer"``
    out : path or None, the folder that the person asked for
    overwrite : bool, whether an earlier run there may go
    base : path, where runs are kept

    Returns
    -------
    Path of an empty folder, or of one that holds only files that no run wrote

    Raises
    ------
    BadInput : ``out`` holds another run, or one that is going on, or other files, or cannot be made
    Fault : an earlier run cannot be removed
    """
    if out is None and not overwrite:
        for number in itertools.count(1):
            path = _numbered(program, case, base, number)
            if _made(path):
                return path
    path = Path(out) if out is not None else _numbered(program, case, base, 1)
    if _made(path):
        return path
    if not path.is_dir():
        raise BadInput(f"--out {path}: is a file, not a folder")
    if (path / "run.json").exists():
        if not overwrite:
            raise BadInput(f"--out {path}: holds another run: name another folder, or add --overwrite or --restart")
        held = claim(path)
        try:
            _clear(path)
        except OSError as error:
            raise Fault(f"{path}: cannot be cleared: {error.strerror}") from None
        finally:
            os.close(held)
    elif any(path.iterdir()):
        raise BadInput(f"--out {path}: holds files that are not a run's; name an empty or a new folder")
    return path


def existing(program, case, out=None, base="results"):
    """The folder of the run to go on with.

    Parameters
    ----------
    program : str
    case : str
    out : path or None, the folder that the person asked for
    base : path, where runs are kept

    Returns
    -------
    Path of ``out``, or of the run of that name with the highest number

    Raises
    ------
    BadInput : there is no such run, or it is another program's
    """
    if out is not None:
        path = Path(out)
        if not (path / "run.json").exists():
            raise BadInput(f"nothing to restart: --out {path} holds no run")
    else:
        first = _numbered(program, case, base, 1)
        form = re.compile(re.escape(first.name) + r"(?:-([0-9]+))?")
        runs = [(int(match[1] or 1), entry.parent) for entry in Path(base).glob("*/run.json")
                if (match := form.fullmatch(entry.parent.name))
                and about(entry.parent).get("case_name", case) == case]  # x-2 may be the case x-2's first run
        if not runs:
            raise BadInput(f"nothing to restart: no run in {first}")
        path = max(runs)[1]
    other = about(path).get("program")
    if other not in (None, program):
        raise BadInput(f"nothing to restart: {path} holds a run of {other}, not of {program}")
    return path


def claim(path):
    """Make sure that no other process writes to a run, for as long as the claim is held.

    Where the file system knows no locks, nothing is claimed.

    Parameters
    ----------
    path : Path, the folder

    Returns
    -------
    int, a file descriptor: closing it, or the end of the process, gives the run free

    Raises
    ------
    BadInput : another process holds it
    """
    held = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(held)
        raise BadInput(f"{path}: this run is going on: stop it first, or name another folder with --out") from None
    except OSError:
        pass
    return held


def newest(base="results"):
    """The run that was begun, or gone on with, last.

    Parameters
    ----------
    base : path, where runs are kept

    Returns
    -------
    Path

    Raises
    ------
    BadInput : there is none
    """
    files = list(Path(base).glob("*/run.json"))
    if not files:
        raise BadInput(f"{base}: there is no run in it: name a run's folder")
    return max(files, key=lambda file: file.stat().st_mtime).parent


def about(path):
    """What a run says of itself.

    Parameters
    ----------
    path : Path, the folder

    Returns
    -------
    dict, as in ``run.json``

    Raises
    ------
    BadInput : not the folder of a run, or its ``run.json`` cannot be read
    """
    file = Path(path) / "run.json"
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise BadInput(f"{path}: not a run: it has no run.json") from None
    except (OSError, ValueError) as error:
        raise BadInput(f"{file}: cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise BadInput(f"{file}: cannot be read: it holds no table")
    return found


def record(path, about):
    """Write ``run.json``; whoever reads it sees the old one or the new one.

    Parameters
    ----------
    path : Path, the folder
    about : dict of what JSON knows, NumPy numbers and arrays, and paths

    Raises
    ------
    Fault : the disk is full, or refused; the old one is still there
    """
    text = json.dumps(about, indent=1, ensure_ascii=False, default=_plain)
    disk.write(Path(path) / "run.json", f"{text}\n".encode())


def _plain(value):
    """NumPy values and paths as JSON knows them."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _numbered(program, case, base, number):
    """The folder of the first, second … run of a case."""
    return Path(base) / f"{program}-{case}{f'-{number}' if number > 1 else ''}"


def _made(path):
    """Make a folder; False if something of that name is there already."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir()
    except FileExistsError:
        if path.exists():
            return False
        raise BadInput(f"{path}: cannot be made: {path.parent} is not a folder") from None
    except OSError as error:
        raise BadInput(f"{path}: cannot be made: {error.strerror}") from None
    return True


def _clear(path):
    """Remove what a run wrote, its ``run.json`` last, so that a clearing cut short can be done again."""
    for name in ("snapshots", "checkpoints"):
        inner = path / name
        if inner.is_dir() and not inner.is_symlink():
            for file in [file for kind in ("h5", "h5.part", "png") for file in inner.glob(f"*_[0-9]*.{kind}")]:
                file.unlink()
            with contextlib.suppress(OSError):  # something of the person's is in it
                inner.rmdir()
    for name in ("diagnostics.h5", INDEX, MODEL, *PICTURES, "run.json"):
        disk.part(path / name).unlink(missing_ok=True)
        (path / name).unlink(missing_ok=True)
