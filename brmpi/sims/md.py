"""Molecular dynamics of Lennard-Jones atoms in a periodic box, shared out over the ranks by space.

    python -m brmpi.sims.md --help
    mpirun -hostfile hostfiles/all python -m brmpi.sims.md sims/md/melt.toml

Reduced units: lengths in sigma, energies in epsilon, masses in that of an atom, temperatures in epsilon / k. Physics
first, then the case, then communication, then output. The result is the same bits on any number of ranks.
"""

import math
import os
from dataclasses import dataclass

import numpy as np

from brmpi import case, partition, program, speeds, sums
from brmpi.case import key
from brmpi.domains import Domains, Ghosts, by_row
from brmpi.errors import Fault
from brmpi.kernels import choice
from brmpi.kernels import lennardjones as lj
from brmpi.results import pieces
from brmpi.results.diagnostics import Column
from brmpi.results.snapshots import Particles, Record
from brmpi.streams import Stream

# ---- physics -------------------------------------------------------------------------------------------------------

FCC = np.array([[0.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.5, 0.0, 0.5], [0.0, 0.5, 0.5]])
CHAIN = 3  # thermostats, each of which keeps the one before it moving


def tail(density, rc):
    """What atoms beyond the cutoff would add if they were spread out evenly.

    Parameters
    ----------
    density : float [1 / sigma^3]
    rc : float, cutoff [sigma]

    Returns
    -------
    energy of an atom [epsilon], pressure [epsilon / sigma^3]

    Source: Allen & Tildesley, Computer Simulation of Liquids (2017), ch. 2.
    """
    energy = 8 * math.pi * density / 3 * (rc**-9 / 3 - rc**-3)
    return energy, 16 * math.pi * density**2 / 3 * (2 * rc**-9 / 3 - rc**-3)


def berendsen(temperature, target, ratio):
    """What velocities are multiplied with, so that the temperature goes to its target exponentially.

    Parameters
    ----------
    temperature, target : float
    ratio : float, of the time step to the coupling time

    Returns
    -------
    float

    Source: Berendsen et al., J. Chem. Phys. 81 (1984) 3684.
    """
    return math.sqrt(1 + ratio * (target / temperature - 1)) if temperature > 0 else 1.0


def nose_hoover(chain, twice, freedom, target, coupling, dt):
    """Advance a chain of thermostats by half a step.

    Parameters
    ----------
    chain : (2, CHAIN) float64, their positions and velocities; changed in place
    twice : float, twice the kinetic energy of all atoms
    freedom : int > 0, degrees of freedom
    target : float > 0, temperature
    coupling : float > 0, time that the first one swings in, over 2 pi
    dt : float, the whole step

    Returns
    -------
    float, what the velocities of all atoms are to be multiplied with

    Source: Martyna, Tuckerman, Tobias & Klein, Mol. Phys. 87 (1996) 1117.
    """
    place, speed = chain
    mass = masses(freedom, target, coupling)

    def _push(k):
        drive = twice - freedom * target if k == 0 else mass[k - 1] * speed[k - 1] ** 2 - target
        damp = math.exp(-speed[k + 1] * dt / 8) if k + 1 < CHAIN else 1.0
        speed[k] = (speed[k] * damp + drive / mass[k] * dt / 4) * damp

    for k in reversed(range(CHAIN)):
        _push(k)
    factor = math.exp(-speed[0] * dt / 2)
    place += speed * (dt / 2)
    twice *= factor**2
    for k in range(CHAIN):
        _push(k)
    return factor


def masses(freedom, target, coupling):
    """Masses of a chain of thermostats.

    Parameters
    ----------
    freedom, target, coupling : as for ``nose_hoover``

    Returns
    -------
    (CHAIN,) float64
    """
    return target * coupling**2 * np.array([freedom, *(1,) * (CHAIN - 1)], np.float64)


def heat(chain, freedom, target, coupling):
    """Energy that a chain of thermostats holds: with that of the atoms it is conserved.

    Parameters
    ----------
    chain : (2, CHAIN) float64
    freedom, target, coupling : as for ``nose_hoover``

    Returns
    -------
    float
    """
    place, speed = chain
    return float((masses(freedom, target, coupling) * speed**2).sum() / 2
                 + target * (freedom * place[0] + place[1:].sum()))


# ---- the case ------------------------------------------------------------------------------------------------------

ROOM = 200  # bytes for a site of the lattice on each rank while the initial state is made
STRIDE = 0.05  # sigma that an atom of thermal speed moves in a step at most


