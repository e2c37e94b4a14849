"""What an agent knows of its attempts on its own disk, so that an agent that was killed, or its Redis, can be told
again.

Of each attempt there are up to two files: ``<id>.<fence>.json``, written before it begins, and ``<id>.<fence>.end``,
which its supervisor writes when it is over. What is finished stays for a while: a Redis that has lost it is told again.
"""

import contextlib
import json
import os
import time
from pathlib import Path

KEPT = 7 * 86400  # seconds that finished attempts are remembered


def started(pid):
    """When a process began, in the kernel's ticks; None if there is none.

    Parameters
    ----------
    pid : int

    Returns
    -------
    int or None
    """
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return None
    return None if words[0] in "ZX" else int(words[19])


def boot():
    """What names this start of the computer, or of the container that this process sees as one.

    Returns
    -------
    str
    """
    first = started(1)
    return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}-{first}"


def tagged(tag):
    """Processes of an attempt on this computer, by the variable that each carries.

    Parameters
    ----------
    tag : str; one that ends in a dot stands for all attempts of a job

    Returns
    -------
    list of int
    """
    wanted, found = f"BRMPI_JOB={tag}".encode(), []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                words = Path(entry.path, "environ").read_bytes().split(b"\0")
                if _of(words, wanted) and started(int(entry.name)) is not None:
                    found.append(int(entry.name))
    return found


def _of(words, wanted):
    """Whether a variable is the one that is looked for, or begins with it where that ends in a dot."""
    return wanted in words or (wanted.endswith(b".") and any(word.startswith(wanted) for word in words))


class Journal:
    """An agent's attempts.

    Parameters
    ----------
    folder : Path
    """

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def file(self, id, fence, kind="json"):
        """A file of an attempt.

        Parameters
        ----------
        id, fence : str
        kind : "json", "end" or "log"

        Returns
        -------
        Path
        """
        return self.folder / f"{id}.{fence}.{kind}"

    def write(self, id, fence, **told):
        """Take down what is known of an attempt.

        Parameters
        ----------
        id, fence : str
        **told : what JSON knows

        Raises
        ------
        OSError : it cannot be written
        """
        put(self.file(id, fence), told)

    def read(self, id, fence):
        """What is known of an attempt.

        Parameters
        ----------
        id, fence : str

        Returns
        -------
        dict, empty where nothing is; ``end`` holds how it ended, if it has
        """
        told = _read(self.file(id, fence))
        if told and (end := _read(self.file(id, fence, "end"))):
            told["end"] = end
        return told

    def all(self):
        """Attempts that are known.

        Returns
        -------
        list of (id, fence)
        """
        return sorted(tuple(file.stem.rsplit(".", 1)) for file in self.folder.glob("*.json"))

    def clear(self):
        """Forget what was finished long ago."""
        for id, fence in self.all():
            file = self.file(id, fence)
            with contextlib.suppress(OSError):
                if self.read(id, fence).get("told") and time.time() - file.stat().st_mtime > KEPT:
                    for kind in ("end", "log", "json"):
                        self.file(id, fence, kind).unlink(missing_ok=True)


def put(path, told):
    """Write a file that is whole at every instant.

    Parameters
    ----------
    path : Path
    told : what JSON knows

    Raises
    ------
    OSError : it cannot be written
    """
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_text(json.dumps(told))
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _read(path):
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
