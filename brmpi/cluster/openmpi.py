"""Open MPI 4 and 5: their command lines, with what a small cluster of mixed computers needs."""

import ipaddress
import os
import re

from brmpi.cluster.inventory import is_local
from brmpi.cluster.launcher import CARRIED, SSH, THREADS, UNREACHED, Launcher, environment_path


class OpenMPI4(Launcher):
    """Open MPI 4, whose daemons are ``orted``."""

    name, daemon = "Open MPI 4", "orted"
    prompt = True
    tag, tagging = re.compile(rb"\[\d+,(\d+)\]<std(?:out|err|diag)>:"), ("--tag-output",)
    root = ("OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM")
    finds = ("OMPI_MCA_orte_launch_agent", "OMPI_MCA_mca_base_env_list")
    local_first = True  # rank 0 is on the machine that starts the job, if it is one of the hosts
    runtime = {"include": "oob_tcp_if_include", "agent": "orte_launch_agent", "ssh": "plm_rsh_args"}
    # silence of 3 s is asked after once a second, and given up after three answers that did not come
    settings = {"oob_tcp_keepalive_time": "3", "oob_tcp_keepalive_intvl": "1", "oob_tcp_keepalive_probes": "3",
                "plm_rsh_no_tree_spawn": "1"}
    failures = (
        (r"(?:mpirun|prterun) noticed that process rank (?P<rank>\d+) with PID \d+ on node (?P<host>\S+) exited on "
         r"signal (?P<signal>\d+)", "rank {rank} on {host} was ended by signal {signal}"),
        (r"lost communication with a remote daemon(?:.|\n)*?Remote daemon:.*on node (?P<host>\S+)",
         "{host} was lost: its daemon, the node or its link is gone"),
        UNREACHED[0],
        (r"Process name: \[(?:\[\d+,\d+\]|\S+@\d+),(?P<rank>\d+)\]\s+Exit code:\s+(?P<code>\d+)",
         "rank {rank} ended with exit code {code}"),
        (r"MPI_ABORT was invoked on rank (?P<rank>\d+)", "rank {rank} gave up"),
        *UNREACHED[1:],
        (r"has unexpectedly disconnected(?:.|\n)*?Peer host: +(?P<host>\S+)", "a rank on {host} was lost"),
    )

    def environment(self, job):
        """Variables that mpirun needs.

        Parameters
        ----------
        job : Job

        Returns
        -------
        dict, name: str, or None for one that must not be set
        """
        root = dict.fromkeys(self.root, "1") if os.geteuid() == 0 else {}
        # it forbids -x; an agent in the environment gives way to ours
        return super().environment(job) | root | {"OMPI_MCA_mca_base_env_list": None}

    def command(self, job):
        """The command line.

        Parameters
        ----------
        job : Job

        Returns
        -------
        list of str
        """
        parts = ["mpirun", "--bind-to", job.bind, *self.mapping(job), *(self.tagging if job.tagged else ())]
        for key, value in self.parameters(job).items():
            parts += [self.option(key), key, value]
        carried = [*(f"{name}={job.per_rank}" for name in THREADS), *(CARRIED if job.id else ())]
        carried = [part for word in carried for part in ("-x", word)]
        if not job.parted:
            hosts = ",".join(f"{host.address}:{host.slots}" for host in job.hosts)
            return [*parts, *carried, "--host", hosts, "-np", str(job.count), *job.program]
        for host, ranks in zip(job.hosts, job.shares):  # one part of the job for each host, with its Python
            if ranks:  # what is carried belongs to a part, all else to the job
                parts += [*carried, "--host", f"{host.address}:{max(host.slots, ranks)}", "-np", str(ranks),
                          host.python or "python", *job.program[1:], ":"]
        return parts[:-1]

    def confined(self, network):
        """Variables that hold a plain mpirun to a network.

        Parameters
        ----------
        network : str, CIDR

        Returns
        -------
        dict, name: str
        """
        runtime = self.runtime["include"]
        prefix = "PRTE_MCA_" if runtime.startswith("prte") else "OMPI_MCA_"
        return {"OMPI_MCA_btl_tcp_if_include": network, prefix + runtime: network}

    def mapping(self, job):
        """Options that say how ranks are dealt out.

        Parameters
        ----------
        job : Job

        Returns
        -------
        list of str
        """
        by = ["--map-by", "node" if job.count < job.slots else "slot"]
        return [*by, "--oversubscribe"] if job.count > job.slots else by

    def option(self, key):
        """The option that sets an MCA parameter.

        Parameters
        ----------
        key : str
        """
        return "--mca"

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
            found |= {self.runtime["include"]: job.network, "btl_tcp_if_include": job.network}
            if ipaddress.ip_network(job.network).version == 4:
                found["btl_tcp_disable_family"] = "6"
        marked = f"BRMPI_JOB={job.id} " if job.id else ""
        agent = f"env {marked}PATH={environment_path()}:$PATH {self.daemon}"
        return found | self.settings | {self.runtime["ssh"]: job.logins + SSH, self.runtime["agent"]: agent}

    def places(self, job):
        """The host of each rank; nothing where that is not certain.

        Parameters
        ----------
        job : Job

        Returns
        -------
        list of Host
        """
        if job.parted:
            return super().places(job)
        if job.count > job.slots:
            return []
        hosts = sorted(job.hosts, key=lambda host: not is_local(host)) if self.local_first else job.hosts
        if job.count == job.slots:
            return [host for host in hosts for _ in range(host.slots)]
        return [host for turn in range(max(host.slots for host in hosts)) for host in hosts if turn < host.slots]


class OpenMPI5(OpenMPI4):
    """Open MPI 5, whose daemons are ``prted``. It may end with 0 when a node was lost."""

    name, daemon = "Open MPI 5", "prted"
    trusted = local_first = prompt = False
    tag, tagging = re.compile(rb"\[[^\]\s]*,(\d+)\]<std(?:out|err|diag)>: "), ("--output", "tag")
    root = ("PRTE_ALLOW_RUN_AS_ROOT", "PRTE_ALLOW_RUN_AS_ROOT_CONFIRM")
    finds = ("PRTE_MCA_prte_launch_agent", "OMPI_MCA_mca_base_env_list")
    runtime = {"include": "prte_if_include", "agent": "prte_launch_agent", "ssh": "plm_ssh_args"}
    settings = {"prte_keepalive_time": "3", "prte_keepalive_intvl": "1", "prte_keepalive_probes": "3",
                "plm_ssh_no_tree_spawn": "1"}

    def mapping(self, job):
        """Options that say how ranks are dealt out.

        Parameters
        ----------
        job : Job

        Returns
        -------
        list of str
        """
        by = "node" if job.count < job.slots else "slot"
        return ["--map-by", f"{by}:OVERSUBSCRIBE" if job.count > job.slots else by]

    def option(self, key):
        """The option that sets an MCA parameter: those of the runtime have one of their own.

        Parameters
        ----------
        key : str
        """
        return "--prtemca" if key.startswith(("prte_", "plm_")) else "--mca"
