"""What every runnable module shares: command line, the loop, signals, progress, output, restart.

A program is a class with

    name, Case, time_unit        its name, its keys (a ``case.Case``), the unit of time for people
    columns                      dict of its diagnostics: ``diagnostics.Column``
    Program(case, comm, timers, backend)     the initial state, from the case alone
    work()                       dict of kernel (``kernels.choice``): size of the whole problem, for all that will run
    warm()                       run each kernel once on little, which compiles it
    step()                       advance the state by ``case.dt``. Collective
    sample()                     dict of column: value, the same on every rank. Collective
    fields()                     what a snapshot holds: keyword arguments of ``snapshots.write``
    arrays()                     dict of name: Piece, all that a restart needs besides the step
    block(name, shape)           (offset, shape) of this rank's block of a state array
    restore(arrays)              take over a state
    busy, lay_out(speeds)        where its work can be shared out anew (``balance``): sections of the timers that are a
                                 rank's own work; share it out by these speeds, ``restore`` follows
    about()                      dict for run.json: what it runs on and how it is shared out
    rate(steps, seconds)         its figure of merit, for people
    told(steps)                  perhaps: lines for people at the end
    deposit(path)                perhaps: what the root writes into the run's folder beside each checkpoint
    cure                         perhaps: what may help where it blew up

and ``program.main(Program)`` under ``if __name__ == "__main__"``.
"""

import os
import shlex
import time

from brmpi import backends, command, mpi, replay
from brmpi.balance import Balance
from brmpi.errors import BadInput, BlewUp, Fault
from brmpi.journal import Journal, finite
from brmpi.kernels.opencl import Unavailable
from brmpi.progress import clock, progress

POLL = 0.05  # seconds between looks at signals and clocks
QUICK = 0.5  # seconds of a step up to which a look is answered a step later


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
    Fault : on every rank alike, as for a full disk
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
        row = None if before else _first_row(program, timers)
        with timers("start"):
            path = mpi.on_root(comm, command.claimed, kind.name, name, options, before, held)
            journal = Journal(comm, path, program, options, name, before, agreed)
        try:
            with timers("start"):
                first = journal.begin(row)
            try:
                return _loop(program, comm, journal, first, stop, timers, options.quiet, began)
            except BlewUp as late:
                raise replay.blown(kind, program, journal, late) from None
        except Unavailable as error:  # no longer bad input: work has started
            journal.failed(error)
            raise Fault(str(error)) from error
        except BaseException as error:
            journal.failed(error)
            raise
        finally:
            for claim in held:
                os.close(claim)


def _first_row(program, timers):
    """Diagnostics of the initial state; nothing is written yet, so a state that is not finite is bad input."""
    try:
        with timers("diagnostics"):
            return finite(program, 0)
    except Fault as fault:
        raise BadInput(f"the initial state cannot be computed with: {fault}") from None


def _loop(program, comm, journal, first, stop, timers, quiet, began):
    """Take the steps that are left; returns the exit code."""
    case = program.case
    poll, balance = _Poll(comm, stop, case.checkpoint), Balance(program)
    loop = time.monotonic()
    step = first
    with progress(comm.rank == 0, program.name, first, case.steps, quiet) as bar:
        while step < case.steps:
            stopping, due, looked = poll(step)
            if stopping or due:
                journal.checkpoint(step)
                poll.saved = time.monotonic()
            if stopping:
                break
            if looked and balance(step):
                journal.shared(balance.changes)
            program.step()
            step += 1
            if journal.sampled(step):
                journal.sample(step)
            if journal.shown(step):
                journal.snapshot(step)
            bar.show(step, f"t = {step * case.dt:.6g} {program.time_unit}".rstrip())
    poll.close()
    getattr(program, "close", lambda: None)()
    seconds = time.monotonic() - loop
    done = step == case.steps
    if done and step > first:
        journal.checkpoint(step)
    table = timers.reduce(comm)
    journal.ran()
    mpi.on_root(comm, journal.end, "done" if done else "stopped", step, table, time.monotonic() - began)
    if comm.rank == 0 and not quiet:
        mpi.say(_report(program, journal.path, done, step, step - first, seconds, table, balance.changes))
    return 0 if done else command.STOPPED


def _report(program, path, done, step, steps, seconds, table, changes):
    """What a person reads at the end."""
    width = max(map(len, table))
    whole = sum(row["mean"] for row in table.values()) or 1
    rows = "".join(f"\n  {name:<{width}}  " + "  ".join(f"{row[key]:8.2f}" for key in ("min", "mean", "max"))
                   + f"  {100 * row['mean'] / whole:5.1f} %" for name, row in table.items())
    rate = f", {program.rate(steps, seconds)}" if steps and seconds else ""
    spent = clock(seconds) if seconds >= 60 else f"{seconds:.2f} s"
    path = shlex.quote(str(path))
    if changes:
        told = ", ".join(str(change["step"]) for change in changes)
        rows += f"\nshared out anew, as ranks were not alike, after step {told}"
    rows += "".join(f"\n{line}" for line in getattr(program, "told", lambda steps: ())(steps))
    ranks = f"{program.comm.size} rank" + "s" * (program.comm.size > 1)
    if done:
        follow = f"see it: brmpi show {path}; brmpi plot {path}"
    else:
        follow = f"stopped at step {step} with a checkpoint; to go on, add --restart --out {path}"
    return (f"{program.name}: {steps} steps in {spent} on {ranks}{rate}"
            f"\n  {'seconds':<{width}}  " + "  ".join(f"{name:>8}" for name in ("min", "mean", "max"))
            + f"    share{rows}\n{follow}")


class _Poll:
    """All ranks together look at signals and at the root's clock, about every ``POLL`` seconds of steps.

    Where steps are short the answer is waited for after the next one, so that nobody waits for a rank that is behind.
    """

    def __init__(self, comm, stop, period):
        self.comm, self.stop, self.period = comm.Dup(), stop, period
        self.next, self.last, self.request, self.quick = 0, None, None, False
        self.saved = time.monotonic()

    def __call__(self, step):
        """(stop now?, checkpoint now?, was this a look?), the same on every rank. Collective; most send nothing."""
        if self.request is None:
            if step < self.next:
                return False, False, False
            self._ask(step)
            if self.quick:
                return False, False, False
        self.finish()
        self.quick = self.most[2] < QUICK
        pause = 2 if self.quick else 1
        self.next = step + max(pause, int(POLL / max(self.most[2], 1e-6)))
        return bool(self.most[0]), bool(self.most[1]), True

    def _ask(self, step):
        now = time.monotonic()
        spent = (now - self.last[1]) / max(step - self.last[0], 1) if self.last else POLL
        due = self.comm.rank == 0 and now - self.saved >= self.period
        self.last = step, now
        self.request = mpi.Gathering(self.comm, [self.stop.asked, due, spent])

    def close(self):
        """Give the communicator back. Collective."""
        self.finish()
        self.comm.Free()

    def finish(self):
        """Wait for what was asked."""
        if self.request is not None:
            mpi.wait(self.request.Test)
            self.most, self.request = self.request.every.max(axis=0), None


def main(kind):
    """Run a program as the process that it is: the last line of its module. Does not return.

    Parameters
    ----------
    kind : class, as described above
    """
    command.start(kind, run)
