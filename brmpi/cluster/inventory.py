"""What a person says of the cluster: ``cluster.toml``, or this machine alone."""

import difflib
import ipaddress
import re
import socket
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from brmpi import speeds
from brmpi.errors import BadInput

NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
HOST = re.compile(rf"{NAME.pattern}(\.{NAME.pattern})*")
USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
ARCHITECTURES = ("x86_64", "amd64", "i686", "aarch64", "arm64", "armv7l", "armv6l", "riscv64", "ppc64le")
RESERVED = ("all", "accelerator", "probes", "tuning", "hpl", "cluster", "localhost", "readme", *ARCHITECTURES)


@dataclass(frozen=True)
class Node:
    """One computer of the cluster, as declared."""

    name: str
    address: str = ""  # IP address or DNS name; the name if not given
    user: str | None = None  # ssh user
    roles: tuple[str, ...] = ()
    python: str | None = None  # absolute path there
    model: str | None = None
    architecture: str | None = None  # as uname -m says
    cores: int | None = None  # physical
    threads: int | None = None
    frequency: float | None = None  # MHz
    memory: float | None = None  # GB
    accelerator: str | None = None


@dataclass(frozen=True)
class Inventory:
    """All nodes, in the order in which they were written."""

    nodes: tuple[Node, ...]
    network: str | None = None  # the CIDR that MPI may use
    file: Path | None = None  # where this was read; None: this machine alone
    lab: dict = field(default_factory=dict)  # node name: what a lab holds it to, as in ``LAB``

    def node(self, name):
        """The node of that name.

        Parameters
        ----------
        name : str

        Raises
        ------
        BadInput : there is none
        """
        for node in self.nodes:
            if node.name == name:
                return node
        known = [node.name for node in self.nodes]
        raise BadInput(f"{self.file or 'this machine'}: node {name!r} is not there{_nearest(name, known)}")


def options(parser):
    """Add the options by which every command on nodes finds them: ``--hostfiles`` and ``--inventory``.

    Parameters
    ----------
    parser : argparse.ArgumentParser
    """
    parser.add_argument("--hostfiles", metavar="DIR", type=Path, default=speeds.folder(),
                        help="folder of hostfiles and probes ($BRMPI_HOSTFILES, else ./hostfiles)")
    parser.add_argument("--inventory", metavar="FILE", type=Path,
                        help="what nodes there are (cluster.toml in that folder, else this machine)")


