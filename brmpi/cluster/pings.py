"""MPI among nodes, tried: one job on all that can be tried together, then jobs of two ranks for what is left."""

import json
import os
import shlex
import subprocess
import uuid
from concurrent.futures import ThreadPoolExecutor, wait

from brmpi.cluster import attempt, pairs
from brmpi.cluster.findings import error, warning
from brmpi.cluster.job import Host, Job, users_file

PROGRAM = ("python", "-m", "brmpi.bench.pingpong", "--json", "--sizes", "8,1048576", "--seconds", "0.1")
PAIR = 0.4  # s, more for a job of many ranks, for each ordered pair


def ready(here, many, root):
    """What keeps this machine from starting jobs, or from starting them by plain mpirun.

    Parameters
    ----------
    here : findings.Here
    many : bool, whether there are other nodes
    root : bool, whether this is root

    Returns
    -------
    list of Finding
    """
    if here.launcher is None:
        return [error("mpirun-missing", (), f"no job can be started here: {here.lacking}",
                      f"cd {shlex.quote(str(here.project))} && make install")]
    found = []
    told, finds = here.launcher.root, here.launcher.finds
    if root and not all(here.environment.get(name) for name in told):
        found.append(warning("root", (), "plain mpirun starts nothing for root unless told twice: be another user, or",
                             "export " + " ".join(f"{name}=1" for name in told)))
    if many and finds and not any(here.environment.get(name) for name in finds):
        found.append(warning("not-activated", (), "plain mpirun would find another python on the other nodes (brmpi "
                             "run does not)", here.activation or f"export {finds[1]}=PATH"))
    return found


class _Failed(Exception):
    """A job that did not end well; the message is its last words."""


def ping(fit, facts, tried, known, here, children, seconds, say):
    """Try MPI among nodes; what was measured goes into ``tried``.

    Parameters
    ----------
    fit : sequence of inventory.Node, with which nothing is wrong
    facts : dict, node name: facts
    tried : dict, (from, to): results; ``latency`` (the least one way, 8 B) [µs] and ``bandwidth``
        (median, 1 MiB) [MB/s], or ``failed``, are added
    known : inventory.Inventory
    here : findings.Here
    children : Children
    seconds : float, limit of time of a job of two ranks [s]
    say : function of str, told what is under way

    Returns
    -------
    list of Finding
    """
    found = ready(here, len(known.nodes) > 1, os.geteuid() == 0)
    if not fit or any(one.severity == "error" for one in found):
        return found
    trials = _Trials(fit, facts, tried, known, here.launcher, children, seconds)
    trials.run(say)
    return found + failures(trials.reasons, trials.typed(), [node.name for node in fit])


