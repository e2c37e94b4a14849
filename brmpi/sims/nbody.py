"""Gravitational N-body simulation, by direct sum or by a tree, the forces shared out over all ranks.

    python -m brmpi.sims.nbody --help
    mpirun -hostfile hostfiles/all python -m brmpi.sims.nbody sims/nbody/solar-system.toml

Every body attracts every other: one by one, or by a tree, which takes distant ones together (``octree``). Physics
first, then the initial states' numbers, then communication, then output. The result is the same bits on any number of
ranks with any shares of the work.
"""

import os
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from brmpi import case, models, octree, partition, program, speeds, sums
from brmpi.case import key
from brmpi.errors import BadInput
from brmpi.kernels import gravity
from brmpi.octree import Octree
from brmpi.results import pieces
from brmpi.results.diagnostics import Column
from brmpi.results.snapshots import Particles, Record
from brmpi.streams import Stream

# ---- physics -------------------------------------------------------------------------------------------------------


@dataclass
class State:
    """This rank's bodies: positions, velocities and accelerations at one time, each (n, 3) float64."""

    pos: np.ndarray
    vel: np.ndarray
    acc: np.ndarray


def leapfrog(state, dt, gravity):
    """Advance by one kick-drift-kick step, 2nd order and symplectic; one force evaluation.

    Parameters
    ----------
    state : State, changed in place
    dt : float [time]
    gravity : callable, accelerations (n, 3) of positions (n, 3). Collective
    """
    state.vel += state.acc * (dt / 2)  # v(t + dt/2)
    state.pos += state.vel * dt
    state.acc = gravity(state.pos)
    state.vel += state.acc * (dt / 2)


CUBE_ROOT = 2 ** (1 / 3)
FOREST_RUTH = (1 / (2 - CUBE_ROOT), -CUBE_ROOT / (2 - CUBE_ROOT), 1 / (2 - CUBE_ROOT))


def forest_ruth(state, dt, gravity):
    """Advance by three leapfrogs, the middle one backwards: 4th order and symplectic; three force evaluations.

    Source: Forest & Ruth, Physica D 43 (1990) 105; Yoshida, Phys. Lett. A 150 (1990) 262.

    Parameters
    ----------
    state : State, changed in place
    dt : float [time]
    gravity : callable, accelerations (n, 3) of positions (n, 3). Collective
    """
    for weight in FOREST_RUTH:
        leapfrog(state, weight * dt, gravity)


INTEGRATORS = {"leapfrog": leapfrog, "forest-ruth": forest_ruth}
EVALUATIONS = {"leapfrog": 1, "forest-ruth": 3}  # force evaluations in a step


def mechanics(pos, vel, mass, potential):
    """What each body adds to the conserved quantities.

    Parameters
    ----------
    pos, vel : (n, 3) float64
    mass, potential : (n,) float64

    Returns
    -------
    (n, 12) float64: mass, kinetic energy, potential energy, momentum, angular momentum, mass * position
    """
    kinetic = mass * (vel**2).sum(axis=1) / 2
    momentum = mass[:, None] * vel
    spin = np.cross(pos, momentum)
    return np.column_stack([mass, kinetic, mass * potential / 2, momentum, spin, mass[:, None] * pos])


# ---- the case ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Body:
    """A row of ``[[bodies]]``."""

    name: str = key("", "for plots")
    mass: float = key(0.0, "mass", "mass", at_least=0)
    position: tuple[float, float, float] = key((0.0, 0.0, 0.0), "position", "length")
    velocity: tuple[float, float, float] = key((0.0, 0.0, 0.0), "velocity", "length/time")


@dataclass(frozen=True)
class Galaxy:
    """A row of ``[[galaxies]]``: an exponential disc in a Plummer sphere."""

    fraction: float = key(1.0, "share of n, in proportion", at_least=0)
    mass: float = key(1.0, "of disc and sphere together", "mass", at_least=0)
    disk: float = key(0.1, "fraction of the mass that is in the disc", at_least=0, at_most=1)
    scale: float = key(1.0, "Plummer radius of the sphere", "length", above=0)
    disk_scale: float = key(1.0, "exponential scale length of the disc", "length", above=0)
    position: tuple[float, float, float] = key((0.0, 0.0, 0.0), "of the centre", "length")
    velocity: tuple[float, float, float] = key((0.0, 0.0, 0.0), "of the centre", "length/time")
    tilt: float = key(0.0, "of the disc's axis from z, about x", "degrees")
    azimuth: float = key(0.0, "turn about z, after the tilt", "degrees")


