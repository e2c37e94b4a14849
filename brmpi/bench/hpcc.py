"""HPC Challenge's ``hpcc``, which holds the reference HPL: its input, its run over hosts, its output, its BLAS."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from brmpi.cluster import atomic, attempt, mpirun, probe
from brmpi.cluster.inventory import is_local
from brmpi.cluster.probing import SSH, login
from brmpi.errors import BadInput, Fault
from brmpi.linalg.sizing import Problem

TEMPLATE = Path("bench/hpccinf.txt")
FOLDER = Path("results/hpl")  # where the last run's input and output stay
INPUT, OUTPUT = "hpccinf.txt", "hpccoutf.txt"  # hpcc knows no other names
THRESHOLD = 16.0  # of the scaled residual
HEADER = f"""{"=" * 80}
T/V                N    NB     P     Q               Time                 Gflops
{"-" * 80}"""
LINE = re.compile(r"^W[RC]\w+ +(\d+) +(\d+) +(\d+) +(\d+) +(\S+) +(\S+) *$", re.M)
RESIDUAL = re.compile(r"^\|\|Ax-b\|\|_oo/\S+ *= *(\S+) \.+ (PASSED|FAILED) *$", re.M)


@dataclass(frozen=True)
class Result:
    """One system that HPL solved."""

    problem: Problem
    seconds: float
    gflops: float
    residual: float  # scaled
    line: str  # as HPL printed it
    check: str  # the line of the residual


def parse(text):
    """Every result in HPL's format, and that its residual is as it must be.

    Parameters
    ----------
    text : str, hpccoutf.txt, or what ``python -m brmpi.linalg.hpl`` prints

    Returns
    -------
    list of Result, not empty

    Raises
    ------
    Fault : there is none, one has no residual, or one that is not below 16
    """
    found, lines = [], list(LINE.finditer(text))
    for line, after in zip(lines, [*lines[1:], None]):
        check = RESIDUAL.search(text, line.end(), after.start() if after else len(text))
        if check is None:
            raise Fault(f"HPL solved N = {line[1]} but says nothing of the residual")
        problem = Problem(*(int(part) for part in line.groups()[:4]))
        try:
            seconds, gflops, residual = float(line[5]), float(line[6]), float(check[1])
        except ValueError:
            raise Fault(f"HPL's line {line[0]!r} or {check[0]!r} cannot be read") from None
        if not residual < THRESHOLD or check[2] != "PASSED":
            raise Fault(f"HPL's residual of N = {problem.n} is {check[1]}, must be < {THRESHOLD:g}: wrong answer")
        found.append(Result(problem, seconds, gflops, residual, line[0].rstrip(), check[0].rstrip()))
    if not found:
        raise Fault(f"HPL gave no result{_error(text)}")
    if len(found) == 1:  # a summary has more digits
        more = dict(re.findall(r"^(HPL_time|HPL_Tflops)=(\S+)$", text, re.M))
        if len(more) == 2:
            found = [Result(found[0].problem, float(more["HPL_time"]), 1e3 * float(more["HPL_Tflops"]),
                            found[0].residual, found[0].line, found[0].check)]
    return found


def _error(text):
    found = re.search(r"HPL ERROR.*\n?.*", text)
    return f": {' '.join(found[0].split())}" if found else ""


def contents(problem, template=TEMPLATE):
    """Text of hpcc's input file.

    Parameters
    ----------
    problem : Problem
    template : path

    Returns
    -------
    str

    Raises
    ------
    BadInput : the template cannot be read, or lacks one of n, nb, p and q
    """
    try:
        text = Path(template).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", "it is no text")
        raise BadInput(f"{template}: cannot be read: {why}: this template of hpcc's input is a part of brmpi's "
                       "checkout; --template names another") from error
    for name in ("n", "nb", "p", "q"):
        if f"{{{name}}}" not in text:
            raise BadInput(f"{template}: lacks {{{name}}}, where brmpi fills in the problem")
        text = text.replace(f"{{{name}}}", str(getattr(problem, name)))
    return text


def lacking(hosts, seconds=20.0):
    """Which hosts have no hpcc.

    Parameters
    ----------
    hosts : sequence of Host
    seconds : float, limit of time [s]

    Returns
    -------
    list of Host

    Raises
    ------
    Fault : a host does not answer
    """
    def _lacks(host):
        if is_local(host):
            return shutil.which("hpcc") is None
        command = [*SSH, login(host), "command -v hpcc >/dev/null && echo found || echo lacking"]
        try:
            said = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds)
        except subprocess.TimeoutExpired:
            said = None
        word = re.search(r"^(found|lacking)$", said.stdout, re.M) if said else None
        if word is None:
            raise Fault(f"{host.name or host.address} does not answer ssh: brmpi doctor says why")
        return word[1] == "lacking"

    with ThreadPoolExecutor(max(1, len(hosts))) as pool:
        return [host for host, lack in zip(hosts, pool.map(_lacks, hosts)) if lack]


def demand(hosts):
    """See to it that hosts have hpcc.

    Parameters
    ----------
    hosts : sequence of Host

    Raises
    ------
    BadInput : one has not
    Fault : one does not answer
    """
    names = [host.name or host.address for host in lacking(hosts)]
    if names:
        raise BadInput(f"hpcc, the reference HPL, is not installed on {', '.join(names)}: apt install hpcc there "
                       "(make install does, where there is root or sudo)")


def launcher():
    """The MPI that starts hpcc: that whose mpirun lies beside it, if another is found first.

    Returns
    -------
    mpi : one of ``mpirun``'s classes
    words : list of str, that stand for "mpirun"

    Raises
    ------
    BadInput : there is none, or it is not known
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    first, program = shutil.which("mpirun", path=path), shutil.which("hpcc")
    beside = program and shutil.which("mpirun", path=str(Path(program).parent))
    if not beside or (first and os.path.realpath(first) == os.path.realpath(beside)):
        return mpirun.installed(), ["mpirun"]
    try:
        said = subprocess.run([beside, "--version"], capture_output=True, text=True, timeout=20).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BadInput(f"{beside} --version: does not answer: {error}") from error
    return mpirun.of(said), [beside, *(["--noprefix"] if "Open MPI" in said else [])]


