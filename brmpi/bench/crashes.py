"""The spool's crash matrix: random kills of everything, and what must hold after each (``make spool-crashes``).

Three nodes on this machine, each with an agent, a journal and jobs of its own under real mpiruns, one real Redis. A job
takes a lock for as long as it runs and writes down when it begins and ends: a second live attempt of a job cannot be
missed. Disks are filled where this user may mount one (root), and Redis's clock is set by ``bench/c/clock.c``.
"""

import argparse
import contextlib
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

from brmpi.bench import report
from brmpi.cluster import atomic
from brmpi.errors import Fault
from brmpi.results import provenance
from brmpi.spool import attempts, audit, places, server
from brmpi.spool.store import OPEN, PREFIX, Away, Refused, Store

NODES = {"alpha": "localhost", "beta": "127.0.0.1", "gamma": None}  # by what this machine calls itself
GANGS = 0.3  # of the jobs are over two nodes
SETTINGS = {"lease": 3, "claim": 2, "silent": 1.5, "gap": 1.5, "hold": 3}  # seconds: quick, so that kills are many
PATIENCE = 90.0  # seconds until everything is over
DISK = {"server": 256, None: 8}  # MiB of Redis's disk, and of a node's
CLOCK = Path("bench/c/build/clock.so")  # gives a program another clock
RESULTS, PAGE, MARKS = Path("bench/spool-crashes.json"), Path("docs/spool.md"), ("<!-- crashes -->", "<!-- end -->")
WORK = '''
import fcntl, os, sys, time
folder, seconds, code = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
if int(os.environ.get("OMPI_COMM_WORLD_RANK", 0)) == 0:
    name, _, fence = os.environ["BRMPI_JOB"].rpartition(".")
    id = name.partition("-")[2]
    def note(text):
        with open(f"{folder}/{id}.log", "a") as file:
            file.write(text + "\\\\n")
    lock = open(f"{folder}/{id}.lock", "w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        note(f"double {fence}")
    note(f"begin {fence} {os.getpid()}")
    if code == -9:
        os.kill(int(open(f"{folder}/../agent-{sys.argv[4]}").read()), 9)
    time.sleep(seconds)
    note(f"end {fence}")
else:
    time.sleep(seconds)
sys.exit(max(code, 0))
'''.replace("\\\\n", "\\n")


class Way:
    """A node's way to Redis, which can be cut.

    Parameters
    ----------
    path, target : str, Unix sockets: of the node's end, and Redis's
    """

    def __init__(self, path, target):
        self.target, self.open, self.resets, self.ends = target, threading.Event(), False, set()
        self.open.set()
        self.door = socket.socket(socket.AF_UNIX)
        self.door.bind(path)
        self.door.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, silent):
        """Cut it.

        Parameters
        ----------
        silent : bool, whether nothing comes back, and what was under way comes through later; or connections are reset
        """
        self.resets = not silent
        self.open.clear()
        if not silent:
            for end in list(self.ends):
                self._end(end)

    def heal(self):
        """Open it again."""
        self.resets = False
        self.open.set()

    def close(self):
        """End it."""
        self.door.close()
        self.cut(silent=False)
        self.open.set()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.door.accept()
                threading.Thread(target=self._carry, args=(near,), daemon=True).start()

    def _carry(self, near):
        self.ends.add(near)
        with contextlib.suppress(OSError):
            if self.resets:
                return self._end(near)
            self.open.wait()
            far = socket.socket(socket.AF_UNIX)
            self.ends.add(far)
            try:
                far.connect(self.target)
            except OSError:
                self._end(far)
                raise
            threading.Thread(target=self._pump, args=(far, near), daemon=True).start()
            return self._pump(near, far)
        return self._end(near)

    def _pump(self, source, sink):
        with contextlib.suppress(OSError):
            while piece := source.recv(65536):
                self.open.wait()
                sink.sendall(piece)
        self._end(source)
        self._end(sink)

    def _end(self, end):
        self.ends.discard(end)
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()


