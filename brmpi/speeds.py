"""How fast each node is, from its probe, and what that makes each rank: one speed vector for every kind of work.

A probe is ``<folder>/probes/<node>.json``, one object written by ``brmpi probe``: ``schema``, ``node``, ``hostname``
and ``speeds``, which for each kind of work holds ``{"value", "unit", "spread", "repeats"}``, or ``{"value": null,
"reason"}``. The value is the median over repeats for a whole node, all its cores at once; the spread is (largest -
smallest) / median. A node that could not be probed has ``{"schema", "node", "failed", "time"}`` instead. The other
keys are described in hostfiles/README.md.
"""

import json
import os
import socket
from math import isfinite
from pathlib import Path

import numpy as np

from brmpi.errors import BadInput

SCHEMA = 1
KINDS = ("compute", "memory", "gravity", "events")


def folder():
    """Where hostfiles and probes are: ``$BRMPI_HOSTFILES``, else ``./hostfiles``.

    Returns
    -------
    Path, which need not exist
    """
    return Path(os.environ.get("BRMPI_HOSTFILES") or "hostfiles")


def record(file):
    """What one file under ``probes/`` holds: a probe, or a failure to probe.

    Parameters
    ----------
    file : Path

    Returns
    -------
    dict

    Raises
    ------
    BadInput : it cannot be read, is no probe, or has another schema version
    """
    try:
        probe = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"{file}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise BadInput(f"{file}: is not JSON ({error}): run brmpi probe again") from error
    if not isinstance(probe, dict):
        raise BadInput(f"{file}: holds a {type(probe).__name__} where a probe is an object: run brmpi probe again")
    if probe.get("schema") != SCHEMA:
        raise BadInput(f"{file}: schema = {probe.get('schema')!r}, but {SCHEMA} is known: run brmpi probe again")
    for key, kind in (("node", str), ("failed", str) if "failed" in probe else ("speeds", dict)):
        if not isinstance(probe.get(key), kind):
            raise BadInput(f"{file}: {key} = {probe.get(key)!r}: must be a {kind.__name__}: run brmpi probe again")
    return probe


def records(where):
    """Everything that ``brmpi probe`` left behind, failures included.

    Parameters
    ----------
    where : path of the folder that holds ``probes/``; without ``probes/`` there are no records

    Returns
    -------
    dict, node name: probe (dict) as described above, by name

    Raises
    ------
    BadInput : a file cannot be read, is no probe, has another schema version, or repeats another's node
    """
    found, files = {}, {}
    for file in sorted(Path(where, "probes").glob("*.json")):
        probe = record(file)
        name = probe["node"]
        if name in found:
            raise BadInput(f'{file}: node = "{name}" is the node of {files[name]} too: remove one of the two')
        found[name], files[name] = probe, file
    return found


def read(where):
    """The probes of the nodes that answered.

    Parameters
    ----------
    where : path of the folder that holds ``probes/``

    Returns
    -------
    dict, node name: probe (dict); empty without probes

    Raises
    ------
    BadInput : as ``records``
    """
    return {name: probe for name, probe in records(where).items() if "failed" not in probe}


def value(probe, kind):
    """A node's speed for one kind of work.

    Parameters
    ----------
    probe : dict
    kind : str

    Returns
    -------
    float > 0, or None where it was not measured, or is not positive and finite
    """
    entry = probe["speeds"].get(kind)
    speed = entry.get("value") if isinstance(entry, dict) else None
    if isinstance(speed, bool) or not isinstance(speed, (int, float)) or not (isfinite(speed) and speed > 0):
        return None
    return float(speed)


def per_rank(hosts, probes, kind):
    """One speed a rank: its node's speed, divided among the ranks there.

    If one node lacks the kind, ``compute`` is taken for all of them; if one lacks that too, or has no probe, all
    speeds are 1. A host is a probe's by node name or hostname, in full or up to the first dot, in any case.

    Parameters
    ----------
    hosts : (size,) str, the host of each rank, in any order
    probes : dict, node name: probe
    kind : str, kind of work: one of ``KINDS``, or another that nodes may have been measured for

    Returns
    -------
    speeds : (size,) float64 > 0, in the unit of the kind used
    used : str, ``kind``, "compute" or "equal"

    Raises
    ------
    BadInput : a host could be either of two nodes
    """
    by_host = {host: _match(host, probes) for host in set(hosts)}
    nodes = [by_host[host] for host in hosts]
    if None not in nodes:
        ranks = {node: nodes.count(node) for node in set(nodes)}
        for used in dict.fromkeys((kind, "compute")):
            whole = {node: value(probes[node], used) for node in ranks}
            if None not in whole.values():
                return np.array([whole[node] / ranks[node] for node in nodes], dtype=np.float64), used
    return np.ones(len(nodes), dtype=np.float64), "equal"


def measured(comm, kind):
    """``speeds``, and which kind of work they were measured on. Collective.

    Parameters
    ----------
    comm : communicator with ``Get_rank``, ``gather`` and ``bcast``
    kind : str, kind of work

    Returns
    -------
    speeds : (size,) float64 > 0, the same on every rank
    used : str, ``kind``, "compute" or "equal"

    Raises
    ------
    BadInput : on every rank alike, if the root finds a file under ``probes/`` that is no probe
    """
    hosts = comm.gather(socket.gethostname(), root=0)
    answer = None
    if comm.Get_rank() == 0:
        try:
            answer = per_rank(hosts, read(folder()), kind)
        except BadInput as error:
            answer = error
    answer = comm.bcast(answer, root=0)
    if isinstance(answer, BadInput):
        raise answer
    return answer


def speeds(comm, kind):
    """One speed a rank, from the probes that the root reads; all 1 without probes. Collective.

    Parameters
    ----------
    comm : communicator with ``Get_rank``, ``gather`` and ``bcast``
    kind : str, kind of work: one of ``KINDS``, or a kernel's name

    Returns
    -------
    (size,) float64 > 0, the same on every rank

    Raises
    ------
    BadInput : on every rank alike, if the root finds a file under ``probes/`` that is no probe
    """
    return measured(comm, kind)[0]


def _match(host, probes):
    def called(probe, key, short):
        name = probe.get(key) if isinstance(probe.get(key), str) else ""
        name, wanted = name.casefold(), host.casefold()
        return name == wanted if not short else name.split(".")[0] == wanted.split(".")[0]

    for short in (False, True):
        for key in ("node", "hostname"):
            nodes = [node for node, probe in probes.items() if called(probe, key, short)]
            if len(nodes) > 1:
                raise BadInput(f"host {host!r} could be node {' or '.join(sorted(nodes))}, whose {key}s are alike: "
                               f"give each node its own hostname, remove probes that are not needed, and probe again")
            if nodes:
                return nodes[0]
    return None
