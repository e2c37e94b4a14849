"""The Ising model in two dimensions: Metropolis sweeps of a checkerboard, or Swendsen and Wang's clusters.

    python -m brmpi.sims.ising --help
    mpirun -hostfile hostfiles/all python -m brmpi.sims.ising sims/ising/critical.toml

    E = -J sum over neighbours s_i s_j        J = k_B = 1, so that temperatures are in J / k_B; the lattice is periodic

Physics first, then the case, then communication, then output. Random numbers belong to a site or a bond and to the
sweep, so that any number of ranks gives the same spins.
"""

import math
from dataclasses import dataclass

import numpy as np

from brmpi import case, program
from brmpi.case import key
from brmpi.field import Field
from brmpi.kernels import choice, clusters, ising, philox
from brmpi.results import pieces
from brmpi.results.diagnostics import Column
from brmpi.streams import Stream

# ---- physics -------------------------------------------------------------------------------------------------------

CRITICAL = 2 / math.log(1 + math.sqrt(2))  # 2.269185…, Onsager's temperature


def onsager(temperature):
    """Energy and magnetisation per site of an infinite lattice.

    Sources: Onsager, Phys. Rev. 65 (1944) 117; Yang, Phys. Rev. 85 (1952) 808.

    Parameters
    ----------
    temperature : float > 0

    Returns
    -------
    energy, magnetisation : float
    """
    from scipy.special import ellipk

    k = 1 / temperature
    part = 2 * math.sinh(2 * k) / math.cosh(2 * k) ** 2
    energy = -1 / math.tanh(2 * k) * (1 + 2 / math.pi * (2 * math.tanh(2 * k) ** 2 - 1) * ellipk(part**2))
    magnetisation = (1 - math.sinh(2 * k) ** -4) ** 0.125 if temperature < CRITICAL else 0.0
    return float(energy), float(magnetisation)


# ---- the case ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case(case.Case):
    """The keys of an Ising case."""

    dt: float = key(1.0, "time of a sweep", "sweeps", above=0)
    steps: int = key(200, "sweeps to take in all", at_least=0, free=True)
    cells: tuple[int, ...] = key((128, 128), "sites along x and y, even numbers", at_least=2, at_most=2**31)
    temperature: float = key(2.27, "in J / k_B", above=0)
    algorithm: str = key("metropolis", "how spins change", choices=("metropolis", "swendsen-wang"))
    initial: str = key("random", "initial state", choices=("random", "up"))

    def problem(self):
        """A sentence where keys contradict each other, else None."""
        if len(self.cells) != 2:
            return f"cells has {len(self.cells)} values: must be 2"
        odd = [n for n in self.cells if n % 2]
        return f"cells = {list(self.cells)}: must be even, or the colours of the checkerboard meet" if odd else None

    @property
    def size(self):
        """Size of the box: a site is 1 wide."""
        return tuple(map(float, self.cells))


# ---- communication -------------------------------------------------------------------------------------------------


