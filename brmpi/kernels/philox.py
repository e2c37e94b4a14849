"""Random numbers by global index (Philox4x64-10), and Monte Carlo payoffs that use them up where they are made.

Word w of a key is lane w % 4 of the block that Philox makes of the 256-bit counter w // 4, as in ``brmpi.streams``:

    ten times:  (c0, c1, c2, c3) = (hi(B c2) ^ c1 ^ k0, lo(B c2), hi(A c0) ^ c3 ^ k1, lo(A c0)),  k += (W0, W1)

Normal numbers are the inverse of the distribution function at the middle of a word's cell (AS241), with exponential
and logarithm made of +, -, *, /, square root and fused multiply-add alone, in a stated order. These round alike
everywhere: all versions agree bit for bit, on every processor. NumPy has no fused multiply-add: the reference makes it
of other operations, and takes its time. Payoffs are folded in blocks of ``BLOCK`` samples,
halves upon halves (s_i + s_(i + n/2)), so that a block's sum depends on the block alone.

Sources: Salmon, Moraes, Dror & Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC11; Wichura, "Algorithm AS 241:
the percentage points of the normal distribution", Applied Statistics 37 (1988) 477, PPND16;
Boldo & Melquiond, "Emulation of FMA and correctly rounded sums: proved algorithms using rounding to odd", IEEE Trans.
Comput. 57 (2008) 462.
"""

import math

import numpy as np

from brmpi.kernels import choice

BLOCK = 1024  # samples of a payoff that are summed together
WORDS = 2**258  # words of a key
STEPS = 2**20  # most steps of a path

EXP = tuple(1 / math.factorial(n) for n in range(14))  # Taylor: |x| <= log(2)/2 leaves 4e-18
LOG = tuple(2 / (2 * n + 1) for n in range(11))  # of 2 artanh(s)/s in s**2: |s| <= 0.172 leaves 1e-18
LOG2E, LN2_HIGH, LN2_LOW = 1.4426950408889634, 0.6931471803691238, 1.9082149292705877e-10
ROUND = 1.5 * 2.0**52  # added and taken off again: the nearest integer
LARGEST = 700.0  # exponent

# AS241: rational functions in 0.180625 - q**2 for |q| <= 0.425, in r - 1.6 for r <= 5 and in r - 5 beyond.
CENTRE = (
    (3.3871328727963666080e0, 1.3314166789178437745e2, 1.9715909503065514427e3, 1.3731693765509461125e4,
     4.5921953931549871457e4, 6.7265770927008700853e4, 3.3430575583588128105e4, 2.5090809287301226727e3),
    (1.0, 4.2313330701600911252e1, 6.8718700749205790830e2, 5.3941960214247511077e3,
     2.1213794301586595867e4, 3.9307895800092710610e4, 2.8729085735721942674e4, 5.2264952788528545610e3),
)
TAIL = (
    (1.42343711074968357734e0, 4.63033784615654529590e0, 5.76949722146069140550e0, 3.64784832476320460504e0,
     1.27045825245236838258e0, 2.41780725177450611770e-1, 2.27238449892691845833e-2, 7.74545014278341407640e-4),
    (1.0, 2.05319162663775882187e0, 1.67638483018380384940e0, 6.89767334985100004550e-1,
     1.48103976427480074590e-1, 1.51986665636164571966e-2, 5.47593808499534494600e-4, 1.05075007164441684324e-9),
)
FAR = (
    (6.65790464350110377720e0, 5.46378491116411436990e0, 1.78482653991729133580e0, 2.96560571828504891230e-1,
     2.65321895265761230930e-2, 1.24266094738807843860e-3, 2.71155556874348757815e-5, 2.01033439929228813265e-7),
    (1.0, 5.99832206555887937690e-1, 1.36929880922735805310e-1, 1.48753612908506148525e-2,
     7.86869131145613259100e-4, 1.84631831751005468180e-5, 1.42151175831644588870e-7, 2.04426310338993978564e-15),
)


def words(key, first, count, backend="auto"):
    """Raw words; bit for bit those of ``brmpi.streams.Stream`` in all versions.

    Parameters
    ----------
    key : two ints, each >= 0 and < 2**64
    first : int >= 0, position of the first word; first + count <= 2**258
    count : int >= 0
    backend : one of ``kernels.BACKENDS``

    Returns
    -------
    (count,) uint64

    Raises
    ------
    ValueError : an argument out of range
    """
    return _run("words", backend, _words, *_checked(key, first, count))


def uniform(key, first, count, backend="auto"):
    """Uniform numbers in [0, 1), multiples of 2**-53, one word each; bit for bit the same in all versions.

    Parameters
    ----------
    key, first, count, backend : as in ``words``

    Returns
    -------
    (count,) float64

    Raises
    ------
    ValueError : an argument out of range
    """
    return _run("uniform", backend, _uniform, *_checked(key, first, count))


