"""``make bench-kernels``: what it holds kernels against, and what it says where a bar is missed."""

import numpy as np
import pytest

from brmpi.bench import kernels, report
from brmpi.bench.cloop import CLoop
from brmpi.bench.workloads import WORKLOADS, Workload
from brmpi.errors import Fault


def test_bytes_of_an_update():
    found = {work.kernel: kernels.bytes_of(work.kernel) for work in WORKLOADS
             if work.kernel.startswith(("stencil", "boltzmann"))}
    assert found["stencil heat5 float64"] == found["stencil heat7 float64"] == found["stencil heat9 float64"] == 24
    assert found["stencil heat7 float32"] == 12
    assert found["stencil conduct7 float64"] == found["stencil wave13 float64"] == 32
    assert found["boltzmann d2q9 float64"] == 216 and found["boltzmann d3q19 float64"] == 456


def row(what, against, ratio):
    return {"what": what, "against": against, "ratio": ratio}


def test_bars():
    rows = [row("gravity float64 numba", "c", 0.89), row("philox payoffs numba", "c", 0.5),
            row("stencil heat5 float64 numba", "limit", 0.81), row("boltzmann d2q9 float64 numba", "limit", 0.79),
            row("ising half_sweep opencl", "numba", 0.69), row("product float64 opencl", "numba", 0.7)]
    assert kernels.missed(rows) == ["gravity float64 numba: 0.89 of c, must be >= 0.9",
                                    "boltzmann d2q9 float64 numba: 0.79 of limit, must be >= 0.8",
                                    "ising half_sweep opencl: 0.69 of numba, must be >= 0.7"]


def test_a_loop_that_is_no_vector_loop_proves_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Fault, match="bench/c/build/gravity is not there: make bench builds it"):
        CLoop("gravity", 10)
    (tmp_path / "bench/c/build").mkdir(parents=True)
    (tmp_path / "bench/c/build/gravity.vectorised").write_text("gravity.c:70: optimized: basic block part vectorized\n")
    with pytest.raises(Fault, match="did not vectorise the loop"):
        CLoop("gravity", 10)
    (tmp_path / "bench/c/build/gravity.vectorised").write_text("gravity.c:19:28: optimized: loop vectorized\n")
    (tmp_path / "bench/c/build/gravity").write_text("#!/bin/sh\nread line; echo 0.5 1; exit 3\n")
    (tmp_path / "bench/c/build/gravity").chmod(0o755)
    loop = CLoop("gravity", 10)
    assert loop() == 0.5
    with pytest.raises(Fault, match="gravity 10 ended with exit code 3"):
        loop()
    loop.close()


def test_kernels_beside_each_other_and_beside_memory(monkeypatch, tmp_path):
    """The two measurements, on small data; the numbers themselves are ``make bench-kernels``'s."""
    monkeypatch.setattr(kernels, "SIZES", dict.fromkeys(kernels.SIZES, 2**12))
    monkeypatch.setattr(kernels, "BURST", 0.02)
    works = [work for work in WORKLOADS if work.kernel in ("stencil heat5 float32", "philox words")]
    rows = kernels.beside_each_other(works, 3, tmp_path)
    assert {row["against"] for row in rows} <= {"numba"} and all(row["value"] > 0 for row in rows)
    (found,) = kernels.beside_memory(works[:1], 2)
    assert found["what"] == "stencil heat5 float32 numba" and found["against"] == "limit" and found["ratio"] > 0
    assert found["size"] == "2^12" == report.power(4096)


def test_every_kernel_has_a_size():
    assert {work.kernel.split()[0] for work in WORKLOADS} == set(kernels.SIZES)
    assert all(isinstance(work, Workload) and list(work.sizes) == sorted(work.sizes) for work in WORKLOADS)


def test_the_liquid_is_what_c_reads(tmp_path):
    pairs = kernels.list_file(tmp_path / "list", 80 * 500)
    data = (tmp_path / "list").read_bytes()
    own, atoms, entries = np.frombuffer(data[:24], np.int64)
    assert own == atoms == 500 and entries == pairs
    assert len(data) == 24 + 5 * 8 + 3 * 8 * atoms + 8 * (own + 1) + 4 * entries
