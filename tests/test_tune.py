"""``brmpi tune``: what it finds, writes, keeps and refuses; and kernels that crash or hang while they are timed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import environment

from brmpi import kernels
from brmpi.bench import trials, tune
from brmpi.cluster import probe
from brmpi.errors import BadInput
from brmpi.kernels import choice

ON_DEVICE = pytest.mark.skipif(bool(kernels.without_opencl()), reason=kernels.without_opencl() or "-")


@ON_DEVICE
def test_a_tuning_is_made_within_its_time_and_used(launch, tmp_path, monkeypatch):
    begin = time.monotonic()
    words = ["tune", "--seconds", 16, "--kernels", "philox words", "gravity float64"]
    done = launch(0, "-m", "brmpi", *words, timeout=100)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - begin < 16 + 30
    tuning = choice.record(tmp_path / f"hostfiles/tuning/{choice.slug(probe.cpu())}.json")
    assert tuning["cpu"] == probe.cpu() and tuning["versions"]["numba"] and not tuning["lacking"]
    rows = tuning["rows"]
    assert {row["kernel"] for row in rows} == {"philox words", "gravity float64"}
    timed = [row for row in rows if row["threads"] == 1]
    assert {(row["backend"], row["size"]) for row in timed if row["kernel"] == "philox words"} >= {
        (backend, size) for backend in ("numba", "opencl") for size in (2**14, 2**18, 2**22)}
    for row in rows:
        known = choice.parameters(row["kernel"], row["backend"])
        assert row["repeats"] >= 3 and row["rate"] > 0 and set(row["parameters"]) == set(known)
        assert (row["backend"] == "opencl") == ("device" in row)
    assert "takes" in done.stdout and done.stdout.count("gravity float64") >= 1
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    choice.use(tuning)
    assert choice.choose("gravity float64", 2**26).why != "not tuned"
    choice.use()


def test_kernels_that_were_not_timed_again_stay(tmp_path):
    row = {"size": 1, "threads": 1, "backend": "numba", "parameters": {}, "rate": 1, "spread": 0}
    first = {"schema": 1, "cpu": "A, B", "rows": [{**row, "kernel": "a"}, {**row, "kernel": "b"}],
             "lacking": {"a": {"opencl": "old"}, "b": {"opencl": "old"}}}
    file = tune.write(tmp_path, first)
    assert file == tmp_path / "tuning/a-b.json"
    tune.write(tmp_path, {**first, "rows": [{**row, "kernel": "b", "rate": 2}], "lacking": {}})
    now = choice.record(file)
    assert {entry["kernel"]: entry["rate"] for entry in now["rows"]} == {"a": 1, "b": 2}
    assert now["lacking"] == {"a": {"opencl": "old"}}
    tune.write(tmp_path, {**first, "rows": [{**row, "kernel": "b", "rate": 3, "size": 2}]})  # another size
    assert [(entry["kernel"], entry["rate"]) for entry in choice.record(file)["rows"]] == [("a", 1), ("b", 2), ("b", 3)]
    tune.write(tmp_path, {**first, "cpu": "A B", "rows": [{**row, "kernel": "b"}]})  # another processor, the same file
    assert len(choice.record(file)["rows"]) == 1
    file.write_text("{")
    tune.write(tmp_path, first)
    assert len(choice.record(file)["rows"]) == 2


def test_a_version_that_dies_between_its_turns_ends_nothing(monkeypatch):
    """Whatever a process says, the questions are as many as they should be."""
    asked = []

    class Dying:
        def __init__(self, backend, threads):
            self.backend = backend

        def ask(self, kernel, size, parameters, repeats, seconds):
            asked.append(self.backend)
            if self.backend == "numba" and asked.count("numba") > 1:
                raise trials.Ended("its process died of signal 9")
            return {"rates": [1e9] * repeats}

        def close(self):
            pass

    monkeypatch.setattr(trials, "Timer", Dying)
    search = tune.Search(tune.chosen(["philox words"]), [1], 5)
    search.run(quiet=True)
    assert len(asked) < 200 and {row["backend"] for row in search.rows} == {"opencl", "numpy"}
    assert search.lacking == {"philox words": {"numba": "its process died of signal 9"}}


def test_lack_of_memory_at_one_size_leaves_the_others(monkeypatch):
    class Small:
        def __init__(self, backend, threads):
            self.backend = backend

        def ask(self, kernel, size, parameters, repeats, seconds):
            if self.backend == "opencl" and size > 2**20:
                return {"lacking": "out of device memory"}
            return {"rates": [1e9] * repeats}

        def close(self):
            pass

    monkeypatch.setattr(trials, "Timer", Small)
    search = tune.Search(tune.chosen(["philox words"]), [1], 5)
    search.run(quiet=True)
    assert {row["size"] for row in search.rows if row["backend"] == "opencl"} == {2**14, 2**18}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_stops_when_it_is_told_to_and_leaves_nobody(tmp_path, number):
    process = subprocess.Popen([sys.executable, "-m", "brmpi", "tune", "--seconds", "100"], cwd=tmp_path,
                               env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while not children(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    mine = children(process.pid)
    assert mine
    time.sleep(1)
    mine |= children(process.pid)
    process.send_signal(number)
    assert process.wait(timeout=15) != 0
    deadline = time.monotonic() + 5
    while any(Path(f"/proc/{pid}").exists() for pid in mine) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in mine if Path(f"/proc/{pid}").exists()]


def children(pid):
    """Processes that a process started and that still run."""
    return {int(one) for task in Path(f"/proc/{pid}/task").glob("*/children") for one in task.read_text().split()}


def test_a_remote_one_ends_when_nobody_listens_any_more(tmp_path):
    """As when ssh is gone: what it writes finds no reader."""
    process = subprocess.Popen([sys.executable, "-m", "brmpi.bench.tune", "--here", "--seconds", "100"], cwd=tmp_path,
                               env=environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout.readline() == b"\n"
    process.stdout.close()
    assert process.wait(timeout=15) == 128 + signal.SIGTERM


def test_a_folder_that_cannot_be_written_is_refused_before_work_starts(launch, tmp_path):
    (tmp_path / "hostfiles").write_text("a file")
    begin = time.monotonic()
    done = launch(0, "-m", "brmpi", "tune")
    assert done.returncode == 2 and "hostfiles/tuning: cannot be written" in done.stderr, done.stderr
    assert time.monotonic() - begin < 20


def test_a_node_without_opencl_is_tuned_without(launch, tmp_path):
    done = launch(0, "-m", "brmpi", "tune", "--seconds", 2, "--kernels", "ising", BRMPI_OPENCL="abacus")
    assert done.returncode == 0, done.stderr
    tuning = choice.record(tmp_path / f"hostfiles/tuning/{choice.slug(probe.cpu())}.json")
    assert "abacus" in tuning["lacking"]["ising half_sweep"]["opencl"]
    assert {row["backend"] for row in tuning["rows"]} <= {"numba", "numpy"}
    assert "opencl was not timed (BRMPI_OPENCL = 'abacus'" in done.stdout


@pytest.mark.parametrize(("fault", "words"), [("os.kill(os.getpid(), 11)", "its process died of signal 11"),
                                              ("os._exit(3)", "its process ended with exit code 3"),
                                              ("time.sleep(100)", "no answer within 1 s")])
def test_a_version_that_crashes_or_hangs_leaves_the_others(monkeypatch, tmp_path, fault, words):
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys, time\n"
        "if 'brmpi.bench.trials' in ' '.join(sys.orig_argv) and os.environ.get('FAULT'):\n"
        "    import brmpi.kernels.opencl as opencl\n"
        f"    opencl.device = lambda: {fault}\n")
    path = str(tmp_path), str(Path.cwd()), os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
    monkeypatch.setenv("FAULT", "1")
    monkeypatch.setattr(trials, "PATIENCE", 1.0 if "sleep" in fault else 60.0)
    search = tune.Search(tune.chosen(["philox uniform"]), [1], 4)
    monkeypatch.setattr(search, "tasks", search.tasks[:1])
    if "sleep" in fault:  # only OpenCL is slow to answer here, not the start of Python
        ask = trials.Timer.ask
        monkeypatch.setattr(trials.Timer, "ask", lambda self, kernel, size, parameters, repeats, seconds: ask(
            self, kernel, size, parameters, repeats, 0 if self.backend == "opencl" else 6))
    search.run(quiet=True)
    assert words in search.lacking["philox uniform"]["opencl"]
    assert "numba" in {row["backend"] for row in search.rows}


@pytest.mark.parametrize(("arguments", "words"), [
    (("--kernels", "abacus"), "--kernels 'abacus': no kernel begins so; there are gravity, stencil, boltzmann"),
    (("--seconds", 0), "--seconds = 0: must be > 0 s"), (("--seconds", "nan"), "--seconds = nan"),
    (("octavia",), "octavia")])
def test_bad_arguments(launch, arguments, words):
    done = launch(0, "-m", "brmpi", "tune", *arguments)
    assert done.returncode == 2 and words in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr


INVENTORY = """
[nodes.near]
address = "localhost"
[nodes.far]
address = "198.51.100.7"
[nodes.twin]
address = "198.51.100.8"
"""


def test_one_node_of_each_type_is_taken(tmp_path, capsys):
    from brmpi.cluster import inventory

    (tmp_path / "cluster.toml").write_text(INVENTORY)
    known = inventory.load(tmp_path)
    with pytest.raises(BadInput, match=r"holds no probe of near, far, twin.*run brmpi probe"):
        tune.of_each_type(known, (), tmp_path)
    (tmp_path / "probes").mkdir()
    for name, cpu in (("far", "Cortex-A76"), ("twin", "Cortex-A76"), ("near", "Cortex-A76")):
        (tmp_path / f"probes/{name}.json").write_text(json.dumps({"schema": 1, "node": name, "cpu": cpu, "speeds": {}}))
    def names(asked=()):
        return [[node.name for node in nodes] for nodes in tune.of_each_type(known, asked, tmp_path)]

    assert names() == [["near", "far", "twin"]]
    assert names(("twin", "far")) == [["twin", "far"]] and names(("twin",)) == [["twin"]]
    (tmp_path / "probes/near.json").write_text(json.dumps({"schema": 1, "node": "near", "cpu": "N100", "speeds": {}}))
    assert names() == [["near"], ["far", "twin"]]
    (tmp_path / "probes/far.json").unlink()
    assert names() == [["near"], ["twin"]] and "no probe of them: far" in capsys.readouterr().err
    with pytest.raises(BadInput, match="no probe of far"):
        names(("far", "near"))


def test_a_node_that_cannot_be_reached_is_told(launch, tmp_path):
    (tmp_path / "hostfiles").mkdir()
    (tmp_path / "hostfiles/cluster.toml").write_text(INVENTORY)
    done = launch(0, "-m", "brmpi", "tune", "far", "--seconds", 1, "--kernels", "ising", timeout=110,
                  PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert done.returncode == 1 and "far: not tuned: " in done.stderr, done.stderr


def test_an_answer_is_found_among_what_libraries_print():
    code = ("import brmpi.bench.trials as t, ctypes\n"
            "real = t._Server.answer\n"
            "def answer(self, **ask):\n"
            "    print('a library says')\n"
            "    ctypes.CDLL(None).puts(b'another')\n"
            "    return real(self, **ask)\n"
            "t._Server.answer = answer\n"
            "t.main()\n")
    question = {"kernel": "philox words", "size": 100, "backend": "numpy", "parameters": {}, "repeats": 2, "seconds": 1}
    done = subprocess.run([sys.executable, "-c", code], input=json.dumps(question) + "\n", text=True,
                          capture_output=True, timeout=60)
    assert done.stdout.startswith(trials.MARK) and len(json.loads(done.stdout[len(trials.MARK):])["rates"]) == 2
    assert "a library says" in done.stderr
