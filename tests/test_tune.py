"""``brmpi tune``: what it finds, writes, keeps and refuses; and kernels that crash or hang while they are timed."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from brmpi import kernels
from brmpi.bench import trials, tune
from brmpi.cluster import probe
from brmpi.errors import BadInput
from brmpi.kernels import choice

ON_DEVICE = pytest.mark.skipif(bool(kernels.without_opencl()), reason=kernels.without_opencl() or "-")


@ON_DEVICE
def test_a_tuning_is_made_within_its_time_and_used(launch, tmp_path, monkeypatch):
    begin = time.monotonic()
    done = launch(0, "-m", "brmpi", "tune", "--seconds", 8, "--kernels", "philox words", "gravity float64", timeout=100)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - begin < 8 + 20
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
    file.write_text("{")
    tune.write(tmp_path, first)
    assert len(choice.record(file)["rows"]) == 2


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


def test_one_node_of_each_type_is_taken(tmp_path):
    from brmpi.cluster import inventory

    (tmp_path / "cluster.toml").write_text(INVENTORY)
    known = inventory.load(tmp_path)
    with pytest.raises(BadInput, match=r"holds no probe of near, far, twin.*run brmpi probe"):
        tune.of_each_type(known, (), tmp_path)
    (tmp_path / "probes").mkdir()
    for name, cpu in (("far", "Cortex-A76"), ("twin", "Cortex-A76"), ("near", "Cortex-A76")):
        (tmp_path / f"probes/{name}.json").write_text(json.dumps({"schema": 1, "node": name, "cpu": cpu, "speeds": {}}))
    assert [node.name for node in tune.of_each_type(known, (), tmp_path)] == ["near"]
    assert [node.name for node in tune.of_each_type(known, ("twin", "far"), tmp_path)] == ["twin"]
    (tmp_path / "probes/near.json").write_text(json.dumps({"schema": 1, "node": "near", "cpu": "N100", "speeds": {}}))
    assert [node.name for node in tune.of_each_type(known, (), tmp_path)] == ["near", "far"]


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
