"""When queued jobs are expected to begin, if what runs lasts as long as its limit. Pure: records in, seconds out."""

import contextlib
import json
import time

from brmpi.spool import routing, spec

DEPTH = 200  # jobs that are looked at


def starts(rows, nodes, now=None):
    """Expected waiting time of queued jobs.

    Parameters
    ----------
    rows : list of dict, records of jobs, queued ones in their order
    nodes : list of dict, records of nodes
    now : float, seconds since the epoch

    Returns
    -------
    starts : dict of id to float [s], where that can be said: no job before it is without a limit
    reasons : dict of id to str, why each does not run now
    """
    now = time.time() if now is None else now
    open_nodes = {node["name"]: node for node in nodes if node["state"] == "up" and node.get("drained") != "1"}
    free = {name: int(node["free"]) for name, node in open_nodes.items()}
    ends, found, reasons, unsure = [], {}, {}, False
    for row in rows:
        if row["state"] in ("placed", "running", "ending"):
            with contextlib.suppress(ValueError):  # a damaged record
                limit = float(row.get("limit") or 0)
                end = max(now, float(row.get("started") or now) + limit) if limit else None
                ends.append((end, {name: int(slots) for name, slots, _ in
                                   (part.split() for part in row.get("hosts", "").split(",") if part)}))
    for place, row in enumerate(row for row in rows if row["state"] == "queued"):
        need = _need(row)
        if need is None:
            reasons[row["id"]] = "its record cannot be read"
            continue
        able = [name for name, node in open_nodes.items() if routing.fits(node, need["tags"], need["nodes"]) is None]
        most = sum(int(open_nodes[name]["slots"]) // need["threads"] for name in able)
        if most < need["ranks"]:
            every = [node for node in nodes if routing.fits(node, need["tags"], need["nodes"]) is None]
            whole = sum(int(node["slots"]) // need["threads"] for node in every)
            where = f" on {', '.join(need['nodes'])}" if need["nodes"] else ""
            has = f" with {', '.join(need['tags'])}" if need["tags"] else ""
            wanted = spec.counted(need["ranks"], "rank")
            whole = f", with silent and drained nodes for {whole}" if whole > most else ""
            reasons[row["id"]] = f"needs room for {wanted}{where}{has}: there is room for {most}{whole}"
            continue
        before = "a job" if place == 1 else f"{place} jobs"
        reasons[row["id"]] = f"{before} before it" if place else "for free slots"
        if place >= DEPTH or unsure:
            continue
        at = now
        while sum(free[name] // need["threads"] for name in able) < need["ranks"]:
            known = [one for one in ends if one[0] is not None]
            if not known:
                unsure = True
                break
            first = min(known, key=lambda one: one[0])
            ends.remove(first)
            at = max(at, first[0])
            for name, slots in first[1].items():
                if name in free:
                    free[name] += slots
        if unsure:
            continue
        found[row["id"]], left, taken = at - now, need["ranks"], {}
        for name in sorted(able, key=lambda name: -free[name]):
            ranks = min(left, free[name] // need["threads"])
            if ranks:
                taken[name], left = ranks * need["threads"], left - ranks
                free[name] -= taken[name]
        limit = float(row.get("limit") or 0)
        ends.append((at + limit if limit else None, taken))
    return found, reasons


def _need(row):
    """What a job needs; None where its record is damaged."""
    try:
        need = json.loads(row["class"])
        return need if {"ranks", "threads", "tags", "nodes"} <= set(need) else None
    except (KeyError, ValueError, TypeError):
        return None
