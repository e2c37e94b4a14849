"""The probe and the prober: a real measurement, nodes that lack things, and ssh that fails in every way."""

import ast
import json
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import environment

from brmpi import cli, speeds
from brmpi.cluster import children, inventory, probe, probing

SOURCE = Path(probe.__file__)
RATED = ("compute", "gravity", "memory", "events")

FAKE_SSH = """#!/bin/sh
while [ "$1" = -T ] || [ "$1" = -o ]; do
  if [ "$1" = -o ]; then options="$options $2"; shift; fi
  shift
done
case "$options" in *BatchMode=yes*) ;; *) echo "would ask for a password" >&2; exit 255;; esac
host=${1#*@}
shift
case $host in
  good*) exec sh -c "$*";;
  late) PATH="$FAKE/late:$PATH" exec sh -c "$*";;
  noisy) echo 'Welcome! {"schema": broken'; printf 'Last login: '; sh -c "$*"; code=$?; echo goodbye; exit $code;;
  refused) echo "ssh: connect to host refused port 22: Connection refused" >&2; exit 255;;
  denied) echo "denied: Permission denied (publickey)." >&2; exit 255;;
  garbage) case "$*" in *date*) exec sh -c "$*";; *) echo hello; exit 0;; esac;;
  nopython) case "$*" in *date*) exec sh -c "$*";; *) echo "sh: 1: exec: python3: not found" >&2; exit 127;; esac;;
  hang) echo $$ >> "$FAKE/pids"; sleep 300 & echo $! >> "$FAKE/pids"; wait;;
  hangs-later) case "$*" in *date*) exec sh -c "$*";; esac; echo $$ >> "$FAKE/pids"; exec sleep 300;;
esac
"""


