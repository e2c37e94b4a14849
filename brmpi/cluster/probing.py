"""``brmpi probe``: measure every node at once, over ssh or directly here, into ``hostfiles/probes/``."""

import json
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import brmpi
from brmpi import speeds
from brmpi.arguments import Parser
from brmpi.cluster import atomic, inventory, probe, table, words
from brmpi.cluster.children import Children
from brmpi.errors import BadInput

SSH = ("ssh", "-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=5", "-o", "ServerAliveInterval=5",
       "-o", "ServerAliveCountMax=2")
ROUNDS = 5  # questions to a node's clock
# what ssh says, and what a person can do about it
ADVICE = (
    (r"Permission denied", "let your key in: ssh-copy-id {login}"),
    (r"Host key verification failed|REMOTE HOST IDENTIFICATION", "look at its host key: ssh {login}"),
    (r"Could not resolve|Name or service not known", "correct nodes.{name}.address"),
    (r"refused|timed out|No route|unreachable|reset by|no answer", "is it on, with sshd running? try: ssh {login}"),
    (r"not found|No such file or directory", "install python3 there, or correct nodes.{name}.python"),
)


class NoProbe(Exception):
    """A node that could not be probed; the message is the reason."""


def login(node):
    """What ssh is told to reach a node.

    Parameters
    ----------
    node : inventory.Node
    """
    return f"{node.user}@{node.address}" if node.user else node.address


def interpreter(node, program="-"):
    """Shell command that runs a Python program given on standard input.

    It takes the node's ``python``, else the environment of this process if it is there too and runs (first the one that
    ends in ``-`` and its architecture), else this project's, else python3.

    Parameters
    ----------
    node : inventory.Node
    program : str, arguments of Python that say otherwise, quoted for a shell
    """
    if node.python:
        return f"exec {shlex.quote(node.python)} {program}"
    here = Path(brmpi.__file__).parent.parent / ".venv/bin/python"
    places = dict.fromkeys(shlex.quote(str(place)) for place in (Path(sys.prefix, "bin/python"), here))
    places = [f"{shlex.quote(sys.prefix)}-$(uname -m)/bin/python", *places]  # of its architecture, on a shared disk
    runs = '[ -x "$p" ] && "$p" -c "" </dev/null 2>/dev/null'  # one made for another architecture does not
    return f'for p in {" ".join(places)}; do {runs} && exec "$p" {program}; done; exec python3 {program}'


def clock(node, children, seconds):
    """A node's clock less this machine's, by the quickest of a few questions over one connection.

    Parameters
    ----------
    node : inventory.Node
    children : Children
    seconds : float, limit of time [s]

    Returns
    -------
    dict: ``offset`` and ``uncertainty`` (half the time of the round trip) [ms]; or ``offset`` None and ``reason``

    Raises
    ------
    NoProbe : the node cannot be reached
    OSError : ssh cannot be started
    """
    process = children.start([*SSH, login(node), "sh -c 'while read x; do date +clock=%s.%N; done'"])
    watch = threading.Timer(seconds, children.kill, [process])
    watch.start()
    try:
        answers = [*clock_answers(process)]
        process.stdin.close()
        err = process.stderr.read().decode(errors="replace")
        code = process.wait()
    finally:
        watch.cancel()
        children.end(process)
    if not answers:
        raise NoProbe(f"no answer within {seconds:.0f} s" if code == -signal.SIGKILL else complaint(code, err))
    return clock_offset(answers)


def clock_offset(answers):
    """A node's clock less this machine's, by the quickest answer.

    Parameters
    ----------
    answers : list, as from ``clock_answers``, not empty

    Returns
    -------
    dict, as from ``clock``
    """
    trip, offset = min((after - before, said and float(said) - (before + after) / 2) for before, said, after in answers)
    if offset is None:
        return {"offset": None, "reason": "its date command tells no parts of a second"}
    return {"offset": round(1e3 * offset, 3), "uncertainty": round(5e2 * trip, 3)}


def clock_answers(process):
    """Ask a node for its time, and yield (time here before, what it said or None, time here after).

    Parameters
    ----------
    process : subprocess.Popen, a shell that answers each line with ``clock=``, seconds and parts of a second
    """
    for _ in range(ROUNDS):
        before = time.time()
        try:
            process.stdin.write(b"?\n")
        except BrokenPipeError:
            return
        for line in iter(process.stdout.readline, b""):
            if b"clock=" in line:
                after = time.time()
                said = re.search(rb"clock=(\d+\.\d+)\s*$", line)
                yield before, said and said.group(1), after
                break
        else:
            return


def complaint(code, err):
    """Why a command failed, by its last words.

    Parameters
    ----------
    code : int, its exit code
    err : str, its standard error

    Returns
    -------
    str
    """
    lines = [line.strip() for line in err.splitlines() if line.strip() and not line.startswith("Warning: Permanently")]
    return lines[-1][:200] if lines else f"ended with exit code {code} and said nothing"


