"""ScaLAPACK's product of matrices, by its shared library, in processes that mpi4py has started."""

import ctypes
from ctypes import byref, c_char, c_double, c_int, c_void_p

import numpy as np

NAMES = ("libscalapack-openmpi.so.2.2", "libscalapack-openmpi.so", "libscalapack.so.2.2", "libscalapack.so")


def library():
    """ScaLAPACK for the MPI in use.

    Returns
    -------
    ctypes.CDLL, or None where there is none
    """
    for name in NAMES:
        try:
            found = ctypes.CDLL(name)
        except OSError:
            continue
        if hasattr(found, "pdgemm_") and hasattr(found, "blacs_gridinit_"):
            return found
    return None


class Product:
    """``C = A B`` by pdgemm, of square matrices on a grid of P × Q processes. Collective, of all of COMM_WORLD.

    Parameters
    ----------
    scalapack : ctypes.CDLL, from ``library``
    shape : (P, Q)
    a, b : (rows here, columns here) float64, parts in ScaLAPACK's layout; column by column copies of them are kept
    n, nb : int
    """

    def __init__(self, scalapack, shape, a, b, n, nb):
        self.call = scalapack.pdgemm_
        context, info = c_int(), c_int()
        scalapack.blacs_get_(byref(c_int(-1)), byref(c_int(0)), byref(context))
        scalapack.blacs_gridinit_(byref(context), byref(c_char(b"R")), byref(c_int(shape[0])), byref(c_int(shape[1])))
        self.a, self.b = np.asfortranarray(a), np.asfortranarray(b)
        self.c = np.zeros_like(self.a, order="F")
        described = (c_int * 9)()
        numbers = [byref(c_int(number)) for number in (n, n, nb, nb, 0, 0)]
        scalapack.descinit_(described, *numbers, byref(context), byref(c_int(max(len(a), 1))), byref(info))
        one, no, size = c_int(1), c_char(b"N"), c_int(n)
        parts = [(c_void_p(part.ctypes.data), byref(one), byref(one), described) for part in (self.a, self.b, self.c)]
        self.arguments = (byref(no), byref(no), byref(size), byref(size), byref(size), byref(c_double(1)), *parts[0],
                          *parts[1], byref(c_double(0)), *parts[2])

    def __call__(self):
        """Multiply; the product's part is in ``c``."""
        self.call(*self.arguments)
