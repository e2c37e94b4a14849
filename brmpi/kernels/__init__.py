"""The hot loops, on plain arrays: a NumPy reference that defines each, a Numba version, an OpenCL one. No MPI here."""

import contextlib
import functools
import importlib.util
import os
from pathlib import Path

from brmpi.errors import BadInput

RANKS_HERE = ("OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS")  # ranks of this host, as Open MPI and MPICH tell
BACKENDS = ("auto", "numba", "numpy", "opencl")


@functools.cache
def has_numba():
    """Whether Numba is installed here.

    Returns
    -------
    bool
    """
    return importlib.util.find_spec("numba") is not None


def threads():
    """Threads that a kernel may use in this process.

    Returns
    -------
    int: OMP_NUM_THREADS, else the part of the cores it may use that is one rank's of a host
    """
    told, *ranks = (os.environ.get(name, "").strip() for name in ("OMP_NUM_THREADS", *RANKS_HERE))
    if told.isdecimal() and int(told):
        return int(told)
    ranks = [int(count) for count in ranks if count.isdecimal() and int(count)]
    return max(1, len(os.sched_getaffinity(0)) // max(ranks, default=1))


@functools.cache
def cache():
    """Bytes of the largest cache that a core has to itself, or as its part of one that cores share.

    Returns
    -------
    int; 256 KiB, the least of today's boards, where the kernel does not tell
    """
    found = [1 << 18]
    for level in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        with contextlib.suppress(OSError, ValueError):
            size, sharing = ((level / name).read_text().strip() for name in ("size", "shared_cpu_map"))
            cores = sum(int(part, 16).bit_count() for part in sharing.split(","))
            found.append(int(size.removesuffix("K")) * 1024 // max(cores, 1))
    return max(found)


def without_opencl():
    """Why OpenCL cannot be taken here.

    Returns
    -------
    str, empty where it can
    """
    from brmpi.kernels import opencl

    try:
        opencl.need_float64(opencl.device())
    except opencl.Unavailable as reason:
        return str(reason)
    return ""


def backend(wanted, lacking=(), without=()):
    """The backend that a wish comes down to, the same for all who compute together.

    Parameters
    ----------
    wanted : one of ``BACKENDS``; auto is NumPy where somebody has no Numba
    lacking : sequence of str, hosts without Numba
    without : sequence of str, hosts without OpenCL, each with a colon and the reason

    Returns
    -------
    one of ``BACKENDS``; "auto" leaves the choice of each kernel's version to ``choice``

    Raises
    ------
    BadInput : an unknown backend, or one is wanted that somebody does not have
    """
    if wanted not in BACKENDS:
        raise BadInput(f"backend = {wanted!r}: known are {', '.join(BACKENDS)}")
    if wanted == "numba" and lacking:
        raise BadInput(f"backend = 'numba': Numba is not installed on {', '.join(lacking)} (pip install numba)")
    if wanted == "opencl" and without:
        raise BadInput(f"backend = 'opencl': not on {'; '.join(without)}")
    return "numpy" if wanted == "auto" and lacking else wanted
