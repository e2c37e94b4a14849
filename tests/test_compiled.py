"""Numba's compiled code on disk: twenty ranks at once write it and read it."""

import json

import pytest

pytestmark = pytest.mark.timeout(300)
CODE = """
import json, numpy as np
from mpi4py import MPI
from brmpi.kernels import gravity
comm = MPI.COMM_WORLD
sources = np.zeros((4, gravity.TILE))
sources[:, :300] = np.random.default_rng(0).uniform(size=(4, 300))
out = np.zeros((3, 300))
comm.Barrier()
gravity.accelerations(np.ascontiguousarray(sources[:3, :300]), sources, 0.1, out, backend="numba")
from brmpi.kernels import gravity_numba
told = comm.gather((out.tobytes().hex(), sum(gravity_numba.float64.stats.cache_hits.values())))
if comm.rank == 0:
    print(json.dumps(told))
"""


@pytest.mark.parametrize("ranks", [6, pytest.param(20, marks=pytest.mark.soak)])
def test_many_ranks_start_at_once_cold_and_warm(launch, tmp_path, ranks):
    """All compile and write at the same moment, then all read: the same bits, and nothing is left half written."""
    found = []
    for _ in ("cold", "warm"):
        done = launch(ranks, "-c", CODE, timeout=140, NUMBA_CACHE_DIR=tmp_path / "cache")
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout))
    assert len({bits for told in found for bits, _ in told}) == 1
    assert [hits for _, hits in found[1]] == [1] * ranks, "warm: nothing is compiled"
    names = sorted(path.suffix for path in (tmp_path / "cache").rglob("*") if path.is_file())
    assert names == [".nbc", ".nbi"]
