"""What every sampling program shares: its case, the command line, when it ends, output, restart.

A program is a subclass of ``Program`` with

    name, Case                   its name, its keys (a subclass of ``Case``)
    quantities                   dict of what it estimates: unit (may be empty)
    enough                       samples that it takes where nothing else is said
    work(), warm()               as stepping programs have them: kernels and sizes; compile them
    prepare()                    make ``estimator``: ``width``, ``block(first, count)``, ``estimates(total)`` and
                                 ``histogram(total)`` as in ``points``; perhaps ``multiple``, of which the case's
                                 block must be one. Collective
    exact()                      dict of quantity: value, where it is known
    told(values, errors)         lines for people after the table of estimates

and ``program.main(Program)`` under ``if __name__ == "__main__"``. The answer depends on the case alone, its ``block``
included; not on the ranks, nor on who sampled what.
"""

import math
import os
import shlex
import time
from dataclasses import dataclass

import numpy as np

from brmpi import backends, command, mpi, speeds
from brmpi.case import key
from brmpi.errors import BadInput
from brmpi.montecarlo.points import SOBOL_SAMPLES
from brmpi.montecarlo.record import Record
from brmpi.montecarlo.sampling import Sampling
from brmpi.progress import clock, progress

PARTS = 1000  # of the whole, for progress
FEWEST = 8  # blocks before an error is believed
CERTAIN = 512  # blocks before it is believed that there is none: what is rare may not have been seen yet


@dataclass(frozen=True)
class Case:
    """The keys that every sampling program has."""

    samples: int = key(0, "most samples to take; 0: what error or seconds ask for, else the program's own number",
                       at_least=0, at_most=2**53, free=True)
    error: float = key(math.inf, "standard error of the first estimate at which to end", above=0, free=True)
    seconds: float = key(math.inf, "running time after which to end", "s", above=0, free=True)
    block: int = key(2**16, "samples that are added up as one, and dealt out as one", at_least=1, at_most=2**40)
    checkpoint: float = key(60.0, "running time between checkpoints", "s", at_least=0, free=True)
    seed: int = key(1, "seed of all random numbers", at_least=0, at_most=2**64 - 1)
    shares: str = key("speed", "first blocks of each rank by measured speed, or equal", choices=("speed", "equal"),
                      free=True)
    dealing: str = key("dynamic", "who is free takes the next block, or shares stay", choices=("dynamic", "static"),
                       free=True)


class Program:
    """What sampling programs have alike.

    Parameters
    ----------
    case : Case
    comm : communicator
    timers : mpi.Timers
    backend : one of ``kernels.BACKENDS``
    """

    room = "montecarlo"
    kind_of_work = "events"
    Case = Case
    quantities = {}
    enough = 10**6
    estimator = None

    def __init__(self, case, comm, timers, backend):
        self.case, self.comm, self.timers, self.backend = case, comm, timers, backend
        self.speeds, self.kind = speeds.measured(comm, self.kind_of_work)
        if case.shares == "equal":
            self.speeds, self.kind = np.ones(comm.size), "equal"

    def work(self):
        """Kernels that will run, and the size of the whole problem for each."""
        return {}

    def warm(self):
        """Compile the kernels. Not collective."""

    def prepare(self):
        """Make the estimator. Collective."""
        raise NotImplementedError

    def exact(self):
        """Exact values of quantities, where they are known.

        Returns
        -------
        dict of str to float
        """
        return {}

    def told(self, values, errors):
        """Lines for people beside the table of estimates.

        Parameters
        ----------
        values, errors : (k,) float64

        Returns
        -------
        list of str
        """
        return []

    def samples(self):
        """Most samples to take: whole blocks where a block counts as one, no more than Sobol's sequence has.

        Returns
        -------
        int; 0 where there is no limit
        """
        case, way = self.case, getattr(self.case, "way", "plain")
        most = case.samples if case.samples or min(case.error, case.seconds) < math.inf else self.enough
        if way == "stratified" and most > case.block:
            most -= most % case.block
        return most or (SOBOL_SAMPLES if way == "sobol" else 0)

    def about(self):
        """What run.json says of the shares."""
        return {"speeds": {"kind": self.kind, "values": self.speeds}, "units": {"time": "samples"}}


def run(kind, comm, argv=None):
    """Run a program from its command line to its end, a stop or a fault. Collective.

    Parameters
    ----------
    kind : class, as described above
    comm : communicator
    argv : list of str, instead of the process's own arguments

    Returns
    -------
    int, exit code: 0 done, 75 stopped with a checkpoint

    Raises
    ------
    BadInput : on every rank alike, before anything was written
    Fault : as for a full disk
    """
    began = time.monotonic()
    options = command.options(kind, argv)
    case, name, before = mpi.on_root(comm, command.plan, kind, options)
    backend = backends.resolve(comm, options.backend)
    timers, held = mpi.Timers(), []
    with command.Stop() as stop:
        with timers("start"):
            program = kind(case, comm, timers, backend)
            agreed = backends.settle(comm, backend, program.work(), before)
        with timers("compile"):
            agreed = backends.warm(comm, program, agreed)
        with timers("prepare"):
            program.prepare()
            multiple = getattr(program.estimator, "multiple", 1)
            if case.block % multiple:
                raise BadInput(f"block = {case.block}: must be a multiple of {multiple}")
        with timers("start"):
            path = mpi.on_root(comm, command.claimed, kind.name, name, options, before, held)
            record = Record(comm, path, program, options, name, before, agreed)
        try:
            number, total = record.begin()
            return _sample(program, record, number, total, stop, options.quiet, began)
        except BaseException as error:
            record.failed(error)
            raise
        finally:
            for claim in held:
                os.close(claim)