class Shop:
    """A Redis, three nodes and their agents, in a folder.

    Parameters
    ----------
    folder : Path
    rng : random.Random
    agents : sequence of str, nodes whose agents are started
    """

    def __init__(self, folder, rng, agents=tuple(NODES)):
        self.folder, self.rng, self.agents, self.jobs = Path(folder), rng or random.Random(1), {}, {}
        self.path = os.environ["PATH"]
        (self.folder / "work").mkdir()
        (self.folder / "hostfiles").mkdir()
        (self.folder / "work.py").write_text(WORK)
        text = "".join(f'[nodes.{name}]\naddress = "{address or socket.gethostname()}"\ncores = 2\n'
                       for name, address in NODES.items())
        (self.folder / "hostfiles/cluster.toml").write_text(text)
        self.server = self.folder / "server"
        self.disks = [self._disk(name) for name in ("server", *agents)] if able_to_mount() else []
        self.redis = None
        self.start_redis()
        self.ways = {}
        store = self.store()
        store.ask("hset", f"{PREFIX}settings", mapping=SETTINGS)
        for name in agents:
            self.start_agent(name)
        self.until(lambda: sum(node.get("state") == "up" for node in store.nodes()) == len(agents), "agents")

    def environment(self, node=None):
        """Variables of a process.

        Parameters
        ----------
        node : str, the node that it is of

        Returns
        -------
        dict
        """
        env = {name: value for name, value in os.environ.items() if not name.startswith(("OMPI_", "PMIX_", "BRMPI_"))}
        if os.geteuid() == 0:
            env |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
        return env | {
            "PATH": self.path,
            "BRMPI_SPOOL": str(self.folder / (node or "client")),
            "BRMPI_HOSTFILES": str(self.folder / "hostfiles"),
            places.VARIABLE: f"unix://{self.folder / f'{node}.way' if node else self.socket}",
        }

    def _disk(self, name):
        """A small disk for a node, or for Redis."""
        folder = self.folder / name
        folder.mkdir()
        size = DISK.get(name, DISK[None])
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}m", "brmpi-crashes", str(folder)], check=True)
        return folder

    def fill(self, name):
        """Fill a disk to its last byte.

        Parameters
        ----------
        name : str, a node or "server"
        """
        with (self.folder / name / "fill").open("wb", buffering=0) as file, contextlib.suppress(OSError):
            size = 1 << 20
            while size:
                try:
                    if file.write(b"x" * size) < size:
                        raise OSError
                except OSError:
                    size //= 2

    def free(self, name):
        """Give a disk its room back.

        Parameters
        ----------
        name : str, a node or "server"
        """
        (self.folder / name / "fill").unlink(missing_ok=True)

    @property
    def socket(self):
        """Redis's."""
        return f"/tmp/brmpi-crashes-{os.getpid()}.sock"

    @property
    def address(self):
        """Of the spool."""
        return places.Address(f"unix://{self.socket}")

    def store(self, **options):
        """A connection.

        Parameters
        ----------
        **options : of ``Store``

        Returns
        -------
        Store
        """
        return Store(self.address, **{"hello": False, **options})

    def start_redis(self, **variables):
        """Start Redis on what is on its disk, and wait until it answers.

        Parameters
        ----------
        **variables : of its environment
        """
        self.server.mkdir(exist_ok=True)
        new = not any(self.server.iterdir())
        words = [word for word in server.SETTINGS if word not in ("--daemonize", "yes")]
        words = dict(zip(server.SETTINGS[::2], server.SETTINGS[1::2])) | {"--daemonize": "no"}
        words = [word for pair in words.items() for word in pair]
        self.redis = subprocess.Popen(["redis-server", *words, "--port", "0", "--unixsocket", self.socket,
                                       "--dir", str(self.server)], stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
                                      env=os.environ | variables)
        self.until(self.answers, "Redis")
        if new:
            server.begin(self.store())

    def answers(self):
        """Whether Redis does."""
        try:
            return bool(self.store(patience=1.0).ask("ping"))
        except Away:
            return False

    def resume(self):
        """A person's word that what was lost is known, as soon as all nodes have reported."""
        def _accepted():
            with contextlib.suppress(Refused):
                server.begin(self.store())
                return True
            return False
        self.until(_accepted, "all nodes to report")

    def kill_redis(self):
        """As a power cut would."""
        self.redis.kill()
        self.redis.wait()

    def start_agent(self, name):
        """Start a node's agent.

        Parameters
        ----------
        name : str
        """
        if name not in self.ways:
            self.ways[name] = Way(str(self.folder / f"{name}.way"), self.socket)
        log = (self.folder / f"{name}.log").open("ab")
        process = subprocess.Popen([sys.executable, "-m", "brmpi", "agent", "--name", name, "--slots", "2"], stdout=log,
                                   stderr=log, stdin=subprocess.DEVNULL, env=self.environment(name), cwd=self.folder,
                                   start_new_session=True)
        log.close()
        self.agents[name] = process
        (self.folder / f"agent-{name}").write_text(str(process.pid))

    def kill_agent(self, name):
        """End an agent at once.

        Parameters
        ----------
        name : str
        """
        self.agents[name].kill()
        self.agents[name].wait()

    def submit(self, node=None, seconds=0.3, code=0, **more):
        """Queue a job.

        Parameters
        ----------
        node : str, where it is to run; any that may have it
        seconds : float, that it works
        code : int, that it ends with; -9 kills the agent of its node
        **more : of ``spec.record``

        Returns
        -------
        str, its id
        """
        from brmpi.spool import spec

        node = node or self.rng.choice(list(NODES))
        nodes = [node]
        if not code and self.rng.random() < GANGS:  # two slots each: over two nodes, or one, as it comes
            nodes.append(self.rng.choice(list(self.agents)))
        ranks = self.rng.choice((1, 2) if len(nodes) == 1 else (3, 4)) if len(set(nodes)) == len(nodes) else 1
        argv = [
            "--",
            sys.executable,
            str(self.folder / "work.py"),
            str(self.folder / "work"),
            str(seconds),
            str(code),
            node,
        ]
        record = spec.record(argv, spec.needs(ranks, nodes=nodes), folder=self.folder,
                             **{"cap": 50, **more})
        id = self.store().submit([record])[0]
        self.jobs[id] = node
        return id

    def job(self, id):
        """A job's record.

        Parameters
        ----------
        id : str

        Returns
        -------
        dict
        """
        return self.store().job(id)

    def told(self, id):
        """What a job has written down.

        Parameters
        ----------
        id : str

        Returns
        -------
        list of (word, fence)
        """
        with contextlib.suppress(FileNotFoundError):
            return [tuple(line.split()[:2]) for line in (self.folder / f"work/{id}.log").read_text().splitlines()]
        return []

    def processes(self, id):
        """Processes of a job.

        Parameters
        ----------
        id : str

        Returns
        -------
        list of int
        """
        name = self.store().ask("get", f"{PREFIX}name")
        return attempts.tagged(f"{name}-{id}.")

    def until(self, what, why, seconds=PATIENCE):
        """Wait for something.

        Parameters
        ----------
        what : callable
        why : str
        seconds : float, limit of time

        Raises
        ------
        Fault : it does not come
        """
        end = time.monotonic() + seconds
        while True:
            with contextlib.suppress(Away):
                if what():
                    return
            if time.monotonic() > end:
                raise Fault(f"{why}: not within {seconds:g} s\n{self.report()}")
            time.sleep(0.02)

    def report(self):
        """What is known, for a person who looks for a fault.

        Returns
        -------
        str
        """
        said = []
        with contextlib.suppress(Away, Refused):
            store = self.store()
            said += [json.dumps(row) for row in store.jobs(OPEN)] + [json.dumps(node) for node in store.nodes()]
            events = store.ask("xrevrange", f"{PREFIX}events", count=40)
            said += [f"{place} {told['job']} {told['kind']}: {told['text']}" for place, told in reversed(events)]
        for name in NODES:
            with contextlib.suppress(OSError):
                said.append(f"{name}: " + (self.folder / f"{name}.log").read_text()[-2000:])
        return "\n".join(said)

    def settled(self, *ids, state="done"):
        """Wait until jobs are over, and hold against what must be.

        Parameters
        ----------
        *ids : str
        state : str, that they are to end in, or a tuple of them

        Raises
        ------
        Fault : something that must not be
        """
        for name, process in self.agents.items():
            if process.poll() is not None:
                self.start_agent(name)
        store = self.store()
        self.until(lambda: all(store.job(id)["state"] not in OPEN for id in ids), f"the end of {', '.join(ids)}")
        good = (state,) if isinstance(state, str) else state
        wrong = [
            f"job {id} is {row['state']}: {row['why']}" for id in ids if (row := store.job(id))["state"] not in good
        ]
        found = audit.problems(store)
        if found:  # it asks one thing after another, and other jobs go on between
            time.sleep(1)
            wrong += sorted(set(found) & set(audit.problems(store)))
        for id in ids:
            told = self.told(id)
            begun = [fence for word, fence in told if word == "begin"]
            wrong += [f"job {id}: two live attempts" for word, _ in told if word == "double"]
            wrong += [f"job {id}: an attempt began twice"] * (len(set(begun)) != len(begun))
            wrong += [f"job {id}: is done and never ended"] * (store.job(id)["state"] == "done" and told
                                                              and told[-1][0] != "end")
            wrong += [f"job {id}: processes are left"] * bool(self.processes(id))
            accepted = [entry for entry in store.ask("xrange", f"{PREFIX}events")
                        if entry[1]["job"] == id and entry[1]["kind"] == "done"]
            wrong += [f"job {id}: was accepted {len(accepted)} times"] * (len(accepted) > 1)
        known = set(store.keys("job:*"))
        wrong += [f"job {id} is missing" for id in self.jobs if f"{PREFIX}job:{id}" not in known]
        if wrong:
            raise Fault("; ".join(wrong) + f"\n{self.report()}")

    def close(self):
        """End everything that was started here."""
        for process in self.agents.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
                process.terminate()
        for process in self.agents.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
            process.kill()
            process.wait()
        for id in self.jobs:
            with contextlib.suppress(Away):
                for pid in self.processes(id):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
        self.redis.kill()
        self.redis.wait()
        Path(self.socket).unlink(missing_ok=True)
        for way in self.ways.values():
            way.close()
        for folder in self.disks:
            subprocess.run(["umount", "-l", str(folder)], check=False)


