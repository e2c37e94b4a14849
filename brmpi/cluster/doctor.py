"""``brmpi doctor``: prove that MPI jobs can work before one is run, and say how to mend what is wrong."""

import json
import os
import re
import shutil
import signal
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import brmpi
from brmpi.arguments import Parser
from brmpi.cluster import checkup, findings, inventory, mpirun, pairs, pings, probe, report, together, visit
from brmpi.cluster.children import Children
from brmpi.errors import BadInput

KNOCK = 2.5  # s, limit of one attempt at a port or a name; a lost first packet is sent again after one


def main(argv):
    """``brmpi doctor``: returns 0 if jobs can run, else 1.

    Parameters
    ----------
    argv : list of str

    Raises
    ------
    BadInput : a mistake on the command line or in the inventory
    """
    parser = Parser(prog="brmpi doctor", description="Prove that MPI jobs can work, and print how to mend what is "
                    "wrong. Exit code 0 only if jobs can run.")
    parser.add_argument("nodes", metavar="NODE", nargs="*", help="nodes to examine (all)")
    parser.add_argument("--json", action="store_true", help="for programs: one object")
    parser.add_argument("--no-ping", action="store_true", help="start no MPI job")
    parser.add_argument("--timeout", metavar="S", type=float, default=15.0,
                        help="limit of time of a node's answer, and of a job of two ranks [s] (15)")
    inventory.options(parser)
    args = parser.parse_args(argv)
    if not 0 < args.timeout < 1e6:
        raise BadInput(f"--timeout = {args.timeout:g}: must be > 0 s")
    known = inventory.load(args.hostfiles, args.inventory)
    nodes = [known.node(name) for name in dict.fromkeys(args.nodes)] or list(known.nodes)
    before = signal.signal(signal.SIGTERM, _terminated)
    children, say = Children(), _progress(args.json)
    try:
        found = examine(nodes, known, children, args.timeout, not args.no_ping, say)
    finally:
        say("")
        children.stop()
        signal.signal(signal.SIGTERM, before)
    if args.json:
        print(json.dumps(report.plain(found), indent=1))
    else:
        report.show(found)
    return 0 if found["can_run"] else 1


def examine(nodes, known, children, seconds, ping, say):
    """Examine nodes, their network, and MPI among them.

    Parameters
    ----------
    nodes : sequence of inventory.Node
    known : inventory.Inventory
    children : Children, that all processes belong to
    seconds : float, limit of time of a node's answer and of a job of two ranks [s]
    ping : bool, whether to start MPI jobs
    say : function of str, told what is under way

    Returns
    -------
    dict: ``nodes`` (of inventory.Node), ``facts`` (by name, of those that were visited), ``pairs`` (by (from, to)),
    ``findings``, ``can_run``, ``pinged`` and ``seconds``
    """
    start = time.monotonic()
    here = _here(known)
    visits = {node.name: visit.Visit(node, children) for node in nodes}
    with ThreadPoolExecutor(2 * len(nodes)) as pool:
        try:
            say(f"visiting {len(nodes)} nodes")
            facts, said = _arrivals(pool, nodes, visits, known.network, seconds, here, say)
            reached = [node for node in nodes if node.name in facts]
            ends = together.ends(reached, facts, known.network, _resolved)
            say("trying names and ports")
            entered = {node: pool.submit(visit.enters, node, children, seconds) for node in reached}
            tried, lost = _asked(pool, nodes, visits, facts, ends, here)
            outside = [node for node, answer in entered.items() if not answer.result()]
            for one in visits.values():
                one.leave()
        except BaseException:
            children.stop()
            raise
    said += lost
    for node in reached:
        said += findings.node(node, facts[node.name], here)
    said += together.findings(nodes, facts, known.network, here)
    said += together.outsiders(outside)
    said += pairs.findings(nodes, facts, ends, tried, known.network)
    if ping:
        say("starting MPI")
        ill = {name for one in said if one.severity == "error" and one.code != "port-blocked" for name in one.nodes}
        fit = [node for node in reached if node.name not in ill]
        said += pings.ping(fit, facts, tried, known, here, children, seconds, say)
    said.sort(key=lambda one: one.severity != "error")
    return {"nodes": nodes, "facts": facts, "pairs": tried, "findings": said, "pinged": ping, "ends": ends,
            "can_run": not any(one.severity == "error" for one in said), "seconds": time.monotonic() - start}


