"""Training programs as people run them: the same bits on any ranks and shares, restarts, methods, ends, pictures."""

import json
import os
import signal
import subprocess
import sys
import time

import matplotlib.image
import numpy as np
import pytest
from conftest import environment, made, mpirun_command
from mpi4py import MPI

from brmpi.balance import blocks
from brmpi.results import checkpoints, diagnostics, snapshots
from brmpi.train import conv, mlp, softmax
from brmpi.train import program as training

KINDS = {"softmax": softmax.Softmax, "mlp": mlp.Mlp, "conv": conv.Conv}
SMALL = {"softmax": {"data": "wine", "epochs": 4}, "mlp": {"hidden": (24,), "epochs": 2},
         "conv": {"channels": (4, 6), "hidden": (16,), "epochs": 1}}


def keys(name, **more):
    """A small case as words of a command line."""
    found = SMALL[name] | more
    return [word for key, value in found.items()
            for word in ("--set", f"{key}={json.dumps(list(value) if isinstance(value, tuple) else value)}")]


def about(folder):
    return json.loads((folder / "run.json").read_text())


def told(folder):
    """What depends on the case alone: rows, snapshots and the network."""
    import h5py

    rows = diagnostics.read(folder / "diagnostics.h5")
    with h5py.File(folder / "model.h5") as file:
        w = file["w"][:].tobytes()
    shown = [file.read_bytes() for file in sorted((folder / "snapshots").iterdir())]
    return {name: values.tobytes() for name, values in rows.items() if not name.startswith("wall/")}, w, shown


def trained(kind, comm, /, **more):
    """A program after its last step, without a folder."""
    program = made(kind, comm, **more)
    while program.taken < program.case.steps:
        program.step()
    return program


@pytest.mark.parametrize("name", KINDS)
def test_the_same_bits_on_any_number_of_ranks(launch, tmp_path, name):
    for ranks, more in ((0, {}), (1, {}), (2, {}), (3, {"shares": "equal"}), (5, {"balance": "static"})):
        done = launch(ranks, "-m", f"brmpi.train.{name}", *keys(name, **more), "--out", f"on-{ranks}", timeout=110)
        assert done.returncode == 0, done.stderr
        assert told(tmp_path / f"on-{ranks}") == told(tmp_path / "on-0"), ranks
    found = about(tmp_path / "on-5")
    assert found["status"] == "done" and found["ranks"] == 5 and found["communication"]["method"] == "fixed"
    assert "communication: fixed" in done.stdout and "predicted" in done.stdout and "samples/s" in done.stdout


@pytest.mark.mpi
@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("more", [{}, {"comm": "plain"}, {"zero": True}, {"zero": True, "comm": "plain"},
                                  {"precision": "float64"}, {"precision": "float64", "comm": "plain"}])
def test_loss_curves_are_those_of_one_rank(comm, alone, assert_all, name, more):
    case = SMALL[name] | {"epochs": 1, "batch": 48, "micro": 5, "checkpoint": 1e9}
    single = trained(KINDS[name], alone, **case, **({"precision": more["precision"]} if "precision" in more else {}))
    program = made(KINDS[name], comm, **case, **more)
    program.speeds = program.pace.speeds = np.array([1.0, 3.0, 0.0, 2.0, 0.5])[: comm.size]  # one takes nothing
    program.pace.on = False
    while program.taken < program.case.steps:
        program.step()
    mine, wanted = program.sample(), single.sample()
    bits = more.get("comm", "fixed") == "fixed"
    close = 1e-11 if "precision" in more else 2e-4
    for key, value in wanted.items():
        same = mine[key] == value if bits else abs(mine[key] - value) <= close * max(abs(value), 1)
        assert_all(same, f"{key} {mine[key]}")
    assert_all(np.array_equal(program.w, single.w) if bits else np.allclose(program.w, single.w, atol=20 * close))
    assert_all(np.array_equal(program.w, comm.bcast(program.w)), "ranks differ")


@pytest.mark.mpi
@pytest.mark.parametrize("method", ["float16", "bfloat16", "topk", "powersgd", "local"])
def test_every_method_learns_and_all_ranks_have_the_same_network(comm, assert_all, method):
    program = made(mlp.Mlp, comm, hidden=(48,), epochs=12, rate=5e-3, comm=method, top=0.1, local=4, rank=4)
    first = program.sample()
    while program.taken < program.case.steps:
        program.step()
    last = program.sample()
    assert_all(last["test_accuracy"] > 0.93 and last["test_loss"] < 0.2 * first["test_loss"], last)
    assert_all(np.array_equal(program.w, comm.bcast(program.w)), "ranks differ")


