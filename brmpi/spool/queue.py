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
    starts |= {row["id"]: float(row["due"]) - time.time() for row in rows if row["state"] == "delayed" and row.get("due")}
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
                row["id"],
                row.get("name", ""),
                row["state"],
                str(_need(row).get("ranks", "")),
                _where(row),
                _time(row),
                _soon(starts.get(row["id"])),
                why(row, reasons, paused),
            ]
            for row in rows
        ],
    )
    if paused:
        print(f"\npaused: {paused}: brmpi spool resume goes on")
    return 0


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
    return place, float(row.get("score") or 0) if place < 6 else -float(row.get("changed") or 0)


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
        return f"for {row.get('left')} jobs before it"
    return row.get("why", "")


def _need(row):
    try:
        return json.loads(row.get("class") or "{}")
    except ValueError:
        return {}


def _where(row):
    if row["state"] not in ("placed", "running", "ending"):
        return ""
    return " ".join("{}:{}".format(*part.split()[:2]) for part in row.get("hosts", "").split(",") if part)


def _time(row):
    begun = float(row.get("started") or 0)
    if row["state"] in ("running", "ending") and begun:
        return spec.spoken(time.time() - begun)
    if row["state"] in OVER and begun and row.get("ended"):
        return spec.spoken(float(row["ended"]) - begun)
    return ""


def _soon(seconds):
    return "" if seconds is None else "now" if seconds < 1 else spec.spoken(seconds)
