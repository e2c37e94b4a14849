"""A whole cluster on one Linux machine: each node a host with its own address, processes, files, speed and sshd."""

import contextlib
import json
import os
import re
import select
import shlex
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

from brmpi.cluster import atomic, inventory, labinit, labplan
from brmpi.cluster.groups import Groups
from brmpi.errors import BadInput, Fault

STATE = Path("/run/brmpi-lab")
TOOLS = {"ip": "iproute2", "tc": "iproute2", "unshare": "util-linux", "nsenter": "util-linux", "mount": "mount",
         "ssh-keygen": "openssh-client"}
PATIENCE = 20.0  # seconds for a host to start


class Lab:
    """A cluster of hosts on this machine. ``with Lab(inventory) as lab:`` brings it up, and takes it down at the end.

    Parameters
    ----------
    known : inventory.Inventory or path of one; None for a lab that is up already
    name : str, so that several can be up at once
    share : path of the folder that hosts see as ``/shared``; one that goes with the lab if not given

    Raises
    ------
    BadInput : no root, a program is missing, or no such lab is up
    """

    def __init__(self, known=None, name="lab", share=None):
        _privileged()
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}", name):
            raise BadInput(f"--name = {name!r}: must be 1 to 40 letters, digits, hyphens and underscores")
        self.name, self.state, self._share = name, STATE / name, share
        if known is not None:
            self.inventory = known if isinstance(known, inventory.Inventory) else inventory.load(".", known)
        elif (self.state / "whole").exists():
            self.inventory = inventory.load(self.state, self.state / "cluster.toml")
        else:
            raise BadInput(f"lab {self.name!r} is not up: brmpi lab up" + (f" --name {name}" if name != "lab" else ""))

    def __enter__(self):
        return self.up()

    def __exit__(self, *_):
        self.down()

    @property
    def shared(self):
        """The folder, on this machine, that hosts see as ``/shared``."""
        return Path((self.state / "share").resolve())

    @property
    def groups(self):
        """The lab's control groups."""
        return Groups.read(self.state / "groups.json")

    def up(self):
        """Start what does not run yet. A lab that this call began and cannot finish is taken down again.

        Returns
        -------
        Lab, itself

        Raises
        ------
        BadInput : sshd is not installed, or the lab is up with another inventory
        Fault : the kernel lacks or refuses something
        """
        labplan.sshd()
        with self._alone():
            new = self._switch() is None or not (self.state / "whole").exists()
            if not new and labplan.nodes(self.inventory) != labplan.read(self.state):
                raise BadInput(f"lab {self.name!r} is up with other nodes than {self.inventory.file} has: "
                               "brmpi lab down first")
            try:
                if new:
                    self._down()
                    self._found()
                self._boot([node.name for node in self.inventory.nodes])
            except BaseException:
                if new:
                    self._down()
                raise
        return self

    def down(self):
        """End every process, and remove every namespace, mount, interface, control group and file of the lab."""
        with self._alone():
            self._down()

    def boot(self, node):
        """Start a host that is off. Its disk is as it was left.

        Parameters
        ----------
        node : str
        """
        self.inventory.node(node)
        with self._alone():
            self._boot([node])

    def crash(self, node):
        """Cut a host's power: it says goodbye to nobody.

        Parameters
        ----------
        node : str
        """
        self.inventory.node(node)
        with self._alone():
            self._crash(node)

    def link(self, node, state):
        """Pull out a host's network cable, put it back, or give it another rate.

        Parameters
        ----------
        node : str
        state : "up", "down", or float [Mbit/s]
        """
        with self._alone():
            self._alive(node)
            if state in ("up", "down"):
                self._ip(self._switch(), f"link set {self._port(node)} {state}")
            else:
                self._limit(node, link=float(state))
                self._shape(node)

    def cpu(self, node, percent):
        """Hold a host to a part of a core, now and after it was off.

        Parameters
        ----------
        node : str
        percent : float or None for no limit [% of one core]
        """
        self.inventory.node(node)
        with self._alone():
            self._limit(node, cpu=percent)
            self.groups.cpu(node, percent)

    def memory(self, node, size):
        """Hold a host to an amount of memory, now and after it was off.

        Parameters
        ----------
        node : str
        size : float or None for no limit [GB]
        """
        self.inventory.node(node)
        with self._alone():
            self._limit(node, memory=size)
            self.groups.memory(node, _bytes(size))

    def pids(self, node):
        """Processes of a host, in this machine's numbering.

        Parameters
        ----------
        node : str

        Returns
        -------
        list of int
        """
        self.inventory.node(node)
        return self.groups.processes(node)

    def limits(self):
        """What each host is held to.

        Returns
        -------
        dict, node: {"cpu" [% of a core], "memory" [GB], "link" [Mbit/s], "cpuset"}, None where there is no limit
        """
        return json.loads((self.state / "limits.json").read_text())

    def status(self):
        """What each host is and does.

        Returns
        -------
        list of dicts: ``node``, ``address``, ``state`` ("up", "off", or "cut" from the network), ``processes``
        (how many) and its limits
        """
        switch = self._switch()
        ports = json.loads(_call(*_inside(switch, "ip", "-json", "link"))) if switch else []
        cut = {port["ifname"] for port in ports if "UP" not in port["flags"]}
        rows = []
        for node in self.inventory.nodes:
            state = "off" if not self._is_up(node.name) else "cut" if self._port(node.name) in cut else "up"
            rows.append({"node": node.name, "address": self._address(node.name), "state": state,
                         "processes": len(self.groups.processes(node.name)), **self.limits()[node.name]})
        return rows

    def command(self, node, argv, cwd=None, env=None):
        """What to run on this machine so that a command runs on a host, in the environment of this Python.

        Parameters
        ----------
        node : str
        argv : list of str
        cwd : path there; where this process is, if that is there too, else the home folder
        env : dict of further variables, optional

        Returns
        -------
        list of str

        Raises
        ------
        BadInput : no such node, or it is off
        """
        first = self._alive(node)
        variables = {"HOME": "/root", "USER": "root", "LOGNAME": "root", "SHELL": "/bin/bash", "LANG": "C.UTF-8",
                     "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                     "TERM": os.environ.get("TERM", "dumb")}
        variables |= dict(item.split("=") for item in labplan.VARIABLES) | (env or {})
        activate = Path(sys.prefix, "bin/activate") if sys.prefix != sys.base_prefix else None
        inner = f". {shlex.quote(str(activate))}; " if activate and activate.exists() else ""
        inner += 'cd "$0" 2>/dev/null || cd; exec "$@"'
        return [*self._held(node), "nsenter", f"--target={first}", "--mount", "--uts", "--ipc", "--net", "--pid",
                "--cgroup", "--root", "--wd", "env", "-i", *(f"{key}={value}" for key, value in variables.items()),
                "bash", "-c", inner, str(cwd or Path.cwd()), *map(str, argv)]

    def start(self, node, argv, cwd=None, env=None, **options):
        """Start a command on a host.

        Parameters
        ----------
        node : str
        argv : list of str
        cwd, env : as for ``command``
        **options : of ``subprocess.Popen``

        Returns
        -------
        subprocess.Popen
        """
        return subprocess.Popen(self.command(node, argv, cwd, env), **options)

    def run(self, node, argv, timeout=60, cwd=None, env=None):
        """Run a command on a host to its end.

        Parameters
        ----------
        node : str
        argv : list of str
        timeout : float [s]
        cwd, env : as for ``command``

        Returns
        -------
        subprocess.CompletedProcess with text

        Raises
        ------
        subprocess.TimeoutExpired : it took longer, and was ended
        """
        return subprocess.run(self.command(node, argv, cwd, env), timeout=timeout, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True)

    def login(self, node, argv=()):
        """What to run on this machine for an ssh login to a host, as from a laptop at the same switch.

        Parameters
        ----------
        node : str
        argv : list of str, a command there, optional

        Returns
        -------
        list of str
        """
        user = self.inventory.node(node).user or "root"
        self._alive(node)
        keys = self.state / "keys"
        known = ("-o", f"UserKnownHostsFile={keys / 'known_hosts'}", "-o", "GlobalKnownHostsFile=/dev/null")
        key = ("-i", str(keys / "id_ed25519"), "-o", "IdentitiesOnly=yes")
        return _inside(self._switch(), "ssh", "-F", "/dev/null", *key,
                       *known, "-o", "LogLevel=ERROR", f"{user}@{self._address(node)}", *argv)

    def _address(self, node):
        return labplan.read(self.state)["addresses"][node]

    def _port(self, node):
        return f"port{[known.name for known in self.inventory.nodes].index(node) + 1}"

    @contextlib.contextmanager
    def _alone(self):
        """Hold the lab against other commands. The lock is a name that the kernel forgets with this process."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as lock:
            end = time.monotonic() + 60
            while True:
                try:
                    lock.bind(f"\0brmpi-lab-{self.name}")
                    break
                except OSError as error:
                    if time.monotonic() > end:
                        raise Fault(f"lab {self.name!r} is busy with another command since a minute") from error
                    time.sleep(0.02)
            yield

    def _found(self):
        """Make everything but the hosts."""
        self.state.mkdir(parents=True, mode=0o700)
        groups = Groups.here(f"brmpi-lab-{self.name}")
        groups.save(self.state / "groups.json")  # before there is anything to clean up
        limits = labplan.limits(self.inventory)
        atomic.write(self.state / "limits.json", json.dumps(limits))
        labplan.write(self.state, self.inventory, self._share)
        groups.make("switch")
        self._wait("switch", self._launch("switch", "switch", labplan.switch(self.state),
                                          ["unshare", "--net", "--mount", "--propagation", "private"]))
        for node, held in limits.items():
            groups.make(node)
            groups.cpu(node, held["cpu"])
            groups.memory(node, _bytes(held["memory"]))
            groups.cpuset(node, held["cpuset"])
        (self.state / "whole").touch()

    def _launch(self, role, node, plan, command):
        """Start a first process in the groups of a node; it is to say that it is ready."""
        file = self.state / f"{node}.plan"
        file.write_text(json.dumps(plan))
        command = [*self._held(node), *command, sys.executable, "-IS", labinit.__file__, role, str(file)]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                text=True, start_new_session=True)

    def _held(self, node):
        """What goes before a command for it to be held to a host's limits."""
        doors = " ".join(map(shlex.quote, self.groups.doors(node)))
        return ["/bin/sh", "-c", f'for door in {doors}; do echo $$ >"$door" || exit 1; done; exec "$@"', "sh"]

    def _wait(self, node, process):
        ready, _, _ = select.select([process.stdout], [], [], PATIENCE)
        if not ready or process.stdout.readline() != "ready\n":
            self.groups.kill(node)
            raise Fault(f"{node} does not start: {process.stderr.read().strip() or f'no answer in {PATIENCE:g} s'}")

    def _boot(self, nodes):
        starting = {}
        apart = ("unshare", "--net", "--uts", "--ipc", "--pid", "--mount", "--cgroup", "--propagation", "private",
                 "--fork", "--kill-child")
        for node in nodes:
            if not self._is_up(node):
                self._crash(node)  # a start that was broken off
                starting[node] = self._launch("host", node, labplan.host(self.state, node),
                                              _inside(self._switch(), *apart, namespace="mount"))
        for node, process in starting.items():
            self._wait(node, process)
            self._wire(node)
            (self.state / f"{node}.up").touch()

    def _wire(self, node):
        """Plug a host into the switch."""
        first, port = self._first(node), self._port(node)
        prefix = labplan.read(self.state)["network"].partition("/")[2]
        self._ip(self._switch(), f"link add {port} type veth peer name eth0 netns {first}",
                 f"link set {port} master switch up")
        # an address of the hardware that stays: neighbours remember it when the host was off
        hardware = f"02:4c:00:00:00:{int(port.removeprefix('port')):02x}"
        self._ip(first, f"link set eth0 address {hardware}",
                 f"address add {self._address(node)}/{prefix} dev eth0", "link set lo up", "link set eth0 up")
        self._shape(node)

    def _shape(self, node):
        """Hold both directions of a link to its rate."""
        rate = self.limits()[node]["link"]
        for process, device in ((self._switch(), self._port(node)), (self._first(node), "eth0")):
            _call(*_inside(process, "tc", "qdisc", "replace", "dev", device, "root", "tbf", "rate",
                           f"{round(rate * 1e6)}bit", "burst", "128kb", "latency", "20ms"))

    def _crash(self, node):
        (self.state / f"{node}.up").unlink(missing_ok=True)
        switch = self._switch()
        # the cable first: ended processes would still close their connections in good order
        subprocess.run(_inside(switch, "ip", "link", "set", self._port(node), "down"), capture_output=True)
        self.groups.kill(node)
        subprocess.run(_inside(switch, "ip", "link", "delete", self._port(node)), capture_output=True)

    def _down(self):
        if (self.state / "groups.json").exists():
            self.groups.remove()
        if self.state.exists():
            shutil.rmtree(self.state)
        with contextlib.suppress(OSError):  # another lab is up
            STATE.rmdir()

    def _limit(self, node, **changed):
        limits = self.limits()
        limits[node].update(changed)
        atomic.write(self.state / "limits.json", json.dumps(limits))

    def _switch(self):
        """The switch's process; None if there is none."""
        if not (self.state / "groups.json").exists():
            return None
        return next(iter(self.groups.processes("switch")), None)

    def _first(self, node):
        """A host's first process in this machine's numbering; None if there is none."""
        for process in self.groups.processes(node):
            with contextlib.suppress(OSError):
                status = dict(line.split(":\t", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines()
                              if ":\t" in line)
                numbers = status["NSpid"].split()
                if len(numbers) == len(_numbers()) + 1 and numbers[-1] == "1" and not status["State"].startswith("Z"):
                    return process
        return None

    def _is_up(self, node):
        return (self.state / f"{node}.up").exists() and self._first(node) is not None

    def _alive(self, node):
        self.inventory.node(node)
        if not self._is_up(node):
            raise BadInput(f"{node} is off: brmpi lab boot {node}")
        return self._first(node)

    def _ip(self, process, *lines):
        _call(*_inside(process, "ip", "-batch", "-"), given="\n".join(lines))


def _inside(process, *command, namespace="net"):
    return ["nsenter", f"--target={process}", f"--{namespace}", *command]


def _numbers():
    status = Path("/proc/self/status").read_text()
    return re.search(r"^NSpid:\t(.*)$", status, re.M).group(1).split()


def _call(*command, given=None):
    done = subprocess.run(command, input=given, capture_output=True, text=True)
    if done.returncode:
        raise Fault(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def _bytes(size):
    return None if size is None else round(size * 1e9)


def _privileged():
    if os.geteuid() != 0:
        raise BadInput("brmpi lab: needs root, for namespaces, mounts and control groups: try sudo")
    for program, package in TOOLS.items():
        if shutil.which(program) is None:
            raise BadInput(f"brmpi lab: {program} is not installed: apt-get install {package}")
