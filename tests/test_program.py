"""Programs as people run them: bad input, stops, restarts, crashes, a full disk; the answer never changes."""

import filecmp
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import environment, mpirun_command

from brmpi.results import diagnostics

NBODY = ("-m", "brmpi.sims.nbody")
SMALL = ("--set", "n=600", "--set", "every=20", "--set", "sample=3", "--steps", "100")


def same_answer(one, other):
    """Whether two runs hold the same bits: snapshots, last checkpoint, diagnostics apart from the clock."""
    names = [sorted(path.name for path in (Path(run) / "snapshots").iterdir()) for run in (one, other)]
    last = [sorted((Path(run) / "checkpoints").iterdir())[-1] for run in (one, other)]
    rows = [diagnostics.read(Path(run) / "diagnostics.h5") for run in (one, other)]
    return (names[0] == names[1]
            and not filecmp.cmpfiles(Path(one) / "snapshots", Path(other) / "snapshots", names[0], shallow=False)[1]
            and last[0].name == last[1].name and filecmp.cmp(*last, shallow=False)
            and all(rows[0][key].tobytes() == rows[1][key].tobytes() for key in rows[0] if not key.startswith("wall/")))


def wait_for(condition, seconds=30):
    """Poll until a condition holds, which it must within the time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.005)


def children(pid):
    """Processes started by a process."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


@pytest.fixture
def start():
    """``start(folder, ranks, …)``: a run in the background. Whatever still runs when the test ends is ended."""
    jobs = []

    def begin(folder, ranks, *arguments):
        command = [sys.executable, *NBODY, *map(str, arguments)]
        command = mpirun_command(ranks, *command) if ranks else command
        jobs.append(subprocess.Popen(command, cwd=folder, env=environment(), start_new_session=True, text=True,
                                     stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE))
        return jobs[-1]

    yield begin
    for job in jobs:
        if job.poll() is None:
            for pid in [*children(job.pid), job.pid]:
                os.kill(pid, signal.SIGKILL)
            job.wait()
        job.stdout.close()
        job.stderr.close()


@pytest.mark.parametrize("keys", [(), pytest.param(("--set", "precision=mixed"), marks=pytest.mark.soak),
                                  pytest.param(("--set", "integrator=forest-ruth"), marks=pytest.mark.soak)], ids=str)
def test_the_same_files_on_any_number_of_ranks(launch, tmp_path, keys):
    for ranks in (0, 2, 3, 5):
        case = ("--set", "n=1300", "--set", "every=4", "--steps", "10", *keys)
        done = launch(ranks, *NBODY, *case, "--out", f"on-{ranks}")
        assert done.returncode == 0, done.stderr
        assert same_answer(tmp_path / "on-0", tmp_path / f"on-{ranks}")


def test_a_first_run_says_what_it_did_and_what_to_do_next(launch, tmp_path):
    for number in ("", "-2", "-3"):
        done = launch(2, *NBODY)
        assert done.returncode == 0 and f"brmpi plot results/nbody-default{number}\n" in done.stdout.replace("\r", "")
    assert "interactions/s" in done.stdout and "force" in done.stdout
    about = json.loads((tmp_path / "results/nbody-default/run.json").read_text())
    assert about["status"] == "done" and about["ranks"] == 2 and about["step"] == about["steps"] == 100
    assert sum(about["shares"]) == 1024 and about["case"]["dt"] == 0.01 and "numba" in about["versions"]
    assert set(about["wall"]["force"]) == {"min", "mean", "max"}
    rows = diagnostics.read(tmp_path / "results/nbody-default/diagnostics.h5")
    assert rows["step"].tolist() == list(range(0, 101, 10)) and np.ptp(rows["energy"]) < 1e-3


def test_quiet_prints_nothing(launch):
    done = launch(2, *NBODY, "--quiet", "--steps", "3")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_help_is_quick_and_complete(launch):
    times = []
    for _ in range(3):
        began = time.monotonic()
        done = launch(0, *NBODY, "--help")
        times.append(time.monotonic() - began)
    assert min(times) < 1
    assert done.returncode == 0
    for text in ("--set KEY=VALUE", "--restart", "softening", "Plummer softening eps", "0.01", "length", "[[bodies]]"):
        assert text in done.stdout
    assert launch(3, *NBODY, "--help").stdout.count("--restart") == done.stdout.count("--restart")


