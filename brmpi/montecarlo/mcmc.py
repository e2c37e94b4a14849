"""Markov chains: an ensemble of walkers that stretch towards each other, at one temperature or at several.

    python -m brmpi.montecarlo.mcmc
    mpirun -hostfile hostfiles/all python -m brmpi.montecarlo.mcmc sims/montecarlo/mcmc/peaks.toml
    python -m brmpi.montecarlo.mcmc --set function=mine:log_density --set dimension=3

A sweep moves one half of the walkers along lines through walkers of the other half, then the other half; it does not
care how a density is stretched or sheared. With ``temperatures`` > 1 further ensembles sample the density to powers
1 / T, and exchange walkers with the next colder one: those that are hot find peaks that lie apart. Densities are worked
out by all ranks, a share each; all else every rank does alike, from random numbers by sweep and walker, so that any
number of ranks gives the same chain.

The method, the case, then communication, then output.

Sources: Goodman & Weare, Comm. App. Math. Comp. Sci. 5 (2010) 65; Foreman-Mackey, Hogg, Lang & Goodman, PASP 125 (2013)
306, for the two halves; Earl & Deem, Phys. Chem. Chem. Phys. 7 (2005) 3910, for exchanges.
"""

import time
from dataclasses import dataclass

import numpy as np

from brmpi import case, partition, program, speeds
from brmpi.case import key
from brmpi.errors import BadInput
from brmpi.montecarlo import chains, own
from brmpi.montecarlo.densities import DENSITIES
from brmpi.results import pieces
from brmpi.results.diagnostics import Column
from brmpi.results.snapshots import Particles, Record
from brmpi.streams import Stream

STRETCH = 2.0  # largest
KEPT = 4096  # rows of history; past that every other one is dropped, and half as many are kept from then on
LATELY = 200  # rows of history in a snapshot
SHOWN = 6  # coordinates that diagnostics tell of

# ---- the method ----------------------------------------------------------------------------------------------------


def proposed(walkers, others, random):
    """Where walkers would go, and the logarithm of what that does to the volume.

    Parameters
    ----------
    walkers, others : (..., n, d) float64, the half that moves and the half that does not
    random : (..., n, 3) float64 in [0, 1)

    Returns
    -------
    places : (..., n, d) float64
    volume : (..., n) float64
    """
    stretch = ((STRETCH - 1) * random[..., 0] + 1) ** 2 / STRETCH  # g(z) of Goodman & Weare, by inversion
    partner = (random[..., 1] * others.shape[-2]).astype(np.int64)
    anchor = np.take_along_axis(others, partner[..., None], axis=-2)
    return anchor + stretch[..., None] * (walkers - anchor), (walkers.shape[-1] - 1) * np.log(stretch)


def exchanged(log, powers, parity, random):
    """Which walkers change places with those of the next hotter ensemble.

    Parameters
    ----------
    log : (temperatures, walkers) float64, log densities
    powers : (temperatures,) float64, 1 / T
    parity : 0 or 1, whether pairs begin with the coldest ensemble or the next
    random : (temperatures, walkers) float64 in [0, 1)

    Returns
    -------
    (temperatures, walkers) bool, true of the colder of a pair
    """
    taken = np.zeros(log.shape, dtype=bool)
    for cold in range(parity, len(powers) - 1, 2):
        gain = (powers[cold] - powers[cold + 1]) * (log[cold + 1] - log[cold])
        taken[cold] = np.log(1 - random[cold]) < gain
    return taken


# ---- the case ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case(case.Case):
    """The keys of a chain."""

    dt: float = key(1.0, "time of a sweep", "sweeps", above=0)
    steps: int = key(2000, "sweeps to take in all", at_least=0, free=True)
    sample: int = key(100, "sweeps between rows of diagnostics", at_least=1)
    density: str = key("gaussian", "what to sample", choices=tuple(DENSITIES))
    function: str = key("", "a density of one's own, module:name, of (n, dimension) places to n log densities")
    dimension: int = key(3, "of a place", at_least=1, at_most=1000)
    walkers: int = key(40, "of an ensemble, an even number", at_least=4, at_most=10**6)
    temperatures: int = key(1, "ensembles", at_least=1, at_most=1000)
    hottest: float = key(20.0, "temperature of the last ensemble", above=1, at_most=1e6)
    width: float = key(2.0, "standard deviation of the places that walkers start from, about 0", above=0)
    burn: int = key(200, "sweeps that are not counted", at_least=0)
    thin: int = key(1, "sweeps between places that are kept", at_least=1)

    def problem(self):
        """A sentence where keys contradict each other, else None."""
        if self.walkers % 2:
            return f"walkers = {self.walkers}: must be an even number"
        if self.walkers < 2 * self.dimension:
            return f"walkers = {self.walkers}: must be >= {2 * self.dimension}, twice the dimension, to span all places"
        if self.density == "banana" and self.dimension % 2 and not self.function:
            return f"dimension = {self.dimension}: must be an even number for density = 'banana'"
        if self.density == "line" and self.dimension != 3 and not self.function:
            return f"dimension = {self.dimension}: must be 3 for density = 'line'"
        return own.problem(self.function)


