"""An option as it is asked for: the keys of the program ``options``, and what they cannot be together."""

import math
from dataclasses import dataclass

import numpy as np

from brmpi.case import key
from brmpi.montecarlo import points, program
from brmpi.montecarlo.payoffs import BARRIERS, PAYOFFS, SMOOTH

FARTHEST = 300.0  # exponent of a price: its square is a float64, which ends at 709


@dataclass(frozen=True)
class Case(program.Case):
    """The keys of an option."""

    payoff: str = key("european", "kind of option", choices=PAYOFFS)
    kind: str = key("call", "right to buy or to sell", choices=("call", "put"))
    model: str = key("black-scholes", "of the price", choices=("black-scholes", "heston"))
    spot: tuple[float, ...] = key((100.0,), "price today, of each asset of a basket", "money", above=0)
    strike: float = key(100.0, "price at which to buy or sell; 0 for baskets alone", "money", at_least=0)
    rate: float = key(0.05, "of interest, continuous", "1/year", at_least=-1, at_most=1)
    dividend: float = key(0.0, "dividend yield, continuous", "1/year", at_least=-1, at_most=1)
    volatility: tuple[float, ...] = key((0.2,), "of all assets, or of each", "1/sqrt(year)", at_least=0, at_most=10)
    maturity: float = key(1.0, "time until expiry", "years", above=0, at_most=100)
    steps: int = key(0, "times at which the path is looked at; 0: usual for the payoff", at_least=0, at_most=10000)
    barrier: float = key(120.0, "price at which a barrier option ends or comes to life", "money", above=0)
    monitoring: str = key("continuous", "when a barrier is watched", choices=("continuous", "discrete"))
    weights: tuple[float, ...] = key((), "of a basket's assets; none: equal")
    correlation: tuple[float, ...] = key((0.5,), "of a basket's assets: of all pairs, or of 1-2, 1-3, ..., 2-3, ...",
                                         at_least=-1, at_most=1)
    v0: float = key(0.04, "Heston: variance today", "1/year", at_least=0, at_most=10)
    kappa: float = key(1.5, "Heston: rate of reversion", "1/year", above=0, at_most=100)
    theta: float = key(0.04, "Heston: mean variance", "1/year", at_least=0, at_most=10)
    xi: float = key(0.5, "Heston: volatility of the variance", "1/year", at_least=0.001, at_most=10)
    rho: float = key(-0.7, "Heston: correlation of price and variance", at_least=-1, at_most=1)
    way: str = key("plain", "how points are chosen", choices=points.WAYS)
    control: bool = key(False, "with a control variate")
    shift: float = key(0.0, "importance sampling: standard deviations that the end of paths is moved by",
                       at_least=-10, at_most=10)
    greeks: str = key("none", "derivatives of the price", choices=("none", "pathwise", "bump"))
    bump: float = key(0.01, "of spot and volatility, as a part of them", above=0, at_most=0.5)
    training: int = key(2**15, "American: paths to learn from when to exercise", at_least=64, at_most=2**28)
    degree: int = key(4, "American: of the polynomials", at_least=1, at_most=12)

    def problem(self):
        """A sentence where keys contradict each other, else None."""
        return self._assets() or self._values() or self._unfit() or self._sobol()

    def _assets(self):
        """What is wrong with the numbers of assets."""
        assets, one = len(self.spot), self.payoff != "basket"
        pairs = assets * (assets - 1) // 2
        if not assets or (one and assets > 1):
            return f"spot has {assets} values: must be 1 for payoff = {self.payoff!r}" if one else "spot has no value"
        if len(self.volatility) not in (1, assets):
            return f"volatility has {len(self.volatility)} values: must be 1 or {assets}"
        if self.weights and len(self.weights) != assets:
            return f"weights has {len(self.weights)} values: must be {assets}"
        if len(self.correlation) not in (1, pairs):
            return f"correlation has {len(self.correlation)} values: must be 1 or {pairs}, one for each pair"
        least = np.linalg.eigvalsh(self.correlations)[0]
        if least <= 1e-12:
            said = self.correlation[0] if len(self.correlation) == 1 else list(self.correlation)
            return (f"correlation = {said}: not positive definite for {assets} assets: the least eigenvalue is "
                    f"{least:.2g}, must be > 0")
        return None

    def _values(self):
        """What is wrong with prices."""
        if self.strike == 0 and self.payoff != "basket":
            return f"strike = 0: must be > 0 for payoff = {self.payoff!r}"
        if self.payoff in BARRIERS:
            up = self.payoff.startswith("up")
            nearest = self.spot[0] * (1 + (self.bump if up else -self.bump) * (self.greeks == "bump"))
            if not (self.barrier > nearest if up else self.barrier < nearest):
                bumped = "" if nearest == self.spot[0] else f", bumped to {nearest:g},"
                return (f"barrier = {self.barrier}: must be {'above' if up else 'below'} spot = {self.spot[0]}{bumped} "
                        f"for payoff = {self.payoff!r}")
        if self.reach(2) > FARTHEST:
            name, value = (("volatility", max(self.volatility)) if self.model == "black-scholes"
                           else ("v0", self.v0) if self.v0 > self.theta else ("theta", self.theta))
            return (f"{name} = {value}: exponents of prices may reach {self.reach(2):.0f} with maturity = "
                    f"{self.maturity}, must be <= {FARTHEST:g}")
        return None

    def _unfit(self):
        """What payoff, model and Greeks cannot do together."""
        black = self.model == "black-scholes"
        if not black and self.payoff in ("basket", "american"):
            return f"model = 'heston': prices no payoff = {self.payoff!r}"
        if not black and self.payoff in BARRIERS and self.monitoring == "continuous":
            return "monitoring = 'continuous': must be 'discrete' for barriers under model = 'heston'"
        if self.greeks == "pathwise" and not (black and self.payoff in SMOOTH):
            return f"greeks = 'pathwise': only for {', '.join(SMOOTH)} under Black and Scholes; take 'bump'"
        if self.greeks == "bump" and self.payoff == "basket":
            return "greeks = 'bump': must be 'pathwise' for payoff = 'basket'"
        if self.greeks != "none" and (min(self.volatility) if black else self.v0) == 0:
            return f"{'volatility' if black else 'v0'} = 0: must be > 0 for derivatives of the price"
        if self.shift and (not black or len(self.spot) > 1):
            return f"shift = {self.shift}: only for one asset under Black and Scholes"
        if self.weights and self.control and (min(self.weights) <= 0 or abs(sum(self.weights) - 1) > 1e-12):
            return "weights: must be > 0 and add up to 1 with control = true"
        if self.control and self.payoff == "geometric-asian":
            return "control = true: the price of payoff = 'geometric-asian' is known, and has none"
        return None

    def _sobol(self):
        """What Sobol's sequence cannot do."""
        if self.way != "sobol":
            return None
        from scipy.stats import qmc

        if self.dimension > qmc.Sobol.MAXDIM:
            return (f"steps = {self.dates}: makes {self.dimension} dimensions, and Sobol's table ends at "
                    f"{qmc.Sobol.MAXDIM}")
        if self.control:
            return "control = true: cannot be combined with way = 'sobol'"
        if self.block % points.SCRAMBLINGS:
            return f"block = {self.block}: must be a multiple of {points.SCRAMBLINGS} with way = 'sobol'"
        if self.samples > points.SOBOL_SAMPLES:
            return f"samples = {self.samples}: Sobol's sequence ends at {points.SOBOL_SAMPLES}"
        return None

    def reach(self, steps):
        """How far from 0 the exponent of a price may come.

        Parameters
        ----------
        steps : int, how many normal numbers at once may be the farthest there are

        Returns
        -------
        float
        """
        black = self.model == "black-scholes"
        most = (max(self.volatility) if black else math.sqrt(max(self.v0, self.theta))) * (1 + self.bump)
        return ((abs(self.rate - self.dividend) + most**2 / 2) * self.maturity + abs(math.log(max(self.spot)))
                + 8.3 * most * math.sqrt(self.maturity * steps))

    @property
    def dates(self):
        """Times at which the path is looked at."""
        usual = 1 if self.payoff in ("european", "basket") else 50
        return self.steps or (50 if self.model == "heston" else usual)

    @property
    def dimension(self):
        """Random numbers of a path."""
        return self.dates * (2 if self.model == "heston" else len(self.spot))

    @property
    def correlations(self):
        """(assets, assets) float64, of the assets."""
        matrix = np.eye(len(self.spot))
        above = np.triu_indices(len(self.spot), 1)
        matrix[above] = self.correlation if len(self.correlation) == len(above[0]) else self.correlation[0]
        return np.triu(matrix) + np.triu(matrix, 1).T
