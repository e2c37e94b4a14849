"""``brmpi agent``: one on each node. It takes what is placed there, watches it, and says how it ended.

Whatever it does is written down before (``attempts``): an agent that is killed, or comes back after an outage of Redis,
goes on where it was, and the jobs that it watches never notice.
"""

import contextlib
import json
import os
import queue
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

from brmpi import speeds
from brmpi.arguments import Parser
from brmpi.cluster import atomic, inventory
from brmpi.errors import BadInput, Fault
from brmpi.spool import attempts, cage, places, spec
from brmpi.spool.store import PREFIX, Away, Refused, Store

BEAT = 5.0  # seconds between two signs of life, unless the spool says otherwise
LISTEN = 20  # seconds that a question for messages lasts
AGAIN = 1.0  # seconds before Redis is tried again
STREAM = 0.25  # seconds between looks at what running jobs print
CHUNK = 1 << 16  # bytes of a log that are passed on at once
LINES = 2000  # such pieces of a log that Redis keeps
GRACE = 45.0  # seconds that a job has after it was asked to stop
SWEEPS = 200  # looks until nothing of an attempt is left
QUIET, PAUSE = 4, 0.01  # so many looks in a row that find nothing, and seconds between them


class Attempt:
    """A job that runs here.

    Parameters
    ----------
    id, fence : str
    told : dict, of the journal
    """

    def __init__(self, id, fence, told):
        self.id, self.fence, self.told = id, fence, told
        self.sent, self.asked, self.door = None, None, None
        with contextlib.suppress(OSError):
            self.door = os.pidfd_open(told["pid"])

    @property
    def word(self):
        """As Redis names it."""
        return f"{self.id} {self.fence}"

    @property
    def alive(self):
        """Whether its supervisor runs."""
        return self.told["start"] is not None and attempts.started(self.told["pid"]) == self.told["start"]

    def close(self):
        """Give the kernel's handle back."""
        if self.door is not None:
            os.close(self.door)
            self.door = None


