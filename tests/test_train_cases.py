"""The cases in sims/train run whole, and what each file says must hold, holds."""

import json
import re
from pathlib import Path

import pytest

from brmpi import case
from brmpi.results import diagnostics
from brmpi.train import conv, mlp, softmax

FOLDER = Path(__file__).parent.parent / "sims/train"
PROGRAMS = {"digits-mlp": mlp.Mlp, "digits-conv": conv.Conv, "digits-local": mlp.Mlp, "wine": softmax.Softmax,
            "breast-cancer": mlp.Mlp}
RIGHT = {"digits-mlp": 0.965, "digits-conv": 0.98, "digits-local": 0.94, "wine": 33 / 36, "breast-cancer": 0.92}


def test_every_case_is_known_and_says_what_it_shows():
    assert {file.stem for file in FOLDER.glob("*.toml")} == set(PROGRAMS)
    table = (FOLDER / "README.md").read_text()
    for name, kind in PROGRAMS.items():
        text = (FOLDER / f"{name}.toml").read_text()
        assert all(f"# {word}: " in text for word in ("Shows", "Cost", "Must hold"))
        assert f"| `{name}.toml` | `python -m brmpi.train.{kind.name}` |" in table
        case.load(kind.Case, FOLDER / f"{name}.toml")


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.soak] * (name == "digits-conv"))
                                  for name in PROGRAMS])
def test_what_must_hold_holds(launch, tmp_path, name):
    done = launch(2, "-m", f"brmpi.train.{PROGRAMS[name].name}", FOLDER / f"{name}.toml", "--out", "run", timeout=110)
    assert done.returncode == 0, done.stderr
    rows = diagnostics.read(tmp_path / "run/diagnostics.h5")
    assert rows["test_accuracy"][-1] >= RIGHT[name] - 1e-9
    assert re.search(r"test +\d+\.\d+% right", done.stdout)
    if name == "breast-cancer":
        assert json.loads((tmp_path / "run/run.json").read_text())["step"] < 300 * rows["step"][1]
