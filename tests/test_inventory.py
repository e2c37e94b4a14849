"""The inventory: what a person writes, and one sentence for each mistake in it."""

import dataclasses
import socket
from pathlib import Path

import pytest

from brmpi import cli
from brmpi.cluster import inventory
from brmpi.errors import BadInput

EXAMPLE = Path(__file__).parent.parent / "hostfiles" / "blackroad.toml"
ONE = '[nodes.a]\naddress = "10.0.0.1"\n'


def test_the_example_says_what_the_cluster_is():
    known = inventory.load("unused", EXAMPLE)
    assert [node.name for node in known.nodes] == ["octavia", "aria", "lucidia", "alice", "shellfish"]
    octavia, shellfish = known.node("octavia"), known.node("shellfish")
    assert octavia.roles == ("compute", "primary", "accelerator")
    assert (octavia.cores, octavia.frequency, octavia.memory, octavia.model) == (4, 2600, 8, "Raspberry Pi 5")
    assert "secondary" in known.node("aria").roles
    assert all("worker" in known.node(name).roles for name in ("lucidia", "alice"))
    assert shellfish.roles == ("coordinator",) and shellfish.architecture == "x86_64"
    assert {node.user for node in known.nodes} == {"pi"} and known.network == "192.168.1.0/24"


def test_without_a_file_there_is_this_machine(tmp_path):
    known = inventory.load(tmp_path)
    assert known.file is None and [node.address for node in known.nodes] == ["localhost"]
    assert inventory.is_local(known.nodes[0])


@pytest.mark.parametrize("hostname, name", [("vm.example.org", "vm"), ("all", "all-node"), ("my_pi", "my-pi"),
                                            ("___", "node"), ("x" * 80, "x" * 50)])
def test_any_hostname_makes_a_usable_name(monkeypatch, hostname, name):
    monkeypatch.setattr(socket, "gethostname", lambda: hostname)
    assert inventory.this_machine().nodes[0].name == name


def test_a_nodes_own_user_wins_and_its_name_is_the_address(tmp_path):
    file = tmp_path / "cluster.toml"
    file.write_text('[cluster]\nuser = "pi"\npython = "/opt/python"\n[nodes.a]\nuser = "root"\n[nodes.b]\n')
    a, b = inventory.load(tmp_path).nodes
    assert (a.user, b.user, b.address, a.python) == ("root", "pi", "b", "/opt/python")


def test_lab_tables_are_kept(tmp_path):
    (tmp_path / "cluster.toml").write_text(ONE + "[lab.a]\ncpu = 30\ncpuset = '0,2-3'\n")
    assert inventory.load(tmp_path).lab == {"a": {"cpu": 30, "cpuset": "0,2-3"}}


def test_every_key_of_a_node_is_checked():
    assert set(inventory.CHECKS) == {field.name for field in dataclasses.fields(inventory.Node)} - {"name"}


