"""HPL's problem: its sequence, its solution and residual, the program's lines and its refusals."""

import re

import numpy as np
import pytest
from test_linalg_lu import grids

from brmpi.linalg import hplproblem
from brmpi.linalg.lu import factor
from brmpi.linalg.processgrid import ProcessGrid

LINE = re.compile(r"^W[RC]\d0R2R8 +(\d+) +(\d+) +(\d+) +(\d+) +(\d+\.\d\d) +(\d\.\d{4}e[+-]\d\d)$", re.M)
NAME = re.escape("||Ax-b||_oo/(eps*(||A||_oo*||x||_oo+||b||_oo)*N)=")
RESIDUAL = re.compile(rf"^{NAME} +(\S+) \.{{6}} (PASSED|FAILED)$", re.M)


def sequence(n):
    """HPL's numbers one after another, in the order of the columns."""
    x, found = 100, np.empty((n + 1, n))
    for at in range(n * (n + 1)):
        low, high = x & 0xFFFFFFFF, x >> 32
        found.flat[at] = 0.5 - (low / 2**31 * 0.5 + high) / 2**31 * 0.5
        x = (6364136223846793005 * x + 1) % 2**64
    return found.T


@pytest.mark.parametrize("n", [1, 2, 7, 40])
def test_elements_are_those_of_hpl(n):
    i, j = np.arange(n)[:, None], np.arange(n + 1)[None, :]
    assert np.array_equal(hplproblem.elements(n)(i, j), sequence(n))


def test_elements_far_out():
    n, steps = 10**6, 10**12 - 1
    x, multiplier, increment = 100, 6364136223846793005, 1
    while steps:  # the same jump, by whole numbers of any size
        if steps & 1:
            x = (multiplier * x + increment) % 2**64
        increment = (multiplier + 1) * increment % 2**64
        multiplier = multiplier * multiplier % 2**64
        steps >>= 1
    found = hplproblem.elements(n)(np.array([[n - 1]]), np.array([[n - 1]]))
    assert found[0, 0] == 0.5 - x / 2**64


@pytest.mark.mpi
@pytest.mark.parametrize(("n", "nb"), [(1, 4), (5, 8), (24, 8), (61, 8), (64, 16)])
def test_solution_and_residual(comm, assert_all, n, nb):
    whole = sequence(n)
    a, b = whole[:, :n], whole[:, n]
    for grid in grids(comm):
        matrix = hplproblem.generate(grid, n, nb)
        assert_all(np.array_equal(matrix.to_array(), whole))
        x = hplproblem.substitute(factor(matrix))
        scale = 2.0**-53 * (np.abs(a).sum(axis=1).max() * np.abs(x).max() + np.abs(b).max()) * n
        assert_all(np.abs(a @ x - b).max() / scale < 1)
        for wrong in (x, x * (1 + 1e-9), x + 1e-6):
            found, expected = hplproblem.residual(grid, wrong, nb), np.abs(a @ wrong - b).max() / scale
            assert_all(abs(found - expected) < 0.02 * expected + 0.1, (found, expected))
        assert_all(np.isnan(hplproblem.residual(grid, np.full(n, np.nan), nb)))


@pytest.mark.mpi
def test_nothing_to_solve(comm, assert_all):
    grid = ProcessGrid(comm)
    x = hplproblem.substitute(factor(hplproblem.generate(grid, 0, 8)))
    assert_all(len(x) == 0 and hplproblem.residual(grid, x, 8) == 0)
    grid.free()


@pytest.mark.parametrize(("ranks", "options"), [(0, ()), (2, ("--shares", "equal", "--lookahead", "1")),
                                                (3, ("--grid", "3x1")), (4, ("--grid", "2x2", "--repeats", "2"))])
def test_program(launch, ranks, options):
    done = launch(ranks, "-m", "brmpi.linalg.hpl", "--n", "300", "--nb", "32", *options)
    assert done.returncode == 0, done.stderr
    lines, residuals = LINE.findall(done.stdout), RESIDUAL.findall(done.stdout)
    assert len(lines) == len(residuals) == (2 if "--repeats" in options else 1)
    n, nb, rows, cols, _, rate = lines[0]
    assert (int(n), int(nb)) == (300, 32)
    assert int(rows) * int(cols) == max(ranks, 1)
    assert float(rate) > 0
    assert all(verdict == "PASSED" and 0 < float(found) < 1 for found, verdict in residuals)
    assert len({found for found, _ in residuals}) == 1  # the same bits each time


def test_program_of_a_size_that_time_allows(launch):
    done = launch(2, "-m", "brmpi.linalg.hpl", "--time-budget", "1s")
    assert done.returncode == 0, done.stderr
    n, nb, *_, seconds, _ = LINE.search(done.stdout).groups()
    assert int(n) >= 512
    assert int(n) % int(nb) == 0
    assert float(seconds) < 20


@pytest.mark.parametrize(("options", "said"), [
    (("--n", "0"), "--n = 0: must be >= 1"),
    (("--n", "1000000"), "so shared out these ranks hold"),
    (("--nb", "0"), "--nb = 0: must be >= 1"),
    (("--grid", "3x1", "--n", "10"), "--grid = '3x1': is a grid of 3, but there are 2 ranks"),
    (("--lookahead", "0", "--n", "10"), "--lookahead = 0: must be from 1 to 64"),
    (("--repeats", "0", "--n", "10"), "--repeats = 0: must be from 1 to 1000"),
    (("--time-budget", "soon"), "--time-budget = 'soon'"),
    (("--memory", "2"), "--memory = 2"),
    (("--shares", "fair"), "invalid choice: 'fair'")])
def test_refusals(launch, options, said):
    done = launch(2, "-m", "brmpi.linalg.hpl", *options)
    assert done.returncode == 2
    assert done.stderr.count(said) == 1
    assert "Traceback" not in done.stderr
    assert "T/V" not in done.stdout
