"""How well a run kept what its physics conserves."""

from dataclasses import dataclass

import numpy as np

# where a file marks nothing as conserved
KNOWN = ("energy", "momentum", "angular_momentum", "mass")


@dataclass(frozen=True)
class Change:
    """How far a conserved quantity is from its first value.

    Attributes
    ----------
    name : str, as it is read: ``angular momentum``
    unit : str; empty where the change is relative
    relative : bool, whether ``values`` are shares of the first value
    values : (n,) float64 >= 0
    """

    name: str
    unit: str
    relative: bool
    values: np.ndarray


def vectors(names):
    """Columns that are the components of vectors.

    Parameters
    ----------
    names : iterable of str

    Returns
    -------
    dict of str to list of str: ``{"momentum": ["momentum_x", "momentum_y", "momentum_z"]}``
    """
    names = set(names)
    found = {}
    for name in sorted(names):
        base, _, axis = name.rpartition("_")
        if axis == "x" and f"{base}_y" in names:
            found[base] = [f"{base}_{a}" for a in "xyz" if f"{base}_{a}" in names]
    return found


def changes(table, columns):
    """The change of each conserved quantity in the course of a run.

    Relative to its first value, unless that is zero or the change is larger: a total momentum that starts
    at nothing but rounding has no meaningful relative change.

    Parameters
    ----------
    table : dict of str to (n,) ndarray, as ``diagnostics.read`` gives it
    columns : dict of str to Column, as ``diagnostics.columns`` gives it

    Returns
    -------
    list of Change, in the order of the columns' names; empty for an empty table
    """
    if not len(table.get("step", ())):
        return []
    grouped = vectors(table)
    inside = {name for parts in grouped.values() for name in parts}
    quantities = grouped | {name: [name] for name in table if name not in inside}
    marked = {base for base, parts in quantities.items() if any(columns[name].conserved for name in parts)}
    if not marked:
        marked = {base for base in quantities if base in KNOWN}
    found = []
    for base in sorted(marked, key=lambda name: (name != "energy", name)):
        values = np.stack([table[name] for name in quantities[base]])
        first = np.linalg.norm(values[:, 0])
        drift = np.linalg.norm(values - values[:, :1], axis=0)
        relative = bool(first > 0 and not np.nanmax(drift) > first)
        unit = "" if relative else columns[quantities[base][0]].unit
        found.append(Change(base.replace("_", " "), unit, relative, drift / first if relative else drift))
    return found
