"""What the mpirun of every MPI has in common: the environment it needs, and the reading of what it says."""

import os
import platform
import re
import sys
from abc import ABC, abstractmethod
from pathlib import Path

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
CARRIED = ("BRMPI_JOB", "BRMPI_LAUNCH")  # to every rank: which job it is of, and what started it
SSH = "-o BatchMode=yes -o ConnectTimeout=5 -o ServerAliveInterval=3 -o ServerAliveCountMax=3"
UNREACHED = ((r"ssh: connect to host (?P<host>\S+) port \d+: (?P<why>.*)", "{host} cannot be reached: {why}"),
             (r"(?P<user>\S+)@(?P<host>\S+): Permission denied",
              "{host} does not let {user} in: ssh-copy-id {user}@{host}"),
             (r"Timeout, server (?P<host>\S+) not responding", "{host} was lost: it no longer answers ssh"))


def environment_path():
    """What goes before a node's PATH: the environment of its architecture, else of this Python.

    Returns
    -------
    str, for a shell there, which fills in its architecture
    """
    base = sys.prefix.removesuffix(f"-{platform.machine()}")  # this one may be of an architecture too
    return f"{base}-$(uname -m)/bin:{Path(sys.executable).parent}"


class Launcher(ABC):
    """An MPI's ``mpirun``.

    Parameters
    ----------
    version : str
    """

    name, daemon = "", ""
    trusted = True  # exit code 0 means that the job ended well
    tag = None  # what it puts before each line of a rank, whose number is the group; None: nothing to rely on
    waits = False  # for ever, for a host that it has lost; it holds a login to each as long as the job lasts
    prompt = False  # a tagged line need not be whole to be shown
    failures = UNREACHED  # (what it says, what that means)
    root = ()  # variables without which it starts nothing for root
    finds = ()  # variables, any of which lets it find this environment on other hosts; empty where it does by itself

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
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
        return {"PATH": path, "BRMPI_JOB": job.id}

    @abstractmethod
    def command(self, job):
        """The command line.

        Parameters
        ----------
        job : Job

        Returns
        -------
        list of str
        """

    def places(self, job):
        """The host of each rank; nothing where that is not certain.

        Parameters
        ----------
        job : Job

        Returns
        -------
        list of Host
        """
        return [host for host, ranks in zip(job.hosts, job.shares) for _ in range(ranks)]

    def confined(self, network):
        """Variables that hold a plain mpirun to a network.

        Parameters
        ----------
        network : str, CIDR

        Returns
        -------
        dict, name: str
        """
        return {}

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
                places = self.places(job)
                if "rank" in found and "host" not in found and int(found["rank"]) < len(places):
                    host = places[int(found["rank"])]
                    said = said.replace("rank {rank}", f"rank {{rank}} on {host.name or host.address}")
                return said.format(**found)
        return None