class Agent:
    """A node's agent.

    Parameters
    ----------
    node : dict: ``name``, ``slots``, ``memory`` [MiB], ``tags``, ``speed``, ``address``
    address : places.Address
    """

    def __init__(self, node, address):
        self.node, self.address, self.name = node, address, node["name"]
        self.journal = attempts.Journal(places.state() / "agent" / node["name"])
        self.key = uuid.uuid4().hex
        self.running, self.spares, self.confirming = {}, [], {}
        self.inbox, self.store, self.ending = queue.Queue(), None, False
        self.ears, self.mouth = os.pipe()
        os.set_blocking(self.mouth, False)
        os.set_blocking(self.ears, False)
        self.due, self.beat, self.run, self.registered = 0.0, BEAT, None, False

    # ---- life ----------------------------------------------------------------------------------------------------

    def main(self):
        """Until a signal says to end. Jobs go on.

        Returns
        -------
        int, the exit code
        """
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._end)
        signal.signal(signal.SIGCHLD, lambda *_: self._wake())
        self._recover()
        self._spare()
        threading.Thread(target=self._listen, daemon=True).start()
        while not self.ending:
            try:
                self._turn()
            except Away as error:
                self._lost(error)
            except Refused as error:
                print(f"brmpi agent: {error}", file=sys.stderr, flush=True)
                self.due = time.monotonic() + AGAIN
            self._wait()
        for one in self.spares:
            one.stdin.close()
        with contextlib.suppress(Away, Refused):
            if self.store:
                self.store.call("leave", self.name, self.key)
        return 0

    def _end(self, *_):
        self.ending = True
        self._wake()

    def _wake(self):
        with contextlib.suppress(OSError):
            os.write(self.mouth, b".")

    def _lost(self, error):
        if self.registered:
            print(f"brmpi agent: {error}; what runs goes on", file=sys.stderr, flush=True)
        self.store, self.registered = None, False
        self.due = time.monotonic() + AGAIN

    def _wait(self):
        """Until something happens, or the next thing is due."""
        now = time.monotonic()
        due = [self.due]
        if self.running:
            due.append(now + STREAM)
        poll = select.poll()
        poll.register(self.ears, select.POLLIN)
        for one in self.running.values():
            if one.door is not None:
                poll.register(one.door, select.POLLIN)
        if self.inbox.empty() or not self.registered:
            poll.poll(max(0.0, min(due) - now) * 1000)
        with contextlib.suppress(OSError):
            os.read(self.ears, 4096)

    def _turn(self):
        """Do what is due."""
        if self.store is None:
            if time.monotonic() < self.due:
                return
            self.store = Store(self.address)
        if not self.registered:
            self._register()
        while self.registered and not self.inbox.empty():
            self._message(self.inbox.get())
        self._look()
        if time.monotonic() >= self.due:
            self._beat()

    # ---- Redis ---------------------------------------------------------------------------------------------------

    def _register(self):
        """Tell Redis what there is; after that it tells what to do."""
        last = self.store.memory.read()
        about = {**self.node, "boot": attempts.boot(), "agent": self.key, "epoch": last.get("epoch", ""),
                 "attempts": [one.word for one in self.running.values()],
                 **{name: last.get(name, 0) for name in ("count", "seq", "fence")}}
        for one in self.running.values():
            self._adopt(one.id, one.fence, one.told)
        for id, fence in self.journal.all() if self.store.paused() else ():  # what was over, and may be forgotten
            told = self.journal.read(id, fence)
            if told.get("end") and told.get("told") == "ok" and (id, fence) not in self.running:
                self._adopt(id, fence, told)
        while not self.inbox.empty():
            self.inbox.get()
        self.beat = float(self.store.call("register", self.name, json.dumps(about)))
        self.registered, self.run = True, self.store.seen["run"]
        self._note()
        self.due = time.monotonic() + self.beat
        self.journal.clear()

    def _note(self):
        self.store.remember()

    def _beat(self):
        said = self.store.call("beat", self.name, self.key, *(one.word for one in self.running.values()))
        self.due = time.monotonic() + self.beat
        if said[0] == "unknown" or self.store.seen["run"] != self.run:
            self.registered = False
            self._register()
            return
        self._note()
        for word in said[1:]:
            one = self.running.get(tuple(word.split()))
            if one and self._adopt(one.id, one.fence, one.told) != "ok":
                print(f"brmpi agent: job {one.id}: is no longer this node's: ended", file=sys.stderr, flush=True)
                self._kill(one.id, one.fence, one.told["record"].get("tag", "-"))

    def _adopt(self, id, fence, told):
        """Tell Redis of an attempt that it may have lost."""
        record = {name: value for name, value in told["record"].items() if name not in ("state", "fence")}
        alloc = {name: f"{slots} {memory}" for name, slots, memory in hosts(told["record"])}
        end = told.get("end") or {}
        more = {"result": end["result"], "code": end["code"], "why": end["why"]} if end else {}
        return self.store.call(
            "adopt", json.dumps({"id": id, "fence": fence, "record": record, "alloc": alloc, **more})
        )

    def _listen(self):
        """In a thread of its own: take messages as they come."""
        store = None
        while not self.ending:
            try:
                store = store or Store(self.address, LISTEN + 10, hello=False)
                told = store.ask("blpop", f"{PREFIX}inbox:{self.name}", LISTEN)
                if told:
                    self.inbox.put(told[1])
                    self._wake()
            except (Away, Refused, BadInput):
                store = None
                time.sleep(AGAIN)

    def _message(self, text):
        word, id, fence, tag = (*text.split(), "-")[:4]
        if word == "run":
            self._run(id, fence)
        elif word == "kill":
            self._kill(id, fence, tag)
        elif word == "stop" and (one := self.running.get((id, fence))):
            self._stop(one)

    # ---- jobs ----------------------------------------------------------------------------------------------------

    def _run(self, id, fence):
        """Take an attempt and begin it."""
        if (id, fence) in self.running:
            return
        told = self.journal.read(id, fence)
        said = self.store.call("started", id, fence, self.name)
        if not said:
            return
        record = dict(zip(said[::2], said[1::2]))
        if told.get("end"):  # it was run already, and Redis has lost that
            self._finish(id, fence, told["end"], told)
            return
        if told:  # it was begun here and killed, and Redis has lost that: it does not begin twice
            self._finish(id, fence, {"result": "lost", "code": 255, "why": "it was given up before"}, {})
            return
        try:
            one = self._begin(id, fence, record)
        except (OSError, ValueError, KeyError) as error:
            self._finish(
                id, fence, {"result": "lost", "code": 1, "why": f"{self.name} could not begin it: {error}"}, {}
            )
            return
        self.running[id, fence] = one
        self._spare()
        self._note()

    def _begin(self, id, fence, record):
        """Hand an attempt to a supervisor; the journal knows it before."""
        told, need = json.loads(record["spec"]), json.loads(record["class"])
        process = self.spares.pop() if self.spares else self._supervisor()
        parts = hosts(record)
        order = {
            "argv": spec.words(told, id, record.get("index", "")),
            "folder": told["folder"],
            "umask": told["umask"],
            "hosts": ",".join(f"{name}:{slots}" for name, slots, _ in parts),
            "ranks": need["ranks"],
            "threads": need["threads"],
            "limit": float(record.get("limit") or 0),
            "tag": record["tag"],
            "out": spec.folder_of(told, id),
            "log": str(self.journal.file(id, fence, "log")),
            "end": str(self.journal.file(id, fence, "end")),
        }
        entry = {"pid": process.pid, "start": attempts.started(process.pid), "record": record,
                 "group": cage.enter(record["tag"], process.pid)}
        try:
            self.journal.write(id, fence, **entry)
        except OSError:
            process.stdin.close()  # it ends
            raise
        try:
            process.stdin.write((json.dumps(order) + "\n").encode())
            process.stdin.close()
        except OSError:
            pass  # it has just died: that will be seen
        return Attempt(id, fence, entry)

    def _supervisor(self):
        return subprocess.Popen([sys.executable, "-m", "brmpi.spool.supervisor"], stdin=subprocess.PIPE, bufsize=0,
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)

    def _spare(self):
        self.spares = [one for one in self.spares if one.poll() is None]
        while len(self.spares) < 1:
            self.spares.append(self._supervisor())

    def _recover(self):
        """Attempts of an agent before this one."""
        for id, fence in self.journal.all():
            told = self.journal.read(id, fence)
            if not told.get("told") and "pid" in told:
                self.running[id, fence] = Attempt(id, fence, told)

    def _look(self):
        """See which jobs have ended, and pass on what the others say."""
        for pair, one in list(self.running.items()):
            alive = one.alive
            self._pass_on(one)
            if not alive:
                end = self.journal.read(*pair).get("end")
                if not end:
                    self._sweep(one.told["record"].get("tag", "-"), one.told.get("group", ""))
                    end = {"result": "lost", "code": 137, "why": "what supervised it was killed"}
                if one.asked is not None and end["result"] == "lost":
                    end = {**end, "result": "failed"}
                self._finish(*pair, end, one.told)
            elif one.asked is not None and time.monotonic() - one.asked > GRACE:
                self._end_all(one)

    def _finish(self, id, fence, end, told):
        """Say how an attempt ended, and take down that it was heard."""
        code, why = end["code"], end["why"]
        said = self.store.call("finish", id, fence, end["result"], code, why)
        if one := self.running.pop((id, fence), None):
            one.close()
            cage.end(one.told.get("group", ""))
        if told:
            with self._noted(id):
                self.journal.write(id, fence, **{**told, "told": said})
                if not self.journal.file(id, fence, "end").exists():
                    attempts.put(self.journal.file(id, fence, "end"), end)
        self._note()

    @contextlib.contextmanager
    def _noted(self, id):
        """A full disk keeps nothing that is over from being told; an agent after this one asks once more."""
        try:
            yield
        except OSError as error:
            print(f"brmpi agent: job {id}: its end cannot be written down: {error}", file=sys.stderr, flush=True)

    def _stop(self, one):
        """Ask a job to save and end."""
        if one.asked is None:
            one.asked = time.monotonic()
            if one.alive:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(one.told["pid"], signal.SIGTERM)

    def _end_all(self, one):
        if one.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(one.told["pid"], signal.SIGKILL)
        self._sweep(one.told["record"].get("tag", "-"), one.told.get("group", ""))

    def _kill(self, id, fence, tag):
        """See to it that nothing of an attempt is left here, and say so."""
        pair = (id, fence)
        for other in [one for one in self.running.values() if one.id == id and fence in (one.fence, "0")]:
            self._end_all(other)
            self.running.pop((other.id, other.fence)).close()
            with self._noted(id):
                self.journal.write(other.id, other.fence, **{**other.told, "told": "killed"})
        if self._sweep(tag):
            self.store.call("confirm", *pair, self.name)

    def _sweep(self, tag, group=""):
        """Kill what carries a tag or is in a group until nothing does for a while; whether that was reached."""
        quiet = 0  # looks that found nothing: what was being started does not carry its tag yet
        for _ in range(SWEEPS):
            left = attempts.tagged(tag) if tag != "-" else []
            quiet = 0 if left or not cage.end(group) else quiet + 1
            if quiet == QUIET or (tag == "-" and quiet):
                return True
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(PAUSE)
        return False

    def _pass_on(self, one):
        """What a job has printed since."""
        file = self.journal.file(one.id, one.fence, "log")
        if one.sent is None:  # an agent before this one may have begun
            last = self.store.ask("xrevrange", f"{PREFIX}log:{one.id}", count=1)
            told = last[0][1] if last else {}
            one.sent = int(told["end"]) if told.get("fence") == one.fence and "end" in told else 0
        with contextlib.suppress(OSError):
            while file.stat().st_size > one.sent:
                with file.open("rb") as log:
                    log.seek(one.sent)
                    piece = log.read(CHUNK)
                entry = {"fence": one.fence, "end": one.sent + len(piece), "text": piece.decode(errors="replace")}
                self.store.ask("xadd", f"{PREFIX}log:{one.id}", entry, maxlen=LINES, approximate=True)
                one.sent += len(piece)


