"""What the doctor makes of facts: each thing that can be wrong has its own code, severity and a way to mend it."""

import contextlib
import copy
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import environment

from brmpi import cli
from brmpi.cluster import (
    checkup,
    doctor,
    findings,
    hydra,
    inventory,
    mpirun,
    openmpi,
    pairs,
    pings,
    probe,
    report,
    together,
    visit,
)
from brmpi.cluster.children import Children

NETWORK = "192.168.1.0/24"
NODES = [inventory.Node(name, f"192.168.1.{place}", "pi") for name, place in
         (("octavia", 11), ("aria", 12), ("alice", 13))]
NAMES = ("octavia", "aria", "lucidia", "alice", "shellfish")
ARIA = NODES[1]
ENDS = {node.name: node.address for node in NODES}
PAIRS = [(a.name, b.name) for a in NODES for b in NODES if a is not b]
PACKAGE = {"version": "0.1.0", "folder": "/home/pi/brmpi/brmpi", "digest": "0123456789abcdef"}
HERE = findings.Here(mpi={"name": "Open MPI", "version": "4.1.4"}, launcher=openmpi.OpenMPI4("4.1.4"), package=PACKAGE,
                     project=Path("/home/pi/brmpi"), inventory=Path("hostfiles/cluster.toml"),
                     environment={"OMPI_MCA_orte_launch_agent": "env orted"})
HEALTHY = {
    "hostname": "aria", "architecture": "aarch64", "board": "Raspberry Pi 4", "brmpi": PACKAGE, "page": 4096,
    "python": {"version": "3.11.2", "executable": "/usr/bin/python3", "bits": 64, "order": "little",
               "abi": "cpython-311"},
    "mpi": {"library": {"name": "Open MPI", "version": "4.1.6"}, "mpirun": "/usr/bin/mpirun",
            "daemons": {"orted": "/usr/bin/orted"}, "near": {}, "path": "/usr/bin:/bin"},
    "redis": {"version": "Redis server v=7.0.15", "failed": None},
    "disks": {"/home/pi": {"free": 9 * 2**30, "total": 30 * 2**30}, "/tmp": {"free": 2**28, "total": 2**29},
              "/dev/shm": {"free": 2**28, "total": 2**28}},
    "temperature": 61.0, "throttled": {"now": [], "since_boot": []}, "firewalls": [], "port": 40000,
    "addresses": [{"interface": "eth0", "address": "192.168.1.12", "prefix": 24}], "at": "192.168.1.12",
    "clock": {"offset": 3.0, "uncertainty": 1.0},
}


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch):
    """None of these nodes is this machine."""
    monkeypatch.setattr(inventory, "is_local", lambda node: node.address == "localhost")


def changed(**changes):
    return {**copy.deepcopy(HEALTHY), **changes}


def cluster(**changes):
    """Facts of all nodes, healthy but for what is given by node."""
    made = {}
    for node in NODES:
        own = [{"interface": "eth0", "address": node.address, "prefix": 24}]
        made[node.name] = changed(hostname=node.name, at=node.address, addresses=own) | changes.get(node.name, {})
    return made


def tried(**changes):
    """Results of all pairs, healthy but for what is given by (from, to) joined by an underscore."""
    made = {(a, b): {"resolves": {b: [ENDS[b]], ENDS[b]: [ENDS[b]]}, "port": None} for a, b in PAIRS}
    for pair, change in changes.items():
        made[tuple(pair.split("_"))].update(change)
    return made


def mpi(**changes):
    return {**HEALTHY["mpi"], **changes}


def test_nothing_is_wrong_with_a_healthy_cluster():
    facts = cluster()
    assert [one for node in NODES for one in findings.node(node, facts[node.name], HERE)] == []
    assert together.findings(NODES, facts, NETWORK, HERE) == together.findings(NODES, facts, None, HERE) == []
    assert pairs.findings(NODES, facts, ENDS, tried(), NETWORK) == []
    assert pings.ready(HERE, many=True, root=False) == []


