"""Whether what is to be allocated fits: every node's need beside what it has, before anything is."""

from pathlib import Path

from brmpi.linalg.failures import NotEnoughMemory

RESERVE = 0.02  # of what is free, left to others


def available():
    """Memory that this node can still give away, within this process's control group.

    Returns
    -------
    int [bytes], or None where it cannot be told
    """
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    except (OSError, ValueError, IndexError):
        return None
    return min([*found, *_groups()], default=None)


def _groups():
    """What is left in each control group around this process that has a limit."""
    try:
        entries = [line.rstrip("\n").split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    except OSError:
        return
    for _, controllers, path in entries:
        if controllers == "":
            root, names = Path("/sys/fs/cgroup"), ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            root = Path("/sys/fs/cgroup/memory")
            names = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
        else:
            continue
        here = root / path.lstrip("/")
        for folder in (here if here.is_dir() else root, *here.parents):
            left = _left(folder, *names)
            if left is not None:
                yield left
            if folder == root:
                break


def _left(folder, limit, used, cache):
    """Bytes left under one group's limit; None without one."""
    try:
        most, now = int((folder / limit).read_text()), int((folder / used).read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    return max(most - now + int(stat.get(cache, 0)), 0)


class Memory:
    """Which ranks share a node. Collective.

    Parameters
    ----------
    comm : communicator, in use as long as this is
    """

    def __init__(self, comm):
        from mpi4py import MPI

        self.comm = comm
        self.nodes = comm.allgather(MPI.Get_processor_name())

    def check(self, need, what):
        """Refuse, on every rank alike, what does not fit on some node. Collective.

        Parameters
        ----------
        need : int [bytes], of this rank
        what : str, for the message

        Raises
        ------
        NotEnoughMemory
        """
        needs, haves = {}, {}
        for node, (bytes_, left) in zip(self.nodes, self.comm.allgather((int(need), available()))):
            needs[node] = needs.get(node, 0) + bytes_
            if left is not None:
                haves[node] = min(left, haves.get(node, left))
        for node, bytes_ in needs.items():
            if node in haves and bytes_ > haves[node] * (1 - RESERVE) and bytes_ > 2**20:
                raise NotEnoughMemory(what, bytes_, haves[node], node)
