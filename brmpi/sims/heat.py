"""Heat conduction on a grid in two or three dimensions: explicit, or implicit by Crank-Nicolson.

    python -m brmpi.sims.heat --help
    mpirun -hostfile hostfiles/all python -m brmpi.sims.heat sims/heat/plate.toml

    du/dt = div(k grad u)        u is a temperature, k a diffusivity; cells hold their means

Physics first, then the case, then communication, then output. The explicit scheme gives the same bits on any number of
ranks; Crank-Nicolson solves its equations to a relative residual of ``tolerance``, so that ranks differ by as much.
"""

from dataclasses import dataclass, replace

import numpy as np

from brmpi import case, elliptic, partition, program
from brmpi.case import key
from brmpi.errors import BadInput
from brmpi.field import AXES, Field
from brmpi.kernels import stencil
from brmpi.results.diagnostics import Column

# ---- physics -------------------------------------------------------------------------------------------------------

ENDS = ("periodic", "dirichlet", "neumann")


def fill(u, grid, ends, values, spacing):
    """Give the halo beyond the grid's ends what its condition asks for, to second order.

    A wall lies half a cell outside: (u_ghost + u_cell) / 2 is its temperature, (u_ghost - u_cell) / dx the gradient.

    Parameters
    ----------
    u : array with a halo of 1, changed
    grid : Grid
    ends : tuple of str, for each axis of the array one of ``ENDS``
    values : tuple of (low, high), temperature or du/dx [temperature / length] at both ends
    spacing : tuple of float
    """
    for axis, (kind, pair, dx) in enumerate(zip(ends, values, spacing)):
        for here, value, outside, inside, sign in zip(grid.ends(axis), pair, (0, -1), (1, -2), (-1, 1)):
            if here:
                ghost, cell = ((slice(None),) * axis + (place,) for place in (outside, inside))
                u[ghost] = 2 * value - u[cell] if kind == "dirichlet" else u[cell] + sign * dx * value


def stable(k, spacing):
    """The largest stable time step of the explicit scheme.

    Parameters
    ----------
    k : float, the largest diffusivity
    spacing : tuple of float

    Returns
    -------
    float
    """
    return 1 / (2 * k * sum(dx**-2 for dx in spacing))


def mode(centres, ends, waves, size):
    """A product of sines and cosines that heat conduction between such ends only makes smaller.

    Parameters
    ----------
    centres : list of arrays, coordinates of cells along each axis
    ends : tuple of str
    waves : tuple of int, half waves along each axis (whole ones where it is periodic)
    size : tuple of float

    Returns
    -------
    array
    """
    field = 1.0
    for x, kind, n, length in zip(centres, ends, waves, size):
        angle = np.pi * n * x / length
        field = field * {"periodic": np.sin(2 * angle), "dirichlet": np.sin(angle), "neumann": np.cos(angle)}[kind]
    return field


# ---- the case ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case(case.Case):
    """The keys of a heat case."""

    sample: int = key(100, "steps between rows of diagnostics", at_least=1)
    dt: float = key(1e-5, "time step", "time", above=0)
    cells: tuple[int, ...] = key((128, 128), "cells along x, y and z", at_least=1, at_most=10**6)
    size: tuple[float, ...] = key((1.0, 1.0), "of the box along x, y and z", "length", above=0)
    ends: tuple[str, ...] = key(("periodic", "periodic"), "condition along x, y and z", choices=ENDS)
    values: tuple[float, ...] = key((), "at low x, high x, low y, ...: temperature, or du/dx; none is 0",
                                    "temperature")
    scheme: str = key("explicit", "in time", choices=("explicit", "crank-nicolson"))
    tolerance: float = key(1e-10, "relative residual of Crank-Nicolson's equations", above=0, at_most=0.1)
    diffusivity: float = key(1.0, "of the material", "length^2/time", above=0)
    material: str = key("uniform", "what k is", choices=("uniform", "layers", "inclusion"))
    contrast: float = key(10.0, "diffusivity of the other material, over the first one's", at_least=0)
    initial: str = key("mode", "initial state", choices=("mode", "gaussian", "disc", "noise"))
    waves: tuple[int, ...] = key((1, 1), "half waves of a mode along x, y and z; whole ones between periodic ends",
                                 at_least=0, at_most=10**6)
    width: float = key(0.1, "of a gaussian or disc, over the size of the box", above=0)
    temperature: float = key(1.0, "amplitude of the initial state", "temperature")

    def problem(self):
        """A sentence where keys contradict each other, else None."""
        d = len(self.cells)
        if d not in (2, 3):
            return f"cells has {d} values: must be 2 or 3"
        for name in ("size", "ends", "waves"):
            if len(getattr(self, name)) != d and getattr(self, name) != type(self)().__dict__[name]:
                return f"{name} has {len(getattr(self, name))} values: must be {d}, as many as cells"
        if self.values and len(self.values) != 2 * d:
            return f"values has {len(self.values)} values: must be {2 * d}, two for each axis"
        if self.scheme == "explicit":
            most = stable(self.diffusivity * self._largest(), self.spacing())
            if self.dt > most:
                return f"dt = {self.dt:g}: must be <= {most:.6g} for the explicit scheme (or scheme = crank-nicolson)"
        return None

    def _largest(self):
        return 1.0 if self.material == "uniform" else max(1.0, self.contrast)

    def spacing(self):
        """Size of a cell, x first."""
        return tuple(length / n for length, n in zip(self.each("size"), self.cells))

    def each(self, name):
        """A key's value for each axis, x first; a default of two dimensions goes on into the third.

        Parameters
        ----------
        name : "size", "ends" or "waves"
        """
        values = getattr(self, name)
        return values if len(values) == len(self.cells) else (*values, *values[-1:])

    def pairs(self):
        """What holds at both ends of each axis, x first."""
        values = self.values or (0.0,) * 2 * len(self.cells)
        return tuple(zip(values[::2], values[1::2]))