def able_to_mount():
    """Whether this user may mount disks.

    Returns
    -------
    bool
    """
    return os.geteuid() == 0 and shutil.which("mount") is not None


def _pause(shop, most):
    """A random moment."""
    time.sleep(shop.rng.uniform(0, most))


def _client(shop):
    """A client is killed in the midst of a submission, and tries again with the same key."""
    key, words = f"key{shop.rng.random()}", ["-n", "1", "--on", shop.rng.choice(list(NODES))]
    command = [sys.executable, "-m", "brmpi", "submit", "--json", "--key", key, *words, "--", sys.executable,
               str(shop.folder / "work.py"), str(shop.folder / "work"), "0.1", "0"]
    count = shop.store().ask("get", f"{PREFIX}seq")
    options = {"env": shop.environment(), "cwd": shop.folder, "stdin": subprocess.DEVNULL, "text": True}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, **options)
    _pause(shop, 0.35)
    process.kill()
    process.communicate()
    done = subprocess.run(command, capture_output=True, timeout=30, **options)
    if done.returncode:
        raise Fault(f"a client is refused: {done.stderr}")
    id = json.loads(done.stdout)["id"]
    shop.jobs[id] = None
    shop.settled(id)
    if int(shop.store().ask("get", f"{PREFIX}seq")) != int(count or 0) + 1:
        raise Fault(f"job {id} was taken in twice")


