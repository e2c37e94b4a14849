"""Where a job would rather run: by the kind of its work, as roles in ``cluster.toml`` say, and by what a person asks
for."""

import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from brmpi.errors import BadInput
from brmpi.spool import spec

# nodes: roles or names, of which each of its nodes has one, if any node has; prefer: in this order; one: all ranks of a
# job without -n go on one node
KINDS = {
    "heavy": {
        "prefer": ["primary", "accelerator", "compute"],
        "nodes": [],
        "one": True,
        "what": "heavy compute, on the primary node if it can",
    },
    "parallel": {
        "prefer": ["compute"],
        "nodes": ["compute"],
        "one": False,
        "what": "parallel work, on the compute nodes",
    },
    "distributed": {"prefer": [], "nodes": [], "one": False, "what": "work for all nodes"},
    "coordination": {
        "prefer": ["coordinator"],
        "nodes": [],
        "one": True,
        "what": "small work, on the coordinator if it can",
    },
}
PROGRAMS = {"brmpi.linalg": "heavy", "brmpi.train.predict": "heavy", "brmpi.train.serve": "heavy",
            "brmpi.sims": "parallel", "brmpi.train": "parallel", "brmpi.montecarlo": "distributed"}


@dataclass
class Kind:
    """A kind of work."""

    name: str
    prefer: list = field(default_factory=list)
    nodes: list = field(default_factory=list)
    one: bool = False
    what: str = ""
    source: str = "brmpi's own"


def kinds(folder):
    """Kinds of work, and which program does which.

    Parameters
    ----------
    folder : path of the hostfiles; ``[spool.kinds.<name>]`` of its ``cluster.toml`` changes and adds kinds,
        ``[spool.programs]`` programs

    Returns
    -------
    kinds : dict of str to Kind
    programs : dict of str to str

    Raises
    ------
    BadInput : a mistake in the file, with file and key
    """
    found = {name: Kind(name, **told) for name, told in KINDS.items()}
    programs, file = dict(PROGRAMS), Path(folder, "cluster.toml")
    if not file.exists():
        return found, programs
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8")).get("spool", {})
    except (OSError, ValueError) as error:
        raise BadInput(f"{file}: cannot be read: {error}") from None
    given = table.get("kinds", {}) if isinstance(table, dict) else {}
    for name, told in given.items() if isinstance(given, dict) else ():
        key = f"{file}: spool.kinds.{name}"
        if not isinstance(told, dict) or not set(told) <= {"prefer", "nodes", "one", "what"}:
            raise BadInput(f"{key}: may have prefer, nodes, one and what")
        kind = found.setdefault(name, Kind(name))
        kind.source = str(file)
        for word, value in told.items():
            good = isinstance(value, {"one": bool, "what": str}.get(word, list))
            if not good or (isinstance(value, list) and not all(isinstance(one, str) and spec.TAG.fullmatch(one)
                                                                for one in value)):
                raise BadInput(f"{key}.{word} = {value!r}: must be " + {"one": "true or false", "what": "text"}.get(
                    word, 'a list of roles, nodes or tags, such as ["compute"]'))
            setattr(kind, word, value)
    chosen = table.get("programs", {}) if isinstance(table, dict) else {}
    for name, kind in chosen.items() if isinstance(chosen, dict) else ():
        if kind not in found:
            raise BadInput(f"{file}: spool.programs.{name} = {kind!r}: must be one of {', '.join(found)}")
        programs[name] = kind
    return found, programs


def kind_of(program, module, programs):
    """The kind of work that a program does.

    Parameters
    ----------
    program : str, its first word
    module : str or None, the module that it is
    programs : dict, from ``kinds``

    Returns
    -------
    str
    """
    for name in (program, module or ""):
        while name:
            if name in programs:
                return programs[name]
            name = name.rpartition(".")[0]
    return "parallel"


@dataclass
class Request:
    """What a person asks for. None and empty: not said."""

    ranks: int | None = None
    threads: int = 1
    memory: int = 0  # of each rank [bytes]
    tags: tuple = ()
    nodes: tuple = ()
    limit: float = 0.0


def decide(request, kind, nodes):
    """What a job needs.

    Parameters
    ----------
    request : Request
    kind : Kind
    nodes : list of dict, records of the nodes that there are

    Returns
    -------
    need : str, from ``spec.needs``
    why : list of str, lines that explain it
    """
    why, chosen, source = [f"kind: {kind.name}, {kind.what} ({kind.source})"], list(request.nodes), "as asked for"
    if not chosen and kind.nodes and any(set(kind.nodes) & _words(node) for node in nodes):
        chosen, source = list(kind.nodes), f"by kind {kind.name}"
    if chosen:
        why.append(f"nodes: {', '.join(chosen)} ({source})")
    if request.tags:
        why.append(f"each has: {', '.join(request.tags)}")
    able = [node for node in nodes if fits(node, request.tags, chosen) is None]
    ranks = request.ranks
    if ranks is None:
        rooms = [_room(node, request) for node in sorted(able, key=lambda node: _liking(node, kind))]
        ranks = next((room for room in rooms if room), 1) if kind.one else max(1, sum(rooms))
        why.append(f"ranks: {ranks}, " + ("the slots of the node that it would rather have" if kind.one else
                                         f"the slots of {spec.counted(len(able), 'node')}")
                   + " (-n says otherwise)")
    if kind.prefer:
        why.append(f"rather on: {', then '.join(kind.prefer)}")
    need = spec.needs(ranks, request.threads, request.memory, request.tags, chosen, kind.prefer, request.limit)
    return need, why


def _words(node):
    return {node["name"], *node.get("tags", "").split()}


def _liking(node, kind):
    places = [place for place, tag in enumerate(kind.prefer) if tag in _words(node)]
    return (min(places, default=len(kind.prefer)), -float(node.get("speed") or 0), -int(node["slots"]), node["name"])


def _room(node, request):
    room = int(node["slots"]) // request.threads
    return min(room, int(node["memory"]) * 2**20 // request.memory) if request.memory else room


def fits(node, tags, nodes):
    """Why a job could not run on a node, even if it were idle.

    Parameters
    ----------
    node : dict, its record
    tags, nodes : sequences of str, as for ``spec.needs``

    Returns
    -------
    str, or None where it could
    """
    has = _words(node)
    lacking = [tag for tag in tags if spec.ARCHITECTURES.get(tag, tag) not in has]
    if lacking:
        return f"has no {', '.join(lacking)}"
    if nodes and not set(nodes) & has:
        return f"is none of {', '.join(nodes)}"
    return None
