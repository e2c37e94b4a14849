"""``brmpi run``: mpirun, with what small clusters need, a clear word on failure, and a new start on the nodes left."""

import argparse
import difflib
import importlib.util
import json
import os
import re
import shlex
import shutil
import sys
import time
import uuid
from dataclasses import replace
from pathlib import Path

from brmpi import speeds
from brmpi.arguments import Parser, apart
from brmpi.cluster import attempt, inventory, mpirun
from brmpi.cluster.job import Host, Job, users_file, without
from brmpi.errors import BadInput, Fault

PACKAGES = ("brmpi.sims", "brmpi.montecarlo", "brmpi.train", "brmpi.linalg", "brmpi.bench")
STOPPED, BAD = 75, 2  # exit codes that are no reason to try again


def main(argv):
    """``brmpi run``: returns the job's exit code; 124 where ``--timeout`` ended it.

    Parameters
    ----------
    argv : list of str

    Raises
    ------
    BadInput : a mistake on the command line or in the inventory, no such program, node or MPI
    Fault : mpirun cannot be started
    """
    args = _parser().parse_args(argv)
    mpi, job, module = planned(args, uuid.uuid4().hex[:12])
    if args.dry_run:
        print(shown(mpi, job))
        return 0
    for retry in range(args.retries + 1):
        outcome, lost = tried(mpi, job, args.timeout, module)
        if not outcome.code:
            return 0
        if outcome.code in (STOPPED, BAD) or outcome.stopped or outcome.late or retry == args.retries:
            return outcome.code
        if lost >= {host.address for host in job.hosts}:
            return outcome.code  # no node is left to go on
        job = _again(job, lost, args, module)
        print(f"brmpi run: retry {retry + 1} of {args.retries}, {job.count} ranks on {len(job.hosts)} nodes",
              file=sys.stderr)
    return outcome.code


def options(words):
    """The command line of ``brmpi run``.

    Parameters
    ----------
    words : list of str

    Returns
    -------
    namespace

    Raises
    ------
    BadInput : a mistake on it
    """
    return _parser().parse_args(words)


def planned(args, id, hosts=None):
    """What mpirun is to start.

    Parameters
    ----------
    args : from ``options``
    id : str, by which the job's processes are found
    hosts : tuple of Host, where it runs; by ``--on`` if None

    Returns
    -------
    mpi : one of ``mpirun``'s classes
    job : Job
    module : str or None, the module that its program is

    Raises
    ------
    BadInput : a mistake in the inventory, no such program, node or MPI
    """
    known = inventory.load(args.hostfiles, args.inventory)
    program, module = resolve(args.program)
    mpi = mpirun.installed()
    hosts = hosts or hosts_on(args.on, known, args.hostfiles)
    hosts = tuple(sorted(hosts, key=lambda host: not inventory.is_local(host)))  # rank 0, which writes, comes here
    probes = _probes(args.hostfiles)
    job = Job(hosts, tuple(program), args.n, known.network, threads=args.threads, id=id,
              crowded=any(held(host, probes) for host in hosts), ssh=users_file(known),
              tagged=mpi.tag is not None and (mpi.prompt or not sys.stdout.isatty()))
    return mpi, replace(job, bind=args.bind_to or _binding(job, probes)), module


def tried(mpi, job, timeout, module):
    """One run of mpirun, after which nothing of it is left on hosts that answer; says why it failed, if it did.

    Parameters
    ----------
    mpi, job : from ``planned``
    timeout : float, limit of time [s], or None
    module : from ``planned``

    Returns
    -------
    outcome : attempt.Outcome
    lost : set of str, addresses of hosts that do not answer

    Raises
    ------
    Fault : mpirun cannot be started
    """
    outcome = _once(mpi, job, timeout, module)
    ended, lost = attempt.clean(job) if outcome.code else ({}, set())
    if not outcome.code and not mpi.trusted and job.is_remote:  # a node may have gone, and the exit code hides it
        lost = {host.address for host in job.hosts} - attempt.alive(job.hosts)
        if lost or mpi.failure(job, outcome.said):
            outcome.code = 255
            ended, lost = attempt.clean(job)
    if outcome.code:
        _explain(mpi, job, outcome, ended, lost, module)
    else:
        outcome.screen.tell()
    return outcome, lost


