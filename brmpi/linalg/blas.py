"""BLAS and LAPACK of SciPy on strided views: in place, without copies, outside the interpreter's lock.

SciPy's own Python wrappers copy a view whose rows do not follow each other; the routines that they call take a
leading dimension. These are called here by the addresses that ``scipy.linalg.cython_blas`` gives to Cython.
Matrices are arrays of two dimensions one of which is contiguous, in either order.
"""

import ctypes
from ctypes import byref, c_char, c_double, c_float, c_int, c_void_p
from functools import lru_cache

import numpy as np
from scipy.linalg import cython_blas, cython_lapack

LETTERS = {"f": "s", "d": "d", "F": "c", "D": "z"}  # NumPy's letters of types, and BLAS's
DTYPES = tuple(np.dtype(letter) for letter in LETTERS)
_name = ctypes.pythonapi.PyCapsule_GetName
_name.restype, _name.argtypes = ctypes.c_char_p, [ctypes.py_object]
_address = ctypes.pythonapi.PyCapsule_GetPointer
_address.restype, _address.argtypes = c_void_p, [ctypes.py_object, ctypes.c_char_p]
_known = {}
_CHARS = {letter: byref(c_char(letter.encode())) for letter in "NTCLRUFSBAGVIE"}
_REALS = {"f": c_float, "d": c_double, "F": c_float, "D": c_double}


def _struct(array):
    """Address of an array's data from its structure: a fifth of the time that ``ctypes.data`` takes."""
    return c_void_p.from_address(id(array) + _HEAD)


def _told(array):
    return c_void_p(array.ctypes.data)


# The pointer to the data follows the head of every Python object; if it does not in some build, NumPy is asked.
_HEAD = object.__basicsize__
_pointer = _struct if all(_struct(one).value == one.ctypes.data for one in (np.ones(3), np.ones((4, 4))[1:, 1:])) \
    else _told


@lru_cache(maxsize=64)
def _scalar(value, letter):
    """A number of one type as BLAS is given it."""
    real = _REALS[letter]
    return byref((real * 2)(value.real, value.imag) if letter.isupper() else real(value))


def routine(name, dtype, library=cython_blas):
    """A routine of BLAS or LAPACK.

    Parameters
    ----------
    name : str, without the letter of the type: "gemm"
    dtype : dtype
    library : module, ``cython_blas`` or ``cython_lapack``

    Returns
    -------
    callable that takes addresses, as Fortran does
    """
    key = library, name, dtype
    found = _known.get(key)
    if found is None:
        capsule = library.__pyx_capi__[LETTERS[np.dtype(dtype).char] + name]
        found = _known[key] = ctypes.CFUNCTYPE(None)(_address(capsule, _name(capsule)))
    return found


def call(function, *arguments):
    """Call a routine with letters, whole numbers, arrays, scalars (of one element) or ctypes' own.

    Parameters
    ----------
    function : callable, from ``routine``
    *arguments : str of one letter, int, ndarray, or a ctypes object, which is passed by reference
    """
    passed = []
    for argument in arguments:
        if isinstance(argument, str):
            passed.append(_CHARS[argument])
        elif isinstance(argument, int):
            passed.append(byref(c_int(argument)))
        elif isinstance(argument, np.ndarray):
            passed.append(_pointer(argument))
        else:
            passed.append(byref(argument))
    function(*passed)


def lapack(name, dtype):
    """As ``routine``, of LAPACK.

    Parameters
    ----------
    name : str
    dtype : dtype
    """
    return routine(name, dtype, cython_lapack)


def _held(a):
    """(is it row by row?, leading dimension) of an array of two dimensions."""
    (rows, cols), size = a.shape, a.itemsize
    across, along = a.strides
    if along == size and rows > 1 < cols and across >= cols * size and not across % size:
        return True, across // size  # nearly always
    if not (rows and cols):
        return True, max(rows, cols, 1)
    if cols <= 1 or along == size:
        ld = across // size if rows > 1 else max(cols, 1)
        if rows <= 1 or (across % size == 0 and ld >= max(cols, 1)):
            return True, ld
    if rows <= 1 or across == size:
        ld = along // size if cols > 1 else max(rows, 1)
        if cols <= 1 or (along % size == 0 and ld >= max(rows, 1)):
            return False, ld
    raise ValueError(f"strides {a.strides} of shape {a.shape}: one dimension must be contiguous")


