"""Hostfiles: what mpirun reads, always whole, always in the same order, and a person's own files left alone."""

import json
import shutil
import subprocess
import threading
from pathlib import Path

import pytest
from conftest import environment
from hypothesis import given
from hypothesis import strategies as st

from brmpi import cli
from brmpi.cluster import atomic, hostfile, probe
from brmpi.errors import Fault

EXAMPLE = Path(__file__).parent.parent / "hostfiles" / "blackroad.toml"
MPIRUN = shutil.which("mpirun", path=environment()["PATH"])
FAILED = {"schema": 1, "node": "alice", "failed": "no answer within\n30 s", "time": "2026-01-01T00:00:00Z"}


def probed(node, cores=4, threads=4, architecture="aarch64", opencl=(), **rates):
    return {"schema": 1, "node": node, "hostname": node, "time": "2026-01-02T03:04:05Z", "architecture": architecture,
            "board": "Raspberry Pi 5 Model B Rev 1.0", "cpu": "Cortex-A76", "opencl": list(opencl),
            "cores": {"physical": cores, "threads": threads, "usable": cores, "usable_threads": threads, "quota": None},
            "speeds": {kind: {"value": value} for kind, value in rates.items()}}


@pytest.fixture
def blackroad(tmp_path):
    """A hostfiles folder with the example's nodes, all probed but alice, which failed, and lucidia, never probed."""
    (tmp_path / "cluster.toml").write_text(EXAMPLE.read_text())
    (tmp_path / "probes").mkdir()
    for one in (probed("octavia", compute=30.1, memory=5.9, gravity=0.81e9), probed("aria", compute=11.3), FAILED,
                probed("shellfish", 6, 12, "x86_64", compute=63.0)):
        (tmp_path / "probes" / f"{one['node']}.json").write_text(json.dumps(one))
    return tmp_path


def write(folder, *arguments):
    return cli.main(["hostfiles", "--hostfiles", str(folder), *arguments])


def hosts(folder, name="all"):
    return [line for line in (folder / name).read_text().splitlines() if not line.startswith("#")]


def generated(folder):
    return {path.name for path in folder.iterdir() if path.is_file() and path.suffix != ".toml"}


def test_one_file_for_all_and_for_each_kind(blackroad):
    assert write(blackroad) == 0
    assert hosts(blackroad) == ["192.168.1.11 slots=4", "192.168.1.12 slots=4", "192.168.1.15 slots=6"]
    assert hosts(blackroad, "aarch64") == hosts(blackroad, "compute") == hosts(blackroad)[:2]
    assert hosts(blackroad, "x86_64") == hosts(blackroad, "shellfish") == hosts(blackroad, "coordinator")
    assert hosts(blackroad, "accelerator") == hosts(blackroad, "primary") == hosts(blackroad, "octavia")
    assert generated(blackroad) == {"all", "compute", "primary", "accelerator", "secondary", "coordinator", "aarch64",
                                    "x86_64", "octavia", "aria", "shellfish"}


def test_comments_say_what_was_measured_and_who_is_missing(blackroad):
    write(blackroad)
    text = (blackroad / "all").read_text()
    assert ("# octavia: Raspberry Pi 5, 4 cores, 30.1 GFLOP/s, 5.90 GB/s, 0.810 Ginteractions/s, "
            "probed 2026-01-02T03:04:05Z\n") in text
    assert "# alice is left out: no answer within 30 s\n" in text
    assert "# lucidia is left out: never probed\n" in text
    assert "alice" in (blackroad / "compute").read_text() and "alice" not in (blackroad / "coordinator").read_text()


@pytest.mark.parametrize("arguments, lines", [
    (["--slots", "threads"], ["192.168.1.11 slots=4", "192.168.1.12 slots=4", "192.168.1.15 slots=12"]),
    (["--slots", "2"], ["192.168.1.11 slots=2", "192.168.1.12 slots=2", "192.168.1.15 slots=2"]),
    (["--mpich"], ["192.168.1.11:4", "192.168.1.12:4", "192.168.1.15:6"]),
    (["--mpich", "--slots=3"], ["192.168.1.11:3", "192.168.1.12:3", "192.168.1.15:3"]),
    (["--no-probe"], [f"192.168.1.{n} slots=4" for n in range(11, 16)]),
])
def test_slots_and_forms(blackroad, arguments, lines):
    assert write(blackroad, *arguments) == 0
    assert hosts(blackroad) == lines


def test_opencl_makes_an_accelerator_but_a_processor_does_not(blackroad):
    cpu = {"platform": "PoCL", "name": "cortex-a72", "type": "CPU"}
    gpu = {"platform": "rusticl", "name": "V3D", "type": "GPU"}
    (blackroad / "probes" / "aria.json").write_text(json.dumps(probed("aria", opencl=[cpu])))
    write(blackroad)
    assert hosts(blackroad, "accelerator") == ["192.168.1.11 slots=4"]
    (blackroad / "probes" / "aria.json").write_text(json.dumps(probed("aria", opencl=[cpu, gpu])))
    write(blackroad)
    assert hosts(blackroad, "accelerator") == ["192.168.1.11 slots=4", "192.168.1.12 slots=4"]


def test_the_same_input_gives_the_same_bytes(blackroad):
    write(blackroad)
    first = {name: (blackroad / name).read_bytes() for name in generated(blackroad)}
    write(blackroad)
    assert first == {name: (blackroad / name).read_bytes() for name in generated(blackroad)}