def hosts(record):
    """Where an attempt runs.

    Parameters
    ----------
    record : dict, the job's

    Returns
    -------
    list of (node, slots, memory [MiB])
    """
    return [(name, int(slots), int(memory)) for name, slots, memory in
            (part.split() for part in record["hosts"].split(","))]


def node_here(folder, name=None, slots=None, memory=None, tags=()):
    """This computer as a node: by the inventory and its probe, else by what the kernel says.

    Parameters
    ----------
    folder : path of the hostfiles
    name : str, of the node; found by its address if not given
    slots : int; cores if not given
    memory : int [bytes]; all of it if not given
    tags : sequence of str, further ones

    Returns
    -------
    dict, for ``Agent``

    Raises
    ------
    BadInput : no such node
    """
    known = inventory.load(folder)
    if name:
        node = known.node(name)
    else:
        node = next((node for node in known.nodes if inventory.is_local(node)), None)
        if node is None:
            raise BadInput(f"{known.file}: no node has an address of this computer: --name NODE")
    facts = {}
    with contextlib.suppress(BadInput):
        facts = speeds.records(folder).get(node.name) or {}
    cores = slots or (facts.get("cores") or {}).get("usable") or node.cores or len(os.sched_getaffinity(0))
    total = memory or (facts.get("ram") or {}).get("total") or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    machine = facts.get("architecture") or os.uname().machine
    words = {node.name, machine, *node.roles, *tags}
    if node.accelerator or facts.get("accelerator") or facts.get("opencl"):
        words.add("accelerator")
    for word in words:
        if not spec.TAG.fullmatch(word):
            raise BadInput(f"--tags {word!r}: must be letters, digits, -, _, . and +")
    speed = speeds.value(facts, "compute") if facts and "failed" not in facts else None
    return {"name": node.name, "slots": int(cores), "memory": int(total) // 2**20, "tags": " ".join(sorted(words)),
            "speed": float(speed or 0), "address": node.address}