ANY = 1024  # bodies, where nobody says how many
ROOM = 400  # bytes a body on each rank while the initial state is drawn


@dataclass(frozen=True)
class Case(case.Case):
    """The keys of an N-body case."""

    model: str = key("plummer", "initial state", choices=("plummer", "galaxies", "bodies"))
    n: int = key(ANY, "bodies; those of [[bodies]] are counted", at_least=0, at_most=10**8)
    integrator: str = key("leapfrog", "scheme", choices=tuple(INTEGRATORS))
    method: str = key("direct", "of the force: n^2 pairs, or a tree", choices=("direct", "tree"))
    opening: float = key(0.6, "of the tree: size over distance below which a cell acts as one", above=0, at_most=1)
    precision: str = key("float64", "of the force", choices=gravity.PRECISIONS)
    softening: float = key(0.01, "Plummer softening eps", "length", at_least=0)
    G: float = key(1.0, "constant of gravity", "length^3/mass/time^2", above=0)
    length_unit: str = key("", "name of the unit of length")
    mass_unit: str = key("", "name of the unit of mass")
    time_unit: str = key("", "name of the unit of time")
    unit_length: float = key(1.0, "unit of length in SI", "m", above=0)
    unit_mass: float = key(1.0, "unit of mass in SI", "kg", above=0)
    unit_time: float = key(1.0, "unit of time in SI", "s", above=0)
    bodies: tuple[Body, ...] = key((), "a table for each body: name, mass, position, velocity")
    galaxies: tuple[Galaxy, ...] = key((), "a table for each galaxy")

    def problem(self):
        """A sentence where keys contradict each other, else None."""
        for table, given in (("bodies", self.bodies), ("galaxies", self.galaxies)):
            if self.model == table and not given:
                return f"model = {self.model}: [[{table}]] is missing"
            if given and self.model != table:
                return f"model = {self.model}: [[{table}]] needs model = {table}"
        if self.bodies and self.n not in (len(self.bodies), ANY):
            return f"n = {self.n}: there are {len(self.bodies)} [[bodies]]"
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if self.n * ROOM > memory:
            return f"n = {self.n}: takes {self.n * ROOM / 1e9:.0f} GB a rank, and there are {memory / 1e9:.0f} GB here"
        if self.galaxies and not sum(galaxy.fraction for galaxy in self.galaxies) > 0:
            return "galaxies have no bodies: a fraction must be > 0"
        return None


def initial(case):
    """Positions, velocities and masses of all bodies, by global index.

    Parameters
    ----------
    case : Case

    Returns
    -------
    (n, 3), (n, 3) and (n,) float64
    """
    if case.model == "bodies":
        rows = [(*body.position, *body.velocity, body.mass) for body in case.bodies]
        table = np.array(rows, dtype=np.float64)
        return table[:, :3].copy(), table[:, 3:6].copy(), table[:, 6].copy()
    uniforms = Stream(case.seed, "nbody initial state").uniform(0, case.n, (models.DRAWS,))
    if case.model == "galaxies":
        pos, vel, mass = models.encounter(uniforms, case.galaxies, case.G, case.softening)
    else:  # standard units: G = M = 1 and energy -1/4 for case.G = 1
        pos, vel = models.plummer(uniforms, mass=1.0, scale=3 * np.pi / 16, G=case.G)
        mass = np.full(case.n, 1 / max(case.n, 1))
    return models.centred(pos, mass), models.centred(vel, mass), mass


# ---- communication -------------------------------------------------------------------------------------------------

LEAST = 256  # bodies a rank: below that its messages take longer than the work that it saves


