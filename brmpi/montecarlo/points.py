"""Points in the unit cube by the index of the sample, and four ways to make fewer of them do.

A way turns a function of points into an estimator. The function takes (n, dimension) float64 in (0, 1) and returns
(n, k): quantities, and after them control variates whose exact means are ``known``.

    plain         points at random
    antithetic    each point u with 1 - u, as one sample
    stratified    a block's points have one each in as many slices of the first dimension; the block's mean counts once
    sobol         16 scramblings of Sobol's sequence, in turns; the error is that of the mean over the scramblings

Sources: Owen, "Monte Carlo theory, methods and examples" (2013), chs. 8, 10, 17; Joe & Kuo, SIAM J. Sci. Comput. 30
(2008) 2635 (SciPy's direction numbers).
"""

import functools
import warnings

import numpy as np

from brmpi.errors import BadInput, Fault
from brmpi.kernels import philox
from brmpi.montecarlo.moments import Estimator, Moments
from brmpi.streams import Stream

WAYS = ("plain", "antithetic", "stratified", "sobol")
PILOT = 1024  # samples that tell where the centre is and how far a histogram reaches
BINS = 100
SCRAMBLINGS = 16
BITS = 52  # of a coordinate
SOBOL_BITS = 32  # of one of Sobol's: SciPy 1.10 cannot skip ahead with more
SOBOL_SAMPLES = SCRAMBLINGS << SOBOL_BITS  # a scrambling has 2**32 points
PIECE = 2**17  # coordinates that a function gets at once, so that they stay in a cache
FEWEST, MOST = 2**12, 2**22  # at least so many points, where these have at most so many coordinates


def estimator(way, function, dimension, seed, purpose, known=(), histogram=False, backend="auto"):
    """An estimator for ``sampling``.

    Parameters
    ----------
    way : one of ``WAYS``
    function : as described above
    dimension : int >= 1
    seed : int, of the run
    purpose : str, of the stream of random numbers
    known : sequence of float, exact means of the function's last columns, which are control variates
    histogram : bool, whether to keep one of the first quantity
    backend : one of ``kernels.BACKENDS``, for the random numbers

    Returns
    -------
    Plain, Antithetic, Stratified or Sobol

    Raises
    ------
    BadInput : more dimensions than Sobol's table has, or control variates with it
    """
    kinds = dict(zip(WAYS, (Plain, Antithetic, Stratified, Sobol)))
    return kinds[way](function, dimension, Stream(seed, purpose), known, histogram, backend)