def _agent(shop):
    """An agent is killed before, during or after the start of a job, and started again."""
    id = shop.submit(seconds=0.5)
    _pause(shop, 1.2)
    shop.kill_agent(shop.jobs[id])
    _pause(shop, 2.5)
    shop.start_agent(shop.jobs[id])
    shop.settled(id)


def _mpirun(shop):
    """mpirun is killed, and leaves ranks alive."""
    id = shop.submit(seconds=0.8, retries=5)
    shop.until(lambda: shop.told(id), f"the beginning of {id}")
    _pause(shop, 0.6)
    for pid in shop.processes(id):
        with contextlib.suppress(OSError):
            if "mpirun" in Path(f"/proc/{pid}/comm").read_text() + str(Path(f"/proc/{pid}/exe").readlink()):
                os.kill(pid, signal.SIGKILL)
    shop.settled(id)


def _rank(shop):
    """A rank is killed."""
    id = shop.submit(seconds=0.8, retries=5)
    shop.until(lambda: shop.told(id), f"the beginning of {id}")
    _pause(shop, 0.5)
    left = shop.processes(id)
    if left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(shop.rng.choice(left), signal.SIGKILL)
    shop.settled(id)


def _supervisor(shop):
    """What supervises a job is killed, the job itself not."""
    id = shop.submit(seconds=0.6)
    _pause(shop, 0.9)
    for file in (shop.folder / shop.jobs[id]).glob(f"agent/*/{id}.*.json"):
        with contextlib.suppress(OSError, ValueError, KeyError):
            told = json.loads(file.read_text())
            if attempts.started(told["pid"]) == told["start"]:
                os.kill(told["pid"], signal.SIGKILL)
    shop.settled(id)


