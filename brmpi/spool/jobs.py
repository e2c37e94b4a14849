"""``brmpi wait``, ``cancel``, ``requeue``, ``drain``, ``logs``, ``show`` and ``collect``: what is done with jobs."""

import json
import os
import re
import sys
import time
from pathlib import Path

from brmpi.arguments import Parser
from brmpi.cluster import table
from brmpi.errors import BadInput
from brmpi.results import show as run
from brmpi.spool import spec
from brmpi.spool.api import Job, Spool, exit_code
from brmpi.spool.api import wait as until_over
from brmpi.spool.store import OVER, PREFIX, Store

ID = re.compile(r"\d+(-\d+)?")
LISTEN = 2.0  # seconds that a question for more of a log lasts


def _ids(parser):
    parser.add_argument("ids", metavar="ID", nargs="+", help="jobs, or arrays of them, by number")
    parser.add_argument("--json", action="store_true", help="for programs")
    return parser


def wait(argv):
    """``brmpi wait``: until jobs are over.

    Parameters
    ----------
    argv : list of str

    Returns
    -------
    int, the exit code of the first job that did not end well, else 0; 124 where the time is over

    Raises
    ------
    Refused : there is no such job
    Fault : Redis does not answer
    """
    parser = _ids(Parser(prog="brmpi wait", description="Wait until jobs are over; its exit code is the jobs'."))
    parser.add_argument("--timeout", metavar="T", help="wait no longer than this: 90, 15m, 2h")
    args = parser.parse_args(argv)
    store, limit = Store(), spec.seconds(args.timeout, "--timeout") if args.timeout else None
    ids = store.expanded(args.ids)
    if left := until_over(store, ids, limit):
        more = f", and {len(left) - 1} more are not over" if left[1:] else ""
        print(f"brmpi wait: job {left[0]} is {store.job(left[0])['state']}{more}", file=sys.stderr)
        return 124
    rows = store.records(ids)
    if args.json:
        print(json.dumps([{"id": row["id"], "state": row["state"], "code": exit_code(row)} for row in rows]))
    for row in rows:
        if row["state"] != "done" and not args.json:
            print(f"job {row['id']}: {row['state']}" + (f": {row['why']}" if row.get("why") else ""), file=sys.stderr)
    return next((code for row in rows if (code := exit_code(row))), 0)


def _each(transition, argv, parser, said):
    args = _ids(parser).parse_args(argv)
    store = Store()
    found = {id: store.call(transition, id) for id in store.expanded(args.ids)}
    store.remember()
    if args.json:
        print(json.dumps(found))
    else:
        for id, state in found.items():
            print(f"job {id}: {said(state)}")
    return 0


def cancel(argv):
    """``brmpi cancel``: end jobs.

    Parameters
    ----------
    argv : list of str

    Returns
    -------
    int, the exit code

    Raises
    ------
    Refused : there is no such job
    Fault : Redis does not answer
    """
    parser = Parser(
        prog="brmpi cancel",
        description="End jobs: those that wait at once, those that run after they have "
        "saved; brmpi requeue goes on with them.",
    )
    return _each("cancel", argv, parser,
                 lambda state: {"running": "is asked to save and end", "ending": "ends"}.get(state, state))


def requeue(argv):
    """``brmpi requeue``: once more.

    Parameters
    ----------
    argv : list of str

    Returns
    -------
    int, the exit code

    Raises
    ------
    Refused : there is no such job
    Fault : Redis does not answer
    """
    parser = Parser(prog="brmpi requeue", description="Queue jobs that are over once more; they go on from their last "
                    "checkpoint.")
    return _each("requeue", argv, parser, lambda state: state if state == "queued" else f"is {state}: nothing to do")


