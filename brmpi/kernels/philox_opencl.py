"""The host's side of ``kernels/philox.cl``. Imported when it is first used."""

import numpy as np

from brmpi.kernels import opencl
from brmpi.kernels.philox import BLOCK

WIDTH = 8  # words made side by side: 4, 8 or 16
CHUNK = 128  # words that a work item takes at a time: a power of two, from WIDTH to BLOCK / 2
GROUP = 16  # work items of a group that writes numbers


def words(key, first, count):
    """Raw words.

    Parameters
    ----------
    key, first, count : as in ``philox.words``, checked
    """
    return _numbers("words", key, first, np.empty(count, np.uint64))


def uniform(key, first, count):
    """Uniform numbers.

    Parameters
    ----------
    key, first, count : as in ``philox.uniform``, checked
    """
    opencl.need_float64(opencl.device())
    return _numbers("uniform_numbers", key, first, np.empty(count))


def normal(key, first, count):
    """Normal numbers.

    Parameters
    ----------
    key, first, count : as in ``philox.normal``, checked
    """
    opencl.need_float64(opencl.device())
    return _numbers("normal_numbers", key, first, np.empty(count))


def inside_circle(key, first, count):
    """Points inside the circle.

    Parameters
    ----------
    key, first, count : as in ``philox.inside_circle``, checked
    """
    items = -(-(first % 4 + count) // CHUNK)
    items = -(-items // GROUP) * GROUP
    found = np.empty(items, np.uint64)
    return int(_run("inside", key, first, count, items, GROUP, (np.int32(first % 4),), found).sum())


def payoffs(key, first, count, steps, option):
    """Sums of payoffs and squares, a row a block.

    Parameters
    ----------
    key : two ints
    first : int, word of the first sample, a multiple of 4
    count : int, samples
    steps : int
    option : six floats, from ``philox._option``
    """
    opencl.need_float64(opencl.device())
    out = np.empty((-(-count // BLOCK), 2))
    group = BLOCK // CHUNK
    return _run("payoffs", key, first, count, len(out) * group, group, (np.int32(steps),), out,
                *(np.float64(value) for value in option))


def _numbers(name, key, first, out):
    items = -(-(first % 4 + out.size) // CHUNK)
    return _run(name, key, first, out.size, items, GROUP, (np.int32(first % 4),), out)


def _run(name, key, first, count, items, group, number, out, *more):
    if out.size == 0:
        return out
    device = opencl.device()  # before pyopencl, so that its lack is told
    from pyopencl import cltypes

    counter = [first // 4 >> (64 * place) & (2**64 - 1) for place in range(4)]
    words = CHUNK * (items + group) * (int(number[0]) if name == "payoffs" else 1)
    program = device.program("philox", WIDTH=WIDTH, CHUNK=CHUNK, BLOCK=BLOCK, FLOAT64=int(device.has_float64),
                             CARRY=int(counter[0] + words // 4 >= 2**64))
    buffer = device.bring(out, write=True)
    device.run(getattr(program, name), (items,), (group,), cltypes.make_ulong2(*key), cltypes.make_ulong4(*counter),
               *number, np.int64(count), *more, buffer)
    device.take(buffer, out)
    return out
