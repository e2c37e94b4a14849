"""Cases: where a value comes from, and one clear sentence for each mistake."""

from dataclasses import dataclass

import pytest

from brmpi import case
from brmpi.case import key
from brmpi.errors import BadInput


@dataclass(frozen=True)
class Row:
    mass: float = key(0.0, "mass", at_least=0)
    at: tuple[float, float] = key((0.0, 0.0), "place")


@dataclass(frozen=True)
class Example(case.Case):
    scheme: str = key("euler", "how", choices=("euler", "heun"))
    open: bool = key(False, "whether")
    rows: tuple[Row, ...] = key((), "a table each")

    def problem(self):
        return "scheme = heun: needs dt < 1" if self.scheme == "heun" and self.dt >= 1 else None


def written(tmp_path, text):
    file = tmp_path / "x.toml"
    file.write_text(text)
    return file


def test_overrides_beat_the_file_and_the_file_beats_defaults(tmp_path):
    file = written(tmp_path, "dt = 1\nsteps = 5\nopen = true\n[[rows]]\nmass = 2\nat = [1, 2.5]\n")
    made = case.load(Example, file, [("steps", "7"), ("scheme", "euler"), ("seed", "18446744073709551615")])
    assert (made.dt, made.steps, made.seed, made.open, made.every) == (1.0, 7, 2**64 - 1, True, 0)
    assert isinstance(made.dt, float) and made.rows == (Row(2.0, (1.0, 2.5)),)


MISTAKES = [
    ("stepz = 5", "unknown key 'stepz': did you mean 'steps'?"),
    ("qqqqqq = 5", "unknown key 'qqqqqq': known are steps, dt"),
    ("dt = -0.1", "dt = -0.1: must be > 0"),
    ("dt = 0", "dt = 0: must be > 0"),
    ("dt = nan", "dt = nan: must be finite"),
    ("dt = inf", "dt = inf: must be finite"),
    ('dt = "fast"', "dt = 'fast': must be a number"),
    ("dt = true", "dt = true: must be a number"),
    ("steps = 1.5", "steps = 1.5: must be a whole number"),
    ("steps = true", "steps = true: must be a whole number"),
    ("steps = -1", "steps = -1: must be >= 0"),
    (f"seed = {2**64}", f"seed = {2**64}: must be <= {2**64 - 1}"),
    ("scheme = 'rk4'", "scheme = 'rk4': must be one of euler, heun"),
    ("scheme = 4", "scheme = 4: must be a text"),
    ("open = 1", "open = 1: must be true or false"),
    ("rows = 4", "rows = 4: must be a list"),
    ("rows = [4]", "rows[0] = 4: must be a table"),
    ("[[rows]]\n[[rows]]\nmass = -1.0", "rows[1]: mass = -1.0: must be >= 0"),
    ("[[rows]]\nat = [1, nan]", "rows[0]: at[1] = nan: must be finite"),
    ("[[rows]]\nat = [1, 2, 3]", "rows[0]: at has 3 values: must have 2"),
    ("[[rows]]\nmas = 1", "rows[0]: unknown key 'mas': did you mean 'mass'?"),
    ("dt = 2.0\nscheme = 'heun'", "scheme = heun: needs dt < 1"),
    ("dt = = 2", "not a TOML file"),
]


def test_one_number_will_do_for_a_list_of_any_length():
    @dataclass(frozen=True)
    class Some:
        volatility: tuple[float, ...] = key((0.2,), "of each", above=0)

    assert case.load(Some, None, [("volatility", "0.3")]).volatility == (0.3,)
    with pytest.raises(BadInput, match=r"volatility\[0\] = -1: must be > 0"):
        case.load(Some, None, [("volatility", "-1")])


@pytest.mark.parametrize(("text", "sentence"), MISTAKES)
def test_mistakes_name_file_key_value_and_limit(tmp_path, text, sentence):
    file = written(tmp_path, text)
    with pytest.raises(BadInput) as told:
        case.load(Example, file)
    assert str(told.value).startswith(f"{file}: {sentence}")


@pytest.mark.parametrize(("pair", "sentence"), [
    (("dt", "-1"), "--set: dt = -1: must be > 0"), (("dt", "quick"), "--set: dt = 'quick': must be a number"),
    (("stepz", "1"), "--set: unknown key 'stepz'"), (("steps", "1e3"), "--set: steps = 1000.0: must be a whole number"),
])
def test_mistakes_on_the_command_line(pair, sentence):
    with pytest.raises(BadInput) as told:
        case.load(Example, None, [pair])
    assert str(told.value).startswith(sentence)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(BadInput, match="No such file"):
        case.load(Example, tmp_path / "none.toml")
    with pytest.raises(BadInput, match="Is a directory"):
        case.load(Example, tmp_path)
    file = tmp_path / "binary.toml"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match="not a TOML file"):
        case.load(Example, file)


def test_help_tells_every_key_with_default_unit_and_meaning():
    text = case.described(Example)
    assert all(name in text for name in ("steps", "dt", "scheme", "(euler, heun)", "keys of [[rows]]", "mass"))
    assert "time step" in text and "false" in text
