"""What each kernel is timed on, for tuning and benchmarks: data of a size, the call, how much work a call is."""

from typing import NamedTuple

import numpy as np

from brmpi.kernels import boltzmann, gravity, ising, lennardjones, philox, product, stencil

KEY = (1, 2)


class Workload(NamedTuple):
    """One kernel, as ``kernels.choice`` names it."""

    kernel: str
    unit: str  # of its rate
    sizes: tuple  # of work, as ``choice.choose`` counts it; small, middle and large
    make: object  # function of a size: (work of a call, function of a backend that makes the call)


def _gravity(precision):
    def make(size):
        n = max(1, round(size**0.5))
        rng = np.random.default_rng(1)
        sources = np.zeros((4, gravity.TILE * gravity.tiles(n)))
        sources[:3, :n], sources[3, :n] = rng.uniform(size=(3, n)), 1 / n
        targets = np.ascontiguousarray(sources[:3, :n])
        if precision == "potential":
            phi = np.zeros(n)
            return n**2, lambda backend: gravity.potentials(targets, sources, 0.01, phi, backend)
        out = np.zeros((3, n))
        return n**2, lambda backend: gravity.accelerations(targets, sources, 0.01, out, precision, backend)

    return make


def _field(shape, dtype, seed=1):
    return np.random.default_rng(seed).uniform(0.5, 1.5, shape).astype(dtype)


def _stencil(name, dtype):
    halo = 2 if name in ("wave9", "wave13") else 1
    d = 3 if name in ("heat7", "conduct7", "wave7", "wave13") else 2

    def make(size):
        side = max(1, round(size ** (1 / d)))
        shape = (side + 2 * halo,) * d
        u, k = _field(shape, dtype), _field(shape, dtype, 2)
        out = u.copy()
        call = {"heat5": lambda backend: stencil.heat(u, out, 0.1, backend),
                "heat7": lambda backend: stencil.heat(u, out, 0.1, backend),
                "heat9": lambda backend: stencil.heat9(u, out, 0.1, backend),
                "conduct5": lambda backend: stencil.conduct(u, out, k, 0.1, backend=backend),
                "conduct7": lambda backend: stencil.conduct(u, out, k, 0.1, backend=backend)}
        leap = lambda backend: stencil.wave(u, k, out, 0.1, 2 * halo, backend)  # noqa: E731
        return side**d, call.get(name, leap)

    return make


def _boltzmann(lattice, dtype):
    def make(size):
        d = lattice.c.shape[1]
        side = max(1, round(size ** (1 / d)))
        rho = _field((side + 2,) * d, dtype)
        f = boltzmann.equilibrium(rho, np.zeros((d, *rho.shape), dtype))
        out = f.copy()
        return side**d, lambda backend: boltzmann.step(f, out, 0.7, 3 / 16, backend=backend)

    return make


def liquid(atoms):
    """A Lennard-Jones liquid of density 0.8442 with its list: near a lattice, cutoff 2.5, skin 0.3.

    Parameters
    ----------
    atoms : int, about so many

    Returns
    -------
    pos : (3, n) float64
    near : lennardjones.Neighbours
    """
    side = max(2, round((atoms / 4) ** (1 / 3)))
    corner = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij")).reshape(3, -1)
    cell = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]).T
    edge = (4 / 0.8442) ** (1 / 3)
    pos = edge * (corner[:, :, None] + cell[:, None, :]).reshape(3, -1)
    pos = np.ascontiguousarray(pos + np.random.default_rng(1).normal(0, 0.05, pos.shape))
    n, length = pos.shape[1], edge * side
    periodic = (length > 5.6,) * 3
    near = lennardjones.neighbours(pos, n, np.arange(n), 2.8, (0,) * 3, (length,) * 3, periodic, "numba")
    return pos, near


def _lennardjones(size):
    pos, near = liquid(size / 80)
    out = np.zeros((5, pos.shape[1]))
    return near.index.size, lambda backend: lennardjones.forces(pos, near, 2.5, out, backend=backend)


def _philox(name):
    def make(size):
        count = max(1, round(size))
        if name == "payoffs":
            return count, lambda backend: philox.european(KEY, 0, count, 100, 100, 0.05, 0.2, 1, backend)
        call = getattr(philox, name)
        return count, lambda backend: call(KEY, 0, count, backend)

    return make


def _ising(size):
    side = max(2, round((2 * size) ** 0.5) // 2 * 2)
    spins = np.where(np.random.default_rng(1).random((side + 2, side + 2)) < 0.5, 1, -1).astype(np.int8)
    limits = ising.limits(0.44)

    return side**2 // 2, lambda backend: ising.half_sweep(spins, 0, 1, limits, KEY, backend=backend)


def _product(dtype):
    def make(size):
        side = max(1, round(size ** (1 / 3)))
        a, b = _field((side, side), dtype), _field((side, side), dtype, 2)
        c = np.zeros((side, side), dtype)
        return side**3, lambda backend: product.product(a, b, c, backend=backend)

    return make


WORKLOADS = (
    *(Workload(f"gravity {name}", "interactions/s", (2**16, 2**21, 2**26), _gravity(name))
      for name in ("float64", "mixed", "potential")),
    *(Workload(f"stencil {name} {dtype}", "cells/s", (2**14, 2**18, 2**22), _stencil(name, dtype))
      for name in ("heat5", "heat7", "heat9", "conduct5", "conduct7", "wave5", "wave7", "wave9", "wave13")
      for dtype in ("float64", "float32")),
    *(Workload(f"boltzmann {name} {dtype}", "cells/s", (2**12, 2**16, 2**20), _boltzmann(lattice, dtype))
      for name, lattice in (("d2q9", boltzmann.D2Q9), ("d3q19", boltzmann.D3Q19)) for dtype in ("float64", "float32")),
    Workload("lennardjones forces", "pairs/s", (2**16, 2**19, 2**22), _lennardjones),
    *(Workload(f"philox {name}", "samples/s", (2**14, 2**18, 2**22), _philox(name))
      for name in ("words", "uniform", "normal", "inside_circle", "payoffs")),
    Workload("ising half_sweep", "sites/s", (2**13, 2**17, 2**21), _ising),
    *(Workload(f"product {dtype}", "products/s", (2**18, 2**24, 2**30), _product(dtype))
      for dtype in ("float64", "float32")),
)
