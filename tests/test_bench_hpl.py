"""The reference HPL: its input from probes, its output, its faults, and brmpi's LU beside it."""

import importlib.util
import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import environment

from brmpi.bench import hpcc, hpl, hplbeside, hplnodes, report
from brmpi.cluster.job import Host, Job
from brmpi.errors import BadInput, Fault
from brmpi.linalg.sizing import Problem

ROOT = Path(__file__).parent.parent
TEMPLATE = ROOT / "bench/hpccinf.txt"
SAID = (ROOT / "tests/data/hpccoutf.txt").read_text()  # by hpcc 1.5.0, without its other tests
TOO_FEW = ("HPL ERROR from process # 0, on line 440 of function HPL_pdinfo:\n"
           ">>> Need at least 4 processes for these tests <<<\n")
SMALL = Problem(200, 32, 1, 2)
PAGE = (ROOT / "docs/hpl.md").read_text()
installed = pytest.mark.skipif(shutil.which("hpcc") is None, reason="hpcc is not installed: apt install hpcc")

# Stands for hpcc where its run is not what is tested: it solves nothing, and says what it is told to.
FAKE = """#!{python}
import os, sys, time
if os.environ.get("OMPI_COMM_WORLD_RANK", "0") != "0":
    sys.exit()
lines = open("hpccinf.txt").read().splitlines()
n, nb, p, q = os.environ.get("SOLVE", "").split() or [lines[place].split()[0] for place in (5, 7, 10, 11)]
print(os.environ.get("ERROR", ""), file=sys.stderr, flush=True)
time.sleep(float(os.environ.get("SLEEP", 0)))
residual = os.environ.get("RESIDUAL", "0.004")
if "SILENT" not in os.environ:
    with open("hpccoutf.txt", "w") as out:
        print(f"WR11C2R4 {{n:>11}} {{nb:>5}} {{p:>5}} {{q:>5}} {{10.0:18.2f}} {{64.0:19.3e}}", file=out)
        print(f"||Ax-b||_oo/(eps*(||A||_oo*||x||_oo+||b||_oo)*N)= {{residual:>16}} ...... "
              f"{{'PASSED' if float(residual) < 16 else 'FAILED'}}", file=out)
sys.exit(int(os.environ.get("CODE", 0)))
"""


def probe(node, ram=16e9, speed=100.0, threads=2):
    return {"schema": 1, "node": node, "address": "localhost", "hostname": node, "time": "2026-01-01T00:00:00+00:00",
            "ram": {"total": int(2 * ram), "available": int(ram), "limit": None},
            "cores": {"physical": threads, "threads": threads, "usable": threads, "usable_threads": threads,
                      "quota": 1.0},
            "speeds": {"compute": {"value": speed, "unit": "GFLOP/s", "threads": threads}}}


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """An empty folder with two slots on this machine, a probe of the node octavia, and an understudy of hpcc's."""
    for name in ("all", "octavia"):
        (tmp_path / "hostfiles/probes").mkdir(parents=True, exist_ok=True)
        (tmp_path / "hostfiles" / name).write_text("localhost slots=2\n")
    (tmp_path / "hostfiles/cluster.toml").write_text('[nodes.octavia]\naddress = "localhost"\n')
    (tmp_path / "hostfiles/probes/octavia.json").write_text(json.dumps(probe("octavia")))
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench/hpccinf.txt").write_text(TEMPLATE.read_text())
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/hpcc").write_text(FAKE.format(python=sys.executable))
    (tmp_path / "bin/hpcc").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(shelf, *words, module="brmpi.bench.hpl", **variables):
    """The program, with the understudy, under a limit of time."""
    env = environment(**variables)
    env["PATH"] = f"{shelf / 'bin'}{os.pathsep}{env['PATH']}"
    return subprocess.run([sys.executable, "-m", module, *words], cwd=shelf, env=env, capture_output=True, text=True,
                          timeout=100)


# ---- what hpcc writes ----------------------------------------------------------------------------------------------


