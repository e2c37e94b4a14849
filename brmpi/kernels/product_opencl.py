"""The host's side of ``kernels/product.cl``. Imported when it is first used."""

import numpy as np

from brmpi.kernels import opencl

# Where local memory is a cache, one work item makes a whole tile, so that its loads pay.
PROCESSOR = {"GROUP_M": 1, "GROUP_N": 1, "PANELS": 16, "STRIPS": 8, "ROWS": 8, "VECTORS": 2, "DEPTH": 128, "GAP": 16}
ACCELERATOR = {"GROUP_M": 8, "GROUP_N": 8, "PANELS": 1, "STRIPS": 1, "ROWS": 8, "VECTORS": 1, "DEPTH": 16, "GAP": 1}

# Values worth trying of the keywords of ``product``, the default first: None is by the kind of device, as above.
PARAMETERS = {"rows": (None, 4, 6, 12), "depth": (None, 64, 256)}


def product(a, b, c, alpha, beta, rows=None, depth=None):
    """Set c to alpha a b + beta c: the same bits for all rows and depths.

    Parameters
    ----------
    a, b, c, alpha, beta : as in ``product.product``, checked; c in C's order, none is empty
    rows : int, even, of a block that is summed in registers
    depth : int, a power of two from 16 on, columns of a in local memory; halved until they fit
    """
    device = opencl.device()
    if c.dtype == np.float64:
        opencl.need_float64(device)
    kind = PROCESSOR if device.shares_memory else ACCELERATOR
    tiles = {**kind, "ROWS": rows or kind["ROWS"], "DEPTH": depth or kind["DEPTH"]}
    width = max(4, device.width(c.dtype))
    high, wide = tiles["PANELS"] * tiles["ROWS"], tiles["STRIPS"] * tiles["VECTORS"] * width  # of a work item's part
    tile_m, tile_n = tiles["GROUP_M"] * high, tiles["GROUP_N"] * wide
    most = device.device.local_mem_size // c.itemsize
    while tiles["DEPTH"] > width and _size(tile_m, tile_n, tiles["DEPTH"], tiles["GAP"]) > most:
        tiles["DEPTH"] //= 2
    real = "double" if c.dtype == np.float64 else "float"
    orders = [int(x.flags.c_contiguous) for x in (a, b)]
    program = device.program("product", REAL=real, WIDTH=width, A_BY_ROWS=orders[0], B_BY_ROWS=orders[1], **tiles)
    operands = []
    for x, by_rows in zip((a, b), orders):
        operands += [device.bring(x if by_rows else x.T), np.int64(x.shape[by_rows])]
    (m, n), k = c.shape, a.shape[1]
    buffer = device.bring(c, write=True)
    items = -(-n // wide), -(-m // high)
    device.run(program.product, items, (tiles["GROUP_N"], tiles["GROUP_M"]), *operands, buffer, np.int64(m),
               np.int64(n), np.int64(k), c.dtype.type(alpha), c.dtype.type(beta))
    device.take(buffer, c)


def _size(tile_m, tile_n, depth, gap):
    """Numbers in local memory, at most."""
    return (tile_m + gap) * (depth + gap) + tile_n * depth
