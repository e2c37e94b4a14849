"""What Markov chains are worth: autocorrelation, effective sample size, R-hat, the standard error of a mean.

Pure functions of chains, an array of (chains, steps).

Sources: Geyer, Statistical Science 7 (1992) 473, for where to cut the sum; Vehtari, Gelman, Simpson, Carpenter &
Bürkner, Bayesian Analysis 16 (2021) 667, for ranks and split chains.
"""

import numpy as np


def autocovariance(chains):
    """Autocovariance of each chain at every lag, by Fourier transform.

    Parameters
    ----------
    chains : (m, n) float64

    Returns
    -------
    (m, n) float64, divided by n at all lags
    """
    n = chains.shape[1]
    from_mean = chains - chains.mean(axis=1, keepdims=True)
    transform = np.fft.rfft(from_mean, 2 * n, axis=1)
    return np.fft.irfft(transform * transform.conj(), 2 * n, axis=1)[:, :n] / n


def split(chains):
    """Each chain as two, its first and its second half.

    Parameters
    ----------
    chains : (m, n) float64

    Returns
    -------
    (2 m, n // 2) float64
    """
    half = chains.shape[1] // 2
    return np.concatenate([chains[:, :half], chains[:, -half:]]) if half else chains[:, :0]


def ranked(chains):
    """Values as the normal numbers of their ranks among all.

    Parameters
    ----------
    chains : (m, n) float64

    Returns
    -------
    (m, n) float64
    """
    from scipy.special import ndtri
    from scipy.stats import rankdata

    ranks = rankdata(chains).reshape(chains.shape)
    return ndtri((ranks - 0.375) / (chains.size + 0.25))


def effective(chains):
    """How many independent values would give the mean as well.

    Parameters
    ----------
    chains : (m, n) float64

    Returns
    -------
    float; NaN where there are fewer than 4 steps, or nothing moves
    """
    m, n = chains.shape
    if m < 1 or n < 4:
        return float("nan")
    covariance = autocovariance(chains)
    within = covariance[:, 0].mean() * n / (n - 1)
    between = chains.mean(axis=1).var(ddof=1) if m > 1 else 0.0
    total = within * (n - 1) / n + between
    if not total > 0:
        return float("nan")
    rho = 1 - (within - covariance.mean(axis=0) * n / (n - 1)) / total
    rho[0] = 1.0
    pairs = rho[: n // 2 * 2].reshape(-1, 2).sum(axis=1)
    negative = np.flatnonzero(pairs <= 0)
    pairs = np.minimum.accumulate(pairs[: negative[0]] if negative.size else pairs)
    time = max(2 * pairs.sum() - 1, 1 / np.log10(m * n))  # chains that swing cannot be worth without limit
    return float(m * n / time)


def rhat(chains):
    """How much wider all chains together are than each alone: the larger of that of ranks and of distances' ranks.

    Parameters
    ----------
    chains : (m, n) float64

    Returns
    -------
    float, near 1 where they are alike; NaN where there are fewer than 4 steps, or nothing moves
    """
    if chains.shape[1] < 4:
        return float("nan")
    far = np.abs(chains - np.median(chains))
    return max(_rhat(split(ranked(chains))), _rhat(split(ranked(far))))


def _rhat(chains):
    n = chains.shape[1]
    within = chains.var(axis=1, ddof=1).mean()
    between = chains.mean(axis=1).var(ddof=1)
    return float(np.sqrt((n - 1) / n + between / within)) if within > 0 else float("nan")


def error(chains):
    """Standard error of the mean over all chains.

    Parameters
    ----------
    chains : (m, n) float64

    Returns
    -------
    float; NaN as ``effective``
    """
    return float(chains.std(ddof=1) / np.sqrt(effective(chains))) if chains.size > 1 else float("nan")
