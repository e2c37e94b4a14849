"""A visit to a node: one connection over which it tells its time, its facts, and how it reaches its peers."""

import json
import shlex
import signal
import subprocess
import sys
import threading
from pathlib import Path

from brmpi.cluster import checkup, inventory, probe, probing

BOOT = "import sys; exec(sys.stdin.buffer.read(int(sys.stdin.buffer.readline())))"
CLOCK = 'while read x && [ "$x" = "?" ]; do date +clock=%s.%N; done'


class NoVisit(Exception):
    """A node that could not be visited.

    Parameters
    ----------
    reason : str, its or ssh's last words
    err : str, all of standard error
    code : int, exit code: 255 is ssh's own, negative a signal; None where a limit of time ended the visit
    """

    def __init__(self, reason, err="", code=None):
        super().__init__(reason)
        self.err, self.code = err, code


class Visit:
    """A talk with one node, from ``arrive`` to ``leave``.

    Parameters
    ----------
    node : inventory.Node
    children : Children, which ends it if need be
    """

    def __init__(self, node, children):
        self.node, self._children, self._process = node, children, None

    def arrive(self, network, seconds):
        """Connect, and hear what the node is.

        Parameters
        ----------
        network : str or None, the CIDR that MPI may use
        seconds : float, limit of time [s]

        Returns
        -------
        dict: facts as from ``checkup.facts``, ``clock``, ``at`` (its address on the network or None) and ``port``

        Raises
        ------
        NoVisit : it cannot be reached, or has no Python
        OSError : ssh cannot be started here
        """
        python = f"-c {shlex.quote(BOOT)}"
        if inventory.is_local(self.node):
            command = ["sh", "-c", f"{CLOCK}; exec {shlex.quote(self.node.python or sys.executable)} {python}"]
        else:
            script = f"{CLOCK}; {probing.interpreter(self.node, python)}"
            command = [*probing.SSH, probing.login(self.node), f"sh -c {shlex.quote(script)}"]
        self._process = self._children.start(command)
        return self._within(seconds, lambda: self._introduced(network))

    def ask(self, peers, seconds):
        """Let the node try its peers.

        Parameters
        ----------
        peers : list of dict, as ``checkup.tried`` takes them
        seconds : float, limit of time of one attempt [s]

        Returns
        -------
        list of dict, as from ``checkup.tried``

        Raises
        ------
        NoVisit : the node went away
        """
        return self._within(3 * seconds + 5, lambda: self._asked({"peers": peers, "seconds": seconds}))

    def leave(self):
        """End the talk."""
        if self._process is not None:
            self._children.end(self._process)

    def _within(self, seconds, talk):
        watch = threading.Timer(seconds, self._children.kill, [self._process])
        watch.start()
        try:
            answer = talk()
        finally:
            watch.cancel()
        if answer is None:
            raise self._ended(seconds)
        return answer

    def _ended(self, seconds):
        self._process.stdin.close()
        watch = threading.Timer(2, self._children.kill, [self._process])
        watch.start()
        err = self._process.stderr.read().decode(errors="replace")
        code = self._process.wait()
        watch.cancel()
        if code == -signal.SIGKILL:
            return NoVisit(f"no answer within {seconds:.0f} s", err)
        return NoVisit(probing.complaint(code, err), err, code)

    def _introduced(self, network):
        answers = [*probing.clock_answers(self._process)]
        if not answers or not self._tell(b"!\n" + _program(self.node.name, network)):
            return None
        facts = self._heard()
        return facts and {**facts, "clock": probing.clock_offset(answers)}

    def _asked(self, question):
        return self._heard() if self._tell(json.dumps(question).encode() + b"\n") else None

    def _tell(self, words):
        try:
            left = memoryview(words)
            while left:
                left = left[self._process.stdin.write(left):]
        except BrokenPipeError:
            return False
        return True

    def _heard(self):
        mark = checkup.MARK.encode()
        for line in iter(self._process.stdout.readline, b""):
            if line.startswith(mark):
                return json.loads(line[len(mark):])
        return None


def enters(node, children, seconds):
    """Whether ssh enters a node without being told the user, as plain mpirun calls it.

    Parameters
    ----------
    node : inventory.Node
    children : Children
    seconds : float, limit of time [s]
    """
    if inventory.is_local(node) or not node.user:
        return True
    try:
        _, said, _ = children.run(["ssh", "-G", node.address], b"", seconds)
        if f"user {node.user}" in said.splitlines():
            return True
        code, *_ = children.run([*probing.SSH, node.address, "true"], b"", seconds)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return code == 0


def _program(name, network):
    """What a node is told to run: its length in a line, then the probe and the check-up."""
    text = "import types\n"
    for module in (probe, checkup):
        short = module.__name__.rpartition(".")[2]
        source = Path(module.__file__).read_text(encoding="utf-8")
        text += f"{short} = types.ModuleType('{short}')\nexec({source!a}, {short}.__dict__)\n"
    text += f"checkup.serve(probe, {name!r}, {network!r})\n"
    return f"{len(text)}\n{text}".encode("ascii")
