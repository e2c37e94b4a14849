"""Print lattice updates per second of lbmpy: D3Q19 BGK in float64, periodic, as fast as it generates it.

    python flow-lbmpy.py THREADS SIDE

The flow is a column of Taylor and Green's vortices, and must decay as theory has it.
"""

import math
import sys
import time
from pathlib import Path

import numpy as np
from lbmpy import LBMConfig, LBMOptimisation, LBStencil, Method, Stencil, create_lb_update_rule
from lbmpy.macroscopic_value_kernels import macroscopic_values_setter
from pystencils import CreateKernelConfig, Target, create_data_handling, create_kernel
from pystencils.jit import CpuJit
from pystencils.jit.cpu.compiler_info import CompilerInfo

SPEED, TAU, SECONDS, LEAST = 0.01, 0.65, 1.5, 40

threads, side = map(int, sys.argv[1:])
cache = Path(sys.prefix, "kernels")
cache.mkdir(exist_ok=True)
# before the interpreter's own headers, beside which a distribution may have put those of another NumPy
compiler = CompilerInfo.get_default(extra_cxxflags=[f"-I{np.get_include()}"])


def compiled(assignments, vectors):
    """A kernel, for all threads."""
    config = CreateKernelConfig(target=Target.CurrentCPU, jit=CpuJit(compiler, cache))
    config.cpu.openmp.enable, config.cpu.openmp.num_threads = True, threads
    if vectors and Target.auto_cpu().is_vector_cpu():
        config.cpu.vectorize.enable = True
        config.cpu.vectorize.assume_inner_stride_one = config.cpu.vectorize.assume_aligned = True
        config.cpu.vectorize.use_nontemporal_stores = True
    return create_kernel(assignments, config=config).compile()


data = create_data_handling((side,) * 3, periodicity=True, default_ghost_layers=1)
f, after, u = (data.add_array(name, values_per_cell=count, layout="fzyx", alignment=64)
               for name, count in (("f", 19), ("after", 19), ("u", 3)))
lattice = LBStencil(Stencil.D3Q19)
rule = create_lb_update_rule(
    lbm_config=LBMConfig(stencil=lattice, method=Method.SRT, relaxation_rate=1 / TAU, compressible=True),
    lbm_optimisation=LBMOptimisation(symbolic_field=f, symbolic_temporary_field=after))
update = compiled(rule, vectors=True)
begin = compiled(macroscopic_values_setter(rule.method, 1.0, u.center_vector, f.center_vector), vectors=False)
at = (np.arange(side) + 0.5) * 2 * np.pi / side
x, y = np.meshgrid(at, at, indexing="ij")
for block in data.iterate(ghost_layers=False, inner_ghost_layers=False):
    block["u"][...] = 0
    block["u"][..., 0] = (-SPEED * np.cos(x) * np.sin(y))[:, :, None]
    block["u"][..., 1] = (SPEED * np.sin(x) * np.cos(y))[:, :, None]
data.run_kernel(begin)
wrap = data.synchronization_function(["f"])


def steps(count):
    """Advance."""
    for _ in range(count):
        wrap()
        data.run_kernel(update)
        data.swap("f", "after")


def fastest():
    """The largest velocity along x."""
    now = data.gather_array("f")
    return np.abs(sum(now[..., i] * c[0] for i, c in enumerate(lattice))).max()


steps(2)
before, done, start = fastest(), 0, time.perf_counter()
while time.perf_counter() - start < SECONDS or done < LEAST:
    steps(5)
    done += 5
rate = done * side**3 / (time.perf_counter() - start)
decay = math.exp(-2 * (TAU - 0.5) / 3 * (2 * math.pi / side) ** 2 * done)
if abs(fastest() / before / decay - 1) > 0.1 * (1 - decay):
    sys.exit(f"the vortices fell to {fastest() / before:.4f} in {done} steps: must be {decay:.4f}")
print(rate)
