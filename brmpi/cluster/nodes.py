"""``brmpi nodes``: the cluster as probed, and the share of each kind of work that each node would get."""

import json
import sys

from brmpi import speeds
from brmpi.arguments import Parser
from brmpi.cluster import inventory, table, words

SHARED = ("compute", "memory", "gravity")
SKEW = 100.0  # ms between two clocks, from which on it is worth a warning


def main(argv):
    """``brmpi nodes``: returns 0.

    Parameters
    ----------
    argv : list of str

    Raises
    ------
    BadInput : a mistake on the command line, in the inventory, or in a probe
    """
    parser = Parser(prog="brmpi nodes", description="Show the cluster as probed, and each node's share of work.")
    parser.add_argument("--json", action="store_true", help="for programs: one object")
    inventory.options(parser)
    args = parser.parse_args(argv)
    known = inventory.load(args.hostfiles, args.inventory)
    found = speeds.records(args.hostfiles)
    found = {node.name: found.get(node.name, {"failed": "never probed"}) for node in known.nodes}
    probes = {name: facts for name, facts in found.items() if "failed" not in facts}
    if args.json:
        print(json.dumps({"network": known.network, "nodes": _listed(known, found), "totals": totals(probes),
                          "shares": shares(probes), "warnings": warnings(found)}, indent=1))
        return 0
    if probes:
        _show_machines(known, probes)
        print()
        _show_states(probes)
        print()
        _show_speeds(probes)
    for warning in warnings(found):
        print(f"Warning: {warning}.", file=sys.stderr)
    if not probes:
        print(f"No node is probed ({', '.join(found)}): run brmpi probe.")
    return 0


def totals(probes):
    """Sums over nodes of what was measured.

    Parameters
    ----------
    probes : dict, node name: probe

    Returns
    -------
    dict: ``nodes``, ``cores``, ``ram`` [bytes], and ``speeds`` by kind, each {"value", "nodes" (how many have it)}
    """
    rates = {kind: [rate for facts in probes.values() if (rate := speeds.value(facts, kind))] for kind in speeds.KINDS}
    return {"nodes": len(probes), "cores": sum(map(_cores, probes.values())), "ram": sum(map(_ram, probes.values())),
            "speeds": {kind: {"value": sum(values), "nodes": len(values)} for kind, values in rates.items()}}


def shares(probes):
    """Each node's part of the work, by kind.

    Parameters
    ----------
    probes : dict, node name: probe

    Returns
    -------
    dict, kind: {"by": kind used, "compute" or "equal"; "nodes": {node name: part, summing to 1}}
    """
    parts = {}
    for kind in SHARED if probes else ():
        vector, used = speeds.per_rank(list(probes), probes, kind)
        parts[kind] = {"by": used, "nodes": dict(zip(probes, (vector / vector.sum()).tolist()))}
    return parts


def warnings(found):
    """What a person should look at before starting a run.

    Parameters
    ----------
    found : dict, node name: probe or failure

    Returns
    -------
    list of str, sentences without a full stop
    """
    said = [f"{name} is left out: {facts['failed']}" for name, facts in found.items() if "failed" in facts]
    probes = {name: facts for name, facts in found.items() if "failed" not in facts}
    for name, facts in probes.items():
        flags = facts.get("throttled") or {}
        for key, when in (("now", "now"), ("since_boot", "since it was started")):
            if flags.get(key):
                said.append(f"{name} was slowed down {when}: {', '.join(flags[key])} (check its supply and cooling)")
        offset = (facts.get("clock") or {}).get("offset")
        if offset is not None and abs(offset) > SKEW:
            said.append(f"{name}'s clock is {offset:+,.0f} ms off, more than {SKEW:.0f} ms (check its time service)")
    return said + _releases(probes) + _namesakes(probes)


def _releases(probes):
    by = {}
    for name, facts in probes.items():
        known = facts.get("mpi")
        release = f"{known['name']} {'.'.join(known['version'].split('.')[:2])}" if known else "no MPI"
        by.setdefault(release, []).append(name)
    said = "; ".join(f"{release} on {', '.join(names)}" for release, names in by.items())
    return [f"MPI versions differ: {said} (install the same on every node)"] if len(by) > 1 else []


def _namesakes(probes):
    names = {}
    for name, facts in probes.items():
        names.setdefault(str(facts.get("hostname")).split(".")[0].casefold(), []).append(name)
    return [f"{' and '.join(alike)} both call themselves {host}, so that MPI takes them for one node "
            "(give each its own hostname)" for host, alike in names.items() if len(alike) > 1]


def _listed(known, found):
    return [{"name": node.name, "address": node.address, "roles": list(node.roles), "probe": found[node.name]}
            for node in known.nodes]


def _cores(facts):
    return (facts.get("cores") or {}).get("usable", 0)


def _ram(facts):
    return (facts.get("ram") or {}).get("total", 0)


def _gibibytes(size):
    return f"{size / 2**30:.1f}" if size else "-"


def _show_machines(known, probes):
    rows = [[node.name, ", ".join(node.roles) or "-", words.model(facts), facts.get("architecture") or "-",
             str(_cores(facts) or "-"), _gibibytes(_ram(facts))]
            for node in known.nodes if (facts := probes.get(node.name))]
    sums = totals(probes)
    sides = dict.fromkeys(("node", "roles", "model", "arch"), "left")
    table.show({**sides, "cores": "right", "RAM/GiB": "right"}, rows,
               ["total", "", "", "", str(sums["cores"]), _gibibytes(sums["ram"])])


def _show_states(probes):
    rows = []
    for name, facts in probes.items():
        heat, flags = facts.get("temperature"), facts.get("throttled")
        slowed = "-" if flags is None else "now" if flags["now"] else "before" if flags["since_boot"] else "no"
        system = (facts.get("os") or "-").replace("GNU/Linux ", "").partition(" (")[0]
        warm = "-" if heat is None else f"{heat:.0f} °C"
        rows.append([name, system, words.mpi(facts), warm, slowed, words.age(facts)])
    sides = dict.fromkeys(("node", "OS", "MPI"), "left")
    table.show({**sides, "temperature": "right", "slowed down": "right", "probed": "right"}, rows)


def _show_speeds(probes):
    parts = shares(probes)
    rows = [[name, *(words.rate(facts, kind, unit=False) for kind in speeds.KINDS),
             *(f"{100 * part['nodes'][name]:.1f} %" for part in parts.values())] for name, facts in probes.items()]
    sums = [(words.UNITS[kind][0], total) for kind, total in totals(probes)["speeds"].items()]
    whole = [words.number(total["value"] / scale) if total["nodes"] else "-" for scale, total in sums]
    heads = ["node", "GFLOP/s", "GB/s", "Gint/s", "events/s", *SHARED]
    table.show({head: "right" if head != "node" else "left" for head in heads}, rows,
               ["total", *whole, *["100 %"] * len(SHARED)])
    print("\nGint/s: 10⁹ gravity interactions a second. Percent: each node's share of that kind of work.")
    for kind, part in parts.items():
        if part["by"] != kind:
            lacking = [name for name in probes if speeds.value(probes[name], kind) is None]
            how = "equal" if part["by"] == "equal" else f"by {part['by']}"
            print(f"Shares of {kind} work are {how}: not measured on {', '.join(lacking)}.")