def test_files_no_longer_meant_go_and_a_persons_own_stay(blackroad):
    (blackroad / "mine").write_text("octavia slots=1\n")
    write(blackroad)
    (blackroad / "cluster.toml").write_text('[nodes.octavia]\naddress = "192.168.1.11"\nroles = ["new"]\n')
    write(blackroad)
    assert generated(blackroad) == {"all", "aarch64", "octavia", "new", "mine"}
    assert (blackroad / "mine").read_text() == "octavia slots=1\n"


def test_a_persons_file_in_the_way_stops_everything(blackroad, capsys):
    (blackroad / "primary").write_text("octavia slots=1\n")
    assert write(blackroad) == 2
    assert f"{blackroad / 'primary'}: was not written by brmpi" in capsys.readouterr().err
    assert generated(blackroad) == {"primary"} and (blackroad / "primary").read_text() == "octavia slots=1\n"


def test_without_probes_it_says_what_to_do(tmp_path, capsys):
    assert write(tmp_path) == 2
    said = capsys.readouterr().err
    assert "brmpi probe" in said and "--no-probe" in said and not generated(tmp_path)


def test_all_failed_is_a_fault_that_names_them(tmp_path, capsys):
    (tmp_path / "cluster.toml").write_text("[nodes.alice]\n")
    (tmp_path / "probes").mkdir()
    (tmp_path / "probes" / "alice.json").write_text(json.dumps(FAILED))
    assert write(tmp_path) == 1
    assert "alice is left out: no answer" in capsys.readouterr().err and not generated(tmp_path)


def test_without_probe_or_cores_the_key_is_named(tmp_path, capsys):
    (tmp_path / "cluster.toml").write_text("[nodes.a]\ncores = 4\n[nodes.b]\n")
    assert write(tmp_path, "--no-probe") == 2
    assert f"{tmp_path / 'cluster.toml'}: nodes.b.cores" in capsys.readouterr().err
    assert write(tmp_path, "--no-probe", "--slots", "2") == 0 and hosts(tmp_path) == ["a slots=2", "b slots=2"]


@pytest.mark.parametrize("slots", ["0", "-1", "many", "2.5", "٣"])
def test_bad_slots_are_refused(tmp_path, capsys, slots):
    assert write(tmp_path, "--no-probe", f"--slots={slots}") == 2
    assert f"--slots = {slots!r}" in capsys.readouterr().err


def test_this_machine_alone_is_localhost(tmp_path):
    assert write(tmp_path, "--no-probe") == 0
    assert hosts(tmp_path) == [f"localhost slots={probe.cores()['usable']}"]


NAMES = st.lists(st.sampled_from("abcdefgh"), unique=True, min_size=1)


@given(NAMES, st.lists(st.sets(st.sampled_from(["r", "s", "t"])), min_size=8, max_size=8), st.booleans())
def test_every_file_is_a_part_of_all_in_its_order(names, roles, mpich):
    nodes = [{"name": name, "address": name, "slots": i + 1, "groups": {name, *roles[i]}, "note": "x"}
             for i, name in enumerate(names)]
    files = hostfile.contents(nodes, [], mpich)
    assert next(iter(files)) == "all" and set(files) == {"all", *(group for node in nodes for group in node["groups"])}
    lines = {name: [line for line in text.splitlines() if line[0] != "#"] for name, text in files.items()}
    assert lines["all"] == [f"{node['name']}:{node['slots']}" if mpich else f"{node['name']} slots={node['slots']}"
                            for node in nodes]
    for group, some in lines.items():
        assert some == [line for line, node in zip(lines["all"], nodes) if group in {"all", *node["groups"]}] and some


def test_a_reader_sees_a_whole_file_at_every_instant(tmp_path):
    texts = ["a slots=1\n" * 3000, "b slots=2\n" * 7000]
    atomic.write(tmp_path / "all", texts[0])
    writer = threading.Thread(target=lambda: [atomic.write(tmp_path / "all", texts[i % 2]) for i in range(100)])
    writer.start()
    seen = set()
    while writer.is_alive():
        seen.add((tmp_path / "all").read_text())
    writer.join()
    assert seen <= set(texts) and [path.name for path in tmp_path.iterdir()] == ["all"]


def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch):
    atomic.write(tmp_path / "all", "old\n")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(Fault, match=r"all: cannot be written: No space left on device"):
        atomic.write(tmp_path / "all", "new\n")
    assert (tmp_path / "all").read_text() == "old\n" and len(list(tmp_path.iterdir())) == 1


def launched(file, ranks):
    options = ["--bind-to", "none", "--mca", "plm_rsh_agent", "false"]  # no other host can be reached
    command = [MPIRUN, *options, "-hostfile", str(file), "-np", str(ranks), "hostname"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment())


def address():
    return next((link["address"] for link in probe.interfaces() if link["address"] and link["state"] == "up"), None)


@pytest.mark.skipif(not MPIRUN, reason="no mpirun")
@pytest.mark.parametrize("here", ["localhost", address()])
def test_mpirun_takes_the_hostfile_and_its_slots(tmp_path, here):
    if here is None:
        pytest.skip("no network address")
    (tmp_path / "cluster.toml").write_text(f'[nodes.one]\naddress = "{here}"\nroles = ["compute"]\n')
    assert write(tmp_path, "--no-probe", "--slots=3") == 0
    for name in ("all", "compute", "one"):
        done = launched(tmp_path / name, 3)
        assert done.returncode == 0 and len(done.stdout.split()) == 3, done.stderr
    done = launched(tmp_path / "all", 4)
    assert done.returncode != 0 and "slots" in done.stderr + done.stdout
