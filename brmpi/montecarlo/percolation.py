"""The threshold of site percolation on the square lattice: how full it is when a cluster first goes around.

    python -m brmpi.montecarlo.percolation
    mpirun -hostfile hostfiles/all python -m brmpi.montecarlo.percolation sims/montecarlo/percolation/threshold.toml

Sites of a periodic lattice are filled in random order; the n-th of N random thresholds has the mean n / (N + 1). That
is taken when a cluster first winds around the lattice, and when one does so in two independent directions. A lattice
does not wind at all just where its matching lattice winds in two: so the two thresholds of a finite lattice are off by
terms in L**(-3/4) of opposite signs, and their mean by one in L**(-3/2). A sample is one lattice of each of two sizes,
from whose means the threshold is extrapolated.

Sources: Newman & Ziff, Phys. Rev. E 64 (2001) 016706; Jacobsen, J. Phys. A 48 (2015) 454003 for the threshold.
"""

from dataclasses import dataclass

import numpy as np

from brmpi.case import key
from brmpi.kernels import percolation
from brmpi.montecarlo import program
from brmpi.montecarlo.moments import Estimator, Moments
from brmpi.streams import Stream

THRESHOLD = 0.59274605079210  # of site percolation on the square lattice, 2e-14
POWER = 1.5  # of 1 / L, which a finite lattice is off


@dataclass(frozen=True)
class Case(program.Case):
    """The keys of percolation."""

    sizes: tuple[int, int] = key((32, 64), "sides of the two lattices, the smaller first", at_least=2,
                                 at_most=percolation.LARGEST)
    block: int = key(64, "lattices that are added up and dealt out as one", at_least=1, at_most=2**20)

    def problem(self):
        """A sentence where keys contradict each other, else None."""
        if not self.sizes[0] < self.sizes[1]:
            return f"sizes = {list(self.sizes)}: the first must be the smaller one"
        return None


class Winding(Estimator):
    """The estimator: thresholds of pairs of lattices.

    Parameters
    ----------
    case : Case
    backend : one of ``kernels.BACKENDS``
    """

    def __init__(self, case, backend):
        self.sizes, self.backend = case.sizes, backend
        self.keys = [Stream(case.seed, f"percolation {size}").key for size in case.sizes]
        spread = 3 * case.sizes[1] ** -0.75
        edges = np.linspace(max(0, THRESHOLD - spread), THRESHOLD + spread, 101)
        super().__init__(Moments([THRESHOLD] * 5, edges=edges))

    def values(self, first, count):
        """Thresholds of some pairs of lattices.

        Parameters
        ----------
        first, count : int

        Returns
        -------
        (count, 5) float64: extrapolated; means of the smaller and of the larger lattice; of the larger when it first
            winds, and when it does so both ways
        """
        means = []
        for size, stream in zip(self.sizes, self.keys):
            along_x, along_y, both = percolation.thresholds(stream, first, count, size, self.backend).T / (size**2 + 1)
            means.append((np.minimum(along_x, along_y), both))
        small, large = (sum(pair) / 2 for pair in means)
        ratio = (self.sizes[1] / self.sizes[0]) ** POWER
        return np.column_stack([(ratio * large - small) / (ratio - 1), small, large, *means[1]])

    def block(self, first, count):
        """The row of a block of samples.

        Parameters
        ----------
        first, count : int

        Returns
        -------
        (width,) float64
        """
        return self.moments.row(self.values(first, count))


class Percolation(program.Program):
    """The threshold of site percolation on the square lattice.

    Parameters
    ----------
    case, comm, timers, backend : as ``program.Program`` has them
    """

    name = "percolation"
    Case = Case
    enough = 4096

    def __init__(self, case, comm, timers, backend):
        super().__init__(case, comm, timers, backend)
        small, large = case.sizes
        self.quantities = dict.fromkeys(("threshold", f"of_{small}", f"of_{large}", f"once_of_{large}",
                                         f"twice_of_{large}"), "")

    def work(self):
        """Sites that a kernel's call fills at most."""
        return {"percolation thresholds": self.case.block * self.case.sizes[1] ** 2}

    def warm(self):
        """Compile the kernel. Not collective."""
        percolation.thresholds((1, 2), 0, 1, 2, self.backend)

    def prepare(self):
        """Make the estimator."""
        self.estimator = Winding(self.case, self.backend)

    def exact(self):
        """The threshold of an endless lattice."""
        return {"threshold": THRESHOLD}


if __name__ == "__main__":
    program.main(Percolation)
