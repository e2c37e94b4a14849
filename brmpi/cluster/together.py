"""What is wrong with nodes taken together: names, kinds of processor, networks that MPI would pick by mistake."""

import ipaddress
import re
from collections import Counter
from pathlib import Path

from brmpi.cluster.findings import error, outdated, release, there, warning

# interfaces of containers, virtual machines and tunnels: (how they are called, what they are)
STRAYS = ((r"docker|br-[0-9a-f]|cni|flannel|cali|podman|veth", "containers"),
          (r"virbr|vnet|lxc|lxd|vbox|vmnet", "virtual machines"), (r"tailscale|wg|zt|tun|tap", "a tunnel"))
LARGE = {"x86": "aarch64", "ARM": "x86_64"}  # the hostfile of the other kind


def findings(nodes, facts, network, here):
    """What is wrong among all nodes that were visited.

    Parameters
    ----------
    nodes : sequence of inventory.Node
    facts : dict, node name: facts
    network : str or None, cluster.network
    here : findings.Here

    Returns
    -------
    list of Finding
    """
    nodes = [node for node in nodes if node.name in facts]
    parts = (_namesakes, _pythons, _architectures, _networks)
    return [finding for part in parts for finding in part(nodes, facts, network, here)] if len(nodes) > 1 else []


def _namesakes(nodes, facts, network, here):
    names = {}
    for node in nodes:
        names.setdefault(str(facts[node.name].get("hostname")).split(".")[0].casefold(), []).append(node)
    for host, alike in names.items():
        if len(alike) > 1:
            fixes = [there(node, f"sudo hostnamectl set-hostname {node.name}") for node in alike if node.name != host]
            yield error("same-hostname", [node.name for node in alike], f"{listed(alike)} both call themselves {host}, "
                        "so that MPI takes them for one node", "; ".join(fixes))


def _pythons(nodes, facts, network, here):
    # a Python that is too old is an error of its own
    kinds = {node.name: _abi(facts[node.name]) for node in nodes
             if (python := facts[node.name].get("python")) and not outdated(python)}
    if len(set(kinds.values())) > 1:
        usual = Counter(kinds.values()).most_common(1)[0][0]
        other = [node for node in nodes if kinds.get(node.name, usual) != usual]
        said = ", ".join(f"{node.name} has {kinds[node.name]}" for node in other)
        yield warning("python-differs", [node.name for node in other],
                      f"{said}, and the others have {usual}: messages pass, but results may not be the same bits",
                      "; ".join(there(node, "sudo apt-get update && sudo apt-get full-upgrade") for node in other))


def _abi(facts):
    version = ".".join(facts["python"]["version"].split(".")[:2])
    usual = f"cpython-{version.replace('.', '')}"
    return f"Python {version}" + ("" if facts["python"]["abi"] == usual else f" ({facts['python']['abi']})")


def _architectures(nodes, facts, network, here):
    kinds = {}
    for node in nodes:
        kinds.setdefault(_family(facts[node.name].get("architecture")), []).append(node.name)
    kinds.pop(None, None)
    if {"x86", "ARM"} <= set(kinds):
        five = here.mpi and release(here.mpi).startswith("Open MPI 5")
        less = min(("x86", "ARM"), key=lambda kind: len(kinds[kind]))
        more = (here.inventory.parent if here.inventory else Path("hostfiles")) / LARGE[less]
        then = "Open MPI 5 does not support such a mix: use 4.1 everywhere, or" if five else "jobs can also be given"
        yield warning("mixed-architectures", kinds[less], f"x86 ({', '.join(kinds['x86'])}) and ARM "
                      f"({', '.join(kinds['ARM'])}) differ in long double, which no job may send, and in last digits; "
                      f"{then} one kind of node alone", f"mpirun -hostfile {more} python -m brmpi.sims.nbody")


def _family(architecture):
    if re.match(r"x86_64|amd64|i\d86", architecture or ""):
        return "x86"
    return "ARM" if re.match(r"aarch64|arm", architecture or "") else None


def _networks(nodes, facts, network, here):
    strays = {node.name: found for node in nodes if (found := _strays(node.name, facts, network))}
    if network is None:
        shared = networks(nodes, facts)
        if shared and (len(shared) > 1 or strays):
            yield warning("network-unset", [node.name for node in nodes],
                          f"cluster.network is not given, and MPI may choose among {', '.join(shared)}"
                          + (f" and {_named(strays)}" if strays else ""), _written(shared[0], here))
        return
    for node in nodes:
        if facts[node.name].get("addresses") is not None and facts[node.name].get("at") is None:
            has = ", ".join(f"{one['interface']} {one['address']}" for one in facts[node.name]["addresses"]) or "none"
            yield error("no-address", [node.name], f"{node.name} has no address in cluster.network = {network} (it has "
                        f"{has}): connect it, or correct cluster.network", there(node, "ip -brief address"))
    chosen = here.launcher.confined(network) if here.launcher else {}
    if strays and chosen and not all(here.environment.get(name) for name in chosen):
        says = f"MPI may pick {_named(strays)}: brmpi run does not, and plain mpirun does not either after"
        yield warning("stray-interface", strays, says,
                      "export " + " ".join(f"{name}={value}" for name, value in chosen.items()))