def initial(case, centres, seeded):
    """Temperatures of cells at the start.

    Parameters
    ----------
    case : Case
    centres : list of arrays, as the axes of arrays
    seeded : function of nothing, a random number in [0, 1) of each cell

    Returns
    -------
    array
    """
    size, ends, waves = (case.each(name)[::-1] for name in ("size", "ends", "waves"))
    shape = np.broadcast_shapes(*(x.shape for x in centres))
    if case.initial == "mode":
        return case.temperature * np.broadcast_to(mode(centres, ends, waves, size), shape)
    if case.initial == "noise":
        return case.temperature * seeded()
    r2 = sum((x / length - 0.5) ** 2 for x, length in zip(centres, size)) / case.width**2
    return case.temperature * np.broadcast_to(np.exp(-r2 / 2) if case.initial == "gaussian" else r2 <= 1, shape)


def diffusivity(case, centres):
    """Of cells: layers along y, or a ball in the middle, of another material.

    Parameters
    ----------
    case : Case
    centres : list of arrays, as the axes of arrays

    Returns
    -------
    array
    """
    size = case.each("size")[::-1]
    if case.material == "layers":
        other = np.floor(8 * centres[-2] / size[-2]) % 2 == 1
    else:
        other = sum((x / length - 0.5) ** 2 for x, length in zip(centres, size)) < 0.0625
    shape = np.broadcast_shapes(*(x.shape for x in centres))
    return case.diffusivity * np.where(np.broadcast_to(other, shape), case.contrast, 1.0)


# ---- communication -------------------------------------------------------------------------------------------------