@pytest.mark.parametrize("text, key, said", [
    ("[nodes.a]\ncores = x", "is not TOML", "line 2"),
    ("", "nodes", "at least one node"),
    ("[nodes]", "nodes", "at least one node"),
    ("nodes = 3", "nodes", "must be a table"),
    ("[node.a]", "node", "did you mean nodes?"),
    ("[elsewhere]", "elsewhere", "known are cluster, nodes, lab"),
    ("[nodes.a]\nadress = '10.0.0.1'", "nodes.a.adress", "did you mean address?"),
    ("[nodes.a]\nzzz = 1", "nodes.a.zzz", "known are address, user"),
    ("[cluster]\nnetwrok = '10.0.0.0/8'\n" + ONE, "cluster.netwrok", "did you mean network?"),
    ("[cluster]\nnetwork = '10.0.0.1/8'\n" + ONE, "cluster.network", "10.0.0.1/8"),
    ("[cluster]\nnetwork = '10.0.0.0/40'\n" + ONE, "cluster.network", "CIDR"),
    ("[cluster]\nnetwork = 10\n" + ONE, "cluster.network", "text in quotes"),
    ("[cluster]\nnetwork = '192.168.1.0/24'\n" + ONE, "nodes.a.address", "outside cluster.network"),
    ("[cluster]\nuser = 'no spaces'\n" + ONE, "cluster.user", "user name"),
    (ONE + "[nodes.b]\naddress = '10.0.0.1'", "nodes.b.address", "the address of a too"),
    (ONE + "[nodes.A]\naddress = '10.0.0.2'", "nodes.A", "only in case"),
    ("[nodes.a]\naddress = '10.0.0.300'", "nodes.a.address", "IP address or a host name"),
    ("[nodes.a]\naddress = '-oProxyCommand=x'", "nodes.a.address", "IP address or a host name"),
    ("[nodes.a]\naddress = ''", "nodes.a.address", "not empty"),
    ("[nodes.a]\nuser = '-x'", "nodes.a.user", "user name"),
    ("[nodes.'a/b']", "nodes.a/b", "letters, digits"),
    ("[nodes.'a b']", "nodes.a b", "letters, digits"),
    ("[nodes.'..']", "nodes...", "letters, digits"),
    ("[nodes.all]", "nodes.all", "another name"),
    ("[nodes.probes]", "nodes.probes", "another name"),
    ("[nodes.aarch64]", "nodes.aarch64", "another name"),
    ("[nodes.a]\nroles = 'compute'", "nodes.a.roles", "list of names"),
    ("[nodes.a]\nroles = [3]", "nodes.a.roles", "a role must be"),
    ("[nodes.a]\nroles = ['x y']", "nodes.a.roles", "a role must be"),
    ("[nodes.a]\nroles = ['x', 'x']", "nodes.a.roles", "twice"),
    ("[nodes.a]\nroles = ['all']", "nodes.a.roles", "rename it"),
    ("[nodes.a]\n[nodes.b]\nroles = ['a']", "nodes.a", "is a role too"),
    ("[nodes.a]\ncores = 0", "nodes.a.cores", ">= 1"),
    ("[nodes.a]\ncores = 2.5", "nodes.a.cores", "whole number"),
    ("[nodes.a]\ncores = true", "nodes.a.cores", "whole number"),
    ("[nodes.a]\ncores = 4\nthreads = 2", "nodes.a.threads", ">= nodes.a.cores = 4"),
    ("[nodes.a]\nmemory = -1", "nodes.a.memory", "> 0"),
    ("[nodes.a]\nfrequency = nan", "nodes.a.frequency", "> 0"),
    ("[nodes.a]\narchitecture = 'vax'", "nodes.a.architecture", "one of x86_64"),
    ("[nodes.a]\npython = 'python3'", "nodes.a.python", "absolute path"),
    ("[nodes.a]\nmodel = \"two\\nlines\"", "nodes.a.model", "on one line"),
    ("[nodes]\na = 3", "nodes.a", "must be a table"),
    (ONE + "[lab.b]", "lab.b", "is not a node"),
    (ONE + "[lab]\na = 3", "lab.a", "must be a table"),
])
def test_a_mistake_is_one_sentence_with_file_and_key(tmp_path, capsys, text, key, said):
    (tmp_path / "cluster.toml").write_text(text)
    assert cli.main(["nodes", "--hostfiles", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert f"{tmp_path / 'cluster.toml'}: {key}" in captured.err and said in captured.err


def test_a_missing_or_unreadable_file_is_named(tmp_path):
    with pytest.raises(BadInput, match=r"none\.toml: cannot be read: No such file"):
        inventory.load(tmp_path, tmp_path / "none.toml")
    (tmp_path / "cluster.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(BadInput, match=r"cluster\.toml: is not TOML"):
        inventory.load(tmp_path)


def test_an_unknown_node_names_the_nearest():
    with pytest.raises(BadInput, match=r"node 'otcavia' is not there: did you mean octavia\?"):
        inventory.load("unused", EXAMPLE).node("otcavia")


@pytest.mark.parametrize("address, local", [
    ("localhost", True), ("127.0.0.1", True), ("127.3.2.1", True), (socket.gethostname(), True),
    ("203.0.113.77", False), ("host.invalid", False)])
def test_local_is_what_reaches_this_machine(address, local):
    assert inventory.is_local(inventory.Node("x", address)) is local
