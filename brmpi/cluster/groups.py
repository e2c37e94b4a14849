"""Control groups of a lab: the processes of each host, and what they may use of this machine. Versions 1 and 2."""

import json
import os
import signal
import time
from pathlib import Path

from brmpi.cluster import atomic
from brmpi.errors import Fault

CONTROLLERS = ("cpu", "cpuset", "memory", "pids")
PERIOD = 10_000  # µs; short, so that a host that is held to a tenth of a core still answers every few milliseconds
QUOTA = 1_000  # µs; the kernel takes no less


class Groups:
    """The control groups of one lab: a folder for each host in each hierarchy.

    Parameters
    ----------
    folders : list of str, the lab's folder in each hierarchy
    version : int, 1 or 2
    """

    def __init__(self, folders, version):
        self.folders, self.version = [Path(folder) for folder in folders], version

    @classmethod
    def here(cls, name, mounts="/proc/self/mountinfo", mine="/proc/self/cgroup"):
        """Where a lab of this name keeps its groups on this machine; nothing is made.

        Parameters
        ----------
        name : str
        mounts, mine : files in which the kernel tells of hierarchies and of this process's groups

        Raises
        ------
        Fault : a controller is missing
        """
        points = hierarchies(mounts)
        if not any("cpu" in controllers for controllers, _ in points) and (None,) in [c for c, _ in points]:
            return cls([Path(dict(points)[None,], name)], 2)
        # version 1: within this process's own groups, so that a limit on these holds for the lab as well
        own = dict(line.split(":", 2)[1:] for line in Path(mine).read_text().splitlines())
        own = {word: path for words, path in own.items() for word in words.split(",")}
        folders = {}
        for wanted in CONTROLLERS:
            point = next((point for controllers, point in points if wanted in controllers), None)
            if point is None:
                raise Fault(f"the control group {wanted!r} is not mounted: a lab cannot hold its hosts to their shares")
            folders[str(Path(point, own[wanted].lstrip("/"), name))] = None
        return cls(list(folders), 1)

    @classmethod
    def read(cls, path):
        """The groups that ``save`` described.

        Parameters
        ----------
        path : path of a file
        """
        return cls(**json.loads(Path(path).read_text()))

    def save(self, path):
        """Write down where the groups are, before any is made.

        Parameters
        ----------
        path : path of a file
        """
        atomic.write(path, json.dumps({"folders": [str(folder) for folder in self.folders], "version": self.version}))

    def make(self, node):
        """Make a host's groups, if they are not there.

        Parameters
        ----------
        node : str

        Raises
        ------
        Fault : the kernel refuses
        """
        try:
            for folder in self.folders:
                if self.version == 2:
                    for parent in (folder.parent, folder):
                        parent.mkdir(exist_ok=True)
                        (parent / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in CONTROLLERS))
                (folder / node).mkdir(parents=True, exist_ok=True)
                if self.version == 1 and (folder / node / "cpuset.cpus").exists():
                    for inner in (folder, folder / node):  # an empty set admits no process
                        for file in ("cpuset.cpus", "cpuset.mems"):
                            if not (inner / file).read_text().strip():
                                (inner / file).write_text((inner.parent / file).read_text())
        except OSError as error:
            raise Fault(f"{error.filename}: the control group cannot be made: {error.strerror}") from error

    def doors(self, node):
        """Files into which a process writes its number to be held to a host's limits.

        Parameters
        ----------
        node : str

        Returns
        -------
        list of str
        """
        return [str(folder / node / "cgroup.procs") for folder in self.folders]

    def processes(self, node=None):
        """Processes of a host, or of the whole lab.

        Parameters
        ----------
        node : str, optional

        Returns
        -------
        list of int
        """
        found = set()
        for folder in self.folders:
            for file in sorted((folder / node if node else folder).glob("**/cgroup.procs")):
                try:
                    found.update(map(int, file.read_text().split()))
                except OSError:  # the group went away meanwhile, or lies inside a threaded one
                    continue
        return sorted(found - {0})

    def cpu(self, node, percent):
        """Hold a host to a part of a core.

        Parameters
        ----------
        node : str
        percent : float > 0 or None for no limit [% of one core]
        """
        period = PERIOD if percent is None else max(PERIOD, round(QUOTA * 100 / percent))
        quota = None if percent is None else round(period * percent / 100)
        if self.version == 2:
            self._write(node, "cpu.max", f"{'max' if quota is None else quota} {period}")
            return
        self._write(node, "cpu.cfs_quota_us", -1)  # the period alone may never make the share too large
        self._write(node, "cpu.cfs_period_us", period)
        self._write(node, "cpu.cfs_quota_us", -1 if quota is None else quota)

    def memory(self, node, size):
        """Hold a host to an amount of memory.

        Parameters
        ----------
        node : str
        size : int or None for no limit [bytes]
        """
        if self.version == 2:
            self._write(node, "memory.max", "max" if size is None else size)
        else:
            self._write(node, "memory.limit_in_bytes", -1 if size is None else size)

    def cpuset(self, node, cores):
        """Let a host use these of the machine's cores only.

        Parameters
        ----------
        node : str
        cores : str such as "0,2-3", or None for all
        """
        if cores is None and self.version == 1:
            cores = (self._holder(node, "cpuset.cpus").parent / "cpuset.cpus").read_text().strip()
        self._write(node, "cpuset.cpus", cores or "")

    def kill(self, node=None, seconds=10.0):
        """End all processes of a host, or of the lab, and wait until they are gone.

        Parameters
        ----------
        node : str, optional
        seconds : float, limit of time [s]

        Raises
        ------
        Fault : some would not end
        """
        end = time.monotonic() + seconds
        while left := self.processes(node):
            for process in left:
                try:
                    os.kill(process, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            if time.monotonic() > end:
                raise Fault(f"processes {left} of the lab do not end")
            time.sleep(0.01)

    def remove(self):
        """End all processes of the lab and remove its groups.

        Raises
        ------
        Fault : some would not end, or the kernel refuses
        """
        for folder in self.folders:
            for end in range(100, -1, -1):
                self.kill()  # each time: a process that a killed command had started may only now have come in
                try:
                    for inner in sorted(folder.glob("**/"), reverse=True):
                        inner.rmdir()
                    break
                except FileNotFoundError:
                    break
                except OSError as error:  # busy, as long as an ended process has not been buried
                    if not end:
                        raise Fault(f"{folder}: the control group cannot be removed: {error.strerror}") from error
                    time.sleep(0.02)

    def _holder(self, node, file):
        return next(folder / node for folder in self.folders if (folder / node / file).exists())

    def _write(self, node, file, value):
        try:
            (self._holder(node, file) / file).write_text(str(value))
        except OSError as error:
            raise Fault(f"{node}: {file} = {value}: the kernel refuses: {error.strerror}") from error


def hierarchies(path):
    """Hierarchies of control groups.

    Parameters
    ----------
    path : file in which the kernel tells of mounts

    Returns
    -------
    list of (controllers, mount point); controllers of version 2 are ``(None,)``
    """
    found = []
    for line in Path(path).read_text().splitlines():
        left, right = line.split(" - ", 1)
        kind, _, options = right.split(" ", 2)
        point = left.split()[4]
        if kind == "cgroup":
            found.append((tuple(options.split(",")), point))
        elif kind == "cgroup2":
            found.append(((None,), point))
    return found
