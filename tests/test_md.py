"""Molecular dynamics: published values of the fluid, what is conserved, ensembles, and the same bits on any ranks."""

import dataclasses
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from scipy.integrate import quad

from brmpi import case, mpi, speeds
from brmpi.errors import Fault
from brmpi.results import diagnostics, snapshots
from brmpi.sims import md

CASES = Path(__file__).parent.parent / "sims" / "md"
SMALL = {"cells": (4, 4, 4), "density": 0.8}


def simulation(comm=None, backend="numba", **keys):
    from mpi4py import MPI

    made = dataclasses.replace(md.Case(), **keys)
    assert made.problem() is None
    return md.MD(made, MPI.COMM_SELF if comm is None else comm, mpi.Timers(), backend)


def averages(run, before, steps, every=5):
    """Means of the diagnostics over some steps, after others."""
    for _ in range(before):
        run.step()
    rows = []
    for step in range(steps):
        run.step()
        if step % every == 0:
            rows.append(run.sample())
    return {name: np.mean([row[name] for row in rows]) for name in rows[0]}


def state(run):
    """Positions, velocities and energies of all atoms by id, on every rank. Collective."""
    parts = run.comm.allgather([record.piece.data for record in run.fields()["particles"][0].records.values()])
    return [np.concatenate(columns) for columns in zip(*parts)]


@pytest.fixture(scope="module")
def melt():
    """The melt after 100 steps, its first and its last diagnostics."""
    from mpi4py import MPI

    run = md.MD(case.load(md.Case, CASES / "melt.toml"), MPI.COMM_SELF, mpi.Timers(), "numba")
    first = run.sample()
    for _ in range(100):
        run.step()
    return run, first, run.sample()


def test_the_melt_is_that_of_lammps(melt):
    """What LAMMPS prints for its bench/in.lj: at the start the same, after 100 steps as far as velocities allow."""
    _, first, last = melt
    assert first["temperature"] == pytest.approx(1.44, rel=1e-14)
    assert first["potential"] == pytest.approx(-6.7733681, abs=5e-8)
    assert first["energy"] == pytest.approx(-4.6134356, abs=2e-7)
    assert first["pressure"] == pytest.approx(-5.0197073, abs=5e-8)
    for name, value, width in (("temperature", 0.7574531, 0.01), ("potential", -5.7585055, 0.015),
                               ("energy", -4.6223613, 1e-3), ("pressure", 0.20726105, 0.06)):
        assert last[name] == pytest.approx(value, abs=width)


def test_the_melt_follows_lammps_from_the_same_start(melt):
    """LAMMPS of 22 July 2025 from this case's initial state, with lists made at the same steps."""
    _, _, last = melt
    for name, value in (("temperature", 0.758888918201), ("potential", -5.760765475899), ("energy", -4.622467671516),
                        ("pressure", 0.217440484570)):
        assert last[name] == pytest.approx(value, abs=1e-8)


def test_shells_of_the_liquid(melt):
    run, _, _ = melt
    near = run.near
    i = np.repeat(np.arange(len(run.ids)), np.diff(near.starts))
    r = np.linalg.norm(run.pos[:, i] - run.pos[:, near.index], axis=0)
    counts, edges = np.histogram(r[r > 0], bins=np.arange(0, 2.5, 0.04))
    g = counts / run.n / (4 / 3 * np.pi * np.diff(edges**3) * run.n / run.volume)
    middle = (edges[1:] + edges[:-1]) / 2
    assert (g[middle < 0.85] < 0.01).all()
    assert middle[g.argmax()] == pytest.approx(1.09, abs=0.03) and 2.4 < g.max() < 3.0
    valley = (middle > 1.3) & (middle < 1.8)
    assert middle[valley][g[valley].argmin()] == pytest.approx(1.56, abs=0.08) and g[valley].min() < 0.75
    assert middle[middle > 1.8][g[middle > 1.8].argmax()] == pytest.approx(2.07, abs=0.12)


NIST = [(0.82, -5.7947, 0.55355), (0.776, -5.5121, 0.0067714), (0.009, -0.093973, 0.0071641)]


@pytest.mark.parametrize(("density", "energy", "pressure", "steps", "widths"), [
    (*NIST[0], 8000, (0.03, 0.15)),
    pytest.param(*NIST[1], 60000, (0.008, 0.05), marks=pytest.mark.soak),
    pytest.param(*NIST[2], 200000, (0.006, 1e-4), marks=[pytest.mark.soak, pytest.mark.timeout(600)]),
])
def test_energy_and_pressure_of_the_fluid(density, energy, pressure, steps, widths):
    """NIST's Standard Reference Simulation Website, Lennard-Jones fluid by Monte Carlo: T = 0.85, 500 atoms, rc = 3."""
    run = simulation(cells=(5, 5, 5), density=density, temperature=1.5, cutoff=3.0, shifted=False, tail=True,
                     thermostat="nose-hoover", target=0.85, coupling=0.2)
    found = averages(run, 1500 if density > 0.1 else 20000, steps)
    assert found["temperature"] == pytest.approx(0.85, abs=0.02)
    assert found["potential"] == pytest.approx(energy, abs=widths[0])
    assert found["pressure"] == pytest.approx(pressure, abs=widths[1])