def test_what_hpcc_writes_is_read():
    (found,) = hpcc.parse(SAID)
    assert found.problem == SMALL and found.residual == 0.0062684
    summary = dict(re.findall(r"^(HPL_\w+)=(.*)$", SAID, re.M))
    assert found.seconds == float(summary["HPL_time"]) and found.gflops == 1e3 * float(summary["HPL_Tflops"])
    assert found.line == re.search(r"^WR11C2R4.*$", SAID, re.M)[0]
    assert found.check.endswith("...... PASSED")


def test_every_line_of_several_is_read():
    lines = "\n".join(f"WR02R2C4        {n}   128     1     2               3.45             9.8920e+01\n"
                      f"||Ax-b||_oo/(eps*(||A||_oo*||x||_oo+||b||_oo)*N)=        {residual} ...... PASSED"
                      for n, residual in ((8000, 0.0023), (8064, 0.0031)))
    found = hpcc.parse(f"{hpcc.HEADER}\n{lines}\n")
    assert [(one.problem, one.seconds, one.gflops, one.residual) for one in found] == [
        (Problem(8000, 128, 1, 2), 3.45, 98.92, 0.0023), (Problem(8064, 128, 1, 2), 3.45, 98.92, 0.0031)]


@pytest.mark.parametrize("old, new, said", [
    ("0.0062684 ...... PASSED", "16.000000 ...... FAILED", "HPL's residual of N = 200 is 16.000000, must be < 16"),
    ("0.0062684 ...... PASSED", "      nan ...... FAILED", "HPL's residual of N = 200 is nan, must be < 16"),
    ("0.0062684 ...... PASSED", "0.0062684 ...... FAILED", "HPL's residual of N = 200 is 0.0062684"),
    ("0.0062684 ...... PASSED", "17.000000 ...... PASSED", "HPL's residual of N = 200 is 17.000000"),
    ("||Ax-b||_oo/(eps*(", "", "HPL solved N = 200 but says nothing of the residual"),
    ("WR11C2R4", "", "HPL gave no result"),
])
def test_a_wrong_answer_is_a_fault(old, new, said):
    assert old in SAID
    with pytest.raises(Fault) as wrong:
        hpcc.parse(SAID.replace(old, new))
    assert str(wrong.value).startswith(said) and "\n" not in str(wrong.value)


def test_why_hpcc_has_no_result():
    with pytest.raises(Fault) as wrong:
        hpcc.parse(TOO_FEW)
    assert str(wrong.value) == "HPL gave no result: " + TOO_FEW.replace("\n", " ").strip()


# ---- what hpcc reads -----------------------------------------------------------------------------------------------


def test_input_has_what_hpcc_looks_for_on_each_line():
    lines = hpcc.contents(Problem(8000, 96, 3, 4), TEMPLATE).splitlines()
    values = [line.split()[0] for line in lines]
    assert [values[place] for place in (4, 5, 6, 7, 9, 10, 11)] == ["1", "8000", "1", "96", "1", "3", "4"]
    assert values[12] == "16.0" and lines[31].startswith("#####") and len(lines) == 36
    assert "{" not in "".join(lines[1:])


def test_a_template_that_is_none(tmp_path):
    with pytest.raises(BadInput, match=r"none.txt: cannot be read: No such file"):
        hpcc.contents(SMALL, tmp_path / "none.txt")
    (tmp_path / "half.txt").write_text(TEMPLATE.read_text().replace("{q}", "2"))
    with pytest.raises(BadInput, match=r"half.txt: lacks \{q\}"):
        hpcc.contents(SMALL, tmp_path / "half.txt")


# ---- what the probes decide ----------------------------------------------------------------------------------------


def asked(*words):
    return hpl.parser().parse_args(list(words))


