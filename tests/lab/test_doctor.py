"""The doctor among real hosts: each thing is broken for once, is named, and is mended by the fix that is shown."""

import contextlib
import inspect
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import sysconfig
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from brmpi.cluster import doctor as source
from brmpi.cluster import findings, pairs, pings, together

pytestmark = pytest.mark.timeout(180)
ROOT = Path(__file__).parents[2]
NAMES = ("octavia", "aria", "lucidia", "alice", "shellfish")
FROM = "shellfish"  # where the doctor is called


def doctor(lab, *arguments, cwd=None):
    """Exit code, and what it tells as JSON."""
    return told(lab.run(FROM, ["brmpi", "doctor", "--json", *arguments], timeout=90, cwd=cwd))


def told(done):
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def codes(found):
    """Nodes of each code."""
    return {one["code"]: set(one["nodes"]) for one in found["findings"]}


def fix(found, code):
    """The command that mends a code."""
    return next(one["fix"] for one in found["findings"] if one["code"] == code)


def ordered(names):
    """All pairs."""
    return {(a, b) for a in names for b in names if a != b}


def measured(found):
    """Pairs between which MPI worked."""
    return {(one["from"], one["to"]) for one in found["pairs"] if one.get("latency")}


def shell(lab, node, script):
    done = lab.run(node, ["bash", "-ec", script], cwd="/")
    assert done.returncode == 0, f"{node}: {script}: {done.stderr}"
    return done.stdout


def script(name, line):
    """What puts a program before the host's own, and what removes it."""
    return (f"printf '%s\\n' '#!/bin/sh' {shlex.quote(line)} >/usr/local/bin/{name}; chmod +x /usr/local/bin/{name}",
            f"rm -f /usr/local/bin/{name}")


@pytest.fixture
def broken(quick):
    """``broken(node, script, mending)``: run a script on a host, and another after the test."""
    with contextlib.ExitStack() as after:

        def apply(node, script, mending):
            after.callback(shell, quick, node, mending)
            shell(quick, node, script)

        yield apply


def test_a_healthy_cluster_is_proved_in_time(lab):
    start = time.monotonic()
    code, found = doctor(lab)
    assert time.monotonic() - start < 30
    assert (code, found["findings"]) == (0, []) and found["verdict"] == "Jobs can run."
    assert {(one["from"], one["to"]) for one in found["pairs"]} == ordered(NAMES)
    for one in found["pairs"]:
        assert one["port"] is None and all(one["resolves"].values())
        assert 0 < one["latency"] < 1e5 and 1 < one["bandwidth"] < 140  # a link of 1 Gbit/s


def test_every_way_of_not_getting_in(lab, broken):
    keys = "~/.ssh/known_hosts"
    broken(FROM, f"cp {keys} {keys}.good; known() {{ awk \"/$1/ {{print \\$3}}\" {keys}; }}; "
           f"sed -i -e \"/octavia/s|$(known octavia)|$(known alice)|\" -e /alice/d {keys}", f"mv {keys}.good {keys}")
    broken("aria", "mv ~/.ssh/authorized_keys ~/.ssh/away", "mv ~/.ssh/away ~/.ssh/authorized_keys")
    broken("lucidia", "kill $(cat /run/sshd.pid)", "/usr/sbin/sshd")
    code, found = doctor(lab, "--no-ping")
    assert code == 1 and len(found["findings"]) == 4
    assert codes(found) == {"host-key-changed": {"octavia"}, "key-refused": {"aria"}, "ssh-refused": {"lucidia"},
                           "host-key-unknown": {"alice"}}
    assert fix(found, "key-refused") == "ssh-copy-id pi@192.168.1.12"
    for trouble in ("host-key-changed", "host-key-unknown"):
        shell(lab, FROM, fix(found, trouble))
    code, found = doctor(lab, "octavia", "alice", FROM, "--no-ping")
    assert (code, found["findings"]) == (0, [])


def test_a_node_that_is_off_and_one_that_is_cut(quick):
    quick.crash("aria")
    quick.link("lucidia", "down")
    start = time.monotonic()
    code, found = doctor(quick)
    assert time.monotonic() - start < 30
    assert code == 1 and [one["code"] for one in found["findings"]] == ["unreachable"] * 2
    assert {name for one in found["findings"] for name in one["nodes"]} == {"aria", "lucidia"}
    assert measured(found) == ordered({*NAMES} - {"aria", "lucidia"})
    assert found["verdict"] == "Jobs cannot run: 2 things to mend."


