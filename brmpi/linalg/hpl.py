"""HPL's problem by brmpi's own LU: ``mpirun -hostfile hostfiles/all python -m brmpi.linalg.hpl``.

A random system of N equations in float64 is solved by LU with partial pivoting, timed, and its residual tested, by
the rules of HPL: the time is that of factorization and solution on the slowest rank, the rate (2/3 N**3 + 3/2 N**2)
over it, and the solution passes with a scaled residual below 16. Each column of the grid gets its share of the
matrix by its speed, as nodes were probed (``--shares equal`` deals out evenly, as HPL does).
"""

import argparse
import sys
import time

import numpy as np

from brmpi import mpi, speeds
from brmpi.arguments import Parser
from brmpi.errors import BadInput
from brmpi.linalg import hplproblem, pace, sizing
from brmpi.linalg.lu import LOOKAHEAD, factor
from brmpi.linalg.memory import available
from brmpi.linalg.processgrid import ProcessGrid

BUDGET = "1m"
RULE = "=" * 80
THIN = "-" * 80


def solve(grid, n, nb, lookahead=LOOKAHEAD):
    """Solve HPL's problem once. Collective.

    Parameters
    ----------
    grid : ProcessGrid
    n, nb : int
    lookahead : int >= 1

    Returns
    -------
    seconds : float, of the slowest rank [s]
    residual : float, as HPL scales it

    Raises
    ------
    NotEnoughMemory
    """
    from mpi4py import MPI

    matrix = hplproblem.generate(grid, n, nb)
    grid.comm.Barrier()
    start = time.perf_counter()
    x = hplproblem.substitute(factor(matrix, lookahead))
    spent = grid.comm.allreduce(time.perf_counter() - start, MPI.MAX)
    del matrix
    return spent, hplproblem.residual(grid, x, nb)


def main(comm, argv=None):
    """Solve and print as HPL does. Collective.

    Parameters
    ----------
    comm : communicator
    argv : list of str, instead of the process's own arguments

    Returns
    -------
    int, exit code: 0, or 1 where a residual is too large

    Raises
    ------
    BadInput : on every rank alike, for what cannot be: a mistake on the command line, too little memory
    """
    options = _parser().parse_args(argv)
    if not 1 <= options.lookahead <= 64:
        raise BadInput(f"--lookahead = {options.lookahead}: must be from 1 to 64")
    if not 1 <= options.repeats <= 1000:
        raise BadInput(f"--repeats = {options.repeats}: must be from 1 to 1000")
    shape = options.grid and sizing.grid_of(options.grid, comm.size)
    by = speeds.speeds(comm, "compute") if options.shares == "speed" else None
    grid = ProcessGrid(comm, shape, by)
    rates, handling = pace.pace(comm)
    problem = _problem(grid, options, rates)
    if by is not None and comm.size > 1:  # what messages cost is known with N
        shape = grid.shape
        grid.free()
        sent = 4 * problem.n**2 * (1 / shape[0] + (1 / shape[1] if shape[0] > 1 else 0))
        grid = ProcessGrid(comm, shape, pace.shares(by, rates, handling, sizing.flops(problem.n), sent))
    if comm.rank == 0:
        mpi.say(_heading(grid, problem, options))
    failed = 0
    for _ in range(options.repeats):
        seconds, residual = solve(grid, problem.n, problem.nb, options.lookahead)
        passed = residual < hplproblem.PASSED
        failed += not passed
        if comm.rank == 0:
            order = "R" if by is None else "C"
            mpi.say(f"W{order}{options.lookahead % 10}0R2R8{problem.n:>12d} {problem.nb:5d} {problem.p:5d} "
                    f"{problem.q:5d} {seconds:18.2f} {sizing.flops(problem.n) / seconds / 1e9:22.4e}\n{THIN}\n"
                    f"||Ax-b||_oo/(eps*(||A||_oo*||x||_oo+||b||_oo)*N)= {residual:15.8f} ...... "
                    f"{'PASSED' if passed else 'FAILED'}\n{THIN}")
    grid.free()
    return 1 if failed else 0


def _problem(grid, options, rates):
    """What is to be solved."""
    comm = grid.comm
    here = grid.memory.nodes.count(grid.memory.nodes[comm.rank])
    left = comm.allgather(available())
    memory = None if None in left else np.array(comm.allgather(left[comm.rank] / here))
    shares = np.empty(comm.size)
    shares[grid.ranks] = grid.row_weights[:, None] * grid.col_weights
    chosen = {"n": options.n, "nb": options.nb, "grid": grid.shape, "shares": shares, "memory": memory}
    if options.memory is not None:
        if memory is None:
            raise BadInput(f"--memory = {options.memory:g}: this system does not tell what is free: give --n")
        chosen["fraction"] = options.memory
    if options.time_budget or (options.n is None and options.memory is None):
        chosen["seconds"] = sizing.seconds_of(options.time_budget or BUDGET)
        chosen["rates"] = rates
    return comm.bcast(sizing.problem(comm.size, **chosen))


def _heading(grid, problem, options):
    weights = "" if options.shares == "equal" else (
        "\nshares of columns: " + ", ".join(f"{100 * w / grid.col_weights.sum():.1f} %" for w in grid.col_weights)
        + "; of rows: " + ", ".join(f"{100 * w / grid.row_weights.sum():.1f} %" for w in grid.row_weights))
    return (f"{RULE}\nbrmpi LU: N = {problem.n}, NB = {problem.nb}, {problem.p} x {problem.q} ranks, look-ahead "
            f"{options.lookahead}, {8e-9 * problem.n * (problem.n + 1):.3g} GB{weights}\n{RULE}\n"
            f"T/V                N    NB     P     Q               Time                 Gflops\n{THIN}")


def _parser():
    parser = Parser(prog="python -m brmpi.linalg.hpl", description=__doc__.partition("\n\n")[2],
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, metavar="N", help="equations")
    parser.add_argument("--nb", type=int, metavar="NB", help=f"rows and columns of a block ({sizing.BLOCK})")
    parser.add_argument("--grid", metavar="PxQ", help="of ranks; chosen by their speeds")
    parser.add_argument("--memory", type=float, metavar="FRACTION", help="N as large as this part of memory allows")
    parser.add_argument("--time-budget", metavar="TIME",
                        help=f"N as large as this time allows, such as 90s, 5m or 1h ({BUDGET})")
    parser.add_argument("--shares", choices=("speed", "equal"), default="speed", help="of the matrix (speed)")
    parser.add_argument("--lookahead", type=int, default=LOOKAHEAD, metavar="D",
                        help=f"panels that are factored ahead ({LOOKAHEAD})")
    parser.add_argument("--repeats", type=int, default=1, metavar="K", help="solve the problem so many times (1)")
    return parser


if __name__ == "__main__":
    if {"-h", "--help"}.isdisjoint(sys.argv[1:]):
        mpi.run(main)
    else:
        _parser().print_help()