def install(words, hostfiles):
    """Write a unit of systemd for this user.

    Parameters
    ----------
    words : list of str, further ones of ``brmpi agent``
    hostfiles : path of the hostfiles

    Returns
    -------
    int, the exit code

    Raises
    ------
    Fault : it cannot be written
    """
    base = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    unit = base / "systemd/user/brmpi-agent.service"
    kept = {"BRMPI_HOSTFILES": str(Path(hostfiles).absolute()), "PATH": os.environ.get("PATH", os.defpath)}
    kept |= {name: os.environ[name] for name in ("BRMPI_SPOOL", "PYTHONPATH") if name in os.environ}
    variables = "".join(f"Environment={_quoted(f'{name}={value}')}\n" for name, value in kept.items())
    command = " ".join(_quoted(word) for word in (sys.executable, "-m", "brmpi", "agent", *words))
    # KillMode: what supervises jobs goes on when the agent is stopped or started anew
    atomic.write(unit, "[Unit]\nDescription=brmpi agent: queued runs on this node\nAfter=network-online.target\n\n"
                 f"[Service]\nExecStart={command}\nWorkingDirectory={_quoted(str(Path.cwd()))}\n{variables}"
                 "Restart=always\nRestartSec=2\nKillMode=process\n\n[Install]\nWantedBy=default.target\n")
    print(f"{unit}: written. Now:\n  systemctl --user daemon-reload\n  systemctl --user enable --now brmpi-agent\n"
          "  loginctl enable-linger    # so that it runs while nobody is logged in")
    return 0