@pytest.mark.parametrize("said, code, fix", [
    ("Permission denied (publickey).", "key-refused", "ssh-copy-id pi@192.168.1.12"),
    ("Host key verification failed.", "host-key-unknown", "ssh-keyscan -H 192.168.1.12 >> ~/.ssh/known_hosts"),
    ("@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nOffending ED25519 key in /etc/ssh/known:3\nHost key "
     "verification failed.", "host-key-changed", "ssh-keygen -f /etc/ssh/known -R 192.168.1.12 && ssh-keyscan"),
    ("ssh: Could not resolve hostname aria.local: Name or service not known", "address-unresolved", "cluster.toml"),
    ("ssh: connect to host 192.168.1.12 port 22: Connection refused", "ssh-refused", "systemctl enable --now ssh"),
    ("ssh: connect to host 192.168.1.12 port 22: No route to host", "unreachable", "ping -c 3 192.168.1.12"),
    ("ssh: connect to host 192.168.1.12 port 22: Connection timed out", "unreachable", "ping -c 3 192.168.1.12"),
    ("no answer within 15 s", "unreachable", "ping -c 3 192.168.1.12"),
    ("sh: 1: exec: python3: not found", "python-missing",
     "brmpi sync aria && ssh pi@192.168.1.12 'cd /home/pi/brmpi && make install'"),
    ("something never heard of", "visit-failed", "ssh pi@192.168.1.12 'python3 --version'")])
def test_a_node_out_of_reach_is_one_finding(said, code, fix):
    found = findings.unreached(ARIA, said.splitlines()[-1], said, HERE)
    assert (found.code, found.severity, found.nodes) == (code, "error", ("aria",)) and fix in found.fix
    assert "aria" in found.says and not found.says.endswith(".")


def test_who_has_no_key_makes_one():
    bare = findings.Here(key=False)
    assert findings.unreached(ARIA, "Permission denied", "", bare).fix == (
        "ssh-keygen -t ed25519 && ssh-copy-id pi@192.168.1.12")


PYTHON = HEALTHY["python"]


@pytest.mark.parametrize("change, code, severity, fix", [
    ({"python": {**PYTHON, "bits": 32}}, "32-bit", "error", "rpi-imager"),
    ({"python": {**PYTHON, "order": "big"}}, "byte-order", "error", "cluster.toml"),
    ({"python": {**PYTHON, "version": "3.9.2"}, "brmpi": None}, "python-old", "error", "PYTHON=python3.11"),
    ({"brmpi": None}, "brmpi-missing", "error", "brmpi sync aria && ssh pi@192.168.1.12"),
    ({"brmpi": {**PACKAGE, "version": "0.0.9"}}, "brmpi-differs", "error", "brmpi sync aria"),
    ({"brmpi": {**PACKAGE, "digest": "fedcba9876543210"}}, "brmpi-differs", "error", "brmpi sync aria"),
    ({"mpi": mpi(library=None, daemons={})}, "mpi-missing", "error", "make install"),
    ({"mpi": None}, "mpi-missing", "error", "make install"),
    ({"mpi": mpi(library={"name": "Open MPI", "version": "4.0.7"})}, "mpi-differs", "error", "apt-get install"),
    ({"mpi": mpi(library={"name": "Open MPI", "version": "5.0.1"}, daemons={"prted": "x"})}, "mpi-differs", "error",
     "apt-get install"),
    ({"mpi": mpi(library={"name": "MPICH", "version": "4.1.4"})}, "mpi-differs", "error", "apt-get install"),
    ({"mpi": mpi(daemons={})}, "daemon-not-found", "error", "ln -s $(find /usr /opt / -xdev -name orted"),
    ({"mpi": mpi(daemons={"prted": "/usr/bin/prted"})}, "daemon-not-found", "error", "orted"),
    ({"clock": {"offset": -250.0, "uncertainty": 9.0}}, "clock", "warning",
     "ssh -t pi@192.168.1.12 'sudo timedatectl set-ntp true'"),
    ({"clock": {"offset": 9e7, "uncertainty": 9.0}}, "clock", "warning", "timedatectl"),
    ({"disks": {"/home/pi": {"free": 2**20, "total": 2**30}}}, "disk-full", "error", "du -xh /home/pi"),
    ({"disks": {"/home/pi": {"free": 2**34, "total": 2**35}, "/tmp": {"free": 0, "total": 2**30}}}, "disk-full",
     "error", "du -xh /tmp"),
    ({"disks": {"/home/pi": {"free": 2**29, "total": 2**35}}}, "disk-low", "warning", "du -xh /home/pi"),
    ({"temperature": 82.4}, "hot", "warning", "thermal_zone0"),
    ({"throttled": {"now": ["throttled"], "since_boot": ["throttled"]}}, "throttled", "warning", "vcgencmd"),
    ({"throttled": {"now": [], "since_boot": ["under-voltage"]}}, "throttled", "warning", "sudo reboot"),
    ({"page": 16384, "redis": None}, "page-size", "warning", "kernel=kernel8.img"),
    ({"page": 16384, "redis": {"version": None, "failed": "<jemalloc>: Unsupported system page size"}}, "page-size",
     "warning", "kernel8.img")])
