"""The lab: hosts that are apart, held to their speeds, and gone without a trace."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from brmpi.cluster import inventory, labplan
from brmpi.cluster.lab import STATE, Lab
from brmpi.errors import BadInput

ROOT = Path(__file__).parents[2]
NAMES = ("octavia", "aria", "lucidia", "alice", "shellfish")
TWO = """
[nodes.left]
address = "10.9.0.1"
[nodes.right]
[lab.left]
cpu = 40
[lab.right]
cpu = 20
memory = 0.3
link = 100
"""


def traces():
    """All that a lab could leave behind on this machine."""
    processes = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if b"labinit" in command or b"-E /var/log/sshd.log" in command:  # not whoever logs in to this machine
            processes.add((folder.name, command))
    spaces = subprocess.run(["lsns", "--noheadings", "--output", "NS,TYPE"], capture_output=True, text=True).stdout
    own = [Path("/etc/hosts"), Path("/etc/passwd"), *Path("/etc/ssh").rglob("*"), *Path.home().glob(".ssh/*")]
    groups = {str(path) for path in Path("/sys/fs/cgroup").glob("**/*brmpi-lab*")}
    return {"processes": processes, "groups": groups, "namespaces": {(*line.split(),) for line in spaces.splitlines()},
            "mounts": Path("/proc/self/mounts").read_text(), "interfaces": set(Path("/sys/class/net").iterdir()),
            "state": set(STATE.iterdir()) if STATE.exists() else set(), "names": set(Path("/run").glob("netns/*")),
            "files": {(str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in own if path.exists()}}


def settled(before, seconds=5):
    """What has come since and stays, once the kernel has cleaned up; of mounts, all that has changed."""
    end = time.monotonic() + seconds
    while left := _more(before, traces()):
        if time.monotonic() > end:
            return left
        time.sleep(0.05)
    return {}


def _more(before, after):
    # other hosts' processes, and so their namespaces, may have ended meanwhile
    more = {key: after[key] - before[key] for key in before if key != "mounts"}
    more["mounts"] = "" if after["mounts"] == before["mounts"] else after["mounts"]
    return {key: found for key, found in more.items() if found}


@pytest.fixture
def two(tmp_path):
    file = tmp_path / "two.toml"
    file.write_text(TWO)
    return file


def brmpi(*words, **options):
    return subprocess.run([sys.executable, "-m", "brmpi", *map(str, words)], capture_output=True, text=True, timeout=60,
                          stdin=subprocess.DEVNULL, **options)


def test_hosts_are_apart(lab):
    for number, name in enumerate(NAMES, 11):
        script = "hostname; ip -4 -o address show eth0; ls /proc | grep -c '^[0-9]'"
        told = lab.run(name, ["sh", "-c", script])
        assert told.stdout.split()[0] == name and f"192.168.1.{number}" in told.stdout, told
        assert int(told.stdout.split()[-1]) < 10, "a host sees its own processes only"
    for place in ("/root/mine", "/etc/mine", "/tmp/mine", "/var/mine"):
        assert lab.run("aria", ["touch", place]).returncode == 0
        assert lab.run("alice", ["test", "-e", place]).returncode == 1, place
        assert not Path(place).exists(), "this machine's files stay as they are"
    assert lab.run("aria", ["sh", "-c", "echo all > /shared/ours"]).returncode == 0
    assert lab.run("alice", ["cat", "/shared/ours"]).stdout == "all\n"
    assert (lab.shared / "ours").read_text() == "all\n"


def test_python_and_checkout_are_at_their_own_place(lab):
    told = lab.run("lucidia", ["python", "-c", "import brmpi, sys; print(brmpi.__file__, sys.prefix)"], cwd="/")
    assert told.stdout.split() == [str(ROOT / "brmpi/__init__.py"), sys.prefix], told.stderr
    assert lab.run("lucidia", ["pwd"], cwd=ROOT).stdout.strip() == str(ROOT)


def test_own_hostfiles(lab):
    """Hosts write their probes and hostfiles to a folder of the lab, not into the person's."""
    assert lab.run("aria", ["touch", ROOT / "hostfiles/from-aria"]).returncode == 0
    assert lab.run("alice", ["ls", ROOT / "hostfiles"]).stdout.split().count("from-aria") == 1
    assert not (ROOT / "hostfiles/from-aria").exists()
    hostfile = lab.run("alice", ["cat", ROOT / "hostfiles/all"]).stdout
    assert [line for line in hostfile.splitlines() if not line.startswith("#")] == [
        f"192.168.1.{11 + i} slots=1" for i in range(5)]


