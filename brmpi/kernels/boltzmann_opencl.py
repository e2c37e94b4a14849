"""The host's side of ``kernels/boltzmann.cl``. Imported when it is first used."""

import numpy as np

from brmpi.kernels import opencl

PARAMETERS = {"group": (64, 16, 256)}  # work items along the contiguous axis


def step(f, out, ahead, constants, solid, table, inner, group=64):
    """Stream and collide once; arguments as ``boltzmann`` has checked them, none of them empty.

    Parameters
    ----------
    f, out : (q, r, s) or (q, r, s, t) float64 or float32; the same array for a step in place
    ahead : bool, arrangement of a step in place; None is one from array to array
    constants : ``boltzmann._Constants``
    solid : (r, s) or (r, s, t) uint8, or None
    table : (q, 256) same dtype
    inner : range, of rows
    group : int, a power of two, work items in a group; fewer where a row is shorter

    Raises
    ------
    brmpi.kernels.opencl.Unavailable
    """
    device = opencl.device()
    wide, group = f.dtype == np.float64, min(group, 2 ** int(np.log2(f.shape[-1] - 2)))
    if wide:
        opencl.need_float64(device)
    program = device.program("boltzmann", REAL="double" if wide else "float", FLOAT64=int(wide), Q=len(f),
                             WALLS=int(solid is not None), GROUP=group, ARRANGEMENT=0 if ahead is None else 1 + ahead)
    depth, width, height = f.shape[1], f.shape[-1], f.shape[2] if f.ndim == 4 else 1
    k = np.concatenate([np.ravel(values) for values in constants])
    target = device.bring(out, write=True)
    source = device.bring(f) if ahead is None else target
    walls = None if solid is None else device.bring(solid)
    sizes = (np.int64(n) for n in (depth, height, width, inner.start))
    cells = (width - 2, max(height - 2, 1), len(inner))
    device.run(program.boltzmann, cells, (group, 1, 1), source, target, device.bring(k), walls, device.bring(table),
               *sizes)
    device.take(target, out)
