"""American options by least squares: when to exercise is learnt from some paths, and valued on others.

Going back from expiry, the value of going on is regressed, over the paths on which exercise would pay, on polynomials
of the price. Sums of products of all ranks' paths make the normal equations, and add up to the same bits on any number
of ranks. The exercise rule is then followed on fresh paths: a value that no rule can raise above the true one.

Source: Longstaff & Schwartz, Rev. Financ. Stud. 14 (2001) 113.
"""

import numpy as np

from brmpi import partition, sums
from brmpi.montecarlo.payoffs import weighted

BLOCK = 4096  # paths that one rank takes together
RIDGE = 1e-12  # of the normal equations' diagonal


def basis(prices, strike, degree):
    """Legendre polynomials of the price, which are of the order of 1 where exercise is in question.

    Parameters
    ----------
    prices : (n,) float64 [money]
    strike : float > 0 [money]
    degree : int >= 0

    Returns
    -------
    (n, degree + 1) float64
    """
    x = np.clip(2 * (prices / strike - 1), -2, 2)
    return np.polynomial.legendre.legvander(x, degree)


def fitted(comm, paths, payoff, count, discount, strike, degree, speeds):
    """Coefficients of the value of going on after each step but the last. Collective.

    Parameters
    ----------
    comm : communicator
    paths : function of first and count to (count, steps) float64, prices after each step, by index [money]
    payoff : function of prices to what exercise pays, of the same shape [money]
    count : int, paths
    discount : float, of a step
    strike : float > 0 [money]
    degree : int, of the polynomials
    speeds : (ranks,) float64 > 0

    Returns
    -------
    (steps - 1, degree + 1) float64, the same on every rank; NaN where no path had anything to exercise
    """
    blocks = -(-count // BLOCK)
    edges = partition.offsets(partition.shares(blocks, speeds))
    mine = [paths(block * BLOCK, min(BLOCK, count - block * BLOCK)) for block in range(edges[comm.rank],
                                                                                       edges[comm.rank + 1])]
    steps = max(comm.allgather(max((part.shape[1] for part in mine), default=0)))
    prices = np.concatenate(mine) if mine else np.empty((0, steps))
    value = payoff(prices[:, -1])
    found = np.full((steps - 1, degree + 1), np.nan)
    above = np.triu_indices(degree + 1)
    for step in range(steps - 2, -1, -1):
        value = value * discount
        now = payoff(prices[:, step])
        paying = now > 0
        terms = basis(prices[paying, step], strike, degree)
        rows = np.column_stack([np.ones(len(terms)), terms * value[paying, None],
                                *(terms[:, i] * terms[:, j] for i, j in zip(*above))])
        total = sums.total(comm, rows)
        if total[0] > degree:
            gram = np.zeros((degree + 1, degree + 1))
            gram[above] = total[degree + 2:]
            gram = gram + np.triu(gram, 1).T
            gram[np.diag_indices(degree + 1)] *= 1 + RIDGE
            solved = np.linalg.lstsq(gram, total[1: degree + 2], rcond=1e-14)[0]
            found[step] = comm.bcast(solved)  # another processor's library might round otherwise
            exercised = np.flatnonzero(paying)[now[paying] >= weighted(terms, found[step])]
            value[exercised] = now[exercised]
    return found


def followed(prices, payoff, coefficients, discount, strike):
    """What the rule earns on each path, today.

    Parameters
    ----------
    prices : (n, steps) float64, after each step [money]
    payoff : function of prices to what exercise pays [money]
    coefficients : (steps - 1, degree + 1) float64, from ``fitted``
    discount : float, of a step
    strike : float > 0 [money]

    Returns
    -------
    (n,) float64 [money]
    """
    earned, alive = np.zeros(len(prices)), np.arange(len(prices))
    for step in range(prices.shape[1]):
        here = prices[alive, step]
        now = payoff(here)
        taken = now > 0
        if step < len(coefficients):
            if np.isnan(coefficients[step, 0]):
                continue
            terms = basis(here, strike, coefficients.shape[1] - 1)
            taken &= now >= weighted(terms, coefficients[step])
        earned[alive[taken]] = now[taken] * discount ** (step + 1)
        alive = alive[~taken]
    return earned
