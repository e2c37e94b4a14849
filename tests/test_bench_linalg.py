"""``make bench-linalg`` on small matrices: what is counted, what it is held against, where a bar is missed."""

import os

import numpy as np
import pytest

from brmpi.bench import linalg, report, scalapack


@pytest.fixture(autouse=True)
def as_root(monkeypatch):
    """The benchmark starts mpirun, which root must ask for by name."""
    if os.geteuid() == 0:
        for name in ("OMPI_ALLOW_RUN_AS_ROOT", "PRTE_ALLOW_RUN_AS_ROOT"):
            monkeypatch.setenv(name, "1")
            monkeypatch.setenv(f"{name}_CONFIRM", "1")
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")


def test_what_monitoring_wrote_is_added_up(tmp_path):
    (tmp_path / "sent.0.prof").write_text("# POINT TO POINT\nE\t0\t1\t100 bytes\t2 msgs sent\t0,1\n"
                                          "I\t0\t1\t7 bytes\t1\n# COLLECTIVES\nC\t0\t1\t671 bytes\t32 msgs sent\n")
    (tmp_path / "sent.1.prof").write_text("E\t1\t0\t5 bytes\t2 msgs sent\t0,1\n")
    assert linalg.received(tmp_path, 2).tolist() == [5, 107]


def test_bounds():
    assert linalg.BOUNDS["matmul"](100, 1) == linalg.BOUNDS["lu"](100, 1) == 0
    assert linalg.BOUNDS["matmul"](100, 4) == 5000 and linalg.BOUNDS["lu"](100, 16) == 1875


@pytest.mark.parametrize(("kind", "ranks", "factor"), [("matmul", 4, 1.1), ("matmul", 16, 1.25), ("lu", 4, 3)])
def test_bytes_are_near_the_bound(kind, ranks, factor):
    """Counted for real; beyond the bound there is what the set-up sends, and LU's row exchanges."""
    (row,) = linalg.volumes([ranks], n=512, nb=16, kinds=[kind])
    assert row["what"] == f"{kind} volume" and row["against"] == "bound" and row["unit"] == "bytes"
    assert row["ratio"] == pytest.approx(row["reference"] / row["value"])
    assert 1 <= row["value"] / row["reference"] < factor


def test_products_beside_others():
    rows = linalg.products(n=96, nb=16, repeats=2)
    assert [row["against"] for row in rows] == (["scalapack"] if scalapack.library() else []) + ["summed", "together"]
    assert all(row["ranks"] == 2 and np.isfinite(row["ratio"]) and row["ratio"] > 0 for row in rows)


def test_weak_scaling(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    asked = []

    def rate(ranks, name, kind, n, nb):
        asked.append((ranks, n))
        return linalg.FLOPS[kind](n) / 1e9 / min(ranks, 2)

    monkeypatch.setattr(linalg, "on_ranks", rate)
    rows = linalg.scaling([1, 4, 16], one=100, rounds=2, kinds=["lu"])
    assert asked == [(1, 100), (2, 141), (4, 200), (16, 400)] * 2
    assert [(row["ranks"], row["against"], row["ratio"]) for row in rows] == [
        (2, "summed", 1), (4, "cores", 1), (16, "cores", 1)]


def test_one_run_of_each_kind():
    assert all(linalg.on_ranks(2, "scaled", kind=kind, n=64, nb=8) > 0 for kind in linalg.FLOPS)


def test_bars():
    def row(what, against, ratio):
        return report.row(what, 10, 2, [ratio] * 2, "GFLOP/s", against, [1.0] * 2)

    rows = [row("matmul float64", "scalapack", 0.99), row("matmul float64", "summed", 0.96),
            row("lu weak", "summed", 0.1)]
    assert linalg.missed(rows) == ["matmul float64 on 2: 0.99 of scalapack, must be >= 1.0"]