def load(folder, file=None):
    """The nodes of ``file``, else of ``cluster.toml`` in the folder, else this machine.

    Parameters
    ----------
    folder : path
    file : path, optional

    Returns
    -------
    Inventory

    Raises
    ------
    BadInput : a mistake in the file, with file and key
    """
    if file is None:
        file = Path(folder, "cluster.toml")
        if not file.exists():
            return this_machine()
    try:
        tables = tomllib.loads(Path(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"{file}: cannot be read: {error.strerror}") from error
    except ValueError as error:  # broken TOML, or not UTF-8
        raise BadInput(f"{file}: is not TOML: {error}") from error
    try:
        return _inventory(tables, Path(file))
    except _Mistake as mistake:
        raise BadInput(f"{file}: {mistake}") from None


def this_machine():
    """The inventory of a person who wrote none: one node, reached without ssh.

    Returns
    -------
    Inventory, with ``file`` None
    """
    name = re.sub(r"[^A-Za-z0-9-]+", "-", socket.gethostname().split(".")[0]).strip("-")[:50] or "node"
    if name.lower() in RESERVED:
        name += "-node"
    return Inventory((Node(name, "localhost"),))


def is_local(node):
    """Whether a node is this machine, by its address; a node without an address, by its name.

    Parameters
    ----------
    node : Node
    """
    address = node.address
    if address == "localhost" or address.casefold() == socket.gethostname().casefold():
        return True
    try:
        known = socket.getaddrinfo(address, 0, type=socket.SOCK_DGRAM)
    except OSError:
        return False
    return any(_is_bound(family, end) for family, *_, end in known)


def _is_bound(family, end):
    with socket.socket(family, socket.SOCK_DGRAM) as door:
        try:
            door.bind(end)  # only an interface's own address can be
        except OSError:
            return False
        return True


class _Mistake(Exception):
    """What is wrong in the file, beginning with the key."""


def _nearest(name, known):
    near = difflib.get_close_matches(name, known, 1)
    return f": did you mean {near[0]}?" if near else f": known are {', '.join(known)}"


def _table(value, key, known=None):
    if not isinstance(value, dict):
        raise _Mistake(f"{key} = {value!r}: must be a table, [{key}]")
    for name in value:
        if known is not None and name not in known:
            dotted = f"{key}.{name}" if key else name
            raise _Mistake(f"{dotted} is not a known key{_nearest(name, list(known))}")
    return value


def _inventory(tables, file):
    _table(tables, "", ("cluster", "nodes", "lab", "spool"))
    _table(tables.get("spool", {}), "spool", SPOOL)
    common = _table(tables.get("cluster", {}), "cluster", ("network", "user", "python"))
    network = _network(common)
    written = _table(tables.get("nodes", {}), "nodes")
    if not written:
        raise _Mistake("nodes is empty: at least one node is needed, such as [nodes.octavia]")
    both = {key: check(common[key], f"cluster.{key}")
            for key, check in (("user", _user), ("python", _path)) if key in common}
    nodes = tuple(_node(name, written[name], both) for name in written)
    _distinct(nodes, network)
    lab = _table(tables.get("lab", {}), "lab")
    for name in lab:
        if name not in written:
            raise _Mistake(f"lab.{name} is not a node{_nearest(name, list(written))}")
        _table(lab[name], f"lab.{name}", LAB)
    lab = {name: {key: LAB[key](value, f"lab.{name}.{key}") for key, value in lab[name].items()} for name in lab}
    return Inventory(nodes, None if network is None else str(network), file, lab)


def _network(common):
    if "network" not in common:
        return None
    written = common["network"]
    try:
        return ipaddress.ip_network(_text(written, "cluster.network"))
    except ValueError as error:
        raise _Mistake(f'cluster.network = "{written}": must be a network in CIDR form, such as 192.168.1.0/24 '
                       f"({error})") from None


def _distinct(nodes, network):
    names, addresses = {}, {}
    roles = {role.casefold() for node in nodes for role in node.roles}
    for node in nodes:
        key = f"nodes.{node.name}"
        if node.name.casefold() in names:
            raise _Mistake(f"{key}: differs from {names[node.name.casefold()]} only in case: rename one of them")
        if node.name.casefold() in roles:
            raise _Mistake(f"{key}: is a role too, and each gets a hostfile of its name: rename one of them")
        if node.address.casefold() in addresses:
            raise _Mistake(f'{key}.address = "{node.address}": is the address of '
                           f"{addresses[node.address.casefold()]} too: each node needs its own")
        names[node.name.casefold()] = addresses[node.address.casefold()] = node.name
        ip = _ip(node.address)
        if network is not None and ip is not None and ip not in network:
            raise _Mistake(f'{key}.address = "{node.address}": is outside cluster.network = "{network}"')


def _ip(address):
    try:
        return ipaddress.ip_address(address)
    except ValueError:
        return None


def _node(name, table, common):
    key = f"nodes.{name}"
    if not NAME.fullmatch(name):
        raise _Mistake(f"{key}: a node's name must be 1 to 63 letters, digits and inner hyphens")
    if name.casefold() in RESERVED:
        raise _Mistake(f"{key}: {name} has a meaning of its own under hostfiles/: choose another name")
    _table(table, key, CHECKS)
    given = dict(common)
    given.update({item: CHECKS[item](table[item], f"{key}.{item}") for item in table})
    given.setdefault("address", name)
    if {"cores", "threads"} <= set(given) and given["threads"] < given["cores"]:
        raise _Mistake(f"{key}.threads = {given['threads']}: must be >= {key}.cores = {given['cores']}")
    return Node(name, **given)


def _text(value, key):
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise _Mistake(f"{key} = {value!r}: must be text in quotes, on one line, and not empty")
    return value


def _matching(pattern, what):
    def check(value, key):
        if not pattern.fullmatch(_text(value, key)):
            raise _Mistake(f'{key} = "{value}": must be {what}')
        return value

    return check


def _address(value, key):
    if _ip(_text(value, key)) is None and (not HOST.fullmatch(value) or value.replace(".", "").isdigit()):
        raise _Mistake(f'{key} = "{value}": must be an IP address or a host name')
    return value


def _path(value, key):
    if not Path(_text(value, key)).is_absolute():
        raise _Mistake(f'{key} = "{value}": must be an absolute path, such as /usr/bin/python3')
    return value


def _roles(value, key):
    if not isinstance(value, list):
        raise _Mistake(f'{key} = {value!r}: must be a list of names, such as ["compute"]')
    for role in value:
        if not isinstance(role, str) or not re.fullmatch(NAME, role):
            raise _Mistake(f"{key} holds {role!r}: a role must be 1 to 63 letters, digits and inner hyphens")
        if role.casefold() in set(RESERVED) - {"accelerator"}:
            raise _Mistake(f'{key} holds "{role}", which has a meaning of its own under hostfiles/: rename it')
        if value.count(role) > 1:
            raise _Mistake(f'{key} holds "{role}" twice')
    return tuple(value)


def _whole(value, key):
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise _Mistake(f"{key} = {value!r}: must be a whole number >= 1")
    return value


def _positive(value, key):
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
        raise _Mistake(f"{key} = {value!r}: must be a number > 0")
    return float(value)


_user = _matching(USER, "a user name: letters, digits, dots, hyphens and underscores")
CHECKS = {"address": _address, "user": _user, "roles": _roles, "python": _path, "model": _text,
          "architecture": _matching(re.compile("|".join(ARCHITECTURES)), f"one of {', '.join(ARCHITECTURES)}"),
          "cores": _whole, "threads": _whole, "frequency": _positive, "memory": _positive, "accelerator": _text}
SPOOL = ("redis", "user", "password_file", "kinds", "programs")  # brmpi.spool reads what they say
# cpu in percent of one core, memory in GB, link in Mbit/s, cpuset as in "0,2-3"
LAB = {"cpu": _positive, "memory": _positive, "link": _positive,
       "cpuset": _matching(re.compile(r"\d+(-\d+)?(,\d+(-\d+)?)*"), 'a set of cores, such as "0,2-3"')}
