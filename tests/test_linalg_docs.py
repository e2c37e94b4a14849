"""The example of docs/linalg.md runs as it stands; what the page names is there."""

import re
from pathlib import Path

import pytest

from brmpi import linalg

PAGE = Path(__file__).parent.parent / "docs/linalg.md"


@pytest.mark.parametrize("ranks", [0, 3])
def test_example_runs(launch, tmp_path, ranks):
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    (tmp_path / "example.py").write_text(code)
    done = launch(ranks, "example.py", timeout=100)
    assert done.returncode == 0, done.stderr
    largest, residual, singular = re.search(
        r"eigenvalue (\S+)\nresidual (\S+); singular values from (\S+)", done.stdout).groups()
    assert float(residual) < 1e-12
    assert float(largest) == pytest.approx(float(singular), rel=1e-5)  # the matrix is positive definite


def test_names_are_there():
    for row in re.findall(r"^\| (`.*?) \|", PAGE.read_text(), re.M):
        for name in re.findall(r"`([A-Za-z_]\w*)[`(.]", row):
            assert hasattr(linalg, name) or hasattr(linalg.BlockCyclic, name), name
    for name in linalg.__all__:
        assert getattr(linalg, name).__doc__, name
    for link in re.findall(r"\]\(([^)#:]+)\)", PAGE.read_text()):
        assert (PAGE.parent / link).exists(), link
