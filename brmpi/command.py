"""The command line of a program, from its words to its case and its folder; and how it hears that it is to stop.

Stepping programs (``program``) and sampling ones (``montecarlo.program``) share it.
"""

import argparse
import dataclasses
import os
import signal
import sys
from pathlib import Path

from brmpi import case as cases
from brmpi import kernels, mpi
from brmpi.arguments import Parser
from brmpi.errors import BadInput

STOPPED = 75  # exit code of a run that was asked to stop and can go on (EX_TEMPFAIL)
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)


class Stop:
    """Whether a signal asked this rank to stop (``asked``), from here to the end of the ``with`` block."""

    def __enter__(self):
        self.asked = False
        heard = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]  # as under nohup
        self.before = {number: signal.signal(number, self._ask) for number in heard}
        return self

    def _ask(self, number, frame):
        self.asked = True

    def __exit__(self, *_):
        for number, handler in self.before.items():
            signal.signal(number, handler)


def start(kind, run):
    """Run a program as the process that it is. Does not return.

    Help is given without MPI, which takes a second to start under Open MPI 5.

    Parameters
    ----------
    kind : class of the program, with ``name``, ``Case`` and, where it is not a simulation, ``room``; perhaps
        ``shortcuts``, keys of its case that are options too
    run : callable of kind and communicator, returning the exit code
    """
    if not {"-h", "--help"}.isdisjoint(sys.argv[1:]):
        if os.environ.get("OMPI_COMM_WORLD_RANK", os.environ.get("PMI_RANK", "0")) == "0":
            _parser(kind).print_help()
        sys.exit(0)
    mpi.run(lambda comm: run(kind, comm))


def _parser(kind):
    """What the command line may hold."""
    room = getattr(kind, "room", "sims")
    parser = Parser(
        prog=f"python -m brmpi.{room}.{kind.name}", description=kind.__doc__.partition("\n")[0],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"keys of a case (TOML file, or --set KEY=VALUE): default, unit, meaning\n{cases.described(kind.Case)}")
    parser.add_argument("case", nargs="?", help="TOML file with the keys below; without it, a small example")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a key of the case")
    shortcut = counted(kind)
    parser.add_argument(f"--{shortcut}", dest="count", metavar="N", help=f"the same as --set {shortcut}=N")
    for name in getattr(kind, "shortcuts", ()):
        parser.add_argument(f"--{name}", metavar="VALUE", help=f"the same as --set {name}=VALUE")
    parser.add_argument("--out", metavar="FOLDER", help="where the run goes; else the next free results/…")
    parser.add_argument("--overwrite", action="store_true", help="let --out replace the run that it holds")
    parser.add_argument("--restart", action="store_true", help="go on from the last checkpoint")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    parser.add_argument("--backend", default="auto", choices=kernels.BACKENDS, help="what runs the kernels")
    return parser


def counted(kind):
    """The key of a case that has an option of its own: how long the run is.

    Parameters
    ----------
    kind : class of the program

    Returns
    -------
    "steps", "samples" or "epochs"
    """
    keys = {field.name for field in dataclasses.fields(kind.Case)}
    return next((name for name in ("samples", "epochs") if name in keys), "steps")


def options(kind, argv=None):
    """The command line, the same on every rank.

    Parameters
    ----------
    kind : class of the program
    argv : list of str, instead of the process's own arguments

    Returns
    -------
    namespace: case (file or None), set (list of key and text), out, overwrite, restart, quiet, backend

    Raises
    ------
    BadInput : a word that cannot be
    """
    found = _parser(kind).parse_args(argv)
    for word in (argv if argv is not None else sys.argv[1:]):
        if word != word.encode(errors="replace").decode():
            raise BadInput(f"{word!a}: must be text in UTF-8")
    pairs = []
    for text in found.set:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise BadInput(f"--set {text}: must be KEY=VALUE")
        pairs.append((name.strip(), value.strip()))
    if found.count is not None:
        if not (found.count.isascii() and found.count.isdigit()):
            raise BadInput(f"--{counted(kind)} {found.count}: must be a whole number >= 0")
        pairs.append((counted(kind), found.count))
    pairs += [(name, told) for name in getattr(kind, "shortcuts", ()) if (told := getattr(found, name)) is not None]
    found.set = pairs
    if found.restart and found.overwrite:
        raise BadInput("--restart and --overwrite contradict each other: go on with the run, or replace it")
    if found.overwrite and not found.out:
        raise BadInput("--overwrite: needs --out FOLDER, the run to replace")
    return found


def plan(kind, options):
    """What the command line comes down to. Root only.

    Parameters
    ----------
    kind : class of the program
    options : from ``options``

    Returns
    -------
    case : kind.Case
    name : str, the case's
    before : dict or None, run.json of the run to go on with, and its ``path``

    Raises
    ------
    BadInput : a case that cannot be, nothing to go on with, or a key that a restart cannot change
    """
    from brmpi.results import folder

    name = Path(options.case).stem if options.case else "default"
    if not options.restart:
        return _possible(cases.load(kind.Case, options.case, options.set)), name, None
    path = folder.existing(kind.name, name, options.out)
    before = folder.about(path)
    for key, kinds, what in (("case", dict, "a table"), ("overrides", dict | None, "a table"),
                             ("agreed", dict | None, "a table"),
                             ("restarts", list | None, "a list")):
        if not isinstance(before.get(key), kinds):
            raise BadInput(f"{path}/run.json: {key} = {before.get(key)!r}: must be {what} to restart from")
    old = cases.build(kind.Case, before["case"], {}, f"{path}/run.json")
    values, origin = dict(before["case"]), {}
    if options.case:
        known = cases.read(options.case)
        values.update({key: value for key, value in known.items() if key not in (before.get("overrides") or {})})
        origin = dict.fromkeys(known, options.case)
    for key, text in options.set:
        values[key], origin[key] = cases.parsed(text), "--set"
    case = cases.build(kind.Case, values, origin, f"{path}/run.json")
    for field in dataclasses.fields(kind.Case):
        new, was = getattr(case, field.name), getattr(old, field.name)
        if new != was and not field.metadata["free"]:
            raise BadInput(f"{origin.get(field.name, path)}: {field.name} = {new}: the run in {path} has {was}, "
                           "and a restart cannot change it")
    if hasattr(case, "resumed"):
        case = case.resumed(before)
    return _possible(case), before.get("case_name", name), {**before, "path": str(path)}


def _possible(case):
    """The case, unless its files cannot be written as it says."""
    from brmpi.results.pieces import parallel_hdf5

    if getattr(case, "io", "root") == "mpio" and not parallel_hdf5():
        raise BadInput("io = 'mpio': h5py here cannot write a file from several ranks; io = 'root' always works")
    return case


def claimed(program, name, options, before, held):
    """Where the run goes; made, if it is new, and claimed. Root only.

    Parameters
    ----------
    program : str
    name : str, the case's
    options : from ``options``
    before : from ``plan``
    held : list, which the claim is added to; ``os.close`` gives it back

    Returns
    -------
    str, path of the folder

    Raises
    ------
    BadInput : as ``results.folder.create`` and ``claim``
    """
    from brmpi.results import folder

    path = before["path"] if before else str(folder.create(program, name, options.out, options.overwrite))
    held.append(folder.claim(path))
    return path