@dataclass(frozen=True)
class Case(case.Case):
    """The keys of a molecular dynamics case."""

    dt: float = key(0.005, "time step", "tau", above=0)
    steps: int = key(400, "steps to take in all", at_least=0, free=True)
    cells: tuple[int, int, int] = key((8, 8, 8), "of the fcc lattice that atoms start on, along x, y, z; 4 atoms each",
                                      at_least=0, at_most=10**5)
    density: float = key(0.8442, "of that lattice", "1/sigma^3", above=0)
    box: tuple[float, float, float] = key((0.0, 0.0, 0.0), "edges of the box, the lattice in its middle; 0: as that",
                                          "sigma", at_least=0)
    form: str = key("block", "of the lattice: all cells, or a ball in them", choices=("block", "ball"))
    fill: float = key(1.0, "part of the lattice's sites with an atom, drawn at random", at_least=0, at_most=1)
    temperature: float = key(1.44, "at the start", "epsilon/k", at_least=0)
    cutoff: float = key(2.5, "distance beyond which atoms do not feel each other", "sigma", above=0)
    shifted: bool = key(True, "the energy goes to 0 at the cutoff, and is conserved")
    tail: bool = key(False, "add what lies beyond the cutoff to energy and pressure; needs shifted = false")
    skin: float = key(0.3, "by which lists of neighbours reach further than the cutoff", "sigma", above=0)
    rebuild: int = key(0, "steps between new lists, unchecked; 0: once an atom has moved by half the skin", at_least=0)
    thermostat: str = key("none", "keeps the temperature", choices=("none", "berendsen", "nose-hoover"))
    target: float = key(1.0, "temperature that the thermostat keeps", "epsilon/k", above=0)
    coupling: float = key(0.5, "time in which it does", "tau", above=0)

    def problem(self):
        """A sentence where keys contradict each other, else None."""
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        sites = 4 * math.prod(self.cells)
        if sites * ROOM > memory:
            return (f"cells = {list(self.cells)}: take {sites * ROOM / 1e9:.0f} GB a rank, and there are "
                    f"{memory / 1e9:.0f} GB here")
        for edge, lattice in zip(self.box, self.lattice):
            if edge and edge < lattice * (1 - 1e-12):
                return f"box = {list(self.box)}: must be >= {lattice:g} for the lattice's cells"
        shortest = min(self.edges)
        if not shortest > 0:
            return f"cells = {list(self.cells)}: must be >= 1 where box is 0"
        if self.cutoff > shortest / 2:
            return f"cutoff = {self.cutoff:g}: must be <= {shortest / 2:.4g}, half the box's shortest edge"
        if self.skin > shortest / 4:
            return f"skin = {self.skin:g}: must be <= {shortest / 4:.4g}, a quarter of the box's shortest edge"
        hottest = max(self.temperature, self.target if self.thermostat != "none" else 0, 1)
        limit = STRIDE / math.sqrt(3 * hottest)
        if self.dt > limit:
            return (f"dt = {self.dt:g}: must be <= {limit:.3g}: at a temperature of {hottest:g} an atom may move by "
                    f"{STRIDE} sigma in a step")
        least = {"none": 0, "berendsen": 1, "nose-hoover": 10}[self.thermostat] * self.dt
        if self.coupling < least:
            return f"coupling = {self.coupling:g}: must be >= {least:g} for thermostat = {self.thermostat}"
        if self.tail and self.shifted:
            return "tail = true: needs shifted = false, the energy of the whole potential"
        return None

    @property
    def lattice(self):
        """Edges of the lattice [sigma]."""
        return tuple(n * (4 / self.density) ** (1 / 3) for n in self.cells)

    @property
    def edges(self):
        """Edges of the box [sigma]."""
        return tuple(max(edge, lattice) for edge, lattice in zip(self.box, self.lattice))


def sites(case):
    """Where all atoms start, by global index.

    Parameters
    ----------
    case : Case

    Returns
    -------
    (n, 3) float64
    """
    corners = np.stack(np.meshgrid(*map(np.arange, case.cells), indexing="ij"), axis=-1).reshape(-1, 1, 3)
    pos = (corners + FCC).reshape(-1, 3) * (4 / case.density) ** (1 / 3)
    if case.form == "ball":
        from_middle = pos - np.array(case.lattice) / 2
        pos = pos[(from_middle**2).sum(axis=1) <= (min(case.lattice) / 2) ** 2]
    if case.fill < 1:
        lots = Stream(case.seed, "md sites").uniform(0, len(pos))
        pos = pos[np.sort(np.argsort(lots, kind="stable")[: round(case.fill * len(pos))])]
    return pos + (np.array(case.edges) - case.lattice) / 2


