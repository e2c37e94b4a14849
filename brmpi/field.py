"""What simulations on a regular grid share: their blocks, steps whose halos travel meanwhile, files, figures of merit.

A simulation is ``program``'s class, derived from ``Field``: it names its arrays, fills the halo beyond the grid's ends,
and updates rows. Axes are x, y and z in a case; arrays have them the other way round, x the contiguous one.
"""

import numpy as np

from brmpi import speeds, sums
from brmpi.grid import Grid, Halo
from brmpi.results.snapshots import Mesh

AXES = "xyz"


class Field:
    """The part of a simulation that grids have in common.

    Parameters
    ----------
    case : with ``cells`` and ``size``, tuples of a number for each axis, x first; and the keys of every case
    comm : communicator
    timers : mpi.Timers
    backend : one of ``kernels.BACKENDS``
    halo : int
    periodic : tuple of bool, x first
    """

    time_unit = ""
    busy = ("update",)  # sections of the timers that are this rank's own work
    kind_of_work = "memory"  # of speeds that shares are in proportion to

    def __init__(self, case, comm, timers, backend, halo, periodic):
        self.case, self.comm, self.timers, self.backend = case, comm, timers, backend
        self._halo, self._periodic = halo, periodic[::-1]
        measured, self.kind = speeds.measured(comm, self.kind_of_work)
        self.speeds = measured if case.shares == "speed" else np.ones(comm.size)
        self.spacing = tuple(length / n for length, n in zip(case.size[::-1], case.cells[::-1]))
        self.axes = tuple(AXES[: len(case.cells)][::-1])

    def lay_out(self, speeds):
        """Share the cells out by these speeds, and make the arrays; the state is unset until ``restore``. Collective.

        Simulations extend it by their arrays, and call it once themselves.

        Parameters
        ----------
        speeds : (ranks,) float64 > 0
        """
        for halos in [value for value in vars(self).values() if isinstance(value, Halo)]:
            halos.free()
        self.speeds = speeds
        self.grid = Grid(self.comm, self.case.cells[::-1], self._halo, self._periodic, speeds)

    def centres(self):
        """Coordinates of this block's cells.

        Returns
        -------
        list of array, one for each axis of arrays, which broadcast to the block without its halo
        """
        d = len(self.spacing)
        return [((np.arange(first, end) + 0.5) * dx).reshape([-1 if axis == a else 1 for a in range(d)])
                for axis, ((first, end), dx) in enumerate(zip(self.grid.box, self.spacing))]

    def overlapped(self, halos, array, fill, update):
        """Update all rows of the block, those inside while the halos of an array travel. Collective.

        Parameters
        ----------
        halos : grid.Halo
        array : as from ``Grid.zeros``
        fill : function that fills the halo beyond the grid's ends
        update : function of a slice of rows
        """
        free, rows = self.grid.free(), self.grid.sides[0]
        with self.timers("exchange"):
            halos.start(array)
        if free.stop > free.start:
            with self.timers("update"):
                fill()
                update(free)
        with self.timers("exchange"):
            halos.finish(array)
        with self.timers("update"):
            fill()
            for part in (slice(0, free.start), slice(free.stop, rows)) if free.stop > free.start else (slice(0, rows),):
                if part.stop > part.start:
                    update(part)

    def total(self, *columns):
        """Sums over all cells, the same bits on any number of ranks. Collective.

        Parameters
        ----------
        *columns : arrays of this block's cells

        Returns
        -------
        (columns,) float64
        """
        return sums.total(self.comm, np.stack([np.ravel(column) for column in columns]).T)

    def mesh(self, name, array, unit=""):
        """A quantity of all cells, for a snapshot.

        Parameters
        ----------
        name : str
        array : as from ``Grid.zeros``
        unit : str

        Returns
        -------
        Mesh
        """
        d = len(self.axes)
        return Mesh(name, self.grid.piece(array), self.axes, self.spacing, (0.0,) * d, unit=unit, position=(0.5,) * d)

    def block(self, name, shape):
        """Where this rank's block of a checkpoint's array is.

        Parameters
        ----------
        name : str
        shape : tuple of int, of the whole

        Returns
        -------
        offset, shape : tuples of int
        """
        lead = shape[: len(shape) - len(self.grid.shape)]
        return ((*(0,) * len(lead), *(first for first, _ in self.grid.box)), (*lead, *self.grid.sides))

    def about(self):
        """What run.json says of the shares."""
        return {"shares": [int(np.prod([end - first for first, end in box])) for box in self.grid.boxes],
                "boxes": [[list(ends) for ends in box] for box in self.grid.boxes],
                "speeds": {"kind": self.kind, "values": self.speeds}}

    def updates(self, steps, seconds, traffic):
        """The figure of merit: cells updated by wall time, and what part of the memory's bandwidth that takes.

        Parameters
        ----------
        steps : int
        seconds : float, of wall time
        traffic : int, bytes that memory moves for an update

        Returns
        -------
        str
        """
        rate = steps * np.prod(self.grid.shape, dtype=float) / seconds
        part = f" ({100 * rate * traffic / 1e9 / self.speeds.sum():.0f} % of the nodes' memory bandwidth)"
        return f"{rate:.3g} updates/s" + (part if self.kind == "memory" and self.case.shares == "speed" else "")