class _Trials:
    """Jobs that try pairs of nodes, and what came of them."""

    def __init__(self, fit, facts, tried, known, launcher, children, seconds):
        self.nodes, self.facts, self.tried, self.known = {node.name: node for node in fit}, facts, tried, known
        self.launcher, self.children, self.seconds = launcher, children, seconds
        self.reasons, self.ssh = {}, users_file(known)

    def run(self, say):
        """All nodes in one job; the pairs left over node by node; where a job fails, pair by pair."""
        names = list(self.nodes)
        if len(names) == 1:
            self._pairwise([(names[0],)])
            return
        left = pairs.open_pairs(names, self.tried)
        group, only = pairs.together(names, self.tried), ()
        while left:
            say(f"MPI on {', '.join(group)}")
            count = len(group) * (2 if only else len(group) - 1)
            try:
                if len(group) < 2:
                    break
                self._note(self._job(group, self.seconds + PAIR * count, only))
            except _Failed:
                break
            still = [pair for pair in left if "latency" not in self.tried.get(pair, {})]
            if len(still) == len(left):
                break
            left = still
            if left:
                group = pairs.circle(left, self.tried)
                only = "--only", self.facts[group[0]]["hostname"]
        for turn in pairs.rounds(left):
            say(f"MPI on {', '.join(' and '.join(pair) for pair in turn)}")
            self._pairwise(turn)

    def typed(self):
        """The command by which a person tries each pair that failed."""
        return {pair: f"mpirun -host {','.join(self.nodes[name].address for name in pair)} -np 2 "
                      "python -m brmpi.bench.pingpong" for pair in self.reasons}

    def _pairwise(self, turn):
        """Small jobs at once; no node is in two of them."""
        with ThreadPoolExecutor(len(turn)) as pool:
            jobs = {pair: pool.submit(self._job, pair, self.seconds) for pair in turn}
            try:
                wait(jobs.values())
            except BaseException:
                self.children.stop()
                raise
        for pair, job in jobs.items():
            try:
                self._note(job.result())
            except _Failed as failure:
                self.reasons[pair] = str(failure)
                for ends in (pair, pair[::-1]) if len(pair) > 1 else ():
                    self.tried.setdefault(ends, {})["failed"] = str(failure)

    def _job(self, names, seconds, more=()):
        """What the program says of one job, one rank a node, or two on a single one."""
        slots = 2 if len(names) == 1 else 1
        nodes = [self.nodes[name] for name in names]
        hosts = tuple(Host(node.address, slots, node.name, node.user, node.python) for node in nodes)
        job = Job(hosts, (*PROGRAM, *more), network=self.known.network, crowded=True, ssh=self.ssh,
                  id=uuid.uuid4().hex[:12])
        variables = self.launcher.environment(job) | {"BRMPI_LAUNCH": "brmpi doctor"}
        unset = [part for name, value in variables.items() if value is None for part in ("-u", name)]
        given = [f"{name}={value}" for name, value in variables.items() if value is not None]
        try:
            code, out, err = self.children.run(["env", *unset, *given, *self.launcher.command(job)], b"", seconds)
        except subprocess.TimeoutExpired:
            attempt.clean(job)
            raise _Failed(f"no answer within {seconds:.0f} s") from None
        for line in out.splitlines():
            if line.startswith('{"ranks"') and code == 0:
                return json.loads(line)
        attempt.clean(job)
        said = self.launcher.failure(job, err) or _words(err)
        raise _Failed(said or f"mpirun ended with exit code {code} and said nothing")

    def _note(self, result):
        hosts = {_short(facts["hostname"]): name for name, facts in self.facts.items()}
        names = [hosts.get(_short(host)) for host in result["hosts"]]
        if None in names:
            raise _Failed(f"it ran on {', '.join(result['hosts'])}, which is not where it was to run")
        for pair in result["pairs"]:
            least, most = pair["messages"]
            measured = {"latency": least["fastest"], "bandwidth": most["bandwidth"]}
            ends = names[pair["from"]], names[pair["to"]]
            self.tried.setdefault(ends, {}).update(measured)
            if len(names) == 2:  # half of a round trip is the same from either end
                self.tried.setdefault(ends[::-1], {}).update(measured)


def failures(reasons, commands, names):
    """What MPI's failures tell: one finding where all pairs failed alike.

    Parameters
    ----------
    reasons : dict, pair of names: why its job failed
    commands : dict, pair of names: command by which a person tries it
    names : sequence of str, nodes that were tried

    Returns
    -------
    list of Finding
    """
    total = len(names) * (len(names) - 1) // 2
    if reasons and len(reasons) >= total > 1 and len(set(reasons.values())) == 1:
        pair = next(iter(reasons))
        return [error("mpi-fails", names, f"MPI starts between no two nodes: {reasons[pair]}", commands[pair])]
    return [error("mpi-fails", pair, f"MPI does not work {'between' if len(pair) > 1 else 'on'} {' and '.join(pair)}: "
                  f"{why}", commands[pair]) for pair, why in reasons.items()]


def _short(host):
    return str(host).split(".")[0].casefold()


def _words(err):
    """The first sentence that says something in what mpirun printed."""
    text = " ".join(line.strip() for line in err.splitlines() if line.strip("-= \t"))
    return text[:200].rsplit(" ", 1)[0] + " …" if len(text) > 200 else text
