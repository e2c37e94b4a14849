"""What a node says of itself when ``brmpi doctor`` asks: one file, sent over ssh, that needs nothing but Python >= 3.8.

A talk in lines on standard input and output. The node first tells its facts, among them the port at which it listens;
then it is told of its peers, tries each, and tells how that went; it listens until its input ends.
"""

import errno
import hashlib
import json
import os
import platform
import shutil
import signal
import socket
import struct
import sys
import threading
from pathlib import Path

MARK = "brmpi-checkup "  # begins each line that is an answer: a login may print other things
LIFE = 120  # s, after which a forgotten one ends
DAEMONS = ("orted", "prted", "hydra_pmi_proxy")
FIREWALLS = ("ufw", "firewall-cmd", "nft", "iptables")


def facts(probe):
    """What this node is, as far as jobs depend on it; null where it cannot tell.

    Parameters
    ----------
    probe : module, ``brmpi.cluster.probe``

    Returns
    -------
    dict
    """
    asked = {"hostname": socket.gethostname, "architecture": platform.machine, "board": probe.board, "python": python,
             "brmpi": package, "mpi": lambda: mpi(probe), "page": lambda: os.sysconf("SC_PAGE_SIZE"),
             "redis": lambda: redis(probe), "disks": disks, "temperature": probe.temperature,
             "throttled": probe.throttling, "addresses": lambda: addresses(probe),
             "firewalls": lambda: [name for name in FIREWALLS if _which(name)]}
    return {name: probe.guarded(ask)[0] for name, ask in asked.items()}


def python():
    """This Python: version, word size, byte order and the name of its binary interface."""
    return {"version": platform.python_version(), "executable": sys.executable, "bits": 8 * struct.calcsize("P"),
            "order": sys.byteorder, "abi": f"{sys.implementation.cache_tag}{sys.abiflags}"}


def package():
    """The brmpi that this Python finds: version, folder, and a digest of its sources; None without."""
    try:
        import brmpi
    except ImportError:
        return None
    folder = Path(brmpi.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes())
    return {"version": brmpi.__version__, "folder": str(folder), "digest": digest.hexdigest()[:16]}


def mpi(probe):
    """The MPI here, and its daemons: those on the PATH that ssh gives, and those beside this Python.

    Parameters
    ----------
    probe : module, ``brmpi.cluster.probe``
    """
    beside = str(Path(sys.executable).parent)
    near = {name: found for name in DAEMONS for found in [shutil.which(name, path=beside)] if found}
    return {"library": probe.guarded(probe.mpi)[0], "mpirun": shutil.which("mpirun"),
            "daemons": {name: found for name in DAEMONS for found in [shutil.which(name)] if found}, "near": near,
            "path": os.environ.get("PATH", "")}


def redis(probe):
    """What redis-server says of itself: it can refuse to start where pages are large; None without one.

    Parameters
    ----------
    probe : module, ``brmpi.cluster.probe``
    """
    if not _which("redis-server"):
        return None
    said, failed = probe.guarded(lambda: probe.output("redis-server", "--version"))
    return {"version": said, "failed": failed}


def disks():
    """Space where runs, MPI's session and its shared memory are written: free and in all [bytes]."""
    found = {}
    for path in (str(Path.home()), os.environ.get("TMPDIR", "/tmp"), "/dev/shm"):
        if os.path.isdir(path):  # noqa: PTH112
            space = os.statvfs(path)
            found[path] = {"free": space.f_bavail * space.f_frsize, "total": space.f_blocks * space.f_frsize}
    return found


def addresses(probe):
    """Addresses of interfaces that are up, without loopback: interface, address and length of its prefix or None.

    Parameters
    ----------
    probe : module, ``brmpi.cluster.probe``
    """
    said = probe.guarded(lambda: json.loads(probe.output("ip", "-json", "address", "show", "up", "scope", "global")))[0]
    if said is None:
        return [{"interface": link["name"], "address": link["address"], "prefix": None}
                for link in probe.interfaces() if link["address"]]
    return [{"interface": link["ifname"], "address": one["local"], "prefix": one["prefixlen"]}
            for link in said if link.get("ifname") != "lo" for one in link.get("addr_info", ()) if "local" in one]


