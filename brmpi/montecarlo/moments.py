"""What is kept of samples: rows that add up to means, variances, covariances and a histogram."""

import numpy as np


class Estimator:
    """An estimator that keeps ``moments`` of its samples; a subclass has ``block(first, count)``, which makes rows.

    Parameters
    ----------
    moments : Moments

    Attributes
    ----------
    width : int, of a row
    multiple : int, what the size of a block must be a multiple of
    """

    multiple = 1

    def __init__(self, moments):
        self.moments, self.width = moments, moments.width

    def estimates(self, total):
        """Estimates and their standard errors.

        Parameters
        ----------
        total : (width,) float64, sum of rows

        Returns
        -------
        values, errors : (k,) float64
        """
        return self.moments.estimates(total)

    def histogram(self, total):
        """As ``Moments.histogram``.

        Parameters
        ----------
        total : (width,) float64, sum of rows
        """
        return self.moments.histogram(total)


class Moments:
    """The layout of a row: count, sums, sums of products, counts of a histogram.

    Values are taken from ``centre`` before they are multiplied, so that no variance is lost where a mean is large.

    Parameters
    ----------
    centre : (k,) float64, near the mean of each quantity
    known : sequence of float, the exact means of the last quantities, which are control variates
    edges : (bins + 1,) float64, equally spaced edges of the first quantity's histogram, or None; what is outside
        counts in the first or the last bin

    Attributes
    ----------
    width : int, of a row
    """

    def __init__(self, centre, known=(), edges=None):
        self.centre = np.atleast_1d(np.asarray(centre, dtype=float))
        self.known, self.edges = np.asarray(known, dtype=float), edges
        k = len(self.centre)
        self.pairs = np.triu_indices(k) if len(self.known) else (np.arange(k),) * 2
        self.bins = 0 if edges is None else len(edges) - 1
        self.width = 1 + k + len(self.pairs[0]) + self.bins

    def row(self, values):
        """The row of some samples.

        Parameters
        ----------
        values : (n, k) float64

        Returns
        -------
        (width,) float64
        """
        columns = self._columns(values)
        return np.concatenate([self.sums(len(values), columns.sum(axis=1), self.products(columns)),
                               self.counts(values)])

    def total(self, values):
        """Sums of some samples from the centre.

        Parameters
        ----------
        values : (n, k) float64

        Returns
        -------
        (k,) float64
        """
        return self._columns(values).sum(axis=1)

    def products(self, columns):
        """Sums of products, or of squares where there are no control variates.

        Parameters
        ----------
        columns : (k, n) float64, values from the centre

        Returns
        -------
        (pairs,) float64
        """
        work = np.empty(columns.shape[1])
        return np.array([np.multiply(columns[i], columns[j], out=work).sum() for i, j in zip(*self.pairs)])

    def counts(self, values):
        """How many samples' first quantities fall into each bin.

        Parameters
        ----------
        values : (n, k) float64

        Returns
        -------
        (bins,) int64
        """
        if not self.bins:
            return np.zeros(0, np.int64)
        low, high = self.edges[0], self.edges[-1]
        place = (values[:, 0] - low) * (self.bins / (high - low))
        place = np.fmin(np.fmax(place, 0, out=place), self.bins - 1, out=place)  # what is no number in the first
        return np.bincount(place.astype(np.intp), minlength=self.bins)

    def _columns(self, values):
        """(k, n), from the centre, each quantity's side by side: faster, and summed by halves."""
        return np.subtract(values.T, self.centre[:, None], order="C")

    def sums(self, count, total, squares):
        """The row of samples of which sums from the centre are known already, without a histogram.

        Parameters
        ----------
        count : int
        total : (k,) float64
        squares : (pairs,) float64, as ``products`` has them: k squares where there are no control variates

        Returns
        -------
        (width - bins,) float64
        """
        return np.concatenate([[count], total, squares])

    def estimates(self, total):
        """Means and their standard errors.

        Parameters
        ----------
        total : (width,) float64, sum of rows

        Returns
        -------
        values, errors : (k - controls,) float64; errors are infinite where there are too few samples
        """
        n, k, q = total[0], len(self.centre), len(self.known)
        kept = k - q
        if n < 1:
            return np.full(kept, np.nan), np.full(kept, np.inf)
        mean = total[1 : 1 + k] / n
        products = total[1 + k : 1 + k + len(self.pairs[0])]
        if n < 2 + q:
            return (mean + self.centre)[:kept], np.full(kept, np.inf)
        if not q:
            variance = np.maximum(products - n * mean**2, 0) / (n - 1)
            return mean + self.centre, np.sqrt(variance / n)
        spread = np.zeros((k, k))
        spread[self.pairs] = products
        spread = (spread + np.triu(spread, 1).T - n * np.outer(mean, mean)) / (n - 1)
        slope = np.linalg.lstsq(spread[kept:, kept:], spread[kept:, :kept], rcond=None)[0]
        off = mean[kept:] + self.centre[kept:] - self.known
        rest = np.diag(spread)[:kept] - np.einsum("ij,ij->j", slope, spread[kept:, :kept])
        variance = np.maximum(rest, 0) * (n - 1) / (n - 1 - q)
        # what the slopes lack: they were fitted to the same samples
        lack = off @ np.linalg.lstsq(spread[kept:, kept:], off, rcond=None)[0] / (n - 1)
        return mean[:kept] + self.centre[:kept] - off @ slope, np.sqrt(variance * (1 / n + lack))

    def histogram(self, total):
        """How the first quantity is distributed.

        Parameters
        ----------
        total : (width,) float64, sum of rows

        Returns
        -------
        (bins + 1,) float64 edges and (bins,) float64 density, or None where none is kept
        """
        if not self.bins or total[0] < 1:
            return None
        return self.edges, total[-self.bins:] / (total[0] * np.diff(self.edges))
