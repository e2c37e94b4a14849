"""The spool as people use it: commands, an agent, real jobs under mpirun, a Redis that is stopped, killed, and open to
others."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from conftest import environment

from brmpi import cli
from brmpi.errors import BadInput
from brmpi.spool import audit, places, routing, spec, submit
from brmpi.spool.store import PREFIX, Refused, Store

pytestmark = pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed")


class Shelf:
    """A spool with one agent on this machine, in a folder of its own."""

    def __init__(self, folder):
        self.folder, self.agent = folder, None
        self.env = environment(BRMPI_SPOOL=str(folder / "spool"), BRMPI_HOSTFILES=str(folder / "hostfiles"))

    def brmpi(self, *words, code=0, timeout=60, **variables):
        """Run a command; its output."""
        done = subprocess.run(
            [sys.executable, "-m", "brmpi", *map(str, words)],
            cwd=self.folder,
            env=self.env | variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout if not code else done.stderr or done.stdout

    def submit(self, *words, **options):
        return json.loads(self.brmpi("submit", "--json", *words, **options))["id"]

    def start(self, *words):
        self.agent = subprocess.Popen([sys.executable, "-m", "brmpi", "agent", "--slots", "2", *words], cwd=self.folder,
                                      env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                      stderr=subprocess.STDOUT, text=True, start_new_session=True)
        line = self.agent.stdout.readline()
        assert line.startswith("brmpi agent: "), line + self.agent.stdout.read()

    def stop(self, number=signal.SIGTERM):
        self.agent.send_signal(number)
        return self.agent.wait(20)

    @property
    def store(self):
        path = places.own_socket() if len(str(self.folder)) > 80 else self.folder / "spool/redis.sock"
        return Store(places.Address(f"unix://{path}", password=self.password), hello=False)

    @property
    def password(self):
        with contextlib.suppress(OSError):
            return (self.folder / "spool/password").read_text().strip()
        return None

    def state(self, id):
        return self.store.job(id)["state"]

    def until(self, what, seconds=40):
        end = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < end, self.brmpi("queue", "--all")
            time.sleep(0.02)

    def close(self):
        if self.agent and self.agent.poll() is None:
            for row in self.store.jobs(("running", "placed", "queued", "waiting", "delayed")):
                self.store.call("cancel", row["id"])
            with contextlib.suppress(AssertionError):
                self.until(lambda: not self.store.jobs(("running", "ending")), 20)
            self.stop()
        self.brmpi("spool", "stop")


@pytest.fixture
def shelf():
    with tempfile.TemporaryDirectory(prefix="spool-", dir="/tmp") as folder:
        made = Shelf(Path(folder))
        (made.folder / "hostfiles").mkdir()
        yield made
        made.close()


QUICK = ("--set", "steps=20", "--set", "n=100")


def test_a_run_from_the_queue_to_its_folder(shelf):
    shelf.brmpi("spool", "start")
    assert "no jobs" in shelf.brmpi("queue")
    id = shelf.submit("nbody", "-n", "2", *QUICK)
    assert id == "1" and "there is room for 0" in shelf.brmpi("queue")
    assert shelf.brmpi("wait", id, "--timeout", "0.2", code=124).endswith("job 1 is queued\n")
    shelf.start()
    assert shelf.brmpi("wait", id) == ""
    folder = shelf.folder / "results/nbody-default-1"
    about = json.loads((folder / "run.json").read_text())
    assert about["status"] == "done" and about["ranks"] == 2
    assert "see it: brmpi show results/nbody-default-1" in shelf.brmpi("logs", id)
    told = shelf.brmpi("show", id)
    assert "1, done" in told and "nbody --set steps=20" in told and "results/nbody-default-1" in told
    assert "energy" in shelf.brmpi("show", "results/nbody-default-1")
    row = json.loads(shelf.brmpi("queue", "--all", "--json"))[0]
    assert row["state"] == "done" and row["spec"]["argv"][0] == "nbody" and row["attempt"] == "1"
    assert audit.problems(shelf.store) == []


def test_exit_codes_failures_and_tries(shelf):
    shelf.start()
    (shelf.folder / "fails.py").write_text("import sys\nprint('so', flush=True)\nsys.exit(7)\n")
    one, two = shelf.submit("-n", "1", "fails.py"), shelf.submit("-n", "1", "--retries", "1", "fails.py")
    after = shelf.submit("-n", "1", "--after", one, "nbody", *QUICK)
    assert "job 1: failed: exit code 7" in shelf.brmpi("wait", one, code=7)
    assert shelf.brmpi("wait", two, code=7, timeout=90)
    assert shelf.store.job(two)["attempt"] == "2" and shelf.brmpi("logs", two).splitlines().count("so") == 2
    assert shelf.brmpi("wait", after, code=130) and "job 1 is failed" in shelf.store.job(after)["why"]
    bad = shelf.submit("nbody", "--set", "softening=-1", "-n", "1", "--retries", "5")
    assert shelf.brmpi("wait", bad, code=2) and shelf.store.job(bad)["attempt"] == "1"
    late = shelf.submit("--time", "1", "-n", "1", "--", "sleep", "60")
    assert "its limit of time, 1 s" in shelf.brmpi("wait", late, code=124)
    assert audit.problems(shelf.store) == []


def test_an_array_and_what_is_made_of_it(shelf):
    shelf.start()
    id = shelf.submit("--array", "0-2", "-n", "1", "pi", "--set", "seed={index}", "--set", "samples=100000")
    assert shelf.brmpi("wait", id) == ""
    folders = sorted(path.name for path in (shelf.folder / "results").iterdir())
    assert folders == [f"pi-default-{id}-{i}" for i in range(3)]
    seeds = [json.loads((shelf.folder / "results" / name / "run.json").read_text())["case"]["seed"] for name in folders]
    assert seeds == [0, 1, 2]
    rows = json.loads(shelf.brmpi("collect", id, "--json"))
    assert [row["job"] for row in rows] == [f"{id}-{i}" for i in range(3)] and len(rows[0]) > 3
    assert "3 rows" in shelf.brmpi("collect", id, "--out", "all.csv")
    assert (shelf.folder / "all.csv").read_text().count("\n") == 4
    assert shelf.brmpi("collect", id, "--", "echo").split() == [
        str(shelf.folder / "results" / name) for name in folders
    ]
    assert "3 done" in shelf.brmpi("show", id)


def test_cancelled_saved_and_gone_on_with(shelf):
    shelf.start()
    id = shelf.submit("nbody", "-n", "1", "--set", "steps=10000000", "--set", "n=50", "--set", "checkpoint=3600")
    folder = shelf.folder / f"results/nbody-default-{id}"
    shelf.until(lambda: (folder / "diagnostics.h5").exists())
    assert "is asked to save and end" in shelf.brmpi("cancel", id)
    assert shelf.brmpi("wait", id, code=130) and shelf.state(id) == "cancelled"
    about = json.loads((folder / "run.json").read_text())
    assert about["status"] == "stopped" and list((folder / "checkpoints").glob("*.h5"))
    assert "queued" in shelf.brmpi("requeue", id)
    shelf.until(lambda: json.loads((folder / "run.json").read_text()).get("restarts"))
    shelf.brmpi("cancel", id)
    shelf.brmpi("wait", id, code=130)


def test_jobs_do_not_notice_that_their_agent_dies(shelf):
    shelf.start()
    (shelf.folder / "waits.py").write_text("import time\nprint('begun', flush=True)\ntime.sleep(4)\nprint('ended')\n")
    id = shelf.submit("-n", "1", "waits.py")
    shelf.until(lambda: "begun" in shelf.brmpi("logs", id))
    shelf.stop(signal.SIGKILL)
    shelf.start()
    assert shelf.brmpi("wait", id) == "" and shelf.store.job(id)["attempt"] == "1"
    said = shelf.brmpi("logs", "-f", id).split()
    assert said.count("begun") == said.count("ended") == 1


def test_redis_may_be_killed(shelf):
    shelf.start()
    (shelf.folder / "waits.py").write_text("import time\ntime.sleep(3)\n")
    running, waiting = shelf.submit("-n", "2", "waits.py"), shelf.submit("-n", "2", "waits.py")
    shelf.until(lambda: shelf.state(running) == "running")
    os.kill(shelf.store.ask("info", "server")["process_id"], signal.SIGKILL)
    assert "the spool is not running" in shelf.brmpi("queue", code=1)
    time.sleep(1)
    shelf.brmpi("spool", "start")
    assert shelf.brmpi("wait", running, waiting, timeout=90) == ""
    assert [shelf.store.job(id)["attempt"] for id in (running, waiting)] == ["1", "1"]


def test_python(shelf, monkeypatch):
    monkeypatch.chdir(shelf.folder)
    for name in ("BRMPI_SPOOL", "BRMPI_HOSTFILES"):
        monkeypatch.setenv(name, shelf.env[name])
    shelf.start()
    from brmpi.spool.api import Spool

    spool = Spool()
    first = spool.submit(["pi", "--set", "samples=100000"], ranks=2, limit=60.0, key="mine")
    assert spool.submit(["pi"], ranks=2, key="mine").id == first.id
    second = spool.submit(["--", sys.executable, "-c", "raise SystemExit(3)"], ranks=1, after=[first])
    assert first.result(60) == 0 and first.done() and first.folders()[0].name == f"pi-default-{first.id}"
    assert second.result(60) == 3 and second.state == "failed"
    third = spool.submit(["--", "sleep", "60"], ranks=1)
    with pytest.raises(TimeoutError, match=f"job {third.id} is"):
        third.result(0.1)
    third.cancel()
    assert third.result(60) == 130 and spool.job(third.id).state == "cancelled"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["submit"], "name a program"),
        (["submit", "nbdy"], "did you mean nbody"),
        (["submit", "nbody", "-n", "0"], "-n 0: must be from 1"),
        (["submit", "nbody", "--memory", "lots"], "--memory lots"),
        (["submit", "nbody", "--time", "soon"], "--time soon"),
        (["submit", "nbody", "--priority", "top"], "--priority top"),
        (["submit", "nbody", "--array", "3-7"], "--array 3-7: must be 0-N"),
        (["submit", "nbody", "--after", "99"], "no such job"),
        (["submit", "nbody", "--kind", "odd"], "--kind odd: must be one of heavy"),
        (["submit", "nbody", "--tags", "a b"], "'a b': must be"),
        (["wait", "99"], "99: there is no such job"),
        (["logs", "99"], "99: there is no such job"),
        (["show", "99"], "99: there is no such job"),
        (["cancel", "../x"], "there is no such job"),
        (["drain", "nobody"], "nobody: there is no such node"),
        (["spool", "start", "--listen", "0:0:0"], "must be an address"),
        (["agent", "--name", "nobody"], "'nobody' is not there"),
        (["agent", "--slots", "0"], "--slots 0: must be >= 1"),
    ],
)
def test_bad_input_is_one_sentence(started, words, sentence):
    said = started.brmpi(*words, code=2)
    assert sentence in said and len(said.splitlines()) == 1, said


@pytest.fixture(scope="module")
def started():
    with tempfile.TemporaryDirectory(prefix="spool-", dir="/tmp") as folder:
        made = Shelf(Path(folder))
        (made.folder / "hostfiles").mkdir()
        made.brmpi("spool", "start")
        yield made
        made.close()


def test_stopped_and_started_again_with_all_its_jobs(shelf):
    shelf.brmpi("spool", "start")
    assert shelf.submit("nbody", "-n", "1") == "1"
    assert "stopped" in shelf.brmpi("spool", "stop") and "not running" in shelf.brmpi("spool", "stop")
    assert "brmpi spool start" in shelf.brmpi("submit", "nbody", "-n", "1", code=1)
    shelf.brmpi("spool", "start")
    assert json.loads(shelf.brmpi("spool", "start", "--json"))["paused"] == ""
    assert json.loads(shelf.brmpi("spool", "resume", "--json")) == {"paused": ""}
    assert json.loads(shelf.brmpi("spool", "prune", "--json")) == {"forgotten": 0}
    assert shelf.submit("nbody", "-n", "1") == "2" and "2 queued" in shelf.brmpi("spool", "status")
    shelf.brmpi("spool", "stop")
    shutil.rmtree(shelf.folder / "spool/data")
    assert "paused" in shelf.brmpi("spool", "start")
    assert "holds no spool" in shelf.brmpi("submit", "nbody", "-n", "1", code=2)
    assert "goes on" in shelf.brmpi("spool", "resume") and shelf.submit("nbody", "-n", "1") == "3"


def _port():
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return door.getsockname()[1]


def test_other_nodes_get_a_user_that_may_little(shelf):
    port = _port()
    said = shelf.brmpi("spool", "start", "--listen", f"127.0.0.1:{port}")
    assert f'redis = "redis://127.0.0.1:{port}"' in said and 'user = "agent"' in said
    password = (shelf.folder / "spool/agent-password").read_text().strip()
    assert (shelf.folder / "spool/agent-password").stat().st_mode & 0o77 == 0
    assert password not in (shelf.folder / "spool/users.acl").read_text()
    store = Store(places.Address(f"redis://127.0.0.1:{port}/0", "agent", password), hello=False)
    assert store.submit([spec.record(["nbody"], spec.needs(1))]) == ["1"] and store.jobs()
    for command in (("flushall",), ("config_get", "*"), ("get", "other"), ("keys", "*"), ("shutdown",), ("set", "x", 1),
                    ("acl_list",)):
        with pytest.raises(Refused, match=r"(?i)permission|NOPERM"):
            store.ask(*command)
    with pytest.raises(BadInput, match="password"):
        Store(places.Address(f"redis://127.0.0.1:{port}/0"), hello=False).ask("ping")
    assert "runs already" in shelf.brmpi("spool", "start", "--listen", f"127.0.0.1:{port + 1}", code=2)
    shelf.brmpi("spool", "start")
    assert "1 queued" in shelf.brmpi("spool", "status")
    variables = {"BRMPI_REDIS": f"redis://agent:{password}@127.0.0.1:{port}"}
    assert "job 2" in shelf.brmpi("submit", "nbody", "-n", "1", **variables)
    assert password not in shelf.brmpi("submit", "nbody", "-n", "1", code=2, **{**variables, "BRMPI_REDIS":
                                                                                 f"http://agent:{password}@h"})


def test_a_redis_that_others_reach_without_a_password_is_refused(tmp_path):
    port = _port()
    process = subprocess.Popen(
        [
            "redis-server",
            "--port",
            str(port),
            "--bind",
            "0.0.0.0",
            "--protected-mode",
            "no",
            "--save",
            "",
            "--dir",
            tmp_path,
        ],
        stdout=subprocess.DEVNULL,
    )
    try:
        end = time.monotonic() + 10
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert time.monotonic() < end
            time.sleep(0.02)
        for host in ("127.0.0.1", "192.0.2.7", "shellfish.local"):
            with pytest.raises(BadInput, match="others can reach it, and it asks for no password"):
                Store(places.Address(f"redis://{host}:{port}/0"), hello=False)
    finally:
        process.kill()
        process.wait()


def test_a_redis_that_would_forget_is_refused(tmp_path):
    port = _port()
    process = subprocess.Popen(["redis-server", "--port", str(port), "--save", "", "--dir", tmp_path],
                               stdout=subprocess.DEVNULL)
    try:
        store, end = None, time.monotonic() + 10
        while store is None:
            with contextlib.suppress(Exception):
                store = Store(places.Address(f"redis://127.0.0.1:{port}/0"), hello=False)
                store.ask("ping")
            assert time.monotonic() < end
        with pytest.raises(Refused, match="would forget jobs"):
            store.durable()
    finally:
        process.kill()
        process.wait()


def test_addresses(tmp_path, monkeypatch):
    for name in (places.VARIABLE, places.PASSWORD):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("BRMPI_SPOOL", str(tmp_path / "s"))
    assert places.address(tmp_path).own
    (tmp_path / "secret").write_text("sesame\n")
    (tmp_path / "cluster.toml").write_text('[spool]\nredis = "redis://shellfish"\nuser = "agent"\n'
                                           f'password_file = "{tmp_path}/secret"\n')
    found = places.address(tmp_path)
    assert (found.url, found.user, found.password) == (
        "redis://shellfish:6379/0",
        "agent",
        "sesame",
    ) and not found.loopback
    monkeypatch.setenv(places.VARIABLE, "redis://:open%20sesame@10.0.0.1:7000/2")
    found = places.address(tmp_path)
    assert (found.url, found.password, found.end) == ("redis://10.0.0.1:7000/2", "open sesame", ("10.0.0.1", 7000, 2))
    for bad in ("shellfish", "http://x", "redis://", "redis://h:99999", "redis://h/x", "unix://"):
        monkeypatch.setenv(places.VARIABLE, bad)
        with pytest.raises(BadInput, match="BRMPI_REDIS: must be like"):
            places.address(tmp_path)
    monkeypatch.delenv(places.VARIABLE)
    monkeypatch.setenv("BRMPI_SPOOL", str(tmp_path / ("long" * 40)))
    assert len(str(places.own_socket())) < 100 and places.own_socket() == places.own_socket()


def test_words_times_and_sizes():
    assert [spec.size(text) for text in ("2G", "500M", "1.5k", "7")] == [2**31, 500 * 2**20, 1536, 7]
    assert [spec.seconds(text) for text in ("90", "15m", "2h", "1:30:00", "2:05")] == [90, 900, 7200, 5400, 125]
    assert spec.priority("high") == 100 and spec.priority("-5") == -5 and spec.indices("0-99") == 100
    assert spec.words({"argv": ["a{index}", "{id}"]}, "7-3", "3") == ["a3", "7-3"]
    assert spec.words({"argv": ["a{index}"]}, "7") == ["a{index}"]
    assert spec.folder_of({"argv": ["x"], "out": "../../x-y"}, "7-3") == "results/x-y-7-3"
    assert spec.folder_of({"argv": ["x", "--out", "mine-{index}"], "out": "x"}, "7-3") == "mine-3"
    assert spec.folder_of({"argv": ["x", "--out=mine"], "out": "x"}, "7") == "mine"
    assert spec.folder_of({"argv": ["x"], "out": None}, "7") is None
    assert [spec.spoken(seconds) for seconds in (0, 99, 185, 7200)] == ["0 s", "99 s", "3:05 min", "2:00 h"]
    assert spec.needs(2, tags=["arm64", "b"]) == spec.needs(2, tags=["b", "aarch64"])


NODES = [{"name": "octavia", "slots": "4", "memory": "8000", "tags": "octavia compute primary aarch64", "speed": "3",
          "state": "up", "free": "4"},
         {"name": "aria", "slots": "4", "memory": "4000", "tags": "aria compute aarch64", "speed": "1", "state": "up",
          "free": "4"},
         {"name": "shellfish", "slots": "4", "memory": "8000", "tags": "shellfish coordinator x86_64", "speed": "4",
          "state": "up", "free": "4"}]


def test_where_work_goes(tmp_path):
    kinds, programs = routing.kinds(tmp_path)

    def _decided(kind, **asked):
        need, why = routing.decide(routing.Request(**asked), kinds[kind], NODES)
        return json.loads(need), "\n".join(why)

    heavy, why = _decided("heavy")
    assert heavy["ranks"] == 4 and heavy["prefer"][0] == "primary" and "kind: heavy" in why
    parallel, why = _decided("parallel")
    assert parallel["ranks"] == 8 and parallel["nodes"] == ["compute"] and "by kind parallel" in why
    assert _decided("distributed")[0]["ranks"] == 12 and _decided("coordination")[0]["prefer"] == ["coordinator"]
    assert _decided("distributed", tags=("x86_64",))[0]["ranks"] == 4
    assert _decided("parallel", nodes=("shellfish",), memory=3000 * 2**20)[0]["ranks"] == 2
    assert routing.kind_of("nbody", "brmpi.sims.nbody", programs) == "parallel"
    assert routing.kind_of("hpl", "brmpi.linalg.hpl", programs) == "heavy"
    assert routing.kind_of("serve", "brmpi.train.serve", programs) == "heavy"
    assert routing.fits(NODES[0], ["x86_64"], []) == "has no x86_64"
    (tmp_path / "cluster.toml").write_text('[spool.kinds.wide]\nnodes = ["aarch64"]\nwhat = "all Pis"\n'
                                           '[spool.programs]\nnbody = "wide"\n')
    kinds, programs = routing.kinds(tmp_path)
    assert routing.kind_of("nbody", "brmpi.sims.nbody", programs) == "wide" and _decided("wide")[0]["ranks"] == 8
    for text, sentence in (
        ("[spool.kinds.x]\nlikes = 1\n", "may have prefer"),
        ('[spool.programs]\nx = "y"\n', "must be one of"),
        ('[spool.kinds.x]\nnodes = "all"\n', "must be a list"),
    ):
        (tmp_path / "cluster.toml").write_text(text)
        with pytest.raises(BadInput, match=sentence):
            routing.kinds(tmp_path)


def test_when_jobs_are_expected_to_begin():
    from brmpi.spool import forecast

    def _row(id, ranks, limit=0.0, state="queued", **more):
        return {"id": id, "state": state, "class": spec.needs(ranks, limit=limit), "limit": str(limit), **more}

    nodes = [{**NODES[0], "free": "0"}, {**NODES[1], "free": "2"}]
    rows = [
        _row("1", 6, 100.0, "running", started="1000", hosts="octavia 4 0,aria 2 0"),
        _row("2", 4, 50.0),
        _row("3", 8),
        _row("4", 1),
        _row("5", 99),
    ]
    starts, reasons = forecast.starts(rows, nodes, now=1040.0)
    assert starts == {"2": 60.0, "3": 110.0} and "room for 99 ranks: there is room for 8" in reasons["5"]
    assert "2 jobs before it" in reasons["4"]
    damaged = [{"id": "6", "state": "queued"}, {"id": "7", "state": "queued", "class": "{}"},
               {"id": "8", "state": "running", "hosts": "x"}]
    starts, reasons = forecast.starts([*rows, *damaged], nodes, now=1040.0)
    assert starts == {"2": 60.0, "3": 110.0} and reasons["6"] == reasons["7"] == "its record cannot be read"


def test_nobody_can_have_it_and_why(started):
    said = started.brmpi("submit", "nbody", "--explain")
    assert "kind: parallel" in said and "no node is there yet" in said
    assert json.loads(started.brmpi("submit", "nbody", "--explain", "--json"))["needs"]["ranks"] == 1


PAGE = (Path(__file__).parent.parent / "docs/spool.md").read_text()


def test_options_of_the_page_are_there():
    table = PAGE.partition("| option of")[2].partition("\n\n")[0]
    for option in re.findall(r"`(--?[a-z]+)", table):
        assert option in (*submit.VALUED, *submit.FLAGS), option
    for command in re.findall(r"brmpi ([a-z]+)", PAGE):
        assert command in cli.COMMANDS or command == "program", command
    assert set(submit.VALUED + submit.FLAGS) <= set(
        re.findall(r"--?[a-z]+", PAGE + "--hostfiles --accelerator --json --name")
    )


def test_the_pages_example_runs(shelf):
    shelf.start()
    (shelf.folder / "example.py").write_text(re.search(r"```python\n(.*?)```", PAGE, re.S).group(1) + "\nprint(code)\n")
    done = subprocess.run(
        [sys.executable, "example.py"], cwd=shelf.folder, env=shelf.env, capture_output=True, text=True, timeout=90
    )
    assert done.returncode == 0 and done.stdout.startswith("1 ") and done.stdout.endswith("\n0\n"), (
        done.stdout + done.stderr
    )


def test_logs_and_queues_hold_no_secrets(shelf):
    shelf.env["BRMPI_REDIS_PASSWORD"] = "sesame"
    del shelf.env["BRMPI_REDIS_PASSWORD"]
    shelf.start()
    id = shelf.submit("-n", "1", "--", "env", BRMPI_TOKEN="sesame")
    shelf.brmpi("wait", id)
    said = shelf.brmpi("logs", id)
    assert "BRMPI_JOB=" in said and "BRMPI_REDIS" not in said and "sesame" not in said
    assert f"{PREFIX}job:{id}" in shelf.store.keys("job:*")


def test_jobs_of_an_array_are_one_line():
    from brmpi.spool import queue

    rows = [{"id": "7-0", "state": "running"}, {"id": "7-1", "state": "running"},
            *({"id": f"7-{i}", "state": "queued", "why": ""} for i in (2, 3, 4, 8)), {"id": "9", "state": "queued"},
            {"id": "10-3", "state": "done", "why": ""}]
    assert [id for id, _ in queue.alike(rows)] == ["7-0", "7-1", "7-[2-4,8]", "9", "10-3"]