def _cut(shop, name, id):
    """End everything of a node at once, as far as that can be done from outside."""
    shop.kill_agent(name)
    for file in (shop.folder / name).glob("agent/*/*.json"):
        with contextlib.suppress(OSError, ValueError, KeyError):
            told = json.loads(file.read_text())
            if attempts.started(told["pid"]) == told["start"]:
                os.kill(told["pid"], signal.SIGKILL)
    for pid in shop.processes(id):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _node(shop):
    """Everything of a node is killed at once: its agent, what supervises, mpirun and ranks."""
    id = shop.submit(seconds=0.6, retries=5)  # where its head is elsewhere, its ranks just die
    name = shop.jobs[id]
    _pause(shop, 1.2)
    _cut(shop, name, id)
    _pause(shop, 3)
    shop.start_agent(name)
    shop.settled(id)


def _stopped(shop):
    """An agent is stopped past its lease, while its job runs or ends, and goes on."""
    id = shop.submit(seconds=shop.rng.uniform(0.3, 6))
    _pause(shop, 1)
    process = shop.agents[shop.jobs[id]]
    process.send_signal(signal.SIGSTOP)
    time.sleep(shop.rng.uniform(0.5, 6))
    process.send_signal(signal.SIGCONT)
    shop.settled(id)


def _redis(shop):
    """Redis is killed and started again: what it had answered, it has."""
    ids = [shop.submit(seconds=0.4) for _ in range(shop.rng.randint(1, 3))]
    _pause(shop, 0.8)
    shop.kill_redis()
    _pause(shop, 2)
    shop.start_redis()
    shop.settled(*ids)


def _tail(shop):
    """Redis is killed and loses the end of its file: that is noticed, and nothing is placed until a person says so."""
    first = shop.submit(seconds=0.3)
    shop.settled(first)
    file = max(shop.server.glob("appendonlydir/*.incr.aof"))
    size = file.stat().st_size
    ids = [shop.submit(seconds=shop.rng.uniform(0.3, 2)) for _ in range(2)]
    _pause(shop, 1.5)
    shop.until(
        lambda: all(shop.job(id)["state"] in ("running", "done") or shop.rng.random() < 0.02 for id in ids), "work"
    )
    time.sleep(0.8)  # until each agent has given a sign of life, and so seen what will be lost
    shop.kill_redis()
    with file.open("r+b") as open_file:
        open_file.truncate(size + int(shop.rng.random() * (file.stat().st_size - size) * 0.7))
    shop.start_redis()
    store = shop.store()
    shop.until(lambda: store.paused(), "the loss to be noticed")
    shop.resume()
    left = [id for id in ids if store.ask("exists", f"{PREFIX}job:{id}")]
    for id in set(ids) - set(left):  # nobody had it yet, and it was named
        del shop.jobs[id]
        if any(word == "begin" for word, _ in shop.told(id)):
            raise Fault(f"job {id} began and is forgotten")
    shop.settled(*left)