def test_one_thing_wrong_with_a_node_is_one_finding(change, code, severity, fix):
    [found] = findings.node(ARIA, changed(**change), HERE)
    assert (found.code, found.severity, found.nodes) == (code, severity, ("aria",)) and fix in found.fix
    assert found.says.startswith("aria") and not found.says.endswith(".")


@pytest.mark.parametrize("change", [
    {"clock": {"offset": 100.5, "uncertainty": 1.0}}, {"clock": {"offset": None, "reason": "x"}}, {"temperature": None},
    {"temperature": 79.0}, {"throttled": None}, {"disks": None}, {"disks": {"/": {"free": 0, "total": 0}}},
    {"page": 16384}, {"page": None}, {"mpi": mpi(daemons={}, near={"orted": "/home/pi/brmpi/.venv/bin/orted"})},
    {"mpi": mpi(library=None)}, {"board": None, "redis": None, "firewalls": None}])
def test_what_cannot_be_told_or_is_well_enough_is_no_finding(change):
    assert findings.node(ARIA, changed(**change), HERE) == []


def test_a_node_that_is_this_machine_is_mended_without_ssh():
    here = inventory.Node("aria", "localhost", "pi")
    [found] = findings.node(here, changed(clock={"offset": 500.0, "uncertainty": 0.0}), HERE)
    assert found.fix == "sudo timedatectl set-ntp true"
    assert findings.node(here, changed(mpi=mpi(daemons={})), HERE) == []  # mpirun needs no daemon where it runs


DOCKER = [{"interface": "docker0", "address": "172.17.0.1", "prefix": 16}]


def together_alone(changes, network=NETWORK, here=HERE):
    [found] = together.findings(NODES, cluster(**changes), network, here)
    return found


def test_namesakes():
    found = together_alone({"alice": {"hostname": "aria.local"}})
    assert (found.code, found.severity, found.nodes) == ("same-hostname", "error", ("aria", "alice"))
    assert found.fix == "ssh -t pi@192.168.1.13 'sudo hostnamectl set-hostname alice'"


def test_pythons_that_differ():
    found = together_alone({"alice": {"python": {**PYTHON, "version": "3.13.1", "abi": "cpython-313"}}})
    assert (found.code, found.severity, found.nodes) == ("python-differs", "warning", ("alice",))
    assert "alice has Python 3.13, and the others have Python 3.11" in found.says
    found = together_alone({"aria": {"python": {**PYTHON, "abi": "pypy311"}}})
    assert found.nodes == ("aria",) and "(pypy311)" in found.says
    old = cluster(alice={"python": {**PYTHON, "version": "3.9.2", "abi": "cpython-39"}})
    assert together.findings(NODES, old, NETWORK, HERE) == []  # python-old says so


@pytest.mark.parametrize("launcher, said", [(openmpi.OpenMPI4("4.1.4"), "long double"),
                                            (openmpi.OpenMPI5("5.0.7"), "use 4.1")])
def test_two_kinds_of_processor(launcher, said):
    version = {"name": "Open MPI", "version": launcher.version}
    here = findings.Here(mpi=version, launcher=launcher, inventory=Path("hostfiles/cluster.toml"))
    found = together_alone({"alice": {"architecture": "x86_64"}}, here=here)
    assert (found.code, found.severity, found.nodes) == ("mixed-architectures", "warning", ("alice",))
    assert said in found.says and found.fix.startswith("mpirun -hostfile hostfiles/aarch64 ")


def test_no_address_in_the_network():
    found = together_alone({"aria": {"at": None}})
    assert (found.code, found.severity, found.nodes) == ("no-address", "error", ("aria",))
    assert NETWORK in found.says and found.fix == "ssh pi@192.168.1.12 'ip -brief address'"


@pytest.mark.parametrize("interface, address, what", [
    ("docker0", "172.17.0.1", "containers"), ("br-1f3a", "172.18.0.1", "containers"),
    ("virbr0", "192.168.122.1", "virtual machines"), ("wg0", "10.8.0.2", "tunnel"),
    ("tailscale0", "100.64.0.2", "tunnel"), ("ztab12", "10.9.0.2", "tunnel")])