# ---- communication -------------------------------------------------------------------------------------------------

GRAIN = 16  # in a reach: boxes of ranks are cut at multiples of this part of it
CLOCK = 2  # numbers before those of the chain: steps taken, twice the kinetic energy


class MD:
    """Molecular dynamics of Lennard-Jones atoms in a periodic box.

    Parameters
    ----------
    case : Case
    comm : communicator
    timers : mpi.Timers
    backend : one of ``kernels.BACKENDS``
    """

    name = "md"
    Case = Case
    time_unit = "τ"
    busy = ("force", "neighbours")  # sections that are this rank's own work

    def __init__(self, case, comm, timers, backend):
        self.case, self.comm, self.timers, self.backend = case, comm, timers, backend
        self.edges, self.reach = np.array(case.edges), case.cutoff + case.skin
        pos = sites(case)
        self.n = len(pos)
        self.freedom, self.volume = max(3 * self.n - 3, 0), float(self.edges.prod())
        self.width = lj.cell_width(self.edges, self.reach, self.n)
        measured, self.kind = speeds.measured(comm, "compute")
        self.speeds = measured if case.shares == "speed" else np.ones(comm.size)
        self.clock = np.zeros(CLOCK + 2 * CHAIN)
        self.listed = 0
        self.lay_out(self.speeds)
        first, end = self.rows[comm.rank : comm.rank + 2]
        pos = np.ascontiguousarray(self.domains.wrapped(pos[first:end].T))
        self.waiting = np.arange(first, end), pos, self._velocities(first, end), pos  # until kernels are compiled

    def lay_out(self, speeds):
        """Share the work out by these speeds; the state is unset until ``restore``.

        Parameters
        ----------
        speeds : (ranks,) float64 > 0
        """
        self.speeds = np.asarray(speeds, np.float64)
        self.domains = Domains(self.comm, self.edges, self.speeds, self.reach / GRAIN)
        self.rows = partition.offsets(partition.equal(self.n, self.comm.size))  # of files

    def _velocities(self, first, end):
        """Velocities of some atoms at the start: no momentum, and the temperature of the case. Collective."""
        vel = Stream(self.case.seed, "md velocities").normal(first, end - first, (3,))
        vel -= sums.total(self.comm, vel) / max(self.n, 1)
        twice = float(sums.total(self.comm, (vel**2).sum(axis=1)[:, None])[0])
        vel *= math.sqrt(self.case.temperature * self.freedom / twice) if self.freedom else 0.0
        self.clock[1] = sums.total(self.comm, (vel**2).sum(axis=1)[:, None])[0]
        return np.ascontiguousarray(vel.T)

    def work(self):
        """Pairs in all lists, for each kernel."""
        density = self.n / self.volume
        return {"lennardjones forces": max(1, round(self.n * 4 / 3 * math.pi * self.reach**3 * density))}

    def warm(self):
        """Compile the kernels. Not collective."""
        pos, ids = np.arange(6.0).reshape(3, 2), np.arange(2)
        lj.in_cells(pos, ids, self.width, self.backend)
        near = lj.by_cells(pos, 2, ids, self.reach, self.width, self.backend)
        lj.forces(pos, near, self.case.cutoff, np.empty((5, 2)), self.case.shifted, backend=self.backend)

    # ---- who has which atoms ---------------------------------------------------------------------------------------

    def _ready(self):
        """Take over what waits, and know the forces. Collective."""
        if self.waiting:
            self._settle(*self.waiting)
            self.waiting = None
        if not self.known:
            self._force()

    def _settle(self, ids, pos, vel, listed):
        """Bring atoms home, to the rank in whose box they were when listed, and list neighbours anew. Collective.

        Atoms that others see as ghosts come last: forces on those before need none of the others' positions.
        """
        with self.timers("exchange"):
            ids, listed, pos, vel = self.domains.home(ids, listed, pos, vel)
        with self.timers("neighbours"):
            order = lj.in_cells(listed, ids, self.width, self.backend)
            chosen = self.domains.chosen(listed, self.reach)
            seen = np.zeros(len(ids), bool)
            for rank, _, atoms in chosen:
                if rank != self.comm.rank:
                    seen[atoms] = True
            order = order[np.argsort(seen[order], kind="stable")]
            place = np.empty_like(order)
            place[order] = np.arange(len(ids))
            chosen = [(rank, shift, np.sort(place[atoms])) for rank, shift, atoms in chosen]
            self.ids, self.inner = ids[order], len(ids) - int(seen.sum())
            self.listed_at, self.vel = np.take(listed, order, axis=1), np.take(vel, order, axis=1)
        with self.timers("exchange"):
            own = len(ids)
            self.ghosts = Ghosts(self.comm, chosen, own)
            self.pos = np.empty((3, own + self.ghosts.count))
            self.pos[:, :own] = self.listed_at
            self.ghosts.start(self.pos)
            self.ghosts.finish(self.pos)
            keys = self.ghosts.keys(self.ids)
        with self.timers("neighbours"):
            self.near = lj.by_cells(self.pos, own, keys, self.reach, self.width, self.backend)
            self.pos[:, :own] = np.take(pos, order, axis=1)
            self.own = self.pos[:, :own]
            self.out, self.known = np.empty((5, own)), False

    def _check(self):
        """How far an atom has moved since lists were made, squared; none may be lost. Collective."""
        from mpi4py import MPI

        with np.errstate(all="ignore"):
            moved = ((self.own - self.listed_at) ** 2).sum(axis=0)
        farthest, limit = moved.max(initial=0.0), (self.edges.min() / 2) ** 2
        mine, most = np.array([farthest if farthest <= limit else np.inf]), np.empty(1)
        self.comm.Allreduce(mine, most, MPI.MAX)
        if most[0] == np.inf:
            lost = np.flatnonzero(~(moved <= limit))
            first = min(((int(self.ids[i]), self.own[:, i].tolist()) for i in lost), default=None)
            atom, place = min(one for one in self.comm.allgather(first) if one)
            how = "is lost" if np.isfinite(place).all() else "is not finite"
            where = ", ".join(f"{x:g}" for x in place)
            raise Fault(f"step {int(self.clock[0])}: atom {atom} at ({where}) {how}: the run blew up; a smaller dt may "
                        "help")
        return most[0]

    def _force(self):
        """Forces, energies and virials of this rank's atoms. Collective."""
        def _part(first, last):
            with self.timers("force"):
                lj.forces(self.pos, self.near, self.case.cutoff, self.out, self.case.shifted, first, last, self.backend)

        half = self.inner // 2 if self.ghosts.incoming else 0
        with self.timers("exchange"):
            self.ghosts.start(self.pos)
        _part(0, half)
        with self.timers("exchange"):
            self.ghosts.help()
        _part(half, self.inner)
        with self.timers("exchange"):
            self.ghosts.finish(self.pos)
        _part(self.inner, len(self.ids))
        self.listed += self.near.index.size
        self.known = True

    # ---- a step ----------------------------------------------------------------------------------------------------

    def step(self):
        """Advance by ``dt``, by velocity Verlet. Collective."""
        case = self.case
        self._ready()
        with self.timers("advance"):
            if case.thermostat == "nose-hoover":
                self._thermostats()
            self.vel += self.out[:3] * (case.dt / 2)  # v(t + dt/2)
            self.own += self.vel * case.dt
            self.clock[0] += 1
            if case.rebuild:
                due = self.clock[0] % case.rebuild == 0
                if due:
                    self._check()
            else:
                due = self._check() > (case.skin / 2) ** 2
        if due:
            pos = self.domains.wrapped(self.own)
            self._settle(self.ids, pos, self.vel, pos)
        self._force()
        with self.timers("advance"):
            self.vel += self.out[:3] * (case.dt / 2)
            if case.thermostat != "none":
                self.clock[1] = sums.total(self.comm, (self.vel**2).sum(axis=0)[:, None])[0]
            if case.thermostat == "nose-hoover":
                self._thermostats()
            elif case.thermostat == "berendsen" and self.freedom:
                self.vel *= berendsen(self.clock[1] / self.freedom, case.target, case.dt / case.coupling)

    def _thermostats(self):
        """Half a step of the Nosé-Hoover chain, by the root: exp may round differently elsewhere. Collective."""
        if not self.freedom:
            return
        case, told = self.case, np.empty(1 + 2 * CHAIN)
        if self.comm.rank == 0:
            told[1:] = self.clock[CLOCK:]
            told[0] = nose_hoover(told[1:].reshape(2, -1), self.clock[1], self.freedom, case.target, case.coupling,
                                  case.dt)
        self.comm.Bcast(told)
        self.clock[CLOCK:] = told[1:]
        self.clock[1] *= told[0] ** 2
        self.vel *= told[0]

    # ---- output ----------------------------------------------------------------------------------------------------

    @property
    def columns(self):
        """The diagnostics: energies are those of an atom."""
        free = self.case.thermostat == "none"
        extended = {"extended": Column("ε", conserved=True)} if self.case.thermostat == "nose-hoover" else {}
        return {"step": Column(), "time": Column("τ"), "temperature": Column("ε/k"), "potential": Column("ε"),
                "kinetic": Column("ε"), "energy": Column("ε", conserved=free), "pressure": Column("ε/σ³"), **extended}

    def sample(self):
        """Temperature, energies of an atom and pressure; energy with that of the thermostats' chain. Collective."""
        self._ready()
        self._check()
        terms = np.stack([(self.vel**2).sum(axis=0), *self.out[3:]], axis=1)
        twice, potential, virial = map(float, sums.total(self.comm, terms))
        n, density = max(self.n, 1), self.n / self.volume
        beyond = tail(density, self.case.cutoff) if self.case.tail else (0.0, 0.0)
        potential, kinetic = potential / n + (beyond[0] if self.n else 0.0), twice / 2 / n
        found = {"temperature": twice / self.freedom if self.freedom else 0.0, "potential": potential,
                 "kinetic": kinetic, "energy": potential + kinetic,
                 "pressure": (twice + virial) / (3 * self.volume) + beyond[1]}
        if self.case.thermostat == "nose-hoover":
            chain = self.clock[CLOCK:].reshape(2, -1)
            stored = heat(chain, self.freedom, self.case.target, self.case.coupling) if self.freedom else 0.0
            found["extended"] = found["energy"] + stored / n
        return found

    def fields(self):
        """The atoms, for a snapshot: where they are in the box, velocities, potential energies. Collective."""
        self._ready()
        position, velocity, energy = by_row(
            self.comm, self.ids, self.rows, self.domains.wrapped(self.own), self.vel, self.out[3:4])
        first = int(self.rows[self.comm.rank])
        records = {"position": Record(pieces.rows(position, first, self.n), unit="σ"),
                   "velocity": Record(pieces.rows(velocity, first, self.n), unit="σ/τ"),
                   "energy": Record(pieces.rows(energy[:, 0], first, self.n), (2, 1, -2, 0, 0, 0, 0), unit="ε")}
        return {"particles": [Particles("atoms", self.n, records, {"box": self.edges.tolist()})]}

    def arrays(self):
        """All that a restart needs: atoms, where they were when lists were made, and the clock. Collective."""
        self._ready()
        first = int(self.rows[self.comm.rank])
        values = by_row(self.comm, self.ids, self.rows, self.own, self.vel, self.listed_at)
        found = {name: pieces.rows(value, first, self.n) for name, value in zip(("pos", "vel", "listed"), values)}
        mine = self.clock if self.comm.rank == 0 else self.clock[:0]
        return found | {"clock": pieces.rows(mine.copy(), self.block("clock", self.clock.shape)[0][0], self.clock.size)}

    def block(self, name, shape):
        """Where this rank's rows of a checkpoint's array are.

        Parameters
        ----------
        name : str, "pos", "vel", "listed" or "clock"
        shape : tuple of int, of the whole

        Returns
        -------
        offset, shape : tuples of int
        """
        if name == "clock":
            return ((0,), shape) if self.comm.rank == 0 else (shape, (0,))
        first, end = map(int, self.rows[self.comm.rank : self.comm.rank + 2])
        return (first, 0), (end - first, 3)

    def restore(self, arrays):
        """Take over a state. Collective.

        Parameters
        ----------
        arrays : dict, "pos", "vel", "listed" (n, 3) of this rank's rows, and "clock", whole on the root
        """
        if self.comm.rank == 0:
            self.clock[:] = arrays["clock"]
        self.comm.Bcast(self.clock)
        first, end = self.rows[self.comm.rank : self.comm.rank + 2]
        columns = (np.ascontiguousarray(arrays[name].T) for name in ("pos", "vel", "listed"))
        self.waiting = np.arange(first, end), *columns

    def about(self):
        """What run.json says of atoms, units and shares. Collective."""
        self._ready()
        boxes = np.stack([self.domains.low, self.domains.high], axis=-1)
        return {"atoms": self.n, "box": self.edges, "shares": self.comm.allgather(len(self.ids)), "boxes": boxes,
                "speeds": {"kind": self.kind, "values": self.speeds}, "units": {"length": "σ", "time": "τ"}}

    def rate(self, steps, seconds):
        """The figure of merit, and where this rank's kernel was tuned, which part of its speed that is.

        Parameters
        ----------
        steps : int
        seconds : float, of wall time

        Returns
        -------
        str
        """
        known = choice.rates(self.work())["lennardjones forces"].get("numba")
        part = f" ({100 * self.listed / seconds / known[0]:.0f} % of the kernel's pairs/s)" if known else ""
        return f"{steps * self.n / seconds:.3g} atom-steps/s{part}"


if __name__ == "__main__":
    program.main(MD)