def script(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def ssh(tmp_path, monkeypatch):
    """``ssh(host, …)``: a hostfiles folder with those hosts as nodes, reached by an ssh that behaves as named."""
    script(tmp_path / "bin/ssh", FAKE_SSH)
    script(tmp_path / "late/date", '#!/bin/sh\nexec /bin/date -d "+5 seconds" "$@"\n')
    bare = script(tmp_path / "bare", f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')  # no packages: quick
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FAKE", str(tmp_path))

    def build(*hosts):
        tables = [f'[nodes.{host}]\naddress = "{host}"\npython = "{bare}"\n' for host in hosts]
        (tmp_path / "cluster.toml").write_text('[cluster]\nuser = "pi"\n' + "\n".join(tables))
        return tmp_path

    # names of fake hosts must not be looked up
    monkeypatch.setattr(inventory, "is_local", lambda node: node.address == "localhost")
    return build


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(folder, seconds=5):
    pids = [int(pid) for pid in (folder / "pids").read_text().split()]
    limit = time.monotonic() + seconds
    while any(map(alive, pids)) and time.monotonic() < limit:
        time.sleep(0.02)
    return bool(pids) and not any(map(alive, pids))


def run_probe(*python, given=None, **variables):
    command = [sys.executable, *(python or ["-"])]
    done = subprocess.run(command, input=given or SOURCE.read_text(), capture_output=True, text=True, timeout=40,
                          env=environment(**variables))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def real():
    """A probe of this machine, and the seconds that it took."""
    start = time.monotonic()
    found = run_probe()
    return found, time.monotonic() - start


def test_a_real_probe_holds_what_it_should_within_its_time(real):
    found, seconds = real
    assert seconds < 20
    assert found["schema"] == speeds.SCHEMA
    for kind in RATED:
        entry = found["speeds"][kind]
        assert speeds.value(found, kind) > 0 and entry["repeats"] == 5 and entry["unit"] == probe.KINDS[kind]
        assert 0 <= entry["spread"] < 20 and entry["threads"] == found["cores"]["usable"]
    assert found["architecture"] == platform.machine() and found["kernel"] == platform.release()
    assert found["python"]["version"] == platform.python_version() and found["python"]["numpy"] == np.__version__
    assert 1 <= found["cores"]["usable"] <= found["cores"]["physical"] <= found["cores"]["threads"]
    assert found["cores"]["usable_threads"] <= len(os.sched_getaffinity(0))
    assert found["ram"]["total"] == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert found["blas"]["name"] and 0 < found["disk"]["free"] <= found["disk"]["total"]
    items = {item.partition(".")[0] for item in found["reasons"]}
    assert {item for item, value in found.items() if value is None} <= items


def test_its_rates_are_those_of_the_machine(real):
    """Speeds agree with plain timings here, to the factor that a shared machine needs."""
    found, _ = real
    n = 1024
    a, b, c = np.ones((n, n)), np.ones((n, n)), np.empty((n, n))
    times = []
    for _ in range(5):
        start = time.perf_counter()
        np.matmul(a, b, out=c)
        times.append(time.perf_counter() - start)
    plain = 2e-9 * n**3 / min(times)
    assert 0.1 * plain < found["speeds"]["compute"]["value"] < 10 * plain * found["cores"]["usable"]
    # a vectorised loop of 20 flops an interaction cannot beat twice the matrix product, nor be a hundredth of it
    assert 0.01 < 20e-9 * found["speeds"]["gravity"]["value"] / found["speeds"]["compute"]["value"] < 2


@pytest.mark.parametrize("hidden, lost", [("numba", RATED[1:]), ("numpy", RATED)])
def test_a_hidden_library_is_null_with_a_reason(hidden, lost):
    hide = f"import sys; sys.modules[{hidden!r}] = None; exec(compile(sys.stdin.read(), 'probe', 'exec'))"
    found = run_probe("-c", hide)
    for kind in lost:
        assert found["speeds"][kind]["value"] is None and hidden in found["speeds"][kind]["reason"]
        assert hidden in found["reasons"][kind]
    assert all(speeds.value(found, kind) for kind in set(RATED) - set(lost))
    assert found["cores"] and found["ram"] and found["os"]


def test_it_runs_without_any_package_and_on_one_core():
    core = min(os.sched_getaffinity(0))
    bound = f"import os, sys; os.sched_setaffinity(0, [{core}]); exec(compile(sys.stdin.read(), 'probe', 'exec'))"
    found = run_probe("-I", "-S", "-c", bound)
    assert found["python"]["numpy"] is None and found["reasons"]["python.numpy"] == "not installed"
    assert found["cores"]["usable"] == found["cores"]["usable_threads"] == 1
    assert all(found["speeds"][kind]["value"] is None for kind in RATED)


def test_it_is_one_file_for_python_3_8():
    tree = ast.parse(SOURCE.read_text(), feature_version=(3, 8))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in names} - sys.stdlib_module_names == {"numpy", "numba", "pyopencl"}
    assert probe.SCHEMA == speeds.SCHEMA and set(probe.KINDS) == set(speeds.KINDS)


def test_past_its_limit_a_probe_says_out_of_time():
    late = SOURCE.read_text().replace("measured()),", "measured(0)),")
    found = run_probe(given=late)
    assert {entry["reason"] for entry in found["speeds"].values()} == {"out of time"} and found["duration"] < 8
    assert found["reasons"]["blas"] == "out of time" and found["cores"]


def test_what_crashes_or_hangs_is_cut_off(tmp_path):
    program = f"""
import os, signal, sys, time
sys.path.insert(0, {str(SOURCE.parent)!r})
import probe
def crash():
    yield 1
    os.kill(os.getpid(), signal.SIGSEGV)
def hang():
    yield os.getpid()
    time.sleep(60)
def fail():
    print("noise")
    yield 3
    raise ValueError("broken")
for work in (crash, hang, fail):
    start = time.monotonic()
    try:
        for value in probe.isolated(work, 1):
            print(work.__name__, value)
    except probe.Lacking as lacking:
        print(work.__name__, lacking, "in time" if time.monotonic() - start < 1.7 else "late")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=True)
    lines = done.stdout.splitlines()
    pid = int(lines[2].split()[1])
    assert lines == ["crash 1", "crash its process died of signal 11 in time", f"hang {pid}",
                     "hang out of time in time", "fail 3", "fail its process failed in time"]
    assert not alive(pid)


def test_gravity_is_that_of_two_bodies():
    x, y, z = np.array([0.0, 3.0]), np.array([0.0, 4.0]), np.zeros(2)
    mass, out = np.array([2.0, 5.0]), np.empty((2, 3))
    loop = probe.compiled(probe.pull, "void(float64[::1], float64[::1], float64[::1], float64[::1], float64[:, ::1])")
    loop(x, y, z, mass, out)
    strength = (25 + 1e-4) ** -1.5
    assert out == pytest.approx(np.array([[15, 20, 0], [-6, -8, 0]]) * strength, rel=1e-12)


def test_an_event_counts_the_odd_primes():
    sieve = np.ones(10001, bool)
    for divisor in range(2, 101):
        sieve[divisor * divisor :: divisor] = False
    assert probe.compiled(probe.primes, "int64(uint64)")(np.uint64(10000)) == sieve[3:].sum() == 1228


def test_a_rate_counts_all_threads():
    found = probe.rate(lambda thread: time.sleep(0.02), 3.0, 4)
    assert found["value"] == pytest.approx(4 * 3.0 / 0.02, rel=0.4) and found["spread"] >= 0


@pytest.mark.parametrize("said, now, before", [
    ("throttled=0x0", [], []), ("throttled=0x50005", ["under-voltage", "throttled"], ["under-voltage", "throttled"]),
    ("throttled=0x80000", [], ["soft temperature limit"]), ("throttled=0x2", ["frequency capped"], [])])
def test_throttling_flags(monkeypatch, said, now, before):
    monkeypatch.setattr(probe, "output", lambda *command: said)
    assert (probe.throttling()["now"], probe.throttling()["since_boot"]) == (now, before)


@pytest.mark.parametrize("said, name, version", [
    ("mpirun (Open MPI) 4.1.4\n\nReport bugs", "Open MPI", "4.1.4"),
    ("HYDRA build details:\n    Version:                                 4.0.2\n    CC: gcc", "MPICH", "4.0.2"),
    ("Intel(R) MPI Library for Linux* OS, Version 2021.10 Build 1", "Intel MPI", "2021.10")])
def test_mpi_by_what_mpirun_says(monkeypatch, said, name, version):
    monkeypatch.setattr(probe, "output", lambda *command: said)
    assert probe.mpi() == {"name": name, "version": version}


def test_devices_by_what_their_tools_say(monkeypatch):
    vulkan = ("Devices:\n========\nGPU0:\n\tdeviceType         = PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU\n"
              "\tdeviceName         = V3D 7.1.7\n\tdriverName         = V3DV Mesa\n"
              "GPU1:\n\tdeviceType = PHYSICAL_DEVICE_TYPE_CPU\n\tdeviceName = llvmpipe\n\tdriverName = llvmpipe\n")
    monkeypatch.setattr(probe, "output", lambda *command, seconds=3: vulkan)
    assert probe.vulkan() == [{"name": "V3D 7.1.7", "driver": "V3DV Mesa", "type": "INTEGRATED_GPU"},
                              {"name": "llvmpipe", "driver": "llvmpipe", "type": "CPU"}]
    clinfo = ("#PLATFORMS 1\n[RUSTICL/*] CL_PLATFORM_NAME rusticl\n[RUSTICL/0]  CL_DEVICE_NAME   V3D 7.1\n"
              "[RUSTICL/0]  CL_DEVICE_TYPE   CL_DEVICE_TYPE_GPU\n")
    monkeypatch.setattr(probe, "output", lambda *command, seconds=3: clinfo)
    assert probe.opencl_listed() == [{"platform": "RUSTICL", "name": "V3D 7.1", "type": "GPU"}]


@pytest.mark.parametrize("version, text, cores", [("cpu.max", "150000 100000", 1.5), ("cpu.max", "max 100000", None),
                                                  ("cpu.cfs_quota_us", "3000", 0.3), ("cpu.cfs_quota_us", "-1", None)])
def test_quotas_of_both_versions_of_control_groups(monkeypatch, tmp_path, version, text, cores):
    (tmp_path / "cpu.cfs_period_us").write_text("10000\n")
    monkeypatch.setattr(probe, "control_groups", lambda *names: [(tmp_path, text)])
    assert probe.quota() == cores
    found = probe.cores()
    assert found["quota"] == cores
    assert (found["usable"], found["usable_threads"]) == (1, 1) if cores else found["usable"] <= found["physical"]


def test_one_dead_node_does_not_stop_the_rest(ssh, capsys):
    folder = ssh("good", "noisy", "late", "refused", "denied", "garbage", "nopython", "hang", "hangs-later")
    start = time.monotonic()
    assert cli.main(["probe", "--hostfiles", str(folder), "--timeout", "3"]) == 1
    assert time.monotonic() - start < 10
    assert gone(folder)
    captured = capsys.readouterr()
    found = speeds.records(folder)
    assert {name for name, one in found.items() if "failed" not in one} == {"good", "noisy", "late"}
    for name, reason, remedy in (("refused", "Connection refused", "sshd"),
                                 ("denied", "Permission denied", "ssh-copy-id pi@denied"),
                                 ("garbage", "no probe: 'hello'", "python3 --version"),
                                 ("nopython", "python3: not found", "nodes.nopython.python"),
                                 ("hang", "no answer within 3 s", "pi@hang"),
                                 ("hangs-later", "no answer within 3 s", "pi@hangs-later")):
        assert reason in found[name]["failed"]
        said = next(line for line in captured.err.splitlines() if line.startswith(f"{name}: not probed: "))
        assert reason in said and remedy in said
    assert "3 of 9 nodes probed" in captured.out
    assert abs(found["good"]["clock"]["offset"]) <= found["good"]["clock"]["uncertainty"] + 5
    assert found["late"]["clock"]["offset"] == pytest.approx(5000, abs=found["late"]["clock"]["uncertainty"] + 5)
    assert not list(folder.glob("probes/.*"))


def test_a_node_probed_later_loses_its_failure_and_the_reverse(ssh, tmp_path):
    folder = ssh("good")
    arguments = ["probe", "--hostfiles", str(folder), "--timeout", "5"]
    assert cli.main(arguments) == 0 and "failed" not in speeds.records(folder)["good"]
    script(tmp_path / "bin/ssh", "#!/bin/sh\necho 'ssh: No route to host' >&2\nexit 255\n")
    assert cli.main([*arguments, "--if-missing"]) == 0 and "failed" not in speeds.records(folder)["good"]
    assert cli.main(arguments) == 1 and "No route" in speeds.records(folder)["good"]["failed"]
    ssh("good")
    script(tmp_path / "bin/ssh", FAKE_SSH)
    assert cli.main([*arguments, "--if-missing"]) == 0 and "failed" not in speeds.records(folder)["good"]


def test_this_machine_is_probed_without_ssh(ssh, tmp_path):
    folder = ssh("good")
    script(tmp_path / "bin/ssh", "#!/bin/sh\nexit 99\n")
    (folder / "cluster.toml").write_text((folder / "cluster.toml").read_text().replace('"good"', '"localhost"'))
    assert cli.main(["probe", "--hostfiles", str(folder)]) == 0
    found = speeds.read(folder)["good"]
    assert found["hostname"] == platform.node() and found["clock"] == {"offset": 0.0, "uncertainty": 0.0}


def test_only_nodes_asked_for_are_probed(ssh, capsys):
    folder = ssh("good", "refused")
    assert cli.main(["probe", "good", "--hostfiles", str(folder)]) == 0
    assert list(speeds.records(folder)) == ["good"]
    assert cli.main(["probe", "godo", "--hostfiles", str(folder)]) == 2
    assert "did you mean good?" in capsys.readouterr().err


@pytest.mark.parametrize("limit", ["0", "-1", "nan", "soon"])
def test_a_bad_limit_is_refused(tmp_path, capsys, limit):
    assert cli.main(["probe", "--hostfiles", str(tmp_path), f"--timeout={limit}"]) == 2
    assert "--timeout" in capsys.readouterr().err


def test_an_unwritable_folder_is_a_fault(ssh, capsys):
    folder = ssh("good")
    (folder / "probes").write_text("in the way")
    assert cli.main(["probe", "--hostfiles", str(folder)]) == 1
    assert "probes/good.json: cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_prober_leaves_nothing_behind(ssh, number):
    folder = ssh("hang")
    code = "import sys; from brmpi import cli; sys.exit(cli.main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "probe", "--hostfiles", str(folder), "--timeout", "60"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    limit = time.monotonic() + 30
    while not ((folder / "pids").exists() and len((folder / "pids").read_text().split()) == 2):
        assert time.monotonic() < limit and process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    assert process.wait(20) == (130 if number == signal.SIGINT else 143)
    assert gone(folder)


def test_the_remote_python_is_the_first_that_runs(tmp_path):
    broken = script(tmp_path / "broken", "#!/bin/sh\nexit 126\n")
    node = inventory.Node("a", "a")
    text = probing.interpreter(node)
    assert text.endswith("exec python3 -") and sys.prefix in text

    def ran(shell):
        given = "import sys; print(sys.prefix)"
        return subprocess.run(["sh", "-c", shell], input=given, capture_output=True, text=True)

    assert ran(text).stdout.strip() == sys.prefix
    fallback = text.replace(f"{sys.prefix}/bin/python", str(broken))
    assert ran(fallback).returncode == 0 and ran(fallback).stdout.strip() != str(broken)
    assert probing.interpreter(inventory.Node("a", python="/opt/my python")) == "exec '/opt/my python' -"


def test_stopped_children_start_no_more():
    group = children.Children()
    process = group.start(["sleep", "60"])
    group.stop()
    assert process.wait(5) == -signal.SIGKILL
    with pytest.raises(InterruptedError):
        group.start(["sleep", "60"])
    group.end(process)
