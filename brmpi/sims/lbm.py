"""Incompressible flow by the lattice Boltzmann method, D2Q9 or D3Q19.

    python -m brmpi.sims.lbm --help
    mpirun -hostfile hostfiles/all python -m brmpi.sims.lbm sims/lbm/cavity.toml

Lengths are in cells, times in steps, the density is near 1. Physics first, then the case, then communication, then
output. The result is the same bits on any number of ranks.
"""

from dataclasses import dataclass, replace

import numpy as np

from brmpi import case, program
from brmpi.case import key
from brmpi.field import Field
from brmpi.grid import Grid
from brmpi.kernels import boltzmann
from brmpi.results.diagnostics import Column

# ---- physics -------------------------------------------------------------------------------------------------------

FLOWS = ("cavity", "channel", "vortex", "cylinder")
MAGIC = {"trt": 3 / 16, "bgk": None}  # 3/16: a wall along the lattice lies exactly half a cell outside
WALL, LID = 1, 2  # numbers of solid cells


def relaxation(speed, length, reynolds):
    """Relaxation time for a Reynolds number.

    Parameters
    ----------
    speed : float [cells / step]
    length : float [cells]
    reynolds : float

    Returns
    -------
    float: (tau - 1/2) / 3 is the viscosity
    """
    return 0.5 + 3 * speed * length / reynolds


def vortices(centres, cells, speed):
    """Taylor and Green's vortices, which decay without changing their form: velocity and density.

    Parameters
    ----------
    centres : list of arrays, coordinates along each axis of arrays
    cells : tuple of int, as the axes of arrays
    speed : float

    Returns
    -------
    velocity : (d, ...) float64, in the order of axes
    density : (...) float64
    """
    y, x = (2 * np.pi * at / n for at, n in zip(centres[-2:], cells[-2:]))
    ratio = cells[-2] / cells[-1]  # so that the flow has no divergence
    shape = np.broadcast_shapes(*(at.shape for at in centres))
    u = np.zeros((len(centres), *shape))
    u[-1], u[-2] = -speed * np.cos(x) * np.sin(y), speed * ratio * np.sin(x) * np.cos(y)
    density = 1 - 0.75 * speed**2 * (np.cos(2 * x) + ratio**2 * np.cos(2 * y))
    return u, np.broadcast_to(density, shape)


# ---- the case ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case(case.Case):
    """The keys of a flow."""

    dt: float = key(1.0, "a step", "steps", at_least=1, at_most=1)
    steps: int = key(2000, "steps to take in all", at_least=0, free=True)
    sample: int = key(100, "steps between rows of diagnostics", at_least=1)
    flow: str = key("vortex", "lid-driven cavity, channel driven by a force, decaying vortices, or past a cylinder",
                    choices=FLOWS)
    cells: tuple[int, ...] = key((64, 64), "along x, y and z", at_least=1, at_most=10**6)
    speed: float = key(0.05, "of the lid, the inflow, the vortices, or in the middle of the channel", "cells/step",
                       above=0, at_most=0.3)
    reynolds: float = key(100.0, "by speed and width (y), or the cylinder's diameter", above=0)
    collision: str = key("trt", "two relaxation times, or one", choices=tuple(MAGIC))
    diameter: float = key(20.0, "of the cylinder", "cells", above=0)

    def problem(self):
        """A sentence where keys contradict each other, else None."""
        d = len(self.cells)
        if d not in (2, 3):
            return f"cells has {d} values: must be 2 or 3"
        tau = self.tau
        if tau < 0.505:
            return f"reynolds = {self.reynolds:g}: tau = {tau:.4f} must be >= 0.505, or the flow blows up: more cells"
        if self.flow == "cylinder" and 3 * self.diameter > min(self.cells[:2]):
            return f"diameter = {self.diameter:g}: must be <= {min(self.cells[:2]) / 3:g}, a third of the box"
        return None

    @property
    def width(self):
        """The length that the Reynolds number is made with [cells]."""
        return self.diameter if self.flow == "cylinder" else float(self.cells[1])

    @property
    def tau(self):
        """Relaxation time."""
        return relaxation(self.speed, self.width, self.reynolds)

    @property
    def viscosity(self):
        """Kinematic viscosity [cells^2 / step]."""
        return (self.tau - 0.5) / 3

    @property
    def size(self):
        """Size of the box: a cell is 1 wide."""
        return tuple(map(float, self.cells))

    @property
    def periodic(self):
        """Along x, y and z."""
        d = len(self.cells)
        return {"cavity": (False,) * d, "channel": (True, False, True)[:d], "vortex": (True,) * d,
                "cylinder": (False, True, True)[:d]}[self.flow]


# ---- communication -------------------------------------------------------------------------------------------------


