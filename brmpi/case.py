"""A case: what a program is to compute, as a dataclass with checked keys, from defaults, a TOML file and ``--set``.

Each key is one line: ``dt: float = key(0.01, "time step", "time", above=0)``.
"""

import dataclasses
import difflib
import math
import tomllib
import typing
from pathlib import Path

from brmpi.errors import BadInput


def key(default, meaning, unit="", *, above=None, at_least=None, at_most=None, choices=None, free=False):
    """A case's key: default, meaning and limits.

    Parameters
    ----------
    default : the value where nobody gives one; a tuple, or a callable that makes it
    meaning : str, for ``--help``
    unit : str, for ``--help``
    above, at_least, at_most : numbers, limits of the value (of each number in a tuple)
    choices : tuple of str, the only values there are
    free : bool, a restart may change it: the answer does not depend on it

    Returns
    -------
    dataclasses.Field
    """
    limits = {"above": above, "at_least": at_least, "at_most": at_most, "choices": choices}
    metadata = {"meaning": meaning, "unit": unit, "free": free, "endless": default == math.inf, **limits}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Case:
    """The keys that every stepping program has."""

    steps: int = key(100, "steps to take in all", at_least=0, free=True)
    dt: float = key(0.01, "time step", "time", above=0)
    every: int = key(0, "steps between snapshots; 0: only the first and the last state", at_least=0)
    sample: int = key(10, "steps between rows of diagnostics", at_least=1)
    checkpoint: float = key(60.0, "running time between checkpoints", "s", at_least=0, free=True)
    seed: int = key(1, "seed of all random numbers", at_least=0, at_most=2**64 - 1)
    shares: str = key("speed", "work of each rank by measured speed, or equal", choices=("speed", "equal"), free=True)
    balance: str = key("measured", "shares anew where ranks' times differ, or static", choices=("measured", "static"),
                       free=True)
    io: str = key("root", "files are written by the root, or by all ranks", choices=("root", "mpio"), free=True)


def load(kind, file=None, overrides=()):
    """Make a case: defaults, then the file's keys, then the overrides.

    Parameters
    ----------
    kind : dataclass with ``key`` fields; its method ``problem()``, if it has one, returns a sentence
        ("key = value: why") where keys contradict each other, else None
    file : path of a TOML file, or None
    overrides : sequence of (key, text of a TOML value or plain string)

    Returns
    -------
    kind

    Raises
    ------
    BadInput : no such file, not TOML, unknown key, wrong type, value out of its limits
    """
    values, origin = {}, {}
    if file is not None:
        for name, value in read(file).items():
            values[name], origin[name] = value, str(file)
    for name, text in overrides:
        values[name], origin[name] = parsed(text), "--set"
    return build(kind, values, origin, str(file) if file is not None else "--set")


def read(file):
    """The keys of a TOML file.

    Parameters
    ----------
    file : path

    Returns
    -------
    dict

    Raises
    ------
    BadInput : it cannot be read, or is not TOML
    """
    try:
        return tomllib.loads(Path(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"{file}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{file}: not a TOML file: {error}") from None


def build(kind, values, origin, place):
    """A checked instance of a case, or of a table within one.

    Parameters
    ----------
    kind : dataclass
    values : dict of key: value
    origin : dict of key: where the value was given, for messages
    place : str, where a key that is missing should be

    Returns
    -------
    kind

    Raises
    ------
    BadInput : as in ``load``
    """
    fields = {field.name: field for field in dataclasses.fields(kind)}
    types = typing.get_type_hints(kind)
    checked = {}
    for name, value in values.items():
        if name not in fields:
            near = difflib.get_close_matches(name, fields, n=1, cutoff=0.5)
            hint = f": did you mean {near[0]!r}?" if near else f": known are {', '.join(fields)}"
            raise BadInput(f"{origin.get(name, place)}: unknown key {name!r}{hint}")
        where = f"{origin.get(name, place)}: {name}"
        checked[name] = _checked(where, value, types[name], fields[name].metadata)
    for name, field in fields.items():
        if name not in checked and field.default is dataclasses.MISSING:
            raise BadInput(f"{place}: {name} is missing")
    made = kind(**checked)
    problem = getattr(made, "problem", lambda: None)()
    if problem:
        raise BadInput(f"{origin.get(problem.split(' ')[0], place)}: {problem}")
    return made


def described(kind):
    """Lines for ``--help``: each key with its default, unit and meaning; the keys of its tables after them.

    Parameters
    ----------
    kind : dataclass

    Returns
    -------
    str
    """
    rows = []
    for field in dataclasses.fields(kind):
        info = field.metadata
        if field.default is dataclasses.MISSING:
            default = "required"
        else:
            default = _shown(field.default) if field.default != "" else '""'
        choices = f" ({', '.join(info['choices'])})" if info["choices"] else ""
        rows.append((field.name, default, info["unit"], info["meaning"] + choices))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = []
    for *row, meaning in rows:
        lines.append("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths)) + "  " + meaning)
    for name, wanted in typing.get_type_hints(kind).items():
        for table in typing.get_args(wanted)[:1]:
            if dataclasses.is_dataclass(table):
                lines += [f"\nkeys of [[{name}]]", described(table)]
    return "\n".join(lines)


def parsed(text):
    """The value that a command line's text stands for: as in TOML, else the text itself.

    Parameters
    ----------
    text : str

    Returns
    -------
    bool, int, float, str, list or dict
    """
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text  # a plain word: --set integrator=leapfrog


def _shown(value):
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_shown, value)) + "]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _checked(where, value, wanted, info):
    """The value as its declared type, or BadInput."""
    if typing.get_origin(wanted) is tuple:
        return _checked_list(where, value, typing.get_args(wanted), info)
    said = repr(value) if isinstance(value, str) else _shown(value)
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) < 2**1023 else math.inf
    names = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    if type(value) is not wanted:
        raise BadInput(f"{where} = {said}: must be {names[wanted]}")
    if wanted is float and not (math.isfinite(value) or (info["endless"] and value == math.inf)):
        raise BadInput(f"{where} = {said}: must be finite")
    if info["choices"] and value not in info["choices"]:
        raise BadInput(f"{where} = {said}: must be one of {', '.join(info['choices'])}")
    for limit, sign, held in (("above", ">", lambda a, b: a > b), ("at_least", ">=", lambda a, b: a >= b),
                              ("at_most", "<=", lambda a, b: a <= b)):
        if info[limit] is not None and not held(value, info[limit]):
            raise BadInput(f"{where} = {said}: must be {sign} {info[limit]}")
    return value


def _checked_list(where, value, types, info):
    if types[-1] is Ellipsis and not dataclasses.is_dataclass(types[0]) and not isinstance(value, list | tuple | dict):
        value = [value]  # --set volatility=0.3
    if not isinstance(value, list | tuple):
        raise BadInput(f"{where} = {value!r}: must be a list")
    if types[-1] is Ellipsis:
        types = types[:1] * len(value)
    if len(value) != len(types):
        raise BadInput(f"{where} has {len(value)} values: must have {len(types)}")
    made = []
    for place, (item, wanted) in enumerate(zip(value, types)):
        here = f"{where}[{place}]"
        if not dataclasses.is_dataclass(wanted):
            made.append(_checked(here, item, wanted, info))
        elif isinstance(item, dict):
            file, _, table = here.partition(": ")
            origin = dict.fromkeys(item, f"{file}: {table}")
            made.append(build(wanted, item, origin, here))
        else:
            raise BadInput(f"{here} = {item!r}: must be a table")
    return tuple(made)
