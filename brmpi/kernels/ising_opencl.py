"""The host's side of ``kernels/ising.cl``. Imported when it is first used."""

import numpy as np

from brmpi.kernels import opencl
from brmpi.kernels.ising import part

# Values worth trying, all to the same bits: blocks of Philox side by side, blocks of a work item, items of a group.
PARAMETERS = {"blocks": (16, 8, 1), "stretch": (64, 16), "group": (1, 16)}
DEFAULT = {name: values[0] for name, values in PARAMETERS.items()}


def half_sweep(spins, colour, sweep, limits, key, row, column, **parameters):
    """Update the sites of one colour.

    Parameters
    ----------
    spins, colour, sweep, limits, key, row, column : as in ``ising.half_sweep``, checked
    **parameters : of ``PARAMETERS``
    """
    device = opencl.device()  # before pyopencl, so that its lack is told
    from pyopencl import cltypes

    odd, spans = part(spins, colour, row, column)
    rows, columns = (size - 2 for size in spins.shape)
    blocks = max(-(-end // 8) - first // 8 for first, end in spans)
    first, end = (cltypes.make_long2(*pair) for pair in zip(*spans))
    program, stretch, group = _program(device, **DEFAULT | parameters)
    buffer = device.bring(spins, write=True)
    device.run(program.half_sweep, (max(-(-blocks // stretch), 1), rows), (group, 1), buffer, np.int32(rows),
               np.int64(columns), cltypes.make_ulong2(*key), np.uint64(row), np.uint64(2 * sweep + colour),
               np.int64(column), np.int32(odd), first, end, *limits)
    device.take(buffer, spins)


def energy(spins):
    """Sum over bonds to the right and downwards.

    Parameters
    ----------
    spins : as in ``ising.energy``, checked
    """
    return _sums(spins)[:, 0].sum()


def magnetisation(spins):
    """Sum of the spins.

    Parameters
    ----------
    spins : as in ``ising.magnetisation``, checked
    """
    return _sums(spins)[:, 1].sum()


def _program(device, blocks, stretch, group):
    return device.program("ising", BLOCKS=blocks, STRETCH=stretch), stretch, group


def _sums(spins):
    device = opencl.device()
    rows, columns = (size - 2 for size in spins.shape)
    out = np.empty((rows, 2), np.int64)
    buffer = device.bring(out, write=True)
    program, _, group = _program(device, **DEFAULT)
    device.run(program.sums, (rows,), (group,), device.bring(spins), np.int32(rows), np.int64(columns), buffer)
    device.take(buffer, out)
    return out