def normal(key, first, count, backend="auto"):
    """Standard normal numbers by inversion (AS241), one word each; bit for bit the same in all versions.

    They are within 2e-15 relative of ``brmpi.streams.Stream.normal``, which takes SciPy's inverse.

    Parameters
    ----------
    key, first, count, backend : as in ``words``

    Returns
    -------
    (count,) float64, within ±8.3

    Raises
    ------
    ValueError : an argument out of range
    """
    return _run("normal", backend, _normal, *_checked(key, first, count))


def inside_circle(key, first, count, backend="auto"):
    """How many of the points of a quarter square lie inside the circle: pi is near 4 inside / count.

    Word i is point i: its halves, their last bit set, are the coordinates of the middle of one of 2**62 cells.

    Parameters
    ----------
    key, first, count, backend : as in ``words``, in points

    Returns
    -------
    int, exact: the same in all versions, and for any cut into calls

    Raises
    ------
    ValueError : an argument out of range
    """
    return int(_run("inside_circle", backend, _inside_circle, *_checked(key, first, count)))


def european(key, first, count, spot, strike, rate, volatility, time, backend="auto"):
    """Sums over samples of a European call's discounted payoff and of its square; sample i takes normal number i.

        S = spot exp((rate - volatility**2 / 2) time + volatility sqrt(time) z)
        payoff = exp(-rate time) max(S - strike, 0)

    Parameters
    ----------
    key : two ints, each >= 0 and < 2**64
    first : int >= 0, a multiple of BLOCK, global index of the first sample
    count : int >= 0, samples
    spot : float > 0, price today [money]
    strike : float >= 0 [money]
    rate : float, of interest, continuous [1 / time]
    volatility : float >= 0 [1 / sqrt(time)]
    time : float >= 0, until expiry [time]
    backend : one of ``kernels.BACKENDS``

    Returns
    -------
    (ceil(count / BLOCK), 2) float64, a row a block of samples: sum of payoffs [money] and of squares [money**2];
        the same bits in all versions, and for any cut into calls at multiples of BLOCK

    Raises
    ------
    ValueError : an argument out of range, or prices whose exponent could pass 700
    """
    return asian(key, first, count, spot, strike, rate, volatility, time, 1, backend)


def asian(key, first, count, spot, strike, rate, volatility, time, steps, backend="auto"):
    """Sums of payoff and square, as ``european``, of a call on the mean of the prices after each of some equal steps.

    Sample i takes normal numbers i steps to (i + 1) steps - 1 in order; with one step it is the European call.

    Parameters
    ----------
    key, first, count, spot, strike, rate, volatility, time : as in ``european``
    steps : int, 1 <= steps <= STEPS, whose prices are averaged
    backend : one of ``kernels.BACKENDS``

    Returns
    -------
    (ceil(count / BLOCK), 2) float64, as ``european``

    Raises
    ------
    ValueError : as ``european``
    """
    key, first, count = _checked(key, first, count)
    if first % BLOCK:
        raise ValueError(f"first = {first}: must be a multiple of {BLOCK}")
    if not 1 <= steps <= STEPS:
        raise ValueError(f"steps = {steps}: must be >= 1 and <= {STEPS}")
    first, steps = first * int(steps), int(steps)
    _checked(key, first, count * steps)
    option = _option(spot, strike, rate, volatility, time, steps)
    return _run("payoffs", backend, _payoffs, key, first, count, steps, option)


def _checked(key, first, count):
    key = tuple(int(half) for half in key)
    if len(key) != 2 or not all(0 <= half < 2**64 for half in key):
        raise ValueError(f"key = {key}: must be two numbers >= 0 and < 2**64")
    if first < 0 or count < 0 or int(first) + int(count) > WORDS:
        raise ValueError(f"first = {first}, count = {count}: must be >= 0, their words end at 2**258")
    return key, int(first), int(count)


def _option(spot, strike, rate, volatility, time, steps):
    """Spot, strike, drift and deviation of a step's exponent, discount, 1 / steps."""
    for name, value, lowest in (("spot", spot, 0), ("strike", strike, 0), ("volatility", volatility, 0),
                                ("time", time, 0), ("rate", rate, -LARGEST)):
        if not lowest <= value < math.inf or (name == "spot" and value == 0):
            raise ValueError(f"{name} = {value}: must be {'> 0' if name == 'spot' else f'>= {lowest:g}'} and finite")
    drift = (rate - volatility * volatility / 2) * (time / steps)
    deviation = volatility * math.sqrt(time / steps)
    reach = steps * (abs(drift) + 8.3 * deviation) + max(math.log(spot), 0)
    if max(reach, abs(rate * time)) > LARGEST:
        raise ValueError(f"volatility = {volatility}, rate = {rate}, time = {time}, steps = {steps}: exponents reach "
                         f"{max(reach, abs(rate * time)):.0f}, must be <= {LARGEST:g}")
    discount = float(_exp(np.array([-rate * time]))[0])
    return float(spot), float(strike), float(drift), float(deviation), discount, 1 / steps


def _run(name, backend, reference, key, first, count, *more):
    size = count * more[0] if more else count  # of normal numbers, where paths have steps
    return choice.run(f"philox {name}", max(size, 1), backend, reference, name, key, first, count, *more)


