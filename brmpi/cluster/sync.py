"""``brmpi sync``: the checkout, and nothing else, on every node that does not share its folder; installed there."""

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import brmpi
from brmpi.arguments import Parser
from brmpi.cluster import inventory, probing, table
from brmpi.cluster.children import Children
from brmpi.errors import BadInput, Fault

MARK = ".brmpi-sync"  # on a node: names of the files that came from here; with a token behind it: who sees this folder
PATIENCE = 20.0  # s for a question to a node


class NotDone(Exception):
    """A step that failed on a node; the message is the reason, with what to do about it."""


def main(argv):
    """``brmpi sync``: returns 0, or 1 if a node has not got everything.

    Parameters
    ----------
    argv : list of str

    Raises
    ------
    BadInput : a mistake on the command line or in the inventory, no checkout, no git or no rsync here
    Fault : this folder cannot be written to
    """
    parser = Parser(prog="brmpi sync", description="Send this checkout to nodes that do not share its folder, to the "
                    "same path, and run make install there. Whatever else is in that folder stays.")
    parser.add_argument("nodes", metavar="NODE", nargs="*", help="nodes to send to (all)")
    parser.add_argument("--no-install", action="store_true", help="send only")
    parser.add_argument("--timeout", metavar="S", type=float, default=900.0,
                        help="limit of time of a step on a node [s] (900)")
    inventory.options(parser)
    args = parser.parse_args(argv)
    if not 0 < args.timeout < threading.TIMEOUT_MAX:
        raise BadInput(f"--timeout = {args.timeout:g}: must be > 0 s")
    known = inventory.load(args.hostfiles, args.inventory)
    asked = [known.node(name) for name in dict.fromkeys(args.nodes)] or known.nodes
    nodes = [node for node in asked if not inventory.is_local(node)]
    if not nodes:
        print("There is no other node to send to.")
        return 0
    folder = checkout()
    if shutil.which("rsync") is None:
        raise BadInput("brmpi sync: rsync is not installed here: apt-get install rsync")
    turn = Sync(folder, files(folder), args.timeout, not args.no_install)
    before = signal.signal(signal.SIGTERM, _terminated)
    try:
        rows = turn.run(nodes)
    finally:
        signal.signal(signal.SIGTERM, before)
    headings = dict.fromkeys(("node", "files", "install"), "left")
    table.show(headings, [[name, *row] for name, row in rows.items()])
    bad = [name for name, row in rows.items() if any(word.startswith("failed") for word in row)]
    if bad:
        print(f"{len(bad)} of {len(rows)} nodes lack something; mend it, then: brmpi sync {' '.join(bad)}",
              file=sys.stderr)
    return 1 if bad else 0


def _terminated(number, frame):
    sys.exit(128 + number)


def checkout():
    """The folder that this brmpi runs from.

    Raises
    ------
    BadInput : it runs from an installed package
    """
    folder = Path(brmpi.__file__).resolve().parent.parent
    if not (folder / "setup.cfg").exists():
        raise BadInput(f"brmpi sync: {folder} is no checkout of brmpi: run it from the environment of one")
    return folder


