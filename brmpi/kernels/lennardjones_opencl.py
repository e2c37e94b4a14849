"""The forces of ``lennardjones`` on an OpenCL device; the source is ``kernels/lennardjones.cl``."""

import numpy as np

from brmpi.kernels.opencl import device, need_float64

PARAMETERS = {"group": (64, 16, 256)}  # atoms of a work group
WIDTH = 4  # pairs computed at once, if the device has vectors of so many: 8 are slower, as they are gathered one by one


def forces(pos, rows, index, turns, rc2, shift, first, last, out, group=64, width=None):
    """Write forces, energies and virials.

    Parameters
    ----------
    pos : (3, n) float64
    rows : (own + 1,) int64, where each own atom's list begins
    index : uint32, the lists
    turns : six float or None
    rc2, shift : float
    first, last : int, first < last
    out : (5, own) float64
    group : int, atoms of a work group
    width : 1, 2, 4 or 8, pairs computed at once; the device's own vector, at most WIDTH, where None

    Raises
    ------
    Unavailable : there is no device, it lacks float64 or memory, or the source does not compile for it
    """
    here = device()
    need_float64(here)
    if rows[first] == rows[last]:  # no neighbours: nothing to bring
        out[:, first:last] = 0
        return
    width = width or min(WIDTH, here.width(np.float64))
    program = here.program("lennardjones", WIDTH=width, PERIODIC=int(turns is not None))
    into = here.bring(out, write=True)
    bounds = [np.uint32(value) for value in (first, last, rows.size - 1)]
    numbers = [np.float64(value) for value in (*(turns or (0.0,) * 6), rc2, shift)]
    here.run(program.forces, (last - first,), (group,), *bounds, here.bring(pos), np.uint64(pos.shape[1]),
             here.bring(rows), here.bring(index), *numbers, into)
    here.take(into, out)
