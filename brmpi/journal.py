"""Everything a run writes while it goes: run.json, diagnostics, snapshots, checkpoints."""

import contextlib
import dataclasses
import os
import socket
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from brmpi import backends, mpi
from brmpi.errors import BadInput, BlewUp, Fault
from brmpi.kernels.opencl import Unavailable


class Journal:
    """The folder of a run, from its first file to its last. Its methods are collective, but for ``end`` and ``failed``.

    Parameters
    ----------
    comm : communicator
    path : path of the run's folder, which is there
    program : the program's state, as described in ``program``
    options : namespace with ``case`` (file or None) and ``set`` (list of key and text)
    name : str, the case's
    before : dict or None, run.json of the run that is gone on with
    agreed : dict of kernel to backend, from ``backends.settle``
    """

    def __init__(self, comm, path, program, options, name, before, agreed):
        from brmpi.results import provenance

        self.comm, self.path, self.program, self.before = comm, Path(path), program, before
        self.timers, self.case = program.timers, program.case
        self.rows = self.saved = None
        self.start = time.monotonic()
        hosts = provenance.hosts(comm)
        self.about = {
            "program": program.name,
            "case_name": name,
            "case_file": options.case if options.case or not before else before.get("case_file"),
            "case": dataclasses.asdict(self.case),
            "overrides": {**(before or {}).get("overrides", {}), **dict(options.set)},
            "command": provenance.command(),
            "launch": provenance.launch(),
            "commit": provenance.commit() if comm.rank == 0 else None,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "hosts": hosts,
            "ranks": comm.size,
            "backend": program.backend,
            "agreed": agreed,
            "kernels": {},
            **program.about(),
            "seed": self.case.seed,
            "status": "running",
            "started": now(),
            "step": 0,
            "steps": None if hasattr(self.case, "samples") else self.case.steps,
            "restarts": (before or {}).get("restarts", []),
        }
        self.ran()

    def ran(self):
        """Take down which version of each kernel ran on which host. Collective."""
        self.about["backend"], self.about["kernels"] = backends.told(self.comm, self.program.backend)

    def begin(self, row):
        """Open the files; on a restart take over the newest good checkpoint. Collective.

        Parameters
        ----------
        row : dict, diagnostics of the initial state; None on a restart

        Returns
        -------
        int, steps taken already

        Raises
        ------
        BadInput : more steps are taken already than the case has
        Fault : no checkpoint can be used, or nothing can be written
        """
        from brmpi.results import checkpoints
        from brmpi.results.diagnostics import Diagnostics

        first, found = 0, None
        if self.before:
            found = checkpoints.read(self.comm, self.path, self.program.block, self.program.name)
            if found:
                first, arrays, _ = found
                self.program.restore(arrays)
                self.saved = first
            self.changed()
            self.about["started"] = self.before.get("started", self.about["started"])
            self.about["restarts"] = [*self.about["restarts"],
                                      {"time": now(), "step": first, "ranks": self.comm.size}]
        if first > self.case.steps:
            raise BadInput(f"steps = {self.case.steps}: the run in {self.path} has taken {first} already")
        self.about["step"] = first
        mpi.on_root(self.comm, self._open, Diagnostics, first, bool(found))
        if not found:
            self._write(row or finite(self.program, 0))
            self.snapshot(0)
        return first

    def changed(self):
        """Tell people where a run is gone on with by other versions of kernels than it began with."""
        began, agreed = (self.before or {}).get("agreed") or {}, self.about["agreed"]
        for kernel in sorted(kernel for kernel in agreed if began.get(kernel, agreed[kernel]) != agreed[kernel]):
            if self.comm.rank == 0:
                mpi.say(f"{self.program.name}: {kernel}: {began[kernel]} began this run and {agreed[kernel]} goes on "
                        "with it: not to the same bits")

    def _open(self, diagnostics, first, restarted):
        import h5py  # noqa: F401, loaded so that its version is told

        from brmpi.results import folder, provenance, snapshots

        self.about["versions"] = provenance.versions()
        folder.record(self.path, self.about)  # first: a folder with files and no run.json is nobody's run
        snapshots.prune(self.path, self.program.name, self.case.steps)
        after = None
        if restarted:
            # What a shorter run wrote as its last state is dropped where a run that was never stopped has nothing.
            if not self.shown(first):
                snapshots.path(self.path, self.program.name, first).unlink(missing_ok=True)
            after = first if self.sampled(first) else first - 1
        self.rows = diagnostics(self.path / "diagnostics.h5", self.program.columns, wall=("seconds",), after=after)

    def sampled(self, step):
        """Whether a row of diagnostics is due.

        Parameters
        ----------
        step : int

        Returns
        -------
        bool
        """
        return step % self.case.sample == 0 or step == self.case.steps

    def shown(self, step):
        """Whether a snapshot is due.

        Parameters
        ----------
        step : int

        Returns
        -------
        bool
        """
        return step in (0, self.case.steps) or bool(self.case.every and step % self.case.every == 0)

    def sample(self, step):
        """Write a row of diagnostics. Collective.

        Parameters
        ----------
        step : int

        Raises
        ------
        BlewUp : a quantity is no longer finite
        Fault : the disk is full
        """
        with self.timers("diagnostics"):
            row = finite(self.program, step)
        self._write(row)

    def _write(self, row):
        with self.timers("output"):
            mpi.on_root(self.comm, lambda: self.rows.append(row | {"seconds": time.monotonic() - self.start}))

    def snapshot(self, step):
        """Write the state for people and other programs. Collective.

        Parameters
        ----------
        step : int

        Raises
        ------
        Fault : the disk is full
        """
        from brmpi.results import snapshots

        with self.timers("output"):
            path = snapshots.path(self.path, self.program.name, step)
            fields = self.program.fields()
            snapshots.write(self.comm, path, step, step * self.case.dt, self.case.dt, io=self.case.io, **fields)
            mpi.on_root(self.comm, self._index, fields)

    def _index(self, fields):
        """Say where all snapshots are, for other programs."""
        from brmpi.results import snapshots, xdmf

        steps = snapshots.steps(self.path, self.program.name)
        times = {step: step * self.case.dt for step in steps}
        xdmf.write(self.path, self.program.name, times, fields.get("particles", ()), fields.get("meshes", ()))

    def checkpoint(self, step):
        """Write the state for a restart, unless it is there already. Collective.

        Parameters
        ----------
        step : int

        Raises
        ------
        BlewUp : the state is no longer finite; the checkpoint before stays
        Fault : the disk is full; the checkpoint before stays
        """
        from brmpi.results import checkpoints

        if step == self.saved:
            return
        with self.timers("output"):
            state = whole(self.program, step)
            mpi.on_root(self.comm, lambda: self.rows.flush())  # no checkpoint is newer than the rows before it
            checkpoints.write(self.comm, self.path, step, state, {}, self.program.name, io=self.case.io)
            self.saved = self.about["step"] = step
            mpi.on_root(self.comm, self._deposit)

    def _deposit(self):
        """What is left beside the newest checkpoint. Root only."""
        from brmpi.results import folder

        if hasattr(self.program, "deposit"):
            self.program.deposit(self.path)
        folder.record(self.path, self.about)

    def last(self):
        """The newest checkpoint. Collective.

        Returns
        -------
        step : int, 0 where there is none
        arrays : dict of str to array, this rank's blocks, or None
        """
        from brmpi.results import checkpoints

        found = checkpoints.read(self.comm, self.path, self.program.block, self.program.name)
        return found[:2] if found else (0, None)

    def shared(self, changes):
        """Take down that the work was shared out anew. Not collective.

        Parameters
        ----------
        changes : list of dict, ``step`` and ``speeds``, all so far
        """
        self.about.update(self.program.about(), balanced=changes)

    def end(self, status, step, table, seconds):
        """Close the files and say how it ended. Root only.

        Parameters
        ----------
        status : "done" or "stopped"
        step : int, steps taken in all
        table : dict, seconds of each section, from ``mpi.Timers.reduce``
        seconds : float, of the whole program
        """
        self.rows.close()
        if hasattr(self.program, "estimates"):
            self.about["estimates"] = self.program.estimates()
        self.about.update(status=status, step=step, wall=table, seconds=seconds, ended=now())
        self._deposit()

    def failed(self, error):
        """Say in run.json why the run ended, as far as this rank can reach it. On any rank.

        Parameters
        ----------
        error : exception
        """
        from brmpi.results import folder

        late = isinstance(error, Unavailable)  # OpenCL, on this rank alone
        if (isinstance(error, BadInput) and not late) or (isinstance(error, Fault) and self.comm.rank):
            return
        time.sleep(0.05 * self.comm.rank)  # ranks that fail alike do not write at once
        if not (self.path / "run.json").exists():
            return
        why = str(error) if isinstance(error, Fault | Unavailable) else f"{type(error).__name__}: {error}"
        if not isinstance(error, Fault):
            why += f" (rank {self.comm.rank})"
        with contextlib.suppress(Exception):
            if self.rows is not None:
                self.rows.close()
        with contextlib.suppress(Exception):
            found = folder.about(self.path)
            if found.get("status") == "running":
                folder.record(self.path, {**found, "status": f"failed: {why}", "ended": now()})


