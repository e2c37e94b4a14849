"""``brmpi submit --engine slurm``: the same job as an sbatch script, for a cluster that has grown past a shelf.

In the allocation ``python -m brmpi.spool.slurm`` runs it as ``brmpi run`` does, on the hosts and slots that Slurm
gives, goes on from a checkpoint if there is one, and asks Slurm for another start after a loss or a failure, as
often as the job may have.
"""

import argparse
import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import uuid
from dataclasses import replace

from brmpi.cluster import inventory, launch
from brmpi.cluster.job import Host
from brmpi.errors import BadInput, Fault
from brmpi.spool import spec, supervisor

PATIENCE = 60  # seconds that Slurm may take to answer
AGAIN = 75  # exit code of a job that goes on from its checkpoint


def script(record):
    """The job for sbatch.

    Parameters
    ----------
    record : dict, from ``spec.record``

    Returns
    -------
    str

    Raises
    ------
    BadInput : what Slurm cannot be told
    """
    told, need, count = json.loads(record["spec"]), json.loads(record["class"]), record["count"]
    lines = [f"--job-name={re.sub(r'[^A-Za-z0-9._-]', '_', record['name'])}", f"--ntasks={need['ranks']}",
             f"--cpus-per-task={need['threads']}", f"--chdir={told['folder']}", "--requeue", "--open-mode=append",
             f"--output=slurm-{'%A_%a' if count else '%j'}.log", "--signal=B:USR2@60"]
    if need["memory"]:
        lines.append(f"--mem-per-cpu={-(-need['memory'] // need['threads'])}M")
    if need["limit"]:
        lines.append(f"--time={max(1, round(need['limit'] / 60))}")
    if count:
        lines.append(f"--array=0-{count - 1}")
    wanted = [*need["tags"], *([f"[{'|'.join(need['nodes'])}]"] if len(need["nodes"]) > 1 else need["nodes"])]
    if wanted:
        lines.append(f"--constraint={'&'.join(wanted)}")
    if record["after"]:
        lines.append(f"--dependency=afterok:{':'.join(record['after'])}")
    if record["priority"]:
        lines.append(f"--nice={-10 * record['priority']}")
    for line in lines:
        if not line.isprintable():
            raise BadInput(f"{line!r}: holds signs that no line of an sbatch script may have")
    words = [
        "exec",
        sys.executable,
        "-m",
        "brmpi.spool.slurm",
        f"--retries={record['retries']}",
        f"--losses={record['cap']}",
    ]
    words += [f"--out={told['out']}"] if told["out"] else []
    body = shlex.join([*words, "--", *told["argv"]])
    kept = "".join(f"export {name}={shlex.quote(os.environ[name])}\n" for name in ("BRMPI_HOSTFILES", "PYTHONPATH")
                   if name in os.environ)
    return (
        "#!/bin/bash\n"
        + "".join(f"#SBATCH {_option(line)}\n" for line in lines)
        + f"{kept}umask {told['umask']:04o}\n{body}\n"
    )


def _option(line):
    """An option as sbatch reads it: with quotes where it holds a space."""
    name, _, value = line.partition("=")
    if not value or re.fullmatch(r"[\w./:%@&|\[\],=+-]*", value):
        return line
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'{name}="{escaped}"'


def submit(record):
    """Hand a job to Slurm.

    Parameters
    ----------
    record : dict, from ``spec.record``

    Returns
    -------
    str, Slurm's number of it

    Raises
    ------
    BadInput : sbatch is not installed, or refuses it
    Fault : Slurm does not answer
    """
    if shutil.which("sbatch") is None:
        raise BadInput("--engine slurm: sbatch is not installed here (slurm-client)")
    try:
        done = subprocess.run(
            ["sbatch", "--parsable"], input=script(record), capture_output=True, text=True, timeout=PATIENCE
        )
    except subprocess.TimeoutExpired as error:
        raise Fault(f"sbatch does not answer: {error}") from None
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise BadInput(f"sbatch: {said[-1] if said else f'exit code {done.returncode}'}")
    return done.stdout.strip().partition(";")[0]


def hosts():
    """The hosts of this allocation, with their slots.

    Returns
    -------
    tuple of Host

    Raises
    ------
    BadInput : this is no allocation of Slurm
    Fault : Slurm does not answer
    """
    given, tasks = os.environ.get("SLURM_JOB_NODELIST"), os.environ.get("SLURM_TASKS_PER_NODE")
    if not given or not tasks:
        raise BadInput("brmpi.spool.slurm: runs in an allocation of Slurm: brmpi submit --engine slurm")
    try:
        names = subprocess.run(["scontrol", "show", "hostnames", given], capture_output=True, text=True, check=True,
                               timeout=PATIENCE).stdout.split()
    except (OSError, subprocess.SubprocessError) as error:
        raise Fault(f"scontrol does not say which hosts {given} are: {error}") from None
    counts = []
    for part in tasks.split(","):
        count, times = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part).groups()
        counts += [int(count)] * int(times or 1)
    threads = int(os.environ.get("SLURM_CPUS_PER_TASK", 1))
    found = []
    for name, count in zip(names, counts):
        node = inventory.Node(name, name)
        found.append(Host("localhost" if inventory.is_local(node) else name, count * threads, name))
    return tuple(found)


def main(argv=None):
    """Run a job in its allocation.

    Parameters
    ----------
    argv : list of str, instead of the process's own arguments

    Returns
    -------
    int, the exit code
    """
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--retries", type=int, default=0)
    parser.add_argument("--losses", type=int, default=0)
    parser.add_argument("--out")
    parser.add_argument("words", nargs="+")
    argv = sys.argv[1:] if argv is None else argv
    split = argv.index("--")
    options = parser.parse_args([*argv[:split], "x"])
    number, index = os.environ.get("SLURM_JOB_ID", "0"), os.environ.get("SLURM_ARRAY_TASK_ID", "")
    id = f"{os.environ['SLURM_ARRAY_JOB_ID']}-{index}" if index else number
    told = {"argv": argv[split + 1:], "out": options.out}
    starts = int(os.environ.get("SLURM_RESTART_COUNT", 0))
    order = {"argv": spec.words(told, id, index), "out": spec.folder_of(told, id), "again": starts > 0}
    args = launch.options(["x"])
    args.program = supervisor.program(order)
    mpi, job, module = launch.planned(args, uuid.uuid4().hex[:12], hosts())
    ranks = int(os.environ.get("SLURM_NTASKS", job.slots))
    threads = int(os.environ.get("SLURM_CPUS_PER_TASK", 1))
    outcome, lost = launch.tried(mpi, replace(job, ranks=ranks, threads=threads), None, module)
    code = outcome.code
    may = options.losses if lost or outcome.lost or code == AGAIN else 0 if code == supervisor.BAD else options.retries
    if code and starts < may:
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(["scontrol", "requeue", number], check=False, timeout=PATIENCE)
    return code


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (BadInput, Fault) as error:
        print(f"brmpi: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, BadInput) else 1)