def test_interfaces_that_would_be_picked_by_mistake(interface, address, what):
    own = {"addresses": [*HEALTHY["addresses"], {"interface": interface, "address": address, "prefix": 16}]}
    found = together_alone({"aria": own})
    assert (found.code, found.severity, found.nodes) == ("stray-interface", "warning", ("aria",))
    assert interface in found.says and what in found.says
    assert found.fix == f"export OMPI_MCA_btl_tcp_if_include={NETWORK} OMPI_MCA_oob_tcp_if_include={NETWORK}"
    unset = together_alone({"aria": own}, network=None)
    assert unset.code == "network-unset" and interface in unset.says and NETWORK in unset.fix
    told = {**HERE.environment, "OMPI_MCA_btl_tcp_if_include": NETWORK, "OMPI_MCA_oob_tcp_if_include": NETWORK}
    here = findings.Here(mpi=HERE.mpi, launcher=HERE.launcher, environment=told)
    assert together.findings(NODES, cluster(aria=own), NETWORK, here) == []


def test_an_address_that_several_nodes_have_is_no_way_to_them():
    both = {"addresses": [*HEALTHY["addresses"], {"interface": "usb0", "address": "10.55.0.1", "prefix": 24}]}
    assert together_alone({"aria": both, "alice": both}).nodes == ("aria", "alice")
    assert together.findings(NODES, cluster(aria=both), NETWORK, HERE) == []
    twice = {"addresses": [both["addresses"][1], {**both["addresses"][1], "interface": "usb1"}]}
    assert together.findings(NODES, cluster(aria=twice), NETWORK, HERE) == []  # one node's affair


def test_a_second_network_that_all_nodes_share(tmp_path):
    file = tmp_path / "cluster.toml"
    here = findings.Here(mpi=HERE.mpi, launcher=HERE.launcher, inventory=file)
    changes = {node.name: {"addresses": [{"interface": "wlan0", "address": f"10.0.0.{place}", "prefix": 24},
                                         {"interface": "eth0", "address": node.address, "prefix": 24}]}
               for place, node in enumerate(NODES)}
    for text in ("[nodes.octavia]\n", '[cluster]\nuser = "pi"\n[nodes.octavia]\n'):
        file.write_text(text)
        found = together_alone(changes, network=None, here=here)
        assert (found.code, found.severity) == ("network-unset", "warning") and "10.0.0.0/24" in found.says
        subprocess.run(found.fix, shell=True, check=True)
        assert inventory.load(tmp_path).network == NETWORK  # the fix is one


def test_one_node_alone_has_no_company_to_differ_from():
    odd = cluster(octavia={"architecture": "x86_64", "addresses": DOCKER, "at": None})
    assert together.findings(NODES[:1], odd, NETWORK, HERE) == []


def test_names_that_do_not_resolve():
    [found] = pairs.findings(NODES, cluster(), ENDS, tried(aria_alice={"resolves": {"alice": []}}), NETWORK)
    assert (found.code, found.severity, found.nodes) == ("name-unresolved", "warning", ("aria",))
    assert "on aria the name alice does not resolve" in found.says
    assert found.fix.startswith("ssh -t pi@192.168.1.12 ") and "192.168.1.13 alice" in found.fix
    everywhere = {f"{a}_{b}": {"resolves": {b: []}} for a, b in PAIRS}
    [found] = pairs.findings(NODES, cluster(), ENDS, tried(**everywhere), NETWORK)
    assert found.nodes == ("octavia", "aria", "alice") and found.fix.count("tee -a /etc/hosts") == 3


def test_names_that_lead_elsewhere():
    wrong = tried(aria_alice={"resolves": {"alice": ["127.0.1.1"]}})
    [found] = pairs.findings(NODES, cluster(), ENDS, wrong, NETWORK)
    assert (found.code, found.severity, found.nodes) == ("name-elsewhere", "warning", ("aria",))
    assert "means 127.0.1.1, and it is at 192.168.1.13" in found.says and "192.168.1.13 alice" in found.fix


@pytest.mark.parametrize("tools, why, fix", [
    ([], "no answer", f"ssh -t pi@192.168.1.13 'sudo iptables -I INPUT -s {NETWORK} -j ACCEPT'"),
    (["ufw", "nft", "iptables"], "refused", f"ssh -t pi@192.168.1.13 'sudo ufw allow from {NETWORK}'"),
    (["firewall-cmd"], "refused", "firewall-cmd --permanent --zone=trusted"),
    (["nft"], "no answer", "sudo nft insert rule"),
    (["ufw"], "no route", "ssh -t pi@192.168.1.12 'sudo ip route replace 192.168.1.13 dev eth0'"),
    ([], "another computer answers", "ip neighbour show 192.168.1.13")])
