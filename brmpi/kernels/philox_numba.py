"""The loops of ``philox``, compiled by Numba. Imported when they are first used: Numba takes long to load."""

import functools

import numpy as np
from llvmlite import ir
from numba import float64, njit, types, uint64
from numba.extending import intrinsic

from brmpi.kernels.compiled import compiled
from brmpi.kernels.philox import BLOCK, CENTRE, EXP, FAR, LN2_HIGH, LN2_LOW, LOG, LOG2E, ROUND, TAIL

exact = functools.partial(compiled, fastmath=False)  # every rounding as NumPy's
part = njit(error_model="numpy", forceinline=True)  # a call would take as long as the work
HALF = 0x3FE6A09E667F3BCD  # bits of sqrt(1/2)
TWO32 = uint64(2**32 - 1)


def words(key, first, count):
    """Raw words.

    Parameters
    ----------
    key, first, count : as in ``philox.words``, checked
    """
    out = np.empty(count, np.uint64)
    fill(*_start(key, first), out)
    return out


def uniform(key, first, count):
    """Uniform numbers.

    Parameters
    ----------
    key, first, count : as in ``philox.uniform``, checked
    """
    out = np.empty(count)
    uniforms(*_start(key, first), out)
    return out


def normal(key, first, count):
    """Normal numbers.

    Parameters
    ----------
    key, first, count : as in ``philox.normal``, checked
    """
    out = np.empty(count)
    normals(*_start(key, first), out)
    return out


def inside_circle(key, first, count):
    """Points inside the circle.

    Parameters
    ----------
    key, first, count : as in ``philox.inside_circle``, checked
    """
    return inside(*_start(key, first), count)