def _once(mpi, job, timeout, module):
    command = mpi.command(job)
    typed = shlex.join(["brmpi", "run", *sys.argv[2:]])
    launch = json.dumps({"command": shown(mpi, job), "typed": typed, "job": job.id,
                         "hosts": {host.name or host.address: host.slots for host in job.hosts}})
    try:
        return attempt.run(mpi, job, command, launch, timeout, gentle=(module or "").startswith("brmpi."))
    except OSError as error:
        raise Fault(f"{error.filename or command[0]}: cannot be started: {error.strerror}") from error


def shown(mpi, job):
    """The exact command line as it could be typed, with the variables it needs.

    Parameters
    ----------
    mpi : one of ``mpirun``'s classes
    job : Job

    Returns
    -------
    str
    """
    job = replace(job, id="")
    variables = {name: value for name, value in mpi.environment(job).items() if name not in ("PATH", "BRMPI_JOB")}
    gone = [word for name, value in variables.items() if value is None and name in os.environ for word in ("-u", name)]
    kept = [f"{name}={value}" for name, value in variables.items() if value is not None]
    return shlex.join([*(["env"] if gone or kept else []), *gone, *kept, *mpi.command(job)])


def resolve(words):
    """What mpirun is to start.

    Parameters
    ----------
    words : list of str: a program of brmpi by name, a module, a Python file, or "--" and any program; its arguments

    Returns
    -------
    command : list of str
    module : str or None, the module that it is

    Raises
    ------
    BadInput : there is no such program
    """
    if words[:1] == ["--"]:
        if not words[1:]:
            raise BadInput("brmpi run --: name the program to run")
        if not (shutil.which(words[1]) or Path(words[1]).exists()):
            raise BadInput(f"{words[1]}: is not a program here")
        return words[1:], None
    name, *rest = words
    if "" not in sys.path:
        sys.path.insert(0, "")  # as it will be for python -m
    if name.endswith(".py") or "/" in name:
        if not Path(name).is_file():
            raise BadInput(f"{name}: there is no such file")
        return (["python", name, *rest] if name.endswith(".py") else words), None
    modules = [name] if "." in name else [*(f"{package}.{name}" for package in PACKAGES), name]
    for module in modules:
        if _is_module(module):
            return ["python", "-m", module, *rest], module
    known = programs()
    near = difflib.get_close_matches(name, known, 1)
    raise BadInput(f"{name!r} is no program of brmpi, module or file" + (f": did you mean {near[0]}?" if near else
                   f": known are {', '.join(known)}; after -- any program"))


def programs():
    """Programs of brmpi by name: modules that run when they are called.

    Returns
    -------
    list of str
    """
    packages = [importlib.util.find_spec(package) for package in PACKAGES[:-1] if _is_module(package)]
    found = []
    for place in (Path(place) for spec in packages for place in spec.submodule_search_locations):
        found += [file.stem for file in place.glob("*.py") if '\nif __name__ == "__main__":' in file.read_text()]
    return sorted(found)


def _is_module(name):
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return False
    return spec is not None and spec.origin is not None  # a mere folder has none


def hosts_on(on, known, folder):
    """The hosts that ``--on`` names.

    Parameters
    ----------
    on : str, names of hostfiles (nodes, roles, architectures) or nodes with commas between, or None for all; behind a
        node's name may stand ``:`` and its slots
    known : inventory.Inventory
    folder : path of the hostfiles

    Returns
    -------
    list of Host, each once

    Raises
    ------
    BadInput : no such hostfile or node, or a hostfile cannot be read
    """
    if on is None:
        if not Path(folder, "all").is_file():
            return [_host(node.address, _cores(node), known) for node in known.nodes]
        on = "all"
    found = {}
    for name in filter(None, (word.strip() for word in on.split(","))):
        name, colon, some = name.partition(":")
        if colon and not (some.isdecimal() and int(some) and name in [node.name for node in known.nodes]):
            raise BadInput(f"--on {name}:{some}: must be a node and its slots, such as octavia:4")
        file = Path(folder, name)
        if colon:
            lines = [(known.node(name).address, int(some))]
        elif "/" not in name and file.is_file() and file.suffix == "":
            lines = hostfile_lines(file)
        elif name in [node.name for node in known.nodes]:
            node = known.node(name)
            lines = [(node.address, _cores(node))]
        elif group := [node for node in known.nodes if name in ("all", *node.roles, node.architecture)]:
            lines = [(node.address, _cores(node)) for node in group]
        else:
            files = {file.name for file in Path(folder).glob("*") if file.is_file() and not file.suffix}
            names = {"all", *files, *(word for node in known.nodes for word in (node.name, *node.roles))}
            near = difflib.get_close_matches(name, sorted(names), 1)
            raise BadInput(f"--on {name}: is neither a node nor a hostfile in {folder}"
                           + (f": did you mean {near[0]}?" if near else f": known are {', '.join(sorted(names))}"))
        found |= {address: slots for address, slots in lines if address not in found}
    if not found:
        raise BadInput(f"--on {on}: names no node")
    return [_host(address, slots, known) for address, slots in found.items()]