def test_import_is_quick(launch):
    code = "import time; t = time.perf_counter(); import brmpi; print(time.perf_counter() - t)"
    assert min(float(launch(0, "-c", code).stdout) for _ in range(3)) < 0.05


BAD = [
    (("x.toml",), "x.toml: unknown key 'stepz': did you mean 'steps'?", "stepz = 3"),
    (("x.toml",), "x.toml: dt = 'fast': must be a number", "dt = 'fast'"),
    (("x.toml",), "x.toml: dt = -0.1: must be > 0", "dt = -0.1"),
    (("--set", "dt=-0.1"), "--set: dt = -0.1: must be > 0", ""),
    (("--steps", "many"), "--steps many: must be a whole number >= 0", ""),
    (("--steps", "-5"), "--steps -5: must be a whole number >= 0", ""),
    (("--overwrite",), "--overwrite: needs --out FOLDER", ""),
    (("x.toml",), "x.toml: n = 7: there are 1 [[bodies]]", "model = 'bodies'\nn = 7\n[[bodies]]\nmass = 1"),
    (("--set", "n=100000000"), "n = 100000000: takes 40 GB a rank", ""),
    (("--set", "G=1e308"), "is not finite: a number of the case is too large", ""),
    (("x.toml",), "the initial state cannot be computed with: step 0: ",
     "model = 'bodies'\nsample = 1\n[[bodies]]\nmass = 1\nvelocity = [1e160, 0, 0]"),
    (("--restart", "--out", "old"), "old/run.json: case = None: must be a table to restart from", ""),
    (("none.toml",), "none.toml: No such file or directory", ""),
    (("x.toml",), "x.toml: bodies[0]: position[1] = nan: must be finite",
     "model = 'bodies'\n[[bodies]]\nmass = 1\nposition = [0, nan, 0]"),
    (("x.toml",), "x.toml: model = bodies: [[bodies]] is missing", "model = 'bodies'"),
    (("--restart",), "nothing to restart: no run in results/nbody-default", ""),
    (("--restart", "--out", "taken"), "nothing to restart: --out taken holds no run", ""),
    (("--out", "taken"), "--out taken: holds files that are not a run's", ""),
    (("--out", "old"), "--out old: holds another run", ""),
    (("--frobnicate",), "unrecognized arguments: --frobnicate", ""),
    (("a.toml", "b.toml"), "unrecognized arguments: b.toml", ""),
    (("--set", "dt"), "--set dt: must be KEY=VALUE", ""),
    (("--backend", "cuda"), "invalid choice: 'cuda'", ""),
    (("--restart", "--overwrite"), "--restart and --overwrite contradict each other", ""),
]


