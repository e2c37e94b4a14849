"""The host's side of ``kernels/product.cl``. Imported when it is first used."""

import numpy as np

from brmpi.kernels import opencl

# Where local memory is a cache, one work item makes a whole tile, so that its loads pay.
PROCESSOR = {"GROUP_M": 1, "GROUP_N": 1, "PANELS": 8, "STRIPS": 8, "ROWS": 8, "DEPTH": 64}
ACCELERATOR = {"GROUP_M": 8, "GROUP_N": 8, "PANELS": 1, "STRIPS": 1, "ROWS": 8, "DEPTH": 16}


def product(a, b, c, alpha, beta):
    """Set c to alpha a b + beta c.

    Parameters
    ----------
    a, b, c, alpha, beta : as in ``product.product``, checked; c in C's order, none is empty
    """
    device = opencl.device()
    if c.dtype == np.float64:
        opencl.need_float64(device)
    width = max(4, device.width(c.dtype))
    tiles = dict(PROCESSOR if device.shares_memory else ACCELERATOR)
    rows, columns = tiles["PANELS"] * tiles["ROWS"], tiles["STRIPS"] * width  # of a work item
    line = (tiles["GROUP_M"] * rows + tiles["GROUP_N"] * columns) * c.itemsize
    while tiles["DEPTH"] > 1 and tiles["DEPTH"] * line > device.device.local_mem_size:
        tiles["DEPTH"] //= 2
    real = "double" if c.dtype == np.float64 else "float"
    kernel = device.program("product", REAL=real, WIDTH=width, **tiles).product
    (m, n), k = c.shape, a.shape[1]
    operands = []
    for x in (a, b):
        steps = (np.int64(step // x.itemsize) for step in x.strides)
        operands += [device.bring(x if x.flags.c_contiguous else x.T), *steps]
    buffer = device.bring(c, write=True)
    items = -(-n // columns), -(-m // rows)
    device.run(kernel, items, (tiles["GROUP_N"], tiles["GROUP_M"]), *operands, buffer, np.int64(m), np.int64(n),
               np.int64(k), c.dtype.type(alpha), c.dtype.type(beta))
    device.take(buffer, c)