@pytest.mark.mpi
@pytest.mark.parametrize("more", [{}, {"zero": True, "optimizer": "sgd"}, {"comm": "topk", "top": 0.05},
                                  {"comm": "powersgd", "rank": 2}, {"comm": "local", "local": 5},
                                  {"validation": 0.2, "patience": 9}, {"comm": "float16"}])
def test_a_state_goes_on_to_the_same_bits(comm, assert_all, more):
    case = {"hidden": (12,), "epochs": 1, "batch": 100, "shares": "equal", **more}  # measured speeds differ each time
    program, other = made(mlp.Mlp, comm, **case), made(mlp.Mlp, comm, **case, seed=1)
    for _ in range(7):
        program.step()
    state = program.arrays()
    assert_all(all(np.isfinite(piece.data).all() for piece in state.values()))
    other.restore(blocks(other, state))
    while program.taken < program.case.steps:
        program.step()
        other.step()
    assert_all(other.taken == program.taken and np.array_equal(program.w, other.w), f"{more}")
    assert_all(program.sample() == other.sample())


def test_killed_and_gone_on_with_on_other_ranks_to_the_same_bits(tmp_path, launch):
    words = keys("mlp", epochs=20, sample=50)
    command = mpirun_command(2, sys.executable, "-m", "brmpi.train.mlp", *words, "--set", "checkpoint=0",
                             "--out", "run")
    process = subprocess.Popen(command, cwd=tmp_path, env=environment(), start_new_session=True,
                               stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while max(checkpoints.steps(tmp_path / "run", "mlp"), default=0) < 40:
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.005)
    os.kill(about(tmp_path / "run")["pid"], signal.SIGKILL)
    assert process.wait(30)
    assert about(tmp_path / "run")["status"] == "running"
    done = launch(3, "-m", "brmpi.train.mlp", "--restart", "--out", "run", "--set", "checkpoint=60")
    assert done.returncode == 0, done.stderr
    assert about(tmp_path / "run")["restarts"][0]["ranks"] == 3 and about(tmp_path / "run")["restarts"][0]["step"] >= 40
    done = launch(0, "-m", "brmpi.train.mlp", *words, "--out", "whole")
    assert done.returncode == 0 and told(tmp_path / "run") == told(tmp_path / "whole")


def test_stopped_and_gone_on_with_to_the_same_bits(tmp_path, launch):
    words = [*keys("mlp", epochs=60, checkpoint=0.3), "--quiet"]
    process = subprocess.Popen([sys.executable, "-m", "brmpi.train.mlp", *words, "--out", "run"], cwd=tmp_path,
                               env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    end = time.monotonic() + 60
    while not checkpoints.steps(tmp_path / "run", "mlp"):
        assert time.monotonic() < end and process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) in (75, 0)
    done = launch(2, "-m", "brmpi.train.mlp", "--restart", "--out", "run")
    assert done.returncode == 0, done.stderr
    done = launch(0, "-m", "brmpi.train.mlp", *words, "--out", "whole")
    assert done.returncode == 0 and told(tmp_path / "run") == told(tmp_path / "whole")


def test_it_stops_early_and_keeps_the_best(tmp_path, launch):
    words = keys("softmax", data="breast-cancer", epochs=500, rate=0.3, validation=0.25, patience=3,
                 schedule="constant")
    done = launch(2, "-m", "brmpi.train.softmax", *words, "--out", "run")
    assert done.returncode == 0, done.stderr
    found, rows = about(tmp_path / "run"), diagnostics.read(tmp_path / "run/diagnostics.h5")
    assert found["status"] == "done" and found["step"] < 500 * 6 and rows["step"][-1] == found["step"]
    losses = rows["validation_loss"][1:]  # of each epoch, but for the last, which holds the best again
    assert losses[-1] == losses.min() and np.argmin(losses) == len(losses) - 1 - 3
    done = launch(0, "-m", "brmpi.train.softmax", "--restart", "--out", "run")
    assert done.returncode == 0 and about(tmp_path / "run")["step"] == found["step"]


@pytest.mark.mpi
def test_the_best_is_kept_where_ranks_go_their_own_ways(comm, assert_all):
    program = trained(softmax.Softmax, comm, data="breast-cancer", epochs=40, rate=0.5, validation=0.25, patience=4,
                      schedule="constant", comm="local", local=3)
    assert_all(np.array_equal(program.w, program.chosen) and np.array_equal(program.outer.whole, program.chosen))
    assert_all(program.evaluate(program.validating)[0] == program.best)


