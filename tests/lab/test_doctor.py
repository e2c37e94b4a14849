"""The doctor among real hosts: each thing is broken for once, is named, and is mended by the fix that is shown."""

import contextlib
import json
import time

import pytest

pytestmark = pytest.mark.timeout(180)
NAMES = ("octavia", "aria", "lucidia", "alice", "shellfish")
FROM = "shellfish"  # where the doctor is called


def doctor(lab, *arguments, cwd=None):
    """Exit code, and what it tells as JSON."""
    done = lab.run(FROM, ["brmpi", "doctor", "--json", *arguments], timeout=90, cwd=cwd)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def codes(told):
    """Nodes of each code."""
    return {one["code"]: set(one["nodes"]) for one in told["findings"]}


def fix(told, code):
    """The command that mends a code."""
    return next(one["fix"] for one in told["findings"] if one["code"] == code)


def ordered(names):
    """All pairs."""
    return {(a, b) for a in names for b in names if a != b}


def measured(told):
    """Pairs between which MPI worked."""
    return {(one["from"], one["to"]) for one in told["pairs"] if one.get("latency")}


def shell(lab, node, script):
    done = lab.run(node, ["bash", "-ec", script], cwd="/")
    assert done.returncode == 0, f"{node}: {script}: {done.stderr}"
    return done.stdout


def script(name, line):
    """What puts a program before the host's own."""
    return f"printf '%s\\n' '#!/bin/sh' '{line}' >/usr/local/bin/{name}; chmod +x /usr/local/bin/{name}"


SUDO = script("sudo", 'exec "$@"')  # of a lab, where everybody is root


@pytest.fixture
def broken(lab):
    """``broken(node, script, mending)``: run a script on a host, and another after the test."""
    with contextlib.ExitStack() as after:

        def apply(node, script, mending):
            after.callback(shell, lab, node, mending)
            shell(lab, node, script)

        yield apply


def test_a_healthy_cluster_is_proved_in_time(lab):
    start = time.monotonic()
    code, told = doctor(lab)
    assert time.monotonic() - start < 30
    assert (code, told["findings"]) == (0, []) and told["verdict"] == "Jobs can run."
    assert {(one["from"], one["to"]) for one in told["pairs"]} == ordered(NAMES)
    for one in told["pairs"]:
        assert one["port"] is None and all(one["resolves"].values())
        assert 0 < one["latency"] < 1e5 and 1 < one["bandwidth"] < 140  # a link of 1 Gbit/s


def test_every_way_of_not_getting_in(lab, broken):
    keys = "~/.ssh/known_hosts"
    broken(FROM, f"cp {keys} {keys}.good; known() {{ awk \"/$1/ {{print \\$3}}\" {keys}; }}; "
           f"sed -i -e \"/octavia/s|$(known octavia)|$(known alice)|\" -e /alice/d {keys}", f"mv {keys}.good {keys}")
    broken("aria", "mv ~/.ssh/authorized_keys ~/.ssh/away", "mv ~/.ssh/away ~/.ssh/authorized_keys")
    broken("lucidia", "kill $(cat /run/sshd.pid)", "/usr/sbin/sshd")
    code, told = doctor(lab, "--no-ping")
    assert code == 1 and len(told["findings"]) == 4
    assert codes(told) == {"host-key-changed": {"octavia"}, "key-refused": {"aria"}, "ssh-refused": {"lucidia"},
                           "host-key-unknown": {"alice"}}
    assert fix(told, "key-refused") == "ssh-copy-id pi@192.168.1.12"
    for trouble in ("host-key-changed", "host-key-unknown"):
        shell(lab, FROM, fix(told, trouble))
    code, told = doctor(lab, "octavia", "alice", FROM, "--no-ping")
    assert (code, told["findings"]) == (0, [])


def test_a_node_that_is_off_and_one_that_is_cut(lab):
    lab.crash("aria")
    lab.link("lucidia", "down")
    start = time.monotonic()
    code, told = doctor(lab)
    assert time.monotonic() - start < 30
    assert code == 1 and [one["code"] for one in told["findings"]] == ["unreachable"] * 2
    assert {name for one in told["findings"] for name in one["nodes"]} == {"aria", "lucidia"}
    assert measured(told) == ordered({*NAMES} - {"aria", "lucidia"})
    assert told["verdict"] == "Jobs cannot run: 2 things to mend."


