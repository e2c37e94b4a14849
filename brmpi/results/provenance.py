"""Where a run came from: versions, commit, command, hosts."""

import json
import os
import platform
import shlex
import socket
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import brmpi


def versions():
    """Versions of what computes and writes, as far as it is loaded already.

    Returns
    -------
    dict of str to str
    """
    found = {"brmpi": brmpi.__version__, "python": platform.python_version()}
    for name in ("numpy", "scipy", "h5py", "mpi4py", "numba", "petsc4py", "pyopencl"):
        if name in sys.modules:
            found[name] = getattr(sys.modules[name], "__version__", None) or metadata.version(name)
    if "h5py" in sys.modules:
        found["hdf5"] = sys.modules["h5py"].version.hdf5_version
    if "mpi4py.MPI" in sys.modules:
        found["mpi"] = sys.modules["mpi4py.MPI"].Get_library_version().partition("\0")[0].partition(",")[0].strip()
    return found | {"system": f"{platform.system()} {platform.release()} {platform.machine()}"}


def commit():
    """The commit of the checkout that brmpi runs from, with ``+`` where files differ from it; None outside one.

    Returns
    -------
    str or None
    """
    folder = Path(brmpi.__file__).parent
    if not (folder.parent / ".git").exists():
        return None
    try:
        asked = [subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=5)
                 for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])]
    except (OSError, subprocess.TimeoutExpired):
        return None
    if asked[0].returncode:
        return None
    return asked[0].stdout.strip() + ("+" if asked[1].stdout.strip() else "")


def command():
    """The command line of this process, as it could be typed; a rank cannot see the mpirun before it.

    Returns
    -------
    str
    """
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    start = ["python", "-m", spec.name.removesuffix(".__main__")] if spec else ["python", sys.argv[0]]
    return shlex.join([*start, *sys.argv[1:]])


def launch():
    """What ``brmpi run`` started this run with; None for a run that was started by hand.

    Returns
    -------
    dict or None: ``command`` (the exact mpirun command), ``typed``, ``hosts`` (slots by node), ``job``
    """
    try:
        return json.loads(os.environ.get("BRMPI_LAUNCH", "null"))
    except ValueError:
        return None


def hosts(comm):
    """Ranks on each host, in the order of their first rank. Collective.

    Parameters
    ----------
    comm : communicator

    Returns
    -------
    dict of host name to number of ranks
    """
    names = comm.allgather(socket.gethostname())
    return {name: names.count(name) for name in dict.fromkeys(names)}
