"""Dense linear algebra on matrices shared out over ranks by their speeds.

A ``ProcessGrid`` of ranks carries ``BlockCyclic`` matrices; functions are named as in NumPy, SciPy and BLAS. A
function may have the name of its module: ``brmpi.linalg.lu`` is the function, also after an import of the module.
"""

from brmpi.linalg.axis import Axis
from brmpi.linalg.cholesky import cholesky, cholesky_solve
from brmpi.linalg.eigen import eigh
from brmpi.linalg.failures import Mismatch, NoConvergence, NotEnoughMemory, NotPositiveDefinite, Singular
from brmpi.linalg.files import from_hdf5, to_hdf5
from brmpi.linalg.lstsq import LeastSquares, lstsq
from brmpi.linalg.lu import LU, lu
from brmpi.linalg.matrix import BlockCyclic
from brmpi.linalg.norms import norm, trace
from brmpi.linalg.polar import polar
from brmpi.linalg.processgrid import ProcessGrid
from brmpi.linalg.product import matmul, syrk
from brmpi.linalg.qr import QR, qr
from brmpi.linalg.redistribute import redistribute, transpose
from brmpi.linalg.solve import cond, det, inv, slogdet, solve
from brmpi.linalg.svd import svd, svd_few
from brmpi.linalg.tall import tsqr
from brmpi.linalg.triangular import trmm, trsm

__all__ = ["LU", "QR", "Axis", "BlockCyclic", "LeastSquares", "Mismatch", "NoConvergence", "NotEnoughMemory",
           "NotPositiveDefinite", "ProcessGrid", "Singular", "cholesky", "cholesky_solve", "cond", "det", "eigh",
           "from_hdf5", "inv", "lstsq", "lu", "matmul", "norm", "polar", "qr", "redistribute", "slogdet", "solve",
           "svd", "svd_few", "syrk", "to_hdf5", "trace", "transpose", "trmm", "trsm", "tsqr"]