def test_what_is_wrong_on_a_node(lab, broken):
    docker = "ip link add docker0 type bridge && ip address add 172.17.0.1/16 dev docker0 && ip link set docker0 up"
    place = lab.run("lucidia", ["python", "-c", "import brmpi; print(brmpi.__file__)"]).stdout.strip()
    broken("octavia", "mkdir /opt/mpi; mv /usr/bin/orted /opt/mpi",
           "mv /opt/mpi/orted /usr/bin; rm -f /usr/local/bin/orted")
    broken("octavia", "mkdir /mnt/home; mount -t tmpfs -o size=8m,mode=700 full /mnt/home; cp -a /root/.ssh /mnt/home; "
           "mount --bind /mnt/home /root", "umount /root /mnt/home")
    broken("aria", script("mpirun", 'echo "mpirun (Open MPI) 5.0.7"'), "rm /usr/local/bin/mpirun")
    broken("aria", "cp /etc/hosts /etc/hosts.good; sed -i -e /alice/d -e s/.11.octavia/'.99 octavia'/ /etc/hosts",
           "cp /etc/hosts.good /etc/hosts")
    broken("lucidia", f"sed s/__version__.*/__version__='\"0\"'/ {place} >/tmp/other; mount --bind /tmp/other {place}",
           f"umount {place}")
    broken("alice", script("date", 'exec /bin/date -d "+5 seconds" "$@"'), "rm /usr/local/bin/date")
    for name in ("lucidia", "alice"):
        broken(name, docker, "ip link del docker0")
    broken(FROM, "printf 'Host 192.168.1.14\\n  User nobody-there\\n' >~/.ssh/config", "rm ~/.ssh/config")
    code, told = doctor(lab, "--no-ping")
    assert code == 1
    wrong = {"daemon-not-found": "octavia", "disk-full": "octavia", "mpi-differs": "aria", "name-unresolved": "aria",
             "name-elsewhere": "aria", "brmpi-differs": "lucidia", "clock": "alice", "user-unset": "alice"}
    expected = {trouble: {name} for trouble, name in wrong.items()} | {"stray-interface": {"lucidia", "alice"}}
    assert codes(told) == expected and len(told["findings"]) == 9
    mendable = {"name-unresolved", "name-elsewhere", "daemon-not-found", "user-unset"}
    for name in ("octavia", "aria"):
        shell(lab, name, SUDO)
    for trouble in mendable:
        shell(lab, FROM, fix(told, trouble))
    variables = fix(told, "stray-interface").removeprefix("export ")
    mended = dict(word.split("=") for word in variables.split())
    done = lab.run(FROM, ["brmpi", "doctor", "--json", "--no-ping"], timeout=60, env=mended)
    assert set(codes(json.loads(done.stdout))) == {*wrong} - mendable


def test_a_cut_pair_is_named_and_mended_and_all_others_are_measured(lab, broken):
    broken("aria", "ip route add prohibit 192.168.1.13", "ip route del 192.168.1.13 2>/dev/null || true")
    shell(lab, "aria", SUDO)
    code, told = doctor(lab)
    assert code == 1 and codes(told) == {"port-blocked": {"aria", "lucidia"}}
    failed = {(one["from"], one["to"]): one["port"] for one in told["pairs"] if one["port"] is not None}
    assert set(failed) == {("aria", "lucidia"), ("lucidia", "aria")} and failed["aria", "lucidia"] == "no route"
    assert measured(told) == ordered(NAMES) - set(failed)
    shell(lab, FROM, fix(told, "port-blocked"))
    code, told = doctor(lab, "aria", "lucidia", "--no-ping")
    assert (code, told["findings"]) == (0, [])


def test_where_the_job_of_all_fails_pairs_tell_which_node_it_was(lab, broken):
    place = shell(lab, "alice", "/usr/bin/python3 -c 'import mpi4py; print(mpi4py.__path__[0])'").strip()
    broken("alice", f"mount -t tmpfs none {place}", f"umount {place}")
    code, told = doctor(lab, "octavia", "alice", FROM)
    assert code == 1 and {one["code"] for one in told["findings"]} == {"mpi-fails"}
    assert sorted(one["nodes"] for one in told["findings"]) == [["alice", FROM], ["octavia", "alice"]]
    assert measured(told) == {("octavia", FROM), (FROM, "octavia")}


def test_from_a_machine_that_is_no_node(lab):
    inventory = lab.shared / "two.toml"
    nodes = "".join(f'[nodes.{name}]\naddress = "192.168.1.{end}"\n' for name, end in (("octavia", 11), ("aria", 12)))
    inventory.write_text(f'[cluster]\nnetwork = "192.168.1.0/24"\nuser = "pi"\n{nodes}')
    code, told = doctor(lab, "--inventory", "/shared/two.toml")
    assert code == 0 and measured(told) == {("octavia", "aria"), ("aria", "octavia")}


def test_what_the_inventory_has_wrong(lab):
    (lab.shared / "wrong.toml").write_text(
        '[cluster]\nnetwork = "10.9.0.0/16"\nuser = "pi"\n[nodes.octavia]\n[nodes.shellfish]\n[nodes.alice]\n'
        'python = "/opt/nothing/python"\n[nodes.nowhere]\n')
    code, told = doctor(lab, "--inventory", "/shared/wrong.toml", "--no-ping")
    assert code == 1
    assert codes(told)["python-missing"] == {"alice"} and codes(told)["address-unresolved"] == {"nowhere"}
    assert [one["nodes"] for one in told["findings"] if one["code"] == "no-address"] == [["octavia"], ["shellfish"]]


def test_an_interrupted_doctor_leaves_nothing_on_any_node(lab):
    before = {name: len(lab.pids(name)) for name in NAMES}
    for seconds in ("1.5", "7"):  # while nodes answer, while MPI runs
        assert lab.run(FROM, ["timeout", "-s", "INT", seconds, "brmpi", "doctor"]).returncode == 124
        end = time.monotonic() + 10
        while any(len(lab.pids(name)) > before[name] for name in NAMES) and time.monotonic() < end:
            time.sleep(0.1)
        assert {name: len(lab.pids(name)) for name in NAMES} == before
