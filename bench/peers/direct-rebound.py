"""Print interactions per second of REBOUND's direct gravity, on one core.

    python direct-rebound.py 1 BODIES SOFTENING

BODIES is a .npy file of positions; the bodies have a mass of 1 together.
"""

import sys
import time

import numpy as np
import rebound

STEPS = 2

pos = np.load(sys.argv[2])
n = len(pos)
sim = rebound.Simulation()
sim.integrator, sim.gravity, sim.softening, sim.dt = "leapfrog", "basic", float(sys.argv[3]), 1e-9
for x, y, z in pos:
    sim.add(m=1 / n, x=x, y=y, z=z)
sim.steps(1)
start = time.perf_counter()
sim.steps(STEPS)
print(STEPS * n**2 / (time.perf_counter() - start))
