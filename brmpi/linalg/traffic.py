"""Transfers under way, and products in pieces between which they go on.

Messages move while MPI is called: all transfers are on one list, which is polled every few milliseconds of work, and
always while waiting, since others may wait for what this rank has to hand on.
"""

import time

from brmpi.linalg.blas import gemm
from brmpi.linalg.broadcast import patiently

PERIOD = 4e-3  # s between polls, about
LEAST = 64  # rows in a piece of a product: with fewer BLAS is slow


class Traffic:
    """Everything under way, and products that let it go on."""

    def __init__(self):
        self.active = []
        self.rate = 1e10  # flop/s of this rank, as measured last

    def add(self, transfer):
        """Take care of a transfer from now on.

        Parameters
        ----------
        transfer : with ``poll``, which tells whether all is done

        Returns
        -------
        the transfer
        """
        if not transfer.poll():
            self.active.append(transfer)
        return transfer

    def poll(self):
        """Let everything go on, and tell whether all is done.

        Returns
        -------
        bool
        """
        self.active = [transfer for transfer in self.active if not transfer.poll()]
        return not self.active

    def until(self, done):
        """Wait for something, and let all else go on, which others may be waiting for.

        Parameters
        ----------
        done : callable, returning bool
        """
        def _there():
            if done():
                return True
            self.poll()
            return done()

        patiently(_there)

    def finish(self):
        """Until nothing is under way."""
        patiently(self.poll)

    def gemm(self, alpha, a, b, beta, c):
        """``c = alpha a b + beta c`` in place, in pieces between which everything goes on.

        Parameters
        ----------
        alpha : scalar
        a, b : 2-D ndarrays with a contiguous dimension
        beta : scalar
        c : 2-D ndarray with a contiguous dimension
        """
        (m, n), k = c.shape, a.shape[1]
        if not (m and n):
            return
        tall = m >= n
        length, flops = (m, 2 * n * k) if tall else (n, 2 * m * k)  # flops of one row, or column, of c
        if c.dtype.kind == "c":
            flops *= 4
        at = 0
        while at < length:
            step = length - at
            if not self.poll():
                pieces = max(min(round(step * flops / (PERIOD * self.rate)), step // LEAST), 1)
                step = -(-step // pieces)
            piece = slice(at, at + step)
            begin = time.perf_counter()
            if tall:
                gemm(alpha, a[piece], b, beta, c[piece])
            else:
                gemm(alpha, a, b[:, piece], beta, c[:, piece])
            spent = time.perf_counter() - begin
            if spent > 0 and step * flops > 1e6:
                self.rate = step * flops / spent
            at += step