def _operand(a, op, transposed):
    """(letter, array, leading dimension) that make BLAS see op(a), or its transpose where that is asked for."""
    rowwise, ld = _held(a)
    if op == "C" and a.dtype.kind != "c":
        op = "T"
    if rowwise is transposed:  # BLAS sees a as it is, or its transpose where that is wanted
        return op, a, ld
    if op == "C":  # BLAS has no conjugate without a transpose
        return "N", np.array(a.conj(), order="C" if rowwise else "F"), a.shape[1 if rowwise else 0]
    return "T" if op == "N" else "N", a, ld


def gemm(alpha, a, b, beta, c, ta="N", tb="N"):
    """``c = alpha op(a) op(b) + beta c``, in place.

    Parameters
    ----------
    alpha : scalar
    a, b : 2-D ndarrays of c's dtype, each with a contiguous dimension
    beta : scalar; where it is 0, what c holds is not looked at
    c : 2-D ndarray, with a contiguous dimension
    ta, tb : "N", "T" (transposed) or "C" (conjugate transposed)
    """
    (m, n), k = c.shape, a.shape[0 if ta != "N" else 1]
    if not (m and n):
        return
    rowwise, ldc = _held(c)
    if rowwise:  # BLAS goes column by column: c^T = op(b)^T op(a)^T
        m, n, a, b, ta, tb = n, m, b, a, tb, ta
    la, a, lda = _operand(a, ta, rowwise)
    lb, b, ldb = _operand(b, tb, rowwise)
    kind = c.dtype.char
    routine("gemm", kind)(_CHARS[la], _CHARS[lb], byref(c_int(m)), byref(c_int(n)), byref(c_int(k)),
                          _scalar(alpha, kind), _pointer(a), byref(c_int(max(lda, 1))), _pointer(b),
                          byref(c_int(max(ldb, 1))), _scalar(beta, kind), _pointer(c), byref(c_int(max(ldc, 1))))


def trsm(side, uplo, ta, diag, alpha, a, b):
    """Solve ``op(a) x = alpha b`` (side "L") or ``x op(a) = alpha b`` ("R") with a triangular a; x replaces b.

    Parameters
    ----------
    side : "L" or "R"
    uplo : "L" or "U", the triangle of a that is looked at
    ta : "N", "T" or "C"
    diag : "U" where a's diagonal is taken as ones, else "N"
    alpha : scalar
    a, b : 2-D ndarrays of one dtype, each with a contiguous dimension
    """
    _triangular("trsm", side, uplo, ta, diag, alpha, a, b)


def trmm(side, uplo, ta, diag, alpha, a, b):
    """``b = alpha op(a) b`` (side "L") or ``alpha b op(a)`` ("R") with a triangular a, in place.

    Parameters
    ----------
    side, uplo, ta, diag, alpha, a, b : as in ``trsm``
    """
    _triangular("trmm", side, uplo, ta, diag, alpha, a, b)


def _triangular(name, side, uplo, ta, diag, alpha, a, b):
    m, n = b.shape
    if not (m and n):
        return
    rowwise, ldb = _held(b)
    letter, held, lda = _operand(a, ta, rowwise)
    if _held(a)[0]:  # BLAS sees the array's transpose: what it is to look at is the other triangle
        uplo = "U" if uplo == "L" else "L"
    if rowwise:
        m, n, side = n, m, "R" if side == "L" else "L"
    kind = b.dtype.char
    routine(name, kind)(_CHARS[side], _CHARS[uplo], _CHARS[letter], _CHARS[diag], byref(c_int(m)), byref(c_int(n)),
                        _scalar(alpha, kind), _pointer(held), byref(c_int(max(lda, 1))), _pointer(b),
                        byref(c_int(max(ldb, 1))))
