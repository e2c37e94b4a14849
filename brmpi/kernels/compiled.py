"""How Numba compiles the loops of this room. Imported when they are first used: Numba takes long to load."""

from numba import njit

# Sums may be taken in vector lanes; NaN and infinity keep their meaning, so that a pair at distance 0 can be left out.
SUMS = {"reassoc", "contract", "arcp", "afn", "nsz"}
LOOP = {"nogil": True, "error_model": "numpy"}


def compiled(loop, fastmath=SUMS, **options):
    """Compile at the first call, kept on disk wherever a folder for that can be written.

    Parameters
    ----------
    loop : function
    fastmath : set of str or bool, freedom in the order and rounding of floating point operations
    **options : further ones of ``numba.njit``
    """
    options = LOOP | options | {"fastmath": fastmath}
    try:
        return njit(cache=True, **options)(loop)
    except RuntimeError:  # neither this folder nor the home folder
        return njit(**options)(loop)
