"""``brmpi lab``: the command line of ``brmpi.cluster.lab``."""

import argparse
import json
import os
import sys
import time
from pathlib import Path

from brmpi import speeds
from brmpi.arguments import Parser
from brmpi.cluster import inventory, labplan, table
from brmpi.cluster.lab import Lab
from brmpi.errors import BadInput


def main(argv):
    """``brmpi lab``: returns 0, or the exit code of a command that ran on a host.

    Parameters
    ----------
    argv : list of str

    Raises
    ------
    BadInput : a mistake on the command line or in the inventory, or no root
    Fault : the kernel lacks or refuses something
    """
    args = _parser().parse_args(argv)
    if args.action == "up":
        return _up(args)
    if args.action == "down":
        Lab(inventory.this_machine(), args.name).down()  # whatever is there of it
        return 0
    lab = Lab(name=args.name)
    if args.action == "status":
        rows = lab.status()
        print(json.dumps(rows, indent=1)) if args.json else _show(rows)
    elif args.action in ("exec", "ssh"):
        command = (lab.command if args.action == "exec" else lab.login)(args.node, args.command)
        os.execvp(command[0], command)
    elif args.action in ("crash", "boot"):
        getattr(lab, args.action)(args.node)
    else:
        {"cpu": lab.cpu, "mem": lab.memory, "link": lab.link}[args.action](args.node, args.value)
    return 0


def _parser():
    parser = Parser(prog="brmpi lab", description="A whole cluster on this one Linux machine: each node a host with "
                    "its own address, processes, files, speed and sshd. Needs root.")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    def action(name, what, *arguments):
        one = actions.add_parser(name, help=what, description=f"{what[0].upper()}{what[1:]}.")
        one.add_argument("--name", default=os.environ.get("BRMPI_LAB", "lab"), help="which lab ($BRMPI_LAB, else lab)")
        for argument, options in arguments:
            one.add_argument(argument, **options)
        return one

    node = ("node", {"metavar": "NODE"})
    rest = ("command", {"metavar": "COMMAND", "nargs": "..."})
    up = action("up", "start the hosts that do not run")
    up.add_argument("inventory", metavar="INVENTORY", nargs="?", type=Path, help="the nodes (hostfiles/blackroad.toml)")
    up.add_argument("--share", metavar="DIR", type=Path, help="what hosts see as /shared (a folder of the lab)")
    action("status", "show the hosts", ("--json", {"action": "store_true", "help": "for programs: a list"}))
    action("exec", "run a command on a host, in this environment of Python", node, rest)
    action("ssh", "log in to a host, as from a laptop at the same switch", node, rest)
    action("cpu", "hold a host to a part of a core", node,
           ("value", {"metavar": "PERCENT", "type": _limit(0.1), "help": "of one core, or max"}))
    action("mem", "hold a host to an amount of memory", node,
           ("value", {"metavar": "GB", "type": _limit(0.001), "help": "or max"}))
    action("link", "pull out a host's cable, put it back, or set its rate", node,
           ("value", {"metavar": "up|down|MBIT", "type": _limit(0.01, ("up", "down"))}))
    action("crash", "cut a host's power", node)
    action("boot", "start a host that is off", node)
    action("down", "end the lab and remove all that it made")
    return parser


def _limit(least, words=("max",)):
    def limit(text):
        if text in words:
            return None if text == "max" else text
        try:
            value = float(text)
        except ValueError:
            value = 0
        if not least <= value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text}: must be {', '.join(words)}, or a number >= {least:g}")
        return value

    return limit


def _up(args):
    file = args.inventory
    if file is None:
        places = [folder / "blackroad.toml" for folder in (speeds.folder(), labplan.checkout() / "hostfiles")]
        file = next((place for place in places if place.exists()), places[0])
    if args.share and not args.share.is_dir():
        raise BadInput(f"--share {args.share}: is not a folder")
    began = time.monotonic()
    lab = Lab(file, args.name, args.share).up()
    seconds = time.monotonic() - began
    rows = lab.status()
    _show(rows)
    asked, cores = sum(row["cpu"] or 0 for row in rows), len(os.sched_getaffinity(0))
    if asked > 100 * cores or None in [row["cpu"] for row in rows]:
        print(f"Warning: this machine has {cores} cores, and the hosts may ask for more: their speeds will not stand "
              "to each other as they should (lab.<node>.cpu in the inventory).", file=sys.stderr)
    name = f" --name {args.name}" if args.name != "lab" else ""
    print(f"{len(rows)} hosts are up after {seconds:.1f} s; {lab.shared} is /shared on each.\n"
          f"Go on: brmpi lab exec{name} {rows[-1]['node']} mpirun -hostfile hostfiles/all python -m brmpi.sims.nbody")
    return 0


def _show(rows):
    def text(value, unit):
        return "-" if value is None else f"{value:g} {unit}"

    table.show({"host": "left", "address": "left", "state": "left", "of a core": "right", "memory": "right",
                "link": "right", "processes": "right"},
               [[row["node"], row["address"], row["state"], text(row["cpu"], "%"), text(row["memory"], "GB"),
                 text(row["link"], "Mbit/s"), str(row["processes"])] for row in rows])
