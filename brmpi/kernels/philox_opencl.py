"""The host's side of ``kernels/philox.cl``. Imported when it is first used."""

import numpy as np

from brmpi.kernels import opencl
from brmpi.kernels.philox import BLOCK

# Values worth trying, all to the same bits: blocks of Philox side by side, lanes of a vector, words of a work item.
PARAMETERS = {"blocks": (16, 8, 1), "width": (16, 4), "chunk": (1024, 64)}
DEFAULT = {name: values[0] for name, values in PARAMETERS.items()}


def words(key, first, count, **parameters):
    """Raw words.

    Parameters
    ----------
    key, first, count : as in ``philox.words``, checked
    **parameters : of ``PARAMETERS``
    """
    return _numbers("words", key, first, np.empty(count, np.uint64), parameters)


def uniform(key, first, count, **parameters):
    """Uniform numbers.

    Parameters
    ----------
    key, first, count : as in ``philox.uniform``, checked
    **parameters : of ``PARAMETERS``
    """
    opencl.need_float64(opencl.device())
    return _numbers("uniform_numbers", key, first, np.empty(count), parameters)


def normal(key, first, count, **parameters):
    """Normal numbers.

    Parameters
    ----------
    key, first, count : as in ``philox.normal``, checked
    **parameters : of ``PARAMETERS``
    """
    opencl.need_float64(opencl.device())
    return _numbers("normal_numbers", key, first, np.empty(count), parameters)


def inside_circle(key, first, count, **parameters):
    """Points inside the circle.

    Parameters
    ----------
    key, first, count : as in ``philox.inside_circle``, checked
    **parameters : of ``PARAMETERS``
    """
    groups = -(-(first % 4 + count) // BLOCK) if count else 0
    found = np.empty(groups * (BLOCK // (DEFAULT | parameters)["chunk"]), np.uint64)
    return int(_run("inside", key, first, count, groups, first % 4, found, (), parameters).sum())


def payoffs(key, first, count, steps, option, **parameters):
    """Sums of payoffs and squares, a row a block.

    Parameters
    ----------
    key : two ints
    first : int, word of the first sample, a multiple of 4
    count : int, samples
    steps : int
    option : six floats, from ``philox._option``
    **parameters : of ``PARAMETERS``
    """
    opencl.need_float64(opencl.device())
    out = np.empty((-(-count // BLOCK), 2))
    more = [np.float64(value) for value in option]
    return _run("payoffs", key, first, count, len(out), steps, out, more, parameters)


def _numbers(name, key, first, out, parameters):
    groups = -(-(first % 4 + out.size) // BLOCK)
    return _run(name, key, first, out.size, groups, first % 4, out, (), parameters)


def _run(name, key, first, count, groups, number, out, more, parameters):
    """Number is the lane of the first word, or the steps of payoffs."""
    if out.size == 0:
        return out
    device = opencl.device()  # before pyopencl, so that its lack is told
    from pyopencl import cltypes

    counter = [first // 4 >> (64 * place) & (2**64 - 1) for place in range(4)]
    words = BLOCK * groups * (number if name == "payoffs" else 1)
    program = _program(device, int(counter[0] + words // 4 > 2**64), **DEFAULT | parameters)
    group = BLOCK // (DEFAULT | parameters)["chunk"]
    buffer = device.bring(out, write=True)
    device.run(getattr(program, name), (groups * group,), (group,), cltypes.make_ulong2(*key),
               cltypes.make_ulong4(*counter), np.int32(number), np.int64(count), *more, buffer)
    device.take(buffer, out)
    return out


def _program(device, carry, blocks, width, chunk):
    """The lowest word of the counter wraps around with one block at a time."""
    return device.program("philox", BLOCKS=1 if carry else blocks, WIDTH=width, CHUNK=chunk, BLOCK=BLOCK,
                          FLOAT64=int(device.has_float64), CARRY=carry)
