"""``brmpi queue``: what waits and why, what runs and where, and when the rest is expected to begin."""

import json
import time

from brmpi.arguments import Parser
from brmpi.cluster import table
from brmpi.spool import forecast, spec
from brmpi.spool.store import OPEN, OVER, Store

RECENT = 20  # jobs that are over, of each state, with --all


def main(argv):
    """``brmpi queue``.

    Parameters
    ----------
    argv : list of str

    Returns
    -------
    int, the exit code

    Raises
    ------
    Fault : Redis does not answer
    """
    parser = Parser(prog="brmpi queue", description="The jobs that wait and run.")
    parser.add_argument("--all", action="store_true", help=f"those that are over too, the last {RECENT} of each state")
    parser.add_argument("--json", action="store_true", help="for programs: a list of records")
    args = parser.parse_args(argv)
    store = Store()
    rows = store.jobs(OPEN) + (store.jobs(OVER, RECENT) if args.all else [])
    rows.sort(key=order)
    paused, nodes = store.paused(), store.nodes()
    starts, reasons = forecast.starts(rows, nodes)
    delayed = [row for row in rows if row["state"] == "delayed" and row.get("due")]
    starts |= {row["id"]: _number(row["due"]) - time.time() for row in delayed}
    if args.json:
        print(json.dumps([{**row, "spec": json.loads(row["spec"]) if row.get("spec") else None,
                           "start": starts.get(row["id"]), "reason": why(row, reasons, paused)} for row in rows]))
        return 0
    if not rows:
        print("no jobs" + (f"; paused: {paused}" if paused else ""))
        return 0
    table.show(
        {
            "job": "right",
            "name": "left",
            "state": "left",
            "ranks": "right",
            "nodes": "left",
            "time": "right",
            "starts in": "right",
            "why": "left",
        },
        [
            [
                id,
                row.get("name", ""),
                row["state"],
                str(_need(row).get("ranks", "")),
                _where(row),
                _time(row),
                _soon(starts.get(row["id"])),
                why(row, reasons, paused),
            ]
            for id, row in alike(rows)
        ],
    )
    if paused:
        print(f"\npaused: {paused}: brmpi spool resume goes on")
    return 0


def alike(rows):
    """Jobs of an array that wait or are over in the same way, as one.

    Parameters
    ----------
    rows : list of dict, records of jobs in their order

    Returns
    -------
    list of (str, dict), a name such as 7-[0-99], and the record of the first
    """
    found = []
    for row in rows:
        base, dash, index = row["id"].partition("-")
        kind = None
        if dash and row["state"] not in ("placed", "running", "ending"):
            kind = (base, row["state"], row.get("why"), row["state"] in OVER or row.get("left"))
        if kind and found and found[-1][0] == kind:
            found[-1][2].append(int(index))
        else:
            found.append((kind, row, [int(index)] if kind else []))
    return [(row["id"] if len(indices) < 2 else f"{row['id'].partition('-')[0]}-[{ranges(indices)}]", row)
            for _, row, indices in found]


def ranges(numbers):
    """Numbers as ranges.

    Parameters
    ----------
    numbers : list of int

    Returns
    -------
    str, such as 0-4,7
    """
    parts = []
    for number in sorted(numbers):
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)


def order(row):
    """What runs first, then what waits in its order, then what is over.

    Parameters
    ----------
    row : dict, a job's record

    Returns
    -------
    tuple
    """
    place = {"ending": 0, "running": 1, "placed": 2, "queued": 3, "delayed": 4, "waiting": 5}.get(row["state"], 6)
    return place, _number(row.get("score")) if place < 6 else -_number(row.get("changed"))


def why(row, reasons, paused):
    """Why a job is where it is.

    Parameters
    ----------
    row : dict, a job's record
    reasons : dict of id to str, from ``forecast.starts``
    paused : str

    Returns
    -------
    str
    """
    if row["state"] == "queued":
        said = (paused and "the spool is paused") or reasons.get(row["id"], "")
        return "; ".join(filter(None, (row.get("why"), said)))
    if row["state"] == "waiting":
        before, left = row.get("after", ""), row.get("left")
        return f"until {before} is done" if "," not in before else f"until {before} are done: {left} to go"
    return row.get("why", "")


def _need(row):
    try:
        return json.loads(row.get("class") or "{}")
    except ValueError:
        return {}


def _number(text):
    try:
        return float(text or 0)
    except ValueError:  # a damaged record
        return 0.0


def _where(row):
    if row["state"] not in ("placed", "running", "ending"):
        return ""
    return " ".join("{}:{}".format(*part.split()[:2]) for part in row.get("hosts", "").split(",") if part)


def _time(row):
    begun = _number(row.get("started"))
    if row["state"] in ("running", "ending") and begun:
        return spec.spoken(time.time() - begun)
    if row["state"] in OVER and begun and row.get("ended"):
        return spec.spoken(_number(row["ended"]) - begun)
    return ""


def _soon(seconds):
    return "" if seconds is None else "now" if seconds < 1 else spec.spoken(seconds)
