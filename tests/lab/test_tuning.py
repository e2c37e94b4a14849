"""Tunings over hosts with two types of processor: made over ssh, read by the root, told for each host."""

import json

import pytest

from brmpi import kernels

pytestmark = [pytest.mark.timeout(240),
              pytest.mark.skipif(bool(kernels.without_opencl()), reason=kernels.without_opencl() or "-")]
FORCE = "gravity float64"


@pytest.fixture
def two_types(quick):
    """The lab, where octavia says that it has another processor; probed."""
    lab = quick
    script = ("sed 's/^model name.*/model name\\t: Cortex-A76/' /proc/cpuinfo >/tmp/cpuinfo; "
              "mount --bind /tmp/cpuinfo /proc/cpuinfo")
    assert lab.run("octavia", ["sh", "-c", script]).returncode == 0
    assert lab.run("shellfish", ["brmpi", "probe", "octavia", "shellfish"], timeout=90).returncode == 0
    yield lab
    lab.run("octavia", ["umount", "/proc/cpuinfo"])
    lab.run("shellfish", ["sh", "-c", "rm -r hostfiles/probes hostfiles/tuning"])


def files(lab):
    """The tunings that there are, by name of the file."""
    names = lab.run("shellfish", ["ls", "hostfiles/tuning"]).stdout.split()
    return {name: json.loads(lab.run("shellfish", ["cat", f"hostfiles/tuning/{name}"]).stdout) for name in names}


def test_two_types_need_two_tunings_and_run_as_one(two_types):
    lab = two_types
    done = lab.run("shellfish", ["brmpi", "tune", "--seconds", "6", "--kernels", FORCE], timeout=120)
    assert done.returncode == 0 and "Tuning shellfish, octavia: 6 s at most." in done.stderr, done
    found = files(lab)
    assert sorted(tuning["host"] for tuning in found.values()) == ["octavia", "shellfish"]
    assert found["cortex-a76.json"]["cpu"] == "Cortex-A76" and found["cortex-a76.json"]["host"] == "octavia"

    for tuning in found.values():  # OpenCL wins on octavia by more than it loses on shellfish
        for row in tuning["rows"]:
            rates = {"numba": 100, "opencl": 300 if tuning["cpu"] == "Cortex-A76" else 80, "numpy": 1}
            row.update(rate=rates[row["backend"]], spread=0.01)
    for name, tuning in found.items():
        path = lab.shared / name
        path.write_text(json.dumps(tuning))
        assert lab.run("shellfish", ["cp", f"/shared/{name}", f"hostfiles/tuning/{name}"]).returncode == 0
    words = ["brmpi", "run", "--on", "octavia,shellfish", "-n", "2", "nbody", "--set", "n=1100", "--steps", "2"]
    done = lab.run("shellfish", [*words, "--quiet", "--out", "/shared/tuned"], timeout=90)
    assert done.returncode == 0, done
    run = json.loads((lab.shared / "tuned/run.json").read_text())
    assert run["agreed"][FORCE] == "opencl" and set(run["kernels"]) == {"octavia", "shellfish"}
    assert all(ran[FORCE][0]["backend"] == "opencl" for ran in run["kernels"].values())


def test_twenty_ranks_compile_into_one_folder(quick):
    """Five hosts start cold on a folder that all share, then warm: the same bits."""
    lab = quick
    (lab.shared / "start.py").write_text("import os\n"
                                         "os.environ['NUMBA_CACHE_DIR'] = '/shared/compiled'\n"
                                         "from brmpi import program\n"
                                         "from brmpi.sims.nbody import NBody\n"
                                         "program.main(NBody)\n")
    for which in ("cold", "warm"):
        words = ["brmpi", "run", "--on", "all", "-n", "20", "/shared/start.py", "--set", "n=6000", "--steps", "1",
                 "--quiet", "--out", f"/shared/{which}"]
        done = lab.run("shellfish", words, timeout=150)
        assert done.returncode == 0, done
    last = "snapshots/nbody_00000001.h5"
    assert (lab.shared / "cold" / last).read_bytes() == (lab.shared / "warm" / last).read_bytes()
    assert {path.suffix for path in (lab.shared / "compiled").rglob("*") if path.is_file()} == {".nbc", ".nbi"}