def test_ports_that_are_blocked(tools, why, fix):
    facts = cluster(alice={"firewalls": tools})
    [found] = pairs.findings(NODES, facts, ENDS, tried(aria_alice={"port": why}), NETWORK)
    assert (found.code, found.severity, found.nodes) == ("port-blocked", "error", ("aria", "alice"))
    assert fix in found.fix and why in found.says


def test_a_pair_cut_both_ways_is_one_finding_and_a_closed_node_too():
    cut = tried(aria_alice={"port": "no answer"}, alice_aria={"port": "no route"})
    [found] = pairs.findings(NODES, cluster(), ENDS, cut, NETWORK)
    assert "alice and aria do not reach each other" in found.says and found.fix.startswith("ssh -t pi@192.168.1.13 ")
    closed = tried(aria_alice={"port": "refused"}, octavia_alice={"port": "refused"})
    [found] = pairs.findings(NODES, cluster(), ENDS, closed, NETWORK)
    assert found.nodes == ("alice",) and "no other node reaches alice's ports" in found.says


def test_nodes_that_fail_most_are_left_out_of_the_job_of_all():
    names = [node.name for node in NODES]
    assert pairs.together(names, tried()) == names
    cut = tried(aria_alice={"port": "refused"}, octavia_alice={"port": "refused"})
    assert pairs.together(names, cut) == ["octavia", "aria"]
    cut = tried(aria_alice={"port": "refused"})
    group = pairs.together(names, cut)
    assert len(group) == 2 and "octavia" in group
    assert pairs.open_pairs(names, cut) == [("octavia", "aria"), ("octavia", "alice")]


def test_a_left_out_node_has_a_job_of_its_own():
    cut = {("a", "b"): {"port": "refused"}, ("c", "d"): {"port": "refused"}}
    assert pairs.circle([("b", "c"), ("b", "d"), ("e", "b")], cut)[0] == "b"
    assert set(pairs.circle([("b", "c"), ("b", "d"), ("e", "b")], cut)) in ({"b", "c", "e"}, {"b", "d", "e"})
    assert pairs.circle([("c", "e")], cut) == ["c", "e"]


@pytest.mark.parametrize("count", [2, 3, 4, 5, 8])
def test_rounds_hold_every_pair_once_and_no_node_twice(count):
    names = [str(number) for number in range(count)]
    turns = pairs.rounds(pairs.open_pairs(names, {}))
    assert sorted(pair for turn in turns for pair in turn) == [(a, b) for a in names for b in names if a < b]
    assert all(len({name for pair in turn for name in pair}) == 2 * len(turn) for turn in turns)


@pytest.mark.parametrize("here, root, code, severity, fix", [
    (findings.Here(lacking="mpirun is not installed"), False, "mpirun-missing", "error", "make install"),
    (HERE, True, "root", "warning", "export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1"),
    (findings.Here(launcher=openmpi.OpenMPI4("4.1.4"), activation="source /x/bin/activate"), False, "not-activated",
     "warning", "source /x/bin/activate"),
    (findings.Here(launcher=openmpi.OpenMPI5("5.0.7")), False, "not-activated", "warning",
     "export OMPI_MCA_mca_base_env_list=PATH")])
def test_what_this_machine_lacks(here, root, code, severity, fix):
    [found] = pings.ready(here, many=True, root=root)
    assert (found.code, found.severity, found.nodes) == (code, severity, ()) and fix in found.fix


def test_one_machine_alone_needs_no_activation():
    assert pings.ready(findings.Here(launcher=openmpi.OpenMPI4("4.1.4")), many=False, root=False) == []
    assert pings.ready(findings.Here(launcher=hydra.Hydra("4.1")), many=True, root=True) == []


def test_users_that_plain_mpirun_does_not_log_in_as(tmp_path, monkeypatch):
    [found] = together.outsiders(NODES[:2])
    assert (found.code, found.severity, found.nodes) == ("user-unset", "warning", ("octavia", "aria"))
    (tmp_path / ".ssh").mkdir()
    subprocess.run(found.fix, shell=True, check=True, env={**os.environ, "HOME": str(tmp_path)})
    lines = "Host 192.168.1.11 192.168.1.12\n  User pi\nMatch all\n"
    assert (tmp_path / ".ssh/config").read_text() == lines
    subprocess.run(found.fix, shell=True, check=True, env={**os.environ, "HOME": str(tmp_path)})
    assert (tmp_path / ".ssh/config").read_text() == lines + lines


