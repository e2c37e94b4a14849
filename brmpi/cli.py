"""The ``brmpi`` command: a table of subcommands, each imported only when it is called."""

import importlib
import os
import sys

from brmpi import __version__
from brmpi.errors import BadInput, Fault

# name: (module with main(argv) -> exit code, or module:function, what it does)
COMMANDS = {
    "probe": ("brmpi.cluster.probing", "measure every node of the cluster into hostfiles/probes/"),
    "hostfiles": ("brmpi.cluster.hostfile", "write hostfiles for mpirun from the probes"),
    "nodes": ("brmpi.cluster.nodes", "show the cluster as probed, and each node's share of work"),
    "tune": ("brmpi.bench.tune", "time the versions of the kernels, for --backend auto"),
    "doctor": ("brmpi.cluster.doctor", "prove that MPI jobs can work, and say how to mend what is wrong"),
    "run": ("brmpi.cluster.launch", "run a program on the cluster: mpirun, with what a small cluster needs"),
    "sync": ("brmpi.cluster.sync", "send this checkout to nodes without a shared folder, and install it there"),
    "lab": ("brmpi.cluster.labcommand", "a whole cluster on this one machine: up, exec, crash, boot, down"),
    "plot": ("brmpi.results.plot", "draw a run, or one of its files, as PNG (and GIF)"),
    "show": ("brmpi.spool.jobs:show", "say what a run was, how long it took and what was conserved; or what a job is"),
    "submit": ("brmpi.spool.submit", "queue a run: it starts when its nodes are free"),
    "queue": ("brmpi.spool.queue", "show the jobs that wait and run, and why they wait"),
    "logs": ("brmpi.spool.jobs:logs", "show what a job has printed"),
    "wait": ("brmpi.spool.jobs:wait", "wait for jobs; its exit code is the jobs'"),
    "cancel": ("brmpi.spool.jobs:cancel", "end jobs: they save before"),
    "requeue": ("brmpi.spool.jobs:requeue", "queue jobs that are over once more, from their checkpoint"),
    "collect": ("brmpi.spool.jobs:collect", "merge the results of jobs, or hand them to a reducer"),
    "drain": ("brmpi.spool.jobs:drain", "give a node no new jobs"),
    "agent": ("brmpi.spool.agent", "take queued jobs on this node"),
    "completion": ("brmpi.completion", "let the shell complete commands, programs and jobs"),
    "spool": ("brmpi.spool.server", "start, stop and look at the Redis that keeps the queue"),
}


def usage():
    """Help text of the command."""
    rows = "\n".join(f"  {name:<10} {what}" for name, (_, what) in COMMANDS.items())
    return f"usage: brmpi COMMAND [options]\n\n{rows}\n\nbrmpi COMMAND --help tells more; brmpi --version the version."


def main(argv=None):
    """Run one subcommand.

    Parameters
    ----------
    argv : list of str, instead of the process's own arguments

    Returns
    -------
    int, exit code: 0 done, 1 a fault, 2 bad input
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if argv[0] in ("-V", "--version"):
        print(f"brmpi {__version__}")
        return 0
    try:
        if argv[0] not in COMMANDS:
            raise BadInput(f"{argv[0]!r} is not a brmpi command: known are {', '.join(COMMANDS)}")
        module, _ = COMMANDS[argv[0]]
        module, _, function = module.partition(":")
        return getattr(importlib.import_module(module), function or "main")(argv[1:]) or 0
    except BadInput as error:
        print(f"brmpi: {error} (see brmpi --help)", file=sys.stderr)
        return 2
    except Fault as error:
        print(f"brmpi: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