def _which(name):
    return shutil.which(name, path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin:/usr/local/sbin")


class Listener:
    """A door that tells whoever knocks the name of this node.

    Parameters
    ----------
    name : str
    address : str, the one to listen at; "" for all, of both families
    """

    def __init__(self, name, address):
        self.name = name
        both = not address and socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if both or ":" in address else socket.AF_INET
        self.door = socket.create_server((address, 0), family=family, backlog=64, dualstack_ipv6=both)
        self.port = self.door.getsockname()[1]
        threading.Thread(target=self._answer, daemon=True).start()

    def _answer(self):
        while True:
            guest, _ = self.door.accept()
            with guest:
                guest.sendall(self.name.encode() + b"\n")


def tried(peer, own, seconds):
    """How a peer is reached from here.

    Parameters
    ----------
    peer : dict: ``name``, ``address`` as the inventory has it, ``at`` (its IP address on the cluster's network) and
        ``port``
    own : str, this node's address on that network, "" if not known
    seconds : float, limit of time of each attempt [s]

    Returns
    -------
    dict: ``to``; ``resolves``, by name: IP addresses, [] where it does not; ``port``, None when it answers, else why
    not: "refused", "no answer", "no route" or what the system says
    """
    names = {name: _resolved(name) for name in dict.fromkeys((peer["name"], peer["address"]))}
    return {"to": peer["name"], "resolves": names, "port": _knock(peer, own, seconds)}


def _resolved(name):
    try:
        return sorted({found[4][0] for found in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)})
    except OSError:
        return []


def _knock(peer, own, seconds):
    try:
        with socket.create_connection((peer["at"], peer["port"]), seconds, (own, 0) if own else None) as door:
            said = door.makefile().readline().strip()
    except socket.timeout:  # noqa: UP041 - another class before Python 3.10
        return "no answer"
    except ConnectionRefusedError:
        return "refused"
    except OSError as error:
        local = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EACCES, errno.EPERM, errno.EINVAL)
        return "no route" if error.errno in local else error.strerror or str(error)
    return None if said == peer["name"] else "another computer answers"


def serve(probe, name, network):
    """Hold the talk, to its end.

    Parameters
    ----------
    probe : module, ``brmpi.cluster.probe``
    name : str, this node's
    network : str or None, the CIDR that MPI may use; without one, the door listens at all addresses
    """
    signal.alarm(LIFE)
    told = facts(probe)
    own = within(told["addresses"] or [], network)
    listener = Listener(name, own or "")
    _say(dict(told, at=own, port=listener.port))
    for line in iter(sys.stdin.buffer.readline, b""):
        asked = json.loads(line.decode())
        _say(_at_once(lambda peer: tried(peer, own or "", asked["seconds"]), asked["peers"]))  # noqa: B023


def _at_once(work, items):
    # plain threads: importing concurrent.futures takes a slow node longer than the work
    done = [None] * len(items)

    def one(place):
        done[place] = work(items[place])

    threads = [threading.Thread(target=one, args=[place]) for place in range(len(items))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return done


def within(found, network):
    """The first of a node's addresses in a network.

    Parameters
    ----------
    found : list of dict, as from ``addresses``
    network : str or None, CIDR

    Returns
    -------
    str or None
    """
    import ipaddress

    if network is None:
        return None
    inside = ipaddress.ip_network(network)
    return next((one["address"] for one in found if ipaddress.ip_address(one["address"]) in inside), None)


def _say(answer):
    sys.stdout.write(MARK + json.dumps(answer) + "\n")
    sys.stdout.flush()
