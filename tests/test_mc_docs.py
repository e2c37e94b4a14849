"""The examples of docs/montecarlo.md run as they stand, and what the page links to is there."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parent.parent / "docs/montecarlo.md"
VOLUME = 8 * 3.141592653589793**2 / 15  # of the ball in five dimensions


@pytest.mark.parametrize("ranks", [0, 3])
def test_examples_run(launch, tmp_path, ranks):
    estimator, pool = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    (tmp_path / "estimator.py").write_text(estimator)
    (tmp_path / "pool.py").write_text(pool)
    done = launch(ranks, "estimator.py")
    assert done.returncode == 0, done.stderr
    value, error = re.fullmatch(r"volume (\S+) ± (\S+)\n", done.stdout).groups()
    assert abs(float(value) - VOLUME) < 4 * float(error)
    done = launch(ranks, "pool.py")
    assert done.returncode == 0 and done.stdout == "307\n111\n", done.stderr


def test_links_lead_somewhere():
    for link in re.findall(r"\]\(([^)#:]+)\)", PAGE.read_text()):
        assert (PAGE.parent / link).exists(), link