def _emptied(shop):
    """Redis comes back with nothing: that is noticed, what runs is taken over, and no number is given twice."""
    ids = [shop.submit(name, seconds=3) for name in NODES]
    shop.until(lambda: all(shop.told(id) for id in ids), "work")
    _pause(shop, 1)
    time.sleep(0.8)
    shop.kill_redis()
    for entry in shop.server.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    (shop.server / "old").touch()
    shop.start_redis()
    store = shop.store()
    store.ask("hset", f"{PREFIX}settings", mapping=SETTINGS)
    shop.until(lambda: len(store.nodes()) == 3 and store.paused(), "the loss to be noticed")
    with contextlib.suppress(Refused):
        shop.submit()
        raise Fault("a job was taken in while the spool was paused")
    for id in list(shop.jobs):  # those that were over are forgotten
        if not store.ask("exists", f"{PREFIX}job:{id}"):
            del shop.jobs[id]
    lost = [id for id in ids if id not in shop.jobs]
    if lost:
        raise Fault(f"jobs {lost} ran, and were not taken over")
    shop.resume()
    shop.settled(*ids)
    last = shop.submit(seconds=0.1)
    if int(last) <= max(map(int, ids)):
        raise Fault("a number was given twice")
    shop.settled(last)


def _cancelled(shop):
    """A job is cancelled as it ends."""
    id = shop.submit(seconds=0.2)
    _pause(shop, 1.2)
    shop.store().call("cancel", id)
    shop.settled(id, state=("done", "cancelled"))


def _corrupt(shop):
    """The record of a job that waits is damaged: it is put aside, and the rest goes on."""
    name = shop.rng.choice(list(NODES))
    shop.store().call("drain", name, "drained")
    bad, good = shop.submit(name, seconds=0.1), shop.submit(name, seconds=0.1)
    store, key = shop.store(), f"{PREFIX}job:{bad}"
    how = shop.rng.randrange(3)
    if how == 0:
        store.ask("delete", key)
    elif how == 1:
        store.ask("hset", key, "class", "}")
    else:
        store.ask("set", key, "rubbish")
    store.call("drain", name, "open")
    shop.settled(good)
    if shop.job(bad)["state"] != "broken":
        raise Fault(f"job {bad} is {shop.job(bad)}")


def _deadly(shop):
    """A job kills the agent of its node each time: it stops at its cap."""
    id = shop.submit(seconds=30, code=-9, cap=1)
    name, end = shop.jobs[id], time.monotonic() + PATIENCE
    while shop.job(id)["state"] in OPEN:
        if shop.agents[name].poll() is not None:
            _cut(shop, name, id)
            shop.start_agent(name)
        if time.monotonic() > end:
            raise Fault(f"job {id} does not come to its end\n{shop.report()}")
        time.sleep(0.05)
    shop.settled(id, state="failed")
    if len([1 for word, _ in shop.told(id) if word == "begin"]) != 2:
        raise Fault(f"job {id}: {shop.told(id)} {shop.job(id)}")


def _partition(shop):
    """A node's way to Redis is cut, for less than its lease or for more, by silence or by resets."""
    id = shop.submit(seconds=shop.rng.uniform(0.3, 6))
    _pause(shop, 1)
    way = shop.ways[shop.jobs[id]]
    way.cut(silent=shop.rng.random() < 0.5)
    time.sleep(shop.rng.uniform(0.3, 7))
    way.heal()
    shop.settled(id)


