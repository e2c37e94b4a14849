"""The product by BLAS, which takes Numba's place. Imported when it is first used."""

import numpy as np
from scipy.linalg import blas


def product(a, b, c, alpha, beta):
    """Set c to alpha a b + beta c.

    BLAS counts in Fortran's order, in which c, b and a of C's order are their transposes: c' = b' a'.

    Parameters
    ----------
    a, b, c, alpha, beta : as in ``product.product``, checked; c in C's order, none is empty
    """
    gemm = blas.dgemm if c.dtype == np.float64 else blas.sgemm
    # In C's order an operand's transpose is passed as it lies, in Fortran's the operand itself, to be transposed.
    right, left = ((x.T, False) if x.flags.c_contiguous else (x, True) for x in (b, a))
    done = gemm(alpha, right[0], left[0], beta, c.T, right[1], left[1], overwrite_c=True)
    if not np.may_share_memory(done, c):
        c[...] = done.T
