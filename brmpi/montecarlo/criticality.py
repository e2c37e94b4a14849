"""The multiplication factor k of a bare slab or sphere, one speed, isotropic scattering: generation by generation.

    python -m brmpi.montecarlo.criticality --help
    mpirun -hostfile hostfiles/all python -m brmpi.montecarlo.criticality sims/montecarlo/criticality/slab.toml

A step is a generation: neutrons start where the last ones caused fission, fly, scatter and are absorbed, and an
absorption yields nu Sigma_f / (Sigma_a k) neutrons on average, k being the estimate so far. As many of these as there
were before, evenly spaced among all in the order of their parents, are the next generation. What a neutron does depends
on generation and index alone, and k is a count of collisions: any number of ranks gives the same bits.

Physics first, then the case, then communication, then output.

Source: Lux & Koblinger, "Monte Carlo Particle Transport Methods: Neutron and Photon Calculations" (1991), ch. 7.
"""

import math
from dataclasses import dataclass

import numpy as np

from brmpi import case, partition, program, speeds
from brmpi.case import key
from brmpi.errors import Fault
from brmpi.kernels import transport
from brmpi.results import pieces
from brmpi.results.diagnostics import Column
from brmpi.results.snapshots import Mesh
from brmpi.streams import Stream

# ---- physics -------------------------------------------------------------------------------------------------------


def entropy(counts):
    """Shannon's entropy of how sources are spread over equal parts of the body.

    Parameters
    ----------
    counts : (bins,) int, sources in each

    Returns
    -------
    float, of bits: log2(bins) where all are alike
    """
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum()) + 0.0


def averaged(ks, batch):
    """The mean of k over generations and its standard error, from means of batches, as neighbours are alike.

    Parameters
    ----------
    ks : (n,) float64, of the generations that count
    batch : int >= 1, generations in a batch

    Returns
    -------
    mean, error : float; NaN and infinity where there are too few
    """
    if not len(ks):
        return math.nan, math.inf
    number = len(ks) // batch
    if number < 2:
        return float(np.mean(ks)), math.inf
    means = ks[: number * batch].reshape(number, batch).mean(axis=1)
    return float(np.mean(ks)), float(means.std(ddof=1) / math.sqrt(number))


def comb(first, end, total, count, offset):
    """Which of the neutrons that were born begin the next generation: evenly spaced ones.

    Parameters
    ----------
    first, end : int, a part of the neutrons born, those of a rank
    total : int >= 1, neutrons born in all
    count : int >= 1, neutrons of a generation
    offset : float in [0, 1)

    Returns
    -------
    start : int, index in the next generation of the first that is chosen from this part
    chosen : (n,) int64, in order, first <= chosen < end; each is expected count / total times
    """
    pitch = total / count
    near = np.arange(max(0, int(first / pitch) - 2), min(count, int(end / pitch) + 3))  # one more than needed at ends
    chosen = np.minimum(((near + offset) * pitch).astype(np.int64), total - 1)
    low, high = np.searchsorted(chosen, [first, end])
    return int(near[0] + low) if len(near) else count, chosen[low:high]


# ---- the case ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case(case.Case):
    """The keys of criticality. The default is a slab of plutonium that is just critical: PUb-1-0-SL."""

    dt: float = key(1.0, "time of a generation", "generations", above=0)
    steps: int = key(250, "generations in all", at_least=0, free=True)
    sample: int = key(1, "generations between rows of diagnostics", at_least=1)
    geometry: str = key("slab", "shape of the body", choices=("slab", "sphere"))
    size: float = key(4.513502, "thickness of the slab, or radius of the sphere", "cm", above=0)
    total: float = key(0.32640, "total cross section", "1 / cm", above=0)
    scattering: float = key(0.225216, "cross section of scattering, isotropic", "1 / cm", at_least=0)
    fission: float = key(0.0816, "cross section of fission", "1 / cm", above=0)
    nu: float = key(2.84, "neutrons from a fission", above=0, at_most=100)
    neutrons: int = key(10000, "in a generation", at_least=1, at_most=2**31)
    inactive: int = key(50, "generations before the first that counts", at_least=0)
    batch: int = key(10, "generations in a batch, whose means tell the error", at_least=1)
    bins: int = key(32, "parts of the body that the entropy of sources is taken over", at_least=1, at_most=10**6)

    def problem(self):
        """A sentence where keys contradict each other, else None."""
        if self.scattering + self.fission > self.total * (1 + 1e-12):
            return (f"total = {self.total}: must be >= scattering + fission = "
                    f"{self.scattering + self.fission:.10g}")
        if self.fission > (self.total - self.scattering) * (1 + 1e-9):
            return f"fission = {self.fission}: must be <= total - scattering = {self.total - self.scattering:.10g}"
        if self.size * self.total > 1000:
            return f"size = {self.size}: is {self.size * self.total:g} mean free paths, must be <= 1000"
        return None


