"""Sampling programs as people run them: ends, stops, kills, restarts to the same bits, pictures, bad input."""

import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from conftest import environment, mpirun_command
from sampled import estimates, told
from scipy import stats

from brmpi import case
from brmpi.errors import BadInput
from brmpi.montecarlo.pi import Case, Pi
from brmpi.montecarlo.program import measured
from brmpi.results import diagnostics

ROOT = Path(__file__).parent.parent
PI = ("-m", "brmpi.montecarlo.pi")
CASES = ROOT / "sims/montecarlo/pi"
KEYS = ("--set", "block=5000")


def about(folder):
    return json.loads((folder / "run.json").read_text())


def test_the_same_bits_on_any_number_of_ranks(launch, tmp_path):
    for ranks, keys in ((0, ()), (1, ()), (2, ("--set", "dealing=static")), (3, ("--set", "shares=equal")), (5, ())):
        done = launch(ranks, *PI, *KEYS, "--samples", 1234567, *keys, "--out", f"on-{ranks}")
        assert done.returncode == 0, done.stderr
        assert told(tmp_path / f"on-{ranks}") == told(tmp_path / "on-0")
    assert about(tmp_path / "on-3")["samples"] == 1234567
    found = about(tmp_path / "on-5")
    assert sum(found["blocks"]) >= 247 and found["status"] == "done" and found["ranks"] == 5


def test_it_ends_at_an_error_a_count_or_a_time(launch, tmp_path):
    done = launch(2, *PI, *KEYS, "--set", "error=5e-4", "--out", "error")
    found = about(tmp_path / "error")
    assert done.returncode == 0 and found["estimates"]["pi"]["error"] <= 5e-4
    needed = 16 * (math.pi / 4) * (1 - math.pi / 4) / 5e-4**2
    assert needed * 0.99 < found["samples"] < needed * 1.06
    done = launch(2, *PI, *KEYS, "--set", "error=1e-6", "--samples", 100_000, "--out", "count")
    assert done.returncode == 0 and "was not reached" in done.stdout and about(tmp_path / "count")["samples"] == 100000
    begin = time.monotonic()
    done = launch(2, *PI, "--set", "seconds=1", "--out", "time")
    assert done.returncode == 0 and 1 < time.monotonic() - begin < 20 and about(tmp_path / "time")["samples"] > 10**6
    for folder in ("error", "count", "time"):
        one = about(tmp_path / folder)["estimates"]["pi"]
        assert abs(one["value"] - math.pi) < 4.5 * one["error"]


def test_rows_converge(launch, tmp_path):
    assert launch(2, *PI, *KEYS, "--samples", 5_000_000, "--out", "run").returncode == 0
    rows = diagnostics.read(tmp_path / "run/diagnostics.h5")
    assert (np.diff(rows["step"]) > 0).all() and rows["step"][-1] == 1000 and rows["time"][-1] == 5_000_000
    slope = np.polyfit(np.log(rows["time"]), np.log(rows["pi_error"]), 1)[0]
    assert abs(slope + 0.5) < 0.02 and len(rows["step"]) > 50


def test_a_finished_run_goes_on_as_if_it_had_not_ended(launch, tmp_path):
    assert launch(2, *PI, *KEYS, "--samples", 777_777, "--out", "two").returncode == 0
    assert launch(3, *PI, "--restart", "--samples", 2_000_001, "--out", "two").returncode == 0
    assert launch(0, *PI, *KEYS, "--samples", 2_000_001, "--out", "one").returncode == 0
    assert told(tmp_path / "one") == told(tmp_path / "two")
    done = launch(0, *PI, "--restart", "--samples", 1000, "--out", "two")
    assert done.returncode == 2 and "has taken 2000000 already" in done.stderr
    done = launch(0, *PI, "--restart", "--set", "seed=7", "--out", "two")
    assert done.returncode == 2 and "a restart cannot change it" in done.stderr