def files(folder):
    """What a checkout consists of: the files that git tracks, and new ones that it does not ignore.

    Parameters
    ----------
    folder : Path

    Returns
    -------
    list of str, paths in the folder, in order

    Raises
    ------
    BadInput : git is not installed, does not know this folder, or lists a name that is no printable text
    """
    command = ["git", "-C", str(folder), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        told = subprocess.run(command, capture_output=True)
    except OSError:
        raise BadInput("brmpi sync: git, which knows what belongs to the checkout, is not installed here: "
                       "apt-get install git") from None
    if told.returncode or not (folder / ".git").exists():
        said = told.stderr.decode(errors="replace").strip().partition("\n")[0] or "it has no .git"
        raise BadInput(f"brmpi sync: {folder} is no checkout of git, which tells what to send: {said}")
    names = {name for name in os.fsdecode(told.stdout).split("\0") if name and not name.startswith(MARK)}
    odd = next((name for name in sorted(names) if not name.isprintable()), None)
    if odd is not None:
        raise BadInput(f"brmpi sync: {odd!a}: a file's name must be printable text to be sent: rename it")
    # what is deleted here is still in git's index; a folder is another repository inside this one
    return sorted(name for name in names if os.path.lexists(folder / name) and not _is_folder(folder / name))


def _is_folder(path):
    return path.is_dir() and not path.is_symlink()


class Sync:
    """One turn over the nodes.

    Parameters
    ----------
    folder : Path, the checkout, here and there
    files : list of str, what is sent
    seconds : float, limit of time of a step on a node [s]
    install : bool, whether to install there
    """

    def __init__(self, folder, files, seconds, install):
        self.folder, self.files, self.seconds, self.install = folder, files, seconds, install
        self.children = Children()
        self.token = f"{MARK}-{uuid.uuid4().hex}"

    def run(self, nodes):
        """Find out who shares which folder; send to one node of each folder that is not this one.

        Parameters
        ----------
        nodes : list of inventory.Node

        Returns
        -------
        dict, node name: what became of its files and of its install, two str

        Raises
        ------
        Fault : this folder cannot be written to
        """
        here = self.folder / self.token
        try:
            here.touch()
        except OSError as error:
            raise Fault(f"{here}: cannot be written: {error.strerror}") from error
        with ThreadPoolExecutor(len(nodes)) as pool:
            try:
                rows = dict(zip((node.name for node in nodes), pool.map(self._first, nodes)))
                apart = [node for node in nodes if rows[node.name] is None]
                names = [node.name for node in apart]
                rows |= dict(zip(names, pool.map(lambda node: self._second(node, names), apart)))
                alone = [node for node in apart if rows[node.name] is None]
                rows |= dict(zip((node.name for node in alone), pool.map(self._third, alone)))
            except BaseException:
                self.children.stop()
                raise
            finally:
                here.unlink(missing_ok=True)
        return {node.name: rows[node.name] for node in nodes}

    def _first(self, node):
        """Whether a node shares this folder; where not, it leaves a mark in its own."""
        place = shlex.quote(str(self.folder))
        script = (f"mkdir -p {place} && cd {place} || exit; if [ -e {self.token} ]; then echo {MARK} shared; "
                  f"elif command -v rsync >/dev/null; then : >{self.token}.{node.name}; else echo {MARK} bare; fi")
        try:
            said = self._ask(node, script)
            if "bare" in said:
                raise NotDone(f"rsync is not installed there: ssh -t {probing.login(node)} sudo apt-get install rsync")
        except NotDone as failure:
            return f"failed: {failure}", "-"
        return ("shared with this machine: nothing to do", "-") if "shared" in said else None

    def _second(self, node, names):
        """Whether a node shares its folder with one that comes before it."""
        script = f"cd {shlex.quote(str(self.folder))} && for f in {self.token}.*; do echo {MARK} $f; done"
        try:
            said = self._ask(node, script)
        except NotDone as failure:
            return f"failed: {failure}", "-"
        seen = {word.rpartition(".")[2] for word in said}
        first = next((name for name in names if name in seen), node.name)
        return None if first == node.name else (f"shared with {first}", "-")

    def _third(self, node):
        """Remove what was sent once and is no more, send, and install."""
        sent = None
        try:
            removed = self._tidy(node)  # first: a folder may have become a file
            changed = self._send(node)
            sent = f"sent {len(self.files)}, {changed} new or changed" + (f", {removed} removed" if removed else "")
            done = self._install(node) if self.install else "-"
        except NotDone as failure:
            return (sent, f"failed: {failure}") if sent else (f"failed: {failure}", "-")
        finally:
            with contextlib.suppress(NotDone):
                self._ask(node, f"rm -f {shlex.quote(str(self.folder))}/{self.token}.*")
        return sent, done

    def _send(self, node):
        # By content, and with the node's own time: make there compares with when it installed there.
        address = f"[{node.address}]" if ":" in node.address else node.address
        target = f"{node.user}@{address}" if node.user else address
        command = ["rsync", "-rlpcs", "--files-from=-", "--from0", "--out-format=%n", "-e", shlex.join(probing.SSH),
                   f"{self.folder}/", f"{target}:{self.folder}/"]
        given = os.fsencode("\0".join(self.files))
        return sum(not line.endswith("/") for line in self._run(node, command, given).splitlines())

    def _tidy(self, node):
        script = (f"cd {shlex.quote(str(self.folder))} && LC_ALL=C sort >{MARK}.new && touch {MARK} || exit; "
                  f"LC_ALL=C comm -23 {MARK} {MARK}.new | while IFS= read -r f; do rm -f -- \"./$f\" && "
                  f"echo {MARK} gone; rmdir -p -- \"$(dirname \"./$f\")\" 2>/dev/null; done; mv {MARK}.new {MARK}")
        return len(self._ask(node, script, os.fsencode("".join(f"{name}\n" for name in self.files))))

    def _install(self, node):
        # timeout runs there: make would go on when ssh ends here
        script = (f"cd {shlex.quote(str(self.folder))} && timeout {self.seconds:g} make install || {{ code=$?; "
                  f"[ $code != 124 ] || echo 'it took longer than {self.seconds:g} s' >&2; exit $code; }}")
        command = [*probing.SSH, probing.login(node), f"sh -c {shlex.quote(script)}"]
        lines = self._run(node, command, seconds=self.seconds + 10).strip().splitlines()
        done = "done: " + re.sub(r"^brmpi is ", "", lines[-1]) if lines else "done"
        if node.python and self.folder not in Path(node.python).parents:
            done += f"; but programs there run with {node.python}, which make install leaves as it is"
        return done

    def _ask(self, node, script, given=b""):
        """Answers of a shell script: what stands behind the mark in each line."""
        out = self._run(node, [*probing.SSH, probing.login(node), f"sh -c {shlex.quote(script)}"], given, PATIENCE)
        return re.findall(rf"^{re.escape(MARK)} (\S+)$", out, re.M)

    def _run(self, node, command, given=b"", seconds=None):
        seconds = seconds or self.seconds
        try:
            code, out, err = self.children.run(command, given, seconds)
        except subprocess.TimeoutExpired:
            reason = f"no answer within {seconds:.0f} s"
            raise NotDone(f"{reason} ({probing.advice(node, reason)})") from None
        except OSError as error:
            raise NotDone(f"{error.filename or 'a process'} cannot be started here: {error.strerror}") from None
        if code:
            raise NotDone(_why(node, code, out, err))
        return out


def _why(node, code, out, err):
    echoes = re.compile(r"rsync error|rsync: connection unexpectedly closed|make(\[\d+\])?: \*\*\* \[")
    reason = probing.complaint(code, "\n".join(line for line in err.splitlines() if not echoes.match(line)) or out)
    if re.search(r"mkdir.*(denied|Permission)|Read-only", reason):
        return f"{reason} (make the folder there and give it to {node.user or 'yourself'})"
    if re.search(r"\bmake: (command )?not found|make: No such", reason):
        return f"make is not installed there: ssh -t {probing.login(node)} sudo apt-get install make"
    return f"{reason} ({probing.advice(node, reason)})" if code == 255 else reason
