"""Product of dense matrices: C = alpha A B + beta C, written into C.

"numpy" is the definition, "numba" here means BLAS through SciPy, which writes into C without copies of A, B or C, and
"opencl" takes tiles through local memory. With beta = 0 what C held is not read, be it NaN.

An element c_ij of two versions differs by at most (k + 4) eps (|alpha| sum_l |a_il| |b_lj| + |beta| |c_ij|), with eps =
2**-23 or 2**-52 and k columns of A: the bound of any order of the sum (Higham, Accuracy and Stability of Numerical
Algorithms, ch. 3). BLAS chooses its order by the whole shape: cutting a product into calls may change last bits. The
OpenCL version adds in the order of l, so that an element is the same bits however rows and columns are cut.
"""

import numpy as np

DTYPES = (np.float32, np.float64)


def product(a, b, c, alpha=1.0, beta=0.0, backend="numba"):
    """Set c to alpha a b + beta c, in place.

    Parameters
    ----------
    a : (m, k) float32 or float64, in C or Fortran order
    b : (k, n), the same dtype, in C or Fortran order
    c : (m, n), the same dtype, in C or Fortran order; shares no memory with a and b
    alpha, beta : float
    backend : "numpy", "numba" (BLAS) or "opencl"

    Raises
    ------
    ValueError : shapes that do not fit, another dtype, or strides that are neither C's nor Fortran's
    """
    _check(a, b, c)
    if backend not in ("numpy", "numba", "opencl"):
        raise ValueError(f"backend = {backend!r}: known are numpy, numba, opencl")
    if c.size == 0:
        return
    if a.shape[1] == 0:
        c[...] = beta * c if beta else 0
    elif backend == "numpy":
        _reference(a, b, c, alpha, beta)
    elif c.flags.c_contiguous:
        _version(backend)(a, b, c, alpha, beta)
    else:
        _version(backend)(b.T, a.T, c.T, alpha, beta)


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


def _version(backend):
    if backend == "opencl":
        from brmpi.kernels import product_opencl

        return product_opencl.product
    return _blas


def _reference(a, b, c, alpha, beta):
    kind = c.dtype.type
    c[...] = kind(alpha) * (a @ b) + (kind(beta) * c if beta else 0)


def _blas(a, b, c, alpha, beta):
    """BLAS counts in Fortran's order, in which c, b and a of C's order are their transposes: c' = b' a'."""
    from scipy.linalg import blas

    gemm = blas.dgemm if c.dtype == np.float64 else blas.sgemm
    # In C's order an operand's transpose is passed as it lies, in Fortran's the operand itself, to be transposed.
    right, left = ((x.T, False) if x.flags.c_contiguous else (x, True) for x in (b, a))
    done = gemm(alpha, right[0], left[0], beta, c.T, right[1], left[1], overwrite_c=True)
    if not np.may_share_memory(done, c):
        c[...] = done.T
