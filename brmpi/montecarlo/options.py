"""Option prices: European, Asian, barrier, basket and American options, under Black and Scholes or Heston.

    python -m brmpi.montecarlo.options
    mpirun -hostfile hostfiles/all python -m brmpi.montecarlo.options sims/montecarlo/options/asian.toml

Prices are in the money of spot and strike, times in years, rates and dividend yields continuous. ``way`` says how
points are chosen (``points``), ``control`` adds a quantity whose exact mean is known, ``shift`` samples ends of paths
that matter more, ``greeks`` adds derivatives of the price: pathwise where the payoff has no jumps, or by bumps of spot
and volatility on the same random numbers, whose bias is of the order of bump**2. Barriers are watched at all times, by
the probability that a path touches one between two steps (no bias), or at the steps alone. American options may be
exercised after each step, and are valued from below (``longstaff``). Heston's paths have a bias that falls with the
step (``heston``).

Source: Glasserman, "Monte Carlo methods in financial engineering" (2003).
"""

import math

import numpy as np
from scipy.special import ndtri

from brmpi.kernels import philox
from brmpi.montecarlo import blackscholes, heston, longstaff, points, program
from brmpi.montecarlo.contract import Case
from brmpi.montecarlo.moments import Estimator, Moments
from brmpi.montecarlo.paths import Lognormal, bridge
from brmpi.montecarlo.payoffs import BARRIERS, Payoff
from brmpi.streams import Stream

