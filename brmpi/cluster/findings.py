"""What is wrong with one node, as its facts tell, and the command that mends it: pure functions."""

import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

from brmpi.cluster import inventory, probing

OLDEST = (3, 11)  # Python, as setup.cfg has it
SKEW = 100.0  # ms between two clocks
FULL, LOW = 16 * 2**20, 2**30  # bytes free: MPI cannot keep its session; a run may not fit
HOT = 80.0  # degrees Celsius, where a Raspberry Pi begins to slow down
PAGE = 4096  # bytes, for which Redis is mostly built
# ssh's words: (code, what it means, how to mend it)
UNREACHED = (
    (r"REMOTE HOST IDENTIFICATION HAS CHANGED", "host-key-changed",
     "{name} shows another host key than before: if nobody reinstalled it, another computer stands in its place; "
     "compare with what ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub says on its own screen",
     "ssh-keygen -f {known} -R {address} && ssh-keyscan -H {address} >> ~/.ssh/known_hosts"),
    (r"Host key verification failed", "host-key-unknown",
     "{name}'s host key is not known here: compare it with what ssh-keygen -lf "
     "/etc/ssh/ssh_host_ed25519_key.pub says on its own screen", "ssh-keyscan -H {address} >> ~/.ssh/known_hosts"),
    (r"Permission denied|Too many authentication failures", "key-refused", "{name} does not let your ssh key in",
     "{key}ssh-copy-id {login}"),
    (r"Could not resolve|Name or service not known|name resolution", "address-unresolved",
     "{name}'s address {address} is a name that does not resolve here: write its IP address as nodes.{name}.address",
     "${{EDITOR:-nano}} {inventory}"),
    (r"refused", "ssh-refused", "{name} is on, but no ssh server answers: start it at its own keyboard",
     "sudo systemctl enable --now ssh"),
    (r"timed out|No route|unreachable|is down|reset by|no answer|closed by", "unreachable",
     "{name} does not answer at {address} ({reason}): switch it on, see to its cable, and try", "ping -c 3 {address}"),
    (r"not found|No such file or directory", "python-missing",
     "{name} has no Python where nodes.{name}.python says, or none at all", "{install}"),
)


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong."""

    code: str  # for programs; docs/doctor.md lists them
    severity: str  # "error": jobs cannot run; "warning": they can
    nodes: tuple[str, ...]
    says: str  # a sentence without a full stop
    fix: str  # what to type on this machine, but for what can only be done on the node's own


@dataclass(frozen=True)
class Here:
    """The machine that asks."""

    mpi: dict | None = None  # name, version of mpirun
    launcher: object | None = None  # as from ``mpirun.installed``
    lacking: str = ""  # why there is no launcher
    package: dict | None = None  # as from ``checkup.package``
    environment: dict = field(default_factory=dict)
    key: bool = True  # whether there is an ssh key
    activation: str = ""  # command that lets plain mpirun find this environment's python
    project: Path = Path("brmpi")  # the checkout
    inventory: Path | None = None  # None: this machine alone


def error(code, nodes, says, fix):
    """A finding that keeps jobs from running.

    Parameters
    ----------
    code : str
    nodes : iterable of str, names
    says, fix : str
    """
    return Finding(code, "error", tuple(nodes), says, fix)


def warning(code, nodes, says, fix):
    """A finding that lets jobs run.

    Parameters
    ----------
    code : str
    nodes : iterable of str, names
    says, fix : str
    """
    return Finding(code, "warning", tuple(nodes), says, fix)


def there(node, command):
    """A command as typed here, to run on a node.

    Parameters
    ----------
    node : inventory.Node
    command : str, for a shell there
    """
    if inventory.is_local(node):
        return command
    asks = "-t " if "sudo" in command else ""  # sudo asks for a password
    return f"ssh {asks}{probing.login(node)} {shlex.quote(command)}"


def installed(node, here):
    """The command that installs brmpi and all it needs on a node.

    Parameters
    ----------
    node : inventory.Node
    here : Here
    """
    install = there(node, f"cd {shlex.quote(str(here.project))} && make install")
    return install if inventory.is_local(node) else f"brmpi sync {node.name} && {install}"


def unreached(node, reason, err, here):
    """The one finding about a node that could not be visited.

    Parameters
    ----------
    node : inventory.Node
    reason : str
    err : str, what ssh said
    here : Here

    Returns
    -------
    Finding
    """
    known = re.search(r"Offending \S+ key in (\S+?):\d+", err)
    words = {"name": node.name, "address": node.address, "login": probing.login(node), "reason": reason,
             "known": shlex.quote(known.group(1)) if known else "~/.ssh/known_hosts", "inventory": here.inventory,
             "key": "" if here.key else "ssh-keygen -t ed25519 && ", "install": installed(node, here)}
    for pattern, code, says, fix in UNREACHED:
        if re.search(pattern, f"{err}\n{reason}"):
            return error(code, [node.name], says.format(**words), fix.format(**words))
    return error("visit-failed", [node.name], f"{node.name} could not be examined: {reason}",
                 there(node, "python3 --version"))


def node(node, facts, here):
    """What is wrong with a node that was visited.

    Parameters
    ----------
    node : inventory.Node
    facts : dict, as from ``visit.Visit.arrive``
    here : Here

    Returns
    -------
    list of Finding
    """
    parts = (_python, _package, _mpi, _clock, _disks, _heat, _page)
    return [finding for part in parts for finding in part(node, facts, here)]


def _python(node, facts, here):
    found = facts.get("python")
    if found and found["bits"] != 64:
        yield error("32-bit", [node.name], f"{node.name} runs a {found['bits']}-bit Python, and brmpi needs 64 bits: "
                    "write a 64-bit system to its disk", "sudo apt-get install rpi-imager && rpi-imager")
    if found and found["order"] != "little":
        yield error("byte-order", [node.name], f"{node.name} is {found['order']}-endian, and the other nodes are not: "
                    "take it out of the cluster", f"${{EDITOR:-nano}} {here.inventory}")
    if found and outdated(found):
        yield error("python-old", [node.name], f"{node.name} has Python {found['version']}, and brmpi needs 3.11 or "
                    "newer: Debian 12 has it",
                    there(node, f"cd {shlex.quote(str(here.project))} && make install PYTHON=python3.11"))


def _package(node, facts, here):
    found, mine = facts.get("brmpi"), here.package
    python = facts.get("python")
    if python and outdated(python):
        return  # nothing would install there
    if found is None:
        yield error("brmpi-missing", [node.name], f"{node.name} has no brmpi"
                    + (f" for {python['executable']}" if python else ""), installed(node, here))
    elif mine and found["version"] != mine["version"]:
        yield error("brmpi-differs", [node.name], f"{node.name} has brmpi {found['version']}, and here it is "
                    f"{mine['version']}", f"brmpi sync {node.name}")
    elif mine and found["digest"] != mine["digest"]:
        yield error("brmpi-differs", [node.name], f"{node.name}'s files of brmpi, in {found['folder']}, are not those "
                    "of here", f"brmpi sync {node.name}")


def _mpi(node, facts, here):
    found = facts.get("mpi") or {}
    library, mine = found.get("library"), here.mpi
    daemons = {**found.get("near", {}), **found.get("daemons", {})}
    if library is None and not daemons:
        yield error("mpi-missing", [node.name], f"{node.name} has no MPI", installed(node, here))
        return
    if library and mine and release(library) != release(mine):
        yield error("mpi-differs", [node.name], f"{node.name} has {library['name']} {library['version']}, and here it "
                    f"is {mine['name']} {mine['version']}: they do not understand each other",
                    there(node, "sudo apt-get update && sudo apt-get install -y openmpi-bin libopenmpi-dev"))
    elif here.launcher and not inventory.is_local(node) and here.launcher.daemon not in daemons:
        daemon = here.launcher.daemon
        yield error("daemon-not-found", [node.name], f"{node.name} does not find {daemon}, by which mpirun starts "
                    f"ranks there, on the PATH that ssh gives ({found.get('path')})",
                    there(node, f"sudo ln -s $(find /usr /opt / -xdev -name {daemon} ! -type d -perm -1 -print -quit "
                                "2>/dev/null) /usr/local/bin/"))


def _clock(node, facts, here):
    offset = (facts.get("clock") or {}).get("offset")
    if offset is not None and abs(offset) > SKEW + facts["clock"]["uncertainty"]:
        yield warning("clock", [node.name], f"{node.name}'s clock is {_span(offset)}: times of files and the leases of "
                      "queued runs go wrong", there(node, "sudo timedatectl set-ntp true"))


def _disks(node, facts, here):
    home = next(iter(facts.get("disks") or {}), None)
    for path, space in (facts.get("disks") or {}).items():
        if not space["total"]:
            continue
        left, look = f"{space['free'] / 2**20:,.0f} MiB", there(node, f"du -xh {path} | sort -h | tail")
        if space["free"] < FULL:
            yield error("disk-full", [node.name], f"{node.name} has {left} left in {path}: see what fills it", look)
        elif path == home and space["free"] < LOW:
            yield warning("disk-low", [node.name], f"{node.name} has {left} left in {path}: see what fills it", look)


def _heat(node, facts, here):
    heat, flags = facts.get("temperature"), facts.get("throttled") or {}
    if heat is not None and heat >= HOT:
        yield warning("hot", [node.name], f"{node.name} is at {heat:.0f} °C, and slows down from {HOT:.0f} °C on: give "
                      "it a fan and watch", there(node, "watch -n 2 cat /sys/class/thermal/thermal_zone0/temp"))
    for key, when in (("now", "is slowed down"), ("since_boot", "was slowed down since it was started")):
        if flags.get(key):
            cure = "another power supply" if "under-voltage" in flags[key] else "better cooling"
            yield warning("throttled", [node.name], f"{node.name} {when} ({', '.join(flags[key])}): give it {cure} and "
                          "ask again", there(node, "sudo reboot" if key == "since_boot" else "vcgencmd get_throttled"))
            return


def _page(node, facts, here):
    page, redis = facts.get("page"), facts.get("redis")
    if not page or page <= PAGE or (redis and not redis["failed"]):
        return  # its redis-server was built for such pages
    why = "its redis-server does not start with them" if redis else "many builds of Redis do not start with them"
    yield warning("page-size", [node.name], f"{node.name} has memory pages of {page // 1024} KiB, and {why}: a "
                  "Raspberry Pi 5 has a kernel with pages of 4 KiB",
                  there(node, "echo kernel=kernel8.img | sudo tee -a /boot/firmware/config.txt && sudo reboot"))


def release(library):
    """An MPI's name and major.minor version: what must be the same on all nodes.

    Parameters
    ----------
    library : dict: ``name``, ``version``
    """
    return f"{library['name']} {'.'.join(library['version'].split('.')[:2])}"


def outdated(python):
    """Whether a Python is too old for brmpi.

    Parameters
    ----------
    python : dict, as from ``checkup.python``
    """
    return tuple(int(part) for part in re.findall(r"\d+", python["version"])[:2]) < OLDEST


def _span(milliseconds):
    way = "ahead" if milliseconds > 0 else "behind"
    size = abs(milliseconds)
    return f"{size:,.0f} ms {way}" if size < 1e4 else f"{size / 1e3:,.0f} s {way}"