def test_every_pair_has_ssh_with_keys_only(quick):
    lab = quick
    for name in NAMES:
        script = "for h in " + " ".join(NAMES) + "; do ssh -o BatchMode=yes pi@$h hostname || exit 1; done"
        told = lab.run(name, ["sh", "-c", script])
        assert told.stdout.split() == list(NAMES), told
    refused = lab.run("aria", ["ssh", "-o", "BatchMode=yes", "-o", "PubkeyAuthentication=no", "alice", "true"])
    assert refused.returncode == 255 and "Permission denied" in refused.stderr
    keys = {lab.run("aria", ["ssh-keyscan", "-t", "ed25519", name]).stdout.split()[-1] for name in NAMES}
    assert len(keys) == len(NAMES), "every host has a key of its own"
    told = lab.run("aria", ["ssh", "alice", "env"]).stdout
    assert "OMPI_ALLOW_RUN_AS_ROOT=1" in told and "PRTE_ALLOW_RUN_AS_ROOT_CONFIRM=1" in told


def share(lab, node):
    """Part of a core that a busy loop of about half a second gets on a host: the most of three tries."""
    loop = """if True:
        import time
        wall, cpu = time.perf_counter(), time.process_time()
        while time.perf_counter() - wall < 0.5:
            sum(range(10_000))
        print((time.process_time() - cpu) / (time.perf_counter() - wall))"""
    return max(float(lab.run(node, ["python", "-S", "-c", loop]).stdout) for _ in range(3))


def test_shares_of_a_core(lab):
    """A busy loop gets its host's share of a core and no more, and hosts see their limit."""
    for name, percent in (("octavia", 30), ("aria", 12)):
        assert 0.8 * percent < 100 * share(lab, name) < 1.2 * percent, name
    quota = "from brmpi.cluster import probe; print(probe.quota(), probe.ram()['limit'])"
    assert lab.run("octavia", ["python", "-c", quota]).stdout.split() == ["0.3", "8000000000"]
    lab.cpu("aria", 60)
    assert 48 < 100 * share(lab, "aria") < 72
    lab.cpu("aria", 12)
    assert 100 * share(lab, "aria") < 14.4


def test_memory_limit(two):
    with Lab(two, f"memory-{os.getpid()}") as small:
        code = "x = bytearray(500_000_000); print('held')"
        assert small.run("right", ["python3", "-c", code]).returncode == -signal.SIGKILL
        assert small.run("left", ["python3", "-c", code]).stdout == "held\n"
        small.memory("right", 2)
        assert small.run("right", ["python3", "-c", code]).stdout == "held\n"


SEND = """
import socket, sys, time
if sys.argv[1] == "take":
    door = socket.create_server(("", 5555))
    print("open", flush=True)
    peer, _ = door.accept()
    while peer.recv(1 << 20):
        pass
else:
    peer = socket.create_connection((sys.argv[1], 5555))
    block, start, sent = bytes(1 << 16), time.perf_counter(), 0
    while time.perf_counter() - start < 1.5:
        sent += peer.send(block)
    peer.close()
    print(8e-6 * sent / (time.perf_counter() - start))
"""


def test_link_rate(lab):
    for name in ("octavia", "shellfish"):
        lab.cpu(name, 100)
    rates = []
    for rate in (1000, 100):
        lab.link("octavia", rate)
        taker = lab.start("octavia", ["python", "-S", "-c", SEND, "take"], stdout=subprocess.PIPE, text=True)
        assert taker.stdout.readline() == "open\n"
        rates.append(float(lab.run("shellfish", ["python", "-S", "-c", SEND, "192.168.1.11"]).stdout))
        assert taker.wait(20) == 0
    lab.link("octavia", 1000)
    lab.cpu("octavia", 30)
    lab.cpu("shellfish", 60)
    assert 80 < rates[1] < 120 and 400 < rates[0] < 1100, rates


def test_cut_and_mended_link(lab):
    ping = ["python", "-S", "-c", "import socket; socket.create_connection(('alice', 22), timeout=1)"]
    assert lab.run("aria", ping).returncode == 0
    lab.link("alice", "down")
    assert lab.run("aria", ping).returncode != 0
    assert {row["node"]: row["state"] for row in lab.status()}["alice"] == "cut"
    lab.link("alice", "up")
    assert lab.run("aria", ping).returncode == 0


