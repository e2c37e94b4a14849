"""Speeds: a node's speed divided among its ranks, one kind of work for all, the same on every rank."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brmpi import speeds
from brmpi.errors import BadInput

RATES = st.floats(1e-3, 1e12)


def probe(node, hostname=None, **rates):
    entries = {kind: {"value": rate, "unit": "1/s", "spread": 0.0, "repeats": 5} for kind, rate in rates.items()}
    return {"schema": speeds.SCHEMA, "node": node, "hostname": hostname or node, "speeds": entries}


def cluster(**nodes):
    return {name: probe(name, **rates) for name, rates in nodes.items()}


def write(folder, *probes):
    (folder / "probes").mkdir(exist_ok=True)
    for one in probes:
        (folder / "probes" / f"{one['node']}.json").write_text(json.dumps(one))


class Gathered:
    """The root's side of a communicator whose ranks run on the given hosts."""

    def __init__(self, hosts):
        self.hosts = hosts

    def Get_rank(self):
        return 0

    def gather(self, host, root):
        return self.hosts

    def bcast(self, value, root):
        return value


@given(st.lists(RATES, min_size=1, max_size=6).flatmap(
    lambda rates: st.tuples(st.just(rates), st.lists(st.integers(0, len(rates) - 1), min_size=1, max_size=30))))
def test_ranks_of_a_node_divide_its_speed_wherever_they_are(drawn):
    rates, places = drawn
    probes = {f"n{i}": probe(f"n{i}", gravity=rate) for i, rate in enumerate(rates)}
    vector, used = speeds.per_rank([f"n{i}" for i in places], probes, "gravity")
    assert used == "gravity" and vector.dtype == np.float64 and vector.shape == (len(places),)
    for node in set(places):
        mine = vector[np.array(places) == node]
        assert np.all(mine == mine[0])
        assert mine.sum() == pytest.approx(rates[node], rel=1e-12)


def test_interleaved_hosts_by_hand():
    probes = cluster(a={"memory": 6}, b={"memory": 20})
    vector, used = speeds.per_rank(["b", "a", "b", "a", "a", "b", "b"], probes, "memory")
    assert vector.tolist() == [5, 2, 5, 2, 2, 5, 5] and used == "memory"


@pytest.mark.parametrize("lacking", [None, 0, -1.0, float("nan"), float("inf"), "fast", True, [3.0]])
def test_one_node_without_the_kind_moves_all_to_compute(lacking):
    probes = cluster(a={"gravity": 9.0, "compute": 30.0}, b={"gravity": lacking, "compute": 10.0})
    vector, used = speeds.per_rank(["a", "b"], probes, "gravity")
    assert vector.tolist() == [30, 10] and used == "compute"
    # only nodes that take part count
    vector, used = speeds.per_rank(["a", "a"], probes, "gravity")
    assert vector.tolist() == [4.5, 4.5] and used == "gravity"


@pytest.mark.parametrize("probes", [
    {},
    cluster(a={"gravity": 9.0}, b={"compute": 10.0}),
    cluster(a={"gravity": 9.0, "compute": 1.0}),
    {**cluster(a={"gravity": 9.0}), "b": {**probe("b"), "speeds": {"gravity": 3.0}}},
])
def test_without_a_common_kind_all_are_equal(probes):
    vector, used = speeds.per_rank(["a", "b", "a"], probes, "gravity")
    assert vector.tolist() == [1, 1, 1] and used == "equal"


@pytest.mark.parametrize("host", ["octavia", "OCTAVIA", "octavia.local", "pi5", "Pi5.lan", "pi5.example.org"])
def test_a_host_is_found_by_node_or_hostname_short_or_full(host):
    probes = {"octavia": probe("octavia", "pi5.lan", memory=6.0), "aria": probe("aria", "pi4.lan", memory=3.0)}
    assert speeds.per_rank([host, "aria"], probes, "memory")[0].tolist() == [6, 3]


def test_two_names_of_one_node_share_its_speed():
    probes = {"octavia": probe("octavia", "pi5", memory=6.0)}
    assert speeds.per_rank(["octavia", "pi5.lan"], probes, "memory")[0].tolist() == [3, 3]


def test_a_node_name_goes_before_a_namesake_host():
    probes = {"a": probe("a", "b", memory=6.0), "b": probe("b", "c", memory=3.0)}
    assert speeds.per_rank(["b"], probes, "memory")[0].tolist() == [3]