def payoffs(key, first, count, steps, option):
    """Sums of payoffs and squares, a row a block.

    Parameters
    ----------
    key : two ints
    first : int, word of the first sample
    count : int, samples
    steps : int
    option : six floats, from ``philox._option``
    """
    sums = np.zeros((-(-count // BLOCK), 2))
    paths(*_start(key, first), count, steps, *option, sums)
    return sums


def _start(key, first):
    """Key, counter of the first block and lane in it, as arrays of words."""
    block, lane = divmod(first, 4)
    counter = [block >> (64 * place) & (2**64 - 1) for place in range(4)]
    return np.array(key, np.uint64), np.array(counter, np.uint64), lane


@intrinsic
def product(typing, a, b):
    """Upper and lower 64 bits of a product: one instruction of the processor for both.

    Parameters
    ----------
    typing : context of Numba
    a, b : uint64
    """
    def _generate(context, builder, signature, arguments):
        wide = ir.IntType(128)
        whole = builder.mul(*(builder.zext(argument, wide) for argument in arguments))
        halves = [builder.trunc(half, ir.IntType(64)) for half in (builder.lshr(whole, ir.Constant(wide, 64)), whole)]
        return context.make_tuple(builder, signature.return_type, halves)

    return types.UniTuple(types.uint64, 2)(types.uint64, types.uint64), _generate


@intrinsic
def alone(typing, a):
    """The same number; but LLVM may not put it into a vector, from which it would be taken out again to be multiplied.

    Parameters
    ----------
    typing : context of Numba
    a : uint64
    """
    def _generate(context, builder, signature, arguments):
        word = ir.IntType(64)
        return builder.asm(ir.FunctionType(word, [word]), "", "=r,0", arguments, False)

    return types.uint64(types.uint64), _generate


@part
def block(k0, k1, c0, c1, c2, c3):
    """Four words of a block.

    Parameters
    ----------
    k0, k1 : uint64, key
    c0, c1, c2, c3 : uint64, counter
    """
    a, b = uint64(0xD2E7470EE14C6C93), uint64(0xCA5A826395121157)
    for _ in range(10):
        c0, c2 = alone(c0), alone(c2)
        (high0, low0), (high1, low1) = product(a, c0), product(b, c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0 += uint64(0x9E3779B97F4A7C15)
        k1 += uint64(0xBB67AE8584CAA73B)
    return c0, c1, c2, c3


@part
def shift(start, lane, skip):
    """Counter and lane some words on.

    Parameters
    ----------
    start : (4,) uint64, counter
    lane : int, 0 to 3
    skip : int >= 0, words
    """
    moved, after = start.copy(), uint64((lane + skip) >> 2)
    for place in range(4):
        moved[place] += after
        after = uint64(1) if moved[place] < after else uint64(0)
    return moved, (lane + skip) & 3


@exact
def fill(key, start, lane, out):
    """Words from a lane of a block on.

    Parameters
    ----------
    key : (2,) uint64
    start : (4,) uint64, counter
    lane : int, 0 to 3
    out : (n,) uint64, written
    """
    done = 0
    while done < out.size:
        counter, at = shift(start, lane, done)
        left = uint64(0) - counter[0] if counter[0] else uint64(2**63)  # blocks before the lowest word wraps
        whole = min((out.size - done) // 4, np.int64(min(left, uint64(2**62))))
        if at or whole == 0:
            w = block(key[0], key[1], counter[0], counter[1], counter[2], counter[3])
            for place in range(at, min(4, at + out.size - done)):
                out[done] = w[place]
                done += 1
        else:
            blocks(key[0], key[1], counter[0], counter[1], counter[2], counter[3], out[done : done + 4 * whole])
            done += 4 * whole


@part
def blocks(k0, k1, c0, c1, c2, c3, out):
    """Whole blocks whose counters differ in the lowest word alone.

    Parameters
    ----------
    k0, k1, c0, c1, c2, c3 : as in ``block``, of the first
    out : (4 n,) uint64, written
    """
    for i in range(out.size // 4):
        at = 4 * i
        out[at], out[at + 1], out[at + 2], out[at + 3] = block(k0, k1, c0 + uint64(i), c1, c2, c3)


@exact
def uniforms(key, start, lane, out):
    """Uniform numbers.

    Parameters
    ----------
    key, start, lane : as in ``fill``
    out : (n,) float64, written
    """
    here = np.empty(BLOCK, np.uint64)
    for first in range(0, out.size, BLOCK):
        count = min(BLOCK, out.size - first)
        moved, at = shift(start, lane, first)
        fill(key, moved, at, here[:count])
        numbers = out[first : first + count]
        for i in range(count):
            numbers[i] = float64(np.int64(here[i] >> uint64(11))) * 2.0**-53


@exact
def inside(key, start, lane, count):
    """Points inside the circle.

    Parameters
    ----------
    key, start, lane : as in ``fill``
    count : int
    """
    here = np.empty(BLOCK, np.uint64)
    total = 0
    for first in range(0, count, BLOCK):
        points = here[: min(BLOCK, count - first)]
        moved, at = shift(start, lane, first)
        fill(key, moved, at, points)
        found = 0
        for i in range(points.size):
            x, y = points[i] >> uint64(32) | uint64(1), points[i] & TWO32 | uint64(1)
            found += x * x + y * y >= x * x
        total += found
    return total


@intrinsic
def fused(typing, a, b, c):
    """a b + c, rounded once.

    Parameters
    ----------
    typing : context of Numba
    a, b, c : float64
    """
    def _generate(context, builder, signature, arguments):
        return builder.fma(*arguments)

    return types.float64(types.float64, types.float64, types.float64), _generate


@part
def polynomial(x, coefficients):
    """Horner's scheme.

    Parameters
    ----------
    x : float
    coefficients : tuple of float, lowest first
    """
    total = coefficients[len(coefficients) - 1]
    for n in range(len(coefficients) - 2, -1, -1):
        total = fused(total, x, coefficients[n])
    return total


@part
def exponential(x):
    """As ``philox._exp``.

    Parameters
    ----------
    x : float
    """
    near = fused(x, LOG2E, ROUND)
    k = near - ROUND
    rest = fused(-k, LN2_LOW, x - k * LN2_HIGH)
    power = np.int64((np.float64(near).view(np.int64) + 1023) << 52).view(np.float64)
    return power * polynomial(rest, EXP)


@part
def logarithm(x):
    """As ``philox._log``.

    Parameters
    ----------
    x : float
    """
    bits = np.float64(x).view(np.int64) - HALF
    k = float64(bits >> 52)
    f = np.int64((bits & 0xFFFFFFFFFFFFF) + HALF).view(np.float64)
    s = (f - 1) / (f + 1)
    return k * LN2_HIGH + fused(s, polynomial(s * s, LOG), k * LN2_LOW)


@exact
def invert(words, out, which, near):
    """Normal numbers of words: all as if near the middle, then those that are not, packed together.

    Parameters
    ----------
    words : (n,) uint64
    out : (n,) float64, written
    which : (>= n,) int64, room
    near : (>= n,) float64, room
    """
    for i in range(words.size):
        p = min((float64(np.int64(words[i] >> uint64(11))) + 0.5) * 2.0**-53, 1 - 2.0**-53)
        q = p - 0.5
        x = fused(-q, q, 0.180625)
        out[i] = q * (polynomial(x, CENTRE[0]) / polynomial(x, CENTRE[1]))
        near[i] = p
    tails = 0
    for i in range(words.size):
        which[tails] = i
        tails += abs(near[i] - 0.5) > 0.425
    for t in range(tails):
        near[t] = near[which[t]]  # which[t] >= t: none is overwritten before it is read
    far = 0
    for t in range(tails):
        p = near[t]
        r = np.sqrt(-logarithm(min(p, 1 - p)))
        x = r - 1.6
        near[t] = np.copysign(polynomial(x, TAIL[0]) / polynomial(x, TAIL[1]), p - 0.5)
        far += r > 5
    for t in range(tails):
        i = which[t]
        out[i] = near[t]
        if far and abs(near[t]) > 6:
            p = min((float64(np.int64(words[i] >> uint64(11))) + 0.5) * 2.0**-53, 1 - 2.0**-53)
            r = np.sqrt(-logarithm(min(p, 1 - p)))
            if r > 5:
                out[i] = np.copysign(polynomial(r - 5, FAR[0]) / polynomial(r - 5, FAR[1]), p - 0.5)


@exact
def normals(key, start, lane, out):
    """Normal numbers.

    Parameters
    ----------
    key, start, lane : as in ``fill``
    out : (n,) float64, written
    """
    here, which, near = np.empty(BLOCK, np.uint64), np.empty(BLOCK, np.int64), np.empty(BLOCK)
    for first in range(0, out.size, BLOCK):
        count = min(BLOCK, out.size - first)
        moved, at = shift(start, lane, first)
        fill(key, moved, at, here[:count])
        invert(here[:count], out[first : first + count], which, near)


@exact
def paths(key, start, lane, count, steps, spot, strike, drift, deviation, discount, share, sums):
    """Sums of payoffs and squares of a block of samples each.

    Parameters
    ----------
    key, start, lane : as in ``fill``, of the first sample's first step
    count : int, samples
    steps : int
    spot, strike, drift, deviation, discount, share : float
    sums : (blocks, 2) float64, written
    """
    here, which, near = np.empty(BLOCK, np.uint64), np.empty(BLOCK, np.int64), np.empty(BLOCK)
    growth, payoff, square = np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK)
    for row in range(sums.shape[0]):
        samples = min(BLOCK, count - row * BLOCK)
        payoff[:] = 0.0
        sample, step, price, total = 0, 0, spot, 0.0
        for first in range(0, samples * steps, BLOCK):
            number = min(BLOCK, samples * steps - first)
            moved, at = shift(start, lane, row * BLOCK * steps + first)
            fill(key, moved, at, here[:number])
            invert(here[:number], growth[:number], which, near)
            for i in range(number):
                growth[i] = exponential(fused(deviation, growth[i], drift))
            if steps == 1:
                for i in range(number):
                    payoff[i] = spot * growth[i]
            else:
                for i in range(number):
                    price = price * growth[i]
                    total = total + price
                    step += 1
                    if step == steps:
                        payoff[sample] = total
                        sample, step, price, total = sample + 1, 0, spot, 0.0
        for i in range(samples):
            payoff[i] = discount * max(payoff[i] * share - strike, 0.0)
        for i in range(BLOCK):
            square[i] = payoff[i] * payoff[i]
        half = BLOCK // 2
        while half:
            for i in range(half):
                payoff[i] += payoff[i + half]
                square[i] += square[i + half]
            half //= 2
        sums[row, 0], sums[row, 1] = payoff[0], square[0]
