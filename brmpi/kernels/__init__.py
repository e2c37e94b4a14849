"""The hot loops, on plain arrays: each has a NumPy reference, which defines it, and a Numba version. No MPI here."""

import importlib.util

from brmpi.errors import BadInput

BACKENDS = ("auto", "numba", "numpy")


def backend(wanted):
    """The backend that a wish comes down to here.

    Parameters
    ----------
    wanted : one of ``BACKENDS``; auto takes Numba where it is installed, else NumPy

    Returns
    -------
    "numba" or "numpy"

    Raises
    ------
    BadInput : an unknown backend, or Numba is wanted and not installed
    """
    if wanted not in BACKENDS:
        raise BadInput(f"backend = {wanted!r}: known are {', '.join(BACKENDS)}")
    there = importlib.util.find_spec("numba") is not None
    if wanted == "numba" and not there:
        raise BadInput("backend = 'numba': Numba is not installed here (pip install numba)")
    if wanted == "auto":
        return "numba" if there else "numpy"
    return wanted