def test_tail_is_the_integral_beyond_the_cutoff():
    density, rc = 0.8, 2.7
    def integral(f):
        return quad(lambda r: f(r) * 4 * np.pi * r**2 * density, rc, np.inf, epsabs=1e-12)[0]

    energy = integral(lambda r: 2 * (r**-12 - r**-6))
    pressure = density / 6 * integral(lambda r: 48 * (r**-12 - r**-6 / 2))
    assert md.tail(density, rc) == pytest.approx((energy, pressure), rel=1e-9)
    plain, added = (simulation(**SMALL, shifted=False, tail=tail).sample() for tail in (False, True))
    energy, pressure = md.tail(0.8, 2.5)
    assert added["potential"] - plain["potential"] == pytest.approx(energy, rel=1e-12)
    assert added["pressure"] - plain["pressure"] == pytest.approx(pressure, rel=1e-9)


def test_energy_is_conserved_to_second_order():
    errors = []
    for dt in (0.008, 0.004, 0.002):
        run = simulation(cells=(4, 4, 4), dt=dt)
        start, worst = run.sample()["energy"], 0.0
        for _ in range(round(1.2 / dt)):
            run.step()
            worst = max(worst, abs(run.sample()["energy"] - start))
        errors.append(worst)
    assert np.allclose(np.diff(np.log2(errors)), -2, atol=0.15), errors
    assert errors[-1] < 3e-4


def test_momentum_stays_nothing_and_time_runs_backwards():
    run = simulation(**SMALL)
    start = run.waiting[1].T.copy()
    for _ in range(60):
        run.step()
    assert abs(run.vel.sum(axis=1)).max() < 1e-12 * abs(run.vel).sum()
    run.vel *= -1
    for _ in range(60):
        run.step()
    back = state(run)[0] - start
    back -= run.edges * np.rint(back / run.edges)
    assert abs(back).max() < 1e-9


def test_when_lists_are_made_changes_nothing_but_rounding():
    places = []
    for rebuild in (0, 1, 5):
        run = simulation(**SMALL, rebuild=rebuild)
        for _ in range(40):
            run.step()
        places.append(state(run)[0])
    for other in places[1:]:
        off = other - places[0]
        assert abs(off - run.edges * np.rint(off / run.edges)).max() < 1e-10


def test_the_chain_of_thermostats_gives_the_canonical_ensemble():
    """The variance of the temperature is 2 T^2 / freedom; and the extended energy is conserved."""
    run = simulation(cells=(3, 3, 3), density=0.5, cutoff=2.0, temperature=1.5, thermostat="nose-hoover", target=1.2,
                     coupling=0.2)
    for _ in range(500):
        run.step()
    temperatures, extended = [], []
    for step in range(12000):
        run.step()
        temperatures.append(run.clock[1] / run.freedom)
        if step % 100 == 0:
            extended.append(run.sample()["extended"])
    assert np.mean(temperatures) == pytest.approx(1.2, abs=0.02)
    assert np.var(temperatures) * run.freedom / 2 / 1.2**2 == pytest.approx(1, abs=0.25)
    assert np.ptp(extended) < 0.01
    assert abs(run.sample()["energy"] - extended[-1]) > 0.01  # the chain does hold some


def test_berendsen_relaxes_exponentially():
    run = simulation(cells=(5, 5, 5), density=0.005, temperature=2.0, thermostat="berendsen", target=1.0, coupling=0.5)
    for step in range(1, 201):
        run.step()
        if step % 20 == 0:
            excess = run.sample()["temperature"] - 1
            assert excess == pytest.approx(math.exp(-step * 0.005 / 0.5), rel=0.02)


