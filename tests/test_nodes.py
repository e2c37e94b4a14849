"""The table of the cluster: what was probed, sums, shares of work, and what to look at first."""

import io
import json
import re

import pytest

from brmpi import cli, partition, speeds
from brmpi.cluster import nodes, table, words

RATES = {"octavia": (30.0, 6.0, 8e8, 11365.0), "aria": (12.0, 3.0, 2e8, 4200.0),
         "shellfish": (58.0, 11.0, 2.5e9, 15000.0)}


def probed(name, rates, **more):
    made = {"schema": 1, "node": name, "hostname": name, "time": "2026-01-02T03:04:05Z", "architecture": "aarch64",
            "board": "Raspberry Pi 4 Model B Rev 1.4", "cpu": "Cortex-A72", "os": "Debian GNU/Linux 12 (bookworm)",
            "cores": {"physical": 4, "threads": 4, "usable": 4, "usable_threads": 4, "quota": None},
            "ram": {"total": 4 * 2**30, "available": 2**30, "limit": None}, "temperature": 61.2, "throttled": None,
            "mpi": {"name": "Open MPI", "version": "4.1.4"}, "clock": {"offset": 3.0, "uncertainty": 1.0},
            "speeds": {kind: {"value": rate} for kind, rate in zip(speeds.KINDS, rates)}}
    return {**made, **more}


@pytest.fixture
def cluster(tmp_path):
    """``cluster(aria={...}, …)``: a folder with three probed nodes, changed as told, and alice, which failed."""

    def build(**changes):
        tables = "".join(f'[nodes.{name}]\naddress = "10.0.0.{i}"\nroles = ["compute", "worker-of-a-long-name"]\n'
                         for i, name in enumerate([*RATES, "alice"]))
        (tmp_path / "cluster.toml").write_text(tables)
        (tmp_path / "probes").mkdir(exist_ok=True)
        for name, rates in RATES.items():
            one = probed(name, rates, **changes.get(name, {}))
            (tmp_path / "probes" / f"{name}.json").write_text(json.dumps(one))
        (tmp_path / "probes" / "alice.json").write_text('{"schema": 1, "node": "alice", "failed": "no answer"}')
        return tmp_path

    return build


def shown(capsys, folder, *arguments):
    assert cli.main(["nodes", "--hostfiles", str(folder), *arguments]) == 0
    return capsys.readouterr()


def row(out, name, number):
    return [line for line in out.splitlines() if line.startswith(name)][number].split()


def test_tables_hold_nodes_sums_and_shares(cluster, capsys):
    captured = shown(capsys, cluster())
    assert row(captured.out, "octavia", 2) == ["octavia", "30.0", "6.00", "0.800", "11,365", "30.0", "%", "30.0", "%",
                                               "22.9", "%"]
    assert row(captured.out, "total", 0) == ["total", "12", "12.0"]
    assert row(captured.out, "total", 1)[:5] == ["total", "100", "20.0", "3.50", "30,565"]
    assert "Raspberry Pi 4" in captured.out and "Open MPI 4.1.4" in captured.out and "61 °C" in captured.out
    assert captured.err == "Warning: alice is left out: no answer.\n"


