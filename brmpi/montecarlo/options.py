"""Option prices: European, Asian, barrier, basket and American options, under Black and Scholes or Heston.

    python -m brmpi.montecarlo.options
    mpirun -hostfile hostfiles/all python -m brmpi.montecarlo.options sims/montecarlo/options/asian.toml

Prices are in the money of spot and strike, times in years, rates and dividend yields continuous. ``way`` says how
points are chosen (``points``), ``control`` adds a quantity whose exact mean is known, ``greeks`` the derivatives of the
price: pathwise, where the payoff is continuous, or by bumps of spot and volatility on the same random numbers. American
options are valued from below (``longstaff``). Heston's paths have a bias of the order of the step (``heston``).

Sources: Glasserman, "Monte Carlo methods in financial engineering" (2003); for barriers that are watched at all times,
section 6.4: between two prices the path touches the barrier with a known probability.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri

from brmpi.case import key
from brmpi.kernels import philox
from brmpi.montecarlo import blackscholes, heston, longstaff, points, program
from brmpi.montecarlo.moments import Estimator, Moments
from brmpi.montecarlo.paths import Lognormal
from brmpi.streams import Stream

BARRIERS = ("up-and-out", "up-and-in", "down-and-out", "down-and-in")
PAYOFFS = ("european", "asian", "geometric-asian", "basket", "american", *BARRIERS)
TRAINING = "options training"  # purpose of the paths that an exercise rule is learnt from


@dataclass(frozen=True)
class Case(program.Case):
    """The keys of an option."""

    payoff: str = key("european", "kind of option", choices=PAYOFFS)
    kind: str = key("call", "right to buy or to sell", choices=("call", "put"))
    model: str = key("black-scholes", "of the price", choices=("black-scholes", "heston"))
    spot: tuple[float, ...] = key((100.0,), "price today, of each asset of a basket", "money", above=0)
    strike: float = key(100.0, "price at which to buy or sell", "money", above=0)
    rate: float = key(0.05, "of interest, continuous", "1/year", at_least=-1, at_most=1)
    dividend: float = key(0.0, "dividend yield, continuous", "1/year", at_least=-1, at_most=1)
    volatility: tuple[float, ...] = key((0.2,), "of each asset", "1/sqrt(year)", at_least=0, at_most=10)
    maturity: float = key(1.0, "time until expiry", "years", above=0, at_most=100)
    steps: int = key(0, "times at which the path is looked at; 0: usual for the payoff", at_least=0, at_most=10000)
    barrier: float = key(120.0, "price at which a barrier option ends or comes to life", "money", above=0)
    monitoring: str = key("continuous", "when a barrier is watched", choices=("continuous", "discrete"))
    weights: tuple[float, ...] = key((), "of a basket's assets; none: equal")
    correlation: float = key(0.5, "between any two assets of a basket", at_least=-1, at_most=1)
    v0: float = key(0.04, "Heston: variance today", "1/year", at_least=0, at_most=10)
    kappa: float = key(1.5, "Heston: rate of reversion", "1/year", above=0, at_most=100)
    theta: float = key(0.04, "Heston: mean variance", "1/year", at_least=0, at_most=10)
    xi: float = key(0.5, "Heston: volatility of the variance", "1/year", above=0, at_most=10)
    rho: float = key(-0.7, "Heston: correlation of price and variance", at_least=-1, at_most=1)
    way: str = key("plain", "how points are chosen", choices=points.WAYS)
    control: bool = key(False, "with a control variate")
    shift: float = key(0.0, "importance sampling: standard deviations that the price at expiry is moved by",
                       at_least=-10, at_most=10)
    greeks: str = key("none", "derivatives of the price", choices=("none", "pathwise", "bump"))
    bump: float = key(0.01, "of spot and volatility, as a part of them", above=0, at_most=0.5)
    training: int = key(2**15, "American: paths to learn from when to exercise", at_least=64, at_most=2**28)
    degree: int = key(4, "American: of the polynomials", at_least=1, at_most=12)

    def problem(self):
        """A sentence where keys contradict each other, else None."""
        assets, one = len(self.spot), self.payoff != "basket"
        if not assets or (one and assets > 1):
            return f"spot has {assets} values: must be 1 for payoff = {self.payoff!r}" if one else "spot has no value"
        if len(self.volatility) not in (1, assets):
            return f"volatility has {len(self.volatility)} values: must be 1 or {assets}"
        if self.weights and len(self.weights) != assets:
            return f"weights has {len(self.weights)} values: must be {assets}"
        if assets > 1 and not -1 / (assets - 1) < self.correlation < 1:
            return (f"correlation = {self.correlation}: must be > {-1 / (assets - 1):.4g} and < 1, or the correlations "
                    f"of {assets} assets are not positive definite")
        if self.payoff in BARRIERS and (self.payoff.startswith("up") != (self.barrier > self.spot[0])):
            side = "above" if self.payoff.startswith("up") else "below"
            return f"barrier = {self.barrier}: must be {side} spot = {self.spot[0]} for payoff = {self.payoff!r}"
        return self._unfit() or self._sobol()

    def _unfit(self):
        """What payoff, model and Greeks cannot do together."""
        if self.model == "heston" and self.payoff in ("basket", "american"):
            return f"model = 'heston': prices no payoff = {self.payoff!r}"
        if self.model == "heston" and self.payoff in BARRIERS and self.monitoring == "continuous":
            return "monitoring = 'continuous': must be 'discrete' for barriers under model = 'heston'"
        if self.greeks == "pathwise" and (self.model == "heston" or self.payoff not in ("european", "asian")):
            return "greeks = 'pathwise': only for European and Asian options under Black and Scholes; take 'bump'"
        if self.shift and (self.payoff != "european" or self.model != "black-scholes" or self.greeks == "pathwise"):
            return f"shift = {self.shift}: only for European options under Black and Scholes, without pathwise Greeks"
        if self.shift and self.moments != 1:
            return f"shift = {self.shift}: steps = {self.steps} must be 1 with it"
        if self.shift and self.control:
            return f"shift = {self.shift}: cannot be combined with control = true"
        if self.weights and self.control and (min(self.weights) <= 0 or abs(sum(self.weights) - 1) > 1e-12):
            return "weights: must be > 0 and add up to 1 with control = true"
        return None

    def _sobol(self):
        """What Sobol's sequence cannot do."""
        if self.way != "sobol":
            return None
        from scipy.stats import qmc

        if self.dimension > qmc.Sobol.MAXDIM:
            return (f"steps = {self.moments}: makes {self.dimension} dimensions, and Sobol's table ends at "
                    f"{qmc.Sobol.MAXDIM}")
        if self.control:
            return "control = true: cannot be combined with way = 'sobol'"
        if self.block % points.SCRAMBLINGS:
            return f"block = {self.block}: must be a multiple of {points.SCRAMBLINGS} with way = 'sobol'"
        return None

    @property
    def moments(self):
        """Times at which the path is looked at."""
        usual = 1 if self.payoff in ("european", "basket") else 50
        return self.steps or (50 if self.model == "heston" else usual)

    @property
    def dimension(self):
        """Random numbers of a path."""
        return self.moments * (2 if self.model == "heston" else len(self.spot))


