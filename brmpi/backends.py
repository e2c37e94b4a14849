"""What runs the kernels of a program: for all ranks together, and what each host then took.

Kernels whose versions differ in their last bits run in one version everywhere, so that a result does not depend on who
computed it; ``kernels.choice`` says which they are. A restart takes the versions that the run began with.
"""

import socket

from brmpi import kernels, mpi, speeds
from brmpi.cluster import probe
from brmpi.errors import BadInput
from brmpi.kernels import choice, opencl


def resolve(comm, wanted):
    """What a wish comes down to. Collective.

    Parameters
    ----------
    comm : communicator
    wanted : one of ``kernels.BACKENDS``

    Returns
    -------
    one of ``kernels.BACKENDS``

    Raises
    ------
    BadInput : on every rank alike, if a host does not have it
    """
    lacking = comm.allgather(None if kernels.has_numba() else socket.gethostname())
    without = _reasons(comm) if wanted == "opencl" else ()
    return kernels.backend(wanted, sorted({host for host in lacking if host}), without)


def settle(comm, backend, work, before=None):
    """Read the tunings, and agree on the versions of kernels. Collective.

    Parameters
    ----------
    comm : communicator
    backend : from ``resolve``
    work : dict of kernel to the size of the whole problem, for kernels that the program will run
    before : dict or None, run.json of the run that is gone on with

    Returns
    -------
    dict of kernel to backend, for kernels that all run alike

    Raises
    ------
    BadInput : on every rank alike, if a tuning cannot be read
    """
    cpu = probe.guarded(probe.cpu)[0] or "unknown"
    tunings = mpi.on_root(comm, choice.read, speeds.folder(), comm.allgather(cpu))
    choice.use(tunings.get(cpu))
    if backend != "auto":
        agreed = dict.fromkeys(work, backend)
        choice.agree(agreed, work)
        return agreed
    hosts = comm.allgather(socket.gethostname())
    agreed = choice.agreed(comm.allgather(choice.rates(work, hosts.count(socket.gethostname()))))
    began = (before or {}).get("agreed") or {}
    began = {kernel: one for kernel, one in began.items() if kernel in agreed and one in kernels.BACKENDS[1:]}
    if "opencl" in began.values() and _reasons(comm):
        began = {kernel: one for kernel, one in began.items() if one != "opencl"}
    agreed.update(began)
    choice.agree(agreed, work)
    for kernel in [kernel for kernel, one in agreed.items() if one == "opencl"]:
        if other := choice.other_device(kernel, work[kernel]):
            choice.lose(kernel, other)
    return _without_lost(comm, agreed, work)


def _without_lost(comm, agreed, work, told=None):
    """Let all take Numba for kernels for which OpenCL failed somewhere. Collective; returns what is agreed then."""
    for host, reasons in comm.allgather((socket.gethostname(), choice.lost())):
        for kernel, why in reasons.items():
            if kernel not in choice.lost() and not choice.exact(kernel):
                choice.lose(kernel, f"{why} (on {host})")
    lost = {kernel for kernel in agreed if kernel in choice.lost()}
    agreed = {kernel: choice.without_measurement(kernel) if kernel in lost else one for kernel, one in agreed.items()}
    choice.agree(agreed, work, told)
    return agreed


def warm(comm, program, agreed):
    """Compile what a program will run, and let all take Numba where OpenCL failed for one. Collective.

    Parameters
    ----------
    comm : communicator
    program : as ``program`` describes it
    agreed : from ``settle``

    Returns
    -------
    dict of kernel to backend, what is agreed on after that

    Raises
    ------
    BadInput : on every rank alike, if OpenCL is asked for and a host cannot do it
    """
    failed, host = [], socket.gethostname()

    def _attempt():
        try:
            program.warm()
        except opencl.Unavailable as reason:
            failed.append(f"{host}: {reason}")

    mpi.node_by_node(comm, _attempt)
    everywhere = sorted({one for rank in comm.allgather(failed) for one in rank})
    if everywhere:
        raise BadInput(f"backend = 'opencl': not on {'; '.join(everywhere)}")
    work = program.work()
    agreed = _without_lost(comm, agreed, work, lambda sentence: mpi.say(f"{program.name} on {host}: {sentence}"))
    lost = comm.allgather(choice.lost())
    for kernel, why in {kernel: why for one in reversed(lost) for kernel, why in one.items()}.items():
        if comm.rank == 0:
            mpi.say(f"{program.name}: {kernel}: OpenCL was chosen and failed: {why}; Numba runs it")
    if any(lost):
        choice.forget()
        mpi.node_by_node(comm, program.warm)
    return agreed


def told(comm, wanted):
    """What ran on which host. Collective.

    Parameters
    ----------
    comm : communicator
    wanted : one of ``kernels.BACKENDS``

    Returns
    -------
    backend : str, all that ran anywhere, or ``wanted`` where nothing did
    hosts : dict of host to dict of kernel to list of dict, from ``choice.ran``
    """
    hosts = {}
    for host, ran in comm.allgather((socket.gethostname(), choice.ran())):
        for kernel, versions in ran.items():
            known = hosts.setdefault(host, {}).setdefault(kernel, [])
            known += [one for one in versions if one not in known]
    ran = {one["backend"] for ran in hosts.values() for versions in ran.values() for one in versions}
    return ", ".join(sorted(ran)) or wanted, hosts


def _reasons(comm):
    """Hosts where OpenCL cannot be taken, each with the reason. Collective."""
    reasons = comm.allgather((socket.gethostname(), kernels.without_opencl()))
    return sorted({f"{host}: {reason}" for host, reason in reasons if reason})
