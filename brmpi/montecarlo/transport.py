"""Neutral particles of one speed through a slab, a sphere or a layered shield.

    python -m brmpi.montecarlo.transport
    mpirun -hostfile hostfiles/all python -m brmpi.montecarlo.transport sims/montecarlo/transport/shield.toml

Particles fly a path of -log(u) mean free paths, and a collision scatters them isotropically or absorbs them. A biased
game takes a part of the weight instead, and plays Russian roulette with what has become light; at surfaces particles
that go on may be split. What leaves without a collision is known in closed form, and is told beside the rest.

Sources: Lux & Koblinger, "Monte Carlo Particle Transport Methods: Neutron and Photon Calculations" (1991); Case, de
Hoffmann & Placzek, "Introduction to the Theory of Neutron Diffusion" (1953), for what escapes from a sphere.
"""

import math
from dataclasses import dataclass

import numpy as np

from brmpi.case import key
from brmpi.kernels import transport
from brmpi.montecarlo import program
from brmpi.montecarlo.moments import Estimator, Moments
from brmpi.streams import Stream

# ---- physics -------------------------------------------------------------------------------------------------------

DEEPEST = 1000.0  # mean free paths
ROOM = 16  # fragments that may leave for each particle of a beam


def uncollided(problem):
    """The share of particles that leave without a collision.

    Exponential integrals for a slab: exp(-T) of a beam, 2 E3(T) of an isotropic flux, E2(T) of sources on the face,
    the mean of E2(t) / 2 + E2(T - t) / 2 of sources inside.

    Parameters
    ----------
    problem : kernels.transport.Slab or Sphere

    Returns
    -------
    float, or None where no closed form is known: uniform sources in shells that differ
    """
    from scipy.special import expn

    thick, total, _ = problem.layers()
    edges = np.concatenate([[0], np.cumsum(thick * total)])
    depth, source = float(edges[-1]), problem.origin()
    if source in ("beam", "centre"):
        return math.exp(-depth)
    if source in ("cosine", "isotropic"):
        return float(2 * expn(3, depth) if source == "cosine" else expn(2, depth))
    if problem.geometry == "slab":
        inside = 0.0
        for width, near, far in zip(thick, edges[:-1], edges[1:]):
            for a, b in ((near, far), (depth - far, depth - near)):
                inside += width * (expn(2, a) if b - a < 1e-9 else (expn(3, a) - expn(3, b)) / (b - a)) / 2
        return float(inside / thick.sum())
    if np.ptp(total):
        return None
    if depth < 0.01:
        return 1 - 3 * depth / 4 + 2 * depth**2 / 5 - depth**3 / 6  # what follows would lose its digits
    return 3 / (8 * depth**3) * (2 * depth**2 - 1 + (1 + 2 * depth) * math.exp(-2 * depth))


# ---- the case ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layer:
    """A layer of a slab, or a shell of a sphere."""

    thickness: float = key(5.0, "thickness", "cm", above=0, at_most=1e6)
    total: float = key(1.0, "total cross section; 0 is a void", "1 / cm", at_least=0, at_most=1e6)
    scattering: float = key(0.5, "share of collisions that scatter, the rest absorb", at_least=0, at_most=1)


