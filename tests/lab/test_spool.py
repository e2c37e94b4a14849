"""The spool on several hosts: a job over two nodes, whose nodes, cables and Redis fail."""

import contextlib
import json
import shutil
import subprocess
import time

import pytest

from brmpi.spool.store import PREFIX

pytestmark = pytest.mark.timeout(240)
START = "shellfish"
SETTINGS = ("lease", "15", "claim", "4", "silent", "3", "gap", "3", "hold", "6")
RUN = ("nbody", "--set", "n=400", "--set", "every=100", "--set", "checkpoint=0.2", "--set", "sample=20")


class Shelf:
    """A spool in a lab: Redis on shellfish, agents on three hosts, a folder that all see."""

    def __init__(self, lab):
        self.lab, self.agents = lab, {}
        self.folder = lab.shared / "queue"
        shutil.rmtree(self.folder, ignore_errors=True)
        (self.folder / "hostfiles").mkdir(parents=True)
        shutil.copy(lab.state / "cluster.toml", self.folder / "hostfiles/cluster.toml")
        self.base = {"BRMPI_HOSTFILES": "/shared/queue/hostfiles", "BRMPI_SPOOL": "/root/spool"}
        for node in ("shellfish", "octavia", "aria"):
            lab.run(node, ["rm", "-rf", "/root/spool"])  # what they have seen of a Redis before this one
        address = lab.inventory.node(START).address
        said = self.brmpi("spool", "start", "--listen", address, node=START)
        assert f"redis://{address}:6379" in said
        password = lab.run(START, ["cat", "/root/spool/agent-password"]).stdout.strip()
        self.env = self.base | {"BRMPI_REDIS": f"redis://agent:{password}@{address}"}
        self.redis("HSET", f"{PREFIX}settings", *SETTINGS)
        for node in ("shellfish", "octavia", "aria"):
            self.start(node)

    def brmpi(self, *words, node=START, code=0, timeout=60):
        done = self.lab.run(node, ["brmpi", *words], timeout, cwd="/shared/queue",
                            env=getattr(self, "env", self.base) | self.base)
        assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def redis(self, *words):
        code = ("import sys; from brmpi.spool.store import Store; from brmpi.spool import places; "
                "print(Store(places.address(), hello=False).ask('execute_command', *sys.argv[1:]))")
        done = self.lab.run(START, ["python", "-c", code, *words], cwd="/shared/queue", env=self.base)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self, node):
        self.lab.run(node, ["mkdir", "-p", "/root/spool"])
        self.agents[node] = self.lab.start(node, ["brmpi", "agent", "--slots", "1"], cwd="/shared/queue", env=self.env,
                                           stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                           text=True)
        line = self.agents[node].stdout.readline()
        assert line.startswith(f"brmpi agent: {node}, 1 slots"), line

    def submit(self, *words):
        return json.loads(self.brmpi("submit", "--json", *words))["id"]

    def job(self, id):
        return json.loads(self.brmpi("show", id, "--json"))

    def until(self, what, seconds=90):
        end = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < end, self.brmpi("queue", "--all") + self.brmpi("spool", "status")
            time.sleep(0.2)

    def run_of(self, id):
        return self.folder / f"results/nbody-default-{id}"

    def close(self):
        for process in self.agents.values():
            process.kill()
            process.wait()
        with contextlib.suppress(AssertionError):
            for row in json.loads(self.brmpi("queue", "--json")):
                for node in ("octavia", "aria", "shellfish"):
                    self.lab.run(
                        node,
                        [
                            "sh",
                            "-c",
                            f"kill -9 $(grep -lzsx BRMPI_JOB={row.get('tag')} /proc/[0-9]*/environ | cut -d/ -f3)",
                        ],
                    )
        self.lab.run(START, ["brmpi", "spool", "stop"], env=self.base)


@pytest.fixture
def shelf(quick):
    made = Shelf(quick)
    yield made
    quick.up()
    made.close()


def states(folder):
    return {file.name: file.read_bytes() for file in (folder / "snapshots").iterdir()}


def test_what_fails_under_a_job_over_two_nodes(shelf):
    lab, steps = shelf.lab, ("--set", "steps=3000")
    whole = shelf.submit("--on", "octavia,aria", "-n", "2", *RUN, *steps)
    assert shelf.brmpi("wait", whole, timeout=120) == ""
    about = json.loads((shelf.run_of(whole) / "run.json").read_text())
    assert about["ranks"] == 2 and set(about["launch"]["hosts"]) == {"octavia", "aria"}

    # the power of its first node is cut: its slots stay taken until that node is back, then it goes on
    id = shelf.submit("--on", "octavia,aria", "-n", "2", *RUN, *steps)
    shelf.until(lambda: list((shelf.run_of(id) / "checkpoints").glob("*.h5")))
    head = shelf.job(id)["head"]
    lab.crash(head)
    shelf.until(lambda: shelf.job(id)["state"] == "ending")
    time.sleep(4)
    assert shelf.job(id)["state"] == "ending" and f"{head}: silent, 0 of 1" in shelf.brmpi("spool", "status")
    lab.boot(head)
    shelf.start(head)
    assert shelf.brmpi("wait", id, timeout=120) == ""
    row = shelf.job(id)
    assert row["attempt"] == "2" and row["losses"] == "1" and states(shelf.run_of(id)) == states(shelf.run_of(whole))


def test_cables(shelf):
    lab = shelf.lab
    # Redis's own cable: who runs does not notice
    id = shelf.submit("--on", "octavia,aria", "-n", "2", *RUN, "--set", "steps=4000")
    shelf.until(lambda: shelf.job(id)["state"] == "running")
    lab.link(START, "down")
    time.sleep(8)
    lab.link(START, "up")
    assert shelf.brmpi("wait", id, timeout=120) == "" and shelf.job(id)["attempt"] == "1"

    # that of a node: its half is ended when the cable is back, and only then the job goes on
    id = shelf.submit("--on", "octavia,aria", "-n", "2", *RUN, "--set", "steps=6000")
    shelf.until(lambda: list((shelf.run_of(id) / "checkpoints").glob("*.h5")))
    row = shelf.job(id)
    other = next(part.split()[0] for part in row["hosts"].split(",") if part.split()[0] != row["head"])
    lab.link(other, "down")
    shelf.until(lambda: shelf.job(id)["state"] == "ending")
    time.sleep(5)
    assert shelf.job(id)["state"] == "ending"
    lab.link(other, "up")
    assert shelf.brmpi("wait", id, timeout=120) == "" and shelf.job(id)["attempt"] == "2"


def test_a_node_that_was_away_for_longer_than_a_lease_keeps_its_job(shelf):
    id = shelf.submit("--on", "aria", "-n", "1", "--", "sleep", "45")
    shelf.until(lambda: shelf.job(id)["state"] == "running")
    shelf.lab.link("aria", "down")
    shelf.until(lambda: shelf.job(id)["state"] == "ending")
    shelf.lab.link("aria", "up")
    shelf.until(lambda: shelf.job(id)["state"] == "running", 30)
    assert shelf.brmpi("wait", id, timeout=120) == ""
    row = shelf.job(id)
    assert row["attempt"] == "1" and not row.get("losses"), row