def networks(nodes, facts):
    """Networks in which every node has an address, those of the nodes' own addresses first.

    Parameters
    ----------
    nodes : sequence of inventory.Node
    facts : dict, node name: facts

    Returns
    -------
    list of str, CIDR
    """
    each, met = [], Counter()
    for node in nodes:
        mine = _places(node.name, facts)
        each.append(set(mine))
        met.update(place for place, address in mine.items() if address == node.address)
    shared = set.intersection(*each) if each else set()
    return sorted(shared, key=lambda place: (-met[place], ":" in place, place))


def ends(nodes, facts, network, resolved):
    """Where each node's ports are tried by the others.

    Without ``cluster.network`` that is the address by which it says that it is in a network of all: here its name may
    mean something that is of no use there, such as Debian's 127.0.1.1 for a machine's own name.

    Parameters
    ----------
    nodes : sequence of inventory.Node, that were visited
    facts : dict, node name: facts
    network : str or None, cluster.network
    resolved : function of str, IP addresses that a node's address in the inventory means here

    Returns
    -------
    dict, node name: its IP address for jobs, None where none is known by which another computer could reach it
    """
    shared = None if network else next(iter(networks(nodes, facts)), None)
    found = {}
    for node in nodes:
        at = _places(node.name, facts)[shared] if shared else facts[node.name]["at"]
        found[node.name] = at or min(filter(_far, resolved(node.address)), key=lambda one: ":" in one, default=None)
    return found


def _far(address):
    """Whether an address means the same on another computer."""
    address = ipaddress.ip_address(address)
    return not (address.is_loopback or address.is_link_local or address.is_unspecified)


def _places(name, facts):
    """A node's own networks, and its address in each: no strays."""
    taken, mine = _taken(facts), {}
    for one in facts[name].get("addresses") or ():
        if one["prefix"] is not None and _stray(one["interface"]) is None and taken[one["address"]] == 1:
            place = ipaddress.ip_interface(f"{one['address']}/{one['prefix']}").network
            mine.setdefault(str(place), one["address"])
    return mine


def _taken(facts):
    """How many nodes have each address."""
    return Counter(address for known in facts.values()
                   for address in {one["address"] for one in known.get("addresses") or ()})


def _strays(name, facts, network):
    """(interface, address, what it is) of a node's addresses that MPI had better not use."""
    inside = ipaddress.ip_network(network) if network else ()
    taken = _taken(facts)
    found = []
    for one in facts[name].get("addresses") or ():
        what = _stray(one["interface"])
        if (what or taken[one["address"]] > 1) and ipaddress.ip_address(one["address"]) not in inside:
            found.append((one["interface"], one["address"], what or "an address that other nodes have too"))
    return found


def _stray(interface):
    return next((what for pattern, what in STRAYS if re.match(pattern, interface)), None)


def _named(strays):
    by = {}
    for name, found in strays.items():
        for interface, _, what in found:
            by.setdefault((interface, what), []).append(name)
    return ", ".join(f"{interface} ({what}) on {', '.join(names)}" for (interface, what), names in by.items())


def _written(network, here):
    """The command that writes cluster.network."""
    file = here.inventory
    has = file is not None and file.exists() and re.search(r"^\[cluster\]", file.read_text(encoding="utf-8"), re.M)
    if has:
        return f"sed -i '/^\\[cluster\\]/a network = \"{network}\"' {file}"
    return f"sed -i '1i [cluster]\\nnetwork = \"{network}\"\\n' {file}"


def outsiders(nodes):
    """What to do about nodes that plain mpirun does not enter.

    Parameters
    ----------
    nodes : sequence of inventory.Node

    Returns
    -------
    list of Finding, one for each user
    """
    users = {}
    for node in nodes:
        users.setdefault(node.user, []).append(node)
    found = []
    for user, members in users.items():
        # before all else, as the first word counts; what follows is again for all
        lines = f"Host {' '.join(node.address for node in members)}\\n  User {user}\\nMatch all\\n"
        found.append(warning("user-unset", [node.name for node in members],
                             f"plain mpirun does not log in as {user} to {listed(members)}, because it asks ssh for no "
                             "user (brmpi run does)",
                             f"(printf '{lines}'; cat ~/.ssh/config 2>/dev/null) >~/.ssh/new; "
                             "mv ~/.ssh/new ~/.ssh/config"))
    return found


def listed(nodes):
    """Names in a sentence.

    Parameters
    ----------
    nodes : sequence of inventory.Node
    """
    return " and ".join(node.name for node in nodes)
