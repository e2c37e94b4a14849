"""``make bench-sims``: what it runs, what it holds it against, and what it says where a bar is missed."""

import math
import re

import numpy as np
import pytest

from brmpi.bench import peers, report, sims
from brmpi.errors import Fault

LOG = """LAMMPS (22 Jul 2025)
Per MPI rank memory allocation (min/avg/max) = 4.5 | 4.5 | 4.5 Mbytes
   Step          Temp          PotEng         KinEng         TotEng         Press
         0   1.44           -6.5            2.125         -4.375        -5.019707
        20   0.65           -5.5            0.975         -4.525         7.99e-01
Loop time of 2.5 on 1 procs for 20 steps with 32000 atoms

Performance: 86400.000 tau/day, 8.000 timesteps/s, 256.000 katom-step/s
"""


def row(what, against, ratio, value=1e6, ranks=2, size="small"):
    return {"what": what, "against": against, "ratio": ratio, "value": value, "ranks": ranks, "size": size}


def test_what_lammps_prints_is_read():
    assert peers.atom_steps(LOG) == 20 * 32000 / 2.5
    table = peers.thermo(LOG)
    assert list(table) == ["Step", "Temp", "PotEng", "KinEng", "TotEng", "Press"]
    assert table["Step"].tolist() == [0, 20] and table["Press"].tolist() == [-5.019707, 0.799]


def test_runs_of_the_melt_apart():
    ours = {"step": [0, 20], "temperature": [1.44, 0.65], "potential": [-6.5, -5.5], "kinetic": [2.125, 0.975],
            "energy": [-4.375, -4.525], "pressure": [-5.019707, 0.799]}
    theirs = peers.thermo(LOG)
    assert set(peers.apart(ours, theirs).values()) == {0.0}
    ours["energy"][1] *= 1 + 1e-9
    found = peers.apart(ours, theirs)
    assert found["energy"] == pytest.approx(1e-9) and found["temperature"] == 0
    assert sims.missed([], {}, found) == ["md melt: energy is off by 1e-09 beside LAMMPS, must be <= 1e-10"]
    ours["energy"][1] = math.nan
    assert sims.missed([], {}, peers.apart(ours, theirs))
    with pytest.raises(Fault, match="rows of the steps"):
        peers.apart({**ours, "step": [0, 10]}, theirs)


def test_atoms_go_to_lammps_to_the_last_bit(tmp_path):
    pos, vel = np.random.default_rng(1).random((2, 5, 3))
    vel[0, 0] = -1e-17
    peers.write_data(tmp_path / "data", pos, vel, 1 / 3)
    text = (tmp_path / "data").read_text()
    assert "\n5 atoms\n" in text and f"\n0 {1 / 3!r} zlo zhi\n" in text
    rows = [line.split() for line in re.split("Atoms|Velocities", text)[1].split("\n") if line]
    assert [line[:2] for line in rows] == [[str(atom), "1"] for atom in range(1, 6)]
    assert np.array_equal(np.array([line[2:] for line in rows], float), pos)
    rows = [line.split() for line in text.partition("Velocities")[2].split("\n") if line]
    assert np.array_equal(np.array([line[1:] for line in rows], float), vel)


def test_bars():
    rows = [row("heat explicit numba", "limit", 0.74), row("wave order2 numba", "limit", 0.76),
            row("heat explicit numba", "one", 0.1), row("lbm d3q19 numba", "lbmpy", 0.99, ranks=1),
            row("md melt numba", "lammps", 0.49), row("nbody direct numba", "rebound", 3.99),
            row("nbody direct numba", "pytreegrav", 4.01), row("nbody tree float64 numba", "rebound", 0.5)]
    assert sims.missed(rows, {}, {}) == [
        "heat explicit numba on 2: 0.74 of limit, must be >= 0.75",
        "lbm d3q19 numba on 1: 0.99 of lbmpy, must be >= 1.0",
        "md melt numba on 2: 0.49 of lammps, must be >= 0.5",
        "nbody direct numba on 2: 3.99 of rebound, must be >= 4.0"]


