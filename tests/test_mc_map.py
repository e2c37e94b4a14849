"""A script's function over inputs: kinds of input, results in order, failures told and kept, restarts, bad input."""

import json
import os
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest
from conftest import environment, mpirun_command

MAP = ("-m", "brmpi.montecarlo.map")


def read(file):
    with h5py.File(file) as opened:
        texts = h5py.check_string_dtype(opened["results"].dtype) is not None
        results = [json.loads(text) for text in opened["results"].asstr()[:]] if texts else opened["results"][:]
        return results, opened["done"][:], opened["errors"].asstr()[:], opened["seconds"][:]


@pytest.mark.parametrize("ranks", [0, 3, 5])
def test_results_are_in_order_and_failures_lose_nothing(launch, tmp_path, ranks):
    (tmp_path / "script.py").write_text("def task(x):\n    assert x != 3, 'three'\n    return [x, x / 2]\n")
    done = launch(ranks, *MAP, "script.py", "--range", 11, "--out", "out.h5")
    assert done.returncode == 1 and done.stderr.count("input 3 failed: AssertionError: three") == 1
    results, there, errors, seconds = read(tmp_path / "out.h5")
    expected = np.array([[x, x / 2] for x in range(11)])
    expected[3] = np.nan
    np.testing.assert_array_equal(results, expected)
    assert there.tolist() == [x != 3 for x in range(11)] and (seconds[there] >= 0).all()
    assert "in task" in errors[3] and not any(errors[:3]) and "10 of 11 tasks" in done.stdout


@pytest.mark.parametrize(("name", "content", "expected"), [
    ("in.txt", "a\nbb\n", [1, 2]),
    ("in.csv", "x,name\n1.5,one\n2,two\n", [{"x": 1.5, "name": "one"}, {"x": 2, "name": "two"}]),
    ("in.json", '[1, [2], {"a": 3}]', [1, [2], {"a": 3}]), ("in.npy", np.array([[1.0, 2.0], [3.0, 4.0]]), [3.0, 7.0]),
    ("in.h5", np.arange(3), [0, 1, 2])])
def test_every_kind_of_input(launch, tmp_path, name, content, expected):
    (tmp_path / "script.py").write_text(
        "import numpy as np\n\ndef _helper(x):\n    return x\n\ndef shown(x):\n"
        "    return float(x.sum()) if isinstance(x, np.ndarray) else len(x) if isinstance(x, str) else x\n")
    if name.endswith(".npy"):
        np.save(tmp_path / name, content)
    elif name.endswith(".h5"):
        with h5py.File(tmp_path / name, "w") as file:
            file["things"] = content
    else:
        (tmp_path / name).write_text(content)
    done = launch(0, *MAP, "script.py", "--inputs", name, "--out", "out.h5", "--quiet")
    assert done.returncode == 0 and done.stdout == "", done.stderr
    assert list(read(tmp_path / "out.h5")[0]) == expected


def test_nothing_to_do(launch, tmp_path):
    (tmp_path / "script.py").write_text("def task(x):\n    return x\n")
    for ranks in (0, 3):
        done = launch(ranks, *MAP, "script.py", "--range", 0, "--out", f"{ranks}.h5")
        assert done.returncode == 0 and len(read(tmp_path / f"{ranks}.h5")[1]) == 0, done.stderr


@pytest.mark.parametrize(("how", "code"), [(signal.SIGUSR2, {75}), (signal.SIGKILL, {-9, 137})], ids=str)
def test_what_is_there_is_not_done_again(launch, tmp_path, how, code):
    (tmp_path / "script.py").write_text(
        "import pathlib, time\n\ndef task(x):\n    with open('done.txt', 'a') as file:\n        file.write(f'{x}\\n')\n"
        "    time.sleep(0.05)\n    return x * x\n")
    command = mpirun_command(2, sys.executable, *MAP, "script.py", "--range", 160, "--out", "out.h5")
    job = subprocess.Popen(command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    end = time.monotonic() + 40
    while not ((tmp_path / "out.h5").exists() and read(tmp_path / "out.h5")[1].sum() > 5):
        assert time.monotonic() < end and job.poll() is None
        time.sleep(0.02)
    os.kill(job.pid, how)
    job.communicate(timeout=30)
    assert job.returncode in code
    time.sleep(1.5 if how == signal.SIGKILL else 0)  # ranks of a launcher that was killed end by themselves
    there = int(read(tmp_path / "out.h5")[1].sum())
    before = len((tmp_path / "done.txt").read_text().split())
    assert 5 < there < 160
    done = launch(3, *MAP, "script.py", "--range", 160, "--out", "out.h5", "--restart")
    assert done.returncode == 0, done.stderr
    results, finished, _, _ = read(tmp_path / "out.h5")
    np.testing.assert_array_equal(results, np.arange(160) ** 2)
    assert finished.all() and len((tmp_path / "done.txt").read_text().split()) - before == 160 - there


def test_the_first_failure_can_end_it(launch, tmp_path):
    (tmp_path / "script.py").write_text("def task(x):\n    raise OSError(x)\n")
    done = launch(2, *MAP, "script.py", "--range", 10000, "--out", "out.h5", "--stop-at-first")
    assert done.returncode == 1 and read(tmp_path / "out.h5")[1].sum() == 0
    assert sum(map(bool, read(tmp_path / "out.h5")[2])) < 10000


@pytest.mark.parametrize(("words", "sentence"), [
    (("none.py", "--range", "3"), "no such Python file"),
    (("script.py", "--range", "-3", "--function", "one"), "--range -3: must be a whole number"),
    (("script.py", "--range", "3", "--function", "no"), "has no function 'no': known are one, two"),
    (("script.py", "--range", "3"), "name one with --function"),
    (("broken.py", "--range", "3"), "cannot be imported: NameError"),
    (("script.py", "--inputs", "none.csv", "--function", "one"), "cannot be read"),
    (("script.py", "--inputs", "script.py", "--function", "one"), "must be .txt, .csv"),
    (("script.py", "--range", "3", "--function", "one", "--out", "there.h5"), "is there already"),
    (("script.py", "--range", "3", "--function", "one", "--out", "no/out.h5"), "there is no folder no"),
    (("script.py", "--range", "3", "--function", "one", "--out", "there.h5", "--restart"), "cannot be read")], ids=str)
def test_bad_input_is_one_sentence(launch, tmp_path, words, sentence):
    (tmp_path / "script.py").write_text("def one(x):\n    return x\n\ndef two(x):\n    return x\n")
    (tmp_path / "broken.py").write_text("nothing\n")
    (tmp_path / "there.h5").write_text("text")
    out = () if "--out" in words else ("--out", "out.h5")
    done = launch(0, *MAP, *words, *out)
    assert done.returncode == 2 and done.stderr.count(sentence) == 1 and len(done.stderr.splitlines()) == 1, done.stderr
    assert not (tmp_path / "out.h5").exists() and (tmp_path / "there.h5").read_text() == "text"


def test_bad_input_is_printed_once_by_several_ranks(launch, tmp_path):
    (tmp_path / "script.py").write_text("def one(x):\n    return x\n")
    done = launch(3, *MAP, "script.py", "--range", "x", "--out", "out.h5")
    assert done.returncode == 2 and done.stderr.count("--range x") == 1