def test_a_host_that_could_be_two_nodes_is_refused():
    probes = {"a": probe("a", "raspberrypi", memory=6.0), "b": probe("b", "raspberrypi", memory=3.0)}
    with pytest.raises(BadInput, match=r"'raspberrypi' could be node a or b"):
        speeds.per_rank(["raspberrypi"], probes, "memory")


def test_read_passes_over_failures_and_records_keeps_them(tmp_path):
    write(tmp_path, probe("a", memory=1.0), {"schema": 1, "node": "b", "failed": "no answer"})
    assert list(speeds.read(tmp_path)) == ["a"]
    assert speeds.records(tmp_path)["b"]["failed"] == "no answer"
    assert speeds.read(tmp_path / "nowhere") == {}


@pytest.mark.parametrize("text, said", [
    ("{", "is not JSON"), ("\xff", "is not JSON"), ("[]", "holds a list"), ('{"node": "a"}', "schema = None"),
    ('{"schema": 2, "node": "a", "speeds": {}}', "schema = 2"), ('{"schema": 1, "speeds": {}}', "node = None"),
    ('{"schema": 1, "node": "a", "speeds": 3}', "speeds = 3"),
    ('{"schema": 1, "node": "a", "failed": 3}', "failed = 3"),
])
def test_a_file_that_is_no_probe_is_named(tmp_path, text, said):
    write(tmp_path)
    (tmp_path / "probes" / "octavia.json").write_text(text, encoding="latin-1")
    with pytest.raises(BadInput) as caught:
        speeds.read(tmp_path)
    assert said in str(caught.value) and "probes/octavia.json" in str(caught.value) and "\n" not in str(caught.value)


def test_two_files_of_one_node_are_refused(tmp_path):
    write(tmp_path, probe("a", memory=1.0))
    (tmp_path / "probes" / "b.json").write_text((tmp_path / "probes" / "a.json").read_text())
    with pytest.raises(BadInput, match=r"b\.json: node = \"a\""):
        speeds.read(tmp_path)


def test_the_folder_comes_from_the_environment(tmp_path, monkeypatch):
    write(tmp_path, probe("a", memory=8.0))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BRMPI_HOSTFILES", raising=False)
    assert speeds.measured(Gathered(["a"]), "memory")[1] == "equal"
    monkeypatch.setenv("BRMPI_HOSTFILES", str(tmp_path))
    assert speeds.speeds(Gathered(["a", "a"]), "memory").tolist() == [4, 4]
    assert speeds.measured(Gathered(["a", "a"]), "fft")[1] == "equal"
    monkeypatch.delenv("BRMPI_HOSTFILES")
    tmp_path.joinpath("hostfiles").mkdir()
    write(tmp_path / "hostfiles", probe("a", memory=2.0))
    assert speeds.speeds(Gathered(["a"]), "memory").tolist() == [2]


@pytest.mark.mpi
def test_only_the_root_reads_and_all_ranks_know(comm, assert_all, tmp_path, monkeypatch):
    rank, size = comm.Get_rank(), comm.Get_size()
    nodes = [f"n{r % 2}" for r in range(size)]  # two nodes, their ranks interleaved
    if rank == 0:
        write(tmp_path, *(probe(f"n{i}", gravity=60.0 * (i + 1)) for i in range(2)))
    monkeypatch.setenv("BRMPI_HOSTFILES", str(tmp_path) if rank == 0 else "/nonexistent")
    monkeypatch.setattr(speeds.socket, "gethostname", lambda: nodes[rank])
    vector, used = speeds.measured(comm, "gravity")
    expected = [60.0 * (int(node[1]) + 1) / nodes.count(node) for node in nodes]
    assert_all(vector.tolist() == expected and used == "gravity", f"{vector} for {expected}, {used}")
    assert_all(vector.dtype == np.float64 and speeds.speeds(comm, "gravity").tolist() == expected)


@pytest.mark.mpi
def test_a_broken_probe_fails_on_every_rank_alike(comm, assert_all, tmp_path, monkeypatch):
    write(tmp_path)
    (tmp_path / "probes" / "a.json").write_text("{")
    monkeypatch.setenv("BRMPI_HOSTFILES", str(tmp_path) if comm.Get_rank() == 0 else "/nonexistent")
    try:
        said = str(speeds.speeds(comm, "gravity"))
    except BadInput as error:
        said = f"refused: {error}"
    assert_all(said.startswith("refused: ") and "a.json" in said, said)
    assert_all(comm.allgather(said) == [said] * comm.Get_size(), said)