def test_bars_of_the_tree():
    slow = row("nbody tree mixed numba", "pytreegrav", 5.0, 1e6 / 2.3, size=sims.MILLION)
    quick = row("nbody tree mixed numba", "pytreegrav", 5.0, 1e6 / 2.1, size=sims.MILLION)
    small = row("nbody tree float64 numba", "rebound", 5.0, 1e5, 1, size=sims.MILLION // 10)
    assert sims.missed([quick, small], {"nbody tree mixed 1000000": 9e-4, "rebound 100000": 1e-2}, {}) == []
    assert sims.missed([slow], {"nbody tree mixed 1000000": 1.1e-3}, {}) == [
        "nbody tree mixed numba: 2.30 s for the forces on 1000000 bodies, must be < 2.2 s",
        "nbody tree mixed 1000000: forces are off by 0.0011, must be < 0.001"]
    assert sims.missed([], {"nbody tree mixed 1000000": math.nan}, {})


def test_every_run_has_a_case_a_size_and_a_name_for_the_table():
    for name, run in sims.RUNS.items():
        made = run.case
        assert made.problem() is None, name
        size, work = run.size
        assert work > 0 and re.fullmatch(r"\d+( x \d+)*", str(size))
        assert re.fullmatch(r"[a-z]+ [a-z0-9]+( [a-z0-9]+)? numba", f"{run.name or name} numba")
        assert name.split()[0] == run.module
        assert set(run.ranks) <= {1, 2} and {count for _, count in run.peers} <= set(run.ranks)
        assert {peer for peer, _ in run.peers} <= set(peers.NAMES)
    assert {name for name, run in sims.RUNS.items() if run.case.problem()} == set()
    assert [sims.RUNS[f"lbm d{d}q{q}"].moved for d, q in ((2, 9), (3, 19))] == [2 * 9 * 8, 2 * 19 * 8]  # in place
    assert sims.RUNS["md melt"].size == (32000, 32000) and sims.RUNS["nbody direct"].size == (16384, 16384**2)
    assert sims.RUNS["nbody tree mixed"].size == (10**6, 10**6)


def test_every_peer_has_its_script():
    wanted = {"flow-lbmpy.py", "melt.lmp", "same.lmp"}
    for run in sims.RUNS.values():
        if run.module == "nbody":
            wanted |= {f"{run.case.method}-{peer}.py" for peer, _ in run.peers}
    assert {file.name for file in peers.FILES.iterdir()} == wanted


TINY = {
    "heat": sims.Run("heat", {"cells": (24, 24), "dt": 1e-8}),
    "md": sims.Run("md", {"cells": (4, 4, 4)}, steps=20),
    "nbody": sims.Run("nbody", {"n": 1000, "softening": 0.01, "dt": 1e-9}),
    "tree": sims.Run("nbody", {**sims.TREE, "n": 2000}),
}


@pytest.mark.mpi
@pytest.mark.parametrize("which", TINY)
def test_a_rank_measures(comm, assert_all, capsys, which):
    sims.worker(comm, TINY[which], seconds=0.02)
    told = capsys.readouterr().out.split()
    assert_all(len(told) == (comm.rank == 0) and all(float(rate) > 0 for rate in told), told)


@pytest.mark.mpi
def test_the_error_of_a_trees_forces(comm, assert_all, tmp_path_factory):
    file = comm.bcast(tmp_path_factory.mktemp("forces") / "forces.npy")
    errors = []
    for keys in ({}, {"opening": 0.3}, {"method": "direct"}):
        run = sims.Run("nbody", {**TINY["tree"].keys, **keys})
        sims.worker(comm, run, file, seconds=0.01)
        comm.Barrier()
        errors.append(sims.error(run, np.load(file)))
    errors.append(sims.error(run, 1.001 * np.load(file)))
    assert_all(1e-5 < errors[0] < 1e-2 and 3 * errors[1] < errors[0] and errors[2] < 1e-6, errors)
    assert_all(errors[3] == pytest.approx(1e-3, rel=0.01), errors)


def test_a_contest_in_turns(monkeypatch, tmp_path):
    """Rows from rates: neighbours in time, a peer's work once where two simulations are held against it."""
    calls = []
    rates = iter(range(1, 100))

    def told(*what):
        calls.append(what)
        return float(next(rates))

    monkeypatch.setattr(sims, "triad", lambda cores: 24 * told("triad"))
    monkeypatch.setattr(sims, "on_ranks", lambda ranks, name, *options: told(name, ranks))
    monkeypatch.setattr(peers, "beside", lambda run, peer, cpus, bodies: [told(peer, len(cpus)), 0.01])
    monkeypatch.setattr(sims.Contest, "_bodies", lambda self, run: run.case.n)
    names = ["heat explicit", "nbody direct", "nbody tree float64", "nbody tree mixed"]
    contest = sims.Contest(names, {"pytreegrav"}, [0, 1], tmp_path)
    contest.turn([])
    turn = [("triad",), ("heat explicit", 2), ("heat explicit", 1), ("nbody direct", 2), ("nbody direct", 1),
            ("pytreegrav", 2), ("pytreegrav", 1), ("nbody tree float64", 2), ("pytreegrav", 2), ("nbody tree mixed", 2)]
    assert calls == turn
    assert [(row["what"], row["ranks"], row["against"], row["ratio"]) for row in contest.rows()] == [
        ("heat explicit numba", 2, "limit", 2 / 1), ("heat explicit numba", 2, "one", 2 / 3),
        ("nbody direct numba", 2, "one", 4 / 5), ("nbody direct numba", 2, "pytreegrav", 4 / 6),
        ("nbody direct numba", 1, "pytreegrav", 5 / 7), ("nbody tree float64 numba", 2, "pytreegrav", 8 / 9),
        ("nbody tree mixed numba", 2, "pytreegrav", 10 / 9)]
    contest.turn([])
    assert calls == 2 * turn
    rows = contest.rows()
    assert rows[0]["value"] == (2 + 12) / 2 and set(rows[0]) == set(report.HEADINGS)
    assert contest.errors == {"pytreegrav 16384": 0.01, "pytreegrav 1000000": 0.01}


def test_a_part_of_the_table_is_not_kept(monkeypatch, capsys):
    monkeypatch.setattr(sims.os, "sched_getaffinity", lambda pid: {0, 1})
    monkeypatch.setattr(sims, "Core", lambda cpu: type("Core", (), {"close": lambda self: None})())
    monkeypatch.setattr(sims, "on_ranks", lambda ranks, name, *options: 10.0 * ranks)
    monkeypatch.setattr(sims, "triad", lambda cores: 24 * 40.0)
    monkeypatch.setattr(sims.report, "publish", lambda *rest, **more: pytest.fail("published"))
    assert sims.main(["--only", "heat explicit", "nbody direct", "--without-peers", "--repeats", "2"]) == 1
    said = capsys.readouterr()
    assert "heat explicit numba 2896 x 2896 on 2: 20 updates/s, 0.50 of limit" in said.out
    assert "nbody direct numba 16384 on 2: 20 interactions/s, 2.00 of one" in said.out
    assert said.err == "bench-sims: heat explicit numba on 2: 0.50 of limit, must be >= 0.75\n"
    with pytest.raises(SystemExit):
        sims.main(["--only", "heat"])


def test_a_peer_that_fails_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(peers, "HOME", tmp_path)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python").write_text('#!/bin/sh\necho "$OMP_NUM_THREADS $PYTHONPATH"\necho "2.5 $#"\n')
    (tmp_path / "bin/python").chmod(0o755)
    cpu = min(peers.os.sched_getaffinity(0))
    assert peers.numbers("direct-rebound", [cpu], "bodies") == [2.5, 3]
    assert peers.said(["python"], [cpu], 7).startswith("7 \n")
    (tmp_path / "bin/python").write_text("#!/bin/sh\necho no module; exit 3\n")
    with pytest.raises(Fault, match=r"direct-rebound.* failed:\nno module"):
        peers.numbers("direct-rebound", [cpu])
    assert peers.versions() == {}
    (tmp_path / "lib/python3.11/site-packages/rebound-5.2.2.dist-info").mkdir(parents=True)
    assert peers.versions() == {"rebound": "5.2.2"}
