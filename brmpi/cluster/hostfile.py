"""``brmpi hostfiles``: what ``mpirun -hostfile`` reads, one file for all nodes and one for each kind of node."""

from pathlib import Path

from brmpi import speeds
from brmpi.arguments import Parser
from brmpi.cluster import atomic, inventory, probe, words
from brmpi.errors import BadInput, Fault

MARK = "# Written by brmpi hostfiles, which writes it anew: do not edit."


def main(argv):
    """``brmpi hostfiles``: returns 0.

    Parameters
    ----------
    argv : list of str

    Raises
    ------
    BadInput : a mistake on the command line or in the inventory, no probes, or a person's file is in the way
    Fault : every node failed its probe, or a file cannot be written
    """
    parser = Parser(prog="brmpi hostfiles", description="Write hostfiles for mpirun: all, and one for each role, "
                    "architecture and node, and one for nodes with an accelerator.")
    parser.add_argument("--no-probe", action="store_true", help="from the inventory alone")
    parser.add_argument("--slots", metavar="N", default="cores", help="ranks a node: cores (default), threads, or N")
    parser.add_argument("--mpich", action="store_true", help="in the form of Hydra, MPICH's mpiexec")
    inventory.options(parser)
    args = parser.parse_args(argv)
    known = inventory.load(args.hostfiles, args.inventory)
    per_node = _slots(args.slots)
    if args.no_probe:
        hosts, left = [declared(node, known, per_node) for node in known.nodes], []
    else:
        hosts, left = probed(known, args.hostfiles, per_node)
    files = contents(hosts, left, args.mpich)
    gone = replace(args.hostfiles, files)
    for name, text in files.items():
        print(f"{args.hostfiles / name}: {', '.join(_lines(text))}")
    for name in gone:
        print(f"{args.hostfiles / name}: removed")
    for note in left:
        print(note["note"])
    return 0


def declared(node, known, per_node):
    """A host by what the inventory says of it; this machine's cores are counted.

    Parameters
    ----------
    node : inventory.Node
    known : inventory.Inventory
    per_node : "cores", "threads" or int, slots a node

    Returns
    -------
    dict: ``name``, ``address``, ``slots``, ``groups`` (names of its hostfiles but "all") and ``note``

    Raises
    ------
    BadInput : the inventory does not say how many cores it has
    """
    cores, threads, architecture = node.cores, node.threads, node.architecture
    if known.file is None:
        here = probe.cores()
        cores, threads, architecture = here["usable"], here["usable_threads"], probe.platform.machine()
    slots = per_node if isinstance(per_node, int) else cores if per_node == "cores" else threads or cores
    if slots is None:
        raise BadInput(f"{known.file}: nodes.{node.name}.cores is not given: without a probe it must be, "
                       f"or give --slots a number")
    facts = [node.model, node.accelerator, f"{cores} cores" if cores else None,
             f"{node.memory:g} GB" if node.memory else None, "not measured"]
    return {"name": node.name, "address": node.address, "slots": slots,
            "groups": _groups(node, architecture, node.accelerator), "note": ", ".join(filter(None, facts))}


def probed(known, folder, per_node):
    """Hosts by their probes, and why nodes are left out.

    Parameters
    ----------
    known : inventory.Inventory
    folder : path of the hostfiles
    per_node : "cores", "threads" or int, slots a node

    Returns
    -------
    hosts : list of dicts as from ``declared``, in the inventory's order
    left : list of dicts, ``groups`` and ``note`` (why) of each node that is left out

    Raises
    ------
    BadInput : there are no probes, or one cannot be used
    Fault : no node is left
    """
    found = speeds.records(folder)
    hosts, left = [], []
    if not any(node.name in found for node in known.nodes):
        raise BadInput(f"{Path(folder, 'probes')}: holds no probe of {', '.join(n.name for n in known.nodes)}: "
                       "run brmpi probe first, or use --no-probe")
    for node in known.nodes:
        facts = found.get(node.name, {"failed": "never probed"})
        if "failed" in facts:
            left.append({"groups": {node.name, *node.roles},
                         "note": f"{node.name} is left out: {' '.join(facts['failed'].split())}"})
            continue
        cores = facts.get("cores") or {}
        counted = cores.get("usable" if per_node == "cores" else "usable_threads")
        slots = per_node if isinstance(per_node, int) else counted or node.cores
        if not slots:
            raise BadInput(f"{Path(folder, 'probes', node.name)}.json: cores are not known: give --slots a number")
        told = [words.model(facts), f"{cores['physical']} cores" if cores else None,
                *(words.rate(facts, kind) for kind in ("compute", "memory", "gravity")), f"probed {facts.get('time')}"]
        hosts.append({"name": node.name, "address": node.address, "slots": slots,
                      "groups": _groups(node, facts.get("architecture"), words.accelerators(facts)),
                      "note": ", ".join(part for part in told if part and part != "-")})
    if not hosts:
        raise Fault(f"no hostfile is written: {'; '.join(node['note'] for node in left)}")
    return hosts, left


def contents(hosts, left, mpich):
    """Text of every hostfile.

    Parameters
    ----------
    hosts : list of dicts as from ``declared``
    left : list of dicts, ``groups`` and ``note`` of the nodes that are left out
    mpich : bool, Hydra's form instead of Open MPI's

    Returns
    -------
    dict, file name: text; "all" first, then roles, architectures and nodes by name
    """
    groups = {"all": hosts}
    for group in sorted({group for host in hosts for group in host["groups"]}):
        groups[group] = [host for host in hosts if group in host["groups"]]
    line = "{address}:{slots}" if mpich else "{address} slots={slots}"
    files = {}
    for group, members in groups.items():
        notes = [f"# {host['name']}: {host['note']}" for host in members]
        notes += [f"# {node['note']}" for node in left if group in {"all", *node["groups"]}]
        files[group] = "\n".join([MARK, *notes, *(line.format(**_bracketed(host, mpich)) for host in members)]) + "\n"
    return files


def replace(folder, files):
    """Write hostfiles, and remove those that an earlier call wrote and this one does not.

    Parameters
    ----------
    folder : path
    files : dict, file name: text

    Returns
    -------
    list of str, names of files removed

    Raises
    ------
    BadInput : a file by one of these names was not written here; then nothing is changed
    Fault : a file cannot be written
    """
    folder = Path(folder)
    for name in files:
        if (folder / name).exists() and not _is_ours(folder / name):
            raise BadInput(f"{folder / name}: was not written by brmpi hostfiles and is in the way: move it away, "
                           f"or rename the role or node {name!r}")
    for name, text in files.items():
        atomic.write(folder / name, text)
    gone = [path for path in sorted(folder.iterdir()) if path.name not in files and _is_ours(path)]
    for path in gone:
        path.unlink()
    return [path.name for path in gone]


def _slots(written):
    if written in ("cores", "threads"):
        return written
    if not (written.isascii() and written.isdigit() and int(written) >= 1):
        raise BadInput(f"--slots = {written!r}: must be cores, threads, or a whole number >= 1")
    return int(written)


def _groups(node, architecture, accelerated):
    extra = {architecture} if architecture else set()
    return {node.name, *node.roles, *extra, *(["accelerator"] if accelerated else [])}


def _bracketed(host, mpich):
    return {**host, "address": f"[{host['address']}]" if mpich and ":" in host["address"] else host["address"]}


def _lines(text):
    return [line for line in text.splitlines() if not line.startswith("#")]


def _is_ours(path):
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.readline().rstrip() == MARK.encode()