TRAINING = "options training"  # purpose of the paths that an exercise rule is learnt from


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
        self.off = math.exp(-case.dividend * case.maturity)  # the rest of the discount that the kernel does not know

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
        rows = philox.asian(self.key, first, count, case.spot[0], case.strike, case.rate - case.dividend,
                            case.volatility[0], case.maturity, case.dates, self.backend)
        total = rows.sum(axis=0) * (self.off, self.off**2)
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
        if len(case.spot) > 1 and case.greeks == "pathwise":
            self.quantities |= {f"delta_{asset + 1}": "" for asset in range(len(case.spot))}
            self.quantities |= {f"vega_{asset + 1}": "money" for asset in range(len(case.spot))}
        elif case.greeks != "none":
            self.quantities |= {"delta": "", "vega": "money", "gamma": "1 / money"}
        if case.greeks == "pathwise":
            self.quantities |= {"rho": "money", "theta": "money / year"}
        self.spot = np.array(case.spot)
        self.volatility = np.broadcast_to(np.array(case.volatility), self.spot.shape).copy()
        weights = np.array(case.weights or [1 / len(self.spot)] * len(self.spot))
        self.payoff = Payoff(case.payoff, blackscholes.SIGN[case.kind], case.strike, weights, case.barrier)
        self.covariance = np.outer(self.volatility, self.volatility) * case.correlations
        self.discount = math.exp(-case.rate * case.maturity)
        self.fade = math.exp(-case.rate * case.maturity / case.dates)  # of a step
        self.heston = heston.Model(case.v0, case.kappa, case.theta, case.xi, case.rho)
        self.rule = None

    @property
    def by_kernel(self):
        """Whether the loop in ``kernels.philox`` does it all."""
        case = self.case
        return (case.payoff in ("european", "asian") and case.kind == "call" and case.model == "black-scholes"
                and case.way == "plain" and not case.control and not case.shift and case.greeks == "none"
                and (case.dates == 1 or case.payoff == "asian") and case.block % philox.BLOCK == 0
                and case.reach(case.dates) < philox.LARGEST)

    def work(self):
        """Normal numbers that a kernel's call takes."""
        return {"philox payoffs": self.case.block * self.case.dates} if self.by_kernel else {}

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
        self.paths = Lognormal(self.volatility, case.correlations, case.maturity, case.dates, bridged)
        self.matrix = bridge(case.dates) if bridged else None
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

        def _paths(first, count):
            return self._prices(self.paths.brownian(ndtri(training.points(first, count))))[:, :, 0]

        self.rule = longstaff.fitted(self.comm, _paths, self.payoff.exercised, case.training, self.fade, case.strike,
                                     case.degree, self.speeds)

    # ---- values of paths -------------------------------------------------------------------------------------------

    def _values(self, u):
        """Price, Greeks and control variate of each point."""
        case = self.case
        numbers, weight = u, 1.0
        if case.model == "black-scholes":
            z = ndtri(u)
            if case.shift:  # normal numbers from elsewhere, and the ratio of the densities
                z = z + case.shift * self.paths.endwards
                weight = np.exp(case.shift * (case.shift / 2 - (z * self.paths.endwards).sum(axis=1)))
            numbers = self.paths.brownian(z)
        prices = self._prices(numbers)
        columns = [self._present(prices)]
        if case.greeks == "pathwise":
            columns += self._pathwise(numbers, prices, columns[0])
        elif case.greeks == "bump":
            columns += self._bumped(numbers, columns[0])
        if case.control:
            columns.append(self._control(prices))
        return np.column_stack([weight * column for column in columns])

    def _prices(self, numbers, spot=1.0, volatility=1.0):
        """(n, steps, assets) prices of Brownian paths or of Heston's points, spot and volatility times factors."""
        case = self.case
        if case.model == "heston":
            model = heston.Model(case.v0 * volatility**2, case.kappa, case.theta * volatility**2, case.xi * volatility,
                                 case.rho)
            return heston.paths(numbers, self.spot[0] * spot, case.rate, case.dividend, case.maturity, case.dates,
                                model, self.matrix)[:, :, None]
        return self.paths.prices(numbers, self.spot * spot, case.rate - case.dividend, self.volatility * volatility)

    def _present(self, prices, spot=1.0, volatility=1.0):
        """(n,) what is paid, as it is worth today."""
        case = self.case
        if case.payoff == "american":
            return longstaff.followed(prices[:, :, 0], self.payoff.exercised, self.rule, self.fade, case.strike)
        between = case.monitoring == "continuous"
        spread = (self.volatility[0] * volatility) ** 2 * case.maturity / case.dates if between else 0.0
        return self.discount * self.payoff.paid(prices, self.spot[0] * spot, spread)

    def _pathwise(self, motion, prices, price):
        """Derivatives of each path's price; gamma is the pathwise one of the likelihood ratio's delta."""
        case, times, assets = self.case, self.paths.times[:, None], range(len(self.spot))
        one = np.eye(len(self.spot))

        def _change(by):
            return self.discount * self.payoff.change(prices, by)

        growth = case.rate - case.dividend - self.volatility**2 / 2
        longer = (growth * times + self.volatility * motion / 2) / case.maturity
        columns = [_change(one[asset] / self.spot[asset]) for asset in assets]
        columns += [_change(one[asset] * (motion - self.volatility * times)) for asset in assets]
        if len(self.spot) == 1:
            step = -1 if case.payoff in ("european", "basket") else 0  # before which nothing is looked at
            score = motion[:, step, 0] / (self.spot[0] * self.volatility[0] * self.paths.times[step])
            inside = self.payoff.exercised(self.payoff.underlying(prices)) > 0
            columns.append(self.discount * self.payoff.sign * inside * case.strike * score / self.spot[0])
        return [*columns, _change(times) - case.maturity * price, case.rate * price - _change(longer)]

    def _bumped(self, numbers, price):
        """Delta, vega and gamma of each point, from prices nearby on the same random numbers."""
        h = self.case.bump

        def _nearby(spot=1.0, volatility=1.0):
            return self._present(self._prices(numbers, spot, volatility), spot, volatility)

        up, down, more, less = _nearby(1 + h), _nearby(1 - h), _nearby(1, 1 + h), _nearby(1, 1 - h)
        step = h * self.spot[0]
        wide = h * (self.volatility[0] if self.case.model == "black-scholes" else math.sqrt(self.case.v0))
        return [(up - down) / (2 * step), (more - less) / (2 * wide), (up - 2 * price + down) / step**2]

    # ---- exact values ----------------------------------------------------------------------------------------------

    @property
    def _terms(self):
        """Kind, spot, strike, rate, dividend, volatility, maturity of one asset."""
        case = self.case
        return (case.kind, case.spot[0], case.strike, case.rate, case.dividend, float(self.volatility[0]),
                case.maturity)

    def _control(self, prices):
        """The control variate of each path, as it is worth today."""
        case = self.case
        if case.model == "black-scholes" and case.payoff in ("asian", "basket"):
            return self.discount * self.payoff.exercised(self.payoff.geometric(prices))
        if case.model == "black-scholes" and case.payoff in ("american", *BARRIERS):
            return self.discount * self.payoff.exercised(prices[:, -1, 0])
        return self.discount * prices[:, -1, 0]

    def _known(self):
        """The control variate's exact mean."""
        case = self.case
        if case.model == "black-scholes" and case.payoff == "asian":
            return blackscholes.geometric_asian(*self._terms, case.dates)
        if case.model == "black-scholes" and case.payoff == "basket":
            return blackscholes.geometric_basket(case.kind, self.spot, self.payoff.weights, case.strike, case.rate,
                                                 case.dividend, self.covariance, case.maturity)
        if case.model == "black-scholes" and case.payoff in ("american", *BARRIERS):
            return blackscholes.european(*self._terms)
        return case.spot[0] * math.exp(-case.dividend * case.maturity)

    def exact(self):
        """The price, and the Greeks, where there is a closed form that works out."""
        return {name: value for name, value in self._closed().items() if math.isfinite(value)}

    def _closed(self):
        case = self.case
        if case.model == "heston":
            return {"price": heston.european(case.kind, case.spot[0], case.strike, case.rate, case.dividend,
                                             case.maturity, self.heston)} if case.payoff == "european" else {}
        if case.payoff == "european":
            greeks = blackscholes.greeks(*self._terms) if self.volatility[0] > 0 else {}
            return {"price": blackscholes.european(*self._terms)} | greeks
        if case.payoff == "geometric-asian":
            return {"price": blackscholes.geometric_asian(*self._terms, case.dates)}
        weights = self.payoff.weights
        if case.payoff == "basket" and case.strike == 0 and len(weights) == 2 and weights[0] * weights[1] < 0:
            return {"price": blackscholes.exchange(case.kind, self.spot, weights, case.dividend, self.covariance,
                                                   case.maturity)}
        if case.payoff in BARRIERS and case.monitoring == "continuous" and self.volatility[0] > 0:
            return {"price": blackscholes.barrier(*self._barrier)}
        return {}

    @property
    def _barrier(self):
        """Arguments of ``blackscholes.barrier``."""
        case = self.case
        kind, spot, strike, *more = self._terms
        return kind, case.payoff, spot, strike, case.barrier, *more

    def told(self, values, errors):
        """What else is known of the price.

        Parameters
        ----------
        values, errors : (k,) float64
        """
        case = self.case
        if case.payoff == "american" and self.payoff.exercised(case.spot[0]) > values[0]:
            return [f"to exercise now pays more: {self.payoff.exercised(case.spot[0]):.10g}"]
        if (case.payoff in BARRIERS and case.monitoring == "discrete" and case.model == "black-scholes"
                and self.volatility[0] > 0):
            near = blackscholes.watched(*self._barrier, case.dates)
            return [f"the approximation of Broadie, Glasserman and Kou is {near:.6g}"]
        return []


if __name__ == "__main__":
    program.main(Options)
