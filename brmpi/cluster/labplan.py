"""What a lab is made from: its network, keys and hostfiles, and the plans of its switch and hosts."""

import contextlib
import ipaddress
import json
import math
import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path

import brmpi
from brmpi.cluster import atomic, hostfile
from brmpi.errors import BadInput, Fault

LINK = 1000.0  # Mbit/s
# Open MPI refuses to start as root unless told twice; every user of a lab is root
VARIABLES = ("OMPI_ALLOW_RUN_AS_ROOT=1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1", "PRTE_ALLOW_RUN_AS_ROOT=1",
             "PRTE_ALLOW_RUN_AS_ROOT_CONFIRM=1")
MASKED = ("/tmp", "/run", "/var/run", "/dev/shm")  # where a host has its own files instead of this machine's
SBIN = "/usr/sbin:/usr/local/sbin:/sbin:/usr/bin"


def checkout():
    """The folder that hosts see at its own path and share: brmpi's checkout, else the folder of this process.

    Returns
    -------
    Path

    Raises
    ------
    BadInput : it holds more than a project
    """
    folder = Path(brmpi.__file__).resolve().parent.parent
    folder = folder if (folder / "setup.cfg").exists() else Path.cwd()
    homes = [Path(user.pw_dir) for user in pwd.getpwall() if user.pw_uid == 0 or user.pw_uid >= 1000]
    for place in (Path("/etc"), Path("/usr"), *homes):
        if place.is_dir() and (place == folder or folder in place.parents):
            raise BadInput(f"brmpi lab: hosts would share {folder} with this machine, and {place} with it: "
                           "start it in a folder of its own")
    return folder


def sshd():
    """The folder where an sshd is unpacked that is not installed; None where one is installed.

    Returns
    -------
    str or None

    Raises
    ------
    BadInput : there is no sshd
    """
    if shutil.which("sshd", path=SBIN):
        return None
    unpacked = Path(sys.prefix, "share/sshd")
    if (unpacked / "usr/sbin/sshd").exists():
        return str(unpacked)
    raise BadInput("brmpi lab: sshd is not installed: make -B install unpacks one, or apt-get install openssh-server")


def nodes(known):
    """The lab's network, each node's address in it, and the users that log in there.

    Parameters
    ----------
    known : inventory.Inventory

    Returns
    -------
    dict: ``network`` (CIDR), ``addresses`` (by node), ``users``

    Raises
    ------
    BadInput : the network is too small
    """
    given = {}
    for node in known.nodes:
        with contextlib.suppress(ValueError):
            given[node.name] = ipaddress.ip_address(node.address)
    if known.network:
        network = ipaddress.ip_network(known.network)
    else:
        network = ipaddress.ip_network(f"{next(iter(given.values()), '10.77.0.0')}/24", strict=False)
        while any(address not in network for address in given.values() if address.version == network.version):
            network = network.supernet()
    free = (address for address in network.hosts() if address not in given.values())
    try:
        addresses = {node.name: str(given.get(node.name) or next(free)) for node in known.nodes}
    except StopIteration:
        raise BadInput(f"{known.file}: cluster.network = {network}: has fewer addresses than there are nodes") from None
    users = sorted({node.user for node in known.nodes if node.user} - {"root"})
    return {"network": str(network), "addresses": addresses, "users": users}


def limits(known):
    """What each host is held to, as the inventory has it.

    Parameters
    ----------
    known : inventory.Inventory

    Returns
    -------
    dict, node: {"cpu" [% of a core], "memory" [GB], "link" [Mbit/s], "cpuset"}, None where there is no limit

    Raises
    ------
    BadInput : a cpuset names a core that is not to be had here
    """
    mine = os.sched_getaffinity(0)
    for name, held in known.lab.items():
        ranges = [part.partition("-") for part in held.get("cpuset", "").split(",") if part]
        wanted = {core for first, _, last in ranges for core in range(int(first), int(last or first) + 1)}
        if not wanted <= mine:
            raise BadInput(f"{known.file}: lab.{name}.cpuset = \"{held['cpuset']}\": must be of this machine's cores, "
                           + ", ".join(map(str, sorted(mine))))
    least = {"cpu": None, "memory": None, "link": LINK, "cpuset": None}
    return {node.name: {**least, "memory": node.memory, **known.lab.get(node.name, {})} for node in known.nodes}


