"""The operator div(k grad u) of a grid as a sparse matrix shared out over the ranks, and equations with it by PETSc.

A face's conductivity is the harmonic mean of its two cells', as in ``kernels.stencil.conduct``. Unknowns are numbered
block by block, in the order of ranks.
"""

import numpy as np

from brmpi import partition
from brmpi.errors import BadInput, Fault

INSTALL = "apt-get install python3-petsc4py petsc-dev, or pip install petsc4py"


def petsc():
    """The PETSc module, which leaves signals alone: a program stops by them, and a closed pipe is no crash.

    Raises
    ------
    BadInput : petsc4py is not installed
    """
    try:
        import petsc4py

        petsc4py.init(["brmpi", "-no_signal_handler"])
        from petsc4py import PETSc
    except ImportError as error:
        raise BadInput(f"this needs petsc4py, which cannot be loaded ({error}): {INSTALL}") from None
    return PETSc


def operator(grid, k, ends, values, spacing):
    """Rows of div(k grad u) of this rank's cells, and what the ends add. Collective.

    Parameters
    ----------
    grid : Grid with a halo of 1
    k : float, or array as from ``grid.zeros`` with its halo filled, conductivity
    ends : tuple of str, for each axis "periodic", "dirichlet" or "neumann"
    values : tuple of (low, high), u or its derivative along the axis at both ends
    spacing : tuple of float

    Returns
    -------
    matrix : scipy.sparse.csr_matrix (cells here, all cells)
    constant : (cells here,) float64
    """
    from scipy import sparse

    halo = grid.halo
    cells = np.array([np.prod([end - first for first, end in box]) for box in grid.boxes])
    start, mine = partition.offsets(cells)[grid.comm.rank], int(cells[grid.comm.rank])
    number = grid.zeros(dtype=np.int64) - 1
    grid.inside(number)[:] = start + np.arange(mine).reshape(grid.sides)
    grid.halos(number)(number)
    k = np.broadcast_to(np.float64(k), number.shape) if np.ndim(k) == 0 else k
    inner = tuple(slice(halo, halo + side) for side in grid.sides)
    rows, columns, entries = [], [], []
    diagonal, constant = np.zeros(grid.sides), np.zeros(grid.sides)
    for axis, (kind, pair, dx) in enumerate(zip(ends, values, spacing)):
        for step, value in zip((-1, 1), pair):
            there = (*inner[:axis], slice(halo + step, halo + step + grid.sides[axis]), *inner[axis + 1 :])
            both = k[inner] + k[there]
            face = 2 * k[inner] * k[there] / np.where(both != 0, both, 1) / dx**2
            outside = number[there] < 0
            rows.append(number[inner][~outside] - start)
            columns.append(number[there][~outside])
            entries.append(face[~outside])
            wall = k[inner] / dx**2
            if kind == "dirichlet":
                diagonal -= np.where(outside, 2 * wall, face)
                constant += np.where(outside, 2 * wall * value, 0)
            else:
                diagonal -= np.where(outside, 0, face)
                constant += np.where(outside, wall * step * dx * value, 0)
    rows.append(np.arange(mine))
    columns.append(start + np.arange(mine))
    entries.append(diagonal.ravel())
    parts = (np.concatenate([np.ravel(part) for part in parts]) for parts in (entries, rows, columns))
    data, row, column = parts
    matrix = sparse.csr_matrix((data, (row, column)), shape=(mine, int(cells.sum())))
    matrix.sum_duplicates()  # where an axis is so short that both neighbours are one cell
    return matrix, constant.ravel()


class Equations:
    """Equations A x = b, A symmetric and positive definite, by conjugate gradients and algebraic multigrid. Collective.

    Parameters
    ----------
    comm : communicator
    matrix : scipy.sparse.csr_matrix (rows here, all rows)
    tolerance : float, relative residual
    multigrid : "gamg", or "hypre" where PETSc has it
    floating : bool, whether A takes constants to 0 (b must add up to 0 then)

    Raises
    ------
    BadInput : petsc4py is not installed, or its PETSc has no hypre
    """

    def __init__(self, comm, matrix, tolerance, multigrid="gamg", floating=False):
        lib = petsc()
        here, whole = matrix.shape
        size = ((here, whole), (here, whole))
        csr = tuple(part.astype(lib.IntType) for part in (matrix.indptr, matrix.indices))
        self.matrix = lib.Mat().createAIJ(size, csr=(*csr, matrix.data), comm=comm)
        if floating:
            self.matrix.setNullSpace(lib.NullSpace().create(constant=True, comm=comm))
        self.x, self.b = self.matrix.createVecs()
        self.iterations = 0
        self.solver = lib.KSP().create(comm)
        self.solver.setOperators(self.matrix)
        self.solver.setType("cg")
        try:
            self.solver.getPC().setType(multigrid)
        except lib.Error:
            raise BadInput(f"solver = {multigrid!r}: PETSc here was built without it: gamg always works") from None
        self.solver.setTolerances(rtol=tolerance, atol=0, max_it=1000)
        self.solver.setNormType(lib.KSP.NormType.UNPRECONDITIONED)
        self.solver.setInitialGuessNonzero(True)

    def solve(self, b, x):
        """Solve for one right side. Collective.

        Parameters
        ----------
        b : (rows here,) float64
        x : (rows here,) float64, a first guess

        Returns
        -------
        (rows here,) float64

        Raises
        ------
        Fault : on every rank alike, if it does not converge
        """
        self.b.array[:], self.x.array[:] = b, x
        self.solver.solve(self.b, self.x)
        self.iterations = self.solver.getIterationNumber()
        reason = self.solver.getConvergedReason()
        if reason < 0:
            raise Fault(f"the equations were not solved in {self.iterations} iterations (PETSc's "
                        f"reason {reason}): a smaller dt or a larger tolerance may help")
        return self.x.array.copy()

    def times(self, x):
        """A x. Collective.

        Parameters
        ----------
        x : (rows here,) float64

        Returns
        -------
        (rows here,) float64
        """
        self.x.array[:] = x
        self.matrix.mult(self.x, self.b)
        return self.b.array.copy()
