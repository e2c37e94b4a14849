"""Poisson's equation in two or three dimensions, with conductivities that vary, by PETSc's multigrid.

    python -m brmpi.sims.poisson --help
    mpirun -hostfile hostfiles/all python -m brmpi.sims.poisson sims/poisson/charges.toml

    -div(k grad u) = f       cells hold their means; between two cells k is the harmonic mean

Physics first, then the case, then communication, then output. Equations are solved to a relative residual of
``tolerance``, so that ranks differ by as much. A step is one solution, from nothing.
"""

from dataclasses import dataclass, replace

import numpy as np

from brmpi import case, elliptic, program
from brmpi.case import key
from brmpi.field import Field
from brmpi.results.diagnostics import Column

# ---- physics -------------------------------------------------------------------------------------------------------

ENDS = ("periodic", "dirichlet", "neumann")


def factors(centres, ends, waves, size):
    """A sine or cosine along each axis that is 0, or has no gradient, where its ends ask for it; and its derivative.

    Parameters
    ----------
    centres : list of arrays, coordinates of cells along each axis
    ends : tuple of str
    waves : tuple of int, half waves along each axis (whole ones where it is periodic)
    size : tuple of float

    Returns
    -------
    list of (array, array, float): factor, derivative, wave number
    """
    found = []
    for x, kind, n, length in zip(centres, ends, waves, size):
        k = np.pi * n / length * (2 if kind == "periodic" else 1)
        sine, cosine = np.sin(k * x), np.cos(k * x)
        found.append((cosine, -k * sine, k) if kind == "neumann" else (sine, k * cosine, k))
    return found


def product(parts, but=None):
    """Product of arrays, that of an axis left out.

    Parameters
    ----------
    parts : list of array
    but : int or None

    Returns
    -------
    array
    """
    whole = 1.0
    for axis, part in enumerate(parts):
        whole = whole * (part if axis != but else np.ones_like(part))
    return whole


def manufactured(centres, ends, waves, size, k0, swing):
    """A solution, the conductivity it goes with and the source that makes it one.

        u = prod g_i(x_i)      k = k0 (1 + swing prod cos(2 pi x_i / L_i))      f = -(grad k . grad u + k laplacian u)

    Parameters
    ----------
    centres, ends, waves, size : as in ``factors``
    k0, swing : float

    Returns
    -------
    u, k, f : arrays
    """
    parts = factors(centres, ends, waves, size)
    g, slope = [part[0] for part in parts], [part[1] for part in parts]
    turns = [2 * np.pi / length for length in size]
    cosine = [np.cos(turn * x) for turn, x in zip(turns, centres)]
    sine = [-turn * np.sin(turn * x) for turn, x in zip(turns, centres)]
    u, k = product(g), k0 * (1 + swing * product(cosine))
    f = k * u * sum(part[2] ** 2 for part in parts)
    for axis in range(len(g)):
        f = f - k0 * swing * sine[axis] * product(cosine, axis) * slope[axis] * product(g, axis)
    return u, k, f


# ---- the case ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case(case.Case):
    """The keys of a Poisson case."""

    dt: float = key(1.0, "a solution", "", at_least=1, at_most=1)
    steps: int = key(1, "solutions, each from nothing", at_least=0, free=True)
    sample: int = key(1, "solutions between rows of diagnostics", at_least=1)
    cells: tuple[int, ...] = key((128, 128), "cells along x, y and z", at_least=1, at_most=10**6)
    size: tuple[float, ...] = key((1.0, 1.0), "of the box along x, y and z", "length", above=0)
    ends: tuple[str, ...] = key(("dirichlet", "dirichlet"), "condition along x, y and z, of value 0", choices=ENDS)
    source: str = key("manufactured", "f: that of a known solution, or two opposite charges",
                      choices=("manufactured", "charges"))
    waves: tuple[int, ...] = key((1, 1), "half waves of the known solution; whole ones between periodic ends",
                                 at_least=0, at_most=10**6)
    conductivity: float = key(1.0, "mean of k", above=0)
    swing: float = key(0.5, "how far k goes up and down, over its mean", at_least=0, at_most=0.99)
    solver: str = key("gamg", "multigrid of PETSc itself, or hypre's", choices=("gamg", "hypre"))
    tolerance: float = key(1e-10, "relative residual", above=0, at_most=0.1)

    def problem(self):
        """A sentence where keys contradict each other, else None."""
        d = len(self.cells)
        if d not in (2, 3):
            return f"cells has {d} values: must be 2 or 3"
        for name in ("size", "ends", "waves"):
            given = getattr(self, name)
            if len(given) != d and given != type(self).__dataclass_fields__[name].default:
                return f"{name} has {len(given)} values: must be {d}, as many as cells"
        if "dirichlet" not in self.each("ends") and self.source == "manufactured" and not any(self.each("waves")):
            return "waves are all 0: a constant has no source"
        return None

    def each(self, name):
        """A key's value for each axis, x first; a default of two dimensions goes on into the third.

        Parameters
        ----------
        name : "size", "ends" or "waves"
        """
        values = getattr(self, name)
        return values if len(values) == len(self.cells) else (*values, *values[-1:])


