"""Shares anew from measured times: who is slower gets less, the answer stays; where a run blew up."""

import json
import time
from types import SimpleNamespace

import numpy as np
import pytest

from brmpi import balance, grid, mpi, program
from brmpi.results import checkpoints, diagnostics, pieces
from brmpi.sims import heat, ising, lbm, nbody, shallow, wave

CASES = {
    "heat": (heat.Heat, {"cells": (48, 20), "material": "inclusion", "dt": 1e-6}),
    "heat3d": (heat.Heat, {"cells": (9, 7, 5), "size": (1.0,) * 3, "ends": ("neumann",) * 3, "waves": (1, 1, 1)}),
    "wave": (wave.Wave, {"cells": (30, 40), "order": 4, "ends": ("sponge", "reflecting")}),
    "lbm": (lbm.LBM, {"flow": "cavity", "cells": (17, 19)}),
    "ising": (ising.Ising, {"cells": (20, 24)}),
    "clusters": (ising.Ising, {"cells": (20, 24), "algorithm": "swendsen-wang"}),
    "shallow": (shallow.Shallow, {}),
    "nbody": (nbody.NBody, {"n": 700}),
    "tree": (nbody.NBody, {"n": 700, "method": "tree"}),
}


def whole(run):
    """The state, all of it on every rank."""
    found = {}
    for name, piece in run.arrays().items():
        found[name] = np.zeros(piece.shape, piece.data.dtype)
        for offset, data in run.comm.allgather((piece.offset, piece.data)):
            found[name][tuple(slice(o, o + n) for o, n in zip(offset, data.shape))] = data
    return found


@pytest.mark.mpi
@pytest.mark.parametrize("name", CASES)
def test_other_shares_on_the_way_give_the_same_bits(comm, assert_all, name):
    kind, keys = CASES[name]
    still, moving = (kind(kind.Case(**keys), comm, mpi.Timers(), "numba") for _ in range(2))
    rng = np.random.default_rng(7)
    for _ in range(4):
        for run in (still, moving):
            run.step()
        if moving.busy:
            balance.move(moving, rng.uniform(0.1, 3, comm.size))
    moving.step()
    still.step()
    expected, found = whole(still), whole(moving)
    for key in expected:
        assert_all(np.array_equal(found[key], expected[key]), key)
    assert_all(moving.sample() == still.sample())


@pytest.mark.mpi
@pytest.mark.parametrize("shape", [(50,), (17, 9), (8, 7, 6), (2, 3), (0, 4)])
def test_blocks_come_from_pieces(comm, assert_all, shape):
    rng = np.random.default_rng(3)
    full = rng.normal(size=(2, *shape))
    before = grid.Grid(comm, shape, 1, True, rng.uniform(0.1, 3, comm.size))
    for axes in range(1, len(shape) + 1):
        after = grid.Grid(comm, shape, 2, False, rng.uniform(0.1, 3, comm.size), axes)
        mine = tuple(slice(*ends) for ends in before.box)
        piece = pieces.Piece(full[(slice(None), *mine)].copy(), (0, *(first for first, _ in before.box)), full.shape)
        block = pieces.moved(comm, piece, (0, *(first for first, _ in after.box)), (2, *after.sides))
        assert_all(np.array_equal(block, full[(slice(None), *(slice(*ends) for ends in after.box))]), axes)
    everywhere = pieces.moved(comm, piece, (0,) * full.ndim, full.shape)  # blocks that overlap
    assert_all(np.array_equal(everywhere, full))


def test_speeds_follow_times():
    speeds = np.array([2.0, 1.0, 1.0, 3.0])
    spent = np.array([1.0, 2.0, 0.5, 0.0])  # the last had nothing to do
    found = balance.adapted(speeds, spent)
    assert found[3] == 3 and found[:3].sum() == pytest.approx(4)
    assert np.ptp((found / speeds * spent)[:3]) < 1e-12  # each would take as long
    assert balance.adapted(np.ones(2), np.array([1e-9, 1.0]))[0] < 2  # not all at once
    assert balance.different(np.array([1.0, 1.2])) and not balance.different(np.array([1.0, 1.05]))
    assert not balance.different(np.array([1.0, 0.0])) and not balance.different(np.zeros(3))


class Slow(heat.Heat):
    """Heat, on whose last rank a cell takes much longer."""

    def _update(self, u, out, k, rows, c):
        super()._update(u, out, k, rows, c)
        if self.comm.rank == self.comm.size - 1:
            time.sleep(2e-5 * len(range(self.grid.sides[0])[rows]))


ARGUMENTS = ["--set", "cells=[16, 400]", "--set", "dt=1e-7", "--set", "checkpoint=1000", "--quiet"]