def run(job, problem, timeout, folder=FOLDER, template=TEMPLATE):
    """Solve a problem by hpcc's HPL; all else that hpcc measures comes with it.

    Parameters
    ----------
    job : Job, of the program ``hpcc``
    problem : Problem, whose grid is of as many ranks
    timeout : float, limit of time [s]
    folder : path, for input and output; rank 0 must see it
    template : path, of the input

    Returns
    -------
    Result

    Raises
    ------
    BadInput : the template cannot be used
    Fault : it failed, or did not come to its end in time, or its residual is too large
    """
    folder, text = Path(folder), contents(problem, template)
    mpi, words = launcher()
    atomic.write(folder / INPUT, text)
    (folder / OUTPUT).unlink(missing_ok=True)  # hpcc would write behind what is there
    with contextlib.chdir(folder):
        outcome = attempt.run(mpi, job, [*words, *mpi.command(job)[1:]], "{}", timeout, gentle=False)
    if outcome.code:
        attempt.clean(job)
    error = _error("\n".join(outcome.screen.last()))  # after which hpcc may wait for ever
    if outcome.late:
        raise Fault(f"hpcc was not done with N = {problem.n} after {timeout:.0f} s" +
                    (error or ": --timeout gives it longer, --time-budget takes a smaller N"))
    if outcome.code:
        why = mpi.failure(job, outcome.said)
        raise Fault(f"hpcc ended with exit code {outcome.code}" + (error or (f": {why}" if why else "")))
    try:
        said = (folder / OUTPUT).read_text(encoding="utf-8", errors="replace")
    except OSError:
        raise Fault(f"hpcc left no {folder / OUTPUT}: its rank 0 runs on {job.hosts[0].name or job.hosts[0].address}, "
                    "which must see this folder") from None
    (result,) = parse(said)[:1]
    if result.problem != problem:
        raise Fault(f"hpcc solved {told(result.problem)} instead of {told(problem)}: it has not read "
                    f"{folder / INPUT}")
    return result


def told(problem):
    """A problem in words.

    Parameters
    ----------
    problem : Problem

    Returns
    -------
    str
    """
    return f"N = {problem.n}, NB = {problem.nb}, P x Q = {problem.p} x {problem.q}"


def blas():
    """The BLAS that hpcc on this machine is linked to.

    Returns
    -------
    str, path of the library; None where that cannot be told
    """
    program = shutil.which("hpcc")
    try:
        said = subprocess.run(["ldd", program or "hpcc"], capture_output=True, text=True, timeout=20).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    return _library(re.findall(r"=> (/\S+)", said))


def blas_of_scipy():
    """The BLAS that SciPy, and so brmpi's ``lu``, calls on this machine.

    Returns
    -------
    str, path of the library; None where that cannot be told
    """
    code = ("import re, numpy\nmaps = lambda: set(re.findall(r'/\\S+\\.so\\S*', open('/proc/self/maps').read()))\n"
            "before = maps()\nimport scipy.linalg.blas\nafter = maps()\n"
            "print(*(after - before))\nprint(*after)")  # wheels of NumPy and SciPy each bring their own
    try:
        said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    return next(filter(None, map(_library, map(str.split, said.splitlines()))), None)


def _library(files):
    for mark, _ in probe.BLAS:
        for file in sorted(files):
            if mark in Path(file).name.lower() and Path(file).name.startswith("lib"):
                return os.path.realpath(file)
    return None
