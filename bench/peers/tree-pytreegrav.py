"""Print forces per second of pytreegrav's tree with quadrupoles, and their error beside its own direct sum.

    python tree-pytreegrav.py THREADS BODIES SOFTENING

BODIES is a .npy file of positions; the bodies have a mass of 1 together. The error is the root mean square over 1000
of them of the relative one.
"""

import sys
import time

import numpy as np
from pytreegrav import Accel, AccelTarget

OPENING = 0.7

pos, threads = np.load(sys.argv[2]), int(sys.argv[1])
n = len(pos)
mass, softening = np.full(n, 1 / n), np.full(n, float(sys.argv[3]))
how = {"method": "tree", "quadrupole": True, "theta": OPENING, "parallel": threads > 1}
Accel(pos[:1000], mass[:1000], softening[:1000], **how)
start = time.perf_counter()
found = Accel(pos, mass, softening, **how)
rate = n / (time.perf_counter() - start)
some = np.arange(1000) * (n // 1000)
exact = AccelTarget(pos[some], pos, mass, softening[some], softening, method="bruteforce", parallel=threads > 1)
off = ((found[some] - exact) ** 2).sum(axis=1) / (exact**2).sum(axis=1)
print(rate, np.sqrt(off.mean()))