def hostfile_lines(file):
    """Addresses and slots of a hostfile, in Open MPI's form or Hydra's.

    Parameters
    ----------
    file : path

    Returns
    -------
    list of (str, int)

    Raises
    ------
    BadInput : a line is neither
    """
    found = []
    for number, line in enumerate(Path(file).read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        line = line.partition("#")[0].strip()
        if line:
            match = re.fullmatch(r"(\S+?)(?:\s+slots\s*=\s*(\d+)|:(\d+))?(?:\s+max[-_]slots\s*=\s*\d+)?", line)
            if not match:
                raise BadInput(f"{file}, line {number}: {line!r}: must be like 192.168.1.11 slots=4")
            found.append((match[1], int(match[2] or match[3] or 1)))
    return found


def _cores(node):
    return node.cores or (len(os.sched_getaffinity(0)) if inventory.is_local(node) else 1)


def _host(address, slots, known):
    node = next((node for node in known.nodes if address in (node.address, node.name)), None)
    if node is None:
        return Host(address, slots)
    return Host(address, slots, node.name, node.user, node.python)


def _probes(folder):
    try:
        return {name: facts for name, facts in speeds.records(folder).items() if "failed" not in facts}
    except BadInput:  # none, or an old one: they only serve to bind ranks
        return {}


def held(host, probes):
    """Whether a host's ranks share cores, because its control group or its cores are fewer than its slots.

    Parameters
    ----------
    host : Host
    probes : dict, node name: probe
    """
    cores = (probes.get(host.name) or {}).get("cores") or {}
    return cores.get("quota") is not None or cores.get("usable", host.slots) < host.slots


def _binding(job, probes):
    """A core for each rank where that is known to be free; else none, as two ranks on one core would crowd."""
    fits = all((probes.get(host.name) or {}).get("cores") and not held(host, probes) for host in job.hosts)
    return "core" if fits and job.count == job.slots and job.per_rank == 1 else "none"


def _explain(mpi, job, outcome, ended, lost, module):
    """First what failed and where, then what it and mpirun said."""
    if outcome.code == BAD and (module or "").startswith("brmpi."):
        return  # the program has said it all in one sentence
    names = {host.address: host.name or host.address for host in job.hosts}
    last = outcome.screen.last()  # Hydra says it on standard output
    why = mpi.failure(job, outcome.said if job.tagged else "\n".join([outcome.said, *last]))
    rank = re.match(r"rank (\d+)", why or "")
    if outcome.late:
        why = "the limit of time ended it"
    elif outcome.lost:
        why = "a node was lost: it no longer answers ssh"
    elif outcome.stopped:
        why = "stopped as asked; --restart goes on" if outcome.code == STOPPED else "stopped as asked"
    for address, name in names.items():
        why = why and re.sub(rf"(?<![\w.]){re.escape(address)}(?![\w.])", name, why)
    lines = [f"brmpi run: exit code {outcome.code}" + (f": {why}" if why else "")]
    last = outcome.screen.last(rank and int(rank[1]))
    if last and not outcome.stopped:
        owner = "its" if rank and job.tagged else "the job's"
        lines += [f"  {owner} last lines:", *(f"    {line}" for line in last)]
    lines += [f"  {names[address]} does not answer" for address in sorted(lost)]
    lines += [f"  {names[address]}: ended {count} process{'es that were' if count > 1 else ' that was'} left"
              for address, count in ended.items()]
    if outcome.code != STOPPED and not outcome.stopped and outcome.said:
        lines += ["  mpirun said:", *(f"    {line}" for line in outcome.said.splitlines() if line.strip())]
    print("\n".join(lines), file=sys.stderr, flush=True)


def _again(job, lost, args, module):
    """The job for another attempt: without the hosts that are gone, from the last checkpoint if there is one."""
    program = list(job.program)
    if (module or "").startswith("brmpi."):
        folder = run_of(job.id, program)
        if folder:
            words = [word for word in program if word not in ("--restart", "--overwrite")]
            if "--out" in words:
                place = words.index("--out")
                del words[place:place + 2]
            program = [*words, "--restart", "--out", folder]
    time.sleep(0.5)  # a port or lock of the last attempt may still be closing
    return replace(without(job, lost), program=tuple(program), id=uuid.uuid4().hex[:12])


def run_of(job, program):
    """The folder of the run that a job began; None if it is not to be found here.

    Parameters
    ----------
    job : str, its id
    program : list of str, its command

    Returns
    -------
    str or None
    """
    given = [program[place + 1] for place, word in enumerate(program[:-1]) if word == "--out"]
    given += [word.partition("=")[2] for word in program if word.startswith("--out=")]
    for file in [Path(place, "run.json") for place in given] or sorted(Path("results").glob("*/run.json")):
        try:
            about = json.loads(file.read_text())
        except (OSError, ValueError):
            continue
        if (about.get("launch") or {}).get("job") == job:
            return str(file.parent)
    return None


def _parser():
    parser = Parser(prog="brmpi run", description="Run a program on the cluster: mpirun, with what it needs.",
                    usage="brmpi run [options] PROGRAM [arguments] [-- arguments]",
                    epilog="These options may stand behind PROGRAM too; after -- everything is the program's own.")
    parser.add_argument("program", metavar="PROGRAM", nargs=argparse.REMAINDER,
                        help="a program of brmpi (nbody), a module, a Python file, or -- and any program")
    parser.add_argument("--on", metavar="NAMES", help="hostfiles (all, a role, an architecture) or nodes, with commas "
                        "between; octavia:2 takes two slots of that node (all)")
    parser.add_argument("-n", metavar="N", type=int, help="ranks (one on each slot)")
    parser.add_argument("--threads", metavar="N", type=int, help="threads of each rank (slots / ranks)")
    parser.add_argument("--bind-to", choices=("none", "core", "socket", "hwthread", "numa"),
                        help="bind ranks (core if the probes say that each has one, else none)")
    parser.add_argument("--timeout", metavar="S", type=float, help="end the job after so long, with exit code 124 [s]")
    parser.add_argument("--retries", metavar="N", type=int, default=0, help="after a failure go on from the last "
                        "checkpoint, on the nodes that are left, so many times (0)")
    parser.add_argument("--dry-run", action="store_true", help="show the command of mpirun and start nothing")
    inventory.options(parser)
    return _Checked(parser)


class _Checked:
    """A parser whose options may also follow the program's own arguments, as in ``brmpi run nbody CASE --on all``."""

    MINE = ("--on", "-n", "--threads", "--bind-to", "--timeout", "--retries", "--hostfiles", "--inventory")

    def __init__(self, parser):
        self.parser = parser

    def parse_args(self, argv):
        """Options and program.

        Parameters
        ----------
        argv : list of str
        """
        mine, program = apart(argv, self.MINE, ("--dry-run",))
        args = self.parser.parse_args(mine)
        args.program = program
        if not args.program:
            raise BadInput("brmpi run: name a program, such as nbody")
        for key in ("n", "threads"):
            if getattr(args, key) is not None and getattr(args, key) < 1:
                raise BadInput(f"{'-n' if key == 'n' else '--threads'} = {getattr(args, key)}: must be >= 1")
        if args.retries < 0:
            raise BadInput(f"--retries = {args.retries}: must be >= 0")
        if args.timeout is not None and not 0 < args.timeout < float("inf"):
            raise BadInput(f"--timeout = {args.timeout:g}: must be > 0 s")
        return args