def test_initial_states():
    run = simulation(cells=(3, 4, 5), density=0.9, cutoff=2.0, temperature=0.7)
    pos, vel, _ = state(run)
    assert run.n == 240 and run.sample()["temperature"] == pytest.approx(0.7, rel=1e-13)
    assert abs(vel.sum(axis=0)).max() < 1e-12
    nearest = (4 / 0.9) ** (1 / 3) / math.sqrt(2)
    d = pos[:, None] - pos
    r = np.linalg.norm(d - run.edges * np.rint(d / run.edges), axis=2)
    assert ((r < nearest * 1.001).sum(axis=1) == 13).all() and (r[r > 0] > nearest * 0.999).all()
    thin = md.sites(dataclasses.replace(md.Case(), fill=0.25))
    whole = md.sites(md.Case())
    assert len(thin) == len(whole) / 4 and {*map(tuple, thin)} < {*map(tuple, whole)}
    ball = md.sites(dataclasses.replace(md.Case(), form="ball", box=(40.0, 30.0, 30.0)))
    radius = np.linalg.norm(ball - [20, 15, 15], axis=1)
    assert radius.max() <= md.Case().lattice[0] / 2 + 1e-9
    assert len(ball) == pytest.approx(len(whole) * np.pi / 6, rel=0.03)


def test_numpy_agrees_with_numba():
    runs = [simulation(cells=(3, 3, 3), backend=backend, cutoff=2.0, thermostat="nose-hoover") for backend in
            ("numba", "numpy")]
    for _ in range(10):
        for run in runs:
            run.step()
    (pos, vel, energy), (other, others, energies) = map(state, runs)
    assert np.allclose(pos, other, atol=1e-12) and np.allclose(vel, others, atol=1e-11)
    assert np.allclose(energy, energies, atol=1e-11)


# ---- ranks ---------------------------------------------------------------------------------------------------------

KINDS = [
    {"cells": (4, 5, 4)},
    {"cells": (4, 4, 5), "thermostat": "nose-hoover", "fill": 0.7, "rebuild": 3},
    {"cells": (3, 3, 3), "box": (16.0, 9.0, 7.0), "form": "ball", "thermostat": "berendsen"},
    {"cells": (1, 1, 1), "box": (9.0, 6.0, 7.0)},
    {"cells": (1, 1, 1), "box": (9.0, 6.0, 7.0), "fill": 0.25, "thermostat": "nose-hoover"},
    {"cells": (1, 1, 1), "box": (9.0, 6.0, 7.0), "fill": 0.0, "thermostat": "berendsen"},
]


def moved(run, to):
    """Share a run out anew, with what a checkpoint holds, as a balancer would."""
    held = {name: [(piece.offset, piece.data) for piece in run.comm.allgather(piece)]
            for name, piece in run.arrays().items()}
    shapes = {name: piece.shape for name, piece in run.arrays().items()}
    run.lay_out(to)
    arrays = {}
    for name, parts in held.items():
        whole = np.zeros(shapes[name])
        for offset, data in parts:
            whole[tuple(slice(o, o + n) for o, n in zip(offset, data.shape))] = data
        offset, shape = run.block(name, shapes[name])
        arrays[name] = whole[tuple(slice(o, o + n) for o, n in zip(offset, shape))]
    run.restore(arrays)


@pytest.mark.mpi
@pytest.mark.parametrize("keys", KINDS, ids=str)
def test_any_ranks_and_shares_give_the_same_bits(comm, assert_all, monkeypatch, keys):
    alone = simulation(**keys)
    together = [simulation(comm, **keys)]
    uneven = np.random.default_rng(1).uniform(0.2, 3, comm.size)
    monkeypatch.setattr(speeds, "measured", lambda comm, kind: (uneven, kind))
    together += [simulation(comm, **keys), simulation(comm, **keys)]
    for step in range(25):
        for run in (alone, *together):
            run.step()
        if step in (3, 13):
            moved(together[2], np.random.default_rng(step).uniform(0.2, 3, comm.size))
    expected, whole = alone.sample(), state(alone)
    for run in together:
        assert_all(run.sample() == expected, f"{run.sample()} {expected}")
        assert_all([one.tobytes() for one in state(run)] == [one.tobytes() for one in whole])
    assert_all(sum(comm.allgather(len(run.ids))) == alone.n)


@pytest.mark.mpi
@pytest.mark.parametrize(("rebuild", "value", "words"), [(0, np.nan, "is not finite"), (4, 1e7, "is lost"),
                                                         (0, 1e4, "is lost")])
def test_a_lost_atom_is_named_on_every_rank(comm, assert_all, rebuild, value, words):
    run = simulation(comm, **SMALL, rebuild=rebuild)
    for _ in range(2):
        run.step()
    run.vel[0, run.ids == 77] = value
    message = ""
    try:
        for _ in range(6):
            run.step()
    except Fault as fault:
        message = str(fault)
    assert_all(f"step {4 if rebuild else 3}: atom 77 at (" in message and words in message, message)


def outcome(tmp_path, name, step):
    """What a run left: the bytes of a snapshot and a checkpoint, and the diagnostics without the clock."""
    rows = diagnostics.read(tmp_path / name / "diagnostics.h5")
    return ((tmp_path / name / f"snapshots/md_{step:08d}.h5").read_bytes(),
            (tmp_path / name / f"checkpoints/md_{step:08d}.h5").read_bytes(),
            {key: values.tolist() for key, values in rows.items() if not key.startswith("wall/")})


