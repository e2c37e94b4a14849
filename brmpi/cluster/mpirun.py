"""Which MPI there is here: ``installed`` gives the class that writes its command lines."""

import functools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from brmpi.cluster.hydra import Hydra
from brmpi.cluster.openmpi import OpenMPI4, OpenMPI5
from brmpi.errors import BadInput


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
        return of(_version(program, Path(program).stat().st_mtime_ns))
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BadInput(f"{program} --version: does not answer: {error}") from error


@functools.lru_cache(maxsize=8)
def _version(program, _):
    """What a program says of itself; asked once, as long as the file is the same."""
    return subprocess.run([program, "--version"], capture_output=True, text=True, timeout=20).stdout


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
