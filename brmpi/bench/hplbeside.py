"""``make bench-hpl``: brmpi's LU beside the reference HPL, in turns, on the same problem, ranks and BLAS.

Both are bound to cores alike, one thread a rank. The ratio is of rates as each counts them, and both count alike.
"""

import contextlib
import os
import signal
import subprocess
import sys
import uuid
from dataclasses import replace
from pathlib import Path

from brmpi.arguments import Parser
from brmpi.bench import hpcc, report
from brmpi.bench.hpl import ended
from brmpi.cluster import mpirun
from brmpi.cluster.job import Host, Job
from brmpi.errors import BadInput, Fault
from brmpi.linalg import sizing
from brmpi.linalg.sizing import Problem

BAR = 0.95  # of the ratio
N, NB, GRID, REPEATS = 8000, 128, "1x2", 5
HERE = "localhost"


def job_here(ranks, program):
    """A job on this machine, one thread a rank.

    Parameters
    ----------
    ranks : int
    program : sequence of str

    Returns
    -------
    Job
    """
    crowded = ranks > len(os.sched_getaffinity(0))
    return Job((Host(HERE, ranks),), tuple(program), ranks, bind="none" if crowded else "core", threads=1,
               crowded=crowded, id=uuid.uuid4().hex[:12])


def ours(problem, timeout):
    """Solve a problem by ``python -m brmpi.linalg.hpl``, with equal shares.

    Parameters
    ----------
    problem : Problem
    timeout : float, limit of time [s]

    Returns
    -------
    hpcc.Result

    Raises
    ------
    Fault : it failed, or did not come to its end in time, or its residual is too large
    """
    asked = {"n": problem.n, "nb": problem.nb, "grid": f"{problem.p}x{problem.q}", "shares": "equal", "repeats": 1}
    words = [word for name, value in asked.items() for word in (f"--{name}", str(value))]
    mpi, job = mpirun.installed(), job_here(problem.p * problem.q, ("python", "-m", "brmpi.linalg.hpl", *words))
    job = replace(job, id="")  # nothing to find it by is needed
    env = {**os.environ, **mpi.environment(job)}
    process = subprocess.Popen(mpi.command(job), env={name: value for name, value in env.items() if value is not None},
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        said, wrong = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        raise Fault(f"brmpi.linalg.hpl was not done with N = {problem.n} after {timeout:.0f} s") from None
    finally:
        _end(process)
    if process.returncode:
        last = [line for line in (wrong or said).splitlines() if line.strip()]
        raise Fault(f"brmpi.linalg.hpl ended with exit code {process.returncode}" + (f": {last[0]}" if last else ""))
    result = hpcc.parse(said)[-1]
    if result.problem != problem:
        raise Fault(f"brmpi.linalg.hpl solved {hpcc.told(result.problem)} instead of {hpcc.told(problem)}")
    return result


def _end(process):
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)  # mpirun ends its ranks
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=5)
        process.kill()
        process.wait()


def libraries():
    """The BLAS of each, and what to say of that.

    Returns
    -------
    files : dict, "hpcc" and "brmpi": path or None
    verdict : str
    """
    files = {"hpcc": hpcc.blas(), "brmpi": hpcc.blas_of_scipy()}
    if None in files.values():
        return files, "whether both use the same BLAS cannot be told: " + _named(files)
    if files["hpcc"] == files["brmpi"]:
        return files, f"both use the same BLAS, {files['hpcc']}"
    return files, f"the BLAS differ, so the ratio is of libraries too: {_named(files)}"


def _named(files):
    return ", ".join(f"{name} {file or 'unknown'}" for name, file in files.items())


def missed(row):
    """What is not as it must be.

    Parameters
    ----------
    row : dict, from ``report.row``

    Returns
    -------
    str, empty if all is well
    """
    if row["ratio"] >= BAR:
        return ""
    return f"{row['what']}, N = {row['size']}, on {row['ranks']} ranks: {row['ratio']:.3f} of hpl, must be >= {BAR}"


