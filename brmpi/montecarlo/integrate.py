"""Integrals over the unit cube of many dimensions: Genz's test functions, or a function of one's own.

    python -m brmpi.montecarlo.integrate --set family=gaussian --set way=sobol
    mpirun -hostfile hostfiles/all python -m brmpi.montecarlo.integrate sims/montecarlo/integrate/peak.toml

Ways to need fewer samples are described in ``points`` and, for vegas, in ``vegas``; coordinates as control variates
take off what is linear in the function.
"""

from dataclasses import dataclass

import numpy as np

from brmpi.case import key
from brmpi.errors import BadInput, Fault
from brmpi.kernels import philox
from brmpi.montecarlo import genz, own, points, program, vegas
from brmpi.streams import Stream

SMALLEST = 1e-120  # of the largest values that a function may have: squares of much smaller ones are lost


@dataclass(frozen=True)
class Case(program.Case):
    """The keys of an integral."""

    family: str = key("gaussian", "Genz's family of functions", choices=tuple(genz.FAMILIES))
    function: str = key("", "a function of one's own, module:name, of (n, dimension) coordinates to n values")
    dimension: int = key(5, "dimensions", at_least=1, at_most=2**20)
    difficulty: float = key(0.0, "sum of the family's parameters a; 0: usual for the family", at_least=0)
    a: tuple[float, ...] = key((), "the family's parameters a, one a dimension; empty: from the seed", above=0)
    u: tuple[float, ...] = key((), "its parameters u, one a dimension; empty: from the seed", at_least=0, at_most=1)
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
            if self.samples > points.SOBOL_SAMPLES:
                return f"samples = {self.samples}: Sobol's sequence ends at {points.SOBOL_SAMPLES}"
        if self.way == "vegas" and self.dimension > vegas.DIMENSIONS:
            return f"dimension = {self.dimension}: must be <= {vegas.DIMENSIONS} with way = 'vegas'"
        if self.controls != "none" and self.dimension > 64:
            return f"controls = {self.controls!r}: dimension = {self.dimension} must be <= 64 with them"
        for name, given in (("a", self.a), ("u", self.u)):
            if given and self.function:
                return f"{name} = {list(given)}: a parameter of Genz's families: cannot be combined with function"
            if given and len(given) != self.dimension:
                return f"{name} has {len(given)} values: must have {self.dimension}, one a dimension"
        if self.a and self.difficulty:
            return f"difficulty = {self.difficulty:g}: cannot be combined with a, which adds up to it"
        return own.problem(self.function)


class Integrate(program.Program):
    """An integral over the unit cube of many dimensions."""

    name = "integrate"
    Case = Case
    quantities = {"integral": ""}
    enough = 2**22

    def warm(self):
        """Compile the kernel. Not collective."""
        philox.words((1, 2), 0, 1, self.backend)

    def prepare(self):
        """Choose the function and try it, fit vegas's grid, make the estimator. Collective."""
        case = self.case
        if case.function:
            self.function, self.value, self.named = own.function(case.function), None, f"function = {case.function!r}"
        else:
            self._choose()
        self._try()
        way, integrand = ("plain" if case.way == "vegas" else case.way), self._integrand
        if case.way == "vegas":
            sampler = points.estimator("plain", lambda x: x[:, :1], case.dimension, case.seed, "integrate vegas",
                                       backend=self.backend)
            self.grid = vegas.fitted(self.comm, self._valued, sampler.points, case.dimension, case.iterations,
                                     case.warmup, case.damping, self.speeds)
            integrand = self._stretched
        known = [0.5] * case.dimension if case.controls == "coordinates" else []
        self.estimator = points.estimator(way, integrand, case.dimension, case.seed, "integrate", known, True,
                                          self.backend)

    def _choose(self):
        """A member of one of Genz's families, and its integral."""
        case = self.case
        uniform = Stream(case.seed, "integrate parameters").uniform(0, 2, (case.dimension,))
        a, u = genz.parameters(case.family, uniform, case.difficulty)
        a, u = np.array(case.a or a), np.array(case.u or u)
        family = genz.FAMILIES[case.family]
        self.function = lambda x: family(x, a, u)
        self.named = f"family = {case.family!r}"
        with np.errstate(all="ignore"):  # what comes of it is looked at
            self.value = genz.exact(case.family, a, u)

    def _try(self):
        """Refuse a function of which nothing can be told: the same points on every rank."""
        trial = points.estimator("plain", lambda x: x[:, :1], self.case.dimension, self.case.seed, "integrate",
                                        backend=self.backend)
        with np.errstate(all="ignore"):
            try:
                size = max(np.abs(self._valued(trial.points(*piece))).max()
                           for piece in trial.pieces(0, points.PILOT))
            except Fault as fault:
                raise BadInput(str(fault)) from None
        expected = 1.0 if self.value is None else abs(self.value)  # all may be 0 where a peak is narrow
        if size > 1 / SMALLEST or (size < SMALLEST and (size > 0 or expected < SMALLEST)):
            raise BadInput(f"{self.named}: values up to {size:.3g} in dimension = {self.case.dimension}: must be >= "
                           f"{SMALLEST} and <= {1 / SMALLEST:g}, as their squares are needed")

    def _integrand(self, x):
        """Values, and control variates after them."""
        values = self._valued(x)
        return np.column_stack([values, x]) if self.case.controls != "none" else values[:, None]

    def _stretched(self, x):
        """Values by the density of vegas's points, and control variates of the points as they were drawn."""
        there, jacobian, _ = self.grid.mapped(x)
        values = self._valued(there) * jacobian
        return np.column_stack([values, x]) if self.case.controls != "none" else values[:, None]

    def _valued(self, x):
        """The function's values, if they are numbers and as many as the points."""
        values = np.asarray(self.function(x))
        if values.shape != (len(x),) or values.dtype.kind not in "biuf":
            raise BadInput(f"{self.named}: gives {values.dtype} of shape {values.shape} for {len(x)} points: must be "
                           f"real, ({len(x)},)")
        values = values.astype(np.float64, copy=False)
        if not np.isfinite(values).all():
            worst = int(np.argmin(np.isfinite(values)))
            where = ", ".join(f"{one:.6g}" for one in x[worst, :8]) + (", …" if x.shape[1] > 8 else "")
            raise Fault(f"{self.named}: is {values[worst]} at ({where})")
        return values

    def exact(self):
        """The integral, where the function is one of Genz's."""
        return {} if self.value is None else {"integral": self.value}


if __name__ == "__main__":
    program.main(Integrate)
