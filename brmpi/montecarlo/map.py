"""A function of a person's script over a list of inputs, on all ranks, with results in an HDF5 file.

    python -m brmpi.montecarlo.map script.py --range 100 --out results.h5
    mpirun -hostfile hostfiles/all python -m brmpi.montecarlo.map script.py --inputs inputs.csv --out results.h5

The function takes one input: a number of the range; a line of a text file; a dictionary by the names in the first line
of a .csv file; an entry of a .json list; a row of an .npy array, or of the first dataset of an .h5 file. The results'
file holds, for each input in order:

    /results    numbers or arrays of one shape; or texts in JSON, where results are other things or differ in shape
    /done       whether there is a result
    /seconds    that the task took
    /errors     the exception and its traceback, empty where there was none

Results are written as they come, every few seconds: with ``--restart`` only what is not there is done.
"""

import argparse
import csv
import importlib.util
import inspect
import json
import os
import pickle
import re
import sys
import time
from hashlib import blake2b
from pathlib import Path

import numpy as np

from brmpi import command, mpi
from brmpi.arguments import Parser
from brmpi.errors import BadInput
from brmpi.montecarlo.pooling import pool
from brmpi.progress import progress
from brmpi.results import disk

MOST = 10**8  # inputs
SAVED = 2.0  # seconds between writings
PATIENCE = 10.0  # seconds that tasks have after a wish to stop
NUMBER = re.compile(  # not 007
    r"[+-]?((0|[1-9][0-9]*)(\.[0-9]*)?([eE][+-]?[0-9]+)?|\.[0-9]+([eE][+-]?[0-9]+)?|inf|nan)")
FORMAT = "brmpi map 1"


def parser():
    """What the command line may hold.

    Returns
    -------
    argparse.ArgumentParser
    """
    made = Parser(prog="python -m brmpi.montecarlo.map", description=__doc__.partition("\n")[0],
                  formatter_class=argparse.RawDescriptionHelpFormatter, epilog=__doc__.partition("\n\n")[2])
    made.add_argument("script", type=Path, help="Python file with the function")
    what = made.add_mutually_exclusive_group(required=True)
    what.add_argument("--inputs", type=Path, metavar="FILE", help=".txt, .csv, .json, .npy or .h5")
    what.add_argument("--range", metavar="N", help="the numbers 0 to N - 1")
    made.add_argument("--function", metavar="NAME", help="else task, or the only public function of the script")
    made.add_argument("--out", type=Path, required=True, metavar="FILE", help="where results go, .h5")
    made.add_argument("--overwrite", action="store_true", help="let --out replace a file")
    made.add_argument("--restart", action="store_true", help="do what is not in --out yet")
    made.add_argument("--stop-at-first", action="store_true", help="end when a task has failed")
    made.add_argument("--quiet", action="store_true", help="print nothing but errors")
    return made


def inputs(options):
    """The inputs.

    Parameters
    ----------
    options : namespace, from ``parser``

    Returns
    -------
    sequence

    Raises
    ------
    BadInput : the file cannot be read, or is none of those that are known
    """
    if options.range is not None:
        if not (options.range.isascii() and options.range.isdigit()):
            raise BadInput(f"--range {options.range}: must be a whole number >= 0")
        if int(options.range) > MOST:
            raise BadInput(f"--range {options.range}: must be <= {MOST}")
        return range(int(options.range))
    file = options.inputs
    try:
        if file.suffix == ".csv":
            with file.open(newline="", encoding="utf-8-sig") as lines:
                return [{name: _value(text) for name, text in row.items()} for row in csv.DictReader(lines)]
        if file.suffix == ".json":
            found = json.loads(file.read_text(encoding="utf-8"))
            if not isinstance(found, list):
                raise BadInput(f"--inputs {file}: holds a {type(found).__name__}: must be a list")
            return found
        if file.suffix == ".npy":
            return list(np.atleast_1d(np.load(file, allow_pickle=False)))
        if file.suffix in (".h5", ".hdf5"):
            return _dataset(file)
        if file.suffix in (".txt", ""):
            return file.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(f"--inputs {file}: cannot be read: {error}") from None
    raise BadInput(f"--inputs {file}: must be .txt, .csv, .json, .npy or .h5")


def _value(text):
    """A number where a text is one."""
    if isinstance(text, str) and NUMBER.fullmatch(text.strip()):
        return float(text) if re.search("[.eEn]", text) else int(text)
    return text


def _dataset(file):
    """Rows of the first dataset."""
    import h5py

    with h5py.File(file) as opened:
        for name in opened:
            if isinstance(opened[name], h5py.Dataset) and opened[name].ndim:
                return list(opened[name][:])
    raise BadInput(f"--inputs {file}: has no dataset at its root")