@dataclass(frozen=True)
class Case:
    """One thing that is wrong, and all that the doctor is to say."""

    code: str
    severity: str
    breaks: tuple  # (node, (what breaks it, what undoes that))
    nodes: tuple = ("octavia",)  # that are named
    asked: tuple = ("octavia", FROM)  # that the doctor is asked about; all of the inventory if empty
    options: tuple = ("--no-ping",)
    inventory: str = ""  # not the lab's
    unset: tuple = ()  # variables
    mend: str = ""  # what is typed then, FIX for the fix that is shown; nothing where the lab has not what it needs
    place: str = FROM  # where it is typed


# stands for what a host of the lab has not, and computers have
SYSTEM = {"sudo": 'exec "$@"', "systemctl": '[ "$*" = "enable --now ssh" ] && exec /usr/sbin/sshd',
          "hostnamectl": '[ "$1" = set-hostname ] && exec hostname "$2"',
          "timedatectl": '[ "$*" = "set-ntp true" ] && exec rm /usr/local/bin/date', "make": '[ "$*" = install ]'}
KNOWN = "/root/.ssh/known_hosts"
DOCKER = ("ip link add docker0 type bridge; ip address add 172.17.0.1/16 dev docker0; ip link set docker0 up",
          "ip link del docker0")
ROOTS = ("OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM")


def hidden(*names):
    """What takes programs away that a host may have, and what brings them back."""
    names = " ".join(names)
    return (f"mkdir /opt/away; for name in {names}; do if place=$(type -P $name); then mv $place /opt/away; "
            "echo $place >/opt/away/$name.place; fi; done",
            f"for name in {names}; do rm -f /usr/local/bin/$name; if [ -e /opt/away/$name.place ]; then "
            "mv /opt/away/$name $(cat /opt/away/$name.place); fi; done; rm -r /opt/away")


def edited(path, edit):
    """What edits a file, and what undoes it."""
    return f"cp -p {path} {path}.good; sed -i {shlex.quote(edit)} {path}", f"mv {path}.good {path}"


def python(*lines):
    """What has Python on a host begin with some lines, and what undoes it."""
    path = f"{sysconfig.get_path('stdlib')}/sitecustomize.py"
    text = "".join(f"{line}\n" for line in ("import platform, struct, sys", "sys.dont_write_bytecode = True", *lines))
    return (f"mkdir /opt/site; mv {path} /opt/site/its 2>/dev/null || true; printf %s {shlex.quote(text)} >{path}",
            f"rm -f {path}; mv /opt/site/its {path} 2>/dev/null || true; rmdir /opt/site")


def version(number):
    """Another release of Python."""
    tag = "cpython-" + "".join(number.split(".")[:2])
    return python(f"platform.python_version = lambda: '{number}'", f"sys.implementation.cache_tag = '{tag}'")


def full(path, limit):
    """What leaves less space in a folder than a limit [MiB], as a run of 8 MiB is there, and what undoes it."""
    kept = [place for place in dict.fromkeys((str(ROOT), sys.prefix, sys.base_prefix)) if place.startswith(f"{path}/")]
    keep = "".join(f"mkdir -p {place}; mount --rbind /mnt/kept{place.removeprefix(path)} {place}; " for place in kept)
    return (f"mkdir -p /mnt/full /mnt/kept; mount --rbind {path} /mnt/kept; "
            f"mount -t tmpfs -o size={limit + 4}m,mode=700 full /mnt/full; "
            f"if [ -d {path}/.ssh ]; then cp -a {path}/.ssh /mnt/full; fi; mkdir /mnt/full/old; "
            f"head -c 8M /dev/zero >/mnt/full/old/run; mount --bind /mnt/full {path}; {keep}",
            f"umount -l {path} /mnt/full /mnt/kept")


def checkout(change):
    """What gives a host a checkout on its own disk, changed, with the environment that all share; and its undoing."""
    files = f"git -C {ROOT} -c safe.directory={ROOT} ls-files -z --cached --others --exclude-standard"
    return (f"mkdir -p /mnt/venv /mnt/own; mount --bind {sys.prefix} /mnt/venv; {files} | rsync -a --from0 "
            f"--files-from=- --ignore-missing-args {ROOT}/ /mnt/own/; cd /mnt/own; {change}; cd /; "
            f"mount --bind /mnt/own {ROOT}; mkdir -p {sys.prefix}; mount --bind /mnt/venv {sys.prefix}",
            f"umount {sys.prefix} {ROOT} /mnt/venv; rm -r --one-file-system /mnt/own")


