"""``brmpi submit``: a run that waits its turn."""

import json

from brmpi import speeds
from brmpi.arguments import Parser, apart
from brmpi.cluster import launch, table
from brmpi.errors import BadInput
from brmpi.spool import routing, slurm, spec
from brmpi.spool.api import Spool, run_name

VALUED = (
    "--engine",
    "--on",
    "-n",
    "--threads",
    "--memory",
    "--arch",
    "--tags",
    "--time",
    "--priority",
    "--retries",
    "--losses",
    "--after",
    "--array",
    "--key",
    "--name",
    "--kind",
    "--hostfiles",
)
FLAGS = ("--gpu", "--accelerator", "--explain", "--json")


def main(argv):
    """``brmpi submit``.

    Parameters
    ----------
    argv : list of str

    Returns
    -------
    int, the exit code

    Raises
    ------
    BadInput : a mistake on the command line, or a spool that is paused
    Fault : Redis does not answer
    """
    mine, program = apart(list(argv), VALUED, FLAGS)
    args = _parser().parse_args(mine)
    if not program:
        raise BadInput("brmpi submit: name a program, such as nbody")
    found = launch.resolve(program)
    tags = [word for word in (args.tags or "").split(",") if word]
    tags += [spec.ARCHITECTURES.get(args.arch, args.arch)] if args.arch else []
    tags += ["accelerator"] if args.gpu else []
    needs = {"ranks": args.n, "threads": args.threads, "memory": spec.size(args.memory) if args.memory else 0,
             "on": [word for word in (args.on or "").split(",") if word], "tags": tags,
             "limit": spec.seconds(args.time) if args.time else 0.0, "kind": args.kind}
    if args.engine == "slurm":
        return _slurm(args, program, found, needs)
    spool = Spool(folder=args.hostfiles)
    if args.explain:
        return _explain(spool, program, found, needs, args.json)
    job = spool.submit(program, name=args.name, priority=spec.priority(args.priority), retries=args.retries,
                       losses=args.losses, after=[word for word in (args.after or "").split(",") if word],
                       count=spec.indices(args.array) if args.array else 0, key=args.key, program=found, **needs)
    if args.json:
        print(json.dumps({"id": job.id}))
    else:
        print(f"job {job.id}: see it with brmpi queue, brmpi logs -f {job.id}")
    return 0


def _slurm(args, program, found, needs):
    """The same job for Slurm, which knows its nodes itself."""
    need = spec.needs(needs["ranks"] or 1, needs["threads"], needs["memory"], needs["tags"],
                      [word for word in needs["on"] if word != "all"], (), needs["limit"])
    record = spec.record(program, need, name=args.name, priority=spec.priority(args.priority), retries=args.retries,
                         cap=args.losses, after=[word for word in (args.after or "").split(",") if word],
                         count=spec.indices(args.array) if args.array else 0, out=run_name(found[1], program))
    if args.explain:
        print(slurm.script(record), end="")
        return 0
    id = slurm.submit(record)
    print(json.dumps({"id": id, "engine": "slurm"}) if args.json else f"job {id} of Slurm: see it with squeue")
    return 0


def _explain(spool, program, found, needs, as_json):
    need, why, _ = spool.planned(program, program=found, **needs)
    told, nodes = json.loads(need), spool.store.nodes()
    rows = [(node, routing.fits(node, told["tags"], told["nodes"])) for node in nodes]
    if as_json:
        print(json.dumps({"needs": told, "why": why, "nodes": {node["name"]: lacks for node, lacks in rows}}))
        return 0
    print("\n".join(why))
    if not rows:
        print("no node is there yet: brmpi agent, on each")
        return 0
    table.show({"node": "left", "slots": "right", "free": "right", "state": "left", "may have it": "left"},
               [[node["name"], node["slots"], node["free"], "drained" if node.get("drained") == "1" else node["state"],
                 "yes" if lacks is None else f"no: {lacks}"] for node, lacks in rows])
    return 0


def _parser():
    parser = Parser(prog="brmpi submit", usage="brmpi submit [options] PROGRAM [arguments] [-- arguments]",
                    description="Queue a run: it starts as soon as its nodes are free, and survives whatever fails.",
                    epilog="These options may stand behind PROGRAM too; after -- everything is the program's own.")
    parser.add_argument(
        "--on",
        metavar="NAMES",
        help="nodes, roles, architectures or tags, with commas between: each of "
        "its nodes is one of them (by kind of work)",
    )
    parser.add_argument("-n", metavar="N", type=int, help="ranks (the slots of those nodes)")
    parser.add_argument("--threads", metavar="N", type=int, default=1, help="threads of each rank, each a slot (1)")
    parser.add_argument("--memory", metavar="SIZE", help="of each rank, such as 2G (not counted)")
    parser.add_argument("--arch", metavar="NAME", help="architecture of its nodes, such as aarch64")
    parser.add_argument("--gpu", "--accelerator", action="store_true", help="nodes with an accelerator")
    parser.add_argument("--tags", metavar="WORDS", help="what each of its nodes has, with commas between")
    parser.add_argument(
        "--time", metavar="T", help="limit of its running time: 90, 15m, 2h; with one it may be let by (none)"
    )
    parser.add_argument("--priority", metavar="P", default="normal", help="low, normal, high, urgent, or -999 to 999")
    parser.add_argument("--retries", metavar="N", type=int, default=0, help="new starts after a failure (0)")
    parser.add_argument("--losses", metavar="N", type=int, default=5, help="new starts after a lost node, or where it "
                        "stopped with a checkpoint (5)")
    parser.add_argument("--after", metavar="IDS", help="jobs that are to be done before, with commas between")
    parser.add_argument("--array", metavar="0-N", help="so many jobs; {index} in the arguments is a job's number")
    parser.add_argument("--key", metavar="TEXT", help="a second submission with the same key is the same job")
    parser.add_argument("--name", metavar="TEXT", help="for brmpi queue")
    parser.add_argument("--kind", metavar="NAME", help="kind of work: heavy, parallel, distributed, coordination (the "
                        "program's)")
    parser.add_argument(
        "--engine",
        choices=("brmpi", "slurm"),
        default="brmpi",
        help="slurm: hand the same job to sbatch; with --explain only its script (brmpi)",
    )
    parser.add_argument("--explain", action="store_true", help="say which nodes may have it and why, and queue nothing")
    parser.add_argument("--json", action="store_true", help="print {\"id\": …}")
    parser.add_argument("--hostfiles", metavar="DIR", default=speeds.folder(),
                        help="folder of cluster.toml ($BRMPI_HOSTFILES, else ./hostfiles)")
    return parser