class Kernel(Estimator):
    """The estimator of a plain call without Greeks: a loop that sums payoffs where it makes them.

    Parameters
    ----------
    case : Case
    backend : one of ``kernels.BACKENDS``
    """

    multiple = philox.BLOCK

    def __init__(self, case, backend):
        super().__init__(Moments([0.0]))
        self.case, self.backend = case, backend
        self.key = Stream(case.seed, "options").key
        self.steps = case.moments if case.payoff == "asian" else 1

    def block(self, first, count):
        """The row of a block of paths.

        Parameters
        ----------
        first, count : int

        Returns
        -------
        (width,) float64
        """
        case = self.case
        spot = case.spot[0] * math.exp(-case.dividend * case.maturity)  # what a European option sees of dividends
        rows = philox.asian(self.key, first, count, spot, case.strike, case.rate, case.volatility[0], case.maturity,
                            self.steps, self.backend)
        total = rows.sum(axis=0)
        return self.moments.sums(count, total[:1], total[1:])


class Options(program.Program):
    """Option prices under Black and Scholes or Heston, and their derivatives.

    Parameters
    ----------
    case, comm, timers, backend : as ``program.Program`` has them
    """

    name = "options"
    Case = Case
    enough = 2**22

    def __init__(self, case, comm, timers, backend):
        super().__init__(case, comm, timers, backend)
        self.quantities = {"price": "money"}
        if case.greeks != "none":
            self.quantities |= {"delta": "", "vega": "money"}
        if case.greeks == "bump":
            self.quantities |= {"gamma": "1 / money"}
        self.spot = np.array(case.spot)
        self.start = self.spot[0]  # of one asset, and of its bumps
        self.volatility = np.broadcast_to(np.array(case.volatility), self.spot.shape).copy()
        self.weights = np.array(case.weights or [1 / len(self.spot)] * len(self.spot))
        self.correlation = np.full((len(self.spot),) * 2, case.correlation)
        np.fill_diagonal(self.correlation, 1.0)
        self.discount = math.exp(-case.rate * case.maturity)
        self.sign = blackscholes.SIGN[case.kind]
        self.heston = heston.Model(case.v0, case.kappa, case.theta, case.xi, case.rho)
        self.rule = None

    @property
    def by_kernel(self):
        """Whether the loop in ``kernels.philox`` does it all."""
        case = self.case
        return (case.payoff in ("european", "asian") and case.kind == "call" and case.model == "black-scholes"
                and case.way == "plain" and not case.control and not case.shift and case.greeks == "none"
                and (case.moments == 1 if case.payoff == "european" else not case.dividend)
                and case.block % philox.BLOCK == 0)

    def work(self):
        """Normal numbers that a kernel's call takes."""
        return {"philox payoffs": self.case.block * self.case.moments} if self.by_kernel else {}

    def warm(self):
        """Compile the kernels. Not collective."""
        if self.by_kernel:
            philox.european((1, 2), 0, 1, 100, 100, 0.05, 0.2, 1, self.backend)
        else:
            philox.words((1, 2), 0, 1, self.backend)

    def prepare(self):
        """Learn when to exercise, and make the estimator. Collective."""
        case = self.case
        if self.by_kernel:
            self.estimator = Kernel(case, self.backend)
            return
        bridged = case.way in ("stratified", "sobol")
        self.paths = Lognormal(self.volatility, self.correlation, case.maturity, case.moments, bridged)
        if case.payoff == "american":
            self._learn()
        known = [self._known()] if case.control else []
        self.estimator = points.estimator(case.way, self._values, case.dimension, case.seed, "options", known, True,
                                          self.backend)

    def _learn(self):
        """The rule of exercise of an American option. Collective."""
        case = self.case
        training = points.estimator("plain", lambda u: u[:, :1], case.dimension, case.seed, TRAINING,
                                    backend=self.backend)
        self.rule = longstaff.fitted(
            self.comm, lambda first, count: self._prices(training.points(first, count))[:, :, 0], self._exercised,
            case.training, math.exp(-case.rate * case.maturity / case.moments), case.strike, case.degree, self.speeds)

    # ---- values of paths -------------------------------------------------------------------------------------------

    def _exercised(self, price):
        """What exercise pays."""
        return np.maximum(self.sign * (price - self.case.strike), 0)

    def _prices(self, u, spot=1.0, volatility=1.0):
        """(n, steps, assets) prices along paths, with spot and volatility times factors."""
        case = self.case
        if case.model == "heston":
            model = heston.Model(case.v0 * volatility**2, case.kappa, case.theta * volatility**2, case.xi * volatility,
                                 case.rho)
            return heston.paths(u, self.spot[0] * spot, case.rate, case.dividend, case.maturity, case.moments,
                                model)[:, :, None]
        return self.paths.prices(self.paths.brownian(u), self.spot * spot, case.rate - case.dividend,
                                 self.volatility * volatility)

    def _values(self, u):
        """Price, Greeks and control variates of each point."""
        case = self.case
        if case.shift:
            return self._shifted(u)
        prices = self._prices(u)
        price = self._payoff(prices)
        columns = [price]
        if case.greeks == "pathwise":
            columns += self._pathwise(u, prices)
        elif case.greeks == "bump":
            columns += self._bumped(u, price)
        if case.control:
            columns.append(self._control(prices))
        return np.column_stack(columns)

    def _payoff(self, prices, volatility=1.0):
        """(n,) discounted payoffs."""
        case = self.case
        if case.payoff == "american":
            step = math.exp(-case.rate * case.maturity / case.moments)
            return longstaff.followed(prices[:, :, 0], self._exercised, self.rule, step, case.strike)
        if case.payoff in BARRIERS:
            kept = self._untouched(prices[:, :, 0], volatility)
            part = kept if case.payoff.endswith("out") else 1 - kept
            return self.discount * part * self._exercised(prices[:, -1, 0])
        return self.discount * self._exercised(self._underlying(prices))

    def _underlying(self, prices):
        """What a payoff looks at."""
        if self.case.payoff == "asian":
            return prices[:, :, 0].mean(axis=1)
        if self.case.payoff == "geometric-asian":
            return np.exp(np.log(prices[:, :, 0]).mean(axis=1))
        if self.case.payoff == "basket":
            return prices[:, -1] @ self.weights
        return prices[:, -1, 0]

    def _untouched(self, prices, volatility):
        """Probability that a path did not touch the barrier, given its prices at the steps."""
        case = self.case
        side = -1 if case.payoff.startswith("up") else 1
        away = side * np.log(np.hstack([np.full((len(prices), 1), self.start), prices]) / case.barrier)
        kept = (away > 0).all(axis=1).astype(float)
        if case.monitoring == "continuous":
            spread = (self.volatility[0] * volatility) ** 2 * case.maturity / case.moments
            if spread > 0:
                between = np.clip(away[:, :-1], 0, None) * np.clip(away[:, 1:], 0, None)
                kept = kept * np.prod(-np.expm1(-2 * between / spread), axis=1)
        return kept

    def _pathwise(self, u, prices):
        """Delta and vega of each path."""
        case = self.case
        underlying = self._underlying(prices)
        paid = self.discount * self.sign * (self.sign * (underlying - case.strike) > 0)
        motion = self.paths.brownian(u)[:, :, 0]
        by_volatility = prices[:, :, 0] * (motion - self.volatility[0] * self.paths.times)
        return [paid * underlying / self.spot[0],
                paid * (by_volatility.mean(axis=1) if case.payoff == "asian" else by_volatility[:, -1])]

    def _bumped(self, u, price):
        """Delta, vega and gamma of each point, from prices nearby on the same random numbers."""
        h = self.case.bump
        up, down = (self._nearby(u, spot=1 + h), self._nearby(u, spot=1 - h))
        more, less = (self._nearby(u, volatility=1 + h), self._nearby(u, volatility=1 - h))
        step = h * self.spot[0]
        wide = 2 * h * (self.volatility[0] if self.case.model == "black-scholes" else math.sqrt(self.case.v0))
        return [(up - down) / (2 * step), (more - less) / wide, (up - 2 * price + down) / step**2]

    def _nearby(self, u, spot=1.0, volatility=1.0):
        """Payoffs with spot and volatility times factors."""
        self.start = self.spot[0] * spot
        try:
            return self._payoff(self._prices(u, spot, volatility), volatility)
        finally:
            self.start = self.spot[0]

    def _shifted(self, u):
        """Payoffs with the price at expiry drawn from elsewhere, times the ratio of the densities."""
        case = self.case
        z = ndtri(u[:, 0]) + case.shift
        weight = np.exp(-case.shift * z + case.shift**2 / 2)
        moved = ndtr(z)[:, None]
        columns = [weight * self._payoff(self._prices(moved))]
        if case.greeks == "bump":
            columns += [weight * one for one in self._bumped(moved, self._payoff(self._prices(moved)))]
        return np.column_stack(columns)

    # ---- exact values ----------------------------------------------------------------------------------------------

    def _terms(self):
        """Rate, dividend, volatility, maturity of one asset."""
        case = self.case
        return case.rate, case.dividend, float(self.volatility[0]), case.maturity

    def _control(self, prices):
        """The control variate of each path."""
        case = self.case
        if case.payoff == "asian":
            return self.discount * self._exercised(np.exp(np.log(prices[:, :, 0]).mean(axis=1)))
        if case.payoff == "basket":
            return self.discount * self._exercised(np.exp(np.log(prices[:, -1]) @ self.weights))
        if case.payoff in ("american", *BARRIERS) and case.model == "black-scholes":
            return self.discount * self._exercised(prices[:, -1, 0])
        return self.discount * prices[:, -1, 0]

    def _known(self):
        """The control variate's exact mean."""
        case, spot = self.case, float(self.spot[0])
        if case.payoff == "asian" and case.model == "black-scholes":
            return blackscholes.geometric_asian(case.kind, spot, case.strike, *self._terms(), case.moments)
        if case.payoff == "basket":
            covariance = np.outer(self.volatility, self.volatility) * self.correlation
            return blackscholes.geometric_basket(case.kind, self.spot, self.weights, case.strike, case.rate,
                                                 case.dividend, covariance, case.maturity)
        if case.payoff in ("american", *BARRIERS) and case.model == "black-scholes":
            return blackscholes.european(case.kind, spot, case.strike, *self._terms())
        return spot * math.exp(-case.dividend * case.maturity)

    def exact(self):
        """The price, and the Greeks, where there is a closed form."""
        case, spot = self.case, float(self.spot[0])
        if case.payoff == "european" and case.model == "heston":
            price = heston.european(case.kind, spot, case.strike, case.rate, case.dividend, case.maturity, self.heston)
            return {"price": price}
        if case.model == "heston":
            return {}
        if case.payoff == "european" and self.volatility[0] > 0:
            price = blackscholes.european(case.kind, spot, case.strike, *self._terms())
            return {"price": price} | blackscholes.greeks(case.kind, spot, case.strike, *self._terms())
        if case.payoff == "geometric-asian":
            return {"price": blackscholes.geometric_asian(case.kind, spot, case.strike, *self._terms(), case.moments)}
        if case.payoff in BARRIERS and case.monitoring == "continuous" and self.volatility[0] > 0:
            return {"price": blackscholes.barrier(case.kind, case.payoff, spot, case.strike, case.barrier,
                                                  *self._terms())}
        return {}


if __name__ == "__main__":
    program.main(Options)
