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
CHUNK, PIECES = 1 << 16, 4  # bytes of a log that are passed on at once, and how often in one look
LINES, KEPT = 2000, 8 << 20  # pieces and bytes of a log that Redis keeps
BEHIND = 4 << 20  # bytes that a job may have printed and Redis has not yet; of more, the middle is left out
REST = 0.3  # seconds until the next supervisor is made: entering a control group holds up all forks, mpirun's too
GRACE = 45.0  # seconds that a job has after it was asked to stop
QUIET, PAUSE, LONGEST = 4, 0.01, 1.0  # looks in a row that find nothing left; seconds between them, more and more


class Attempt:
    """A job that runs here.

    Parameters
    ----------
    id, fence : str
    told : dict, of the journal
    """

    def __init__(self, id, fence, told):
        self.id, self.fence, self.told = id, fence, told
        self.sent, self.pieces, self.asked, self.door = None, 0, None, None
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


class Sweep:
    """What is left of an attempt here is to end.

    Parameters
    ----------
    tag : str, that its processes carry; "-" if not known
    group : str, its control group; empty if it has none
    """

    def __init__(self, tag, group):
        self.tag, self.group = tag, group
        self.quiet, self.pause, self.due = 0, PAUSE, 0.0  # quiet: what was being started does not carry its tag yet

    def look(self):
        """Kill what is there.

        Returns
        -------
        bool, whether nothing was for a while
        """
        left = attempts.tagged(self.tag) if self.tag != "-" else []
        for pid in left:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        self.quiet = 0 if left or not cage.end(self.group) else self.quiet + 1
        self.pause = PAUSE if self.quiet else min(1.2 * self.pause, LONGEST)
        self.due = time.monotonic() + self.pause
        return self.quiet >= (1 if self.tag == "-" else QUIET)


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
        self.running, self.spares, self.sweeps, self.troubles = {}, [], {}, {}
        self.inbox, self.store, self.ending = queue.Queue(), None, False
        self.ears, self.mouth = os.pipe()
        os.set_blocking(self.mouth, False)
        os.set_blocking(self.ears, False)
        self.due, self.beat, self.run, self.registered = 0.0, BEAT, None, False
        self.refill = None  # when another supervisor is to be made

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
            except (Away, BadInput, OSError) as error:
                self._lost(error)
            self._wait()
        for process, group in self.spares:
            process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(1)
            cage.end(group)
        with contextlib.suppress(Away, BadInput):
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
        self._say("", f"{error}; what runs goes on")
        self.store, self.registered = None, False
        self.due = time.monotonic() + AGAIN

    def _say(self, id, text):
        """Tell the terminal, once while it stays the same."""
        if self.troubles.get(id) != text:
            print("brmpi agent: " + (f"job {id}: " if id else "") + text, file=sys.stderr, flush=True)
            self.troubles[id] = text

    @contextlib.contextmanager
    def _guarded(self, id):
        """What goes wrong with one job does not keep the others, nor this node's signs of life."""
        try:
            yield
        except (Refused, OSError, ValueError, KeyError, TypeError) as error:
            self._say(id, f"{type(error).__name__}: {error}" if not isinstance(error, Refused) else str(error))
        if self.registered and time.monotonic() >= self.due:
            self._beat()

    def _wait(self):
        """Until something happens, or the next thing is due."""
        now = time.monotonic()
        due = [self.due, *(sweep.due for sweep in self.sweeps.values() if self.registered)]
        if self.running:
            due.append(now + STREAM)
        if self.refill is not None:
            due.append(self.refill)
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
        if self.refill is not None and time.monotonic() >= self.refill:
            self.refill = None
            self._spare()
        if self.store is None:
            if time.monotonic() < self.due:
                return
            self.store = Store(self.address)
        if not self.registered:
            self._register()
        while self.registered and not self.inbox.empty():
            text = self.inbox.get()
            with self._guarded(text.split()[1]):
                self._message(text)
        for pair, one in list(self.running.items()):
            with self._guarded(one.id):
                self._look(pair, one)
        for pair, sweep in list(self.sweeps.items()):
            if time.monotonic() >= sweep.due:
                with self._guarded(pair[0]):
                    if sweep.look():
                        self.store.call("confirm", *pair, self.name)
                        del self.sweeps[pair]
        if self.registered and time.monotonic() >= self.due:
            self._beat()

    # ---- Redis ---------------------------------------------------------------------------------------------------

    def _register(self):
        """Tell Redis what there is; after that it tells what to do."""
        last = self.store.memory.read()
        about = {**self.node, "boot": attempts.boot(), "agent": self.key, "epoch": last.get("epoch", ""),
                 "epochs": last.get("epochs", []),
                 "attempts": [one.word for one in self.running.values()],
                 **{name: last.get(name, 0) for name in ("count", "seq", "fence")}}
        if last:
            self.store.hello(last)
        for one in self.running.values():
            with self._guarded(one.id):
                self._adopt(one.id, one.fence, one.told)
        for id, fence in self.journal.all() if self.store.paused() else ():  # what was over, and may be forgotten
            told = self.journal.read(id, fence)
            if told.get("end") and told.get("told") in ("ok", "late") and (id, fence) not in self.running:
                with self._guarded(id):
                    self._adopt(id, fence, told)
        while not self.inbox.empty():
            self.inbox.get()
        self.beat = float(self.store.call("register", self.name, json.dumps(about)))
        self.registered, self.run = True, self.store.seen["run"]
        self._note()
        self.due = time.monotonic() + self.beat
        self.troubles.pop("", None)
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
                self._say(one.id, "is no longer this node's: ended")
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
            except (Away, BadInput, OSError):
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
            why = f"{self.name} could not begin it: {error}"
            self._finish(id, fence, {"result": "refused", "code": 1, "why": why}, {})
            return
        self.running[id, fence] = one
        self.refill = time.monotonic() + REST
        self._note()

    def _begin(self, id, fence, record):
        """Hand an attempt to a supervisor; the journal knows it before."""
        told, need = json.loads(record["spec"]), json.loads(record["class"])
        process, group = self.spares.pop() if self.spares else self._supervisor()
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
            "again": int(record.get("attempt") or 1) > 1,
            "log": str(self.journal.file(id, fence, "log")),
            "end": str(self.journal.file(id, fence, "end")),
        }
        entry = {"pid": process.pid, "start": attempts.started(process.pid), "record": record, "group": group}
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
        """A process that waits for a job, in a control group of its own: both take a while, and are made in advance."""
        process = subprocess.Popen([sys.executable, "-m", "brmpi.spool.supervisor"], stdin=subprocess.PIPE, bufsize=0,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        return process, cage.enter(f"{self.name}-{self.key[:8]}-{process.pid}", process.pid)

    def _spare(self):
        for process, group in self.spares:
            if process.poll() is not None:
                cage.end(group)
        self.spares = [one for one in self.spares if one[0].poll() is None]
        with self._guarded(""):
            while len(self.spares) < 1:
                self.spares.append(self._supervisor())

    def _recover(self):
        """Attempts of an agent before this one."""
        for id, fence in self.journal.all():
            told = self.journal.read(id, fence)
            if not told.get("told") and "pid" in told:
                self.running[id, fence] = Attempt(id, fence, told)

    def _look(self, pair, one):
        """See whether a job has ended, and pass on what it says."""
        alive = one.alive
        if not alive:
            one.close()
        self._pass_on(one, PIECES if alive else BEHIND // CHUNK + 1)
        if not alive:
            end = self.journal.read(*pair).get("end")
            end = end or {"result": "lost", "code": 137, "why": "what supervised it has ended, and said nothing"}
            if one.asked is not None and end["result"] == "lost":
                end = {**end, "result": "failed"}
            self._finish(*pair, end, one.told)
        elif one.asked is not None and time.monotonic() - one.asked > GRACE:
            self._end_all(one)

    def _finish(self, id, fence, end, told):
        """Say how an attempt ended, and take down that it was heard."""
        said = self.store.call("finish", id, fence, end["result"], end["code"], end["why"])
        if said != "ok" and told.get("record"):  # this Redis may know of an earlier state only
            said = self._adopt(id, fence, {**told, "end": end})
        if one := self.running.pop((id, fence), None):
            one.close()
            if end["result"] == "done":
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
            self._say(id, f"its end cannot be written down: {error}")

    def _stop(self, one):
        """Ask a job to save and end."""
        if one.asked is None:
            one.asked = time.monotonic()
            if one.alive:
                with contextlib.suppress(OSError):
                    os.kill(one.told["pid"], signal.SIGTERM)

    def _end_all(self, one):
        """Kill what supervises a job, and what carries its tag; a sweep finds the rest."""
        if one.alive:
            with contextlib.suppress(OSError):
                os.kill(one.told["pid"], signal.SIGKILL)
        Sweep(one.told["record"].get("tag", "-"), "").look()

    def _kill(self, id, fence, tag):
        """See to it that nothing of an attempt is left here, and then say so."""
        if (id, fence) in self.sweeps:
            return
        mine = [one for one in self.running.values() if one.id == id and fence in (one.fence, "0")]
        for one in mine:
            if not one.alive:  # it has ended by itself, in time
                self._look((one.id, one.fence), one)
        mine = [one for one in mine if (one.id, one.fence) in self.running]
        known = mine[0].fence if mine else fence  # "0": all attempts of a job whose record was damaged
        if known != "0" and self.store.call("doomed", id, known, self.name, int(bool(mine))) == "no":
            return  # it was given up, or its record was lost, and it is taken back
        for one in mine:
            self._end_all(one)
            self.running.pop((one.id, one.fence)).close()
            end = self.journal.read(one.id, one.fence).get("end")
            if end:  # in the meantime
                self._finish(one.id, one.fence, end, one.told)
            else:
                with self._noted(id):
                    self.journal.write(one.id, one.fence, **{**one.told, "told": "killed"})
        self.sweeps[id, fence] = Sweep(tag, self.journal.read(id, fence).get("group", ""))

    def _pass_on(self, one, pieces):
        """What a job has printed since: some of it."""
        file = self.journal.file(one.id, one.fence, "log")
        if one.sent is None:  # an agent before this one may have begun
            last = self.store.ask("xrevrange", f"{PREFIX}log:{one.id}", count=1)
            told = last[0][1] if last else {}
            one.sent = int(told["end"]) if told.get("fence") == one.fence and "end" in told else 0
        with contextlib.suppress(FileNotFoundError):
            size = file.stat().st_size
            if size - one.sent > BEHIND:
                left_out, one.sent = size - BEHIND // 2 - one.sent, size - BEHIND // 2
                self._add(one, f"\n… {left_out:,} bytes are left out here: all of it is in {file} on {self.name}\n")
            while size > one.sent and pieces > 0:
                with file.open("rb") as log:
                    log.seek(one.sent)
                    piece = log.read(CHUNK)
                one.sent, pieces = one.sent + len(piece), pieces - 1
                self._add(one, piece.decode(errors="replace"))

    def _add(self, one, text):
        """A piece of a log, into Redis, which keeps the last of them."""
        one.pieces += 1
        most = max(1, min(LINES, KEPT * one.pieces // max(one.sent, 1)))
        entry = {"fence": one.fence, "end": one.sent, "text": text}
        self.store.ask("xadd", f"{PREFIX}log:{one.id}", entry, maxlen=most, approximate=True)


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
