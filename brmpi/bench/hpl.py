"""``make hpl``: the reference HPL, of HPC Challenge's ``hpcc``, over a hostfile, sized by the probes.

It is held against what the nodes do of DGEMM, summed over their probes, and against what each does of HPL alone, which
``--single`` measures and keeps in ``hostfiles/hpl/``.
"""

import sys
import uuid
from pathlib import Path

from brmpi import speeds
from brmpi.arguments import Parser
from brmpi.bench import hpcc
from brmpi.bench.hplnodes import alone, memory, named, per_rank, probe_of, rate, record, remember, told
from brmpi.cluster import inventory, launch
from brmpi.cluster.job import Job, users_file
from brmpi.errors import BadInput, Fault
from brmpi.linalg import sizing

REST = 600.0  # s, that hpcc's other tests may take at the least
PATIENCE = 10.0  # times the expected seconds of HPL, until hpcc is ended
UNKNOWN = 1e9  # flop/s of a rank, for the limit of time alone, where no probe tells


def chosen(hosts, probes, options):
    """The problem: as asked for, and the rest by the probes.

    Parameters
    ----------
    hosts : sequence of Host
    probes : dict, node name: probe
    options : Namespace, of ``parser``

    Returns
    -------
    Problem

    Raises
    ------
    BadInput : it cannot be solved there, or a probe is needed that there is not
    """
    ranks = sum(host.slots for host in hosts)
    return sizing.problem(ranks, per_rank(hosts, probes, memory), per_rank(hosts, probes, rate), n=options.n,
                          nb=options.nb, grid=sizing.grid_of(options.grid, ranks) if options.grid else None,
                          fraction=options.memory,
                          seconds=sizing.seconds_of(options.time_budget) if options.time_budget else None)


def patience(problem, rates):
    """How long hpcc may take: HPL as expected, and the rest, with much to spare.

    Parameters
    ----------
    problem : Problem
    rates : (ranks,) float [flop/s], or None where not known

    Returns
    -------
    float [s]
    """
    rate = sizing.together(rates or [UNKNOWN] * (problem.p * problem.q))
    return REST + PATIENCE * sizing.flops(problem.n) / (sizing.EFFICIENCY * rate)


def job_on(hosts, known, probes):
    """hpcc on hosts, one rank a slot, each with one thread.

    Parameters
    ----------
    hosts : sequence of Host
    known : inventory.Inventory
    probes : dict, node name: probe

    Returns
    -------
    Job
    """
    facts = [probe_of(host, probes) for host in hosts]
    shared = any(launch.held(host, {host.name: known_of}) for host, known_of in zip(hosts, facts))
    free = not shared and all(known_of.get("cores") for known_of in facts)
    return Job(tuple(hosts), ("hpcc",), network=known.network, bind="core" if free else "none", threads=1,
               crowded=shared, ssh=users_file(known), id=uuid.uuid4().hex[:12])


def efficiencies(hosts, probes, gflops):
    """What a result is of the nodes' sums, in words.

    Parameters
    ----------
    hosts : sequence of Host
    probes : dict, node name: probe
    gflops : float, of all together

    Returns
    -------
    list of str, a line each
    """
    rates = per_rank(hosts, probes, rate)
    if rates is None:
        unknown = told(host for host in hosts if rate(host, probes) is None)
        lines = [f"of the summed peak: not known, for lack of the speed of {unknown}: run brmpi probe"]
    else:
        peak = 1e-9 * sum(rates)
        lines = [f"{100 * gflops / peak:.1f} % of the summed peak, {peak:.4g} GFLOP/s: DGEMM of every node, from the "
                 "probes"]
    lack = [host for host in hosts if alone(host) is None]
    if lack:
        return [*lines, f"of the summed single-node results: not known, for lack of {told(lack)}: "
                        "python -m brmpi.bench.hpl --single measures each node"]
    summed = sum(map(alone, hosts))
    return [*lines, f"{100 * gflops / summed:.1f} % of the summed single-node results, {summed:.4g} GFLOP/s: "
                    "hpcc's HPL on each node alone"]


