"""The examples of docs/training.md run as they stand, and what the page links to is there."""

import importlib.util
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parent.parent / "docs/training.md"


@pytest.mark.parametrize("ranks", [0, 3])
def test_examples_run(launch, tmp_path, ranks):
    own, torch = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    (tmp_path / "own.py").write_text(own)
    done = launch(ranks, "own.py")
    assert done.returncode == 0 and done.stdout == "[1.0, -2.0, 3.0]\n", done.stderr
    if importlib.util.find_spec("torch"):
        (tmp_path / "torched.py").write_text(torch)
        done = launch(ranks, "torched.py")
        assert done.returncode == 0 and done.stdout in ("loss 0.1\n", "loss 0.2\n"), done.stdout + done.stderr


def test_commands_run(launch, tmp_path):
    done = launch(0, "-m", "brmpi.train.mlp", "--epochs", "2")
    assert done.returncode == 0, done.stderr
    done = launch(3, "-m", "brmpi.train.predict", "results/mlp-default", "digits", "--out", "answers.h5")
    assert done.returncode == 0 and (tmp_path / "answers.h5").exists(), done.stderr


def test_links_lead_somewhere():
    for link in re.findall(r"\]\(([^)#:]+)\)", PAGE.read_text()):
        assert (PAGE.parent / link).exists(), link


def test_every_method_is_in_the_table():
    from brmpi.train.allreduce import METHODS

    for method in METHODS:
        assert f"`{method}`" in PAGE.read_text()