def parser():
    """Options of the program.

    Returns
    -------
    Parser
    """
    made = Parser(prog="python -m brmpi.bench.hplbeside", description="brmpi's LU beside the reference HPL, in turns.")
    made.add_argument("--n", metavar="N", type=int, default=N, help=f"equations ({N})")
    made.add_argument("--nb", metavar="NB", type=int, default=NB, help=f"size of blocks ({NB})")
    made.add_argument("--grid", metavar="PxQ", default=GRID, help=f"of ranks on this machine ({GRID})")
    made.add_argument("--repeats", metavar="K", type=int, default=REPEATS, help=f"of each ({REPEATS})")
    made.add_argument("--timeout", metavar="TIME", default="10m", help="limit of each run (10m)")
    made.add_argument("--template", metavar="FILE", type=Path, default=hpcc.TEMPLATE, help=f"({hpcc.TEMPLATE})")
    made.add_argument("--folder", metavar="DIR", type=Path, default=hpcc.FOLDER,
                      help=f"for hpcc's input and output ({hpcc.FOLDER})")
    return made


def asked(options):
    """The problem that is asked for.

    Parameters
    ----------
    options : Namespace, of ``parser``

    Returns
    -------
    Problem

    Raises
    ------
    BadInput : an option is out of range
    """
    p, _, q = options.grid.lower().partition("x")
    if not (p.isdigit() and q.isdigit() and int(p) * int(q)):
        raise BadInput(f"--grid = {options.grid!r}: must be P x Q, such as {GRID}")
    if options.repeats < 2:
        raise BadInput(f"--repeats = {options.repeats}: must be >= 2, for a spread")
    return sizing.problem(int(p) * int(q), n=options.n, nb=options.nb, grid=(int(p), int(q)))


def main(argv=None):
    """Measure, print, and where all is as it is by default, publish.

    Parameters
    ----------
    argv : list of str, instead of the process's own arguments

    Returns
    -------
    int, exit code: 1 where brmpi is slower than it may be

    Raises
    ------
    BadInput : a mistake on the command line, or no hpcc
    Fault : one of both failed, or a residual is too large
    """
    options = parser().parse_args(argv)
    problem, timeout = asked(options), sizing.seconds_of(options.timeout, "--timeout")
    hpcc.contents(problem, options.template)
    ranks = problem.p * problem.q
    hpcc.demand([Host(HERE, ranks)])
    files, verdict = libraries()
    print(f"bench-hpl: {hpcc.told(problem)}, {options.repeats} of each in turns; {verdict}", flush=True)
    print(f"{hpcc.HEADER}", flush=True)
    found = {"hpl": [], "brmpi": []}
    for _ in range(options.repeats):
        found["hpl"].append(hpcc.run(job_here(ranks, ("hpcc",)), problem, timeout, options.folder, options.template))
        found["brmpi"].append(ours(problem, timeout))
        for name, results in found.items():
            print(f"{results[-1].line}  {name}\n{results[-1].check}", flush=True)
    rates = {name: [result.gflops for result in results] for name, results in found.items()}
    row = report.row("lu equal blas", problem.n, ranks, rates["brmpi"], "GFLOP/s", "hpl", rates["hpl"])
    if (problem, options.repeats >= REPEATS) == (Problem(N, NB, 1, 2), True):
        residuals = {name: max(result.residual for result in results) for name, results in found.items()}
        report.publish("hpl", [row], problem=vars(problem), blas=files, residuals=residuals, rates=rates)
    print(f"brmpi {row['value']:.4g} GFLOP/s, hpl {row['reference']:.4g} GFLOP/s: ratio {row['ratio']:.3f}, "
          f"spread {100 * row['spread']:.1f} %")
    wrong = missed(row)
    if wrong:
        print(f"bench-hpl: {wrong}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(ended(main, "bench-hpl"))