def probed(node, children, seconds):
    """The probe of a node: directly if it is this machine, else over ssh.

    Parameters
    ----------
    node : inventory.Node
    children : Children
    seconds : float, limit of time [s]

    Returns
    -------
    dict, as hostfiles/README.md describes

    Raises
    ------
    NoProbe : no probe came of it; the message is the reason
    OSError : ssh or Python cannot be started
    """
    start = time.monotonic()
    if inventory.is_local(node):
        command, offset = [node.python or sys.executable, "-"], {"offset": 0.0, "uncertainty": 0.0}
    else:
        offset = clock(node, children, min(seconds, 10))
        command = [*SSH, login(node), f"sh -c {shlex.quote(interpreter(node))}"]
    try:
        code, out, err = children.run(command, Path(probe.__file__).read_bytes(), seconds - time.monotonic() + start)
    except subprocess.TimeoutExpired:
        raise NoProbe(f"no answer within {seconds:.0f} s") from None
    answer = _found(out)
    if answer is None:
        if code:
            raise NoProbe(complaint(code, err))
        raise NoProbe(f"it answers with something that is no probe: {out.strip()[:60]!r}")
    return {"schema": speeds.SCHEMA, "node": node.name, "address": node.address, **answer, "clock": offset}


def _found(out):
    # a login may print greetings before and after the probe
    for place in re.finditer(r'\{"schema"', out):
        try:
            answer, _ = json.JSONDecoder().raw_decode(out, place.start())
        except ValueError:
            continue
        if isinstance(answer.get("speeds"), dict):
            return answer
    return None


def advice(node, reason):
    """What a person can do about a node that was not probed.

    Parameters
    ----------
    node : inventory.Node
    reason : str

    Returns
    -------
    str
    """
    for pattern, said in ADVICE:
        if re.search(pattern, reason):
            return said.format(login=login(node), name=node.name)
    return f"try: ssh {login(node)} python3 --version"


def file_of(folder, name):
    """Where a node's probe is written.

    Parameters
    ----------
    folder : path of the hostfiles
    name : str, the node's
    """
    return Path(folder, "probes", f"{name}.json")


def _is_probed(folder, name):
    try:
        return "failed" not in speeds.record(file_of(folder, name))
    except BadInput:
        return False


def probe_all(nodes, folder, seconds, report):
    """Probe nodes at once and write each result as it comes.

    Parameters
    ----------
    nodes : sequence of inventory.Node
    folder : path of the hostfiles
    seconds : float, limit of time of each node [s]
    report : function of (node, result), called as nodes finish

    Returns
    -------
    dict, node name: probe, or ``{"failed": reason, ...}`` for a node that could not be probed

    Raises
    ------
    Fault : a result cannot be written
    """
    children = Children()
    results = {}
    with ThreadPoolExecutor(len(nodes)) as pool:
        try:
            turns = {pool.submit(_attempt, node, children, seconds): node for node in nodes}
            for turn in as_completed(turns):
                node, result = turns[turn], turn.result()
                atomic.write(file_of(folder, node.name), json.dumps(result, indent=1) + "\n")
                report(node, result)
                results[node.name] = result
        except BaseException:
            children.stop()
            raise
    return {node.name: results[node.name] for node in nodes}


def _attempt(node, children, seconds):
    try:
        return probed(node, children, seconds)
    except NoProbe as failure:
        reason = str(failure)
    except OSError as error:
        reason = f"{error.filename or 'a process'} cannot be started here: {error.strerror}"
    return {"schema": speeds.SCHEMA, "node": node.name, "address": node.address, "failed": reason,
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}


def _report(node, result):
    if "failed" in result:
        print(f"{node.name}: not probed: {result['failed']} ({advice(node, result['failed'])})", file=sys.stderr)
    else:
        print(f"{node.name}: probed in {result['duration']:.1f} s", file=sys.stderr)


def _terminated(number, frame):
    sys.exit(128 + number)


def main(argv):
    """``brmpi probe``: returns 0, or 1 if a node could not be probed.

    Parameters
    ----------
    argv : list of str

    Raises
    ------
    BadInput : a mistake on the command line or in the inventory
    """
    parser = Parser(prog="brmpi probe", description="Measure nodes at once, into DIR/probes/<node>.json.")
    parser.add_argument("nodes", metavar="NODE", nargs="*", help="nodes to probe (all)")
    parser.add_argument("--if-missing", action="store_true", help="only nodes that have no probe yet")
    parser.add_argument("--timeout", metavar="S", type=float, default=30.0, help="limit of time of a node [s] (30)")
    inventory.options(parser)
    args = parser.parse_args(argv)
    if not 0 < args.timeout < threading.TIMEOUT_MAX:
        raise BadInput(f"--timeout = {args.timeout:g}: must be > 0 s")
    known = inventory.load(args.hostfiles, args.inventory)
    nodes = [known.node(name) for name in dict.fromkeys(args.nodes)] or list(known.nodes)
    if args.if_missing:
        nodes = [node for node in nodes if not _is_probed(args.hostfiles, node.name)]
        if not nodes:
            print(f"Every node has its probe in {args.hostfiles / 'probes'}.")
            return 0
    before = signal.signal(signal.SIGTERM, _terminated)
    try:
        results = probe_all(nodes, args.hostfiles, args.timeout, _report)
    finally:
        signal.signal(signal.SIGTERM, before)
    good = {name: result for name, result in results.items() if "failed" not in result}
    if good:
        units = {unit: "right" for _, unit in words.UNITS.values()}
        table.show({"node": "left", "model": "left", "cores": "right", **units},
                   [[name, words.model(result), str((result["cores"] or {}).get("usable", "-")),
                     *(words.rate(result, kind, unit=False) for kind in words.UNITS)] for name, result in good.items()])
    print(f"{len(good)} of {len(results)} nodes probed, in {args.hostfiles / 'probes'}.")
    return 0 if len(good) == len(results) else 1