class Heat(Field):
    """Heat conduction on a grid.

    Parameters
    ----------
    case : Case
    comm : communicator
    timers : mpi.Timers
    backend : one of ``kernels.BACKENDS``
    """

    name = "heat"
    Case = Case

    def __init__(self, case, comm, timers, backend):
        case = case_of_all_axes(case)
        super().__init__(case, comm, timers, backend, 1, tuple(kind == "periodic" for kind in case.ends))
        self.ends, self.pairs = case.ends[::-1], case.pairs()[::-1]
        self.c = tuple(case.dt / dx**2 for dx in self.spacing)
        self.lay_out(self.speeds)
        self.grid.inside(self.u)[:] = initial(case, self.centres(), self._noise)
        self.kernel = f"stencil {'heat' if self.k is None else 'conduct'}{2 * len(self.ends) + 1} float64"
        self.solver = None
        if case.scheme == "crank-nicolson":
            self.solver = CrankNicolson(self)
            self.busy = ()  # the solution depends on the shares, within its tolerance

    def lay_out(self, speeds):
        """Share the cells out by these speeds; the temperature is unset until ``restore``. Collective.

        Parameters
        ----------
        speeds : (ranks,) float64 > 0
        """
        super().lay_out(speeds)
        grid = self.grid
        self.u, self.next, self.k = grid.zeros(), grid.zeros(), None
        self.halos = grid.halos(self.u)
        if self.case.material != "uniform":
            self.k = grid.zeros()
            grid.inside(self.k)[:] = diffusivity(self.case, self.centres())
            self.halos(self.k)
            fill(self.k, grid, ("neumann",) * len(self.ends), ((0.0, 0.0),) * len(self.ends), self.spacing)

    def _noise(self):
        from brmpi.streams import Stream

        field = np.empty(self.grid.sides)
        stream, row = Stream(self.case.seed, "heat initial state"), self.grid.shape[-1]
        (low, high), before = self.grid.box[-1], self.grid.box[:-1]
        for place in np.ndindex(*field.shape[:-1]):
            line = np.ravel_multi_index([at + first for at, (first, _) in zip(place, before)], self.grid.shape[:-1])
            field[place] = stream.uniform(int(line) * row + low, high - low)
        return field

    def work(self):
        """Cells of the whole grid, for each kernel."""
        return {self.kernel: int(np.prod(self.grid.shape))}

    def warm(self):
        """Compile the kernels. Not collective."""
        small = np.ones((3,) * len(self.ends))
        self._update(small, small.copy(), small if self.k is not None else None, slice(None), self.c)

    def _update(self, u, out, k, rows, c):
        if k is None:
            stencil.heat(u, out, tuple(self.case.diffusivity * each for each in c), self.backend, rows)
        else:
            stencil.conduct(u, out, k, c, backend=self.backend, rows=rows)

    def fill(self):
        """Fill the halo beyond the grid's ends."""
        fill(self.u, self.grid, self.ends, self.pairs, self.spacing)

    def explicit(self, c):
        """``next`` = u + c (divergence of the flow). Collective.

        Parameters
        ----------
        c : tuple of float, time over spacing squared along each axis
        """
        self.overlapped(self.halos, self.u, self.fill, lambda rows: self._update(self.u, self.next, self.k, rows, c))

    def step(self):
        """Advance by ``dt``. Collective."""
        if self.solver is None:
            self.explicit(self.c)
            self.u, self.next = self.next, self.u
        else:
            self.solver.step()

    # ---- output ----------------------------------------------------------------------------------------------------

    columns = {name: Column() for name in ("step", "time", "heat", "mean", "rms", "lowest", "highest")}

    def sample(self):
        """Heat in the box, mean, root mean square, extremes of the temperature. Collective."""
        u = self.grid.inside(self.u)
        whole, square = self.total(u, u**2)
        cells = np.prod(self.grid.shape)
        lowest = -self.comm.allreduce(float(-u.min()) if u.size else -np.inf, _max())
        highest = self.comm.allreduce(float(u.max()) if u.size else -np.inf, _max())
        return {"heat": float(whole * np.prod(self.spacing)), "mean": float(whole / cells),
                "rms": float(np.sqrt(square / cells)), "lowest": lowest, "highest": highest}

    def fields(self):
        """The temperature, and the diffusivity where it is not the same everywhere, for a snapshot."""
        meshes = [self.mesh("temperature", self.u)]
        return {"meshes": meshes + ([] if self.k is None else [self.mesh("diffusivity", self.k)])}

    def arrays(self):
        """The temperature: all that a restart needs."""
        return {"u": self.grid.piece(self.u)}

    def restore(self, arrays):
        """Take over a state.

        Parameters
        ----------
        arrays : dict, "u" of this rank's block
        """
        self.grid.inside(self.u)[:] = arrays["u"]

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
        return self.updates(steps, seconds, 8 * stencil.TRAFFIC["heat" if self.k is None else "conduct"])


class CrankNicolson:
    """Steps by (1 - dt/2 L) u(t + dt) = (1 + dt/2 L) u(t) + what the ends add. Collective.

    Parameters
    ----------
    heat : Heat
    """

    def __init__(self, heat):
        from scipy import sparse

        self.heat, case, grid = heat, heat.case, heat.grid
        k = case.diffusivity if heat.k is None else heat.k
        with heat.timers("assemble"):
            flow, constant = elliptic.operator(grid, k, heat.ends, heat.pairs, heat.spacing)
            cells = [np.prod([end - low for low, end in box]) for box in grid.boxes]
            first = partition.offsets(cells)[grid.comm.rank]
            here = np.arange(flow.shape[0])
            one = sparse.csr_matrix((np.ones(here.size), (here, first + here)), shape=flow.shape)
            self.equations = elliptic.Equations(grid.comm, one - case.dt / 2 * flow, case.tolerance)
        self.constant = case.dt / 2 * constant
        self.c = tuple(each / 2 for each in heat.c)

    def step(self):
        """Advance by ``dt``. Collective."""
        heat = self.heat
        heat.explicit(self.c)
        with heat.timers("solve"):
            right = heat.grid.inside(heat.next).ravel() + self.constant
            found = self.equations.solve(right, heat.grid.inside(heat.u).ravel())
        heat.grid.inside(heat.u)[:] = found.reshape(heat.grid.sides)


def _max():
    from mpi4py import MPI

    return MPI.MAX


def case_of_all_axes(case):
    """The case with a value for each axis in every key, and one without impossible ends.

    Parameters
    ----------
    case : Case

    Returns
    -------
    Case
    """
    case = replace(case, **{name: case.each(name) for name in ("size", "ends", "waves")})
    for name, kind, pair in zip(AXES, case.ends, case.pairs()):
        if kind == "periodic" and any(pair):
            raise BadInput(f"values along {name} are {pair}: a periodic axis has no ends")
    return case


if __name__ == "__main__":
    program.main(Heat)