def drain(argv):
    """``brmpi drain``: no new jobs for a node.

    Parameters
    ----------
    argv : list of str

    Returns
    -------
    int, the exit code

    Raises
    ------
    BadInput : there is no such node
    Fault : Redis does not answer
    """
    parser = Parser(prog="brmpi drain", description="Give a node no new jobs; what runs there ends as it would.")
    parser.add_argument("node", metavar="NODE")
    parser.add_argument("--off", action="store_true", help="give it jobs again")
    parser.add_argument(
        "--gone",
        action="store_true",
        help="a person's word that it is off, and nothing of any job runs "
        "there any more: its jobs begin anew elsewhere",
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    args = parser.parse_args(argv)
    if args.off and args.gone:
        raise BadInput("--off and --gone: one or the other")
    store, how = Store(), "gone" if args.gone else "open" if args.off else "drained"
    if not store.call("drain", args.node, how):
        names = ", ".join(node["name"] for node in store.nodes())
        raise BadInput(f"{args.node}: there is no such node" + (f": known are {names}" if names else ""))
    store.remember()
    print(json.dumps({"node": args.node, "state": how}) if args.json else f"{args.node}: {how}")
    return 0


def logs(argv):
    """``brmpi logs``: what a job has printed.

    Parameters
    ----------
    argv : list of str

    Returns
    -------
    int, the exit code

    Raises
    ------
    Refused : there is no such job
    Fault : Redis does not answer
    """
    parser = Parser(prog="brmpi logs", description="What a job has printed, of all its attempts.")
    parser.add_argument("id", metavar="ID")
    parser.add_argument("-f", "--follow", action="store_true", help="go on until it is over")
    parser.add_argument("--json", action="store_true", help="for programs: an object a piece")
    args = parser.parse_args(argv)
    store, last, fence = Store(), "0", None
    store.job(args.id)
    key = f"{PREFIX}log:{args.id}"
    while True:
        over = store.job(args.id)["state"] in OVER
        block = int(LISTEN * 1000) if args.follow and not over else None
        pieces = (store.ask("xread", {key: last}, block=block) or [[key, []]])[0][1]
        for place, told in pieces:
            last = place
            if args.json:
                print(json.dumps(told), flush=True)
                continue
            if fence is not None and told["fence"] != fence:
                print("---- next attempt", flush=True)
            fence = told["fence"]
            print(told["text"], end="", flush=True)
        if not pieces and (over or not args.follow):
            return 0


def show(argv):
    """``brmpi show``: a run by its folder, or a job by its number.

    Parameters
    ----------
    argv : list of str

    Returns
    -------
    int, the exit code

    Raises
    ------
    BadInput : neither
    Fault : Redis does not answer
    """
    words = [word for word in argv if not word.startswith("-")]
    if len(words) != 1 or Path(words[0]).exists() or not ID.fullmatch(words[0]):
        return run.main(argv)
    parser = Parser(prog="brmpi show", description="What a job is, and how it went.")
    parser.add_argument("id", metavar="ID")
    parser.add_argument("--json", action="store_true", help="for programs")
    args = parser.parse_args(argv)
    spool = Spool()
    job = spool.job(args.id)
    rows = job.records()
    told = [{**row, "spec": json.loads(row["spec"]) if row.get("spec") else None} for row in rows]
    if args.json:
        print(json.dumps(told if len(told) > 1 else told[0]))
        return 0
    if len(rows) > 1:
        counts = {}
        for row in rows:
            counts[row["state"]] = counts.get(row["state"], 0) + 1
        print(
            f"jobs {args.id}-0 to {rows[-1]['id']}: " + ", ".join(f"{count} {state}" for state, count in counts.items())
        )
        return 0
    row, words = told[0], told[0]["spec"] or {"argv": ["?"], "folder": "?"}
    need = json.loads(row["class"]) if row.get("class") else {}
    lines = [
        ("job", f"{row['id']}, {row['state']}" + (f": {row['why']}" if row.get("why") else "")),
        ("program", spec.shown(words)),
        ("folder", words["folder"]),
        (
            "needs",
            spec.counted(need.get("ranks"), "rank")
            + (f" of {need['threads']} threads" if need.get("threads", 1) > 1 else "")
            + (f", {need['memory']} MiB each" if need.get("memory") else "")
            + (f", on {', '.join(need['nodes'])}" if need.get("nodes") else "")
            + (f", with {', '.join(need['tags'])}" if need.get("tags") else "")
            + (f", at most {spec.spoken(need['limit'])}" if need.get("limit") else ""),
        ),
        ("priority", row.get("priority")),
        ("submitted", _clock(row.get("submitted"))),
        ("started", _clock(row.get("started"))),
        ("ended", _clock(row.get("ended"))),
        (
            "attempts",
            f"{row.get('attempt', 0)}, {row.get('failures') or 0} failed (of {row.get('retries')} that may), "
            f"{row.get('losses') or 0} lost (of {row.get('cap')})",
        ),
        ("nodes", ", ".join("{}:{}".format(*part.split()[:2]) for part in (row.get("hosts") or "").split(",") if part)),
        ("results", ", ".join(map(os.path.relpath, job.folders()))),
    ]
    for name, value in lines:
        if value:
            print(f"{name:<10} {value}")
    return 0


def _clock(text):
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(float(text))) if text else ""


def collect(argv):
    """``brmpi collect``: the results of an array as one.

    Parameters
    ----------
    argv : list of str

    Returns
    -------
    int, the exit code

    Raises
    ------
    BadInput : jobs that are not done, or have no results
    Fault : Redis does not answer, or the reducer fails
    """
    from brmpi.spool import merge

    parser = Parser(
        prog="brmpi collect",
        usage="brmpi collect ID… [--out FILE] [--partial] [-- REDUCER…]",
        description="Merge the last diagnostics of jobs into one table, or hand their folders to a reducer.",
    )
    parser.add_argument("ids", metavar="ID", nargs="+", help="arrays or jobs")
    parser.add_argument("--out", metavar="FILE", type=Path, help="a CSV or HDF5 file (printed)")
    parser.add_argument("--partial", action="store_true", help="leave out what is not done")
    parser.add_argument("--json", action="store_true", help="for programs")
    split = argv.index("--") if "--" in argv else len(argv)
    args, reducer = parser.parse_args(argv[:split]), argv[split + 1:]
    spool = Spool()
    rows = [row for id in args.ids for row in Job(spool, id).records()]
    open_rows = [row["id"] for row in rows if row["state"] != "done"]
    if open_rows and not args.partial:
        raise BadInput(
            f"{', '.join(open_rows[:5])}{' …' if len(open_rows) > 5 else ''}: not done: brmpi wait, or --partial"
        )
    folders = {}
    for row in rows:
        for folder in Job(spool, row["id"]).folders() if row["state"] == "done" else ():
            folders[row["id"]] = folder
    if not folders:
        raise BadInput(f"{', '.join(args.ids)}: have no results")
    if reducer:
        return merge.reduced(reducer, folders)
    columns, values = merge.last_rows(folders)
    if args.out:
        merge.write(args.out, columns, values)
        print(f"{len(values)} rows of {len(columns)} columns: {args.out}")
    elif args.json:
        print(json.dumps([dict(zip(columns, row)) for row in values]))
    else:
        table.show(dict.fromkeys(columns, "right"), [[f"{value:.6g}" if isinstance(value, float) else str(value)
                                                      for value in row] for row in values])
    return 0
