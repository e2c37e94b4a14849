"""The nodes of an HPL run: who they are, what their probes say of memory and speed, what each does of HPL alone."""

import json
from datetime import UTC, datetime
from pathlib import Path

from brmpi import speeds
from brmpi.cluster import atomic, inventory, launch
from brmpi.cluster.job import Host
from brmpi.errors import BadInput

SCHEMA = 1  # of what is remembered of a node alone


def named(file, known):
    """The hosts of a hostfile, with what the inventory knows of them.

    Parameters
    ----------
    file : path
    known : inventory.Inventory

    Returns
    -------
    list of Host, those on this machine first, so that rank 0 is here if any rank is

    Raises
    ------
    BadInput : it is not there, a line is none of a hostfile's, or there is no line
    """
    if not Path(file).is_file():
        raise BadInput(f"{file}: is not there: run brmpi probe, then brmpi hostfiles")
    nodes = {name: node for node in known.nodes for name in (node.name, node.address)}
    found = []
    for address, slots in launch.hostfile_lines(file):
        node = nodes.get(address)
        found.append(Host(address, slots, node.name, node.user, node.python) if node else Host(address, slots))
    if not found:
        raise BadInput(f"{file}: names no node")
    return sorted(found, key=lambda host: not inventory.is_local(host))


def told(hosts):
    """Hosts in words.

    Parameters
    ----------
    hosts : sequence of Host

    Returns
    -------
    str, names with commas between
    """
    return ", ".join(host.name or host.address for host in hosts)


def probe_of(host, probes):
    """A host's probe.

    Parameters
    ----------
    host : Host
    probes : dict, node name: probe

    Returns
    -------
    dict, empty where there is none
    """
    by_address = (facts for facts in probes.values() if facts.get("address") == host.address)
    return probes.get(host.name) or next(by_address, {})


def memory(host, probes):
    """Memory for each rank of a host.

    Parameters
    ----------
    host : Host
    probes : dict, node name: probe

    Returns
    -------
    float [bytes], or None where the probe does not tell
    """
    told = probe_of(host, probes).get("ram") or {}
    sizes = [size for size in (told.get("available"), told.get("limit")) if size]
    return min(sizes) / host.slots if told.get("available") else None


def rate(host, probes):
    """DGEMM of each rank of a host.

    Parameters
    ----------
    host : Host
    probes : dict, node name: probe

    Returns
    -------
    float [flop/s], or None where it was not measured
    """
    facts = probe_of(host, probes)
    whole = speeds.value(facts, "compute") if facts else None
    if whole is None:
        return None
    return 1e9 * whole / max(host.slots, facts["speeds"]["compute"].get("threads") or 0)  # ranks may leave cores idle


def per_rank(hosts, probes, what):
    """Memory or DGEMM of every rank.

    Parameters
    ----------
    hosts : sequence of Host
    probes : dict, node name: probe
    what : ``memory`` or ``rate``

    Returns
    -------
    list of float, or None where one is not known
    """
    each = [what(host, probes) for host in hosts]
    return None if None in each else [one for host, one in zip(hosts, each) for _ in range(host.slots)]


def record(host):
    """The file that remembers what a node does alone.

    Parameters
    ----------
    host : Host

    Returns
    -------
    Path
    """
    return speeds.folder() / "hpl" / f"{host.name or host.address}.json"


def remember(host, result):
    """Keep a node's own result.

    Parameters
    ----------
    host : Host
    result : hpcc.Result

    Raises
    ------
    Fault : the file cannot be written
    """
    asked = result.problem
    atomic.write(record(host), json.dumps({
        "schema": SCHEMA, "node": host.name or host.address, "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "n": asked.n, "nb": asked.nb, "p": asked.p, "q": asked.q, "seconds": result.seconds, "gflops": result.gflops,
        "residual": result.residual}, indent=1) + "\n")


def alone(host):
    """What a node did alone, on as many ranks as it has slots now.

    Parameters
    ----------
    host : Host

    Returns
    -------
    float [GFLOP/s], or None where that was not measured

    Raises
    ------
    BadInput : the file that remembers it cannot be used
    """
    file = record(host)
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
        if known["schema"] == SCHEMA and known["p"] * known["q"] == host.slots and known["gflops"] > 0:
            return float(known["gflops"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{file}: cannot be used ({type(error).__name__}: {error}): remove it, or measure it "
                       "again by python -m brmpi.bench.hpl --single") from error
    return None