# ---- communication -------------------------------------------------------------------------------------------------


class Mcmc:
    """Markov chains of an ensemble of walkers, tempered if need be.

    Parameters
    ----------
    case : Case
    comm : communicator
    timers : mpi.Timers
    backend : one of ``kernels.BACKENDS``
    """

    name = "mcmc"
    room = "montecarlo"
    Case = Case
    time_unit = "sweeps"

    def __init__(self, case, comm, timers, backend):
        self.case, self.comm, self.timers, self.backend = case, comm, timers, backend
        self.speeds, self.kind = speeds.measured(comm, "events")
        if case.shares == "equal":
            self.speeds, self.kind = np.ones(comm.size), "equal"
        self.log_density, self.mean, self.variance = DENSITIES[case.density](case.dimension)
        if case.function:
            self.log_density, self.mean, self.variance = own.function(case.function), None, None
        self.powers = case.hottest ** -(np.arange(case.temperatures) / max(case.temperatures - 1, 1))
        shape = case.temperatures, case.walkers
        start = Stream(case.seed, "mcmc start").normal(0, shape[0] * shape[1], (case.dimension,))
        self.places = case.width * start.reshape(*shape, case.dimension)
        self.unproven = True
        self.log = self._densities(self.places)
        if not np.isfinite(self.log).all():
            lost = int(np.sum(~np.isfinite(self.log)))
            raise BadInput(f"width = {case.width}: {lost} of {self.log.size} walkers start where the density is 0")
        self.sweep, self.counts = 0, np.zeros(4, np.int64)  # moves that were tried and made, exchanges likewise
        self.history, self.every = np.empty((0, case.walkers, case.dimension)), case.thin
        shown = min(case.dimension, SHOWN)
        self.columns = {"step": Column(), "time": Column("sweeps"), "acceptance": Column(), "exchange": Column(),
                        "rhat": Column(), "effective": Column("samples")}
        self.columns |= {f"mean_{i}{what}": Column() for i in range(shown) for what in ("", "_error")}

    def _densities(self, places):
        """(...) log densities of (..., d) places: each rank works out its share. Collective."""
        flat = places.reshape(-1, self.case.dimension)
        edges = partition.offsets(partition.shares(len(flat), self.speeds))
        begin = time.perf_counter()
        mine = flat[edges[self.comm.rank] : edges[self.comm.rank + 1]]
        values = np.asarray(self.log_density(mine) if len(mine) else np.empty(0), dtype=float)
        self.timers.seconds["density"] = self.timers.seconds.get("density", 0.0) + time.perf_counter() - begin
        name = f"function = {self.case.function!r}"
        if self.unproven:  # as long as the function's first answer is not seen: a shape is wrong from the beginning
            for shape in self.comm.allgather(None if values.shape == (len(mine),) else values.shape):
                if shape is not None:
                    raise BadInput(f"{name}: gives shape {shape}: must be one log density a place")
            self.unproven = False
        whole = np.empty(len(flat))
        self.comm.Allgatherv(np.ascontiguousarray(values), [whole, np.diff(edges)])
        if not (whole < np.inf).all():  # every rank sees it
            raise BadInput(f"{name}: a log density is NaN or +inf")
        return whole.reshape(places.shape[:-1])

    def work(self):
        """No kernels."""
        return {}

    def warm(self):
        """Nothing to compile."""

    def step(self):
        """One sweep. Collective."""
        temperatures, half = self.case.temperatures, self.case.walkers // 2
        numbers = Stream(self.case.seed, "mcmc moves")
        for side in (0, 1):
            moving, resting = (slice(side * half, (side + 1) * half), slice((1 - side) * half, (2 - side) * half))
            first = (2 * self.sweep + side) * temperatures * half
            random = numbers.uniform(first, temperatures * half, (3,)).reshape(temperatures, half, 3)
            there, volume = proposed(self.places[:, moving], self.places[:, resting], random)
            log = self._densities(there)
            gain = volume + self.powers[:, None] * (log - self.log[:, moving])
            taken = np.log(1 - random[..., 2]) < gain
            self.places[:, moving][taken] = there[taken]
            self.log[:, moving][taken] = log[taken]
            self.counts[:2] += taken[0].size, taken[0].sum()
        if temperatures > 1:
            self._exchange()
        self.sweep += 1
        if self.sweep > self.case.burn and (self.sweep - self.case.burn) % self.every == 0:
            self._keep()

    def _exchange(self):
        """Let ensembles that are next to each other in temperature exchange walkers."""
        shape = self.log.shape
        numbers = Stream(self.case.seed, "mcmc exchanges")
        random = numbers.uniform(self.sweep * self.log.size, self.log.size).reshape(shape)
        taken = exchanged(self.log, self.powers, self.sweep % 2, random)
        pairs = len(range(self.sweep % 2, shape[0] - 1, 2)) * shape[1]
        self.counts[2:] += pairs, taken.sum()
        for cold in np.flatnonzero(taken.any(axis=1)):
            who = np.flatnonzero(taken[cold])
            for state in (self.places, self.log):
                state[cold, who], state[cold + 1, who] = state[cold + 1, who], state[cold, who].copy()

    def _keep(self):
        """Remember where the coldest walkers are; half as often once there is too much to remember."""
        self.history = np.concatenate([self.history, self.places[:1]])
        if len(self.history) >= KEPT:
            self.history, self.every = self.history[1::2], 2 * self.every

    # ---- output ----------------------------------------------------------------------------------------------------

    def moments(self):
        """Means of the coordinates so far, and their standard errors.

        Returns
        -------
        values, errors : (d,) float64; NaN where too little was kept
        """
        if len(self.history) < 8:
            return (np.full(self.case.dimension, np.nan),) * 2
        # walkers of an ensemble lean on each other: its mean is one chain
        means = self.history.mean(axis=1)
        return means.mean(axis=0), np.array([chains.error(column[None]) for column in means.T])

    def sample(self):
        """How the chain does."""
        tried, made, pairs, swaps = self.counts
        values, errors = self.moments()
        row = {"acceptance": made / max(tried, 1), "exchange": swaps / max(pairs, 1), "rhat": 0.0, "effective": 0.0}
        if len(self.history) >= 8:
            columns = self.history.transpose(2, 1, 0)[:SHOWN]
            row["rhat"] = _number(np.nanmax([0.0, *(chains.rhat(column) for column in columns)]))
            variance = self.history.reshape(-1, self.case.dimension).var(axis=0)
            row["effective"] = _number(np.min(variance / np.maximum(errors, 1e-300) ** 2))
        for i in range(min(self.case.dimension, SHOWN)):
            row |= {f"mean_{i}": _number(values[i]), f"mean_{i}_error": _number(errors[i])}
        return row

    def estimates(self):
        """Means of the coordinates, for run.json.

        Returns
        -------
        dict of str to dict: value, error, unit
        """
        pairs = zip(*self.moments())
        return {f"mean_{i}": {"value": value, "error": error, "unit": ""}
                for i, (value, error) in enumerate(pairs) if i < SHOWN and np.isfinite([value, error]).all()}

    def fields(self):
        """Where the coldest walkers are and were last, in their first three coordinates, for a snapshot."""
        places = np.concatenate([self.history[-LATELY:], self.places[:1]]).reshape(-1, self.case.dimension)
        flat = np.zeros((len(places), 3))
        flat[:, : self.case.dimension] = places[:, :3]
        records = {"position": Record(self._piece(flat), unit_dimension=(0,) * 7)}
        return {"particles": [Particles("walkers", len(places), records)]}

    def _piece(self, whole):
        """What all ranks have alike, as the root's."""
        root = self.comm.rank == 0
        return pieces.rows(whole if root else whole[:0], 0 if root else len(whole), len(whole))

    def arrays(self):
        """All that a restart needs."""
        counts = np.array([self.sweep, self.every, *self.counts])
        return {"places": self._piece(self.places), "log": self._piece(self.log), "counts": self._piece(counts),
                "history": self._piece(self.history)}

    def block(self, name, shape):
        """Every rank needs all of a checkpoint.

        Parameters
        ----------
        name : str
        shape : tuple of int, of the whole

        Returns
        -------
        offset, shape : tuples of int
        """
        return (0,) * len(shape), shape

    def restore(self, arrays):
        """Take over a state.

        Parameters
        ----------
        arrays : dict, as ``arrays`` has them, whole
        """
        self.places, self.log, self.history = (arrays[name] for name in ("places", "log", "history"))
        self.sweep, self.every, *counts = (int(count) for count in arrays["counts"])
        self.counts = np.array(counts)

    def about(self):
        """What run.json says of the shares, and of moments that are known."""
        known = {} if self.mean is None else {"exact": {f"mean_{i}": float(mean) for i, mean in enumerate(self.mean)}}
        return {"speeds": {"kind": self.kind, "values": self.speeds}, **known}

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
        return f"{steps * self.log.size / seconds:.3g} densities/s"


def _number(value):
    """A number for diagnostics: what cannot be told yet is 0."""
    return float(value) if np.isfinite(value) else 0.0


if __name__ == "__main__":
    program.main(Mcmc)
