"""What all tests share: mpirun under a time limit, one verdict for all ranks, quiet ranks."""

import dataclasses
import io
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import hypothesis
import pytest

ROOT = Path(__file__).parent.parent
hypothesis.settings.register_profile("busy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("busy")  # other tests may run beside one
SIZE = int(os.environ.get("OMPI_COMM_WORLD_SIZE", 1))
RANK = int(os.environ.get("OMPI_COMM_WORLD_RANK", 0))


@pytest.hookimpl(trylast=True)
def pytest_configure(config):
    """Ranks other than 0 keep their report to themselves, unless something failed."""
    if RANK:
        config.quiet_rank = io.StringIO()
        reporter = config.pluginmanager.getplugin("terminalreporter")
        if reporter is not None:
            reporter._tw._file = config.quiet_rank


def pytest_sessionfinish(session, exitstatus):
    """Show a failing rank's report, named."""
    if RANK and exitstatus not in (0, 5):
        sys.stderr.write(f"\n[rank {RANK} of {SIZE}]\n{session.config.quiet_rank.getvalue()}\n")


@pytest.fixture
def comm():
    """All ranks of the test run, on a communicator of the test's own."""
    from mpi4py import MPI

    own = MPI.COMM_WORLD.Dup()
    yield own
    own.Free()


@pytest.fixture
def assert_all(comm):
    """``assert_all(ok, message)``: an assertion that fails on all ranks if it fails on one. Collective."""

    def check(ok, message=""):
        verdicts = comm.allgather((bool(ok), str(message)))
        failed = [f"rank {rank}: {message}" for rank, (ok, message) in enumerate(verdicts) if not ok]
        assert not failed, "; ".join(failed)

    return check


@pytest.fixture
def alone():
    """A communicator of this rank alone."""
    from mpi4py import MPI

    return MPI.COMM_SELF


def made(kind, comm, /, backend="numba", **keys):
    """A simulation from its case's defaults and some keys, which must be possible.

    Parameters
    ----------
    kind : class of the simulation
    comm : communicator
    backend : str
    **keys : of its case
    """
    from brmpi import mpi

    case = dataclasses.replace(kind.Case(), **keys)
    problem = getattr(case, "problem", lambda: None)()
    assert problem is None, problem
    return kind(case, comm, mpi.Timers(), backend)


def environment(**extra):
    """Variables for a program under test: this venv first, root allowed, one thread a rank, no mpirun around it.

    Parameters
    ----------
    **extra : str, further variables; None takes one away
    """
    env = {k: v for k, v in os.environ.items() if not k.startswith(("OMPI_", "PMIX_", "PRTE_", "BRMPI_"))}
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    if os.geteuid() == 0:
        for name in ("OMPI_ALLOW_RUN_AS_ROOT", "PRTE_ALLOW_RUN_AS_ROOT"):
            env[name] = env[f"{name}_CONFIRM"] = "1"
    env.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    env.update({k: v for k, v in extra.items() if v is not None})
    return {k: v for k, v in env.items() if extra.get(k, "") is not None}


def mpirun_command(ranks, *command):
    """``mpirun`` with as many ranks as asked for, whatever the number of cores.

    Parameters
    ----------
    ranks : int
    *command : str, the program and its arguments
    """
    launcher = shutil.which("mpirun", path=environment()["PATH"])
    return [launcher, "--oversubscribe", "--bind-to", "none", "-np", str(ranks), *map(str, command)]


@pytest.fixture
def launch(tmp_path):
    """``launch(ranks, "-m", "brmpi.sims.nbody", …)``: run Python in an empty folder, with a time limit.

    Ranks 0 means without mpirun. Returns the completed process with text output.
    """

    def run(ranks, *arguments, timeout=60, cwd=tmp_path, **variables):
        command = [sys.executable, *map(str, arguments)]
        if ranks:
            command = mpirun_command(ranks, *command)
        process = subprocess.Popen(command, cwd=cwd, env=environment(**variables), text=True, start_new_session=True,
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                out, err = process.communicate(timeout=5)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                out, err = process.communicate()
            pytest.fail(f"still running after {timeout} s: {' '.join(command)}\n{out}\n{err}")
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    return run