def _sample(program, record, number, total, stop, quiet, began):
    """Sample to the end; returns the exit code."""
    comm, case, timers = program.comm, program.case, program.timers
    samples = program.samples()
    sampling = Sampling(comm, program.estimator, samples, case.block, program.speeds, case.dealing == "dynamic", number,
                        total)
    loop = time.monotonic()
    with progress(comm.rank == 0, program.name, 0, PARTS, quiet, "") as bar:
        watch = _Watch(program, record, samples, loop, bar)
        stopped = sampling.run(watch, lambda: stop.asked)
    seconds = time.monotonic() - loop
    timers.seconds["sampling"] = sampling.busy
    timers.seconds["waiting"] = max(0.0, seconds - sampling.busy - watch.spent)
    blocks = comm.gather(sampling.blocks)
    table = timers.reduce(comm)
    record.ran()
    sums = sampling.sums

    def _close():
        record.about["blocks"] = blocks
        record.row(sums)
        record.save(sums)
        record.end("stopped" if stopped else "done", table, time.monotonic() - began)
        if not quiet:
            taken = record.samples(sums) - number * case.block
            mpi.say(_report(program, record, sums, taken, stopped, seconds, table))

    mpi.on_root(comm, _close)
    return command.STOPPED if stopped else 0


class _Watch:
    """What the root looks at while it collects: the error, the clock, what is to be written."""

    def __init__(self, program, record, samples, loop, bar):
        self.program, self.record, self.case, self.samples = program, record, program.case, samples
        self.loop, self.bar = loop, bar
        self.saved, self.spent, self.text, self.part = loop, 0.0, "", 0.0

    def __call__(self, sums, decided):
        now = time.monotonic()
        if decided:
            enough = self._decide(sums)
        else:
            if now - self.saved >= self.case.checkpoint and sums.full[0] > self.record.kept:
                self.record.save(sums)
                self.saved = now
            part = max(self.part, (now - self.loop) / self.case.seconds)
            self.bar.show(int(PARTS * min(part, 1)), self.text)
            enough = now - self.loop >= self.case.seconds
        self.spent += time.monotonic() - now
        return enough

    def _decide(self, sums):
        """Whether the error is small enough after these blocks."""
        values, errors = self.program.estimator.estimates(sums.total)
        self.text = f"{next(iter(self.program.quantities))} = {measured(values[0], errors[0])}"
        done = self.record.samples(sums) / self.samples if self.samples else 0
        nearer = self.case.error < math.inf and 0 < errors[0] < math.inf
        self.part = max(done, (self.case.error / errors[0]) ** 2 if nearer else 0)
        if self.record.shown(sums.number):
            self.record.row(sums)
        fewest = getattr(self.program.estimator, "fewest", FEWEST)
        return sums.number >= (fewest if errors[0] else CERTAIN) and errors[0] <= self.case.error < math.inf


def measured(value, error):
    """A value and its standard error as people write them.

    Parameters
    ----------
    value, error : float

    Returns
    -------
    str, such as "3.14159 ± 0.00012"
    """
    if not (math.isfinite(error) and math.isfinite(value)) or error <= 0:
        return f"{value:.10g}" + (" ± 0" if error == 0 else "")
    digits = 1 - math.floor(math.log10(error))
    if 0 <= digits <= 15 and abs(value) < 1e6:
        return f"{value:.{digits}f} ± {error:.{digits}f}"
    places = max(0, math.floor(math.log10(abs(value) or error)) + digits)
    return f"{value:.{places}e} ± {error:.1e}"


def _report(program, record, sums, samples, stopped, seconds, table):
    """What a person reads at the end."""
    values, errors = program.estimator.estimates(sums.total)
    exact = program.exact()
    width = max(map(len, program.quantities))
    lines = []
    for (name, unit), value, error in zip(program.quantities.items(), values, errors):
        line = f"  {name:<{width}}  {measured(value, error)} {unit}".rstrip()
        if name in exact:
            line += f"    exact {exact[name]:.10g}"
            if 0 < error < math.inf:
                line += f", {(value - exact[name]) / error:+.1f} standard errors off"
        lines.append(line)
    lines += [f"  {line}" for line in program.told(values, errors)]
    if not stopped and errors[0] > program.case.error < math.inf:
        lines.append(f"  the error asked for, {program.case.error:g}, was not reached: more samples or seconds")
    whole = sum(row["mean"] for row in table.values()) or 1
    wide = max(map(len, table))
    lines.append(f"  {'seconds':<{wide}}  " + "  ".join(f"{one:>8}" for one in ("min", "mean", "max")) + "    share")
    lines += [f"  {section:<{wide}}  " + "  ".join(f"{row[one]:8.2f}" for one in ("min", "mean", "max"))
              + f"  {100 * row['mean'] / whole:5.1f} %" for section, row in table.items()]
    path = shlex.quote(str(record.path))
    follow = (f"stopped with a checkpoint; to go on, add --restart --out {path}" if stopped
              else f"see it: brmpi show {path}; brmpi plot {path}")
    spent = clock(seconds) if seconds >= 60 else f"{seconds:.2f} s"
    ranks = f"{program.comm.size} rank" + "s" * (program.comm.size > 1)
    rate = f", {samples / seconds:.3g} samples/s" if samples and seconds else ""
    return "\n".join([f"{program.name}: {samples:.4g} samples in {spent} on {ranks}{rate}", *lines, follow])


def main(kind):
    """Run a program as the process that it is: the last line of its module. Does not return.

    Parameters
    ----------
    kind : class, as described above
    """
    command.start(kind, run)
