"""The command line of each MPI's ``mpirun``, with what a small cluster of mixed computers needs. Starts no job."""

import contextlib
import fcntl
import ipaddress
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from brmpi.cluster.inventory import is_local
from brmpi.errors import BadInput

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
CARRIED = ("BRMPI_JOB", "BRMPI_LAUNCH")  # to every rank: which job it is of, and what started it
SSH = "-o BatchMode=yes -o ConnectTimeout=5 -o ServerAliveInterval=3 -o ServerAliveCountMax=3"
ROOT = ("OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "PRTE_ALLOW_RUN_AS_ROOT",
        "PRTE_ALLOW_RUN_AS_ROOT_CONFIRM")


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
        shares = zip(self.hosts, shared_out(self))
        return self.threads or max(1, min(host.slots // ranks for host, ranks in shares if ranks))

    @property
    def is_remote(self):
        """Whether any host is another computer."""
        return any(not is_local(host) for host in self.hosts)


def environment_path():
    """What goes before a node's PATH: the environment of its architecture, else of this Python.

    Returns
    -------
    str, for a shell there, which fills in its architecture
    """
    base = sys.prefix.removesuffix(f"-{platform.machine()}")  # this one may be of an architecture too
    return f"{base}-$(uname -m)/bin:{Path(sys.executable).parent}"


class OpenMPI4:
    """Open MPI 4, whose daemons are ``orted``.

    Parameters
    ----------
    version : str
    """

    name, daemon = "Open MPI 4", "orted"
    trusted = True  # exit code 0 means that the job ended well
    prompt = True  # a tagged line need not be whole to be shown
    tag, tagging = re.compile(rb"\[\d+,(\d+)\]<std(?:out|err|diag)>:"), ("--tag-output",)
    local_first = True  # rank 0 is on the machine that starts the job, if it is one of the hosts
    runtime = {"if_include": "oob_tcp_if_include", "agent": "orte_launch_agent"}
    # silence of 3 s is asked after once a second, and given up after three answers that did not come
    settings = {"oob_tcp_keepalive_time": "3", "oob_tcp_keepalive_intvl": "1", "oob_tcp_keepalive_probes": "3",
                "plm_rsh_no_tree_spawn": "1"}
    failures = (
        (r"mpirun noticed that process rank (?P<rank>\d+) with PID \d+ on node (?P<host>\S+) exited on signal "
         r"(?P<signal>\d+)", "rank {rank} on {host} was ended by signal {signal}"),
        (r"lost communication with a remote daemon(?:.|\n)*?Remote daemon:.*on node (?P<host>\S+)",
         "{host} was lost: its daemon, the node or its link is gone"),
        (r"ssh: connect to host (?P<host>\S+) port \d+: (?P<why>.*)", "{host} cannot be reached: {why}"),
        (r"Process name: \[\[\d+,\d+\],(?P<rank>\d+)\]\s+Exit code:\s+(?P<code>\d+)",
         "rank {rank} ended with exit code {code}"),
        (r"MPI_ABORT was invoked on rank (?P<rank>\d+)", "rank {rank} gave up"),
        (r"(?P<user>\S+)@(?P<host>\S+): Permission denied", "{host} does not let {user} in: ssh-copy-id {user}@{host}"),
        (r"Timeout, server (?P<host>\S+) not responding", "{host} was lost: it no longer answers ssh"),
        (r"has unexpectedly disconnected(?:.|\n)*?Peer host: +(?P<host>\S+)", "a rank on {host} was lost"),
    )

    def __init__(self, version):
        self.version = version

    def environment(self, job):
        """Variables that mpirun needs.

        Parameters
        ----------
        job : Job

        Returns
        -------
        dict, name: str, or None for one that must not be set
        """
        variables = {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
                      "BRMPI_JOB": job.id}
        if os.geteuid() == 0:
            variables |= dict.fromkeys(ROOT, "1")
        # it forbids -x; an agent in the environment gives way to ours
        return variables | {"OMPI_MCA_mca_base_env_list": None}

    def command(self, job):
        """The command line.

        Parameters
        ----------
        job : Job

        Returns
        -------
        list of str
        """
        parts = ["mpirun", "--bind-to", job.bind]
        parts += ["--map-by", "node" if job.count < job.slots else "slot"]
        parts += ["--oversubscribe"] if job.count > job.slots else []
        parts += self.tagging if job.tagged else ()
        for key, value in self.parameters(job).items():
            parts += ["--mca", key, value]
        for word in (*(f"{name}={job.per_rank}" for name in THREADS), *(CARRIED if job.id else ())):
            parts += ["-x", word]
        own = {host.python for host in job.hosts}
        if own == {None} or job.program[0] != "python":
            return [*parts, "--host", _listed(job.hosts), "-np", str(job.count), *job.program]
        for host, ranks in zip(job.hosts, shared_out(job)):  # one part of the job for each host, with its Python
            if ranks:
                parts += ["--host", f"{host.address}:{max(host.slots, ranks)}", "-np", str(ranks),
                          host.python or "python", *job.program[1:], ":"]
        return parts[:-1]

    def parameters(self, job):
        """MCA parameters.

        Parameters
        ----------
        job : Job

        Returns
        -------
        dict of str to str
        """
        found = {"mpi_yield_when_idle": "1"} if job.crowded or job.count > job.slots else {}
        if not job.is_remote:
            return found
        if job.network:
            found |= {self.runtime["if_include"]: job.network, "btl_tcp_if_include": job.network}
            if ipaddress.ip_network(job.network).version == 4:
                found["btl_tcp_disable_family"] = "6"
        marked = f"BRMPI_JOB={job.id} " if job.id else ""
        agent = f"env {marked}PATH={environment_path()}:$PATH {self.daemon}"
        return found | self.settings | {"plm_rsh_args": logins(job) + SSH, self.runtime["agent"]: agent}

    def failure(self, job, text):
        """What mpirun said of the failure, in one clause; None if it said nothing that is known.

        Parameters
        ----------
        job : Job
        text : str, its standard error
        """
        for pattern, said in self.failures:
            if match := re.search(pattern, text):
                found = match.groupdict()
                if "rank" in found and "host" not in found and (host := self.host_of(job, int(found["rank"]))):
                    said = said.replace("rank {rank}", f"rank {{rank}} on {host.name or host.address}")
                return said.format(**found)
        return None

    def host_of(self, job, rank):
        """Where a rank is; None where that is not certain.

        Parameters
        ----------
        job : Job
        rank : int
        """
        hosts = sorted(job.hosts, key=lambda host: not is_local(host)) if self.local_first else list(job.hosts)
        if job.count < job.slots:  # in turn
            places = [host for turn in range(max(host.slots for host in hosts)) for host in hosts if turn < host.slots]
        else:
            places = [host for host in hosts for _ in range(host.slots)]
        return places[rank] if rank < len(places) and job.count <= job.slots else None


def users(job):
    """Users on the hosts that are other computers; None for ssh's own choice.

    Parameters
    ----------
    job : Job

    Returns
    -------
    set of str or None
    """
    return {host.user for host in job.hosts if not is_local(host)}


def logins(job):
    """Options of ssh that say as whom to log in.

    Parameters
    ----------
    job : Job

    Returns
    -------
    str
    """
    known = users(job)
    if len(known) > 1:
        return f"-F {job.ssh} " if job.ssh else ""
    return "".join(f"-l {user} " for user in known if user)


class OpenMPI5(OpenMPI4):
    """Open MPI 5, whose daemons are ``prted``. It may end with 0 when a node was lost."""

    name, daemon = "Open MPI 5", "prted"
    trusted = local_first = prompt = False
    tag, tagging = re.compile(rb"\[[^\]\s]*,(\d+)\]<std(?:out|err|diag)>: "), ("--output", "tag")
    runtime = {"if_include": "prte_if_include", "agent": "prte_launch_agent"}
    settings = {"prte_keepalive_time": "3", "prte_keepalive_intvl": "1", "prte_keepalive_probes": "3",
                "plm_ssh_no_tree_spawn": "1"}
    failures = tuple((pattern.replace("mpirun noticed", "(?:mpirun|prterun) noticed"), said)
                     for pattern, said in OpenMPI4.failures)

    def parameters(self, job):
        """MCA parameters, those of the runtime by their names in PRRTE.

        Parameters
        ----------
        job : Job

        Returns
        -------
        dict of str to str
        """
        found = super().parameters(job)
        return {key.replace("plm_rsh", "plm_ssh"): value for key, value in found.items()}

    def command(self, job):
        """The command line; parameters of the runtime have an option of their own.

        Parameters
        ----------
        job : Job

        Returns
        -------
        list of str
        """
        parts = super().command(job)
        for place, part in enumerate(parts[:-1]):
            if part == "--mca" and re.match(r"prte_|plm_", parts[place + 1]):
                parts[place] = "--prtemca"
        if "--oversubscribe" in parts:
            place = parts.index("--map-by")
            parts.remove("--oversubscribe")
            parts[place + 1] += ":OVERSUBSCRIBE"
        return parts


class Hydra(OpenMPI4):
    """Hydra, which MPICH and its kin start jobs with; its daemons are ``hydra_pmi_proxy``."""

    name, daemon = "MPICH", "hydra_pmi_proxy"
    tag = None  # its [0] could be the program's own
    failures = ((r"PID \d+ RUNNING AT (?P<host>\S+)(?:.|\n)*?EXIT CODE: (?P<code>\d+)",
                 "a rank on {host} ended with exit code {code}"), *OpenMPI4.failures[2:3])

    def command(self, job):
        """The command line.

        Parameters
        ----------
        job : Job

        Returns
        -------
        list of str
        """
        parts = ["mpiexec", "-bind-to", job.bind, "-launcher", "ssh", "-hosts",
                 ",".join(f"{host.address}:{host.slots}" for host in job.hosts)]
        if job.network and job.is_remote and (device := interface(job.network)):
            parts += ["-iface", device]
        for name in THREADS:
            parts += ["-genv", name, str(job.per_rank)]
        parts += ["-genvlist", ",".join(("PATH", *CARRIED))]
        return [*parts, "-n", str(job.count), *job.program]

    def environment(self, job):
        """Variables that mpiexec needs; ssh's options go by one of them.

        Parameters
        ----------
        job : Job

        Returns
        -------
        dict, name: str, or None for one that must not be set
        """
        return super().environment(job) | {"HYDRA_LAUNCHER_EXTRA_ARGS": logins(job) + SSH}


def interface(network):
    """The interface by which this machine is in a network; None if it is not, or not by IPv4.

    Parameters
    ----------
    network : str, CIDR
    """
    inside = ipaddress.ip_network(network)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as door:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):  # it has no address
                answer = fcntl.ioctl(door, 0x8915, name.encode().ljust(40, b"\0"))  # SIOCGIFADDR
                if ipaddress.ip_address(answer[20:24]) in inside:
                    return name
    return None


def shared_out(job):
    """Ranks of each host: as many as it has slots, or in turn where there are fewer or more ranks than slots.

    Parameters
    ----------
    job : Job

    Returns
    -------
    list of int
    """
    ranks, left = [0] * len(job.hosts), job.count
    rounds = 1 + max(0, left - 1) // max(1, job.slots)
    while left:
        for place, host in enumerate(job.hosts):
            if left and ranks[place] < host.slots * rounds:
                ranks[place] += 1
                left -= 1
    return ranks


def installed():
    """The MPI whose ``mpirun`` is found first.

    Returns
    -------
    OpenMPI4, OpenMPI5 or Hydra

    Raises
    ------
    BadInput : there is none, or it is not known
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    program = shutil.which("mpirun", path=path)
    if program is None:
        raise BadInput("mpirun is not installed: make install, or apt-get install openmpi-bin")
    try:
        said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=20).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BadInput(f"{program} --version: does not answer: {error}") from error
    return of(said)


def of(said):
    """The MPI of which ``mpirun --version`` says this.

    Parameters
    ----------
    said : str

    Returns
    -------
    OpenMPI4, OpenMPI5 or Hydra

    Raises
    ------
    BadInput : none that is known
    """
    if match := re.search(r"\(Open MPI\) (\d+)(\S*)", said):
        major = int(match.group(1))
        if major in (4, 5):
            return (OpenMPI4 if major == 4 else OpenMPI5)("".join(match.groups()))
    elif "HYDRA" in said or "mpich" in said.lower():
        match = re.search(r"Version:\s*(\S+)", said)
        return Hydra(match.group(1) if match else "")
    raise BadInput(f"mpirun --version says {said.strip()[:60]!r}: known are Open MPI 4 and 5, and MPICH's Hydra")


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


def _listed(hosts):
    return ",".join(f"{host.address}:{host.slots}" for host in hosts)
