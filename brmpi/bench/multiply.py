"""A product of two square matrices, timed: ``mpirun -hostfile hostfiles/all python -m brmpi.bench.multiply``."""

import sys
import time

import numpy as np

from brmpi import mpi, speeds
from brmpi.arguments import Parser
from brmpi.errors import BadInput
from brmpi.linalg import pace, sizing
from brmpi.linalg.matrix import BlockCyclic
from brmpi.linalg.processgrid import ProcessGrid
from brmpi.linalg.product import matmul


def rate(grid, n, nb):
    """Multiply once. Collective.

    Parameters
    ----------
    grid : ProcessGrid
    n, nb : int

    Returns
    -------
    float [flop/s], of all ranks together by the slowest one's time
    """
    from mpi4py import MPI

    a = BlockCyclic.from_function(grid, (n, n), lambda i, j: np.cos(i - 2 * j), nb=nb)
    b = BlockCyclic.from_function(grid, (n, n), lambda i, j: np.sin(i + j), nb=nb)
    c = a.like()
    grid.comm.Barrier()
    start = time.perf_counter()
    matmul(a, b, c)
    return 2 * n**3 / grid.comm.allreduce(time.perf_counter() - start, MPI.MAX)


def main(comm, argv=None):
    """Multiply and print. Collective.

    Parameters
    ----------
    comm : communicator
    argv : list of str, instead of the process's own arguments

    Returns
    -------
    int, exit code 0

    Raises
    ------
    BadInput : on every rank alike, for a mistake on the command line or too little memory
    """
    options = _parser().parse_args(argv)
    for key, most in (("n", sizing.MOST), ("nb", sizing.MOST), ("repeats", 1000)):
        if not 1 <= getattr(options, key) <= most:
            raise BadInput(f"--{key} = {getattr(options, key)}: must be >= 1 and at most {most}")
    shape = options.grid and sizing.grid_of(options.grid, comm.size)
    by = None
    if options.shares == "speed":
        by = speeds.speeds(comm, "compute")
        by = pace.shares(by, *pace.pace(comm), 2 * options.n**3, 8 * options.n**2)
    grid = ProcessGrid(comm, shape, by)
    for _ in range(options.repeats):
        found = rate(grid, options.n, options.nb)
        if comm.rank == 0:
            mpi.say(f"matmul: n = {options.n}, nb = {options.nb}, {grid.P} x {grid.Q} ranks, {found / 1e9:.4g} GFLOP/s")
    grid.free()
    return 0


def _parser():
    parser = Parser(prog="python -m brmpi.bench.multiply", description=__doc__.partition(":")[0] + ".")
    parser.add_argument("--n", type=int, default=2048, metavar="N", help="rows and columns (2048)")
    parser.add_argument("--nb", type=int, default=sizing.BLOCK, metavar="NB", help=f"of a block ({sizing.BLOCK})")
    parser.add_argument("--grid", metavar="PxQ", help="of ranks; chosen by their speeds")
    parser.add_argument("--shares", choices=("speed", "equal"), default="speed", help="of the matrices (speed)")
    parser.add_argument("--repeats", type=int, default=1, metavar="K", help="multiply so many times (1)")
    return parser


if __name__ == "__main__":
    if {"-h", "--help"}.isdisjoint(sys.argv[1:]):
        mpi.run(main)
    else:
        _parser().print_help()