def measure(hosts, known, probes, options):
    """Solve one problem on hosts, and print it in HPL's format.

    Parameters
    ----------
    hosts : sequence of Host
    known : inventory.Inventory
    probes : dict, node name: probe
    options : Namespace, of ``parser``

    Returns
    -------
    hpcc.Result

    Raises
    ------
    BadInput : the problem cannot be solved there
    Fault : hpcc failed, or the residual is too large
    """
    problem, rates = chosen(hosts, probes, options), per_rank(hosts, probes, rate)
    job = job_on(hosts, known, probes)
    limit = sizing.seconds_of(options.timeout, "--timeout") if options.timeout else patience(problem, rates)
    where = ", ".join(f"{host.name or host.address} ({host.slots})" for host in hosts)
    expected = "" if rates is None else f", about {_lasts(problem, rates)} and hpcc's other tests"
    print(f"HPL, {hpcc.told(problem)}, on {where}{expected}", flush=True)
    result = hpcc.run(job, problem, limit, options.folder, options.template)
    print(hpcc.HEADER, result.line, "-" * 80, result.check, "=" * 80, sep="\n")
    return result


def _lasts(problem, rates):
    seconds = sizing.flops(problem.n) / (sizing.EFFICIENCY * sizing.together(rates))
    return f"{seconds:.2g} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def parser():
    """Options of the program.

    Returns
    -------
    Parser
    """
    made = Parser(prog="python -m brmpi.bench.hpl", description="The reference HPL, hpcc's, over a hostfile.")
    made.add_argument("--n", metavar="N", type=int, help="equations (as many as memory or time allow)")
    made.add_argument("--nb", metavar="NB", type=int, help=f"size of blocks ({sizing.BLOCK}, less if N is small)")
    made.add_argument("--grid", metavar="PxQ", help="of ranks (as square as can be, P <= Q)")
    made.add_argument("--memory", metavar="FRACTION", type=float, default=sizing.FRACTION,
                      help=f"of the poorest rank's memory that its part of the matrix may fill ({sizing.FRACTION})")
    made.add_argument("--time-budget", metavar="TIME", help="for HPL itself, such as 90s, 5m, 1h: limits N")
    made.add_argument("--hostfile", metavar="FILE", help="where to run (hostfiles/all)")
    made.add_argument("--on", metavar="NAMES", help="nodes, roles or hostfiles, with commas between, instead")
    made.add_argument("--single", action="store_true", help="each node alone, in turn; kept in hostfiles/hpl/")
    made.add_argument("--timeout", metavar="TIME", help="end hpcc after so long (10 times HPL as expected, and 10m)")
    made.add_argument("--template", metavar="FILE", type=Path, default=hpcc.TEMPLATE, help=f"({hpcc.TEMPLATE})")
    made.add_argument("--folder", metavar="DIR", type=Path, default=hpcc.FOLDER,
                      help=f"for hpcc's input and output; rank 0 must see it ({hpcc.FOLDER})")
    return made


def main(argv=None):
    """Run it, or each node alone.

    Parameters
    ----------
    argv : list of str, instead of the process's own arguments

    Returns
    -------
    int, exit code 0

    Raises
    ------
    BadInput : a mistake on the command line, no hostfile, no hpcc, or a problem that cannot be solved there
    Fault : hpcc failed, or the residual is too large
    """
    options = parser().parse_args(argv)
    if options.hostfile and options.on:
        raise BadInput(f"--on = {options.on!r}: says where to run, and so does --hostfile = {options.hostfile!r}: give "
                       "one of them")
    folder = speeds.folder()
    known, probes = inventory.load(folder), speeds.read(folder)
    hosts = (launch.hosts_on(options.on, known, folder) if options.on else
             named(options.hostfile or folder / "all", known))
    groups = [[host] for host in hosts] if options.single else [hosts]
    for group in groups:
        hpcc.contents(chosen(group, probes, options), options.template)  # what is wrong is said before work starts
    hpcc.demand(hosts)
    if options.single:
        for host in hosts:
            result = measure([host], known, probes, options)
            remember(host, result)
            print(f"{record(host)}: {result.gflops:.4g} GFLOP/s", flush=True)
        return 0
    result = measure(hosts, known, probes, options)
    print(f"{result.gflops:.4g} GFLOP/s", *efficiencies(hosts, probes, result.gflops), sep="\n  ")
    return 0


def ended(work, name):
    """Do the work, and say in one sentence why it cannot be done.

    Parameters
    ----------
    work : function of nothing, that returns an exit code
    name : str, of the program

    Returns
    -------
    int, exit code: that of the work, 1 after a fault, 2 for bad input
    """
    try:
        return work()
    except (BadInput, Fault) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2 if isinstance(error, BadInput) else 1


if __name__ == "__main__":
    sys.exit(ended(main, "hpl"))
