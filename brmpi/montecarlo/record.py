"""What a sampling run writes while it goes, all of it by the root: run.json, estimates, checkpoints, a histogram."""

import time

import numpy as np

from brmpi import mpi
from brmpi.errors import BadInput
from brmpi.journal import Journal, now
from brmpi.montecarlo.sampling import checked


class Record(Journal):
    """The folder of a sampling run. ``begin`` is collective; the rest of what is added here is the root's."""

    kept = -1  # blocks in the newest checkpoint
    written = -1  # blocks in the last row

    def begin(self):
        """Open the files; on a restart take over the newest good checkpoint. Collective.

        Returns
        -------
        number : int, blocks sampled already
        total : (width,) float64, their sum, or None

        Raises
        ------
        BadInput : more samples are taken already than the case asks for
        Fault : no checkpoint can be used, or nothing can be written
        """
        self.changed()
        return mpi.on_root(self.comm, self._start)

    def _start(self):
        import h5py  # noqa: F401, loaded so that its version is told
        from mpi4py import MPI

        from brmpi.results import checkpoints, folder, provenance
        from brmpi.results.diagnostics import Column, Diagnostics

        number, total = 0, None
        if self.before:
            found = checkpoints.read(MPI.COMM_SELF, self.path, lambda _, shape: ((0,) * len(shape), shape),
                                     self.program.name)
            if found:
                number, total = found[0], found[1]["total"]
                self.kept = number
            self.about["started"] = self.before.get("started", self.about["started"])
            self.about["restarts"] = [*self.about["restarts"],
                                      {"time": now(), "step": number, "ranks": self.comm.size}]
        limit = self.program.samples()
        if limit and number * self.case.block > limit:
            raise BadInput(f"samples = {limit}: the run in {self.path} has taken {number * self.case.block} already")
        self.about.update(versions=provenance.versions(), exact=self.program.exact())
        folder.record(self.path, self.about)
        columns = {"step": Column(), "time": Column("samples")}
        for name, unit in self.program.quantities.items():
            columns |= {name: Column(unit), f"{name}_error": Column(unit)}
        after = None
        if number:
            after = number if self.shown(number) else number - 1
        self.rows = Diagnostics(self.path / "diagnostics.h5", columns, wall=("seconds",), after=after)
        self.written = -1 if after is None else after
        return number, total

    def samples(self, sums):
        """How many samples are in some sums.

        Parameters
        ----------
        sums : sampling.Sums

        Returns
        -------
        int
        """
        limit = self.program.samples()
        return min(sums.number * self.case.block, limit or sums.number * self.case.block)

    def shown(self, number):
        """Whether a row is due, wherever the run ends: after 8 to 16 block counts an octave.

        Parameters
        ----------
        number : int, blocks

        Returns
        -------
        bool
        """
        return number == checked(number - 1, 8)

    def row(self, sums):
        """Write the estimates as they are, unless they are written already.

        Parameters
        ----------
        sums : sampling.Sums

        Raises
        ------
        Fault : the disk is full
        """
        if sums.number == self.written or not sums.number:
            return
        self.written = sums.number
        values, errors = self.program.estimator.estimates(sums.total)
        row = {"step": sums.number, "time": self.samples(sums), "seconds": time.monotonic() - self.start}
        for name, value, error in zip(self.program.quantities, values, errors):
            row |= {name: value, f"{name}_error": error if np.isfinite(error) else np.nan}
        self.rows.append(row)

    def save(self, sums):
        """Write what a restart needs, and the estimates into run.json.

        Parameters
        ----------
        sums : sampling.Sums

        Raises
        ------
        Fault : the disk is full; the checkpoint before stays
        """
        from mpi4py import MPI

        from brmpi.results import checkpoints, folder, pieces

        number, total = sums.full
        self.rows.flush()  # no checkpoint is newer than the rows before it
        if number > self.kept:
            state = {"total": pieces.rows(total, 0, len(total))}
            checkpoints.write(MPI.COMM_SELF, self.path, number, state, {}, self.program.name)
            self.kept = number
        values, errors = self.program.estimator.estimates(sums.total)
        self.about.update(step=sums.number, samples=self.samples(sums), estimates={
            name: {"value": float(value), "error": float(error), "unit": unit}
            for (name, unit), value, error in zip(self.program.quantities.items(), values, errors)})
        self._histogram(sums)
        folder.record(self.path, self.about)

    def _histogram(self, sums):
        """Write how the first quantity is distributed, as a mesh of one axis."""
        from mpi4py import MPI

        from brmpi.results import pieces, snapshots

        found = self.program.estimator.histogram(sums.total)
        if found is None:
            return
        edges, density = found
        name, unit = next(iter(self.program.quantities.items()))
        mesh = snapshots.Mesh("distribution", pieces.rows(density, 0, len(density)), (name,), (edges[1] - edges[0],),
                              (edges[0],), position=(0.5,), grid_unit=unit, unit=f"1 / {unit}" if unit else "")
        target = snapshots.path(self.path, self.program.name, sums.number)
        snapshots.write(MPI.COMM_SELF, target, sums.number, self.samples(sums), self.case.block, meshes=[mesh])
        for step in snapshots.steps(self.path, self.program.name):
            if step != sums.number:
                snapshots.path(self.path, self.program.name, step).unlink(missing_ok=True)

    def end(self, status, table, seconds):
        """Close the files and say how it ended.

        Parameters
        ----------
        status : "done" or "stopped"
        table : dict, seconds of each section, from ``mpi.Timers.reduce``
        seconds : float, of the whole program
        """
        super().end(status, self.about["step"], table, seconds)