def inventory(octavia='address = "192.168.1.11"', network='network = "192.168.1.0/24"'):
    """Two nodes."""
    return f'[cluster]\nuser = "pi"\n{network}\n[nodes.{FROM}]\naddress = "192.168.1.15"\n[nodes.octavia]\n{octavia}\n'


CASES = (
    # getting in
    Case("ssh-missing", "error", ((FROM, hidden("ssh")),)),
    Case("address-unresolved", "error", (), inventory=inventory('address = "nowhere"'),
         mend="export EDITOR='sed -i s/nowhere/octavia/'; FIX"),
    Case("ssh-refused", "error", (("octavia", (
        "kill $(cat /run/sshd.pid)", "kill -0 $(cat /run/sshd.pid) 2>/dev/null || /usr/sbin/sshd")),),
         mend="FIX", place="octavia"),
    Case("key-refused", "error", (("octavia", edited("/root/.ssh/authorized_keys", "s/.*//")),)),
    Case("host-key-unknown", "error", ((FROM, edited(KNOWN, "/octavia/d")),), mend="FIX"),
    Case("host-key-changed", "error", ((FROM, (
        f"cp {KNOWN} {KNOWN}.good; key() {{ awk \"/$1/ {{print \\$3}}\" {KNOWN}; }}; "
        f"sed -i \"/octavia/s|$(key octavia)|$(key alice)|\" {KNOWN}", f"mv {KNOWN}.good {KNOWN}")),), mend="FIX"),
    Case("visit-failed", "error", (("octavia", edited("/etc/passwd", "/^pi:/s|[^:]*$|/usr/sbin/nologin|")),)),
    # Python
    Case("python-missing", "error", (), inventory=inventory('address = "192.168.1.11"\npython = "/opt/none/python"')),
    Case("python-old", "error", (("octavia", version("3.9.2")),)),
    Case("python-differs", "warning", (("octavia", version("3.12.1")),), asked=("octavia", "aria", FROM)),
    Case("32-bit", "error", (("octavia", python(
        "size = struct.calcsize", "struct.calcsize = lambda kind: 4 if kind == 'P' else size(kind)")),)),
    Case("byte-order", "error", (("octavia", python("sys.byteorder = 'big'")),), inventory=inventory(),
         mend="export EDITOR='sed -i /octavia/,+1d'; FIX"),
    # brmpi and MPI
    Case("brmpi-missing", "error", (("octavia", checkout("rm -r brmpi")),), mend="FIX"),
    Case("brmpi-differs", "error", (("octavia", checkout("sed -i s/^__version__.*/__version__='\"0\"'/ "
                                                         "brmpi/__init__.py")),), mend="FIX"),
    Case("mpi-missing", "error", (("octavia", hidden("mpirun", "orted", "prted", "hydra_pmi_proxy")),)),
    Case("mpi-differs", "error", (("octavia", script("mpirun", 'echo "mpirun (Open MPI) 5.0.7"')),)),
    Case("daemon-not-found", "error", (("octavia", hidden("orted")),), mend="FIX"),
    Case("mpirun-missing", "error", ((FROM, hidden("mpirun")),), nodes=(), asked=(FROM,), options=()),
    Case("root", "warning", (), nodes=(), asked=(FROM,), options=(), unset=ROOTS, mend="FIX"),
    Case("not-activated", "warning", (), nodes=(), asked=(FROM,), options=(), unset=("OMPI_MCA_orte_launch_agent",),
         mend="FIX"),
    Case("user-unset", "warning", ((FROM, (
        "printf 'Host 192.168.1.11\\n  User nobody-there\\n' >~/.ssh/config", "rm ~/.ssh/config")),), mend="FIX"),
    # the computer
    Case("clock", "warning", (("octavia", script("date", 'exec /bin/date -d "+5 seconds" "$@"')),), mend="FIX"),
    Case("disk-full", "error", (("octavia", full("/tmp", 16)),),
         mend="FIX | grep /tmp/old && ssh pi@192.168.1.11 rm -r /tmp/old"),
    Case("disk-low", "warning", (("octavia", full("/root", 1024)),),
         mend="FIX | grep /root/old && ssh pi@192.168.1.11 rm -r /root/old"),
    Case("hot", "warning", (("octavia", (
        "mount -t tmpfs none /sys/class; cd /sys/class; mkdir -p thermal/thermal_zone0; cd thermal/thermal_zone0; "
        "echo cpu-thermal >type; echo 85000 >temp", "umount /sys/class")),)),
    Case("throttled", "warning", (("octavia", script("vcgencmd", "echo throttled=0x50005")),)),
    Case("page-size", "warning", (
        ("octavia", python("import os", "ask = os.sysconf",
                           "os.sysconf = lambda name: 16384 if name == 'SC_PAGE_SIZE' else ask(name)")),
        ("octavia", script("redis-server", 'echo "<jemalloc>: Unsupported system page size"; exit 1')))),
    Case("same-hostname", "error", (("aria", ("hostname octavia", "hostname aria")),), nodes=("octavia", "aria"),
         asked=("octavia", "aria", FROM), mend="FIX"),
    Case("mixed-architectures", "warning", (("octavia", python(
        "other = 'x86_64' if platform.machine() == 'aarch64' else 'aarch64'", "platform.machine = lambda: other")),),
         asked=("octavia", "aria", FROM)),
    # the network
    Case("no-address", "error", (), inventory=inventory('roles = ["compute"]', 'network = "192.168.1.12/30"'), asked=(),
         mend="FIX | grep 192.168.1.11; sed -i s,12/30,0/24, /shared/case.toml"),
    Case("network-unset", "warning", tuple((name, (
        f"ip address add 10.77.1.{end}/24 dev eth0", f"ip address del 10.77.1.{end}/24 dev eth0"))
        for name, end in (("octavia", 11), (FROM, 15))), nodes=(FROM, "octavia"), inventory=inventory(network=""),
         mend="FIX"),
    Case("stray-interface", "warning", (("octavia", DOCKER),), mend="FIX"),
    Case("name-unresolved", "warning", (("octavia", edited("/etc/hosts", "/shellfish/d")),), mend="FIX"),
    Case("name-elsewhere", "warning", (("octavia", edited("/etc/hosts", "s/.*shellfish/192.168.1.99 shellfish/")),),
         mend="FIX"),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.code)