def test_files_and_restarts_are_the_same_bits_on_any_ranks(launch, tmp_path):
    keys = [word for key in ("cells=[5,4,4]", "thermostat=nose-hoover", "sample=3", "every=20")
            for word in ("--set", key)]
    program = "-m", "brmpi.sims.md", "--quiet", *keys, "--out"
    for ranks, name in ((1, "one"), (5, "five")):
        done = launch(ranks, *program, name, "--steps", 40)
        assert done.returncode == 0, done.stderr
    assert outcome(tmp_path, "five", 40) == outcome(tmp_path, "one", 40)
    for ranks, steps, more in ((3, 17, ()), (2, 40, ("--restart",))):
        done = launch(ranks, *program, "cut", "--steps", steps, *more)
        assert done.returncode == 0, done.stderr
    assert outcome(tmp_path, "cut", 40) == outcome(tmp_path, "one", 40)


# ---- people --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("keys", "words"), [
    ({"cells": (2, 4, 4)}, "cutoff = 2.5: must be <= 1.68, half the box's shortest edge"),
    ({"cells": (0, 4, 4)}, "must be >= 1 where box is 0"),
    ({"skin": 4.0}, "skin = 4: must be <="),
    ({"box": (5.0, 0.0, 0.0)}, "must be >= 13.4368 for the lattice's cells"),
    ({"dt": 0.03}, "dt = 0.03: must be <= 0.0241: at a temperature of 1.44"),
    ({"thermostat": "berendsen", "coupling": 0.004}, "coupling = 0.004: must be >= 0.005"),
    ({"thermostat": "nose-hoover", "coupling": 0.04}, "coupling = 0.04: must be >= 0.05"),
    ({"tail": True}, "tail = true: needs shifted = false"),
    ({"cells": (90000, 90000, 90000)}, "GB here"),
])
def test_cases_that_contradict_themselves(keys, words):
    assert words in dataclasses.replace(md.Case(), **keys).problem()


def test_bad_input_and_help(launch):
    refused = launch(0, "-m", "brmpi.sims.md", "--set", "dt=0.1")
    assert refused.returncode == 2 and "--set: dt = 0.1: must be <= 0.0241" in refused.stderr
    told = launch(0, "-m", "brmpi.sims.md", "--help").stdout
    assert "cutoff" in told and "epsilon/k" in told and "steps between new lists" in told


@pytest.mark.parametrize("file", sorted(CASES.glob("*.toml")), ids=lambda file: file.stem)
def test_cases_load(file):
    assert case.load(md.Case, file).steps > 0 and file.read_text().startswith("# ")


def test_plot_draws_atoms(launch, tmp_path):
    pytest.importorskip("matplotlib")
    from brmpi.results import atoms

    done = launch(0, "-m", "brmpi.sims.md", "--set", "box=[20.0,0,0]", "--set", "cells=[4,4,4]", "--steps", 20,
                  "--set", "every=10", "--out", "run")
    assert done.returncode == 0 and "atom-steps/s" in done.stdout, done.stderr
    species = snapshots.read(tmp_path / "run/snapshots/md_00000020.h5").particles["atoms"]
    slab = atoms.slab(species)
    pos, energy = np.asarray(species["position"]), np.asarray(species["energy"])
    inside = abs(pos[:, 2] - slab.edges[1] / 2) <= atoms.SLAB * atoms.DIAMETER / 2
    assert slab.names == "xy" and sorted(slab.values) == sorted(energy[inside]) and 0 < inside.sum() < 256
    assert {*map(tuple, slab.places)} == {*map(tuple, pos[inside][:, :2])}
    drawn = launch(0, "-m", "brmpi", "plot", "run", "--movie")
    assert drawn.returncode == 0, drawn.stderr
    assert {path.name for path in (tmp_path / "run").glob("*.*g*")} >= {"atoms.png", "diagnostics.png", "movie.gif"}


def test_slabs_lie_across_the_shortest_edge():
    from brmpi.results import atoms
    from brmpi.results.pieces import Piece
    from brmpi.results.snapshots import Particles, Record

    for box, names in (((5.0, 5.0, 5.0), "xy"), ((9.0, 4.0, 5.0), "xz"), ((3.0, 4.0, 5.0), "yz")):
        grid = np.array(list(itertools.product(*(np.arange(0.5, edge) for edge in box))))
        records = {name: Record(Piece(grid, (0, 0), grid.shape)) for name in ("position", "velocity")}
        slab = atoms.slab(Particles("atoms", len(grid), records, {"box": list(box)}))
        assert slab.names == names and "speed" in slab.label and 0 < len(slab.places) < len(grid)