def shares(n, speeds):
    """Bodies of each rank: by speed, and none for the slowest ranks where there are too few bodies for all.

    Parameters
    ----------
    n : int >= 0, bodies
    speeds : (ranks,) float64 > 0

    Returns
    -------
    (ranks,) int64, summing to n
    """
    workers = min(len(speeds), max(1, n // LEAST))
    fastest = np.argsort(-speeds, kind="stable")[:workers]
    wanted = np.zeros(len(speeds))
    wanted[fastest] = speeds[fastest]
    return partition.shares(n, wanted)


class Gravity:
    """The force of all bodies on this rank's: sources arrive in pieces while the force of earlier ones is computed.

    Ranks without bodies take no part, and wait for no message.

    Parameters
    ----------
    comm : communicator
    counts : (ranks,) int, the bodies of each rank
    mass : (N,) float64, G * mass of all bodies
    scale : from ``gravity.scale_of`` of all bodies at the start
    case : Case
    timers : mpi.Timers
    backend : one of ``kernels.BACKENDS``
    """

    PIECES = 8  # at most: each costs a collective call
    LEAST = 4  # tiles in a piece at least
    BLOCK = 4_000_000  # pairs between two looks at what is under way, about a millisecond's work

    def __init__(self, comm, counts, mass, scale, case, timers, backend):
        self.scale, self.case, self.timers, self.backend = scale, case, timers, backend
        busy = counts[comm.rank] > 0
        self.comm = comm = comm.Split(int(busy))
        self.pieces = []
        if not busy:
            return
        offsets = partition.offsets(counts[counts > 0])
        tiles = gravity.tiles(mass.size)
        count = max(1, min(self.PIECES, tiles // self.LEAST)) if comm.size > 1 else 1
        edges = partition.offsets(partition.equal(tiles, count)) * gravity.TILE
        for first, end in pairwise(edges):
            held = np.clip(offsets, first, min(end, mass.size))  # each rank's bodies within the piece
            sources = np.zeros((4, end - first))
            sources[3, : held[-1] - first] = mass[first : held[-1]]
            mine = slice(*(held[comm.rank : comm.rank + 2] - offsets[comm.rank]))
            self.pieces.append((mine, 3 * np.diff(held), np.empty((held[-1] - held[0], 3)), sources))

    def free(self):
        """Let the communicator go. Collective."""
        self.comm.Free()

    def arrivals(self, pos):
        """Pieces of sources in global order, each with what is still under way. Collective, to be used up.

        Parameters
        ----------
        pos : (n, 3) float64, this rank's positions

        Yields
        ------
        (4, m) float64, and a callable that helps the other pieces along or None
        """
        if self.comm.size == 1 and self.pieces:
            (_, _, _, sources), = self.pieces
            sources[:3, : len(pos)] = pos.T
            yield sources, None
            return
        with self.timers("exchange"):
            waiting = [self.comm.Iallgatherv(pos[mine], (arrived, counts))
                       for mine, counts, arrived, _ in self.pieces]
        for number, (_, _, arrived, sources) in enumerate(self.pieces):
            with self.timers("exchange"):
                waiting[number].Wait()
                sources[:3, : len(arrived)] = arrived.T
            rest = waiting[number + 1 :]
            yield sources, (lambda rest=rest: rest[0].Testall(rest)) if rest else None

    def _add(self, pos, out, kernel):
        """Call ``kernel(targets, sources, part of out)`` for all sources, in blocks of targets."""
        targets = np.ascontiguousarray(pos.T)
        n = targets.shape[1]
        for sources, progress in self.arrivals(pos):
            with self.timers("force"):
                block = max(256, self.BLOCK // max(sources.shape[1], 1))
                if progress is None or n <= block:
                    kernel(targets, sources, out)
                    continue
                for first in range(0, n, block):
                    here = slice(first, first + block)
                    part = np.ascontiguousarray(out[..., here])
                    kernel(np.ascontiguousarray(targets[:, here]), sources, part)
                    out[..., here] = part
                    progress()
        return out

    def __call__(self, pos):
        """Accelerations (n, 3) float64 at this rank's positions (n, 3). Collective."""
        out = np.zeros((3, len(pos)))
        self._add(pos, out, lambda targets, sources, part: gravity.accelerations(
            targets, sources, self.case.softening, part, self.case.precision, self.backend, self.scale))
        return np.ascontiguousarray(out.T)

    def potentials(self, pos):
        """Potentials at this rank's bodies, each without its own. Collective.

        Parameters
        ----------
        pos : (n, 3) float64

        Returns
        -------
        (n,) float64 [length**2 / time**2]
        """
        return self._add(pos, np.zeros(len(pos)), lambda targets, sources, part: gravity.potentials(
            targets, sources, self.case.softening, part, self.backend))


class NBody:
    """Gravitational N-body simulation.

    Parameters
    ----------
    case : Case
    comm : communicator
    timers : mpi.Timers
    backend : one of ``kernels.BACKENDS``
    """

    name = "nbody"
    Case = Case
    busy = ("force", "tree")

    def __init__(self, case, comm, timers, backend):
        pos, vel, self.mass = initial(case)
        with np.errstate(over="ignore"):
            self.pull = case.G * self.mass
        for name, values in (("position", pos), ("velocity", vel), ("mass times G", self.pull)):
            broken = np.argwhere(~np.isfinite(values))
            if len(broken):
                raise BadInput(f"the initial {name} of body {broken[0][0]} is not finite: a number of the case is too "
                               "large")
        case = replace(case, n=len(self.mass))
        self.case, self.comm, self.timers, self.backend = case, comm, timers, backend
        self.n, self.time_unit = len(self.mass), case.time_unit
        measured, self.kind = speeds.measured(comm, "gravity")
        self.scale, self.gravity = gravity.scale_of(pos, self.pull), None
        self.lay_out(measured if case.shares == "speed" else np.ones(comm.size))
        self.state = State(pos[self.rows].copy(), vel[self.rows].copy(), None)
        self.advance = INTEGRATORS[case.integrator]

    def lay_out(self, speeds):
        """Share the bodies out by these speeds; the state is unset until ``restore``. Collective.

        Parameters
        ----------
        speeds : (ranks,) float64 > 0
        """
        case, comm = self.case, self.comm
        if self.gravity is not None:
            self.gravity.free()
        self.speeds, self.counts = speeds, shares(self.n, speeds)
        offsets = partition.offsets(self.counts)
        self.rows = slice(offsets[comm.rank], offsets[comm.rank + 1])
        if case.method == "tree":
            self.gravity = Octree(comm, self.counts, self.pull, case.softening, case.opening, case.precision,
                                  np.where(self.counts > 0, speeds, 0), self.timers, self.backend)
        else:
            self.gravity = Gravity(comm, self.counts, self.pull, self.scale, case, self.timers, self.backend)

    def work(self):
        """What each kernel does for the whole problem: pairs, or bodies where a tree is their force."""
        kernels = (self.case.precision, "potential")
        if self.case.method == "tree":
            return {f"tree {name}": self.n for name in kernels}
        return {f"gravity {name}": self.n**2 for name in kernels}

    def warm(self):
        """Compile the kernels. Not collective."""
        if self.case.method == "tree":
            octree.warm(self.case.precision, self.backend)
            return
        targets, sources = np.ones((3, 1)), np.zeros((4, gravity.TILE))
        gravity.accelerations(targets, sources, 1.0, np.zeros((3, 1)), self.case.precision, self.backend)
        gravity.potentials(targets, sources, 1.0, np.zeros(1), self.backend)

    def step(self):
        """Advance by ``dt``. Collective."""
        if self.state.acc is None:
            self.state.acc = self.gravity(self.state.pos)
        with self.timers("advance"):
            self.advance(self.state, self.case.dt, self.gravity)

    # ---- output ----------------------------------------------------------------------------------------------------

    @property
    def columns(self):
        """The diagnostics with their units."""
        length, mass, time = (unit or "" for unit in (self.case.length_unit, self.case.mass_unit, self.case.time_unit))
        unit = {"energy": f"{mass} {length}²/{time}²", "momentum": f"{mass} {length}/{time}",
                "angular": f"{mass} {length}²/{time}", "length": length, "time": time}
        if not (length and mass and time):
            unit = dict.fromkeys(unit, "") | {"length": length, "time": time}
        axes = "xyz"
        return {
            "step": Column(), "time": Column(unit["time"]),
            "energy": Column(unit["energy"], conserved=True),
            "kinetic": Column(unit["energy"]), "potential": Column(unit["energy"]),
            **{f"momentum_{axis}": Column(unit["momentum"], conserved=True) for axis in axes},
            **{f"angular_momentum_{axis}": Column(unit["angular"], conserved=True) for axis in axes},
            **{f"centre_{axis}": Column(unit["length"]) for axis in axes},
            "virial_ratio": Column(),
        }

    def sample(self):
        """Energy, momentum, angular momentum, centre of mass and virial ratio 2 K / |W|. Collective."""
        state, mass = self.state, self.mass[self.rows]
        potential = self.gravity.potentials(state.pos)
        with np.errstate(all="ignore"):  # what is not finite is found by those who ask
            columns = mechanics(state.pos, state.vel, mass, potential)
        total = sums.total(self.comm, columns)
        whole, kinetic, bound = total[:3]
        values = [kinetic + bound, kinetic, bound, *total[3:9], *(total[9:] / (whole or 1.0)),
                  -2 * kinetic / bound if bound else 0.0]
        names = [name for name in self.columns if name not in ("step", "time")]
        return dict(zip(names, map(float, values)))

    def fields(self):
        """The bodies, for a snapshot."""
        case, first = self.case, int(self.rows.start)
        speed = case.unit_length / case.unit_time
        records = {
            "position": Record(pieces.rows(self.state.pos, first, self.n), unit_si=case.unit_length),
            "velocity": Record(pieces.rows(self.state.vel, first, self.n), unit_si=speed),
            "mass": Record(pieces.rows(self.mass[self.rows], first, self.n), unit_si=case.unit_mass),
        }
        names = [body.name for body in case.bodies]
        attributes = {"names": names} if any(names) else {}
        return {"particles": [Particles("bodies", self.n, records, attributes)], "unit_time": case.unit_time}

    def arrays(self):
        """Positions and velocities: all that a restart needs."""
        first = int(self.rows.start)
        return {"pos": pieces.rows(self.state.pos, first, self.n), "vel": pieces.rows(self.state.vel, first, self.n)}

    def block(self, name, shape):
        """Where this rank's rows of a checkpoint's array are.

        Parameters
        ----------
        name : str, "pos" or "vel"
        shape : (n, 3), of the whole

        Returns
        -------
        offset, shape : tuples of int
        """
        return (int(self.rows.start), 0), (self.rows.stop - self.rows.start, 3)

    def restore(self, arrays):
        """Take over a state.

        Parameters
        ----------
        arrays : dict, "pos" and "vel" (n, 3) float64 of this rank's bodies
        """
        self.state = State(arrays["pos"], arrays["vel"], None)

    def about(self):
        """What run.json says of the shares and units."""
        case = self.case
        return {
            "bodies": self.n, "shares": self.counts, "speeds": {"kind": self.kind, "values": self.speeds},
            "units": {"length": case.length_unit, "mass": case.mass_unit, "time": case.time_unit},
        }

    def rate(self, steps, seconds):
        """The figure of merit: pairs of bodies, both ways, those of diagnostics not counted, by wall time.

        A tree's are those that it took instead of pairs, the terms of cells as ``tree.CELL_COST`` weighs them.

        Parameters
        ----------
        steps : int
        seconds : float, of wall time

        Returns
        -------
        str
        """
        forces = steps * EVALUATIONS[self.case.integrator] * self.n / seconds
        tree = self.case.method == "tree"
        pairs = forces * (self.gravity.terms / max(self.n, 1) if tree else self.n)
        part = f" ({100 * pairs / self.speeds.sum():.0f} % of the nodes' speed)" if self.kind == "gravity" else ""
        return (f"{forces:.3g} forces/s, " if tree else "") + f"{pairs:.3g} interactions/s" + (
            part if self.case.shares == "speed" else "")


if __name__ == "__main__":
    program.main(NBody)
