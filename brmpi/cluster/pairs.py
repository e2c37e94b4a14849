"""Pairs of nodes: which can be tried together in one job, and what is wrong between two: pure functions."""

import shlex

from brmpi.cluster.findings import error, there, warning


def peers(node, nodes, facts, ends):
    """What a node is told of the others, for it to try them.

    Parameters
    ----------
    node : inventory.Node
    nodes : sequence of inventory.Node
    facts : dict, node name: facts, of those that were visited
    ends : dict, node name: its IP address for jobs, None where there is none

    Returns
    -------
    list of dict, as ``checkup.tried`` takes them
    """
    return [{"name": peer.name, "address": peer.address, "at": ends[peer.name], "port": facts[peer.name]["port"]}
            for peer in nodes if peer is not node and peer.name in facts and ends[peer.name]]


def together(names, pairs):
    """As many nodes as reach each other, for one job: those that fail most often are left out first.

    Parameters
    ----------
    names : sequence of str
    pairs : dict, (from, to): result with ``port``

    Returns
    -------
    list of str
    """
    left = list(names)
    while True:
        failed = {name: sum(_blocked(pairs, name, other) for other in left if other != name) for name in left}
        if not any(failed.values()):
            return left
        left.remove(max(left, key=lambda name: failed[name]))


def open_pairs(names, pairs):
    """Unordered pairs that reach each other.

    Parameters
    ----------
    names : sequence of str
    pairs : dict, (from, to): result with ``port``

    Returns
    -------
    list of (str, str)
    """
    return [(a, b) for place, a in enumerate(names) for b in names[place + 1:] if not _blocked(pairs, a, b)]


def circle(left, pairs):
    """Nodes for a job of the pairs that one node has left: that one, then as many of its partners as reach each other.

    Parameters
    ----------
    left : sequence of (str, str), not empty
    pairs : dict, (from, to): result with ``port``

    Returns
    -------
    list of str
    """
    names = [name for pair in left for name in pair]
    hub = max(names, key=names.count)
    return together([hub, *(a if b == hub else b for a, b in left if hub in (a, b))], pairs)


def rounds(left):
    """Rounds of pairs, no node twice in a round.

    Parameters
    ----------
    left : sequence of (str, str)

    Returns
    -------
    list of list of (str, str)
    """
    made = []
    while left:
        now = []
        for pair in left:
            if not any(set(pair) & set(taken) for taken in now):
                now.append(pair)
        made.append(now)
        left = [pair for pair in left if pair not in now]
    return made


def _blocked(pairs, a, b):
    return any(pairs.get(pair, {}).get("port") is not None for pair in ((a, b), (b, a)))


def findings(nodes, facts, ends, pairs, network):
    """What is wrong between nodes, before MPI is tried.

    Parameters
    ----------
    nodes : sequence of inventory.Node
    facts : dict, node name: facts
    ends : dict, node name: its IP address for jobs
    pairs : dict, (from, to): ``resolves`` and ``port`` as from ``checkup.tried``
    network : str or None, cluster.network

    Returns
    -------
    list of Finding
    """
    known = {node.name: node for node in nodes if node.name in facts}
    return [*_names(known, facts, ends, pairs), *_ports(known, facts, ends, pairs, network)]


def _names(known, facts, ends, pairs):
    lacking, wrong = {}, {}
    for (a, b), tried in pairs.items():
        here = {ends[b], known[b].address, *(one["address"] for one in facts[b].get("addresses") or ())}
        for name, found in tried["resolves"].items():
            if not found:
                lacking.setdefault(a, {})[name] = ends[b]
            elif not here & set(found):
                wrong.setdefault(a, {})[name] = ends[b], found[0]
    if lacking:
        names = {name: end for found in lacking.values() for name, end in found.items()}
        lines = shlex.quote("\\n".join(f"{end} {name}" for name, end in names.items()) + "\\n")
        fixes = [there(known[a], f"printf {lines} | sudo tee -a /etc/hosts") for a in lacking]
        yield warning("name-unresolved", lacking, f"{_told(lacking)}: jobs use addresses, but people and some programs "
                      "use names", "; ".join(fixes))
    for a, found in wrong.items():
        for name, (end, other) in found.items():
            fix = f"sudo sed -i '/[ \\t]{name}\\b/d' /etc/hosts && echo {end} {name} | sudo tee -a /etc/hosts"
            yield warning("name-elsewhere", [a], f"on {a} the name {name} means {other}, and it is at {end}",
                          there(known[a], fix))


def _told(lacking):
    by = {}
    for a, names in lacking.items():
        by.setdefault(tuple(names), []).append(a)
    return "; ".join(f"on {', '.join(nodes)} " + (f"the name {names[0]} does" if len(names) == 1 else
                     f"the names {', '.join(names)} do") + " not resolve" for names, nodes in by.items())


def _ports(known, facts, ends, pairs, network):
    blocked = {pair: tried["port"] for pair, tried in pairs.items() if tried["port"] is not None}
    for b in known:
        others = [a for a in known if (a, b) in pairs]
        if len(others) > 1 and all((a, b) in blocked for a in others):
            yield _port(f"no other node reaches {b}'s ports at {ends[b]}", others[0], b, blocked[others[0], b], known,
                        facts, ends, network, [b])
            blocked = {pair: why for pair, why in blocked.items() if b not in pair}
    for a, b in blocked:
        back = blocked.get((b, a))
        if back is not None and (blocked[a, b] != "no route", a) > (back != "no route", b):
            continue  # told the other way round
        both = f"{a} and {b} do not reach each other's ports" if back is not None else f"{a} does not reach {b}'s ports"
        yield _port(f"{both} at {ends[b]}", a, b, blocked[a, b], known, facts, ends, network, [a, b])


def _port(says, a, b, why, known, facts, ends, network, nodes):
    whom = network or ends[a]
    tools = facts[b].get("firewalls") or []
    if why == "no route":
        link = next((one["interface"] for one in facts[a].get("addresses") or () if one["address"] == ends[a]), "eth0")
        fix = there(known[a], f"sudo ip route replace {ends[b]} dev {link}")
    elif why == "another computer answers":
        fix = there(known[a], f"ip neighbour show {ends[b]}")
    elif "ufw" in tools:
        fix = there(known[b], f"sudo ufw allow from {whom}")
    elif "firewall-cmd" in tools:
        fix = there(known[b], f"sudo firewall-cmd --permanent --zone=trusted --add-source={whom} && "
                              "sudo firewall-cmd --reload")
    elif tools and "iptables" not in tools:
        fix = there(known[b], f"sudo nft insert rule inet filter input ip saddr {whom} accept")
    else:
        fix = there(known[b], f"sudo iptables -I INPUT -s {whom} -j ACCEPT")
    return error("port-blocked", nodes, f"{says} ({why}): MPI needs every port open within the cluster", fix)