def _isolated(shop):
    """Redis is cut off from all nodes, and takes in jobs."""
    ids, silent = [shop.submit(name, seconds=shop.rng.uniform(0.3, 4)) for name in NODES], shop.rng.random() < 0.5
    _pause(shop, 1)
    for way in shop.ways.values():
        way.cut(silent)
    ids.append(shop.submit())
    time.sleep(shop.rng.uniform(0.3, 6))
    for way in shop.ways.values():
        way.heal()
    shop.settled(*ids)


def _full(shop):
    """The disk of a node is full: before a job begins there, while it runs, or as it ends."""
    name = shop.rng.choice(list(NODES))
    early = shop.rng.random() < 0.3
    try:
        if early:
            shop.fill(name)
        id = shop.submit(name, seconds=shop.rng.uniform(0.2, 1.5))
        _pause(shop, 1.2)
        shop.fill(name)
        _pause(shop, 2.5)
    finally:
        shop.free(name)
    shop.settled(id)
    if not early and len({fence for word, fence in shop.told(id) if word == "end"}) > 1:
        raise Fault(f"job {id}: was done, and began anew: {shop.told(id)}")


def _redisfull(shop):
    """Redis's disk is full: it ends, or takes nothing in; what it has answered, it has."""
    ids = [shop.submit(seconds=shop.rng.uniform(0.2, 2))]
    _pause(shop, 0.8)
    shop.fill("server")
    try:
        for _ in range(3):
            with contextlib.suppress(Away, Refused):
                ids.append(shop.submit())
        _pause(shop, 1)
    finally:
        shop.free("server")
    if shop.redis.poll() is None:
        shop.kill_redis()
    shop.start_redis()
    shop.settled(*ids)


def _clock(shop):
    """Redis's clock jumps, by seconds or a year, forth or back: nothing is given up for that."""
    file = shop.folder / "clock"
    file.write_bytes((0).to_bytes(8, sys.byteorder, signed=True))
    shop.kill_redis()
    shop.start_redis(LD_PRELOAD=str(CLOCK.absolute()), BRMPI_CLOCK=str(file))
    ids = [shop.submit(seconds=shop.rng.uniform(0.2, 3)) for _ in range(2)]
    _pause(shop, 1)
    jump = shop.rng.choice((-86400 * 365, -3600, -20, -3, 3, 20, 3600, 86400 * 365))
    with file.open("r+b") as offset:
        offset.write(jump.to_bytes(8, sys.byteorder, signed=True))
    shop.settled(*ids)
    lost = [id for id in ids if int(shop.job(id).get("losses") or 0)]
    shop.kill_redis()
    shop.start_redis()
    shop.until(lambda: not shop.store().ask("get", f"{PREFIX}hold") and all(
        node["state"] == "up" for node in shop.store().nodes()), "all nodes to report")
    if lost:
        raise Fault(f"jobs {lost}: given up by a jump of {jump} s")


CASES = {case.__name__[1:]: case for case in (
    _client, _agent, _mpirun, _rank, _supervisor, _node, _stopped, _redis,
    _tail, _emptied, _cancelled, _corrupt, _deadly, _partition, _isolated, _full, _redisfull, _clock)}


def once(shop, name, seed):
    """One kill, and whether all holds.

    Parameters
    ----------
    shop : Shop
    name : str, of ``CASES``
    seed : int

    Raises
    ------
    Fault : something that must not be
    """
    shop.rng.seed(f"{name} {seed}")
    CASES[name](shop)


def left_out():
    """Cases that cannot be made here.

    Returns
    -------
    dict of str, name to what is missing
    """
    found = {} if able_to_mount() else dict.fromkeys(("full", "redisfull"), "they mount small disks: root")
    return found if CLOCK.exists() else found | {"clock": f"{CLOCK} is not built: make spool-crashes"}


