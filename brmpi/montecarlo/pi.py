"""Pi, from points in a square: the first program to run.

    python -m brmpi.montecarlo.pi
    mpirun -hostfile hostfiles/all python -m brmpi.montecarlo.pi --samples 10000000000

A point falls in the quarter of a circle with probability pi / 4, so that pi is near 4 inside / samples, with a standard
error of 4 sqrt(p (1 - p) / samples).
"""

import math
from dataclasses import dataclass

import numpy as np

from brmpi.case import key
from brmpi.kernels import philox
from brmpi.montecarlo import program
from brmpi.montecarlo.moments import Estimator, Moments
from brmpi.streams import Stream


@dataclass(frozen=True)
class Case(program.Case):
    """The keys of pi."""

    block: int = key(2**22, "points that are counted and dealt out as one", at_least=1, at_most=2**40)


class Inside(Estimator):
    """The estimator: how many points of a block are in the circle.

    Parameters
    ----------
    key : of a stream
    backend : one of ``kernels.BACKENDS``
    """

    def __init__(self, key, backend):
        super().__init__(Moments([0.0]))
        self.key, self.backend = key, backend

    def block(self, first, count):
        """The row of a block of points.

        Parameters
        ----------
        first, count : int

        Returns
        -------
        (width,) float64
        """
        inside = philox.inside_circle(self.key, first, count, self.backend)
        return self.moments.sums(count, [4.0 * inside], [16.0 * inside])


class Pi(program.Program):
    """Pi, from points in a square."""

    name = "pi"
    Case = Case
    quantities = {"pi": ""}
    enough = 10**9

    def work(self):
        """Points that a kernel's call takes."""
        return {"philox inside_circle": self.case.block}

    def warm(self):
        """Compile the kernel. Not collective."""
        philox.inside_circle((1, 2), 0, 1, self.backend)

    def prepare(self):
        """Make the estimator."""
        self.estimator = Inside(Stream(self.case.seed, "pi").key, self.backend)

    def exact(self):
        """Pi itself."""
        return {"pi": math.pi}

    def told(self, values, errors):
        """How many digits that is.

        Parameters
        ----------
        values, errors : (k,) float64
        """
        digits = max(0, math.floor(-np.log10(errors[0] / math.pi))) if 0 < errors[0] < math.inf else 0
        return [f"about {digits} digits: each further one takes 100 times the samples"] if digits else []


if __name__ == "__main__":
    program.main(Pi)
