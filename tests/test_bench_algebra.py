"""LU and products in the lab's benchmark: what is asked, what is read, what is told; the product by itself."""

import pytest

from brmpi.bench import labalgebra, report

HPL = """T/V                N    NB     P     Q               Time                 Gflops
--------------------------------------------------------------------------------
WC20R2R8       {n:>6}   128     1     5              10.05             {rate:.4e}
--------------------------------------------------------------------------------
||Ax-b||_oo/(eps*(||A||_oo*||x||_oo+||b||_oo)*N)=      0.00146624 ...... PASSED
"""
SPEEDS = {"octavia": 10.0, "aria": 4.0, "shellfish": 20.0}


def lab(weighted, equal):
    """A lab whose nodes and whole have these speeds [GFLOP/s]."""
    asked = []

    def _ask(*words):
        asked.append(words)
        n = int(words[words.index("--n") + 1])
        rate = SPEEDS[words[3]] if "--on" in words else equal if words[-1] == "equal" else weighted
        return HPL.format(n=n, rate=rate) if "brmpi.linalg.hpl" in words else f"matmul: n = {n}, {rate} GFLOP/s\n"

    return _ask, asked


def test_rows(capsys):
    ask, asked = lab(30.0, 11.0)
    rows = labalgebra.rows(ask, list(SPEEDS), 1000, 64, 2)
    found = {(row["what"], row["against"]): row for row in rows}
    assert len(found) == len(rows) == 6
    for kind, size in (("lu", 1000), ("matmul", 750)):
        weighted = found[f"{kind} weighted blas", "equal"]
        assert (weighted["size"], weighted["ranks"], weighted["value"]) == (size, 3, 30e9)
        assert weighted["ratio"] == pytest.approx(30 / 11)
        assert found[f"{kind} weighted blas", "summed"]["ratio"] == pytest.approx(30 / 34)
        assert found[f"{kind} equal blas", "limit"]["ratio"] == pytest.approx(11 / 12)
    assert sum("--on" in words for words in asked) == 12
    assert all(words[:2] == ("brmpi", "run") for words in asked)
    assert labalgebra.wrong(rows) == []


def test_wrong():
    rows = labalgebra.rows(lab(14.0, 9.0)[0], list(SPEEDS), 1000, 64, 2)
    said = labalgebra.wrong(rows)
    assert len(said) == 6
    assert said[0] == "lu weighted blas reaches 1.56 of equal: must be >= 1.6"
    assert labalgebra.wrong([report.row("nbody equal numba", 10, 2, [1, 1], "x", "equal", [5, 5])]) == []


@pytest.mark.parametrize(("ranks", "options"), [(0, ()), (2, ("--shares", "equal", "--grid", "2x1")),
                                                (3, ("--repeats", "2"))])
def test_product(launch, ranks, options):
    done = launch(ranks, "-m", "brmpi.bench.multiply", "--n", "300", "--nb", "32", *options)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("GFLOP/s") == (2 if "--repeats" in options else 1)
    assert labalgebra.KINDS["matmul"][1].findall(done.stdout)


@pytest.mark.parametrize(("options", "said"), [
    (("--n", "0"), "--n = 0: must be >= 1"), (("--grid", "5x1"), "there are 2 ranks"),
    (("--repeats", "0"), "--repeats = 0: must be >= 1")])
def test_product_refuses(launch, options, said):
    done = launch(2, "-m", "brmpi.bench.multiply", *options)
    assert done.returncode == 2 and done.stderr.count(said) == 1
