"""The hot loops, on plain arrays: each has a NumPy reference, which defines it, and a Numba version. No MPI here."""

import importlib.util

from brmpi.errors import BadInput

BACKENDS = ("auto", "numba", "numpy")


def has_numba():
    """Whether Numba is installed here.

    Returns
    -------
    bool
    """
    return importlib.util.find_spec("numba") is not None


def backend(wanted, lacking=()):
    """The backend that a wish comes down to, the same for all who compute together.

    Parameters
    ----------
    wanted : one of ``BACKENDS``; auto takes Numba where everybody has it, else NumPy
    lacking : sequence of str, hosts without Numba

    Returns
    -------
    "numba" or "numpy"

    Raises
    ------
    BadInput : an unknown backend, or Numba is wanted and not installed
    """
    if wanted not in BACKENDS:
        raise BadInput(f"backend = {wanted!r}: known are {', '.join(BACKENDS)}")
    if wanted == "numba" and lacking:
        raise BadInput(f"backend = 'numba': Numba is not installed on {', '.join(lacking)} (pip install numba)")
    if wanted == "auto":
        return "numpy" if lacking else "numba"
    return wanted
