"""How fast the spool is: jobs taken in, the way from a submission to mpirun, a pass over a long queue, an idle agent.

``make bench-spool``. Everything on one Redis whose disk has each job before it answers; RQ and Celery, which answer
before, on the same one.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

from brmpi.bench import report
from brmpi.bench.crashes import Shop
from brmpi.errors import Fault
from brmpi.spool import spec
from brmpi.spool.store import PREFIX

PARTS = ("bulk", "single", "spawn", "pass", "idle")
PEERS, QUEUES = Path(".venv-peers/bin/python"), ("rq", "celery")
# what must be: at least so many times the reference, where the reference is the limit
BARS = {("submit bulk", "limit"): 1.0, ("submit single", "limit"): 1.0, ("submit to mpirun", "limit"): 1.0,
        ("pass placing", "limit"): 1.0, ("pass blocked", "limit"): 1.0, ("pass kinds", "limit"): 1.0,
        ("agent idle", "limit"): 1.0, ("submit bulk", "rq"): 1.0, ("submit bulk", "celery"): 1.0}
QUEUED, NODES = 10_000, 64
KEPT = ("epoch", "name", "run", "settings", "count", "seq", "fence", "clock", "tick")  # what is no job and no node
ENQUEUE = """
import sys, time
which, socket, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
if which == "rq":
    import redis, rq
    queue = rq.Queue("brmpi-bench", connection=redis.Redis(unix_socket_path=socket))
    begin = time.perf_counter()
    for i in range(count):
        queue.enqueue("time.time")
else:
    import celery
    app = celery.Celery("brmpi-bench", broker=f"redis+socket://{socket}")
    @app.task
    def task():
        pass
    with app.pool.acquire(block=True):
        begin = time.perf_counter()
        for i in range(count):
            task.delay()
print(count / (time.perf_counter() - begin))
"""


STARTS = """
import subprocess, sys, time
import redis
which, socket, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
store = redis.Redis(unix_socket_path=socket)
if which == "rq":
    import rq
    queue = rq.Queue("brmpi-bench", connection=store)
    send = lambda: queue.enqueue("tasks.stamp", socket)
    words = ["rq.cli", "worker", "--quiet", "-u", f"unix://{socket}", "brmpi-bench"]
else:
    import tasks
    send = lambda: tasks.task.delay(socket)
    words = ["celery", "-A", "tasks", "worker", "-c", "1", "-l", "error"]
