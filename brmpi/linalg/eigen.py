"""Eigenvalues and eigenvectors of real symmetric and complex hermitian matrices.

Householder reduction to a tridiagonal matrix (``tridiagonal``), divide and conquer on that (``dividing``), and the
reflections applied to its vectors: 4/3 n^3 + 4/3 n^3 + 2 n^3 operations at most, half of the first at the speed of
memory, all others products of matrices. Spectral divide and conquer by polar decompositions (Nakatsukasa & Higham,
SIAM J. Sci. Comput. 35, 2013) has products alone, but five to ten times as many operations, and sends each of its
panels over the network; with few ranks on a slow network it would win nothing. A rank never has more than its share of
a few matrices, plus some vectors and panels of full length.
"""

import numpy as np

from brmpi.errors import BadInput
from brmpi.linalg import dividing, strips
from brmpi.linalg.failures import Mismatch
from brmpi.linalg.tridiagonal import Tridiagonal


def eigh(a, vectors=True, overwrite=False):
    """Eigenvalues, and eigenvectors if wanted, of a symmetric or hermitian matrix. Collective.

    Parameters
    ----------
    a : BlockCyclic (n, n), its lower triangle is looked at, and of its diagonal the real part
    vectors : bool
    overwrite : bool, whether a may be used as work space

    Returns
    -------
    w : (n,) float32 or float64, ascending, the same on every rank
    v : BlockCyclic (n, n), laid out as a, column j the vector of ``w[j]``; w alone where no vectors are wanted

    Raises
    ------
    Mismatch : a is not square
    BadInput : an element is not finite
    NotEnoughMemory : a node has not what a, its copy and the vectors need
    NoConvergence : LAPACK has not found the eigenvalues of a part of the tridiagonal matrix
    """
    n = a.shape[0]
    if a.shape != (n, n):
        raise Mismatch(f"shape = {a.shape}: must be square")
    comm, real = a.grid.comm, a.local.real.dtype
    ends = strips.places(n, a.grid)
    share = int(ends[comm.rank + 1] - ends[comm.rank])
    need = (0 if overwrite else a.local.size * a.dtype.itemsize) + 4 * share * n * a.dtype.itemsize * bool(vectors)
    a.grid.memory.check(need, f"eigh of {a}")
    w, v = np.zeros(n, dtype=real), None
    if n:
        factor = _scale(a)
        work = a if overwrite else a.copy()
        if factor != 1:
            work.local *= real.type(factor)
        t = Tridiagonal(work)
        if vectors:
            largest = max(abs(t.diagonal).max(), abs(t.off).max(initial=0)) or real.type(1)
            w, order, parts = dividing.conquer(t.diagonal / largest, t.off / largest, ends, comm)
            w *= largest
            x = strips.whole(parts, order, ends, comm).astype(a.dtype, copy=False)
            del parts
            t.apply(x)
        else:
            w = dividing.values(t.diagonal, t.off, comm)
        w /= real.type(factor)
    if not vectors:
        return w
    v = a.like()
    if n:
        strips.blocks(x, ends, v)
    return w, v


def _scale(a):
    """What to multiply a by so that the squares of its elements stay within the range of numbers.

    Raises
    ------
    BadInput : it is not finite
    """
    from mpi4py import MPI

    i, j = a.indices
    largest = 0.0
    for at in range(0, len(i), a.nb):
        part, lower = a.local[at: at + a.nb], i[at: at + a.nb, None] >= j
        # Of complex numbers the larger part, which is near enough and cannot overflow.
        for real in (part.real, part.imag) if np.iscomplexobj(part) else (part,):
            most = float(abs(real[lower]).max(initial=0))
            largest = max(largest, most) if most == most else most
        if largest != largest:
            break
    largest = a.grid.comm.allreduce(np.inf if largest != largest else largest, MPI.MAX)
    if not np.isfinite(largest):
        raise BadInput(f"{a} has elements that are not finite: eigh needs finite ones")
    kind = np.finfo(a.local.real.dtype)
    least = float(np.sqrt(kind.tiny / (kind.eps / 2)))
    if 0 < largest < least:
        return least / largest
    if largest > 1 / least:
        return 1 / least / largest
    return 1.0
