"""What runs a program's kernels: chosen by tunings, the same for all ranks, kept by a restart, told in run.json."""

import json
import socket

import pytest

from brmpi import kernels
from brmpi.cluster import probe
from brmpi.kernels import choice, opencl

pytestmark = pytest.mark.skipif(bool(kernels.without_opencl()), reason=kernels.without_opencl() or "-")
FORCE = "gravity float64"
LAST = "snapshots/nbody_00000005.h5"
ARGUMENTS = ("-m", "brmpi.sims.nbody", "--set", "n=1100", "--steps", 5)

BROKEN = ("import os, sys\n"  # N-body, with a source that does not compile on rank 1
          "from brmpi import program\n"
          "from brmpi.kernels import opencl\n"
          "from brmpi.sims.nbody import NBody\n"
          "if os.environ['OMPI_COMM_WORLD_RANK'] == '1':\n"
          "    opencl.source = lambda name: 'kernel nonsense'\n")


@pytest.fixture
def tuned(tmp_path):
    """``tuned(opencl=rate, …)``: write a tuning for this processor, in which Numba's rate is 100."""

    def write(cpu=None, device=None, **rates):
        cpu = cpu or probe.cpu()
        rows = [{"kernel": kernel, "size": 2**20, "threads": 1, "backend": backend, "parameters": {}, "rate": rate,
                 "spread": 0.01, **({"device": device or opencl.device().name} if backend == "opencl" else {})}
                for kernel in (FORCE, "gravity potential") for backend, rate in ({"numba": 100} | rates).items()]
        file = tmp_path / f"hostfiles/tuning/{choice.slug(cpu)}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"schema": 1, "cpu": cpu, "rows": rows}))
        return file

    return write


def about(path):
    told = json.loads((path / "run.json").read_text())
    assert list(told["kernels"]) == [socket.gethostname()]
    return told, told["kernels"][socket.gethostname()]


@pytest.mark.parametrize("ranks", [0, 3])
def test_auto_takes_what_was_measured_and_says_so(launch, tmp_path, tuned, ranks):
    tuned(opencl=300)
    done = launch(ranks, *ARGUMENTS, "--out", "auto")
    assert done.returncode == 0, done.stderr
    run, here = about(tmp_path / "auto")
    assert run["backend"] == "opencl" and run["agreed"] == {FORCE: "opencl", "gravity potential": "opencl"}
    assert here[FORCE] == [{"backend": "opencl", "parameters": {}, "why": "agreed on by all"}]
    assert run["wall"]["compile"]["max"] > 0
    assert launch(1, *ARGUMENTS, "--out", "named", "--backend", "opencl", "--quiet").returncode == 0
    assert (tmp_path / "auto" / LAST).read_bytes() == (tmp_path / "named" / LAST).read_bytes()
    assert about(tmp_path / "named")[1][FORCE][0]["why"] == "asked for"


def test_auto_without_a_tuning_of_this_processor_is_numba(launch, tmp_path, tuned):
    tuned("Cortex-A76", opencl=300)
    assert launch(2, *ARGUMENTS, "--out", "run", "--quiet").returncode == 0
    run, here = about(tmp_path / "run")
    assert run["backend"] == "numba" and here[FORCE][0]["backend"] == "numba"
    shown = launch(0, "-m", "brmpi", "show", "run")
    assert "numba" in shown.stdout


def test_a_fall_back_is_told_and_taken_by_all(launch, tmp_path, tuned):
    tuned(opencl=300, device="V3D 7.1")
    done = launch(2, *ARGUMENTS, "--out", "run")
    assert done.returncode == 0 and done.stdout.count(f"{FORCE}: OpenCL was chosen and failed: V3D 7.1 was tuned") == 1
    run, here = about(tmp_path / "run")
    assert run["backend"] == "numba" and "V3D 7.1 was tuned" in here[FORCE][0]["why"]


def test_one_rank_whose_compiler_fails_takes_all_to_numba(launch, tmp_path, tuned):
    tuned(opencl=300)
    code = (BROKEN +
            "sys.argv[1:] = ['--set', 'n=1100', '--steps', '5', '--out', 'run']\n"
            "program.main(NBody)\n")
    done = launch(3, "-c", code)
    assert done.returncode == 0 and done.stdout.count("Numba runs it") == 2, done.stderr
    _, here = about(tmp_path / "run")
    assert {one["backend"] for one in here[FORCE]} == {"numba"} and f"(on {socket.gethostname()})" in str(here[FORCE])
    assert launch(1, *ARGUMENTS, "--out", "numba", "--backend", "numba", "--quiet").returncode == 0
    assert (tmp_path / "run" / LAST).read_bytes() == (tmp_path / "numba" / LAST).read_bytes()


def test_one_rank_whose_compiler_fails_is_told_once_where_opencl_is_asked_for(launch):
    code = (BROKEN +
            "sys.argv[1:] = ['--steps', '5', '--backend', 'opencl', '--out', 'run']\n"
            "program.main(NBody)\n")
    done = launch(3, "-c", code)
    assert done.returncode == 2 and done.stderr.count("backend = 'opencl': not on ") == 1, done.stderr
    assert "kernels/gravity.cl on OpenCL device" in done.stderr and "error:" in done.stderr


