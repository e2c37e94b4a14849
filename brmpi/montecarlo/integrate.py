"""Integrals over the unit cube of many dimensions: Genz's test functions, or a function of one's own.

    python -m brmpi.montecarlo.integrate --set family=gaussian --set way=sobol
    mpirun -hostfile hostfiles/all python -m brmpi.montecarlo.integrate sims/montecarlo/integrate/peak.toml

Ways to need fewer samples are described in ``points`` and, for vegas, in ``vegas``; coordinates as control variates
take off what is linear in the function.
"""

from dataclasses import dataclass

import numpy as np

from brmpi.case import key
from brmpi.errors import BadInput
from brmpi.montecarlo import genz, own, points, program, vegas
from brmpi.streams import Stream


@dataclass(frozen=True)
class Case(program.Case):
    """The keys of an integral."""

    family: str = key("gaussian", "Genz's family of functions", choices=tuple(genz.FAMILIES))
    function: str = key("", "a function of one's own, module:name, of (n, dimension) coordinates to n values")
    dimension: int = key(5, "dimensions", at_least=1)
    difficulty: float = key(0.0, "sum of the family's parameters a; 0: usual for the family", at_least=0)
    way: str = key("plain", "how points are chosen", choices=(*points.WAYS, "vegas"))
    controls: str = key("none", "control variates: each coordinate, whose mean is 1/2", choices=("none", "coordinates"))
    iterations: int = key(8, "of vegas's warm-up", at_least=0, at_most=1000)
    warmup: int = key(2**15, "points of an iteration of the warm-up", at_least=2**10, at_most=2**30)
    damping: float = key(0.75, "how fast vegas's grid moves, 0 for not at all", at_least=0, at_most=3)

    def problem(self):
        """A sentence where keys contradict each other, else None."""
        if self.way == "sobol":
            from scipy.stats import qmc

            if self.dimension > qmc.Sobol.MAXDIM:
                return f"dimension = {self.dimension}: Sobol's table ends at {qmc.Sobol.MAXDIM}"
            if self.block % points.SCRAMBLINGS:
                return f"block = {self.block}: must be a multiple of {points.SCRAMBLINGS} with way = 'sobol'"
            if self.controls != "none":
                return f"controls = {self.controls!r}: cannot be combined with way = 'sobol'"
        if self.controls != "none" and self.dimension > 64:
            return f"controls = {self.controls!r}: dimension = {self.dimension} must be <= 64 with them"
        return own.problem(self.function)


class Integrate(program.Program):
    """An integral over the unit cube of many dimensions."""

    name = "integrate"
    Case = Case
    quantities = {"integral": ""}
    enough = 2**22

    def prepare(self):
        """Choose the function, fit vegas's grid, make the estimator. Collective."""
        case = self.case
        self.function, self.value = own.function(case.function) if case.function else None, None
        if not case.function:
            uniform = Stream(case.seed, "integrate parameters").uniform(0, 2, (case.dimension,))
            a, u = genz.parameters(case.family, uniform, case.difficulty)
            family = genz.FAMILIES[case.family]
            self.function = lambda x: family(x, a, u)
            self.value = genz.exact(case.family, a, u)
        way, integrand = ("plain" if case.way == "vegas" else case.way), self._integrand
        if case.way == "vegas":
            sampler = points.estimator("plain", lambda x: x[:, :1], case.dimension, case.seed, "integrate vegas",
                                       backend=self.backend)
            self.grid = vegas.fitted(self.comm, self.function, sampler.points, case.dimension, case.iterations,
                                     case.warmup, case.damping, self.speeds)
            integrand = self._stretched
        known = [0.5] * case.dimension if case.controls == "coordinates" else []
        self.estimator = points.estimator(way, integrand, case.dimension, case.seed, "integrate", known, True,
                                          self.backend)

    def _integrand(self, x):
        """Values, and control variates after them."""
        values = self._checked(self.function(x), x)
        return np.column_stack([values, x]) if self.case.controls != "none" else values[:, None]

    def _stretched(self, x):
        """Values by the density of vegas's points, and control variates of the points as they were drawn."""
        there, jacobian, _ = self.grid.mapped(x)
        values = self._checked(self.function(there), there) * jacobian
        return np.column_stack([values, x]) if self.case.controls != "none" else values[:, None]

    def _checked(self, values, x):
        """The values, if they are as many as the points."""
        values = np.asarray(values, dtype=float)
        if values.shape != (len(x),):
            raise BadInput(f"function = {self.case.function!r}: gives shape {values.shape} for {len(x)} points: "
                           f"must be ({len(x)},)")
        return values

    def exact(self):
        """The integral, where the function is one of Genz's."""
        return {} if self.value is None else {"integral": self.value}


if __name__ == "__main__":
    program.main(Integrate)