def test_one_thing_that_is_wrong(quick, broken, case):
    for node, pair in case.breaks:
        broken(node, *pair)
    command = ["brmpi", "doctor", "--json", *case.options]
    if case.inventory:
        (quick.shared / "case.toml").write_text(case.inventory)
        command += ["--inventory", "/shared/case.toml"]
    else:
        command += case.asked
    bare = ["env", *(part for name in case.unset for part in ("-u", name))]
    code, found = told(quick.run(FROM, [*bare, *command]))
    assert [(one["code"], one["severity"], one["nodes"]) for one in found["findings"]] == [
        (case.code, case.severity, [*case.nodes])], found["findings"]
    assert code == (case.severity == "error") and found["can_run"] == (code == 0)
    if not case.mend:
        return
    for node in {"octavia", *case.asked}:
        broken(node, *map("; ".join, zip(*(script(name, line) for name, line in SYSTEM.items()))))
    typed = case.mend.replace("FIX", fix(found, case.code))
    if case.place != FROM:
        shell(quick, case.place, typed)
        typed = ":"
    code, found = told(quick.run(FROM, [*bare, "bash", "-ec", f"{{ {typed}\n}} >&2; exec {shlex.join(command)}"]))
    assert (code, found["findings"]) == (0, [])


def test_without_a_network_a_name_may_mean_the_machine_itself(quick, broken):
    """As Debian has it: on each machine its own name means 127.0.1.1."""
    for name in ("octavia", FROM):
        broken(name, *edited("/etc/hosts", f"s/.*{name}$/127.0.1.1 {name}/"))
    text = f'[cluster]\nuser = "pi"\n[nodes.{FROM}]\n[nodes.octavia]\n'
    (quick.shared / "case.toml").write_text(text)
    code, found = doctor(quick, "--no-ping", "--inventory", "/shared/case.toml")
    assert (code, found["findings"]) == (0, [])
    assert all(one["port"] is None for one in found["pairs"]) and len(found["pairs"]) == 2


def test_a_cut_pair_is_named_and_mended_and_all_others_are_measured(lab, broken):
    broken("aria", "ip route add prohibit 192.168.1.13", "ip route del 192.168.1.13 2>/dev/null || true")
    broken("aria", *script("sudo", SYSTEM["sudo"]))
    code, found = doctor(lab)
    assert code == 1 and codes(found) == {"port-blocked": {"aria", "lucidia"}}
    failed = {(one["from"], one["to"]): one["port"] for one in found["pairs"] if one["port"] is not None}
    assert set(failed) == {("aria", "lucidia"), ("lucidia", "aria")} and failed["aria", "lucidia"] == "no route"
    assert measured(found) == ordered(NAMES) - set(failed)
    shell(lab, FROM, fix(found, "port-blocked"))
    code, found = doctor(lab, "aria", "lucidia", "--no-ping")
    assert (code, found["findings"]) == (0, [])