@dataclass(frozen=True)
class Case(program.Case):
    """The keys of transport."""

    geometry: str = key("slab", "what particles go through", choices=("slab", "sphere"))
    layers: tuple[Layer, ...] = key((), "from the face of a slab, or the centre of a sphere; none: one of the defaults")
    source: str = key("beam", "normal to the face, isotropic flux onto it, isotropic sources on it or in all of the "
                      "volume, or at the centre",
                      choices=("beam", "cosine", "isotropic", "uniform", "centre"))
    game: str = key("analogue", "particles count whole, or lose weight and play roulette",
                    choices=("analogue", "biased"))
    surfaces: tuple[float, ...] = key((), "depths or radii where particles that go on are split", "cm", above=0)
    split: int = key(2, "into how many; of those that come back one in so many survives", at_least=2, at_most=16)

    def shield(self):
        """What the kernel takes.

        Returns
        -------
        kernels.transport.Slab or Sphere
        """
        kind = {"slab": transport.Slab, "sphere": transport.Sphere}[self.geometry]
        layers = self.layers or (Layer(),)
        thickness, total, scattering = zip(*((one.thickness, one.total, one.scattering) for one in layers))
        return kind(thickness, total, scattering, self.source, self.game == "biased", self.surfaces, self.split)

    def problem(self):
        """A sentence where keys contradict each other, else None."""
        try:
            thickness, total, _ = self.shield().layers()
        except ValueError as error:
            return str(error)
        depth = thickness @ total
        if depth > DEEPEST:
            return f"layers have {depth:g} mean free paths: must be <= {DEEPEST:g} in all"
        copies = len(self.surfaces) * math.log10(self.split)
        if self.surfaces and copies > depth / math.log(10) + math.log10(ROOM):
            return (f"surfaces with split = {self.split} may make 10^{copies:.3g} of a particle: must be <= "
                    f"{ROOM} exp({depth:.4g})")
        return None


# ---- estimates -----------------------------------------------------------------------------------------------------


class Fates(Estimator):
    """The estimator: what becomes of particles.

    Parameters
    ----------
    key : of a stream
    problem : kernels.transport.Slab or Sphere
    backend : one of ``kernels.BACKENDS``
    """

    def __init__(self, key, problem, backend):
        self.key, self.problem, self.backend = key, problem, backend
        self.columns = [0, 1, 2, 3] if problem.geometry == "slab" else [0, 2, 3]
        super().__init__(Moments(np.zeros(len(self.columns))))

    def block(self, first, count):
        """The row of a block of particles.

        Parameters
        ----------
        first, count : int

        Returns
        -------
        (width,) float64
        """
        sums = transport.histories(self.key, first, count, self.problem, self.backend)
        return self.moments.sums(count, *sums[:, self.columns])


class Transport(program.Program):
    """Neutral particles of one speed through a slab, a sphere or a layered shield.

    Parameters
    ----------
    case : Case
    comm : communicator
    timers : mpi.Timers
    backend : one of ``kernels.BACKENDS``
    """

    name = "transport"
    Case = Case
    enough = 10**7

    def __init__(self, case, comm, timers, backend):
        super().__init__(case, comm, timers, backend)
        self.shield = case.shield()
        self.key = Stream(case.seed, "transport").key
        names = transport.TALLIES if case.geometry == "slab" else ("escape", *transport.TALLIES[2:])
        self.quantities = dict.fromkeys(names, "")

    def work(self):
        """Particles that a kernel's call takes."""
        return {"transport histories": self.case.block}

    def warm(self):
        """Compile the kernel. Not collective."""
        transport.histories(self.key, 0, 1, self.shield, self.backend)

    def prepare(self):
        """Make the estimator."""
        self.estimator = Fates(self.key, self.shield, self.backend)

    def exact(self):
        """What leaves without a collision; the rest, where nothing scatters."""
        share = uncollided(self.shield)
        if share is None:
            return {}
        known = {"uncollided": share}
        if not self.shield.layers()[2].any():
            known["absorption"] = 1 - share
            if self.case.geometry == "sphere":
                known["escape"] = share
            elif self.case.source != "uniform":
                known |= {"transmission": share, "reflection": 0.0}
        return known

    def told(self, values, errors):
        """That no particle is lost.

        Parameters
        ----------
        values, errors : (k,) float64
        """
        *fates, _ = values
        about = "" if self.case.game == "analogue" and not self.case.surfaces else ", 1 within the errors"
        return [f"all of these but the last add up to {math.fsum(fates):.8g}{about}"]


if __name__ == "__main__":
    program.main(Transport)