def finite(program, step):
    """A row of diagnostics, without its wall-clock time. Collective.

    Parameters
    ----------
    program : the program's state, as described in ``program``
    step : int

    Returns
    -------
    dict of str to number

    Raises
    ------
    BlewUp : a quantity is not finite; on every rank alike
    """
    try:
        row = {"step": step, "time": step * program.case.dt, **program.sample()}
    except OverflowError:
        raise BlewUp(f"step {step}: the diagnostics overflow: the run blew up; {cure(program)}", step) from None
    for name, value in row.items():
        if not np.isfinite(value):
            raise BlewUp(f"step {step}: {name} is {value}: the run blew up; {cure(program)}", step)
    return row


def whole(program, step):
    """Refuse a state that is not finite. Collective.

    Parameters
    ----------
    program : as described in ``program``
    step : int

    Returns
    -------
    dict of str to Piece, the state

    Raises
    ------
    BlewUp : on every rank alike
    """
    state = program.arrays()
    broken = not all(np.isfinite(piece.data).all() for piece in state.values())
    if program.comm.allreduce(broken):
        raise BlewUp(f"step {step}: the state is not finite: the run blew up; {cure(program)}", step)
    return state


def cure(program):
    """What may help where a run blew up.

    Parameters
    ----------
    program : as described in ``program``

    Returns
    -------
    str
    """
    return getattr(program, "cure", "a smaller dt may help")


def now():
    """The time of day, as run.json has it.

    Returns
    -------
    str
    """
    return datetime.now(UTC).isoformat(timespec="seconds")
