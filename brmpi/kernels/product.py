"""Product of dense matrices: C = alpha A B + beta C, written into C.

"numpy" is the definition, "numba" here means BLAS through SciPy, which writes into C without copies of A, B or C, and
"opencl" takes tiles through local memory. With beta = 0 what C held is not read, be it NaN.

An element c_ij of two versions differs by at most (k + 4) eps (|alpha| sum_l |a_il| |b_lj| + |beta| |c_ij|), with eps =
2**-23 or 2**-52 and k columns of A: the bound of any order of the sum (Higham, Accuracy and Stability of Numerical
Algorithms, ch. 3). BLAS chooses its order by the whole shape: cutting a product into calls may change last bits. The
OpenCL version adds in the order of l, so that an element is the same bits however rows and columns are cut.
"""

import numpy as np

from brmpi.kernels import choice

DTYPES = (np.float32, np.float64)


def product(a, b, c, alpha=1.0, beta=0.0, backend="auto"):
    """Set c to alpha a b + beta c, in place.

    Parameters
    ----------
    a : (m, k) float32 or float64, in C or Fortran order
    b : (k, n), the same dtype, in C or Fortran order
    c : (m, n), the same dtype, in C or Fortran order; shares no memory with a and b
    alpha, beta : float
    backend : one of ``kernels.BACKENDS``; "numba" is BLAS

    Raises
    ------
    ValueError : shapes that do not fit, another dtype, or strides that are neither C's nor Fortran's
    """
    _check(a, b, c)
    choice.check(backend)
    if c.size == 0:
        return
    if a.shape[1] == 0:
        c[...] = beta * c if beta else 0
    else:
        if not c.flags.c_contiguous:
            a, b, c = b.T, a.T, c.T
        size = c.size * a.shape[1]
        choice.run(f"product {c.dtype}", size, backend, _reference, "product", a, b, c, alpha, beta)


def _check(a, b, c):
    for name, matrix in (("a", a), ("b", b), ("c", c)):
        if matrix.ndim != 2 or matrix.dtype not in DTYPES or matrix.dtype != c.dtype or not matrix.dtype.isnative:
            raise ValueError(f"{name}: {matrix.dtype} of shape {matrix.shape}, all must be float32 or all float64, "
                             "with two dimensions")
        if not (matrix.flags.c_contiguous or matrix.flags.f_contiguous) or not matrix.flags.aligned:
            raise ValueError(f"{name}: strides {matrix.strides}, must be in C or Fortran order and aligned")
    if a.shape[1] != b.shape[0] or c.shape != (a.shape[0], b.shape[1]):
        raise ValueError(f"a {a.shape}, b {b.shape}, c {c.shape}: must be (m, k), (k, n), (m, n)")
    if not c.flags.writeable:
        raise ValueError("c: must not be read-only")
    if np.may_share_memory(c, a) or np.may_share_memory(c, b):
        raise ValueError("c shares memory with a or b")


def _reference(a, b, c, alpha, beta):
    kind = c.dtype.type
    c[...] = kind(alpha) * (a @ b) + (kind(beta) * c if beta else 0)