class Ising(Field):
    """The Ising model in two dimensions.

    Parameters
    ----------
    case : Case
    comm : communicator
    timers : mpi.Timers
    backend : one of ``kernels.BACKENDS``
    """

    name = "ising"
    Case = Case
    time_unit = "sweeps"
    kind_of_work = "compute"
    columns = {"step": Column(), "time": Column("sweeps"), "energy": Column("J"), "magnetisation": Column(),
               "magnitude": Column()}

    def __init__(self, case, comm, timers, backend):
        super().__init__(case, comm, timers, backend, 1, (True, True))
        self.key = Stream(case.seed, "ising spins").key
        self.limits = ising.limits(1 / case.temperature)
        self.sweep = 0
        self.lay_out(self.speeds)
        self.grid.inside(self.spins)[:] = 1
        if case.initial == "random":
            up = self.uniform(Stream(case.seed, "ising initial state").key, 0) < 0.5
            self.grid.inside(self.spins)[~up] = -1

    def lay_out(self, speeds):
        """Share the sites out by these speeds; the spins are unset until ``restore``. Collective.

        Parameters
        ----------
        speeds : (ranks,) float64 > 0
        """
        super().lay_out(speeds)
        self.spins = self.grid.zeros(dtype=np.int8)
        self.halos = self.grid.halos(self.spins)
        if self.case.algorithm == "swendsen-wang":
            self.bonds = self.grid.zeros((2,), np.int8)
            self.labels = self.grid.zeros(dtype=np.int64)
            self.bond_halos, self.label_halos = self.grid.halos(self.bonds), self.grid.halos(self.labels)

    def uniform(self, key, number):
        """Random numbers in [0, 1) of this block's sites.

        Parameters
        ----------
        key : of a stream
        number : int, which of the stream's fields of a number for each site

        Returns
        -------
        array of the block
        """
        (top, bottom), (left, right) = self.grid.box
        rows, columns = self.grid.shape
        first = number * rows * columns
        if (left, right) == (0, columns):
            numbers = philox.uniform(key, first + top * columns, (bottom - top) * columns, self.backend)
            return numbers.reshape(self.grid.sides)
        lines = [philox.uniform(key, first + row * columns + left, right - left, self.backend)
                 for row in range(top, bottom)]
        return np.array(lines).reshape(self.grid.sides)

    def work(self):
        """Sites that a kernel's call updates, of the whole lattice."""
        sites = int(np.prod(self.grid.shape))
        if self.case.algorithm == "metropolis":
            return {"ising half_sweep": sites // 2, "ising energy": sites, "ising magnetisation": sites}
        return {"clusters labels": sites, "philox uniform": sites, "ising energy": sites, "ising magnetisation": sites}

    def warm(self):
        """Compile the kernels. Not collective."""
        spins = np.ones((4, 4), np.int8)
        ising.energy(spins, self.backend)
        ising.magnetisation(spins, self.backend)
        if self.case.algorithm == "metropolis":
            ising.half_sweep(spins, 0, 0, self.limits, self.key, backend=self.backend)
        else:
            clusters.labels(np.ones((2, 2), bool), np.ones((2, 2), bool), self.backend)
            philox.uniform(self.key, 0, 1, self.backend)

    def step(self):
        """One sweep. Collective."""
        if self.case.algorithm == "metropolis":
            for colour in (0, 1):
                self.overlapped(self.halos, self.spins, lambda: None, lambda rows, colour=colour: ising.half_sweep(
                    self.spins[rows.start : rows.stop + 2], colour, self.sweep, self.limits, self.key,
                    self.grid.box[0][0] + rows.start, self.grid.box[1][0], self.backend))
        else:
            self.turn_clusters()
        self.sweep += 1

    def turn_clusters(self):
        """Bind equal neighbours at random, and turn each cluster over with probability 1/2. Collective.

        A label is twice the lowest site's number in the whole cluster, and 1 more where that site's coin says so: the
        least label goes from block to block until none changes.
        Source: Swendsen & Wang, Phys. Rev. Lett. 58 (1987) 86.
        """
        inside, spins, bonds = self.grid.inside, self.spins, self.bonds
        with self.timers("exchange"):
            self.halos(spins)
        with self.timers("update"):
            chance = 1 - math.exp(-2 / self.case.temperature)
            key = Stream(self.case.seed, "ising bonds").key
            mine = inside(spins)
            for bond, other in zip(inside(bonds), (spins[1:-1, 2:], spins[2:, 1:-1])):  # to the right, and down
                bond[:] = mine == other
            for number, bond in enumerate(inside(bonds)):
                bond &= self.uniform(key, 2 * self.sweep + number) < chance
        with self.timers("exchange"):
            self.bond_halos(bonds)
        with self.timers("update"):
            right, down = (np.ascontiguousarray(bond).astype(bool) for bond in inside(bonds))
            cluster = clusters.labels(right, down, self.backend)
            coins = self.uniform(Stream(self.case.seed, "ising coins").key, self.sweep) < 0.5
            (top, bottom), (left, end) = self.grid.box
            number = np.arange(top, bottom)[:, None] * self.grid.shape[1] + np.arange(left, end)
            least = np.full(mine.size, np.iinfo(np.int64).max)
            np.minimum.at(least, cluster.ravel(), (2 * number + coins).ravel())
        # sites at an edge, their neighbours in the halo, the bonds between
        edges = ((np.s_[:, -1:], np.s_[1:-1, -1:], bonds[0, 1:-1, -2:-1]),
                 (np.s_[:, :1], np.s_[1:-1, :1], bonds[0, 1:-1, :1]),
                 (np.s_[-1:], np.s_[-1:, 1:-1], bonds[1, -2:-1, 1:-1]),
                 (np.s_[:1], np.s_[:1, 1:-1], bonds[1, :1, 1:-1]))
        while True:
            inside(self.labels)[:] = least[cluster]
            with self.timers("exchange"):
                self.label_halos(self.labels)
            before = least.copy()
            if mine.size:
                for here, there, bound in edges:
                    bound = bound.astype(bool)
                    np.minimum.at(least, cluster[here][bound], self.labels[there][bound])
            if not self.comm.allreduce(bool((least != before).any())):
                break
        mine[(least[cluster] & 1).astype(bool)] *= -1

    # ---- output ----------------------------------------------------------------------------------------------------

    def sample(self):
        """Energy and magnetisation per site, and the latter's magnitude. Collective."""
        self.halos(self.spins)
        sites = math.prod(self.grid.shape)
        energy = self.comm.allreduce(ising.energy(self.spins, self.backend))
        magnetisation = self.comm.allreduce(ising.magnetisation(self.spins, self.backend)) / sites
        return {"energy": energy / sites, "magnetisation": magnetisation, "magnitude": abs(magnetisation)}

    def fields(self):
        """The spins, for a snapshot."""
        return {"meshes": [self.mesh("spin", self.spins)]}

    def arrays(self):
        """The spins, and the number of sweeps: all that a restart needs."""
        root = self.comm.rank == 0
        return {"spins": self.grid.piece(self.spins),
                "sweep": pieces.rows(np.full(int(root), self.sweep), 0 if root else 1, 1)}

    def block(self, name, shape):
        """Where what this rank needs of a checkpoint's array is.

        Parameters
        ----------
        name : "spins" or "sweep"
        shape : tuple of int, of the whole

        Returns
        -------
        offset, shape : tuples of int
        """
        return ((0,), (1,)) if name == "sweep" else super().block(name, shape)

    def restore(self, arrays):
        """Take over a state.

        Parameters
        ----------
        arrays : dict, "spins" of this rank's block, "sweep" (1,)
        """
        self.grid.inside(self.spins)[:] = arrays["spins"]
        self.sweep = int(arrays["sweep"][0])

    def rate(self, steps, seconds):
        """The figure of merit, and where this rank's kernel was tuned, which part of all ranks' speed that is.

        Parameters
        ----------
        steps : int
        seconds : float, of wall time

        Returns
        -------
        str
        """
        spins = steps * math.prod(self.grid.shape) / seconds
        known = choice.rates(self.work()).get("ising half_sweep", {}).get("numba")
        part = f" ({100 * spins / known[0] / self.comm.size:.0f} % of the kernel's)" if known else ""
        return f"{spins:.3g} spins/s{part}"


if __name__ == "__main__":
    program.main(Ising)