def write(state, known, share):
    """Write all files of a lab into its folder.

    Parameters
    ----------
    state : Path, the lab's folder
    known : inventory.Inventory
    share : path of the folder that hosts share, or None for one of the lab's own

    Raises
    ------
    BadInput, Fault
    """
    planned = nodes(known)
    atomic.write(state / "nodes.json", json.dumps(planned))
    _write_hostfiles(state, known)
    if share is None:
        (state / "share").mkdir()
    else:
        (state / "share").symlink_to(Path(share).resolve())
    _write_keys(state / "keys", known, planned["addresses"])
    (state / "disks").mkdir()


def read(state):
    """The nodes that ``write`` wrote, as from ``nodes``.

    Parameters
    ----------
    state : Path, the lab's folder
    """
    return json.loads((state / "nodes.json").read_text())


def switch(state):
    """The plan of the switch.

    Parameters
    ----------
    state : Path, the lab's folder

    Returns
    -------
    dict, for labinit
    """
    planned = read(state)
    network, taken = ipaddress.ip_network(planned["network"]), set(planned["addresses"].values())
    top = int(network.broadcast_address)
    places = (str(ipaddress.ip_address(top - back)) for back in range(1, min(network.num_addresses - 1, 300)))
    spare = next((place for place in places if place not in taken), None)  # where ``lab ssh`` comes from
    address = f"{spare}/{network.prefixlen}" if spare else None
    return {"disks": str(state / "disks"), "address": address, "sshd": sshd(), "layer": str(state / "disks/sshd")}


def host(state, node):
    """The plan of a host.

    Parameters
    ----------
    state : Path, the lab's folder
    node : str

    Returns
    -------
    dict, for labinit
    """
    here = checkout()
    binds = {"/shared": str((state / "share").resolve()), str(here): str(here)}
    for place in dict.fromkeys((sys.prefix, sys.base_prefix)):
        hidden = any(place.startswith(f"{masked}/") for masked in MASKED)
        if here not in Path(place).parents and (hidden or place != sys.base_prefix):
            binds[place] = place
    if (here / "hostfiles").is_dir():
        binds[str(here / "hostfiles")] = str(state / "hostfiles")
    keys = {"id_ed25519": "/root/.ssh/id_ed25519", "authorized_keys": "/root/.ssh/authorized_keys",
            "known_hosts": "/root/.ssh/known_hosts", f"host-{node}": "/etc/ssh/ssh_host_ed25519_key",
            f"host-{node}.pub": "/etc/ssh/ssh_host_ed25519_key.pub"}
    return {"name": node, "disk": str(state / "disks" / f"{node}.disk"), "layer": str(state / "disks/sshd"),
            "hosts": (state / "hosts").read_text(), "users": read(state)["users"], "binds": binds,
            "variables": VARIABLES, "files": {str(state / "keys" / name): place for name, place in keys.items()}}


def _write_hostfiles(state, known):
    """The hosts' own ``hostfiles/``: this inventory as ``cluster.toml``, and hostfiles as it declares them."""
    folder = state / "hostfiles"
    folder.mkdir()
    for path in (checkout() / "hostfiles" / name for name in ("blackroad.toml", "README.md")):
        if path.exists():
            shutil.copy(path, folder)
    shutil.copy(known.file, folder / "cluster.toml")
    shutil.copy(known.file, state / "cluster.toml")
    hosts = []
    for node in known.nodes:
        share = known.lab.get(node.name, {}).get("cpu")
        hosts.append(hostfile.declared(node, known, max(1, math.ceil(share / 100)) if share else node.cores or 1))
    hostfile.replace(folder, hostfile.contents(hosts, [], mpich=False))


def _write_keys(keys, known, addresses):
    keys.mkdir(mode=0o700)
    files = {"lab": "id_ed25519", **{name: f"host-{name}" for name in addresses}}
    making = [subprocess.Popen(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(keys / file)],
                               stdin=subprocess.DEVNULL) for name, file in files.items()]
    if sum(process.wait() for process in making):
        raise Fault("ssh-keygen: cannot make the lab's keys")
    shutil.copy(keys / "id_ed25519.pub", keys / "authorized_keys")
    (keys / "authorized_keys").chmod(0o600)
    known_hosts, hosts = "", "127.0.0.1 localhost\n::1 localhost\n"
    for node in known.nodes:
        address = addresses[node.name]
        names = dict.fromkeys((node.name, node.address, address))
        known_hosts += f"{','.join(names)} {(keys / f'host-{node.name}.pub').read_text()}"
        hosts += " ".join([address, *(name for name in names if name not in (address, "localhost"))]) + "\n"
    (keys / "known_hosts").write_text(known_hosts)
    (keys.parent / "hosts").write_text(hosts)