@pytest.mark.mpi
def test_a_slow_rank_gets_less(comm, assert_all, mpi_tmp_path):
    for name, keys in (("measured", []), ("static", ["--set", "balance=static"])):
        out = str(mpi_tmp_path / name)
        assert program.run(Slow, comm, [*ARGUMENTS, *keys, "--steps", "300", "--out", out]) == 0
    comm.Barrier()
    told = {name: json.loads((mpi_tmp_path / name / "run.json").read_text()) for name in ("measured", "static")}
    assert_all("balanced" not in told["static"])
    if comm.size == 1:
        assert_all("balanced" not in told["measured"])
        return
    changes = told["measured"]["balanced"]
    shares = told["measured"]["shares"]
    assert_all(changes and shares[-1] < 0.7 * shares[0] and sum(shares) == 16 * 400, f"{changes} {shares}")
    last = [checkpoints.path(mpi_tmp_path / name, "heat", 300).read_bytes() for name in told]
    assert_all(last[0] == last[1])
    rows = [diagnostics.read(mpi_tmp_path / name / "diagnostics.h5") for name in told]
    assert_all(all(np.array_equal(rows[0][key], rows[1][key]) for key in rows[0] if not key.startswith("wall/")))


def test_shares_change_only_where_one_rank_is_the_slowest_again_and_again(monkeypatch):
    """With two ranks' times put in by hand."""
    moves = []
    monkeypatch.setattr(balance, "move", lambda run, speeds: moves.append(speeds))
    now = {}

    class Comm:
        size, rank = 2, 0

        def Allgather(self, mine, spent):
            spent[0], spent[1] = mine, now["other"]

    timers = mpi.Timers()
    timers.seconds["update"] = 0.0
    run = SimpleNamespace(comm=Comm(), timers=timers, busy=("update",), speeds=np.ones(2),
                          case=SimpleNamespace(shares="speed", balance="measured"))
    watch = balance.Balance(run)
    for look in range(40):  # now the one, now the other
        timers.seconds["update"] += 1.0
        now["other"] = np.array([0.5 if look % 2 else 2.0, look + 1.0])
        assert not watch(look)
    for look in range(5):
        timers.seconds["update"] += 1.0
        now["other"] = np.array([2.0, 2.0 * (look + 1)])
        if watch(look):
            break
    assert len(moves) == 1 and look == balance.LOOKS and moves[0][1] < moves[0][0]
    assert watch.changes[0]["step"] == look and watch.looks == 2 * balance.LOOKS
    run.case.balance = "static"
    assert not balance.Balance(run).on


class Explodes(heat.Heat):
    """Heat that becomes infinite in one cell in its step 37."""

    steps = 0

    def step(self):
        """Advance."""
        super().step()
        self.steps += 1
        if np.isclose(self.clock[0], 36):
            self.u[1, 1] = np.inf
        self.clock += 1

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.clock = np.zeros(1)

    def arrays(self):
        """The state, and the step."""
        root = self.comm.rank == 0
        return super().arrays() | {"clock": pieces.rows(self.clock if root else self.clock[:0], 0 if root else 1, 1)}

    def block(self, name, shape):
        """Where a block is."""
        return ((0,), (1,)) if name == "clock" else super().block(name, shape)

    def restore(self, arrays):
        """Take over a state."""
        super().restore(arrays)
        self.clock = arrays["clock"].copy()


@pytest.mark.mpi
@pytest.mark.parametrize("period", [1000, 0])
def test_a_run_that_blows_up_names_the_step_and_keeps_the_state_before(comm, assert_all, mpi_tmp_path, period):
    """Found at step 50, where a row is due, or at the next checkpoint; run again from the start, or from there."""
    out = mpi_tmp_path / f"run{period}"
    words = ["--steps", "60", "--set", "sample=50", "--set", "cells=[12, 14]", "--set", f"checkpoint={period}",
             "--quiet", "--out", str(out)]
    with pytest.raises(program.Fault, match=r"step 37: .*the last good state, of step 36, is in its checkpoints"):
        program.run(Explodes, comm, words)
    comm.Barrier()
    status = json.loads((out / "run.json").read_text())
    assert_all(status["status"].startswith("failed: step 37: ") and status["step"] == 36, status["status"])
    assert_all(max(checkpoints.steps(out, "heat")) == 36)
    good = mpi_tmp_path / f"good{period}"
    assert program.run(Explodes, comm, [*words[:-1], str(good), "--steps", "36"]) == 0
    comm.Barrier()
    last = [checkpoints.path(folder, "heat", 36).read_bytes() for folder in (out, good)]
    assert_all(last[0] == last[1])