def test_a_piped_table_is_never_cut_and_a_narrow_terminal_is_kept_to(cluster, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert "compute, worker-of-a-long-name" in shown(capsys, cluster()).out

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    narrow = Terminal()
    table.show({"node": "left", "roles": "left"}, [["octavia", "a-role, " * 20]], file=narrow)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", narrow.getvalue()).splitlines()
    assert 60 < max(map(len, lines)) <= 80 and "".join(lines).count("a-role") == 20


def test_json_agrees_with_how_work_is_shared(cluster, capsys):
    told = json.loads(shown(capsys, cluster(), "--json").out)
    assert [node["name"] for node in told["nodes"]] == [*RATES, "alice"]
    assert told["totals"]["cores"] == 12 and told["totals"]["speeds"]["compute"] == {"value": 100.0, "nodes": 3}
    parts = told["shares"]["gravity"]
    assert parts["by"] == "gravity" and sum(parts["nodes"].values()) == pytest.approx(1)
    counts = partition.shares(3500, [rates[2] for rates in RATES.values()])
    assert [3500 * part for part in parts["nodes"].values()] == pytest.approx(counts.tolist())


def test_the_fall_back_is_said(cluster, capsys):
    rates = {"compute": {"value": 12.0}, "memory": {"value": 3.0}, "gravity": {"value": None, "reason": "x"}}
    folder = cluster(aria={"speeds": rates})
    out = shown(capsys, folder).out
    assert "Shares of gravity work are by compute: not measured on aria." in out and "memory work" not in out
    told = json.loads(shown(capsys, folder, "--json").out)
    assert told["shares"]["gravity"]["nodes"]["octavia"] == pytest.approx(0.3)
    out = shown(capsys, cluster(aria={"speeds": {}})).out
    assert "Shares of compute work are equal: not measured on aria." in out and "33.3 %" in out


@pytest.mark.parametrize("change, said", [
    ({"mpi": {"name": "Open MPI", "version": "5.0.7"}}, "Open MPI 4.1 on octavia, shellfish; Open MPI 5.0 on aria"),
    ({"mpi": None}, "no MPI on aria"),
    ({"throttled": {"now": ["throttled"], "since_boot": [], "raw": "0x4"}}, "aria was slowed down now: throttled"),
    ({"throttled": {"now": [], "since_boot": ["under-voltage"], "raw": "0x1"}}, "since it was started: under-voltage"),
    ({"clock": {"offset": -100.1, "uncertainty": 1.0}}, "aria's clock is -100 ms off"),
    ({"hostname": "octavia.local"}, "octavia and aria both call themselves octavia"),
])
def test_warnings(cluster, capsys, change, said):
    warned = shown(capsys, cluster(aria=change)).err.splitlines()
    assert len(warned) == 2 and said in warned[1]


@pytest.mark.parametrize("change", [
    {"mpi": {"name": "Open MPI", "version": "4.1.6"}}, {"clock": {"offset": 99.0, "uncertainty": 1.0}},
    {"clock": {"offset": None, "reason": "x"}}, {"throttled": {"now": [], "since_boot": [], "raw": "0x0"}}])
def test_nothing_to_warn_of(cluster, capsys, change):
    assert len(shown(capsys, cluster(aria=change)).err.splitlines()) == 1


def test_a_probe_of_nulls_is_shown(cluster, capsys):
    keys = ("board", "cpu", "cores", "ram", "mpi", "os", "architecture", "temperature", "clock", "time")
    out = shown(capsys, cluster(aria={**dict.fromkeys(keys), "speeds": {}})).out
    assert row(out, "aria", 0)[-4:] == ["unknown", "-", "-", "-"] and row(out, "total", 0) == ["total", "8", "8.0"]


def test_without_probes_it_says_what_to_do(tmp_path, capsys):
    captured = shown(capsys, tmp_path)
    assert "run brmpi probe" in captured.out and "never probed" in captured.err
    assert json.loads(shown(capsys, tmp_path, "--json").out)["shares"] == {}


@pytest.mark.parametrize("board, cpu, model", [
    ("Raspberry Pi 5 Model B Rev 1.0", "Cortex-A76", "Raspberry Pi 5"),
    ("Raspberry Pi Compute Module 4 Rev 1.1", "Cortex-A72", "Raspberry Pi Compute Module 4"),
    ("NUC11ATKC4", "Intel(R) N100", "Intel N100"),
    (None, "Intel(R) Core(TM) i5-7200U CPU @ 2.50GHz", "Intel Core i5-7200U"),
    ("B650", "AMD Ryzen 9 7950X 16-Core Processor", "AMD Ryzen 9 7950X"), ("A board", None, "A board"),
    (None, None, "unknown")])
def test_models_in_words(board, cpu, model):
    assert words.model({"board": board, "cpu": cpu}) == model


def test_the_age_of_a_probe():
    now = words.datetime(2026, 1, 4, 3, 4, 5, tzinfo=words.UTC)
    for time, age in (("2026-01-02T03:04:05Z", "2 d"), ("2026-01-04T01:04:04Z", "2 h"),
                      ("2026-01-04T02:50:05Z", "14 min"), ("2026-01-04T03:04:00Z", "5 s"),
                      ("2027-01-01T00:00:00Z", "0 s"), ("yesterday", "-"), (None, "-")):
        assert words.age({"time": time}, now) == age


def test_warnings_are_sentences_about_nodes():
    assert nodes.warnings({"a": {"failed": "x"}}) == ["a is left out: x"]