def _quoted(word):
    """A word as systemd reads it."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"'


def main(argv):
    """``brmpi agent``.

    Parameters
    ----------
    argv : list of str

    Returns
    -------
    int, the exit code

    Raises
    ------
    BadInput : a mistake on the command line or in the inventory
    Fault : another agent of this node runs here
    """
    parser = Parser(prog="brmpi agent", description="Take queued jobs on this node, until a signal says to end; what "
                    "runs then goes on, and the next agent watches it.")
    parser.add_argument(
        "--name", metavar="NODE", help="which node of the inventory this is (the one with an address of this computer)"
    )
    parser.add_argument("--slots", type=int, metavar="N", help="ranks that may run here at once (its cores)")
    parser.add_argument("--memory", metavar="SIZE", help="what jobs may have together, such as 3G (all)")
    parser.add_argument("--tags", metavar="WORDS", default="", help="what jobs may ask for, with commas between; its "
                        "roles, architecture and name are there already")
    parser.add_argument(
        "--install",
        action="store_true",
        help="write a unit of this user's systemd that runs it from the "
        "start of the computer on, and say how to switch it on",
    )
    parser.add_argument("--hostfiles", metavar="DIR", default=speeds.folder(),
                        help="folder of hostfiles and probes ($BRMPI_HOSTFILES, else ./hostfiles)")
    args = parser.parse_args(argv)
    if args.slots is not None and args.slots < 1:
        raise BadInput(f"--slots {args.slots}: must be >= 1")
    memory = spec.size(args.memory) if args.memory else None
    node = node_here(args.hostfiles, args.name, args.slots, memory, [word for word in args.tags.split(",") if word])
    address = places.address(args.hostfiles)
    if args.install:
        return install([word for word in argv if word != "--install"], args.hostfiles)
    folder = places.state() / "agent" / node["name"]
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    alone = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)  # a name that the kernel forgets with this process
    try:
        alone.bind(f"\0brmpi-agent-{os.getuid()}-{folder.absolute()}"[:100])
    except OSError:
        raise Fault(f"an agent of {node['name']} runs here already") from None
    if address.own:
        from brmpi.spool import server

        server.start(address)
    store = Store(address)
    print(f"brmpi agent: {node['name']}, {node['slots']} slots, {node['memory']} MiB, {node['tags']}; {address.url}"
          + (f"; paused: {why}" if (why := store.paused()) else ""), flush=True)
    return Agent(node, address).main()
