"""The N-body physics: orders of convergence, conserved quantities, known orbits, and equality over ranks."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from brmpi import case, mpi, speeds
from brmpi.sims import nbody

CASES = Path(__file__).parent.parent / "sims" / "nbody"
KEPLER = (nbody.Body("heavy", 1.0, (0.0, 0.0, 0.0), (0.0, -0.1 * 1.2 / 1.1, 0.0)),
          nbody.Body("light", 0.1, (1.0, 0.0, 0.0), (0.0, 1.2 / 1.1, 0.0)))  # from the pericentre, e about 0.3


def simulation(comm, backend="numba", **keys):
    keys = {"softening": 0.0, **keys}
    return nbody.NBody(dataclasses.replace(nbody.Case(), **keys), comm, mpi.Timers(), backend)


def energy_error(comm, integrator, steps):
    """Largest relative energy error over three units of time."""
    run = simulation(comm, model="bodies", bodies=KEPLER, integrator=integrator, dt=3.0 / steps)
    start = run.sample()["energy"]
    worst = 0.0
    for _ in range(steps):
        run.step()
        worst = max(worst, abs(run.sample()["energy"] / start - 1))
    return worst


@pytest.mark.mpi
@pytest.mark.parametrize(("integrator", "order", "steps"), [("leapfrog", 2, 300), ("forest-ruth", 4, 150)])
def test_order_of_convergence(comm, assert_all, integrator, order, steps):
    errors = [energy_error(comm, integrator, steps * factor) for factor in (1, 2, 4)]
    slopes = np.diff(np.log2(errors)) * -1
    assert_all(np.all(np.abs(slopes - order) < 0.1), f"slopes {slopes}")


@pytest.mark.mpi
@pytest.mark.parametrize("integrator", nbody.INTEGRATORS)
def test_time_runs_backwards_too(comm, assert_all, integrator):
    run = simulation(comm, n=600, integrator=integrator, softening=0.05, dt=0.01)
    start = run.state.pos.copy()
    for _ in range(5):
        run.step()
    moved = np.abs(run.state.pos - start).max(initial=0)
    run.state.vel *= -1
    for _ in range(5):
        run.step()
    assert_all(np.allclose(run.state.pos, start, rtol=0, atol=1e-13) and (moved > 1e-3 or not len(start)))


@pytest.mark.mpi
@pytest.mark.parametrize("integrator", nbody.INTEGRATORS)
def test_momentum_and_energy_are_conserved(comm, assert_all, integrator):
    run = simulation(comm, n=900, integrator=integrator, softening=0.05, dt=0.002)
    first = run.sample()
    for _ in range(20):
        run.step()
    last = run.sample()
    for name in ("momentum_x", "angular_momentum_z", "centre_y"):
        assert_all(abs(last[name] - first[name]) < 1e-15 + 1e-13, f"{name}: {first[name]} to {last[name]}")
    assert_all(abs(last["energy"] / first["energy"] - 1) < 1e-5 and last["energy"] != first["energy"])


@pytest.mark.mpi
def test_two_bodies_follow_keplers_orbit(comm, assert_all):
    total, speed = 1.1, 1.2
    a = 1 / (2 - speed**2 / total)  # vis viva with the relative speed
    period = 2 * np.pi * np.sqrt(a**3 / total)
    heavy = dataclasses.replace(KEPLER[0], velocity=(0.0, -speed * 0.1 / 1.1, 0.0))
    light = dataclasses.replace(KEPLER[1], velocity=(0.0, speed * 1.0 / 1.1, 0.0))
    run = simulation(comm, model="bodies", bodies=(heavy, light), integrator="forest-ruth", dt=period / 4000)
    start = run.state.pos.copy()
    far = 0.0
    for _ in range(4000):
        run.step()
        if len(start):
            far = max(far, np.linalg.norm(run.state.pos[1] - run.state.pos[0]))
    assert_all(np.allclose(run.state.pos, start, rtol=0, atol=1e-8))
    assert_all(not len(start) or abs(far - (2 * a - 1)) < 1e-6, f"apocentre {far}")


@pytest.mark.mpi
@pytest.mark.parametrize("name", ["figure-eight"])
def test_the_figure_eight_returns(comm, assert_all, name):
    made = case.load(nbody.Case, CASES / f"{name}.toml")
    run = nbody.NBody(made, comm, mpi.Timers(), "numba")
    start = run.state.pos.copy()
    for _ in range(made.steps):
        run.step()
    assert_all(abs(made.steps * made.dt - 6.32591398) < 1e-7)
    assert_all(np.allclose(run.state.pos, start, rtol=0, atol=1e-6), np.abs(run.state.pos - start).max(initial=0))


@pytest.mark.mpi
@pytest.mark.parametrize("keys", [
    {"n": 1500}, {"n": 1500, "precision": "mixed"}, {"n": 1500, "integrator": "forest-ruth", "softening": 0.0},
    {"n": 5000}, {"n": 513}, {"n": 2}, {"n": 1}, {"n": 0},
], ids=str)
@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_any_ranks_and_shares_give_the_same_bits(comm, assert_all, monkeypatch, keys, backend):
    from mpi4py import MPI

    keys = {"softening": 0.02, **keys}
    if backend == "numpy" and keys["n"] > 1500:
        pytest.skip("slow")
    monkeypatch.setattr(nbody, "LEAST", 1)  # so that few bodies are shared out too
    alone = simulation(MPI.COMM_SELF, backend, **keys)
    together = [simulation(comm, backend, **keys)]
    for trial in range(2):
        uneven = np.random.default_rng(trial).uniform(0.1, 3, comm.size) ** 2
        monkeypatch.setattr(speeds, "measured", lambda comm, kind, uneven=uneven: (uneven, kind))
        together.append(simulation(comm, backend, **keys))
        if comm.size > 1 and keys["n"] > 500:
            assert_all(len(set(together[-1].counts)) > 1)
    for _ in range(2):
        alone.step()
    expected = alone.sample()
    for run in together:
        for _ in range(2):
            run.step()
        found = run.sample()
        assert_all(run.state.pos.tobytes() == alone.state.pos[run.rows].tobytes(), "positions")
        assert_all(run.state.vel.tobytes() == alone.state.vel[run.rows].tobytes(), "velocities")
        assert_all(found == expected, f"{found} {expected}")


@pytest.mark.mpi
def test_diagnostics_against_their_definitions(comm, assert_all):
    run = simulation(comm, n=700, softening=0.1)
    pos, vel, mass = nbody.initial(run.case)
    found = run.sample()
    r = np.sqrt(((pos[:, None] - pos[None]) ** 2).sum(axis=-1) + 0.01)
    pair = np.triu(mass[:, None] * mass / r, 1).sum()
    kinetic = (mass * (vel**2).sum(axis=1)).sum() / 2
    spin = (mass[:, None] * np.cross(pos, vel)).sum(axis=0)
    assert_all(np.isclose(found["potential"], -pair, rtol=1e-12) and np.isclose(found["kinetic"], kinetic, rtol=1e-12))
    assert_all(np.isclose(found["energy"], kinetic - pair, rtol=1e-12))
    assert_all(np.isclose(found["virial_ratio"], 2 * kinetic / pair, rtol=1e-12))
    assert_all(np.allclose([found[f"angular_momentum_{axis}"] for axis in "xyz"], spin, rtol=1e-12))


@pytest.mark.mpi
def test_few_bodies_go_to_the_fastest_ranks():
    assert nbody.shares(11, np.array([1.0, 3.0, 2.0])).tolist() == [0, 11, 0]
    assert nbody.shares(2 * nbody.LEAST, np.array([1.0, 3.0, 3.0])).tolist() == [0, nbody.LEAST, nbody.LEAST]
    assert nbody.shares(0, np.ones(3)).tolist() == [0, 0, 0]
    assert nbody.shares(10 * nbody.LEAST, np.array([1.0, 3.0, 1.0])).tolist() == [512, 1536, 512]


def test_cases_that_contradict_themselves():
    for keys, what in (({"model": "bodies"}, "is missing"), ({"bodies": KEPLER}, "needs model = bodies"),
                       ({"model": "galaxies"}, "is missing"),
                       ({"galaxies": (nbody.Galaxy(),)}, "needs model = galaxies"),
                       ({"model": "galaxies", "galaxies": (nbody.Galaxy(fraction=0.0),)}, "fraction must be > 0")):
        assert what in dataclasses.replace(nbody.Case(), **keys).problem()
    assert nbody.Case().problem() is None