def function(script, name=None):
    """The function of a script.

    Parameters
    ----------
    script : Path
    name : str or None

    Returns
    -------
    callable

    Raises
    ------
    BadInput : it cannot be imported, or which function is meant is not clear
    """
    named = f"map {script.stem}"  # no module has such a name
    spec = importlib.util.spec_from_file_location(named, script)
    if not script.is_file() or spec is None:
        raise BadInput(f"{script}: no such Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[named] = module  # pickle looks for functions there
    sys.path.insert(0, str(script.parent.resolve()))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise BadInput(f"{script}: cannot be imported: {type(error).__name__}: {error}") from error
    own = {key: value for key, value in vars(module).items()
           if inspect.isfunction(value) and value.__module__ == named and not key.startswith("_")}
    chosen = vars(module).get(name or "task")
    if callable(chosen):  # also one that was compiled or wrapped
        return chosen
    if name is None:
        name = "task" if "task" in own else next(iter(own), None) if len(own) == 1 else None
        if name is None:
            raise BadInput(f"{script}: has {len(own)} public functions, none of them task: name one with --function")
    if name not in own:
        raise BadInput(f"{script}: has no function {name!r}: known are {', '.join(own) or 'none'}")
    return own[name]


class Answers:
    """Results of all tasks, in memory and in the file.

    Parameters
    ----------
    path : Path
    count : int
    restart : bool, whether to begin with what is in the file
    about : str, which function and inputs they are of
    """

    def __init__(self, path, count, restart, about=""):
        self.path, self.count, self.about = path, count, about
        self.results, self.errors = [None] * count, [""] * count
        self.done, self.seconds = np.zeros(count, bool), np.zeros(count)
        if restart and path.exists():
            self._read()

    def _read(self):
        import h5py

        try:
            with h5py.File(self.path) as file:
                if file.attrs.get("format") != FORMAT:
                    raise BadInput(f"--out {self.path}: holds no results of a map")
                if len(file["done"]) != self.count:
                    raise BadInput(f"--out {self.path}: is of {len(file['done'])} inputs: there are {self.count}")
                if file.attrs.get("about", self.about) != self.about:
                    raise BadInput(f"--out {self.path}: is of other inputs, or of another function: there is nothing "
                                   "to go on with")
                self.done[:], self.seconds[:] = file["done"][:], file["seconds"][:]
                data, plain = file["results"], h5py.check_string_dtype(file["results"].dtype) is None
                for index in np.flatnonzero(self.done):
                    self.results[index] = data[index] if plain else json.loads(data.asstr()[index])
        except (OSError, KeyError) as error:
            raise BadInput(f"--out {self.path}: cannot be read: {error}") from None

    def write(self):
        """Write all there is; the file is the old one or the new one.

        Raises
        ------
        Fault : the disk is full
        """
        import h5py

        part = disk.part(self.path)
        try:
            with h5py.File(part, "w") as file:
                file.attrs["format"], file.attrs["about"] = FORMAT, self.about
                file["done"], file["seconds"] = self.done, self.seconds
                file.create_dataset("errors", data=np.array(self.errors, dtype=object), dtype=h5py.string_dtype())
                numbers = self._numbers()
                if numbers is not None:
                    file["results"] = numbers
                else:
                    texts = [_text(result) if done else "null" for result, done in zip(self.results, self.done)]
                    file.create_dataset("results", data=np.array(texts, dtype=object), dtype=h5py.string_dtype())
            disk.settle(self.path)
        except OSError as error:
            disk.discard(self.path)
            raise disk.fault(error, self.path, part.stat().st_size if part.exists() else 0, 0) from error

    def _numbers(self):
        """Results as one array, None where they are no numbers of one shape; what is not there is NaN or 0."""
        try:
            there = [np.asarray(self.results[index]) for index in np.flatnonzero(self.done)]
        except ValueError:  # lists within lists, of several lengths
            return None
        if not there:
            return np.full(self.count, np.nan)
        if any(one.dtype.kind not in "biufc" or one.shape != there[0].shape for one in there):
            return None
        whole = np.zeros((self.count, *there[0].shape), np.result_type(*there))
        if whole.dtype.kind in "fc":
            whole[:] = np.nan
        whole[self.done] = there
        return whole


def _text(result):
    """A result in JSON; what JSON does not know, as it would be printed."""
    try:
        return json.dumps(result, default=lambda value: value.tolist() if hasattr(value, "tolist") else repr(value))
    except (TypeError, ValueError):  # keys that are no texts, something that holds itself
        return json.dumps(repr(result))


def _plain(text):
    """A text that HDF5 can hold."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")


class _Timed:
    """A function that tells how long it took."""

    def __init__(self, called):
        self.called = called

    def __call__(self, argument):
        begin = time.perf_counter()
        return self.called(argument), time.perf_counter() - begin


class _Saver:
    """Writes answers now and then, and ends a job that was asked to stop and has tasks that take long.

    Parameters
    ----------
    answers : Answers
    stop : command.Stop
    """

    def __init__(self, answers, stop):
        self.answers, self.stop, self.asked = answers, stop, None
        self.spent, self.new = 0.0, True
        self._write()

    def came(self):
        """After an answer."""
        self.new = True
        if time.monotonic() - self.saved > max(SAVED, 10 * self.spent):
            self._write()

    def idle(self):
        """While nothing comes."""
        now = time.monotonic()
        if self.new and (self.stop.asked or now - self.saved > max(SAVED, 10 * self.spent)):
            self._write()
        if self.stop.asked:
            self.asked = self.asked or now
            if now - self.asked > PATIENCE:
                print(f"map: stopped while tasks were out, which took longer than {PATIENCE:g} s more: --restart does "
                      "them again", file=sys.stderr, flush=True)
                from mpi4py import MPI

                MPI.COMM_WORLD.Abort(command.STOPPED)

    def _write(self):
        begin = time.monotonic()
        self.answers.write()
        self.saved, self.new = time.monotonic(), False
        self.spent = self.saved - begin


def _prepared(options):
    """Function, inputs, and answers so far. Root only."""
    called = function(options.script, options.function)
    things = inputs(options)
    if options.restart and options.overwrite:
        raise BadInput("--restart and --overwrite contradict each other: go on with the file, or replace it")
    if options.out.exists() and not (options.restart or options.overwrite):
        raise BadInput(f"--out {options.out}: is there already: name another file, or add --overwrite or --restart")
    if not options.out.parent.is_dir():
        raise BadInput(f"--out {options.out}: there is no folder {options.out.parent}")
    told = ("range", len(things)) if options.range is not None else things
    about = f"{getattr(called, '__name__', 'task')} {blake2b(pickle.dumps(told), digest_size=8).hexdigest()}"
    return called, things, Answers(options.out, len(things), options.restart, about)


def run(comm, argv=None):
    """Do the tasks that are left. Collective.

    Parameters
    ----------
    comm : communicator
    argv : list of str, instead of the process's own arguments

    Returns
    -------
    int, exit code: 0 done, 1 tasks failed, 75 stopped

    Raises
    ------
    BadInput : on every rank alike, before anything was done
    Fault : the disk is full
    """
    options = parser().parse_args(argv)
    prepared = []
    mpi.on_root(comm, lambda: prepared.append(_prepared(options)))
    if comm.rank:
        function(options.script, options.function)
    with command.Stop() as stop:
        ranks = pool(comm, leave=False)
        if not ranks.is_master():
            return 0
        with ranks:
            return _mapped(ranks, *prepared[0], options, stop)


def _mapped(ranks, called, things, answers, options, stop):
    """Do the tasks that are left, on the root; returns the exit code."""
    left = np.flatnonzero(~answers.done)
    failed, began = 0, time.monotonic()
    saver = _Saver(answers, stop)

    def _tasks():
        for index in left:
            if stop.asked or (failed and options.stop_at_first):
                return  # what is out still comes
            yield (things[index],)

    with progress(True, "map", 0, len(left), options.quiet, "task") as bar:
        number = 0
        for place, wrong, answer in ranks.completed(_Timed(called), _tasks(), saver.idle):
            index, number = left[place], number + 1
            if wrong:
                failed += 1
                error, text = answer
                answers.errors[index] = _plain(f"{type(error).__name__}: {error}\n{text}")
                if failed == 1:
                    print(f"map: input {index} failed: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            else:
                answers.results[index], answers.seconds[index] = answer
                answers.done[index] = True
            bar.show(number, f"{failed} failed" if failed else "")
            saver.came()
    answers.write()
    seconds = time.monotonic() - began
    if not options.quiet:
        part = answers.seconds[left].sum() / max(seconds * ranks.size, 1e-9)
        mpi.say(f"map: {int(answers.done[left].sum())} of {len(left)} tasks in {seconds:.2f} s on {ranks.size} "
                f"rank{'s' * (ranks.size > 1)}, which worked {100 * part:.0f} % of the time; results in {options.out}")
    if stop.asked:
        return command.STOPPED
    if failed:
        print(f"map: {failed} of {len(left)} tasks failed: {options.out} holds their tracebacks under /errors",
              file=sys.stderr, flush=True)
    return 1 if failed else 0


def main():
    """Be the process. Does not return."""
    if not {"-h", "--help"}.isdisjoint(sys.argv[1:]):
        if os.environ.get("OMPI_COMM_WORLD_RANK", os.environ.get("PMI_RANK", "0")) == "0":
            parser().print_help()
        sys.exit(0)
    mpi.run(run)


if __name__ == "__main__":
    main()