def _here(known):
    keys = list(Path.home().glob(".ssh/id_*")) or os.environ.get("SSH_AUTH_SOCK")
    launcher, lacking = None, ""
    try:
        launcher = mpirun.installed()
    except BadInput as mistake:
        lacking = str(mistake)
    activate = Path(sys.prefix, "bin/activate")
    helps = activate.exists() and "launch_agent" in activate.read_text(encoding="utf-8")
    return findings.Here(mpi=probe.guarded(probe.mpi)[0], launcher=launcher, lacking=lacking, key=bool(keys),
                         package=checkup.package(), environment=_parameters() | dict(os.environ), inventory=known.file,
                         project=Path(brmpi.__file__).parent.parent, activation=f"source {activate}" if helps else "")


def _parameters():
    """Open MPI's parameters from a person's own file, as the variables that they could be."""
    try:
        text = Path.home().joinpath(".openmpi/mca-params.conf").read_text(encoding="utf-8")
    except OSError:
        return {}
    return {f"OMPI_MCA_{key}": value for key, value in re.findall(r"^\s*(\w+)\s*=\s*(\S+)", text, re.M)}


def _arrivals(pool, nodes, visits, network, seconds, here, say):
    turns = {pool.submit(visits[node.name].arrive, network, seconds): node for node in nodes}
    facts, said, left, lacking = {}, {}, dict.fromkeys(node.name for node in nodes), {}
    for turn in as_completed(turns):
        node = turns[turn]
        del left[node.name]
        say(f"waiting for {', '.join(left)}" if left else "all nodes have answered")
        try:
            facts[node.name] = turn.result()
        except visit.NoVisit as failure:
            said[node.name] = findings.unreached(node, str(failure), failure.err, here)
        except OSError as failure:
            lacking[node.name] = f"{failure.filename or 'ssh'} cannot be started here: {failure.strerror}"
    found = [said[node.name] for node in nodes if node.name in said]
    if lacking:  # one thing to mend, for however many nodes
        names = [node.name for node in nodes if node.name in lacking]
        found.append(findings.error("ssh-missing", names, lacking[names[0]], "sudo apt-get install -y openssh-client"))
    return {node.name: facts[node.name] for node in nodes if node.name in facts}, found


def _asked(pool, nodes, visits, facts, ends, here):
    """Let every node that was visited try the others."""
    turns = {}
    for node in nodes:
        if node.name in facts and (others := pairs.peers(node, nodes, facts, ends)):
            turns[node.name] = pool.submit(visits[node.name].ask, others, KNOCK)
    tried, lost = {}, []
    for node in nodes:
        try:
            answers = turns[node.name].result() if node.name in turns else ()
        except visit.NoVisit as failure:
            lost.append(findings.unreached(node, f"its answers ended: {failure}", failure.err, here))
            answers = ()
        tried.update({(node.name, one.pop("to")): one for one in answers})
    return tried, lost


def _resolved(address):
    """IP addresses that a name or an address means here."""
    try:
        return [found[4][0] for found in socket.getaddrinfo(address, None, type=socket.SOCK_STREAM)]
    except OSError:
        return []


def _progress(silent):
    """A function that shows one line of what is under way, on a terminal alone."""
    if silent or not sys.stderr.isatty():
        return lambda text: None
    lock = threading.Lock()

    def say(text):
        room = shutil.get_terminal_size().columns - 1
        with lock:
            print(f"\r\x1b[K{text[:room]}", end="", file=sys.stderr, flush=True)

    return say


def _terminated(number, frame):
    sys.exit(128 + number)
