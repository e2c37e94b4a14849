"""Hydra, which MPICH and its kin start jobs with."""

import contextlib
import fcntl
import ipaddress
import socket

from brmpi.cluster.launcher import CARRIED, SSH, THREADS, UNREACHED, Launcher, environment_path

INTERFACE_ADDRESS = 0x8915  # SIOCGIFADDR of Linux


class Hydra(Launcher):
    """MPICH's mpiexec, whose daemons are ``hydra_pmi_proxy``."""

    name, daemon = "MPICH", "hydra_pmi_proxy"  # it can tag lines, but [0] could be the program's own
    waits = True
    failures = ((r"PID \d+ RUNNING AT (?P<host>\S+)(?:.|\n)*?EXIT CODE: (?P<code>\d+)",
                 "a rank on {host} ended with exit code {code}"), *UNREACHED)

    def confined(self, network):
        """Variables that hold a plain mpiexec to a network, if this machine is in it.

        Parameters
        ----------
        network : str, CIDR

        Returns
        -------
        dict, name: str
        """
        device = interface(network)
        return {"HYDRA_IFACE": device} if device else {}

    def environment(self, job):
        """Variables that mpiexec needs; ssh's options go by one of them.

        Parameters
        ----------
        job : Job

        Returns
        -------
        dict, name: str, or None for one that must not be set
        """
        return super().environment(job) | {"HYDRA_LAUNCHER_EXTRA_ARGS": job.logins + SSH}

    def command(self, job):
        """The command line.

        Parameters
        ----------
        job : Job

        Returns
        -------
        list of str
        """
        shares = [(host, ranks) for host, ranks in zip(job.hosts, job.shares) if ranks]
        parts = ["mpiexec", "-bind-to", job.bind, "-launcher", "ssh", "-hosts",
                 ",".join(f"{host.address}:{ranks}" for host, ranks in shares)]
        if job.network and job.is_remote and (device := interface(job.network)):
            parts += ["-iface", device]
        for name in THREADS:
            parts += ["-genv", name, str(job.per_rank)]
        parts += ["-genvlist", ",".join(("PATH", *(CARRIED if job.id else ())))]
        if not job.parted:
            return [*parts, "-n", str(job.count), *_placed(job, job.program)]
        for host, ranks in shares:  # ranks are dealt out in the order of the hosts, and so are these parts
            parts += ["-n", str(ranks), *_placed(job, (host.python or "python", *job.program[1:])), ":"]
        return parts[:-1]


def _placed(job, program):
    """The program, in the environment of the host's architecture: it has no daemon that could bring it."""
    if not job.is_remote:
        return program
    return ["sh", "-c", f'PATH={environment_path()}:$PATH; exec "$@"', "sh", *program]


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
                answer = fcntl.ioctl(door, INTERFACE_ADDRESS, name.encode().ljust(40, b"\0"))
                if ipaddress.ip_address(answer[20:24]) in inside:
                    return name
    return None
