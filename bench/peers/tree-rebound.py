"""Print forces per second of REBOUND's tree, on one core, and their error.

    python tree-rebound.py 1 BODIES SOFTENING

BODIES is a .npy file of positions; the bodies have a mass of 1 together. The error is the root mean square over 1000
of them of the relative one, beside a direct sum.
"""

import sys
import time

import numpy as np
import rebound

STEPS = 1

pos, eps = np.load(sys.argv[2]), float(sys.argv[3])
n = len(pos)
sim = rebound.Simulation()
sim.integrator, sim.gravity, sim.boundary, sim.softening, sim.dt = "leapfrog", "tree", "open", eps, 1e-9
sim.root_size = 4 * float(np.abs(pos).max())
for x, y, z in pos:
    sim.add(m=1 / n, x=x, y=y, z=z)
sim.steps(1)
start = time.perf_counter()
sim.steps(STEPS)
rate = STEPS * n / (time.perf_counter() - start)
errors = []
for i in range(0, 1000 * (n // 1000), n // 1000):
    body = sim.particles[i]
    away = pos - pos[i]
    exact = (away / n / ((away**2).sum(axis=1) + eps**2)[:, None] ** 1.5).sum(axis=0)
    errors.append(((np.array([body.ax, body.ay, body.az]) - exact) ** 2).sum() / (exact**2).sum())
print(rate, np.sqrt(np.mean(errors)))