@pytest.mark.mpi
def test_between_meetings_the_network_is_that_of_the_last_one(comm, assert_all):
    program = made(mlp.Mlp, comm, hidden=(12,), epochs=1, comm="local", local=50)
    before = program.evaluate(program.testing)
    for _ in range(5):
        program.step()
    own = program.w.copy()
    assert_all(program.evaluate(program.testing) == before and np.array_equal(program.w, own))


@pytest.mark.mpi
@pytest.mark.parametrize("method", ["topk", "powersgd"])
def test_what_one_rank_has_left_is_shared_by_several(comm, assert_all, method):
    case = {"hidden": (12,), "epochs": 1, "comm": method, "top": 0.05, "rank": 2}
    single, program = made(mlp.Mlp, MPI.COMM_SELF, **case), made(mlp.Mlp, comm, **case)
    for _ in range(3):
        single.step()
    state = single.arrays()
    program.restore({name: piece.data[tuple(slice(a, a + n) for a, n in
                                            zip(*program.block(name, piece.data.shape)))]
                     for name, piece in state.items()})
    total = comm.allreduce(program.reduce.state()[1]["left"].astype(float))
    assert_all(np.allclose(total, single.reduce.state()[1]["left"], rtol=1e-6, atol=1e-12))


def test_a_chosen_method_is_kept_after_a_restart(launch, tmp_path):
    done = launch(2, "-m", "brmpi.train.mlp", *keys("mlp", epochs=1), "--comm", "auto", "--out", "run")
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / "run/run.json").read_text())
    told["communication"]["method"] = other = "local" if told["communication"]["method"] != "local" else "powersgd"
    (tmp_path / "run/run.json").write_text(json.dumps(told))
    done = launch(2, "-m", "brmpi.train.mlp", "--restart", "--out", "run", "--set", "epochs=1")
    assert done.returncode == 0 and about(tmp_path / "run")["communication"]["method"] == other, done.stderr


def test_speeds_before_the_first_step_are_those_of_the_clock(alone, monkeypatch):
    program = made(mlp.Mlp, alone, hidden=(12,))
    for pause in (0.03, 0.049, 0.07):
        monkeypatch.setattr(program.net, "gradient", lambda *_, pause=pause: time.sleep(pause))
        assert program._rates()[0] == pytest.approx(program.chunk / pause, rel=0.1)


def test_a_checkpoint_of_other_samples_is_refused(launch):
    words = keys("softmax", data="own.h5", epochs=1)
    make = "from brmpi.train import data; import numpy as np; x = np.random.default_rng(1).random((40, {0})); "
    make += "data.write('own.h5', x, np.arange(40) % 2)"
    assert launch(0, "-c", make.format(3)).returncode == 0
    done = launch(0, "-m", "brmpi.train.softmax", *words, "--out", "run")
    assert done.returncode == 0, done.stderr
    assert launch(0, "-c", make.format(5)).returncode == 0
    done = launch(2, "-m", "brmpi.train.softmax", "--restart", "--out", "run")
    assert done.returncode == 2 and "are not those that the run began with" in done.stderr, done.stderr


def test_losses_that_blow_up_are_large_not_negative(alone):
    losses = [np.array([np.nan]), np.array([1e300]), np.array([2.5]), np.array([-0.25])]
    total = sum(np.array(training._grains(one)) for one in losses * 5000)
    assert training._loss(*total) == pytest.approx(5000 * (2 * training.MOST + 2.25), rel=1e-12)


@pytest.mark.mpi
def test_shares_follow_measured_times(comm, assert_all):
    program = made(mlp.Mlp, comm, epochs=12)
    slow, before = comm.size - 1, program._gradient

    def _slowed(places, first, mine, scale):
        begin = time.perf_counter()
        found = before(places, first, mine, scale)
        if comm.rank == slow:
            time.sleep(3 * (time.perf_counter() - begin))
        return found

    program._gradient = _slowed
    while program.taken < program.case.steps:
        program.step()
    assert_all(comm.size == 1 or program.speeds[slow] < 0.7 * program.speeds[:slow].min(), program.speeds)
    single = trained(mlp.Mlp, MPI.COMM_SELF, epochs=12)
    assert_all(np.array_equal(program.w, single.w))


def test_auto_says_what_it_chose(launch, tmp_path):
    done = launch(2, "-m", "brmpi.train.mlp", *keys("mlp"), "--comm", "auto", "--out", "run")
    assert done.returncode == 0 and "(auto)" in done.stdout and "took" in done.stdout, done.stderr
    found = about(tmp_path / "run")["communication"]
    assert found["method"] in found["predicted"] and found["latency"] > 0 and found["bandwidth"] > 0


