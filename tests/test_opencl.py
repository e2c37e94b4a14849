"""OpenCL's device: what it lacks is said in a sentence; programs run on it, to the same bits on any number of ranks."""

import subprocess
import sys

import numpy as np
import pytest
from conftest import environment

import brmpi
from brmpi.kernels import opencl, without_opencl
from brmpi.kernels.opencl import Unavailable


@pytest.fixture
def device():
    try:
        return opencl.device()
    except Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture
def anew():
    """Without the device that was found before."""
    opencl.device.cache_clear()
    yield
    opencl.device.cache_clear()


def test_no_pyopencl(anew, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyopencl", None)
    with pytest.raises(Unavailable, match=r"pyopencl is not installed .apt-get install"):
        opencl.device()
    assert "not installed" in without_opencl()


def test_no_device():
    """An empty folder of vendors is a computer without OpenCL."""
    code = "from brmpi.kernels import without_opencl; print(without_opencl())"
    done = subprocess.run([sys.executable, "-c", code], env=environment(OCL_ICD_VENDORS="/nonexistent/"), timeout=60,
                          capture_output=True, text=True)
    assert "OpenCL: " in done.stdout and "apt-get install" in done.stdout, done


def test_a_device_that_is_not_there(device, anew, monkeypatch):
    monkeypatch.setenv("BRMPI_OPENCL", "abacus")
    with pytest.raises(Unavailable, match=r"BRMPI_OPENCL = 'abacus': no OpenCL device .* there are "):
        opencl.device()
    monkeypatch.setenv("BRMPI_OPENCL", device.name[:5].upper())
    assert opencl.device().name == device.name


def test_no_float64(device, anew, monkeypatch):
    monkeypatch.setattr(opencl.Device, "has_float64", False)
    with pytest.raises(Unavailable, match="does not compute in float64"):
        opencl.need_float64(device)
    assert "does not compute in float64" in without_opencl()


def test_a_source_that_does_not_compile(device, monkeypatch):
    monkeypatch.setattr(opencl, "source", lambda name: "__kernel void f() { undeclared = 1; }")
    with pytest.raises(Unavailable, match=r"kernels/broken.cl on OpenCL device .*: .*undeclared") as said:
        device.program("broken")
    assert "\n" not in str(said.value)


@pytest.mark.parametrize("installed", [False, True])
def test_a_source_includes_another(monkeypatch, tmp_path, installed):
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels/one.cl").write_text('/* 1 */\n#include "two.cl"\nint one;\n')
    (tmp_path / "kernels/two.cl").write_text('#include "three.cl"\n/* "two.cl" \\1 */\n')
    (tmp_path / "kernels/three.cl").write_text("int three;\n")
    monkeypatch.setattr(brmpi, "__file__", str(tmp_path / "brmpi/__init__.py"))
    if installed:
        monkeypatch.setattr(opencl.resources, "files", {"brmpi.kernels.cl": tmp_path / "kernels"}.get)
    else:
        (tmp_path / "setup.cfg").touch()
    assert opencl.source("one").split("\n") == ["/* 1 */", "int three;", "", '/* "two.cl" \\1 */', "", "int one;", ""]


def test_philox_has_one_home():
    for name in ("philox", "ising"):
        assert opencl.source("philox4x64") in opencl.source(name)


def test_out_of_memory(device, monkeypatch):
    def full(*arguments, **options):
        raise device.cl.MemoryError("clCreateBuffer failed: MEM_OBJECT_ALLOCATION_FAILURE")

    monkeypatch.setattr(device.cl, "Buffer", full)
    with pytest.raises(Unavailable, match="an array of 8,000 bytes: out of device memory"):
        device.bring(np.zeros(1000))


@pytest.mark.parametrize("shares", [True, False])
def test_arrays_come_back(device, monkeypatch, shares):
    """Where the device computes in this memory, and where arrays are copied."""
    monkeypatch.setattr(device, "shares_memory", shares)
    monkeypatch.setattr(opencl, "source", lambda name: "__kernel void twice(__global int *x, int n) "
                        "{ int i = get_global_id(0); if (i < n) x[i] *= 2; }")
    array = np.arange(1001, dtype=np.int32)
    buffer = device.bring(array, write=True)
    device.run(device.program(f"twice{shares}").twice, (array.size,), (64,), buffer, np.int32(array.size))
    device.take(buffer, array)
    assert (array == 2 * np.arange(1001)).all() and device.bring(np.zeros(0)) is None


def test_a_program_runs_on_it(device, launch, tmp_path):
    last = "snapshots/nbody_00000005.h5"
    for ranks in (0, 2, 3):
        done = launch(ranks, "-m", "brmpi.sims.nbody", "--backend", "opencl", "--set", "n=1100", "--steps", 5, "--out",
                      f"run{ranks}", "--quiet")
        assert done.returncode == 0, done.stderr
        assert (tmp_path / f"run{ranks}" / last).read_bytes() == (tmp_path / "run0" / last).read_bytes()
    assert '"backend": "opencl"' in (tmp_path / "run0/run.json").read_text()


def test_a_program_that_cannot_run_on_it(launch):
    done = launch(2, "-m", "brmpi.sims.nbody", "--backend", "opencl", "--steps", 1, BRMPI_OPENCL="abacus")
    assert done.returncode == 2 and done.stderr.count("backend = 'opencl': not on ") == 1, done.stderr