def test_where_the_job_of_all_fails_pairs_tell_which_node_it_was(lab, broken):
    place = shell(lab, "alice", "/usr/bin/python3 -c 'import mpi4py; print(mpi4py.__path__[0])'").strip()
    broken("alice", f"mount -t tmpfs none {place}", f"umount {place}")
    code, found = doctor(lab, "octavia", "alice", FROM)
    assert code == 1 and {one["code"] for one in found["findings"]} == {"mpi-fails"}
    assert sorted(one["nodes"] for one in found["findings"]) == [["alice", FROM], ["octavia", "alice"]]
    assert measured(found) == {("octavia", FROM), (FROM, "octavia")}


def test_from_a_machine_that_is_no_node(quick):
    inventory = quick.shared / "two.toml"
    nodes = "".join(f'[nodes.{name}]\naddress = "192.168.1.{end}"\n' for name, end in (("octavia", 11), ("aria", 12)))
    inventory.write_text(f'[cluster]\nnetwork = "192.168.1.0/24"\nuser = "pi"\n{nodes}')
    code, found = doctor(quick, "--inventory", "/shared/two.toml")
    assert code == 0 and measured(found) == {("octavia", "aria"), ("aria", "octavia")}


def test_what_the_inventory_has_wrong(quick):
    (quick.shared / "wrong.toml").write_text(
        '[cluster]\nnetwork = "10.9.0.0/16"\nuser = "pi"\n[nodes.octavia]\n[nodes.shellfish]\n[nodes.alice]\n'
        'python = "/opt/nothing/python"\n[nodes.nowhere]\n')
    code, found = doctor(quick, "--inventory", "/shared/wrong.toml", "--no-ping")
    assert code == 1
    assert codes(found)["python-missing"] == {"alice"} and codes(found)["address-unresolved"] == {"nowhere"}
    assert [one["nodes"] for one in found["findings"] if one["code"] == "no-address"] == [["octavia"], ["shellfish"]]


@pytest.mark.parametrize("meanwhile", ["import sys; exec(sys.stdin", "brmpi.bench.pingpong"])
def test_an_interrupted_doctor_leaves_nothing_on_any_node(quick, meanwhile):
    """While nodes answer, while MPI runs."""
    before = {name: len(quick.pids(name)) for name in NAMES}
    job = quick.start(FROM, ["brmpi", "doctor"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    end = time.monotonic() + 30
    while not any(meanwhile in command(process) for process in quick.pids("alice")):
        assert job.poll() is None and time.monotonic() < end
        time.sleep(0.01)
    os.kill(min(process for process in quick.pids(FROM) if command(process).endswith("/brmpi doctor")), signal.SIGINT)
    assert job.wait(10) == 130
    end = time.monotonic() + 10
    while any(len(quick.pids(name)) > before[name] for name in NAMES) and time.monotonic() < end:
        time.sleep(0.1)
    assert {name: len(quick.pids(name)) for name in NAMES} == before


def command(process):
    """Of a process, its words."""
    try:
        return Path(f"/proc/{process}/cmdline").read_text().replace("\0", " ").strip()
    except OSError:
        return ""


ELSEWHERE = {"unreachable": test_a_node_that_is_off_and_one_that_is_cut,
             "port-blocked": test_a_cut_pair_is_named_and_mended_and_all_others_are_measured,
             "mpi-fails": test_where_the_job_of_all_fails_pairs_tell_which_node_it_was}


def test_every_diagnosis_is_in_the_manual_and_is_tested():
    written = dict(re.findall(r"^\| `([\w-]+)` \| (\w+) \|", (ROOT / "docs/doctor.md").read_text(), re.M))
    assert dict.fromkeys(ELSEWHERE, "error") | {case.code: case.severity for case in CASES} == written
    for code, test in ELSEWHERE.items():
        assert f'"{code}"' in inspect.getsource(test)
    text = "".join(Path(module.__file__).read_text() for module in (source, findings, pairs, pings, together))
    made = set(re.findall(r'(?:error|warning)\(\s*"([\w-]+)"', text)) | {row[1] for row in findings.UNREACHED}
    assert made == set(written)