def test_mpi_that_fails_everywhere_is_one_finding():
    names = [node.name for node in NODES]
    every = {(a, b): "no daemon" for a, b in PAIRS if a < b}
    commands = dict.fromkeys(every, "mpirun …")
    [found] = pings.failures(every, commands, names)
    assert (found.code, found.severity, found.nodes) == ("mpi-fails", "error", tuple(names))
    assert "no daemon" in found.says
    [found] = pings.failures({("aria", "alice"): "no answer within 15 s"}, {("aria", "alice"): "mpirun …"}, names)
    assert found.nodes == ("aria", "alice") and "between aria and alice" in found.says


def examined(**more):
    """As from ``doctor.examine``."""
    measured = tried()
    for one in measured.values():
        one.update(latency=41.5, bandwidth=112.3)
    return {"nodes": NODES, "facts": cluster(), "pairs": measured, "findings": [], "can_run": True, "pinged": True,
            "ends": ENDS, "seconds": 9.7, **more}


def shown(found):
    out = io.StringIO()
    report.show(found, out)
    return out.getvalue()


def test_the_report_of_a_healthy_cluster():
    lines = shown(examined()).splitlines()
    assert lines[2].split() == ["octavia", "✓", "Open", "MPI", "4.1.6", "3.11.2", "0.1.0", "aarch64", "+3", "ms", "9",
                                "GiB", "61"]
    assert lines[-1] == "Jobs can run. (10 s)" and "Warning" not in "".join(lines)
    assert lines[-5].split() == ["octavia", "42", "/", "112", "42", "/", "112"]


def test_the_report_of_a_sick_one():
    facts = cluster()
    del facts["aria"]
    said = [findings.unreached(ARIA, "Connection refused", "", HERE), *together.outsiders(NODES[:1])]
    made = {pair: one for pair, one in tried(octavia_alice={"port": "no answer"}).items() if "aria" not in pair}
    made["alice", "octavia"]["failed"] = "no answer within 15 s"
    text = shown(examined(facts=facts, findings=said, can_run=False, pairs=made))
    lines = text.splitlines()
    assert lines[3].split()[:3] == ["aria", "✗", "ssh-refused"] and lines[2].split()[1] == "!"
    assert "[ssh-refused]\n    sudo systemctl enable --now ssh\n" in text
    assert "silent" in lines[-5] and "no MPI" in lines[-3]
    assert lines[-1].startswith("Jobs cannot run: 1 thing to mend.")


@pytest.mark.parametrize("width", [80, 120])
def test_the_report_fits_a_terminal(width, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("COLUMNS", str(width))
    nodes = [inventory.Node(name, f"10.0.0.{n}") for n, name in enumerate(NAMES)]
    made = {(a.name, b.name): {"port": None, "resolves": {}, "latency": 41.0, "bandwidth": 112.0}
            for a in nodes for b in nodes if a is not b}
    facts = {node.name: changed() for node in nodes}
    said = [findings.unreached(ARIA, "Host key verification failed.", "", HERE)]
    out = Terminal()
    report.show(examined(nodes=nodes, pairs=made, facts=facts, findings=said), out)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue()).splitlines()
    assert max(map(len, lines)) <= width and sum("41 / 112" in line for line in lines) == 5


def test_this_machine_alone_works(tmp_path):
    command = [sys.executable, "-m", "brmpi", "doctor", "--hostfiles", str(tmp_path)]
    done = subprocess.run([*command, "--json"], env=environment(), capture_output=True, text=True, timeout=60)
    told = json.loads(done.stdout)
    assert done.returncode == 0, done.stdout
    assert told["can_run"] and told["verdict"].startswith("Jobs can run.")
    [alone] = told["pairs"]
    assert alone["from"] == alone["to"] == told["nodes"][0]["name"] and 0 < alone["latency"] < 1e4
    assert not [one for one in told["findings"] if one["severity"] == "error"]
    assert told["nodes"][0]["facts"]["brmpi"]["digest"] == checkup.package()["digest"]


