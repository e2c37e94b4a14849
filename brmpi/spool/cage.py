"""A control group for each attempt, where this user may make one: all that a job starts there can be found."""

import contextlib
import os
import signal
from pathlib import Path

from brmpi.cluster import groups


def base(mounts="/proc/self/mountinfo", mine="/proc/self/cgroup"):
    """The control group of this process, in version 2 or else in the hierarchy of processes of version 1.

    Parameters
    ----------
    mounts, mine : files in which the kernel tells of hierarchies and of this process's groups

    Returns
    -------
    Path, or None where there is none that can be written to
    """
    with contextlib.suppress(OSError, ValueError, KeyError):
        points = groups.hierarchies(mounts)
        own = dict(line.split(":", 2)[1:] for line in Path(mine).read_text().splitlines())
        for controllers, point in points:
            name = "" if controllers == (None,) else "pids"
            if (name == "" or name in controllers) and name in own:
                found = Path(point, own[name].lstrip("/"))
                if os.access(found / "cgroup.procs", os.W_OK):
                    return found
    return None


def enter(name, pid):
    """Put a process, and all that it will start, into a group of its own.

    Parameters
    ----------
    name : str, of the group
    pid : int

    Returns
    -------
    str, the group's folder; empty where that is not allowed here
    """
    parent = base()
    if parent is None:
        return ""
    folder = parent / f"brmpi-{name}"
    try:
        folder.mkdir(exist_ok=True)
        (folder / "cgroup.procs").write_text(str(pid))
    except OSError:
        with contextlib.suppress(OSError):
            folder.rmdir()
        return ""
    return str(folder)


def processes(folder):
    """Processes of a group.

    Parameters
    ----------
    folder : str, from ``enter``

    Returns
    -------
    list of int
    """
    with contextlib.suppress(OSError, ValueError):
        return [int(word) for word in Path(folder, "cgroup.procs").read_text().split()] if folder else []
    return []


def end(folder):
    """Kill what is left in a group, and remove it once nothing is.

    Parameters
    ----------
    folder : str, from ``enter``

    Returns
    -------
    bool, whether nothing is left
    """
    if not folder:
        return True
    for pid in processes(folder):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(OSError):
        Path(folder).rmdir()
    return not Path(folder).exists()
