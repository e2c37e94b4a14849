"""Acoustic waves on a grid in two or three dimensions, by leapfrog steps of second or fourth order in space.

    python -m brmpi.sims.wave --help
    mpirun -hostfile hostfiles/all python -m brmpi.sims.wave sims/wave/lens.toml

    d2u/dt2 = c^2 laplacian(u)       u is a pressure, c the speed of sound; cells are cubes

Physics first, then the case, then communication, then output. The result is the same bits on any number of ranks.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from brmpi import case, program
from brmpi.case import key
from brmpi.field import Field
from brmpi.kernels import stencil
from brmpi.results.diagnostics import Column

# ---- physics -------------------------------------------------------------------------------------------------------

ENDS = ("periodic", "fixed", "free", "sponge")
LIMIT = {2: 1.0, 4: 0.75}  # of (c dt / dx)^2 times the number of dimensions, by order in space


def fill(u, grid, ends):
    """Mirror the field at the grid's ends: with the other sign at a fixed one, where u is 0; the rest have no gradient.

    Parameters
    ----------
    u : array with its halo, changed
    grid : Grid
    ends : tuple of str, for each axis of the array one of ``ENDS``
    """
    for axis, kind in enumerate(ends):
        for place, mirror, odd in grid.mirrors(axis):
            before = (slice(None),) * axis
            u[(*before, place)] = (-1 if kind == "fixed" and odd else 1) * u[(*before, mirror)]


def damping(centres, ends, size, width, strength):
    """What a sponge leaves of a wave in each step.

    Source: Cerjan, Kosloff, Kosloff & Reshef, Geophysics 50 (1985) 705.

    Parameters
    ----------
    centres : list of arrays, coordinates of cells along each axis
    ends : tuple of str
    size : tuple of float
    width : float, of the sponge [length]
    strength : float

    Returns
    -------
    list of array, a factor along each axis, 1 inside
    """
    factors = []
    for x, kind, length in zip(centres, ends, size):
        depth = np.maximum(width - np.minimum(x, length - x), 0) / width
        factors.append(np.exp(-strength * depth**2) if kind == "sponge" else np.ones_like(x))
    return factors


def frequency(waves, cells, size, ends, speed, dt, order):
    """Angular frequency of a standing wave on the grid, by the scheme's dispersion relation.

    Parameters
    ----------
    waves, cells, size, ends : tuples, of each axis
    speed, dt : float
    order : 2 or 4

    Returns
    -------
    float: sin(omega dt / 2) = dt / 2 sqrt(-speed^2 eigenvalue)
    """
    value = 0.0
    for n, count, length, kind in zip(waves, cells, size, ends):
        angle = math.pi * n / count * (2 if kind == "periodic" else 1)
        near = 2 - 2 * math.cos(angle)
        far = 2 - 2 * math.cos(2 * angle)
        value += (near if order == 2 else 4 / 3 * near - far / 12) * (count / length) ** 2
    return 2 / dt * math.asin(dt / 2 * speed * math.sqrt(value))


# ---- the case ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case(case.Case):
    """The keys of a wave case."""

    dt: float = key(4e-3, "time step", "time", above=0)
    sample: int = key(20, "steps between rows of diagnostics", at_least=1)
    cells: tuple[int, ...] = key((128, 128), "cells along x, y and z", at_least=1, at_most=10**6)
    size: tuple[float, ...] = key((1.0, 1.0), "of the box along x, y and z", "length", above=0)
    ends: tuple[str, ...] = key(("fixed", "fixed"), "of each axis: sponges swallow waves, the others do not",
                                choices=ENDS)
    order: int = key(4, "in space: 2 or 4", at_least=2, at_most=4)
    speed: float = key(1.0, "of sound", "length/time", above=0)
    material: str = key("uniform", "where sound has another speed", choices=("uniform", "layers", "lens"))
    contrast: float = key(0.5, "the other speed, over the first one", above=0)
    initial: str = key("pulse", "initial state, at rest", choices=("pulse", "mode"))
    centre: tuple[float, ...] = key((0.25, 0.5), "of the pulse, over the size of the box")
    width: float = key(0.04, "of the pulse, over the size of the box along x", above=0)
    waves: tuple[int, ...] = key((1, 1), "half waves of a mode along x, y and z; whole ones between periodic ends",
                                 at_least=0, at_most=10**6)
    amplitude: float = key(1.0, "of the initial state", "pressure")
    sponge: float = key(0.1, "width of a sponge, over the size of the box along x", above=0, at_most=0.5)
    strength: float = key(0.1, "of a sponge: what a wave loses in a step at its end", at_least=0)

    def problem(self):
        """A sentence where keys contradict each other, else None."""
        d = len(self.cells)
        if d not in (2, 3):
            return f"cells has {d} values: must be 2 or 3"
        if self.order == 3:
            return "order = 3: must be 2 or 4"
        for name in ("size", "ends", "waves", "centre"):
            if len(getattr(self, name)) not in (d, 2) or (len(getattr(self, name)) == 2 != d and not self._usual(name)):
                return f"{name} has {len(getattr(self, name))} values: must be {d}, as many as cells"
        sides = [length / n for length, n in zip(self.each("size"), self.cells)]
        if max(sides) > min(sides) * (1 + 1e-9):
            return f"size and cells make cells of {sides}: must be cubes"
        most = math.sqrt(LIMIT[self.order] / d) * sides[0] / (self.speed * self._fastest())
        if self.dt > most:
            return f"dt = {self.dt:g}: must be <= {most:.6g}, or waves outrun the grid"
        return None

    def _usual(self, name):
        return getattr(self, name) == type(self).__dataclass_fields__[name].default

    def _fastest(self):
        return 1.0 if self.material == "uniform" else max(1.0, self.contrast)

    def each(self, name):
        """A key's value for each axis, x first; a default of two dimensions goes on into the third.

        Parameters
        ----------
        name : "size", "ends", "waves" or "centre"
        """
        values = getattr(self, name)
        return values if len(values) == len(self.cells) else (*values, *values[-1:])


def initial(case, centres):
    """Pressure of cells at the start.

    Parameters
    ----------
    case : Case
    centres : list of arrays, as the axes of arrays

    Returns
    -------
    array
    """
    size, ends, waves, middle = (case.each(name)[::-1] for name in ("size", "ends", "waves", "centre"))
    field = case.amplitude
    for x, length, kind, n, at in zip(centres, size, ends, waves, middle):
        if case.initial == "pulse":
            field = field * np.exp(-((x - at * length) ** 2) / (2 * (case.width * size[-1]) ** 2))
        else:
            angle = np.pi * n * x / length
            field = field * {"periodic": np.sin(2 * angle), "fixed": np.sin(angle)}.get(kind, np.cos(angle))
    return np.broadcast_to(field, np.broadcast_shapes(*(x.shape for x in centres)))


def speeds_squared(case, centres):
    """(c dt / dx)^2 of cells: layers along y, or a ball in the middle, where sound has another speed.

    Parameters
    ----------
    case : Case
    centres : list of arrays, as the axes of arrays

    Returns
    -------
    float, or array where it is not the same everywhere
    """
    size = case.each("size")[::-1]
    usual = (case.speed * case.dt * case.cells[0] / case.each("size")[0]) ** 2
    if case.material == "uniform":
        return usual
    if case.material == "layers":
        other = np.floor(4 * centres[-2] / size[-2]) % 2 == 1
    else:
        other = sum((x - length / 2) ** 2 for x, length in zip(centres, size)) < (0.2 * size[-1]) ** 2
    shape = np.broadcast_shapes(*(x.shape for x in centres))
    return np.where(np.broadcast_to(other, shape), usual * case.contrast**2, usual)


# ---- communication -------------------------------------------------------------------------------------------------


class Wave(Field):
    """Acoustic waves on a grid.

    Parameters
    ----------
    case : Case
    comm : communicator
    timers : mpi.Timers
    backend : one of ``kernels.BACKENDS``
    """

    name = "wave"
    Case = Case

    def __init__(self, case, comm, timers, backend):
        case = replace(case, **{name: case.each(name) for name in ("size", "ends", "waves", "centre")})
        super().__init__(case, comm, timers, backend, case.order // 2, tuple(kind == "periodic" for kind in case.ends))
        self.ends = case.ends[::-1]
        self.lay_out(self.speeds)
        self.grid.inside(self.u)[:] = initial(case, self.centres())
        self.kernel = f"stencil wave{(4 if case.order == 4 else 2) * len(self.ends) + 1} float64"
        self._begin = True

    def lay_out(self, speeds):
        """Share the cells out by these speeds; the pressure is unset until ``restore``. Collective.

        Parameters
        ----------
        speeds : (ranks,) float64 > 0
        """
        super().lay_out(speeds)
        case, grid, centres = self.case, self.grid, self.centres()
        self.u, self.before, self.spare, self.factors = grid.zeros(), grid.zeros(), None, None
        self.halos = grid.halos(self.u)
        self.c2 = speeds_squared(case, centres)
        if "sponge" in self.ends:
            self.factors = damping(centres, self.ends, case.size[::-1], case.sponge * case.size[0], case.strength)

    def work(self):
        """Cells of the whole grid, for each kernel."""
        return {self.kernel: int(np.prod(self.grid.shape))}

    def warm(self):
        """Compile the kernels. Not collective."""
        side = 2 * self.grid.halo + 1
        small = np.ones((side,) * len(self.ends))
        c2 = self.c2 if np.ndim(self.c2) == 0 else np.ones((1,) * len(self.ends))
        for out in (small.copy(), None):
            before = small.copy()
            stencil.wave(small, before, before if out is None else out, c2, self.case.order, self.backend)

    def fill(self):
        """Fill the halo beyond the grid's ends."""
        fill(self.u, self.grid, self.ends)

    def leap(self, before, out):
        """``out`` = 2 u - before + c2 laplacian(u). Collective.

        Parameters
        ----------
        before, out : as from ``Grid.zeros``, the same or two
        """
        self.overlapped(self.halos, self.u, self.fill, lambda rows: stencil.wave(
            self.u, before, out, self.c2, self.case.order, self.backend, rows))

    def start(self):
        """The state one step before the first, at rest: u - (u after a step without past) / 2. Collective."""
        self._begin = False
        grid = self.grid
        self.before[:] = 0
        self.leap(self.before, self.before)  # 2 u + c2 laplacian(u)
        grid.inside(self.before)[:] = grid.inside(self.before) / 2

    def step(self):
        """Advance by ``dt``. Collective."""
        if self._begin:
            self.start()
        self.leap(self.before, self.before)
        self.u, self.before = self.before, self.u
        if self.factors is not None:
            with self.timers("sponge"):
                for factor in self.factors:
                    self.grid.inside(self.u)[:] *= factor
                    self.grid.inside(self.before)[:] *= factor

    # ---- output ----------------------------------------------------------------------------------------------------

    @property
    def columns(self):
        """The diagnostics: energy is conserved where no sponge is."""
        return {"step": Column(), "time": Column(), "energy": Column(conserved=self.factors is None),
                "rms": Column(), "highest": Column()}

    def sample(self):
        """Energy of the scheme, which it keeps but for rounding; root mean square and largest magnitude. Collective.

        With a = u(t), b = u(t - dt) and the operator L of the scheme it is the sum over cells of
        ((a - b)^2 / c2 - b L a) / 2, times dx^(d - 2).
        """
        if self._begin:
            self.start()
        if self.spare is None:
            self.spare = self.grid.zeros()
        self.leap(self.before, self.spare)
        a, b, after = (self.grid.inside(array) for array in (self.u, self.before, self.spare))
        energy = ((a - b) ** 2 - b * (after - 2 * a + b)) / (2 * self.c2)
        whole, square = self.total(energy, a**2)
        from mpi4py import MPI

        highest = self.comm.allreduce(float(np.abs(a).max(initial=0)), MPI.MAX)
        return {"energy": float(whole * self.spacing[0] ** (len(self.ends) - 2)),
                "rms": float(np.sqrt(square / np.prod(self.grid.shape))), "highest": highest}

    def fields(self):
        """The pressure, for a snapshot."""
        return {"meshes": [self.mesh("pressure", self.u)]}

    def arrays(self):
        """The pressure now and one step before: all that a restart needs."""
        if self._begin:
            self.start()
        return {"u": self.grid.piece(self.u), "before": self.grid.piece(self.before)}

    def restore(self, arrays):
        """Take over a state.

        Parameters
        ----------
        arrays : dict, "u" and "before" of this rank's block
        """
        self.grid.inside(self.u)[:], self.grid.inside(self.before)[:] = arrays["u"], arrays["before"]
        self._begin = False

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
        return self.updates(steps, seconds, 8 * (stencil.TRAFFIC["wave"] - 1 + (np.ndim(self.c2) > 0)))


if __name__ == "__main__":
    program.main(Wave)