def test_crash_and_boot(lab):
    assert lab.run("alice", ["sh", "-c", "echo kept > /root/disk; echo lost > /tmp/memory"]).returncode == 0
    waiting = lab.start("alice", ["sleep", "100"])
    lab.crash("alice")
    assert waiting.wait(5) != 0 and lab.pids("alice") == []
    with pytest.raises(BadInput, match="alice is off"):
        lab.run("alice", ["true"])
    lab.boot("alice")
    told = lab.run("alice", ["sh", "-c", "cat /root/disk; ls /tmp/memory"])
    assert told.stdout == "kept\n", "a disk outlives a power cut, memory does not"
    assert lab.run("octavia", ["ssh", "-o", "BatchMode=yes", "alice", "hostname"]).stdout == "alice\n", "same key"


def test_idempotent_and_quick(two):
    before = traces()
    lab = Lab(two, f"again-{os.getpid()}")
    try:
        start = time.monotonic()
        lab.up()
        assert time.monotonic() - start < 5
        first = {name: lab.pids(name) for name in ("left", "right")}
        lab.up()
        assert {name: lab.pids(name) for name in first} == first, "what runs is left alone"
        lab.crash("left")
        lab.up()
        assert lab.pids("right") == first["right"] and lab.pids("left")
        other = inventory.load(".", ROOT / "hostfiles/blackroad.toml")
        with pytest.raises(BadInput, match="is up with other nodes"), Lab(other, lab.name):
            pass
        assert {row["node"]: row["state"] for row in lab.status()} == {"left": "up", "right": "up"}, "it stays up"
    finally:
        lab.down()
    lab.down()  # twice is once
    assert settled(before) == {}


def test_five_hosts_are_up_in_time():
    name = ("--name", f"five-{os.getpid()}")
    before = traces()
    try:
        start = time.monotonic()
        up = brmpi("lab", "up", ROOT / "hostfiles/blackroad.toml", *name)
        assert time.monotonic() - start < 5 and "5 hosts are up" in up.stdout, up
    finally:
        assert brmpi("lab", "down", *name).returncode == 0
    assert settled(before) == {}


def test_a_lab_that_cannot_start_is_taken_down(two, monkeypatch):
    before = traces()
    monkeypatch.setattr(Lab, "_wire", lambda lab, node: subprocess.run(["false"], check=True))
    with pytest.raises(subprocess.CalledProcessError):
        Lab(two, f"fails-{os.getpid()}").up()
    assert settled(before) == {}


@pytest.mark.parametrize("place", ["/", "/root", "/etc"])
def test_folders_that_hold_a_persons_keys_are_not_shared(place, monkeypatch):
    monkeypatch.setattr(labplan.brmpi, "__file__", "/opt/site/brmpi/__init__.py")
    monkeypatch.chdir(place)
    with pytest.raises(BadInput, match=f"would share {place} with this machine"):
        labplan.checkout()


def test_nothing_is_left_after_crash(two):
    before = traces()
    with Lab(two, f"crash-{os.getpid()}") as lab:
        lab.start("right", ["sh", "-c", "setsid sleep 1000 & sleep 1000"])
        lab.crash("left")
    assert settled(before) == {}