# ---- communication -------------------------------------------------------------------------------------------------


class Criticality:
    """The multiplication factor k of a bare slab or sphere, one speed, isotropic scattering.

    Parameters
    ----------
    case : Case
    comm : communicator
    timers : mpi.Timers
    backend : one of ``kernels.BACKENDS``
    """

    room = "montecarlo"
    name = "criticality"
    Case = Case
    time_unit = "generations"
    busy = ("neutrons",)
    columns = {"step": Column(), "time": Column("generations"), "k": Column(), "k_mean": Column(), "k_error": Column(),
               "entropy": Column("bit")}

    def __init__(self, case, comm, timers, backend):
        self.case, self.comm, self.timers, self.backend = case, comm, timers, backend
        measured, self.kind = speeds.measured(comm, "events")
        self.speeds = measured if case.shares == "speed" else np.ones(comm.size)
        self.key = Stream(case.seed, "criticality flights").key
        self.ratio = case.scattering / case.total
        absorption = case.total - case.scattering
        self.yielded = case.nu * case.fission / absorption  # neutrons born, on average, of one absorbed
        self.thick = case.size * case.total
        self.ks = np.zeros(0)
        self.lay_out(self.speeds)
        u = Stream(case.seed, "criticality first sources").uniform(self.first, len(self.places), (3,))
        self.places[:] = self.thick * (u[:, 0] if case.geometry == "slab" else u.max(axis=1))

    def lay_out(self, speeds):
        """Share the neutrons of a generation out by these speeds; where they start is unset until ``restore``.

        Parameters
        ----------
        speeds : (ranks,) float64 > 0
        """
        self.speeds = speeds
        self.edges = partition.offsets(partition.shares(self.case.neutrons, speeds))
        self.first = int(self.edges[self.comm.rank])
        self.places = np.zeros(int(self.edges[self.comm.rank + 1]) - self.first)

    def work(self):
        """Neutrons that a kernel's call follows."""
        return {"transport generation": self.case.neutrons}

    def warm(self):
        """Compile the kernel. Not collective."""
        transport.generation(self.key, 0, [0.0], self.thick, self.case.geometry, self.ratio, 1.0, self.backend)

    def step(self):
        """One generation. Collective.

        Raises
        ------
        Fault : no neutron was born
        """
        number, count = len(self.ks), self.case.neutrons
        with self.timers("neutrons"):
            guess = self.ks[number - 1] if number else 1.0
            if number > self.case.inactive:
                guess = float(np.mean(self.ks[self.case.inactive :]))
            ends, yields, collisions = transport.generation(
                self.key, (number << 64) + self.first, self.places, self.thick, self.case.geometry, self.ratio,
                self.yielded / guess if guess else 0.0, self.backend)
        with self.timers("exchange"):
            mine = np.array([yields.sum(), collisions.sum()], np.int64)
            every = np.empty((self.comm.size, 2), np.int64)
            self.comm.Allgather(mine, every)
            born, hits = map(int, every.sum(axis=0))
            if not born:
                raise Fault(f"generation {number + 1}: none of {count} neutrons had offspring: more neutrons, or a "
                            "larger body")
            before = int(every[: self.comm.rank, 0].sum())
            self.ks = np.append(self.ks, self.case.nu * self.case.fission / self.case.total * (hits / count))
            offset = float(Stream(self.case.seed, "criticality choice").uniform(number, 1)[0])
            start, chosen = comb(before, before + int(mine[0]), born, count, offset)
            sites = np.repeat(ends, yields)[chosen - before]
            # what this rank's sources left, to who starts them: both in the order of neutrons
            held = pieces.rows(sites, start, count)
            self.places = pieces.moved(self.comm, held, (self.first,), (len(self.places),))

    # ---- output ----------------------------------------------------------------------------------------------------

    def counts(self):
        """Sources of the next generation in equal parts of the body, of equal volume. Collective.

        Returns
        -------
        (bins,) int64, the same on every rank
        """
        share = self.places / self.thick
        if self.case.geometry == "sphere":
            share = share * share * share
        bins = self.case.bins
        mine = np.bincount(np.minimum((share * bins).astype(np.int64), bins - 1), minlength=bins).astype(np.int64)
        every = np.empty_like(mine)
        self.comm.Allreduce(mine, every)
        return every

    def sample(self):
        """k of this generation, its mean over those that count, that one's error, the entropy of sources. Collective.

        Before there are generations that count, the mean is this generation's; before there are two batches, the error
        is 0.
        """
        mean, error = averaged(self.ks[self.case.inactive :], self.case.batch)
        last = float(self.ks[-1]) if len(self.ks) else 1.0
        return {"k": last, "k_mean": mean if math.isfinite(mean) else last,
                "k_error": error if math.isfinite(error) else 0.0, "entropy": entropy(self.counts())}

    def fields(self):
        """The density of sources in parts of equal volume, for a snapshot: 1 on average."""
        counts = self.counts()
        root = self.comm.rank == 0
        density = counts * (self.case.bins / self.case.neutrons)
        piece = pieces.rows(density if root else density[:0], 0 if root else self.case.bins, self.case.bins)
        axis, length = ("x", self.case.size) if self.case.geometry == "slab" else ("volume", 1.0)
        unit = "cm" if self.case.geometry == "slab" else "of the whole"
        return {"meshes": [Mesh("sources", piece, (axis,), (length / self.case.bins,), (0.0,), grid_unit=unit,
                                position=(0.5,))]}

    def arrays(self):
        """Where neutrons start, and k of all generations: all that a restart needs."""
        root = self.comm.rank == 0
        return {"places": pieces.rows(self.places, self.first, self.case.neutrons),
                "ks": pieces.rows(self.ks if root else self.ks[:0], 0 if root else len(self.ks), len(self.ks))}

    def block(self, name, shape):
        """Where what this rank needs of a checkpoint's array is.

        Parameters
        ----------
        name : "places" or "ks"
        shape : tuple of int, of the whole

        Returns
        -------
        offset, shape : tuples of int
        """
        return ((self.first,), (len(self.places),)) if name == "places" else ((0,), shape)

    def restore(self, arrays):
        """Take over a state.

        Parameters
        ----------
        arrays : dict, "places" of this rank, "ks" (generations,)
        """
        self.places, self.ks = np.array(arrays["places"]), np.array(arrays["ks"])

    def about(self):
        """What run.json says of the shares."""
        return {"shares": np.diff(self.edges).tolist(), "speeds": {"kind": self.kind, "values": self.speeds}}

    def rate(self, steps, seconds):
        """The figure of merit, and k.

        Parameters
        ----------
        steps : int
        seconds : float, of wall time

        Returns
        -------
        str
        """
        mean, error = averaged(self.ks[self.case.inactive :], self.case.batch)
        found = f"; k = {mean:.5f}" + (f" ± {error:.5f}" if math.isfinite(error) else "") if math.isfinite(mean) else ""
        return f"{steps * self.case.neutrons / seconds:.3g} neutrons/s{found}"


if __name__ == "__main__":
    program.main(Criticality)
