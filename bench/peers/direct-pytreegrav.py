"""Print interactions per second of pytreegrav's direct sum.

    python direct-pytreegrav.py THREADS BODIES SOFTENING

BODIES is a .npy file of positions; the bodies have a mass of 1 together.
"""

import sys
import time

import numpy as np
from pytreegrav import Accel

CALLS = 2

pos, threads = np.load(sys.argv[2]), int(sys.argv[1])
n = len(pos)
mass, softening = np.full(n, 1 / n), np.full(n, float(sys.argv[3]))
how = {"method": "bruteforce", "parallel": threads > 1}
Accel(pos[:64], mass[:64], softening[:64], **how)
start = time.perf_counter()
for _ in range(CALLS):
    Accel(pos, mass, softening, **how)
print(CALLS * n**2 / (time.perf_counter() - start))