def test_without_mpirun_it_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(inventory, "is_local", lambda node: True)

    def lacking():
        raise doctor.BadInput("mpirun is not installed: make install")

    monkeypatch.setattr(mpirun, "installed", lacking)
    assert cli.main(["doctor", "--hostfiles", str(tmp_path)]) == 1
    assert "mpirun is not installed" in (out := capsys.readouterr().out) and "Jobs cannot run: 1 thing to mend." in out
    assert cli.main(["doctor", "--hostfiles", str(tmp_path), "--no-ping"]) == 0


def test_without_a_network_nodes_are_where_they_say_they_are():
    """Not at what their names mean here: on Debian a machine's own name means 127.0.1.1."""
    facts = cluster(**{name: {"at": None} for name in ENDS})
    assert together.ends(NODES, facts, None, lambda address: ["127.0.1.1"]) == ENDS
    wireless = [{"interface": "wlan0", "address": "10.0.0.2", "prefix": 24}, *facts["aria"]["addresses"]]
    facts["aria"]["addresses"] = wireless
    assert together.ends(NODES, facts, None, lambda address: ["10.0.0.2"]) == ENDS  # the others are not in that one
    assert together.ends(NODES, cluster(), NETWORK, lambda address: ["127.0.1.1"]) == ENDS


@pytest.mark.parametrize("meant, end", [
    (["127.0.1.1"], None), (["::1", "fe80::1%eth0", "0.0.0.0"], None), ([], None), (["fd00::2"], "fd00::2"),
    (["::1", "fd00::2", "127.0.1.1", "10.0.0.2"], "10.0.0.2")])
def test_no_peer_is_told_an_address_that_means_another_computer_there(meant, end):
    untold = {node.name: {"at": None, "addresses": None} for node in NODES}
    for network in (None, NETWORK):
        assert together.ends(NODES, cluster(**untold), network, lambda address: meant) == dict.fromkeys(ENDS, end)


def test_a_network_in_which_all_have_the_same_address_is_no_way_to_them():
    usb = {"interface": "usb0", "address": "10.55.0.1", "prefix": 24}
    facts = cluster(**{node.name: {"at": None, "addresses": [
        usb, {"interface": "eth0", "address": node.address, "prefix": 24}]} for node in NODES})
    nodes = [inventory.Node(node.name, node.name) for node in NODES]
    assert together.networks(nodes, facts) == [NETWORK] and together.ends(nodes, facts, None, lambda name: []) == ENDS


def test_peers_are_told_where_nodes_say_they_are(monkeypatch):
    asked = {}

    class Visit:
        def __init__(self, node, children):
            self.name = node.name

        def arrive(self, network, seconds):
            return cluster(**{name: {"at": None} for name in ENDS})[self.name]

        def ask(self, peers, seconds):
            asked[self.name] = {peer["name"]: peer["at"] for peer in peers}
            return [{"to": peer["name"], "resolves": {}, "port": None} for peer in peers]

        def leave(self):
            pass

    monkeypatch.setattr(visit, "Visit", Visit)
    monkeypatch.setattr(doctor.socket, "getaddrinfo", lambda *_, **__: [(2, 1, 6, "", ("127.0.1.1", 0))])
    nodes = [inventory.Node(node.name, node.name) for node in NODES]
    found = doctor.examine(nodes, inventory.Inventory(tuple(nodes)), Children(), 5, False, lambda text: None)
    assert asked == {a: {b: ENDS[b] for b in ENDS if b != a} for a in ENDS} and found["ends"] == ENDS


def test_without_an_address_a_check_up_listens_in_both_families():
    port = checkup.Listener("aria", "").port
    hosts = ["127.0.0.1"]
    with contextlib.suppress(OSError):  # no IPv6 here
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
        hosts.append("::1")
    for host in hosts:
        assert checkup.tried({"name": "aria", "address": host, "at": host, "port": port}, "", 2)["port"] is None


def test_no_ssh_is_one_finding(monkeypatch):
    class Visit(visit.Visit):
        def arrive(self, network, seconds):
            raise FileNotFoundError(2, "No such file or directory", "ssh")

    monkeypatch.setattr(visit, "Visit", Visit)
    found = doctor.examine(NODES, inventory.Inventory(tuple(NODES)), Children(), 5, False, lambda text: None)
    [one] = found["findings"]
    assert (one.code, one.severity, one.nodes) == ("ssh-missing", "error", tuple(ENDS))
    assert "ssh cannot be started here: No such file" in one.says


