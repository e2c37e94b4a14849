"""The host's side of ``kernels/product.cl``. Imported when it is first used."""

import numpy as np

from brmpi.kernels import opencl

TILES = {"GROUP_M": 4, "GROUP_N": 4, "ROWS": 8, "DEPTH": 64}


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
    kernel = device.program("product", REAL="double" if c.dtype == np.float64 else "float", WIDTH=width,
                            **TILES).product
    (m, n), k = c.shape, a.shape[1]
    operands = []
    for x in (a, b):
        steps = (np.int64(step // x.itemsize) for step in x.strides)
        operands += [device.bring(x if x.flags.c_contiguous else x.T), *steps]
    buffer = device.bring(c, write=True)
    items = -(-n // width), -(-m // TILES["ROWS"])
    device.run(kernel, items, (TILES["GROUP_N"], TILES["GROUP_M"]), *operands, buffer, np.int64(m), np.int64(n),
               np.int64(k), c.dtype.type(alpha), c.dtype.type(beta))
    device.take(buffer, c)