def killed(tmp_path, out, ranks, seconds, how, samples):
    """A run that is ended after a while; its exit code."""
    command = mpirun_command(ranks, sys.executable, *PI, "--samples", samples, "--set", "block=200000", "--set",
                             "checkpoint=0.05", "--out", out, "--quiet")
    if (tmp_path / out).exists():
        command.append("--restart")
    job = subprocess.Popen(command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    end = time.monotonic() + 60
    while job.poll() is None and not (tmp_path / out / "checkpoints").exists():
        assert time.monotonic() < end
        time.sleep(0.01)
    time.sleep(seconds)
    if how == signal.SIGKILL and job.poll() is None:  # of all ranks at once
        for rank in Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text().split():
            os.kill(int(rank), how)
    elif job.poll() is None:
        os.kill(job.pid, how)
    job.communicate(timeout=40)
    return job.returncode


def whole(launch, tmp_path, samples):
    done = launch(0, *PI, "--samples", samples, "--set", "block=200000", "--out", "one", "--quiet")
    assert done.returncode == 0
    return told(tmp_path / "one")


@pytest.mark.parametrize("how", [signal.SIGUSR2, signal.SIGKILL], ids=str)
def test_a_run_that_was_ended_goes_on_to_the_same_bits(launch, tmp_path, how):
    samples = 4_000_100_000
    code = killed(tmp_path, "two", 2, 0.4, how, samples)
    if how == signal.SIGUSR2:
        assert code == 75 and about(tmp_path / "two")["status"] == "stopped"
    else:
        assert code not in (0, 75)
    reached = about(tmp_path / "two")["step"]
    assert 0 < reached < 20001
    small = (reached + 400) * 200_000 + 100_000  # some more, with a block that is cut short
    done = launch(3, *PI, "--restart", "--samples", small, "--set", "dealing=static", "--out", "two")
    assert done.returncode == 0, done.stderr
    assert told(tmp_path / "two") == whole(launch, tmp_path, small)


@pytest.mark.soak
def test_random_kills_never_change_the_answer(launch, tmp_path):
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    samples = 6_000_000_000
    for _ in range(12):
        how = rng.choice([signal.SIGKILL, signal.SIGUSR2, signal.SIGKILL])
        if killed(tmp_path, "two", rng.choice([1, 2, 3, 5]), rng.uniform(0, 1.5), how, samples) == 0:
            break
    done = launch(2, *PI, "--restart", "--samples", samples, "--out", "two", timeout=120)
    assert done.returncode == 0, (seed, done.stderr)
    assert told(tmp_path / "two") == whole(launch, tmp_path, samples), seed


def test_pictures_and_words(launch, tmp_path):
    first = launch(2, *PI, *KEYS, "--samples", 3_000_000)
    assert first.returncode == 0 and "pi  3.14" in first.stdout and "exact 3.141592654" in first.stdout
    assert "see it: brmpi show results/pi-default; brmpi plot results/pi-default" in first.stdout
    told_of = launch(0, "-m", "brmpi", "show", "results/pi-default")
    assert told_of.returncode == 0 and "estimate" in told_of.stdout and "3.14159265" in told_of.stdout
    for samples in (3_000_000, 1):
        assert launch(0, *PI, "--samples", samples, "--out", f"with-{samples}", "--quiet").stdout == ""
        drawn = launch(0, "-m", "brmpi", "plot", f"with-{samples}")
        assert drawn.returncode == 0 and drawn.stdout.split() == [f"with-{samples}/convergence.png"], drawn.stderr
        image = matplotlib.image.imread(tmp_path / f"with-{samples}/convergence.png")
        assert image.shape[0] > 300 and image.shape[1] > 900 and image[..., :3].std() > 0.02
    helped = launch(0, *PI, "--help")
    assert helped.returncode == 0 and "--samples N" in helped.stdout and "standard error of the first" in helped.stdout


@pytest.mark.parametrize("ranks", [0, 3])
@pytest.mark.parametrize(("words", "sentence"), [
    (("--set", "error=0"), "error = 0: must be > 0"), (("--set", "block=0"), "block = 0: must be >= 1"),
    (("--samples", "-5"), "--samples -5: must be a whole number >= 0"),
    (("--set", "sampels=5"), "did you mean 'samples'?"),
    (("--restart",), "nothing to restart"), (("--set", "dealing=fair"), "must be one of dynamic, static")], ids=str)
def test_bad_input_is_one_sentence_told_once(launch, tmp_path, ranks, words, sentence):
    done = launch(ranks, *PI, *words)
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count(sentence) == 1, done.stderr
    assert not (tmp_path / "results").exists()


def test_a_run_is_not_written_over(launch, tmp_path):
    for words, code in (((), 0), ((), 2), (("--overwrite",), 0)):
        done = launch(0, *PI, "--samples", 1000, "--out", "run", *words)
        assert done.returncode == code, done.stderr
    assert (tmp_path / "run/run.json").exists()


def test_estimates_of_pi_are_normal_and_their_errors_cover(alone):
    scores = []
    for seed in range(200):
        _, values, errors = estimates(Pi, alone, 40_000, seed=seed, block=10_000)
        scores.append((values[0] - math.pi) / errors[0])
    assert stats.kstest(scores, "norm").pvalue > 1e-3
    for level in (0.683, 0.954):
        within = int((np.abs(scores) < stats.norm.ppf((1 + level) / 2)).sum())
        assert stats.binomtest(within, 200, level).pvalue > 1e-3


@pytest.mark.parametrize(("value", "error", "text"), [
    (3.14159265, 0.00012345, "3.14159 ± 0.00012"), (1234567.0, 89.0, "1.234567e+06 ± 8.9e+01"), (0.5, 0.0, "0.5 ± 0"),
    (0.5, math.inf, "0.5"), (-2.0, 0.5, "-2.00 ± 0.50"), (1e-9, 2e-11, "0.000000001000 ± 0.000000000020")])
def test_numbers_are_written_with_their_errors(value, error, text):
    assert measured(value, error) == text


def test_the_limits_of_a_case():
    for keys in ({"samples": 2**54}, {"seconds": 0.0}, {"error": -1.0}, {"seed": -1}, {"block": 2**41}):
        with pytest.raises(BadInput):
            case.build(Case, keys, {}, "--set")
    assert case.build(Case, {"error": math.inf}, {}, "run.json").error == math.inf  # as a restart reads it


@pytest.mark.parametrize("file", sorted(CASES.glob("*.toml")), ids=lambda file: file.stem)
def test_cases_say_what_they_show(launch, tmp_path, file):
    text = file.read_text()
    assert text.startswith("# ") and "Takes" in text and "Must hold" in text
    done = launch(2, *PI, file, "--samples", 200_000_000, "--out", "run")
    assert done.returncode == 0, done.stderr
    one = about(tmp_path / "run")["estimates"]["pi"]
    assert abs(one["value"] - math.pi) < 4 * one["error"]
