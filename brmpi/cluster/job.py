"""What ``mpirun`` is to start: hosts, the program, and which rank goes where. Pure, but for the file of ssh's users."""

from dataclasses import dataclass, replace
from pathlib import Path

from brmpi.cluster import atomic
from brmpi.cluster.inventory import is_local
from brmpi.errors import BadInput


@dataclass(frozen=True)
class Host:
    """Where ranks go."""

    address: str
    slots: int
    name: str = ""
    user: str | None = None  # ssh user
    python: str | None = None  # absolute path there, if not that of the environment


@dataclass(frozen=True)
class Job:
    """What mpirun is to start."""

    hosts: tuple[Host, ...]
    program: tuple[str, ...]  # argv; "python" stands for the Python of the environment
    ranks: int | None = None  # all slots if not given
    network: str | None = None  # CIDR
    bind: str = "none"
    threads: int | None = None  # of a rank; slots / ranks if not given
    crowded: bool = False  # ranks share cores: those that wait give way
    tagged: bool = False  # each line of output says its rank
    ssh: str | None = None  # file of ssh's that knows the user of each host; needed where they differ
    id: str = ""  # by which its processes are found; none in a command that is only shown

    @property
    def slots(self):
        """Slots of all hosts."""
        return sum(host.slots for host in self.hosts)

    @property
    def count(self):
        """Number of ranks."""
        return self.ranks or self.slots

    @property
    def per_rank(self):
        """Threads of each rank, so that ranks and threads together fill the cores and no more."""
        shares = zip(self.hosts, self.shares)
        return self.threads or max(1, min(host.slots // ranks for host, ranks in shares if ranks))

    @property
    def shares(self):
        """Ranks of each host: as many as it has slots, or in turn where there are fewer or more ranks than slots."""
        ranks, left = [0] * len(self.hosts), self.count
        while left:
            for place, host in enumerate(self.hosts):
                if left and ranks[place] < host.slots * -(-self.count // max(1, self.slots)):
                    ranks[place] += 1
                    left -= 1
        return ranks

    @property
    def parted(self):
        """Whether hosts start it by Pythons of their own, each as a part of the job."""
        return self.program[0] == "python" and any(host.python for host in self.hosts)

    @property
    def is_remote(self):
        """Whether any host is another computer."""
        return any(not is_local(host) for host in self.hosts)

    @property
    def users(self):
        """Users on the hosts that are other computers; None among them stands for ssh's own choice."""
        return {host.user for host in self.hosts if not is_local(host)}

    @property
    def logins(self):
        """Options of ssh that say as whom to log in, each with a space behind it."""
        if len(self.users) > 1:
            return f"-F {self.ssh} " if self.ssh else ""
        return "".join(f"-l {user} " for user in self.users if user)


def users_file(known):
    """A file for ssh that knows the user of each node, and goes before a person's own; None where all have the same.

    Parameters
    ----------
    known : inventory.Inventory

    Returns
    -------
    str or None

    Raises
    ------
    Fault : it cannot be written beside the inventory
    """
    if len({node.user for node in known.nodes if not is_local(node)}) < 2:
        return None
    blocks = [f"Host {node.address}\n  User {node.user}\n" for node in known.nodes if node.user]
    file = Path(known.file.parent, "users.ssh").absolute()
    text = "".join([*blocks, "Host *\n", "  Include ~/.ssh/config\n", "  Include /etc/ssh/ssh_config\n"])
    atomic.write(file, f"# Written by brmpi, which writes it anew: do not edit.\n{text}")
    return str(file)


def without(job, lost):
    """The job on the hosts that are left, with as many ranks as before if they have room.

    Parameters
    ----------
    job : Job
    lost : set of str, addresses

    Returns
    -------
    Job

    Raises
    ------
    BadInput : no host is left
    """
    hosts = tuple(host for host in job.hosts if host.address not in lost)
    if not hosts:
        raise BadInput("no node is left to run on")
    slots = sum(host.slots for host in hosts)
    crowding = job.ranks is not None and job.ranks > job.slots
    return replace(job, hosts=hosts, ranks=job.ranks if job.ranks and (job.ranks <= slots or crowding) else None)