worker = subprocess.Popen([sys.executable, "-m", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
try:
    for i in range(count + 3):
        store.delete("brmpi-bench-started")
        time.sleep(0.2)
        begin, end = time.time(), time.time() + 30
        send()
        while not (found := store.get("brmpi-bench-started")):
            if time.time() > end or worker.poll() is not None:
                sys.exit("no start")
            time.sleep(0.001)
        if i >= 3:
            print(1 / (float(found) - begin))
finally:
    worker.terminate()
    worker.wait()
"""
TASKS = """
import sys, time
import redis
def stamp(socket):
    redis.Redis(unix_socket_path=socket).set("brmpi-bench-started", repr(time.time()))
if "celery" in sys.argv[0] or "celery" in sys.argv:
    import celery
    app = celery.Celery("tasks", broker="redis+socket://SOCKET")
    task = app.task(stamp, name="stamp")
"""


class Bench:
    """A Redis of its own, and what is measured on it.

    Parameters
    ----------
    folder : Path
    repeats : int
    """

    def __init__(self, folder, repeats):
        self.shop, self.repeats = Shop(folder, None, agents=()), repeats
        self.store = self.shop.store()

    def clear(self):
        """Begin with nothing queued."""
        for key in self.store.keys("*"):
            if key.removeprefix(PREFIX) not in KEPT:
                self.store.ask("delete", key)

    def bulk(self):
        """Jobs a second, in lots of 500, beside what must be, and RQ and Celery one by one."""
        rates, peers = [], {name: [] for name in QUEUES}
        need = spec.needs(4, limit=600)
        for _ in range(self.repeats):
            self.clear()
            jobs = [spec.record(["nbody", f"--set=n={i}"], need, key=uuid.uuid4().hex) for i in range(QUEUED)]
            begin = time.perf_counter()
            for i in range(0, QUEUED, 500):
                self.store.submit(jobs[i:i + 500])
            rates.append(QUEUED / (time.perf_counter() - begin))
            for name, found in peers.items():
                found += self.peer(ENQUEUE, name, 1000)
        return [report.row("submit bulk", QUEUED, 1, rates, "jobs/s", "limit", [1e4] * len(rates)),
                *self.beside("submit bulk", QUEUED, rates, "jobs/s", peers)]

    def peer(self, program, name, count):
        """What another queue's program measures on the same Redis, in its own environment.

        Parameters
        ----------
        program : str, of Python
        name : str, of ``QUEUES``
        count : int, of tasks

        Returns
        -------
        list of float; empty where it is not installed
        """
        folder = self.shop.folder
        (folder / "tasks.py").write_text(TASKS.replace("SOCKET", self.shop.socket))
        done = subprocess.run([PEERS.absolute(), "-c", program, name, self.shop.socket, str(count)], cwd=folder,
                              capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(folder)}, timeout=300)
        for key in self.store.ask("scan_iter", "*"):
            if not key.startswith(PREFIX):
                self.store.ask("delete", key)
        if done.returncode:
            print(f"bench-spool: {name}: {(done.stderr.strip().splitlines() or ['?'])[-1]}", file=sys.stderr)
        return [] if done.returncode else list(map(float, done.stdout.split()))

    def beside(self, what, size, ours, unit, peers):
        """Rows beside other queues.

        Parameters
        ----------
        what : str
        size : int
        ours : list of float
        unit : str
        peers : dict of str to list of float, as many as ours

        Returns
        -------
        list of dict
        """
        return [report.row(what, size, 1, ours, unit, name, found) for name, found in peers.items()
                if len(found) == len(ours)]

    def single(self):
        """A submission by itself, as its inverse, beside 5 ms and other queues' submissions."""
        need, times = spec.needs(4, limit=600), []
        for _ in range(100 * self.repeats):
            one = [spec.record(["nbody"], need, key=uuid.uuid4().hex)]
            begin = time.perf_counter()
            self.store.submit(one)
            times.append(1 / (time.perf_counter() - begin))
        parts = [statistics.median(times[i::self.repeats]) for i in range(self.repeats)]
        peers = {name: [rate for _ in parts for rate in self.peer(ENQUEUE, name, 200)] for name in QUEUES}
        return [report.row("submit single", 1, 1, parts, "1/s", "limit", [200.0] * len(parts)),
                *self.beside("submit single", 1, parts, "1/s", peers)]

    def spawn(self):
        """From a submission to the start of mpirun on an idle cluster, as its inverse, beside 20 ms.

        Other queues start a function of Python in a worker that waits for it.
        """
        self.clear()
        shop, place = self.shop, self.shop.folder / "bin"
        place.mkdir()
        real = subprocess.run(["which", "mpirun"], capture_output=True, text=True).stdout.strip()
        (place / "mpirun").write_text(f'#!/bin/sh\n[ "$1" = --version ] || date +%s.%N > {shop.folder}/spawned\n'
                                      f'exec {real} "$@"\n')
        (place / "mpirun").chmod(0o755)
        shop.path = f"{place}{os.pathsep}{os.environ['PATH']}"
        shop.start_agent("alpha")
        shop.until(lambda: any(node.get("state") == "up" for node in self.store.nodes()), "the agent")
        times = []
        for _ in range(3 * self.repeats):
            time.sleep(2)  # until the next supervisor waits
            (shop.folder / "spawned").unlink(missing_ok=True)
            begin = time.time()
            id = shop.submit("alpha", seconds=0.0)
            shop.until(lambda: (shop.folder / "spawned").exists() and (shop.folder / "spawned").read_text(), "mpirun")
            times.append(1 / (float((shop.folder / "spawned").read_text()) - begin))
            shop.settled(id)
        shop.kill_agent("alpha")  # it would take what the next parts queue
        shop.agents.clear()
        parts = [statistics.median(times[i::self.repeats]) for i in range(self.repeats)]
        peers = {name: [statistics.median(found) for _ in parts if (found := self.peer(STARTS, name, 5))]
                 for name in QUEUES}
        return [report.row("submit to mpirun", 1, 1, parts, "1/s", "limit", [50.0] * len(parts)),
                *self.beside("submit to mpirun", 1, parts, "1/s", peers)]

    def passes(self):
        """A pass with 10,000 queued jobs and 64 nodes, as its inverse, beside 10 ms."""
        rows = []
        for what, kinds, busy in (("placing", 20, False), ("blocked", 20, True), ("kinds", QUEUED, True)):
            times = []
            for _ in range(self.repeats):
                self.clear()
                self.store.call("pause", "to fill it")
                for i in range(NODES):
                    about = {"slots": 4, "memory": 4000, "tags": f"node{i} compute", "speed": 1, "address": f"node{i}",
                             "boot": "b", "agent": "a", "attempts": [], "epoch": "", "count": 0, "seq": 0, "fence": 0}
                    self.store.call("register", f"node{i}", json.dumps(about))
                self.store.ask("delete", f"{PREFIX}paused")
                if busy:  # half of each node runs something; the head wants all of them
                    self.store.submit([spec.record(["x"], spec.needs(2, limit=1000, nodes=[f"node{i}"]))
                                       for i in range(NODES)])
                    self.store.submit([spec.record(["x"], spec.needs(4 * NODES), priority=9)])
                self.store.call("pause", "to fill it")
                for first in range(0, QUEUED, 1000):
                    jobs = [
                        spec.record(["x"], spec.needs(1 + i % 4, limit=2000.0 + (i if kinds == QUEUED else i % kinds)))
                        for i in range(first, first + 1000)
                    ]
                    self.store.ask("delete", f"{PREFIX}paused")
                    self.store.ask("hset", f"{PREFIX}settings", "depth", 0)
                    self.store.submit(jobs)
                self.store.ask("hdel", f"{PREFIX}settings", "depth")
                begin = time.perf_counter()
                self.store.call("pass")
                times.append(1 / (time.perf_counter() - begin))
            rows.append(report.row(f"pass {what}", QUEUED, NODES, times, "1/s", "limit", [100.0] * len(times)))
        return rows

    def idle(self, seconds=20.0):
        """Part of a core that an idle agent takes, as its inverse, beside 1 %.

        Parameters
        ----------
        seconds : float, of each measurement
        """
        shop, times = self.shop, []
        if not shop.agents:
            self.clear()
            shop.start_agent("alpha")
            shop.until(lambda: any(node.get("state") == "up" for node in self.store.nodes()), "the agent")
        self.store.ask("delete", f"{PREFIX}settings")
        time.sleep(6)
        for _ in range(self.repeats):
            before = _spent(shop.agents["alpha"].pid)
            time.sleep(seconds)
            times.append(seconds / max(_spent(shop.agents["alpha"].pid) - before, 1e-3))
        return [report.row("agent idle", 1, 1, times, "1/core", "limit", [100.0] * len(times))]


def _spent(pid):
    """Seconds that a process has computed."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def main(argv=None):
    """Measure and publish; returns 1 where something is slower than it has to be.

    Parameters
    ----------
    argv : list of str, instead of the process's own arguments
    """
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", choices=PARTS)
    options = parser.parse_args(argv)
    kept, rows = report.last("spool").get("rows", []) if options.only else [], []
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), max(2, options.repeats))
        try:
            for name, measure, words in (
                ("bulk", bench.bulk, ("submit bulk",)),
                ("single", bench.single, ("submit single",)),
                ("spawn", bench.spawn, ("submit to",)),
                ("pass", bench.passes, ("pass",)),
                ("idle", bench.idle, ("agent",)),
            ):
                rows += (
                    measure()
                    if options.only in (None, name)
                    else [row for row in kept if row["what"].startswith(words)]
                )
        except Fault as fault:
            print(f"bench-spool: {fault}", file=sys.stderr)
            return 1
        finally:
            bench.shop.close()
    report.publish("spool", rows)
    told = [f"{row['what']} reaches {row['ratio']:.2f} of {row['against']}: must be >= 1" for row in rows
            if row["ratio"] < BARS.get((row["what"], row["against"]), 0)]
    for line in told:
        print(f"bench-spool: {line}", file=sys.stderr)
    return 1 if told else 0


if __name__ == "__main__":
    sys.exit(main())