@pytest.mark.parametrize("moment", [0.05, 0.12, 0.2, 0.3, 0.45, 0.7])
def test_nothing_is_left_after_kill(two, moment):
    """``lab up`` is killed half way: ``down`` removes what there is, and ``up`` starts over."""
    name = f"killed-{os.getpid()}"
    before = traces()
    process = subprocess.Popen([sys.executable, "-m", "brmpi", "lab", "up", str(two), "--name", name],
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(moment)
    process.kill()
    process.wait()
    if moment in (0.12, 0.3):
        again = brmpi("lab", "up", two, "--name", name)
        assert again.returncode == 0, again.stderr
        assert brmpi("lab", "exec", "--name", name, "right", "hostname").stdout == "right\n"
    assert brmpi("lab", "down", "--name", name).returncode == 0
    assert settled(before) == {}


def test_command_line(two):
    name = ("--name", f"line-{os.getpid()}")
    try:
        up = brmpi("lab", "up", two, *name)
        assert up.returncode == 0 and "2 hosts are up" in up.stdout and "10.9.0.1" in up.stdout, up.stderr
        assert brmpi("lab", "exec", *name, "left", "sh", "-c", "exit 7").returncode == 7
        assert brmpi("lab", "ssh", *name, "right", "hostname").stdout == "right\n"
        for words in (("cpu", "left", "25"), ("mem", "left", "1"), ("link", "left", "down"), ("crash", "right")):
            assert brmpi("lab", words[0], *name, *words[1:]).returncode == 0, words
        rows = {row["node"]: row for row in json.loads(brmpi("lab", "status", *name, "--json").stdout)}
        assert (rows["left"]["state"], rows["left"]["cpu"], rows["left"]["memory"]) == ("cut", 25, 1)
        assert rows["right"]["state"] == "off"
        assert brmpi("lab", "boot", *name, "right").returncode == 0
        assert brmpi("lab", "exec", *name, "right", "hostname").stdout == "right\n"
        wrong = brmpi("lab", "exec", *name, "middle", "true")
        assert wrong.returncode == 2 and "'middle' is not there" in wrong.stderr
        wrong = brmpi("lab", "cpu", *name, "left", "fast")
        assert wrong.returncode == 2 and "PERCENT: fast: must be max, or a number >= 0.1" in wrong.stderr
    finally:
        assert brmpi("lab", "down", *name).returncode == 0
    gone = brmpi("lab", "status", *name)
    assert gone.returncode == 2 and "is not up" in gone.stderr


def test_checkout_under_tmp(tmp_path, two):
    """A checkout and an environment under /tmp, where hosts have their own files, are there all the same."""
    copy = tmp_path / "copy"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(copy)], check=True)
    for file in subprocess.run(["git", "-C", str(ROOT), "ls-files", "-mo", "--exclude-standard", "brmpi"],
                               capture_output=True, text=True).stdout.split():
        if (ROOT / file).exists():
            (copy / file).write_bytes((ROOT / file).read_bytes())
    subprocess.run(["/usr/bin/python3", "-m", "venv", "--system-site-packages", "--without-pip", str(copy / ".venv")],
                   check=True)
    name, python = ("--name", f"tmp-{os.getpid()}"), copy / ".venv/bin/python"
    places = [str(copy), *(place for place in sys.path if place.endswith("site-packages"))]
    next((copy / ".venv/lib").glob("python*/site-packages")).joinpath("here.pth").write_text("\n".join(places))
    if not Path("/usr/sbin/sshd").exists():
        (copy / ".venv/share").symlink_to(Path(sys.prefix, "share"))
    try:
        up = subprocess.run([python, "-m", "brmpi", "lab", "up", two, *name], cwd=copy, capture_output=True,
                            text=True)
        assert up.returncode == 0, up.stderr
        told = subprocess.run([python, "-m", "brmpi", "lab", "exec", *name, "left", "python", "-c",
                               "import brmpi, sys; print(brmpi.__file__, sys.prefix)"], cwd=copy,
                              capture_output=True, text=True)
        assert told.stdout.split() == [str(copy / "brmpi/__init__.py"), str(copy / ".venv")], told.stderr
    finally:
        brmpi("lab", "down", *name)


@pytest.mark.parametrize(("table", "said"), [
    ("cpu = 0", "lab.left.cpu = 0: must be a number > 0"), ("speed = 3", "lab.left.speed is not a known key"),
    ('cpuset = "a"', "lab.left.cpuset"), ("memory = -1", "lab.left.memory")])
def test_lab_tables_are_checked(tmp_path, table, said):
    file = tmp_path / "wrong.toml"
    file.write_text(f"[nodes.left]\n[lab.left]\n{table}\n")
    with pytest.raises(BadInput, match=said):
        inventory.load(tmp_path, file)


def test_a_core_that_is_not_there(tmp_path):
    file = tmp_path / "wrong.toml"
    file.write_text('[nodes.left]\n[lab.left]\ncpuset = "0,4000-4001"\n')
    with pytest.raises(BadInput, match=r"lab.left.cpuset = .0,4000-4001.: must be of this machine's cores, 0"):
        labplan.limits(inventory.load(tmp_path, file))


def test_needs_root(two):
    done = subprocess.run([sys.executable, "-c", "import os, sys; os.geteuid = lambda: 1000; from brmpi import cli; "
                           f"sys.exit(cli.main(['lab', 'up', {str(two)!r}]))"], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "needs root" in done.stderr