def page(found):
    """The results as a table for people.

    Parameters
    ----------
    found : dict, as published

    Returns
    -------
    str, Markdown
    """
    rows = [f"| {row['what'].rstrip('.')} | {row['kills']:,} | {row['failed']} |" for row in found["rows"]]
    kills, failed = (sum(row[name] for row in found["rows"]) for name in ("kills", "failed"))
    where = found["machine"]
    return "\n".join(["| what happens | times | did not hold |", "| --- | ---: | ---: |", *rows,
                      f"| **in all** | **{kills:,}** | **{failed}** |", "",
                      f"Seeds {', '.join(found['seeds'])}; {where['cpu']}, {(where['cores'] or {}).get('usable', '?')} "
                      f"cores; {found['time'][:10]}, commit {(found['commit'] or 'unknown')[:10]}."])


def publish(rows, seeds, add):
    """Write the results down, and into the page of the spool.

    Parameters
    ----------
    rows : list of dict
    seeds : str, first to last
    add : bool, to what is there
    """
    found = {"machine": report.machine(), "time": datetime.now(UTC).isoformat(timespec="seconds"),
             "commit": provenance.commit(), "seeds": [seeds], "rows": rows}
    if add and RESULTS.exists():
        before = json.loads(RESULTS.read_text())
        found["seeds"] = [*before["seeds"], seeds]
        known = {row["case"]: row for row in before["rows"]}
        for row in rows:
            for name in ("kills", "failed"):
                row[name] += known.get(row["case"], {}).get(name, 0)
    atomic.write(RESULTS, json.dumps(found, indent=1) + "\n")
    text = PAGE.read_text()
    head, rest = text.split(MARKS[0])
    atomic.write(PAGE, f"{head}{MARKS[0]}\n{page(found)}\n{MARKS[1]}{rest.partition(MARKS[1])[2]}")


def main(argv=None):
    """Run the matrix and publish it; returns 1 where anything did not hold.

    Parameters
    ----------
    argv : list of str, instead of the process's own arguments
    """
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=1000, help="in all (1000)")
    parser.add_argument("--seed", type=int, default=1, help="of the first (1)")
    parser.add_argument("--only", choices=CASES, help="one case; nothing is published")
    parser.add_argument("--add", action="store_true", help="add to the results that are published")
    options = parser.parse_args(argv)
    missing = left_out()
    for name, why in missing.items():
        print(f"crashes: {name} is left out: {why}", file=sys.stderr)
    names = [options.only] if options.only else [name for name in CASES if name not in missing]
    found, failed = {name: [0, 0] for name in names}, []
    with tempfile.TemporaryDirectory() as folder:
        shop = Shop(folder, random.Random())
        try:
            for kill in range(options.kills):
                name, seed = names[kill % len(names)], options.seed + kill
                try:
                    once(shop, name, seed)
                except (Fault, Away, Refused, subprocess.SubprocessError, ValueError, KeyError, OSError) as error:
                    failed.append((name, seed))
                    print(f"crashes: {name}, seed {seed}: {error}", file=sys.stderr, flush=True)
                    shop.close()
                    shutil.rmtree(folder)
                    Path(folder).mkdir()
                    shop = Shop(folder, random.Random())
                    found[name][1] += 1
                found[name][0] += 1
                if sys.stdout.isatty() or (kill + 1) % 50 == 0:
                    print(f"{kill + 1} kills, {len(failed)} failed; {name}, seed {seed}",
                          end="\r" if sys.stdout.isatty() else "\n", flush=True)
        finally:
            shop.close()
    rows = [{"case": name, "what": re.sub(r"\s+", " ", CASES[name].__doc__), "kills": kills, "failed": bad}
            for name, (kills, bad) in found.items()]
    print()
    for row in rows:
        print(f"{row['case']:<12} {row['kills']:>5} kills {row['failed']:>3} failed  {row['what']}")
    seeds = f"{options.seed} to {options.seed + options.kills - 1}"
    print(f"seeds {seeds}; failed: {', '.join(f'{name} {seed}' for name, seed in failed) or 'none'}")
    if not options.only:
        publish(rows, seeds, options.add)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