class LBM(Field):
    """Incompressible flow by the lattice Boltzmann method.

    Parameters
    ----------
    case : Case
    comm : communicator
    timers : mpi.Timers
    backend : one of ``kernels.BACKENDS``
    """

    name = "lbm"
    Case = Case
    time_unit = "steps"

    def __init__(self, case, comm, timers, backend):
        super().__init__(case, comm, timers, backend, 1, case.periodic)
        self.d = len(case.cells)
        self.q = {2: 9, 3: 19}[self.d]
        self.magic = MAGIC[case.collision]
        self.lay_out(self.speeds)
        grid = self.grid
        u, density = np.zeros((self.d, *grid.sides)), np.ones(grid.sides)
        if case.flow == "vortex":
            u, density = vortices(self.centres(), grid.shape, case.speed)
        elif case.flow == "cylinder":
            # a little across the flow, so that the wake need not wait for rounding to break its symmetry
            u[-1], u[-2] = case.speed, 0.05 * case.speed * np.sin(2 * np.pi * self.centres()[-1] / case.cells[0])
        grid.inside(self.f)[:] = boltzmann.equilibrium(np.ascontiguousarray(density), u)
        self.force = None
        if case.flow == "channel":  # a parabola's speed in the middle is F width^2 / (8 nu)
            self.force = np.zeros(self.d)
            self.force[-1] = 8 * case.viscosity * case.speed / case.cells[1] ** 2
        self.inflow = boltzmann.equilibrium(np.ones((1,) * self.d), self._uniform())

    def lay_out(self, speeds):
        """Share the cells out by these speeds; the populations are unset until ``restore``. Collective.

        Parameters
        ----------
        speeds : (ranks,) float64 > 0
        """
        super().lay_out(speeds)
        if self.case.flow == "cylinder":  # not cut along x: ``leave`` copies from one cell to the next
            self.grid = Grid(self.comm, self.grid.shape, 1, self.grid.periodic, speeds, axes=self.d - 1)
        self.f, self.ahead = self.grid.zeros((self.q,)), False
        c = boltzmann.LATTICES[self.q, self.d].c
        self.halos = self.grid.halos(self.f, moves=c)
        self.back = self.grid.halos(self.f, moves=c, back=True)
        self.solid, self.walls = self._solid()

    def _uniform(self):
        u = np.zeros((self.d, *(1,) * self.d))
        u[-1] = self.case.speed
        return u

    def _solid(self):
        """Numbers of solid cells with the halo, or None; and the velocity of each wall."""
        case, grid = self.case, self.grid
        solid = grid.zeros(dtype=np.uint8)
        places = [np.arange(first - 1, end + 1).reshape([-1 if axis == a else 1 for a in range(self.d)])
                  for axis, (first, end) in enumerate(grid.box)]
        for axis, (at, n, wraps) in enumerate(zip(places, grid.shape, grid.periodic)):
            if not wraps and not (case.flow == "cylinder" and axis == self.d - 1):
                solid[np.broadcast_to((at < 0) | (at >= n), solid.shape)] = WALL
        walls = np.zeros((2, self.d))
        if case.flow == "cavity":
            inside = np.ones(solid.shape, bool)
            for axis, (at, n) in enumerate(zip(places, grid.shape)):
                if axis != self.d - 2:
                    inside &= (at >= 0) & (at < n)
            solid[inside & (places[-2] >= grid.shape[-2])] = LID
            walls[LID - 1, -1] = case.speed
        if case.flow == "cylinder":
            x, y = places[-1] + 0.5 - case.cells[0] / 4, (places[-2] % case.cells[1]) + 0.5 - case.cells[1] / 2
            solid[np.broadcast_to(x**2 + y**2 < case.diameter**2 / 4, solid.shape)] = WALL
        return (solid, walls) if case.flow != "vortex" else (None, None)

    def work(self):
        """Cells of the whole grid, for each kernel."""
        cells = int(np.prod(self.grid.shape))
        return {f"boltzmann d{self.d}q{self.q} float64": cells, "boltzmann moments float64": cells}

    def warm(self):
        """Compile the kernels. Not collective."""
        f = boltzmann.equilibrium(np.ones((3,) * self.d), np.zeros((self.d, *(3,) * self.d)))
        solid = None if self.solid is None else np.zeros((3,) * self.d, np.uint8)
        boltzmann.step_in_place(f, False, self.case.tau, self.magic, self.force, solid, self.walls,
                                backend=self.backend)
        boltzmann.moments(f, self.force, self.backend)

    def step(self):
        """One step: stream and collide. Collective.

        It is done in place (``boltzmann.step_in_place``): after every second step populations lie ahead, and then it is
        what they left in halos that travels.
        """
        if self.ahead:
            self.overlapped(self.back, self.f, lambda: None, self._homeward)
        else:
            # the second time only rows of others: those inside have been replaced by then
            free, rows = self.grid.free(), self.grid.sides[0]
            late = [*([0] if free.start > 0 else []), *([-1] if free.stop < rows else [])]
            parts = iter((slice(None), late))
            self.overlapped(self.halos, self.f, lambda: self.fill(next(parts)), self._collide)
        self.ahead = not self.ahead

    def _collide(self, rows):
        boltzmann.step_in_place(self.f, self.ahead, self.case.tau, self.magic, self.force, self.solid, self.walls, rows,
                                self.backend)

    def _homeward(self, rows):
        self.leave(rows)
        self._collide(rows)

    def fill(self, rows):
        """Beyond the ends of a flow past something: what comes in, and what goes out as the last cells have it.

        Parameters
        ----------
        rows : slice or list, of the array's second axis
        """
        if self.case.flow == "cylinder" and all(self.grid.sides):
            self.f[:, rows, ..., :1] = self.inflow
            self.f[:, rows, ..., -1] = self.f[:, rows, ..., -2]

    def leave(self, rows):
        """The same where populations lie ahead: what has come into the first cells and into the last ones.

        Parameters
        ----------
        rows : slice, of the block's
        """
        if self.case.flow == "cylinder":
            f = self.f[:, rows.start + 1 : rows.stop + 1]
            lattice = boltzmann.LATTICES[self.q, self.d]
            for i, back in enumerate(lattice.opposite):
                if lattice.c[i, -1] == 1:
                    f[back, ..., 1] = self.inflow[(i, *(0,) * self.d)]
                elif lattice.c[i, -1] == -1:
                    f[back, ..., -2] = f[back, ..., -3]

    # ---- output ----------------------------------------------------------------------------------------------------

    def populations(self):
        """Those that left the collision in each cell, with a halo that nobody reads; to be looked at only.

        Returns
        -------
        (q, ...) float64
        """
        return boltzmann.home(self.f) if self.ahead else self.f

    @property
    def columns(self):
        """The diagnostics: mass is conserved unless the flow comes from outside."""
        probe = {"across": Column("cells/step")} if self.case.flow == "cylinder" else {}
        return {"step": Column(), "time": Column("steps"), "mass": Column(conserved=self.case.flow != "cylinder"),
                "energy": Column(), "fastest": Column("cells/step"), **probe}

    def moments(self):
        """Density and velocity of this block, at rest in solid cells.

        Returns
        -------
        (...) and (d, ...) float64, in the order of axes
        """
        density, u = boltzmann.moments(self.populations(), self.force, self.backend)
        if self.solid is not None:
            solid = self.grid.inside(self.solid) > 0
            density[solid], u[:, solid] = 1, 0
        return density, u

    def sample(self):
        """Mass, kinetic energy, the largest speed; the velocity across the flow behind a cylinder. Collective."""
        from mpi4py import MPI

        density, u = self.moments()
        square = (u**2).sum(axis=0)
        mass, energy = self.total(density, density * square / 2)
        fastest = self.comm.allreduce(float(np.sqrt(square.max(initial=0))), MPI.MAX)
        found = {"mass": float(mass), "energy": float(energy), "fastest": fastest}
        if self.case.flow == "cylinder":
            place = [n // 2 for n in self.grid.shape]
            place[-1] = min(self.grid.shape[-1] - 1, int(self.case.cells[0] / 4 + 2 * self.case.diameter))
            mine = all(first <= at < end for at, (first, end) in zip(place, self.grid.box))
            here = tuple(at - first for at, (first, _) in zip(place, self.grid.box))
            found["across"] = self.comm.allreduce(float(u[(-2, *here)]) if mine else 0.0)
        return found

    def fields(self):
        """Density and velocity, for a snapshot."""
        density, u = self.moments()
        whole = self.grid.zeros((1 + self.d,))
        self.grid.inside(whole)[0], self.grid.inside(whole)[1:] = density, u
        mesh = self.mesh("density", whole[0])
        velocity = {axis: self.grid.piece(part) for axis, part in zip(self.axes, whole[1:])}
        return {"meshes": [mesh, replace(mesh, name="velocity", piece=velocity, unit="cells/step")]}

    def arrays(self):
        """The populations: all that a restart needs. Those of solid cells are set to rest."""
        piece = self.grid.piece(self.populations())
        if self.solid is not None:
            piece.data[:, self.grid.inside(self.solid) > 0] = boltzmann.LATTICES[self.q, self.d].w[:, None]
        return {"f": piece}

    def restore(self, arrays):
        """Take over a state.

        Parameters
        ----------
        arrays : dict, "f" of this rank's block
        """
        self.grid.inside(self.f)[:] = arrays["f"]
        self.ahead = False

    def about(self):
        """What run.json says of the shares, and of the lattice's numbers."""
        return super().about() | {"tau": self.case.tau, "viscosity": self.case.viscosity}

    def rate(self, steps, seconds):
        """The figure of merit.

        Parameters
        ----------
        steps : int
        seconds : float, of wall time

        Returns
        -------
        str
        """
        return self.updates(steps, seconds, 2 * self.q * 8)


if __name__ == "__main__":
    program.main(LBM)