def test_a_check_up_tries_its_peers():
    listener = checkup.Listener("aria", "127.0.0.1")
    peer = {"name": "aria", "address": "localhost", "at": "127.0.0.1", "port": listener.port}
    answer = checkup.tried(peer, "", 2)
    assert answer["port"] is None and "127.0.0.1" in answer["resolves"]["localhost"] and answer["to"] == "aria"
    assert checkup.tried({**peer, "name": "alice"}, "", 2)["port"] == "another computer answers"
    listener.door.close()
    assert checkup.tried({**peer, "port": 1}, "127.0.0.1", 2)["port"] == "refused"
    assert checkup.tried({**peer, "at": "255.255.255.255"}, "", 2)["port"] in ("no route", "Network is unreachable")


def test_the_check_up_is_one_file_for_python_3_8():
    import ast

    tree = ast.parse(Path(checkup.__file__).read_text(), feature_version=(3, 8))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in names} - sys.stdlib_module_names == {"brmpi"}


def test_a_node_without_tools_tells_what_it_can(monkeypatch):
    def lacking(*command, seconds=3):
        raise probe.Lacking("not installed")

    monkeypatch.setattr(probe, "output", lacking)
    monkeypatch.setenv("PATH", "/nowhere")
    told = checkup.facts(probe)
    assert told["mpi"]["library"] is None and told["mpi"]["daemons"] == {} and told["python"]["bits"] == 64
    assert all(one["prefix"] is None for one in told["addresses"])


@pytest.mark.parametrize("network, at", [("192.168.1.0/24", "192.168.1.12"), ("10.0.0.0/8", None), (None, None),
                                         ("fd00::/64", None)])
def test_the_address_in_a_network(network, at):
    assert checkup.within(HEALTHY["addresses"], network) == at


def fake_ssh(folder, text):
    (folder / "bin").mkdir(exist_ok=True)
    (folder / "bin/ssh").write_text(f"#!/bin/sh\n{text}\n")
    (folder / "bin/ssh").chmod(0o755)


def test_a_visit_goes_on_through_greetings_and_ends_with_a_reason(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    children = Children()
    fake_ssh(tmp_path, 'echo "Welcome!"; for command; do :; done; eval "$command"')
    guest = visit.Visit(ARIA, children)
    facts = guest.arrive(None, 20)
    assert facts["python"]["bits"] == 64 and abs(facts["clock"]["offset"]) < 1000 and facts["port"]
    answer = guest.ask([{"name": "aria", "address": "localhost", "at": "127.0.0.1", "port": facts["port"]}], 2)
    assert [one["port"] for one in answer] == [None]
    guest.leave()
    for text, reason in (("echo 'Connection refused' >&2; exit 255", "Connection refused"), ("sleep 60", "no answer"),
                         ("for command; do :; done; PATH=/bin/none eval \"$command\"", "not found")):
        fake_ssh(tmp_path, text)
        guest = visit.Visit(ARIA, children)
        with pytest.raises(visit.NoVisit, match=reason):
            guest.arrive(None, 1.5)
        guest.leave()


@pytest.mark.parametrize("limit", ["0", "-1", "nan", "soon"])
def test_a_bad_limit_is_refused(tmp_path, capsys, limit):
    assert cli.main(["doctor", "--hostfiles", str(tmp_path), f"--timeout={limit}"]) == 2
    assert "--timeout" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_doctor_leaves_nothing_behind(tmp_path, number):
    fake_ssh(tmp_path, f"echo $$ >> {tmp_path}/pids; exec sleep 300")
    (tmp_path / "cluster.toml").write_text('[nodes.aria]\naddress = "192.0.2.77"\n')
    path = f"{tmp_path / 'bin'}{os.pathsep}{environment()['PATH']}"
    command = [sys.executable, "-m", "brmpi", "doctor", "--hostfiles", str(tmp_path), "--timeout", "60"]
    process = subprocess.Popen(command, env=environment() | {"PATH": path}, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL, start_new_session=True)
    limit = time.monotonic() + 10
    while not ((tmp_path / "pids").exists() and (tmp_path / "pids").read_text().strip()):
        assert time.monotonic() < limit and process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    assert process.wait(5) == (130 if number == signal.SIGINT else 143)
    pid = int((tmp_path / "pids").read_text().split()[0])
    limit = time.monotonic() + 5
    while Path(f"/proc/{pid}").exists() and time.monotonic() < limit:
        time.sleep(0.02)
    assert not Path(f"/proc/{pid}").exists()