class Plain(Estimator):
    """Independent points.

    Parameters
    ----------
    function, dimension : as ``estimator`` has them
    stream : streams.Stream
    known, histogram, backend : as ``estimator`` has them
    """

    def __init__(self, function, dimension, stream, known, histogram, backend):
        self.function, self.dimension, self.stream, self.backend = function, dimension, stream, backend
        self.piece = max(PIECE // dimension, min(FEWEST, MOST // dimension), 1)
        pilot = np.concatenate([self.values(*piece) for piece in self.pieces(0, PILOT)])
        edges = _edges(pilot[:, 0]) if histogram else None
        super().__init__(Moments(pilot.mean(axis=0), known, edges))

    def points(self, first, count):
        """Points of some samples.

        Parameters
        ----------
        first, count : int

        Returns
        -------
        (count, dimension) float64 in (0, 1), odd multiples of 2**-53
        """
        words = philox.words(self.stream.key, first * self.dimension, count * self.dimension, self.backend)
        words >>= np.uint64(64 - BITS)
        words |= np.uint64(1023 << BITS)  # the fraction of a number in [1, 2)
        points = words.view(np.float64)
        points -= 1 - 2.0 ** -(BITS + 1)  # exact
        return points.reshape(count, self.dimension)

    def values(self, first, count):
        """What the samples are worth.

        Parameters
        ----------
        first, count : int

        Returns
        -------
        (count, k) float64
        """
        return self.function(self.points(first, count))

    def block(self, first, count):
        """The row of a block of samples.

        Parameters
        ----------
        first, count : int

        Returns
        -------
        (width,) float64
        """
        row = np.zeros(self.width)
        for piece in self.pieces(first, count):
            row += self.moments.row(self.values(*piece))
        return row

    def pieces(self, first, count):
        """Some samples in parts of which the function gets one at a time.

        Parameters
        ----------
        first, count : int

        Returns
        -------
        list of (int, int), first and count of each
        """
        return [(start, min(self.piece, first + count - start)) for start in range(first, first + count, self.piece)]


class Antithetic(Plain):
    """Points in pairs that mirror each other."""

    def values(self, first, count):
        """What the pairs are worth.

        Parameters
        ----------
        first, count : int, in pairs
        """
        points = self.points(first, count)
        return (self.function(points) + self.function(1 - points)) / 2


class Stratified(Plain):
    """Points spread evenly along the first dimension within each block."""

    fewest = 32  # blocks before an error is believed: each block is one value

    def block(self, first, count):
        """The row of a block of samples, whose mean is one value; the histogram is that of the samples.

        Parameters
        ----------
        first, count : int
        """
        total, counts = np.zeros(len(self.moments.centre)), np.zeros(self.moments.bins)
        for start, size in self.pieces(first, count):
            points = self.points(start, size)
            points[:, 0] = (np.arange(start - first, start - first + size) + points[:, 0]) / count
            values = self.function(points)
            total += self.moments.total(values)
            counts += self.moments.counts(values)
        mean = total / count
        return np.concatenate([self.moments.sums(1, mean, self.moments.products(mean[:, None])), counts / count])


class Sobol(Plain):
    """Sobol's sequence under several independent scramblings; sample i is point i // 16 of scrambling i % 16.

    Parameters
    ----------
    function, dimension, stream, known, histogram, backend : as ``Plain`` has them

    Raises
    ------
    BadInput : more dimensions than the table has, or control variates
    """

    multiple = SCRAMBLINGS

    def __init__(self, function, dimension, stream, known, histogram, backend):
        from scipy.stats import qmc

        if dimension > qmc.Sobol.MAXDIM:
            raise BadInput(f"dimension = {dimension}: Sobol's table ends at {qmc.Sobol.MAXDIM}")
        if len(known):
            raise BadInput("control variates cannot be combined with way = 'sobol'")
        super().__init__(function, dimension, stream, known, histogram, backend)
        self.width = 1 + SCRAMBLINGS * (1 + len(self.moments.centre)) + self.moments.bins
        self.engines = {}

    def block(self, first, count):
        """The row of a block of samples: of each scrambling, the count and the sums from the centre.

        Parameters
        ----------
        first : int, a multiple of 16
        count : int
        """
        if first + count > SOBOL_SAMPLES:
            raise Fault(f"samples = {first + count}: Sobol's sequence ends at {SOBOL_SAMPLES}")
        k, bins = len(self.moments.centre), self.moments.bins
        row, counts = np.zeros((SCRAMBLINGS, 1 + k)), np.zeros(bins)
        for scrambling in range(SCRAMBLINGS):
            n = max(0, -(-(count - scrambling) // SCRAMBLINGS))
            row[scrambling, 0] = n
            for piece in self.pieces(first // SCRAMBLINGS, n):
                values = self.function(self._scrambled(scrambling, *piece))
                row[scrambling, 1:] += self.moments.total(values)
                counts += self.moments.counts(values)
        return np.concatenate([[count], row.ravel(), counts])

    def _scrambled(self, scrambling, first, count):
        """Points of one scrambling."""
        if scrambling not in self.engines:
            self.engines[scrambling] = _engine(self.dimension, self.stream, scrambling)
        engine = self.engines[scrambling]
        _go(engine, first)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a block need not be a power of two: what comes before makes up for that
            points = engine.random(count)
        points += 2.0 ** -(SOBOL_BITS + 1)
        return points

    def estimates(self, total):
        """Means over the scramblings, and their standard errors.

        Parameters
        ----------
        total : (width,) float64, sum of rows
        """
        k = len(self.moments.centre)
        rows = total[1 : 1 + SCRAMBLINGS * (1 + k)].reshape(SCRAMBLINGS, 1 + k)
        if total[0] < SCRAMBLINGS:
            return np.full(k, np.nan), np.full(k, np.inf)
        means = rows[:, 1:] / rows[:, :1]
        return means.mean(axis=0) + self.moments.centre, means.std(axis=0, ddof=1) / np.sqrt(SCRAMBLINGS)


def _engine(dimension, stream, scrambling):
    """SciPy's engine of one scrambling; its argument for the seed has changed its name."""
    from scipy.stats import qmc

    seed = int(stream.words(2**128 + scrambling, 1)[0])  # far from the words of samples
    make = functools.partial(qmc.Sobol, dimension, scramble=True, bits=SOBOL_BITS)
    try:
        return make(rng=seed)
    except TypeError:
        return make(seed=seed)


def _go(engine, first):
    """Have an engine go on from a point of its sequence: at once, where SciPy's own skipping counts all the way."""
    if first == engine.num_generated:
        return
    if not first or not all(hasattr(engine, name) for name in ("_sv", "_shift", "_quasi")):  # another SciPy
        if first < engine.num_generated:
            engine.reset()
        if first:
            engine.fast_forward(first - engine.num_generated)
        return
    code = (first - 1) ^ (first - 1) >> 1  # Gray's: its bits tell the directions of the point before
    bits = [bit for bit in range(SOBOL_BITS) if code >> bit & 1]
    engine._quasi = engine._shift ^ np.bitwise_xor.reduce(engine._sv[:, bits], axis=1)
    engine.num_generated = first


def _edges(values):
    """Edges of a histogram that holds these values with room for rarer ones."""
    low, high = float(values.min()), float(values.max())
    room = 0.25 * (high - low) or max(abs(low), 1.0) * 0.5
    return np.linspace(low if low == 0 else low - room, high + room, BINS + 1)