def test_pictures_show_curves_and_mistakes(launch, tmp_path):
    for name in ("softmax", "mlp"):
        done = launch(0, "-m", f"brmpi.train.{name}", *keys(name), "--out", name)
        assert done.returncode == 0, done.stderr
        done = launch(0, "-m", "brmpi", "plot", name)
        assert done.returncode == 0 and done.stdout == f"{name}/learning.png\n", done.stderr
        image = matplotlib.image.imread(tmp_path / name / "learning.png")
        assert image.shape[0] > 1000 and len(np.unique(image.reshape(-1, image.shape[2]), axis=0)) > 50
    last = snapshots.read(max((tmp_path / "mlp/snapshots").iterdir()))
    table = last.meshes["confusion"].piece.data
    rows = diagnostics.read(tmp_path / "mlp/diagnostics.h5")
    assert np.trace(table) / table.sum() == pytest.approx(rows["test_accuracy"][-1])
    wrong = last.meshes["mistaken"].piece.data
    assert (wrong[:, 1] != wrong[:, 2]).all() and last.meshes["mistakes"].piece.data.shape == (len(wrong), 8, 8)


@pytest.mark.parametrize(("name", "words", "sentence"), [
    ("mlp", ["--set", "data=nothing.h5"], "no such file, and none of digits, breast-cancer, wine"),
    ("mlp", ["--set", "comm=fast"], "comm = 'fast': must be one of auto, fixed, plain"),
    ("mlp", ["--comm", "topk", "--set", "zero=true"], "zero = true: gradients must be averaged by fixed or plain"),
    ("mlp", ["--set", "patience=3"], "patience = 3: needs validation > 0"),
    ("softmax", ["--set", "data=wine", "--set", "validation=0.001", "--set", "patience=3"],
     "validation = 0.001: leaves none of the 142 samples"),
    ("mlp", ["--set", "hidden=0"], "hidden[0] = 0: must be >= 1"),
    ("mlp", ["--set", "rate=0"], "rate = 0: must be > 0"),
    ("mlp", ["--epochs", "-1"], "--epochs -1"), ("conv", ["--set", "data=wine"], "must be images"),
    ("conv", ["--set", "channels=[]"], "channels has no value"),
    ("mlp", ["--set", "test=0.8", "--set", "validation=0.2"], "leaves less than a tenth"),
    ("softmax", ["--set", "data=wine", "--set", 'augment=["flip"]'], "only images can be moved or turned"),
    ("mlp", ["--comm", "float16", "--set", "precision=float64"], "fewer bits than precision = float64"),
])
def test_bad_input_is_one_sentence(launch, name, words, sentence):
    done = launch(2, "-m", f"brmpi.train.{name}", *words)
    said = [line for line in done.stderr.splitlines() if line.startswith("brmpi.train")]
    assert done.returncode == 2 and len(said) == 1 and sentence in said[0], done.stderr


def test_a_rate_that_is_too_large_is_told(launch, tmp_path):
    done = launch(2, "-m", "brmpi.train.mlp", *keys("mlp", rate=1e30, optimizer="sgd"), "--out", "run")
    assert done.returncode == 1 and "a smaller rate may help" in done.stderr, done.stderr
    assert about(tmp_path / "run")["status"].startswith("failed")


@pytest.mark.soak
@pytest.mark.parametrize(("kind", "least"), [(mlp.Mlp, 0.97), (conv.Conv, 0.985)])
def test_accuracy_on_digits(alone, kind, least):
    found = [trained(kind, alone, seed=seed).sample()["test_accuracy"] for seed in range(5)]
    assert np.mean(found) >= least, found


@pytest.mark.soak
def test_compression_reaches_the_same_accuracy(launch, tmp_path):
    found = {}
    for method in ("fixed", "float16", "bfloat16", "topk", "powersgd", "local"):
        for seed in range(5):
            name = f"{method}-{seed}"
            done = launch(2, "-m", "brmpi.train.mlp", "--comm", method, "--set", f"seed={seed}", "--out", name,
                          "--quiet", timeout=300)
            assert done.returncode == 0, done.stderr
            rows = diagnostics.read(tmp_path / name / "diagnostics.h5")
            found.setdefault(method, []).append(rows["test_accuracy"][-1])
    means = {method: np.mean(values) for method, values in found.items()}
    assert all(mean > means["fixed"] - 0.005 for mean in means.values()), means