# ---- communication -------------------------------------------------------------------------------------------------


class Poisson(Field):
    """Poisson's equation.

    Parameters
    ----------
    case : Case
    comm : communicator
    timers : mpi.Timers
    backend : one of ``kernels.BACKENDS``; there is no kernel here that it would choose
    """

    name = "poisson"
    busy = ()  # PETSc's work cannot be told from its waiting
    Case = Case

    def __init__(self, case, comm, timers, backend):
        case = replace(case, **{name: case.each(name) for name in ("size", "ends", "waves")})
        super().__init__(case, comm, timers, backend, 1, tuple(kind == "periodic" for kind in case.ends))
        self.lay_out(self.speeds)
        grid, size, ends = self.grid, case.size[::-1], case.ends[::-1]
        self.floating = "dirichlet" not in ends  # a constant can be added to the solution
        centres, shape = self.centres(), grid.sides
        known, k, f = manufactured(centres, ends, case.waves[::-1], size, case.conductivity, case.swing)
        if case.source == "charges":
            known, f = None, 0.0
            for sign, at in ((1, 0.3), (-1, 0.7)):
                f = f + sign * np.exp(-sum((x / length - at) ** 2 for x, length in zip(centres, size)) / (2 * 0.05**2))
        self.known, f = None if known is None else np.broadcast_to(known, shape), np.broadcast_to(f, shape)
        self.k, self.u = grid.zeros(), grid.zeros()
        grid.inside(self.k)[:] = np.broadcast_to(k, shape)
        grid.halos(self.k)(self.k)
        with timers("assemble"):
            flow, constant = elliptic.operator(grid, self.k, ends, ((0.0, 0.0),) * len(ends), self.spacing)
            self.right = np.ravel(f) + constant
            if self.floating:  # what flows in flows out
                self.right = self.right - self.total(self.right)[0] / np.prod(grid.shape)
            self.equations = elliptic.Equations(comm, -flow, case.tolerance, case.solver, self.floating)
        self.iterations = 0

    def work(self):
        """No kernel."""
        return {}

    def warm(self):
        """Nothing to compile."""

    def step(self):
        """Solve. Collective."""
        with self.timers("solve"):
            found = self.equations.solve(self.right, np.zeros_like(self.right))
            self.iterations = self.equations.iterations
        if self.floating:
            found = found - self.total(found)[0] / np.prod(self.grid.shape)
        self.grid.inside(self.u)[:] = found.reshape(self.grid.sides)

    # ---- output ----------------------------------------------------------------------------------------------------

    @property
    def columns(self):
        """The diagnostics; the error where the solution is known."""
        names = ("step", "time", "residual", "iterations", "rms", *(("error",) if self.known is not None else ()))
        return {name: Column() for name in names}

    def sample(self):
        """Relative residual, iterations, root mean square of the solution and its error. Collective."""
        u = self.grid.inside(self.u)
        rest = self.right - self.equations.times(np.ravel(u))
        columns = [rest**2, self.right**2, np.ravel(u) ** 2]
        if self.known is not None:
            exact = np.ravel(self.known)
            if self.floating:
                exact = exact - self.total(exact)[0] / np.prod(self.grid.shape)
            columns.append((np.ravel(u) - exact) ** 2)
        rest2, right2, *means = self.total(*columns)
        rms = [float(np.sqrt(one / np.prod(self.grid.shape))) for one in means]
        found = {"residual": float(np.sqrt(rest2 / right2)) if right2 else 0.0, "iterations": self.iterations}
        return found | dict(zip(("rms", "error"), rms))

    def fields(self):
        """Solution and conductivity, for a snapshot."""
        return {"meshes": [self.mesh("potential", self.u), self.mesh("conductivity", self.k)]}

    def arrays(self):
        """The solution."""
        return {"u": self.grid.piece(self.u)}

    def restore(self, arrays):
        """Take over a solution.

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
        return f"{steps * np.prod(self.grid.shape, dtype=float) / seconds:.3g} unknowns/s"


if __name__ == "__main__":
    program.main(Poisson)