def test_the_poorest_rank_decides():
    pi, octavia = Host("10.0.0.1", 4, "pi"), Host("10.0.0.2", 4, "octavia")
    probes = {"pi": probe("pi", 4e9, 20.0, 4), "octavia": probe("octavia", 16e9, 60.0, 4)}
    found = hpl.chosen([pi, octavia], probes, asked())
    assert found == Problem(math.isqrt(int(0.8 * 8e9 / 8)) // 128 * 128, 128, 2, 4)  # as two of 4 GB
    quick = hpl.chosen([pi, octavia], probes, asked("--time-budget", "60s"))
    budget = 60 * 0.7 * 40e9  # as two of 20 GFLOP/s
    assert quick.n % 128 == 0 and 2 / 3 * quick.n**3 < budget < 2 / 3 * (quick.n + 128) ** 3 * 1.001
    assert hpl.chosen([pi, octavia], probes, asked("--grid", "1x8", "--n", "5000")) == Problem(5000, 72, 1, 8)
    limited = {**probes, "pi": {**probes["pi"], "ram": {"total": 8e9, "available": 4e9, "limit": 1e9}}}
    assert hpl.chosen([pi, octavia], limited, asked()).n == math.isqrt(int(0.8 * 2e9 / 8)) // 128 * 128
    assert hplnodes.rate(Host("10.0.0.1", 2, "pi"), probes) == 5e9  # two ranks on four cores leave two idle
    assert hplnodes.rate(Host("10.0.0.1", 8, "pi"), probes) == 2.5e9


def test_hosts_are_known_by_address_too():
    assert hplnodes.memory(Host("localhost", 4), {"octavia": probe("octavia")}) == 4e9
    assert hplnodes.memory(Host("10.0.0.9", 4), {"octavia": probe("octavia")}) is None


def test_efficiencies(shelf):
    hosts = [Host("localhost", 2, "octavia"), Host("10.0.0.1", 2, "pi")]
    probes = {"octavia": probe("octavia", speed=75.0), "pi": probe("pi", speed=25.0)}
    lines = hpl.efficiencies(hosts, probes, 60.0)
    assert lines[0].startswith("60.0 % of the summed peak, 100 GFLOP/s")
    assert "not known, for lack of octavia, pi: python -m brmpi.bench.hpl --single" in lines[1]
    result = hpcc.parse(SAID)[0]
    for host, gflops in zip(hosts, (60.0, 20.0)):
        hplnodes.remember(host, hpcc.Result(SMALL, 1.0, gflops, result.residual, result.line, result.check))
    assert hpl.efficiencies(hosts, probes, 60.0)[1].startswith("75.0 % of the summed single-node results, 80 GFLOP/s")
    assert "for lack of pi: " in hpl.efficiencies([hosts[0], Host("10.0.0.1", 4, "pi")], probes, 60.0)[1]  # other slots
    assert "for lack of the speed of pi: " in hpl.efficiencies(hosts, {"octavia": probes["octavia"]}, 60.0)[0]
    Path("hostfiles/hpl/pi.json").write_text("{")
    with pytest.raises(BadInput, match=r"hostfiles/hpl/pi\.json: cannot be used"):
        hpl.efficiencies(hosts, probes, 60.0)


def test_hpcc_is_given_time():
    rates = [10e9] * 4
    long = Problem(40000, 128, 2, 2)
    assert hpl.patience(long, rates) > 5 * (2 / 3 * 40000**3 / 40e9) and hpl.patience(SMALL, rates) >= 600
    assert hpl.patience(long, None) > hpl.patience(long, rates)


# ---- runs ----------------------------------------------------------------------------------------------------------


@installed
def test_hpcc_itself(shelf):
    (shelf / "bin/hpcc").unlink()
    done = run(shelf, "--n", "200", "--nb", "32")
    assert done.returncode == 0, done.stderr
    (found,) = hpcc.parse(done.stdout)
    assert found.problem == SMALL and 0 < found.residual < 1
    (same,) = hpcc.parse((shelf / "results/hpl/hpccoutf.txt").read_text())
    assert same.line == found.line
    assert float(re.search(r"^(\S+) GFLOP/s$", done.stdout, re.M)[1]) == pytest.approx(same.gflops, rel=1e-3)
    assert "% of the summed peak, 100 GFLOP/s" in done.stdout


@installed
def test_hpcc_and_scipy_have_a_blas():
    for file in (hpcc.blas(), hpcc.blas_of_scipy()):
        assert file is None or (Path(file).is_file() and "blas" in file.lower())
    files, verdict = hplbeside.libraries()
    if None not in files.values():
        assert verdict.startswith("both use the same BLAS") == (len(set(files.values())) == 1)


def test_each_node_alone_is_remembered(shelf):
    done = run(shelf, "--single", "--n", "1000")
    assert done.returncode == 0, done.stderr
    known = json.loads((shelf / "hostfiles/hpl/octavia.json").read_text())
    assert known["gflops"] == 64.0 and (known["n"], known["p"] * known["q"]) == (1000, 2)
    done = run(shelf)
    assert done.returncode == 0, done.stderr
    assert "64.0 % of the summed peak" in done.stdout and "100.0 % of the summed single-node results" in done.stdout
    assert hpcc.parse(done.stdout)[0].problem == Problem(39936, 128, 1, 2)


@pytest.mark.parametrize("variables, said", [
    ({"RESIDUAL": "16.5"}, "hpl: HPL's residual of N = 1000 is 16.5, must be < 16: wrong answer"),
    ({"SILENT": "1"}, "hpl: hpcc left no results/hpl/hpccoutf.txt: its rank 0 runs on octavia"),
    ({"SOLVE": "900 56 1 2"}, "hpl: hpcc solved N = 900, NB = 56, P x Q = 1 x 2 instead of N = 1000"),
    ({"CODE": "3"}, "hpl: hpcc ended with exit code 3"),
    ({"SLEEP": "60"}, "hpl: hpcc was not done with N = 1000 after 2 s: --timeout gives it longer"),
    ({"SLEEP": "60", "ERROR": TOO_FEW}, "hpl: hpcc was not done with N = 1000 after 2 s: HPL ERROR from process # 0"),
])
def test_faults_are_one_sentence(shelf, variables, said):
    (shelf / "results/hpl").mkdir(parents=True)
    (shelf / "results/hpl/hpccoutf.txt").write_text(SAID)  # of an earlier run: no result of this one
    done = run(shelf, "--n", "1000", "--timeout", "2s" if "SLEEP" in variables else "60s", **variables)
    assert done.returncode == 1 and "GFLOP/s" not in done.stdout
    assert done.stderr.splitlines()[-1].startswith(said)


@pytest.mark.parametrize("words, said", [
    ("--n 0", "--n = 0: must be >= 1"),
    ("--n 999999", "--n = 999999: needs 8e+03 GB, but so shared out these ranks hold 16 GB"),
    ("--nb 0", "--nb = 0: must be >= 1"),
    ("--grid 2x2", "--grid = '2x2': is a grid of 4, but there are 2 ranks"),
    ("--memory 2", "--memory = 2: must be > 0 and at most 1"),
    ("--time-budget soon", "--time-budget = 'soon': must be a time"),
    ("--n 1000 --timeout never", "--timeout = 'never': must be a time"),
    ("--hostfile nowhere", "nowhere: is not there: run brmpi probe, then brmpi hostfiles"),
    ("--on octavio", "--on octavio: is neither a node nor a hostfile in hostfiles: did you mean octavia?"),
    ("--on octavia --hostfile hostfiles/all", "--on = 'octavia': says where to run, and so does --hostfile"),
    ("--template nowhere", "nowhere: cannot be read"),
    ("--frobnicate", "unrecognized arguments: --frobnicate"),
])
def test_bad_input_is_one_sentence(shelf, words, said, capsys, monkeypatch):
    monkeypatch.setattr(hpcc, "lacking", lambda hosts: [])
    monkeypatch.setattr(hpcc, "run", lambda *given: pytest.fail("work has started"))
    assert hpl.ended(lambda: hpl.main(words.split()), "hpl") == 2
    told = capsys.readouterr()
    assert told.err.startswith(f"hpl: {said}") and told.err.count("\n") == 1 and not told.out


def test_probes_are_asked_for(shelf, capsys):
    (shelf / "hostfiles/probes/octavia.json").unlink()
    assert hpl.ended(lambda: hpl.main([]), "hpl") == 2
    assert "run brmpi probe, or give --n" in capsys.readouterr().err


def test_nodes_without_hpcc_are_named(shelf, monkeypatch):
    """One sentence names them, also where another node must be asked by ssh."""
    monkeypatch.setattr(hpcc.shutil, "which", lambda name, **more: None)
    with pytest.raises(BadInput, match=r"not installed on octavia: apt install hpcc there"):
        hpl.main(["--n", "1000"])
    monkeypatch.undo()
    monkeypatch.setattr(hpcc, "is_local", lambda host: host.name == "octavia")
    monkeypatch.setattr(hpcc.shutil, "which", lambda name, **more: "/usr/bin/hpcc")
    answers = {"pi": "banner\nlacking\n", "cm": "found\n", "gone": ""}
    monkeypatch.setattr(hpcc.subprocess, "run", lambda command, **more: SimpleNamespace(stdout=answers[command[-2]]))
    hosts = [Host(name, 2, name) for name in ("octavia", "pi", "cm")]
    assert hpcc.lacking(hosts) == [hosts[1]]
    with pytest.raises(BadInput, match=r"^hpcc, the reference HPL, is not installed on pi: apt install hpcc there"):
        hpcc.demand(hosts)
    with pytest.raises(Fault, match=r"^gone does not answer ssh"):
        hpcc.demand([Host("gone", 2, "gone")])


def test_the_mpirun_beside_hpcc_starts_it(tmp_path, monkeypatch):
    """Where another MPI is found first, hpcc's own is taken."""
    for place, version in (("mine", "5.0.1"), ("system", "4.1.4")):
        (tmp_path / place).mkdir()
        (tmp_path / place / "mpirun").write_text(f"#!/bin/sh\necho 'mpirun (Open MPI) {version}'\n")
        (tmp_path / place / "mpirun").chmod(0o755)
    (tmp_path / "system/hpcc").write_text("#!/bin/sh\n")
    (tmp_path / "system/hpcc").chmod(0o755)
    monkeypatch.setattr(hpcc.sys, "executable", str(tmp_path / "mine/python"))
    monkeypatch.setenv("PATH", f"{tmp_path}/system")
    mpi, words = hpcc.launcher()
    assert mpi.name == "Open MPI 4" and words[0] == str(tmp_path / "system/mpirun")
    (tmp_path / "mine/mpirun").unlink()
    assert hpcc.launcher()[1] == ["mpirun"]


# ---- beside each other ---------------------------------------------------------------------------------------------


def stood(monkeypatch, ours, theirs):
    """Both, as if they had these rates."""
    turns, rates = [], {"hpl": iter(theirs), "brmpi": iter(ours)}

    def _solve(name, problem):
        turns.append(name)
        gflops = next(rates[name])
        return hpcc.Result(problem, 1.0, gflops, 0.01, f"line of {name}", "check")

    monkeypatch.setattr(hpcc, "lacking", lambda hosts: [])
    monkeypatch.setattr(hpcc, "run", lambda job, problem, *more: _solve("hpl", problem))
    monkeypatch.setattr(hplbeside, "ours", lambda problem, timeout: _solve("brmpi", problem))
    monkeypatch.setattr(hplbeside, "libraries", lambda: ({"hpcc": "/a", "brmpi": "/a"}, "both use the same BLAS, /a"))
    return turns


def test_beside_each_other(shelf, monkeypatch, capsys):
    turns = stood(monkeypatch, (99, 95, 100, 103, 96), (100, 100, 100, 100, 100))
    assert hplbeside.main([]) == 0
    assert turns == ["hpl", "brmpi"] * 5
    assert "ratio 0.990, spread 4.0 %" in capsys.readouterr().out
    (row,) = json.loads((shelf / "bench/results/hpl.json").read_text())["rows"]
    assert (row["what"], row["size"], row["ranks"], row["against"], row["unit"]) == (
        "lu equal blas", 8000, 2, "hpl", "GFLOP/s")
    assert row["value"] == 99 and row["reference"] == 100
    assert "make bench-hpl" in report.render()


def test_slower_than_it_may_be(shelf, monkeypatch, capsys):
    stood(monkeypatch, (94, 90), (100, 100))
    assert hplbeside.main(["--n", "4000", "--repeats", "2"]) == 1
    assert "bench-hpl: lu equal blas, N = 4000, on 2 ranks: 0.920 of hpl, must be >= 0.95" in capsys.readouterr().err
    assert not (shelf / "bench/results/hpl.json").exists()  # not the problem that is kept


@pytest.mark.parametrize("words, said", [
    ("--repeats 1", "--repeats = 1: must be >= 2"), ("--grid 2", "--grid = '2': must be P x Q"),
    ("--grid 0x2", "--grid = '0x2': must be P x Q"), ("--n -1", "--n = -1: must be >= 1"),
    ("--timeout x", "--timeout = 'x': must be a time"),
])
def test_bad_input_beside_is_one_sentence(shelf, words, said, capsys):
    assert hplbeside.ended(lambda: hplbeside.main(words.split()), "bench-hpl") == 2
    told = capsys.readouterr()
    assert told.err.startswith(f"bench-hpl: {said}") and told.err.count("\n") == 1 and not told.out


def test_libraries_that_differ_are_said(monkeypatch):
    monkeypatch.setattr(hpcc, "blas", lambda: "/usr/lib/a")
    for other, said in (("/usr/lib/a", "both use the same BLAS, /usr/lib/a"), ("/b", "the BLAS differ"),
                        (None, "whether both use the same BLAS cannot be told")):
        monkeypatch.setattr(hpcc, "blas_of_scipy", lambda other=other: other)
        assert hplbeside.libraries()[1].startswith(said)


def test_a_job_here_shares_cores_only_where_it_must():
    cores = len(os.sched_getaffinity(0))
    assert hplbeside.job_here(cores, ("hpcc",)).bind == "core"
    crowded = hplbeside.job_here(cores + 1, ("hpcc",))
    assert crowded.bind == "none" and crowded.crowded and isinstance(crowded, Job) and crowded.count == cores + 1


@pytest.mark.skipif(importlib.util.find_spec("brmpi.linalg.hpl") is None, reason="brmpi.linalg.hpl is not there")
def test_brmpi_is_run_and_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, value in environment(PYTHONPATH=str(ROOT)).items():
        monkeypatch.setenv(name, value)
    found = hplbeside.ours(SMALL, 60)
    assert found.problem == SMALL and 0 < found.residual < 16 and found.gflops > 0


# ---- what the page shows -------------------------------------------------------------------------------------------

COMMANDS = [line.split("#")[0].strip() for line in PAGE.splitlines() if re.match(r" {4}(python|make) ", line)]


@pytest.mark.parametrize("command", [line for line in COMMANDS if line.startswith("python")])
def test_commands_shown_run(command, shelf, monkeypatch):
    _, _, module, *words = shlex.split(command)
    if module == "brmpi.bench.hplbeside":
        stood(monkeypatch, (100,) * 5, (100,) * 5)
        assert hplbeside.main(words) == 0
        return
    done = run(shelf, *words, module=module)
    assert done.returncode == 0, done.stderr
    assert hpcc.parse(done.stdout)


def test_targets_and_options_shown_exist():
    make = (ROOT / "Makefile").read_text()
    shown = [shlex.split(line) for line in COMMANDS if line.startswith("make")]
    assert len(shown) == 4
    for _, target, *settings in shown:
        assert re.search(rf"^{target}:", make, re.M)
        for setting in settings:
            name, _, words = setting.partition("=")
            assert f"$({name})" in make and hpl.parser().parse_args(shlex.split(words))
    options = set(re.findall(r"^\| `(--[a-z-]+)", PAGE, re.M))
    assert options == {word for action in hpl.parser()._actions for word in action.option_strings} - {"-h", "--help"}
    for target in re.findall(r"\]\(([^)#:]+)\)", PAGE):
        assert (ROOT / "docs" / target).exists(), target
