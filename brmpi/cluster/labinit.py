"""The first process of a lab's switch and of each of its hosts. Runs alone: ``python -IS labinit.py ROLE PLAN``.

``switch`` holds the network that hosts are plugged into and the disks that they keep between one start and the next.
``host`` makes a computer of its namespaces: a root of its own above this machine's, a name, keys, sshd; then it waits,
and buries processes that nobody else does, as any first process must. Each says ``ready`` on standard output.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

DISKS = ("ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs")  # file systems of this machine that hosts see too
HIDDEN = ("/boot", "/dev", "/proc", "/run", "/sys", "/tmp")  # where a host has its own, or nothing
SSHD = """Port 22
HostKey /etc/ssh/ssh_host_ed25519_key
PermitRootLogin prohibit-password
AuthorizedKeysFile .ssh/authorized_keys
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
PidFile /run/sshd.pid
MaxStartups 100
MaxSessions 100
AcceptEnv LANG LC_*
SetEnv {variables}
"""


def _call(*command):
    """Run a command of the system; its complaint is the reason if it fails."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"{' '.join(map(str, command))}: {done.stderr.strip()}")
    return done.stdout


def _mount(kind, place, options="", source=None):
    """Mount a file system of its own at a place, which is made."""
    Path(place).mkdir(parents=True, exist_ok=True)
    _call("mount", "-t", kind, *(["-o", options] if options else []), source or kind, str(place))


def _bind(source, place, deep=False):
    """Let a place show another folder."""
    Path(place).mkdir(parents=True, exist_ok=True)
    _call("mount", "--rbind" if deep else "--bind", str(source), str(place))


def _overlay(lower, disk, place):
    """Mount a writable layer above folders of this machine; it stays on the disk."""
    for part in ("upper", "work"):
        Path(disk, part).mkdir(parents=True, exist_ok=True)
    _mount("overlay", place, f"lowerdir={lower},upperdir={disk}/upper,workdir={disk}/work")


def _switch(plan):
    """A bridge, and a file system in memory for the hosts' disks."""
    _mount("tmpfs", plan["disks"], "mode=700")
    if plan["sshd"]:
        shutil.copytree(plan["sshd"], plan["layer"], symlinks=True)
    _call("ip", "link", "set", "lo", "up")
    _call("ip", "link", "add", "switch", "type", "bridge")
    if plan["address"]:
        _call("ip", "address", "add", plan["address"], "dev", "switch")
    _call("ip", "link", "set", "switch", "up")


def _host(plan):
    """A computer."""
    socket.sethostname(plan["name"])
    disk = Path(plan["disk"])
    root = disk / "root"
    _overlay(f"{plan['layer']}:/" if Path(plan["layer"]).exists() else "/", disk / "system", root)
    for place in _other_disks():
        _overlay(place, disk / place.strip("/").replace("/", "-"), f"{root}{place}")
    _bind("/dev", root / "dev", deep=True)
    _mount("tmpfs", root / "dev/shm", "mode=1777")
    _mount("devpts", root / "dev/pts", "newinstance,ptmxmode=0666,mode=620")
    if not (root / "dev/ptmx").is_symlink():
        _call("mount", "--bind", f"{root}/dev/pts/ptmx", f"{root}/dev/ptmx")
    _mount("tmpfs", root / "run", "mode=755")
    _mount("tmpfs", root / "tmp", "mode=1777")
    _mount("proc", root / "proc")
    _mount("sysfs", root / "sys")
    _control_groups(root / "sys/fs/cgroup")
    _settle(plan, root)  # on the host's own disk: before any folder of this machine is to be seen there
    for place, source in plan["binds"].items():
        _bind(source, f"{root}{place}")
    old = root / "run/machine"
    old.mkdir()
    os.chdir(root)
    _call("pivot_root", ".", "run/machine")
    os.chdir("/")
    _call("umount", "--lazy", "/run/machine")
    Path("/run/machine").rmdir()
    Path("/run/sshd").mkdir(exist_ok=True)
    sshd = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/sbin:/usr/bin")
    _call(sshd, "-f", "/etc/ssh/sshd_config", "-E", "/var/log/sshd.log")


def _other_disks():
    """Where this machine has further disks mounted, nearest the root first."""
    fields = [line.split(" - ") for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    places = {left.split()[4].encode().decode("unicode_escape") for left, right in fields if right.split()[0] in DISKS}
    return sorted(place for place in places if place != "/" and Path(place).is_dir()
                  and not any(place == taken or place.startswith(f"{taken}/") for taken in HIDDEN))


def _control_groups(place):
    """The host's own control groups, so that programs there see its limits."""
    hierarchies = [line.split(":", 2)[1] for line in Path("/proc/self/cgroup").read_text().splitlines()]
    if hierarchies == [""]:
        _mount("cgroup2", place)
        return
    _mount("tmpfs", place, "mode=755")
    for controllers in hierarchies:
        if controllers and "=" not in controllers:
            _mount("cgroup", place / controllers, controllers)
            for name in set(controllers.split(",")) - {controllers}:
                (place / name).symlink_to(controllers)


def _settle(plan, root):
    """What an installer writes: names, users, keys. A host that was here before keeps its own."""
    if (root / "etc/brmpi-lab").exists():
        return
    (root / "etc/hostname").write_text(plan["name"] + "\n")
    (root / "etc/hosts").write_text(plan["hosts"])
    users = (root / "etc/passwd").read_text().splitlines()
    known = {line.split(":")[0] for line in users}
    wanted = {"sshd": "sshd:x:65533:65534::/run/sshd:/usr/sbin/nologin"}
    wanted |= {user: f"{user}:x:0:0::/root:/bin/bash" for user in plan["users"]}  # root, by another name
    users += [wanted[name] for name in wanted if name not in known]
    (root / "etc/passwd").write_text("\n".join(users) + "\n")
    for place in ("root/.ssh", "etc/ssh"):
        shutil.rmtree(root / place, ignore_errors=True)  # this machine's keys are none of the lab's business
        (root / place).mkdir(mode=0o700 if place.startswith("root") else 0o755, parents=True)
    for source, place in plan["files"].items():
        shutil.copy(source, f"{root}{place}")
    for name in plan["users"]:  # a user who is on this machine too logs in with the same keys
        home = next((line.split(":")[5] for line in users if line.split(":")[0] == name), "/root")
        if home != "/root" and (root / home.lstrip("/")).is_dir():
            owner = (root / home.lstrip("/")).stat()
            shutil.rmtree(f"{root}{home}/.ssh", ignore_errors=True)
            shutil.copytree(root / "root/.ssh", f"{root}{home}/.ssh")
            for path in (Path(f"{root}{home}/.ssh"), *Path(f"{root}{home}/.ssh").iterdir()):
                os.chown(path, owner.st_uid, owner.st_gid)
    (root / "etc/ssh/sshd_config").write_text(SSHD.format(variables=" ".join(plan["variables"])))
    (root / "etc/brmpi-lab").write_text(plan["name"] + "\n")


def main(role, plan):
    """Do what the role needs, say so, and wait.

    Parameters
    ----------
    role : "switch" or "host"
    plan : path of a JSON file, from ``labplan``
    """
    {"switch": _switch, "host": _host}[role](json.loads(Path(plan).read_text()))
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with contextlib.suppress(OSError):  # who asked may have gone
        print("ready", flush=True)
    nothing = os.open(os.devnull, os.O_RDWR)
    for file in (0, 1, 2):
        os.dup2(nothing, file)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            signal.sigwait({signal.SIGCHLD})


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except OSError as error:
        sys.exit(str(error))