@pytest.mark.parametrize(("arguments", "sentence", "text"), BAD, ids=[" ".join(row[0]) + row[2][:16] for row in BAD])
@pytest.mark.parametrize("ranks", [0, 3])
def test_bad_input_is_one_sentence_before_anything_is_written(launch, tmp_path, arguments, sentence, text, ranks):
    (tmp_path / "x.toml").write_text(text)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").touch()
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "run.json").write_text("{}")
    before = sorted(tmp_path.rglob("*"))
    done = launch(ranks, *NBODY, *arguments)
    assert done.returncode == 2
    told = [line for line in done.stderr.splitlines() if line.startswith("brmpi.sims.nbody: ")]
    assert len(told) == 1 and told[0].endswith("(see --help)") and sentence in told[0], done.stderr
    assert "usage:" not in done.stderr + done.stdout and "Traceback" not in done.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_overwrite_replaces_a_run_and_nothing_else(launch, tmp_path):
    assert launch(0, *NBODY, "--steps", "5", "--out", "mine").returncode == 0
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    assert launch(0, *NBODY, "--steps", "3", "--out", "mine", "--overwrite").returncode == 0
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep"
    assert diagnostics.read(tmp_path / "mine" / "diagnostics.h5")["step"].tolist() == [0, 3]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """A run that nothing disturbed, on one rank."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    command = [sys.executable, *NBODY, *SMALL, "--out", "run", "--quiet"]
    subprocess.run(command, cwd=folder, env=environment(), check=True, timeout=60)
    return folder / "run"


LONG = ("--set", "n=600", "--set", "every=20", "--set", "sample=3", "--steps", "1000000")  # stopped long before


@pytest.mark.parametrize(("ranks", "target", "number"), [
    (0, "program", signal.SIGTERM), (0, "program", signal.SIGINT), (0, "program", signal.SIGUSR2),
    (0, "program", signal.SIGHUP),
    (2, "rank", signal.SIGTERM), (3, "rank", signal.SIGINT), (2, "mpirun", signal.SIGUSR2),
])
def test_a_signal_stops_with_a_checkpoint_and_restart_gives_the_same_bits(
        launch, tmp_path, start, ranks, target, number):
    job = start(tmp_path, ranks, *LONG, "--out", "run")
    wait_for((tmp_path / "run/snapshots/nbody_00000020.h5").exists)
    os.kill(children(job.pid)[-1] if target == "rank" else job.pid, number)
    out, err = job.communicate(timeout=20)
    assert job.returncode == 75, err
    assert "to go on, add --restart --out run" in out
    about = json.loads((tmp_path / "run/run.json").read_text())
    assert about["status"] == "stopped" and 0 < about["step"] < 1_000_000
    end = about["step"] + 20 - about["step"] % 20
    done = launch(ranks + 1, *NBODY, "--restart", "--out", "run", "--steps", end)
    assert done.returncode == 0, done.stderr
    again = launch(0, *NBODY, *SMALL[:-1], end, "--out", "straight")
    assert again.returncode == 0 and same_answer(tmp_path / "run", tmp_path / "straight")
    about = json.loads((tmp_path / "run/run.json").read_text())
    assert about["status"] == "done" and len(about["restarts"]) == 1


def test_sigterm_to_mpirun_leaves_a_run_that_goes_on(launch, tmp_path, start):
    job = start(tmp_path, 2, *LONG, "--set", "checkpoint=0.1", "--out", "run")
    wait_for(lambda: any((tmp_path / "run").glob("checkpoints/*.h5")))
    job.terminate()
    job.communicate(timeout=20)
    step = json.loads((tmp_path / "run/run.json").read_text())["step"]
    end = step + 100 - step % 20
    assert launch(3, *NBODY, "--restart", "--out", "run", "--steps", end).returncode == 0
    assert launch(0, *NBODY, *SMALL[:-1], end, "--out", "straight").returncode == 0
    assert same_answer(tmp_path / "run", tmp_path / "straight")


def test_restart_in_parts_on_other_ranks_gives_the_same_bits(launch, tmp_path, uninterrupted):
    assert launch(3, *NBODY, *SMALL[:-1], "50", "--out", "run").returncode == 0
    assert launch(0, *NBODY, "--restart", "--out", "run", "--steps", "77").returncode == 0
    assert launch(2, *NBODY, "--restart", "--out", "run", "--steps", "100").returncode == 0
    assert same_answer(tmp_path / "run", uninterrupted)
    done = launch(0, *NBODY, "--restart", "--out", "run")
    assert done.returncode == 0 and "0 steps" in done.stdout


@pytest.mark.parametrize(("arguments", "sentence"), [
    (("--set", "dt=0.5"), "--set: dt = 0.5: the run in run has 0.01, and a restart cannot change it"),
    (("--steps", "3"), "steps = 3: the run in run has taken 5 already"),
])
def test_restart_refuses_what_would_change_the_answer(launch, tmp_path, arguments, sentence):
    assert launch(0, *NBODY, "--steps", "5", "--out", "run").returncode == 0
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    done = launch(2, *NBODY, "--restart", "--out", "run", *arguments)
    assert done.returncode == 2 and done.stderr.count(sentence) == 1, done.stderr
    assert before == {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}


def test_a_run_that_goes_on_is_left_alone(launch, tmp_path, start):
    job = start(tmp_path, 2, *LONG, "--out", "run")
    try:
        wait_for((tmp_path / "run/snapshots/nbody_00000020.h5").exists)
        for extra in (["--restart"], ["--overwrite"]):
            done = launch(0, *NBODY, *extra, "--out", "run")
            assert done.returncode == 2 and "run: this run is going on" in done.stderr
    finally:
        job.send_signal(signal.SIGUSR2)
        assert job.wait(timeout=20) == 75
    step = json.loads((tmp_path / "run/run.json").read_text())["step"]
    assert diagnostics.read(tmp_path / "run/diagnostics.h5")["step"][-1] == step - step % 3


def test_of_two_programs_that_want_one_folder_one_gets_it(tmp_path, start):
    jobs = [start(tmp_path, 0, "--steps", "50", "--out", "run") for _ in range(2)]
    codes = sorted(job.wait(timeout=60) for job in jobs)
    assert codes == [0, 2], [job.communicate() for job in jobs]
    assert json.loads((tmp_path / "run/run.json").read_text())["status"] == "done"


def test_restart_takes_the_run_of_its_own_case(launch, tmp_path):
    for name in ("y", "y-2"):
        (tmp_path / f"{name}.toml").write_text("n = 10\nsteps = 3\n")
        assert launch(0, *NBODY, f"{name}.toml").returncode == 0
    assert launch(0, *NBODY, "y.toml", "--restart", "--steps", "5").returncode == 0
    files = [tmp_path / f"results/nbody-{name}/run.json" for name in ("y", "y-2")]
    assert [json.loads(file.read_text())["step"] for file in files] == [5, 3]


@pytest.mark.parametrize("text", ['{"case": 3}', '{"case": {"n": 5}, "overrides": 3}', '{"case": {"m": 5}}', "["])
def test_a_damaged_run_json_is_refused_in_one_sentence(launch, tmp_path, text):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/run.json").write_text(text)
    done = launch(2, *NBODY, "--restart", "--out", "run")
    assert done.returncode == 2 and done.stderr.count("run/run.json: ") == 1 and "Traceback" not in done.stderr


def test_an_output_that_nobody_reads_ends_no_run(launch, tmp_path):
    for number, target in enumerate(("| true", "> /dev/full")):
        command = f"{sys.executable} -m brmpi.sims.nbody --steps 3 --out {number} {target}; exit ${{PIPESTATUS[0]}}"
        done = subprocess.run(["bash", "-c", command], cwd=tmp_path, env=environment(), timeout=60)
        assert done.returncode == 0
        assert json.loads((tmp_path / f"{number}/run.json").read_text())["status"] == "done"


def test_names_that_are_no_text_are_refused(tmp_path):
    done = subprocess.run([sys.executable, *NBODY, b"caf\xe9.toml"], cwd=tmp_path, env=environment(), timeout=60,
                          capture_output=True, text=True)
    assert done.returncode == 2 and "must be text in UTF-8" in done.stderr and not list(tmp_path.iterdir())


def test_a_home_that_cannot_be_written_is_no_obstacle(launch, tmp_path):
    code = ("import brmpi.kernels.gravity_numba as g, numpy as np, numba.core.caching as c\n"
            "print(type(g.float64._cache).__name__)")
    assert "FunctionCache" in launch(0, "-c", code).stdout
    nowhere = ("import numba.core.caching as c\n"
               "c.CacheImpl._locator_classes = []\n" + code)
    assert "NullCache" in launch(0, "-c", nowhere).stdout


def readable(run):
    """Open every file of a run; returns how many there were."""
    import h5py

    files = [path for path in run.rglob("*") if path.is_file() and path.suffix != ".part"]
    for path in files:
        if path.name == "run.json":
            json.loads(path.read_text())
        elif path.name == "diagnostics.h5":
            steps = diagnostics.read(path)["step"]
            assert (np.diff(steps) > 0).all()
        elif path.suffix == ".h5":
            with h5py.File(path) as file:
                file.visititems(lambda name, node: node[()] if isinstance(node, h5py.Dataset) else None)
    return len(files)


@pytest.mark.parametrize(("seed", "total", "crowd"), [
    pytest.param(4, 7, (0, 0, 2), id="seven", marks=pytest.mark.timeout(300)),
    pytest.param(4, 50, (0, 0, 2), id="fifty", marks=[pytest.mark.soak, pytest.mark.timeout(600)]),
    pytest.param(None, 300, (0, 1, 2, 3, 5), id="soak", marks=[pytest.mark.soak, pytest.mark.timeout(3000)]),
])
def test_kills_at_random_moments_lose_nothing(tmp_path, start, seed, total, crowd):
    """kill -9 of one process at a time, each followed by a restart, until the run is through all of them."""
    seed = random.SystemRandom().randrange(10**9) if seed is None else seed
    print(f"seed {seed}")
    rng = random.Random(seed)
    arguments = ("--set", "n=600", "--set", "every=20", "--set", "sample=3", "--set", "checkpoint=0.05",
                 "--steps", "100000000", "--out", "run")
    run, kills, seen, ranks = tmp_path / "run", 0, 0, 0
    began = time.monotonic()
    assert start(tmp_path, 2, "--steps", "1", "--out", "first").wait(timeout=60) == 0
    usual = time.monotonic() - began  # to start and to end: kills fall before, in and after the first steps
    while kills < total:
        started = (run / "run.json").exists()
        job = start(tmp_path, ranks, *(("--restart", "--out", "run") if started else (*arguments, "--overwrite")))
        time.sleep(rng.uniform(0.25, 1.2) * usual)
        assert job.poll() is None, job.communicate()
        targets = [job.pid, *children(job.pid)] if ranks else [job.pid]
        os.kill(rng.choice(targets), signal.SIGKILL)
        kills += 1
        try:
            job.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            pytest.fail("ranks lived on after a kill")
        finally:
            for pid in targets:
                if Path(f"/proc/{pid}").exists():
                    os.kill(pid, signal.SIGKILL)
        seen += readable(run) if run.exists() else 0
        ranks = rng.choice(crowd)
    assert seen > 3 * total, f"only {seen} files were there to look at"
    step = json.loads((run / "run.json").read_text())["step"]
    assert step > 100, f"only {step} steps in {time.monotonic() - began:.0f} s"
    end = step + 40 - step % 20
    for folder, extra in (("run", ["--restart"]), ("straight", list(SMALL[:-2]))):
        command = [sys.executable, *NBODY, *extra, "--steps", str(end), "--out", folder, "--quiet"]
        subprocess.run(command, cwd=tmp_path, env=environment(), check=True, timeout=60 + 4 * total)
    assert same_answer(run, tmp_path / "straight")


FULL = """
mount -t tmpfs -o size=900k tmpfs small
{command}
echo $? > code
cp -r small/run copy
"""


@pytest.mark.parametrize("ranks", [0, 2])
def test_a_full_disk_is_one_sentence_and_keeps_the_last_checkpoint(launch, tmp_path, ranks):
    inside = ["unshare", "--mount", *(["--map-root-user"] if os.geteuid() else [])]
    if not shutil.which("unshare") or subprocess.run([*inside, "true"], capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount a small disk: the full disk is NOT tested")
    (tmp_path / "small").mkdir()
    command = [sys.executable, *NBODY, "--set", "n=1500", "--set", "every=1", "--set", "checkpoint=0",
               "--steps", "5000", "--out", "small/run"]
    script = FULL.format(command=" ".join(mpirun_command(ranks, *command) if ranks else command))
    done = subprocess.run([*inside, "bash", "-c", script], cwd=tmp_path, env=environment(), text=True,
                          capture_output=True, timeout=60)
    assert (tmp_path / "code").read_text() == "1\n", done.stderr
    told = [line for line in done.stderr.splitlines() if line.startswith("brmpi.sims.nbody: ")]
    assert len(told) == 1 and "needs" in told[0] and "free" in told[0] and "Traceback" not in done.stderr, done.stderr
    about = json.loads((tmp_path / "copy/run.json").read_text())
    assert about["status"].startswith("failed: ") and "needs" in about["status"]
    assert readable(tmp_path / "copy") > 3 and not list((tmp_path / "copy").rglob("*.part"))
    assert list((tmp_path / "copy/checkpoints").iterdir())
    step = about["step"]
    assert step > 0
    finished = launch(2, *NBODY, "--restart", "--out", "copy", "--steps", step + 2)
    assert finished.returncode == 0, finished.stderr


def test_a_run_that_blows_up_says_so_and_keeps_its_last_good_state(launch, tmp_path):
    (tmp_path / "x.toml").write_text("model = 'bodies'\nsoftening = 0.0\ndt = 1e200\nsteps = 10\nsample = 2\n"
                                     "[[bodies]]\nmass = 1\nposition = [1, 0, 0]\n"
                                     "[[bodies]]\nmass = 1\nposition = [0, 1, 0]\n")
    done = launch(2, *NBODY, "x.toml", "--out", "run")
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert done.stderr.count("the run blew up; a smaller dt may help") == 1
    assert json.loads((tmp_path / "run/run.json").read_text())["status"].startswith("failed: step ")