def _words(key, first, count):
    block, lane = divmod(first, 4)
    # NumPy advances the counter before it makes a block: start one before.
    generator = np.random.Philox(key=np.array(key, dtype=np.uint64), counter=(block - 1) % 2**256)
    return generator.random_raw(lane + count)[lane:]


def _uniform(key, first, count):
    return (_words(key, first, count) >> np.uint64(11)) * 2.0**-53


def _normal(key, first, count):
    cells = _words(key, first, count) >> np.uint64(11)
    return _inverse(np.minimum((cells + 0.5) * 2.0**-53, 1 - 2.0**-53))


def _inside_circle(key, first, count, piece=2**20):
    inside = 0
    for start in range(0, count, piece):
        word = _words(key, first + start, min(piece, count - start))
        x, y = word >> np.uint64(32) | np.uint64(1), word & np.uint64(2**32 - 1) | np.uint64(1)
        inside += np.count_nonzero(x * x + y * y >= x * x)  # else it passes 2**64, the square of the radius
    return inside


def _payoffs(key, first, count, steps, option, piece=2**18):
    spot, strike, drift, deviation, discount, share = option
    sums = np.zeros((-(-count // BLOCK), 2))
    blocks = max(1, piece // (BLOCK * steps))
    for start in range(0, len(sums), blocks):
        here = slice(start, min(start + blocks, len(sums)))
        samples = min(count, here.stop * BLOCK) - start * BLOCK
        z = _normal(key, first + start * BLOCK * steps, samples * steps).reshape(samples, steps)
        growth = _exp(_fused(deviation, z, drift))
        price, total = np.full(samples, spot), np.zeros(samples)
        for step in range(steps):
            price = price * growth[:, step]
            total = total + price
        payoff = np.zeros((here.stop - start) * BLOCK)
        payoff[:samples] = discount * np.maximum(total * share - strike, 0)
        sums[here, 0] = _fold(payoff)
        sums[here, 1] = _fold(payoff * payoff)
    return sums


def _fold(values):
    values = values.reshape(-1, BLOCK)
    while values.shape[1] > 1:
        half = values.shape[1] // 2
        values = values[:, :half] + values[:, half:]
    return values[:, 0]


def _polynomial(x, coefficients):
    total = np.full_like(x, coefficients[-1])
    for c in coefficients[-2::-1]:
        total = _fused(total, x, c)
    return total


def _fused(a, b, c):
    """a b + c, rounded once."""
    high, low = _product(a, b)
    upper, rest = _sum(c, low)
    upper, more = _sum(upper, high)
    odd, lost = _sum(rest, more)
    bits = np.atleast_1d(odd).view(np.int64)  # rounded to odd: no tie is made of what is none
    wrong = (lost != 0) & (bits & 1 == 0)
    bits = np.where(wrong, bits + np.where((lost > 0) == (odd > 0), 1, -1), bits)
    return upper + bits.view(np.float64).reshape(np.shape(odd))


def _sum(a, b):
    """a + b rounded, and what that is off."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def _product(a, b):
    """a b rounded, and what that is off."""
    total = a * b
    (a, a_low), (b, b_low) = _halves(a), _halves(b)
    return total, ((a * b - total) + a * b_low + a_low * b) + a_low * b_low


def _halves(x):
    """The upper and the lower half of the digits."""
    wide = 134217729.0 * x  # 2**27 + 1
    upper = wide - (wide - x)
    return upper, x - upper


def _exp(x):
    """exp(x) within 3e-16 for |x| <= 700: 2**k exp(x - k log 2)."""
    near = _fused(x, LOG2E, ROUND)
    k = near - ROUND
    rest = _fused(-k, LN2_LOW, x - k * LN2_HIGH)  # the first product is exact
    power = ((near.view(np.int64) + 1023) << 52).view(np.float64)
    return power * _polynomial(rest, EXP)


def _log(x):
    """log(x) within 3e-16 for normal 0 < x < 0.1: that of the fraction f in [sqrt(1/2), sqrt(2)) of x = 2**k f."""
    bits = x.view(np.int64) - 0x3FE6A09E667F3BCD  # sqrt(1/2)
    k = bits >> 52
    f = ((bits & 0xFFFFFFFFFFFFF) + 0x3FE6A09E667F3BCD).view(np.float64)
    s = (f - 1) / (f + 1)
    return k * LN2_HIGH + _fused(s, _polynomial(s * s, LOG), k * LN2_LOW)


def _ratio(x, coefficients):
    return _polynomial(x, coefficients[0]) / _polynomial(x, coefficients[1])


def _inverse(p):
    """The x for which a standard normal number is below x with probability p, 0 < p < 1."""
    q = p - 0.5
    x = q * _ratio(_fused(-q, q, 0.180625), CENTRE)
    tail = np.abs(q) > 0.425
    r = np.sqrt(-_log(np.minimum(p[tail], 1 - p[tail])))
    x[tail] = np.copysign(np.where(r <= 5, _ratio(r - 1.6, TAIL), _ratio(r - 5, FAR)), q[tail])
    return x
