"""The host's side of ``kernels/ising.cl``. Imported when it is first used."""

import numpy as np

from brmpi.kernels import opencl
from brmpi.kernels.ising import part

GROUP = (16, 1)  # work items side by side: of 16 columns, and rows


def half_sweep(spins, colour, sweep, limits, key, row, column):
    """Update the sites of one colour.

    Parameters
    ----------
    spins, colour, sweep, limits, key, row, column : as in ``ising.half_sweep``, checked
    """
    device = opencl.device()  # before pyopencl, so that its lack is told
    from pyopencl import cltypes

    odd, spans = part(spins, colour, row, column)
    rows, columns = (size - 2 for size in spins.shape)
    blocks = max(-(-end // 8) - first // 8 for first, end in spans)
    first, end = (cltypes.make_long2(*pair) for pair in zip(*spans))
    buffer = device.bring(spins, write=True)
    device.run(device.program("ising").half_sweep, (max(blocks, 1), rows), GROUP, buffer, np.int32(rows),
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


def _sums(spins):
    device = opencl.device()
    rows, columns = (size - 2 for size in spins.shape)
    out = np.empty((rows, 2), np.int64)
    buffer = device.bring(out, write=True)
    device.run(device.program("ising").sums, (rows,), (GROUP[0],), device.bring(spins), np.int32(rows),
               np.int64(columns), buffer)
    device.take(buffer, out)
    return out