def test_a_restart_goes_on_with_what_the_run_began_with(launch, tmp_path, tuned):
    tuned(opencl=300)
    assert launch(2, *ARGUMENTS, "--out", "whole", "--quiet").returncode == 0
    assert launch(2, *ARGUMENTS[:-1], 3, "--out", "cut", "--quiet").returncode == 0
    tuned(opencl=30)
    done = launch(1, *ARGUMENTS, "--out", "cut", "--restart")
    assert done.returncode == 0 and "goes on with it" not in done.stdout, done.stderr
    assert about(tmp_path / "cut")[0]["backend"] == "opencl"
    assert (tmp_path / "cut" / LAST).read_bytes() == (tmp_path / "whole" / LAST).read_bytes()


def test_a_restart_that_cannot_says_that_bits_will_differ(launch, tuned):
    tuned(opencl=300)
    assert launch(2, *ARGUMENTS[:-1], 3, "--out", "run", "--quiet").returncode == 0
    done = launch(1, *ARGUMENTS, "--out", "run", "--restart", BRMPI_OPENCL="abacus")
    assert done.returncode == 0, done.stderr
    assert f"{FORCE}: opencl began this run and numba goes on with it: not to the same bits" in done.stdout


def test_a_bad_tuning_is_bad_input(launch, tuned):
    file = tuned(opencl=300)
    file.write_text(file.read_text().replace('"rate": 300', '"rate": "fast"'))
    done = launch(2, *ARGUMENTS)
    assert done.returncode == 2 and done.stderr.count("rows[1].rate = 'fast'") == 1, done.stderr
    assert f"hostfiles/tuning/{file.name}" in done.stderr


def test_no_bodies_at_all(launch, tmp_path, tuned):
    tuned(opencl=300)
    for ranks in (0, 2):
        done = launch(ranks, "-m", "brmpi.sims.nbody", "--set", "n=0", "--steps", 2, "--out", f"run{ranks}", "--quiet")
        assert done.returncode == 0, done.stderr


def test_what_fell_back_goes_on_so_after_a_restart(launch, tmp_path, tuned):
    tuned(opencl=300, device="V3D 7.1")
    assert launch(2, *ARGUMENTS[:-1], 3, "--out", "run", "--quiet").returncode == 0
    assert json.loads((tmp_path / "run/run.json").read_text())["agreed"][FORCE] == "numba"
    tuned(opencl=300)
    done = launch(2, *ARGUMENTS, "--out", "run", "--restart")
    assert done.returncode == 0 and "goes on with it" not in done.stdout, done.stdout
    assert about(tmp_path / "run")[1][FORCE][0]["backend"] == "numba"


def test_what_was_agreed_on_must_be_a_table(launch, tmp_path):
    assert launch(0, *ARGUMENTS[:-1], 3, "--out", "run", "--quiet").returncode == 0
    file = tmp_path / "run/run.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "agreed": ["numba"]}))
    done = launch(2, *ARGUMENTS, "--out", "run", "--restart")
    assert done.returncode == 2 and done.stderr.count("agreed = ['numba']: must be a table") == 1, done.stderr


LATER = ("import os, sys\n"  # N-body, for which OpenCL's memory is used up in the third step on rank 1
         "from brmpi import program\n"
         "from brmpi.kernels import opencl\n"
         "from brmpi.sims.nbody import NBody\n"
         "bring, calls = opencl.Device.bring, []\n"
         "def fail(self, array, write=False):\n"
         "    calls.append(array.nbytes)\n"
         "    if os.environ['OMPI_COMM_WORLD_RANK'] == '1' and len(calls) > 40:\n"
         "        raise opencl.Unavailable('OpenCL device: out of device memory')\n"
         "    return bring(self, array, write)\n"
         "opencl.Device.bring = fail\n")


def test_a_failure_in_the_middle_falls_back_where_it_is_and_is_told(launch, tmp_path, tuned):
    tuned(opencl=300)
    code = LATER + "sys.argv[1:] = ['--set', 'n=1100', '--steps', '30', '--out', 'run']\nprogram.main(NBody)\n"
    done = launch(2, "-c", code)
    assert done.returncode == 0, done.stderr
    host = socket.gethostname()
    assert done.stdout.count(f"nbody on {host}: {FORCE}: OpenCL was chosen and failed: OpenCL device: out of") == 1
    run, here = about(tmp_path / "run")
    assert run["backend"] == "numba, opencl" and {one["backend"] for one in here[FORCE]} == {"numba", "opencl"}


def test_a_failure_in_the_middle_of_what_was_asked_for_is_a_fault(launch, tmp_path):
    code = LATER + ("sys.argv[1:] = ['--set', 'n=1100', '--steps', '30', '--backend', 'opencl', '--out', 'run']\n"
                    "program.main(NBody)\n")
    done = launch(2, "-c", code)
    assert done.returncode == 1 and "out of device memory" in done.stderr, done.stderr
    assert "(see --help)" not in done.stderr and "Traceback" not in done.stderr
    status = json.loads((tmp_path / "run/run.json").read_text())["status"]
    assert status == "failed: OpenCL device: out of device memory (rank 1)"
