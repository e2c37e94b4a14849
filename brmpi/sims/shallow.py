"""Shallow water over land and sea bottom: tsunamis, dam breaks, lakes; shores flood and dry.

    python -m brmpi.sims.shallow --help
    mpirun -hostfile hostfiles/all python -m brmpi.sims.shallow sims/shallow/tsunami.toml

    dh/dt + div(h u) = 0        d(h u)/dt + div(h u u) + g h grad(h + b) = - g n^2 |u| u / h^(1/3)

h is the depth, u the velocity, b the height of the bottom, n Manning's. Finite volumes: ``kernels.shallow`` has the
scheme. Physics first, then the case, then communication, then output. The result is the same bits on any number of
ranks, and a lake at rest stays at rest to the bit.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from brmpi import case, mpi, program
from brmpi.case import key
from brmpi.errors import BadInput, Fault
from brmpi.field import Field
from brmpi.kernels import shallow
from brmpi.results import pieces
from brmpi.results.diagnostics import Column

# ---- physics -------------------------------------------------------------------------------------------------------

ENDS = ("wall", "open", "periodic")
SEEN = 2.0  # times dry: deeper water counts as such in the output, as films of the depth dry stay on slopes
DENSITY = 1025.0  # of sea water [kg/m^3]: the energy's alone, as motion does not depend on it


def fill(array, grid, ends):
    """Give the halo beyond the grid's ends what they ask for.

    A wall mirrors what is inside, with the momentum across it reversed. An open end goes on as the last cell is, which
    lets waves out.

    Parameters
    ----------
    array : (3, ...) state or (...) bottom, with its halo, changed
    grid : Grid
    ends : tuple of str, for each axis of the array one of ``ENDS``
    """
    for axis, kind in enumerate(ends):
        at = (..., *(slice(None),) * axis)
        after = (slice(None),) * (1 - axis)
        if kind == "wall":
            for place, mirror, odd in grid.mirrors(axis):
                array[(*at, place, *after)] = array[(*at, mirror, *after)]
                if odd and array.ndim == 3:
                    array[(2 - axis, *at[1:], place, *after)] *= -1
        elif kind == "open" and all(grid.sides):
            first, n = grid.box[axis][0], grid.shape[axis]
            low, high = max(0, grid.halo - first), n - first + grid.halo
            array[(*at, slice(0, low), *after)] = array[(*at, slice(low, low + 1), *after)]
            array[(*at, slice(high, None), *after)] = array[(*at, slice(high - 1, high), *after)]


def piecewise(x, places, values):
    """A function that is linear between places, and level beyond them.

    Parameters
    ----------
    x : array
    places, values : tuples of float, places in rising order

    Returns
    -------
    array
    """
    places, values = np.array(places), np.array(values)
    if places.size == 1:
        return np.full_like(x, values[0])
    piece = np.clip(np.searchsorted(places, x, "right") - 1, 0, places.size - 2)
    part = np.clip((x - places[piece]) / (places[piece + 1] - places[piece]), 0, 1)
    return values[piece] + part * (values[piece + 1] - values[piece])


def planar(x, y, depth, radius, away, gravity, time=0.0):
    """A plane surface that goes round in a bowl b = depth (r^2 / radius^2 - 1), its shore a circle that keeps its size.

    Source: Thacker, J. Fluid Mech. 107 (1981) 499.

    Parameters
    ----------
    x, y : arrays, from the bowl's middle [m]
    depth, radius : float, of the bowl at level 0 [m]
    away : float, of the shore's middle from the bowl's [m]
    gravity : float [m/s^2]
    time : float [s]

    Returns
    -------
    level : array [m], of the plane, which is below the bottom outside the shore
    u, v : float, velocity of all water [m/s]
    """
    omega = math.sqrt(2 * gravity * depth) / radius
    cos, sin = math.cos(omega * time), math.sin(omega * time)
    level = away * depth / radius**2 * (2 * (x * cos + y * sin) - away)
    return level, -away * omega * sin, away * omega * cos


# ---- the case ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case(case.Case):
    """The keys of a case of shallow water."""

    steps: int = key(800, "steps to take in all", at_least=0, free=True)
    dt: float = key(3.0, "time step", "s", above=0)
    sample: int = key(20, "steps between rows of diagnostics", at_least=1)
    cells: tuple[int, int] = key((128, 96), "along x and y; 1 along y for a channel", at_least=1, at_most=10**6)
    size: tuple[float, float] = key((400e3, 300e3), "of the box along x and y", "m", above=0)
    ends: tuple[str, str] = key(("open", "wall"), "of x and y: open ones let waves out", choices=ENDS)
    order: int = key(2, "of the scheme in space and time: 1 or 2", at_least=1, at_most=2)
    gravity: float = key(9.81, "acceleration", "m/s^2", above=0)
    manning: float = key(0.0, "Manning's n of the bottom's friction, 0.025 for sand", "s/m^(1/3)", at_least=0,
                         at_most=1)
    dry: float = key(1e-3, "depth up to which water does not move, and ground counts as dry", "m", above=0)
    level: float = key(0.0, "of the water at rest", "m")
    bathymetry: str = key("profile", "the bottom: the same for all y, a bowl in the middle, or bathymetry_file",
                          choices=("profile", "bowl", "file"))
    profile_x: tuple[float, ...] = key((200e3, 260e3, 340e3, 400e3), "places of a profile, rising; linear between them",
                                       "m")
    profile_b: tuple[float, ...] = key((-4000.0, -200.0, -100.0, 50.0), "heights of the bottom there", "m")
    depth: float = key(10.0, "of the bowl in its middle, below 0", "m", above=0)
    radius: float = key(1e4, "of the bowl at height 0", "m", above=0)
    bathymetry_file: str = key("", ".npy file of heights of the bottom, (cells along y, cells along x)", "m")
    island: float = key(0.0, "height of an island over the bottom around; 0: none", "m", at_least=0)
    island_centre: tuple[float, float] = key((2e5, 1.5e5), "along x and y", "m")
    island_width: float = key(1e4, "of the island: its height falls to exp(-1/2) there", "m", above=0)
    initial: str = key("dipole", "at rest: level water, a hump on it, a dipole (a hump at low x, a trough beside it), "
                       "a dam with water at low x, a round column; or a plane that goes round in a bowl",
                       choices=("still", "hump", "dipole", "dam", "column", "planar"))
    amplitude: float = key(4.0, "of the initial surface over level; planar: of the shore's middle from the bowl's", "m")
    centre: tuple[float, float] = key((1.2e5, 1.5e5), "of hump, dipole, column; x of the dam", "m")
    width: tuple[float, float] = key((2e4, 5e4), "of hump and dipole along x and y (standard deviations); the first is "
                                     "the column's radius", "m", above=0)

    def problem(self):
        """A sentence where keys contradict each other, else None."""
        if not self.profile_x or len(self.profile_x) != len(self.profile_b):
            return (f"profile_b has {len(self.profile_b)} values: must have as many as profile_x, "
                    f"{len(self.profile_x)}, and one at least")
        if any(after <= before for before, after in zip(self.profile_x, self.profile_x[1:])):
            return f"profile_x = {list(self.profile_x)}: must rise"
        if (self.bathymetry == "file") != bool(self.bathymetry_file):
            return (f"bathymetry_file = {self.bathymetry_file!r}: must be a file where bathymetry is file, "
                    f"and here it is {self.bathymetry}")
        if self.initial == "planar" and (self.bathymetry != "bowl" or self.island):
            return "initial = 'planar': must be in a bowl without an island"
        return None


def heights(case, x, y):
    """Height of the bottom, unless it comes from a file, and without an island.

    Parameters
    ----------
    case : Case
    x, y : arrays that broadcast, of cells [m]

    Returns
    -------
    array [m]
    """
    if case.bathymetry == "bowl":
        x, y = x - case.size[0] / 2, y - case.size[1] / 2
        return case.depth * ((x**2 + y**2) / case.radius**2 - 1)
    return piecewise(x, case.profile_x, case.profile_b) + 0 * y


def initial(case, x, y):
    """Level of the surface at the start, where it is above the bottom, and velocity.

    Parameters
    ----------
    case : Case
    x, y : arrays that broadcast, of cells [m]

    Returns
    -------
    level : array [m]
    u, v : float [m/s]
    """
    if case.initial == "planar":
        level, u, v = planar(x - case.size[0] / 2, y - case.size[1] / 2, case.depth, case.radius, case.amplitude,
                             case.gravity)
        return case.level + level, u, v
    away, aside = x - case.centre[0], y - case.centre[1]
    across, along = away / case.width[0], aside / case.width[1]
    rise = {
        "still": lambda: 0 * (x + y),
        "hump": lambda: np.exp(-(across**2 + along**2) / 2),
        "dipole": lambda: -across * np.exp((1 - across**2 - along**2) / 2),  # at most 1
        "dam": lambda: np.where(away + 0 * y < 0, 1.0, 0.0),
        "column": lambda: np.where(away**2 + aside**2 < case.width[0] ** 2, 1.0, 0.0),
    }[case.initial]()
    return case.level + case.amplitude * rise, 0.0, 0.0


# ---- communication -------------------------------------------------------------------------------------------------


def surveyed(comm, grid, path):
    """This block of a bottom that stands in a file, which the root reads. Collective.

    Parameters
    ----------
    comm : communicator
    grid : Grid
    path : str, of a .npy file

    Returns
    -------
    array of the block without its halo [m]

    Raises
    ------
    BadInput : on every rank alike, if it cannot be read or does not fit
    """
    whole = []
    mpi.on_root(comm, lambda: whole.append(_read(path, grid.shape)))
    blocks = [whole[0][tuple(slice(*ends) for ends in box)] for box in grid.boxes] if whole else None
    return comm.scatter(blocks)


def _read(path, shape):
    """The array of a file. Root only."""
    told = f"bathymetry_file = {path!r}"
    try:
        found = np.load(Path(path), allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise BadInput(f"{told}: cannot be read as .npy: {getattr(error, 'strerror', None) or error}") from None
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "fiu":
        raise BadInput(f"{told}: must hold one array of numbers")
    if found.shape != shape:
        raise BadInput(f"{told}: has shape {found.shape}: must be {shape}, the cells along y and x")
    found = found.astype(np.float64)
    if not np.isfinite(found).all():
        raise BadInput(f"{told}: {np.count_nonzero(~np.isfinite(found))} heights are not finite: all must be")
    return found


class Shallow(Field):
    """Shallow water over a bottom of any form, with shores that flood and dry.

    Parameters
    ----------
    case : Case
    comm : communicator
    timers : mpi.Timers
    backend : one of ``kernels.BACKENDS``
    """

    name = "shallow"
    Case = Case
    time_unit = "s"

    def __init__(self, case, comm, timers, backend):
        self.ends = case.ends[::-1]
        super().__init__(case, comm, timers, backend, case.order, tuple(kind == "periodic" for kind in case.ends))
        # what leaves through one side of a single cell comes in through the other: no limit of its own
        self.counts = np.array([n > 1 or kind == "open" for n, kind in zip(case.cells[::-1], self.ends)])
        self.kernel = f"shallow order{case.order} float64"
        self.taken, self.fastest, self.coming = 0, np.full(2, np.nan), None
        self.lay_out(self.speeds)
        self.begin()

    def lay_out(self, speeds):
        """Share the cells out by these speeds; the water is unset until ``restore``. Collective.

        Parameters
        ----------
        speeds : (ranks,) float64 > 0
        """
        super().lay_out(speeds)
        case, grid = self.case, self.grid
        self.q, self.other, self.bottom = grid.zeros((3,)), grid.zeros((3,)), grid.zeros()
        self.halos = grid.halos(self.q)
        y, x = self.centres()
        inside = grid.inside(self.bottom)
        inside[:] = surveyed(self.comm, grid, case.bathymetry_file) if case.bathymetry_file else heights(case, x, y)
        if case.island:
            away = (x - case.island_centre[0]) ** 2 + (y - case.island_centre[1]) ** 2
            inside += case.island * np.exp(-away / (2 * case.island_width**2))
        around = grid.halos(self.bottom)
        around(self.bottom)
        around.free()
        fill(self.bottom, grid, self.ends)

    def begin(self):
        """The state at the start, from the case."""
        y, x = self.centres()
        level, u, v = initial(self.case, x, y)
        q, bottom = self.grid.inside(self.q), self.grid.inside(self.bottom)
        q[0] = np.maximum(level, bottom)
        depth = q[0] - bottom
        wet = depth > self.case.dry
        q[1], q[2] = np.where(wet, depth * u, 0), np.where(wet, depth * v, 0)

    def work(self):
        """Cells of the whole grid."""
        return {self.kernel: int(np.prod(self.grid.shape))}

    def warm(self):
        """Compile the kernel. Not collective."""
        side = 2 * self.case.order + 1
        q = np.zeros((3, side, side))
        shallow.step(q, np.zeros((side, side)), q.copy(), 1.0, (1.0, 1.0), self.case.gravity, self.case.dry,
                     self.case.order, backend=self.backend)

    def euler(self, q, out, average, manning):
        """One Euler step. Collective.

        Parameters
        ----------
        q, out : as from ``Grid.zeros``
        average, manning : as in ``kernels.shallow.step``

        Returns
        -------
        (2,) float64, the fastest waves of this block along y and x [m/s]
        """
        case, fastest = self.case, np.zeros(2)

        def _update(rows):
            np.maximum(fastest, shallow.step(q, self.bottom, out, case.dt, self.spacing, case.gravity, case.dry,
                                             case.order, average, manning, self.backend, rows), out=fastest)

        self.overlapped(self.halos, q, lambda: fill(q, self.grid, self.ends), _update)
        return fastest

    def step(self):
        """Advance by ``dt``: by Euler's step, or Heun's two. Collective.

        Raises
        ------
        Fault : on every rank alike, if waves of the step before were too fast for ``dt``
        """
        self.check()
        if self.case.order == 1:
            fastest = self.euler(self.q, self.other, False, self.case.manning)
            self.q, self.other = self.other, self.q
        else:
            fastest = self.euler(self.q, self.other, False, 0.0)
            np.maximum(fastest, self.euler(self.other, self.q, True, self.case.manning), out=fastest)
        self.taken += 1
        self.compare(fastest)

    def compare(self, fastest):
        """Let ranks find the fastest waves of all, while they go on. Collective.

        Parameters
        ----------
        fastest : (2,) float64, of this block
        """
        from mpi4py import MPI

        self.coming = self.comm.Iallreduce(fastest, self.fastest, MPI.MAX), fastest

    def check(self):
        """Wait for the fastest waves of the last step, and refuse them if ``dt`` is too long. Collective.

        Raises
        ------
        Fault : on every rank alike
        """
        if self.coming is not None:
            with self.timers("exchange"):
                self.coming[0].Wait()
            self.coming = None
            if self.courant() > shallow.LIMIT:
                stable = (1 - 1e-6) * self.case.dt * shallow.LIMIT / self.courant()
                when = f"step {self.taken}: " if self.taken else ""
                raise Fault(f"{when}dt = {self.case.dt:g} s: must be <= {stable:.6g} s, for waves of up to "
                            f"{self.fastest[1]:.4g} m/s along x and {self.fastest[0]:.4g} m/s along y")

    def courant(self):
        """The Courant number dt (s_x / dx + s_y / dy) of the last step; it may be ``shallow.LIMIT``.

        Returns
        -------
        float
        """
        return float(self.case.dt * (self.counts * self.fastest / self.spacing).sum())

    # ---- output ----------------------------------------------------------------------------------------------------

    @property
    def columns(self):
        """The diagnostics: the volume is conserved unless an end is open; runup is the highest ground under water."""
        return {"step": Column(), "time": Column("s"), "volume": Column("m^3", conserved="open" not in self.ends),
                "energy": Column("J"), "fastest": Column("m/s"), "highest": Column("m"), "runup": Column("m"),
                "wet": Column("m^2"), "water_depth": Column("m"), "step_courant": Column()}

    def flow(self):
        """Depth and velocity of this block, at rest where it is dry.

        Returns
        -------
        h, u, v : arrays without a halo [m, m/s]
        """
        level, hu, hv = self.grid.inside(self.q)
        depth = level - self.grid.inside(self.bottom)
        wet = depth > self.case.dry
        over = np.where(wet, depth, 1.0)
        return depth, np.where(wet, hu / over, 0.0), np.where(wet, hv / over, 0.0)

    def sample(self):
        """Volume, energy over that of water at rest, extremes, and the step's Courant number. Collective.

        Raises
        ------
        Fault : on every rank alike, if waves are too fast for ``dt``
        """
        from mpi4py import MPI

        case = self.case
        if self.coming is None and np.isnan(self.fastest).any():
            self.compare(self.euler(self.q, self.other, False, 0.0))  # of the state at the start; other is free
        self.check()
        depth, u, v = self.flow()
        level, bottom = self.grid.inside(self.q)[0], self.grid.inside(self.bottom)
        wet, square = depth > SEEN * case.dry, u**2 + v**2
        over = np.maximum(bottom - case.level, 0)
        energy = depth * square + case.gravity * ((level - case.level) ** 2 - over**2)
        volume, energy, area = self.total(depth, energy, wet) * np.prod(self.spacing)
        extremes = [array.max(where=wet, initial=-np.inf) for array in (level, bottom, square, depth)]
        most = np.empty(len(extremes))
        self.comm.Allreduce(np.array(extremes), most, MPI.MAX)
        highest, runup, square, deepest = most.tolist()
        if area == 0:
            highest, runup, square, deepest = case.level, case.level, 0.0, 0.0
        return {"volume": float(volume), "energy": float(DENSITY * energy / 2), "fastest": math.sqrt(square),
                "highest": highest, "runup": runup, "wet": float(area), "water_depth": deepest,
                "step_courant": self.courant()}

    def fields(self):
        """Level of the surface, NaN on dry land; velocity, bottom and depth, for a snapshot."""
        depth, u, v = self.flow()
        whole = self.grid.zeros((4,))
        inside = self.grid.inside(whole)
        inside[0] = np.where(depth > SEEN * self.case.dry, self.grid.inside(self.q)[0], np.nan)
        inside[1], inside[2], inside[3] = depth, u, v
        length = {"unit_dimension": (1, 0, 0, 0, 0, 0, 0), "grid_unit": "m"}
        meshes = [replace(self.mesh(name, array, "m"), **length)
                  for name, array in (("level", whole[0]), ("bottom", self.bottom), ("water_depth", whole[1]))]
        velocity = {"x": self.grid.piece(whole[2]), "y": self.grid.piece(whole[3])}
        flow = replace(meshes[0], name="velocity", piece=velocity, unit="m/s", unit_dimension=None)
        return {"meshes": [meshes[0], flow, *meshes[1:]]}

    def arrays(self):
        """The state, and what the last step was; a bottom from a file, too, to know it again. Collective."""
        self.check()
        last = np.array([self.taken, *self.fastest])
        root = self.comm.rank == 0
        found = {"q": self.grid.piece(self.q),
                 "last": pieces.rows(last if root else last[:0], 0 if root else last.size, last.size)}
        return found | ({"bottom": self.grid.piece(self.bottom)} if self.case.bathymetry_file else {})

    def block(self, name, shape):
        """Where this rank's block of a checkpoint's array is.

        Parameters
        ----------
        name : str
        shape : tuple of int, of the whole
        """
        return ((0,), shape) if name == "last" else super().block(name, shape)

    def restore(self, arrays):
        """Take over a state. Collective.

        Parameters
        ----------
        arrays : dict, "q" and perhaps "bottom" of this rank's block, "last" (3,)

        Raises
        ------
        BadInput : on every rank alike, if the bottom is another one
        """
        same = "bottom" not in arrays or np.array_equal(arrays["bottom"], self.grid.inside(self.bottom))
        if not all(self.comm.allgather(same)):
            raise BadInput(f"bathymetry_file = {self.case.bathymetry_file!r}: is not what the run began with")
        self.grid.inside(self.q)[:] = arrays["q"]
        self.taken, self.fastest[:] = int(arrays["last"][0]), arrays["last"][1:]

    def about(self):
        """What run.json says of the shares, and of units."""
        return super().about() | {"units": {"length": "m", "time": "s"}}

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
        return self.updates(steps, seconds, 8 * shallow.TRAFFIC[self.case.order])


if __name__ == "__main__":
    program.main(Shallow)
