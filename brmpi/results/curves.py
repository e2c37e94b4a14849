"""Pictures of diagnostics: what was conserved, and everything else over time."""

import numpy as np

from brmpi.results import canvas, conservation

FEW = 4  # panels for quantities that are not conserved


def draw(table, columns, title):
    """Diagnostics over time, one panel under the other.

    Parameters
    ----------
    table : dict of str to (n,) ndarray, as ``diagnostics.read`` gives it; n > 0
    columns : dict of str to Column
    title : str

    Returns
    -------
    matplotlib.figure.Figure
    """
    scale, unit = canvas.clock(table["time"], columns["time"].unit)
    time = scale(table["time"])
    changes = conservation.changes(table, columns)
    relative = [change for change in changes if change.relative]
    absolute = [change for change in changes if not change.relative]
    groups = _others(table, columns)
    count = bool(relative) + bool(absolute) + len(groups)
    sheet = canvas.figure(7.6, 0.9 + 2.3 * max(count, 1), title)
    panels = iter(np.atleast_1d(sheet.subplots(max(count, 1), 1, sharex=True)))
    axes = None
    for group, label in ((relative, "relative change"), (absolute, "change")):
        if group:
            axes = next(panels)
            units = {change.unit for change in group}
            if len(group) == 1:
                label = f"{label} of {group[0].name}"
            _changes(axes, time, group, canvas.quantity(label, units.pop() if len(units) == 1 else ""))
    for unit_of_group, names in groups:
        axes = next(panels)
        for name in names:
            axes.plot(time, table[name], label=name.replace("_", " "))
        _legend(axes)
        axes.set_ylabel(canvas.quantity(names[0].replace("_", " "), unit_of_group))
        axes.margins(x=0.01)
    if axes is not None:
        axes.set_xlabel(canvas.quantity("time", unit))
    return sheet


def _legend(axes):
    """Names beside the curves, never upon them; a single curve is named by its axis."""
    if len(axes.lines) > 1:
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.2, handlelength=1.4)


def _changes(axes, time, changes, label):
    """Distances from the first value on a logarithmic axis; a distance of nothing is not drawn."""
    largest = 0.0
    for change in changes:
        shown = np.where(change.values > 0, change.values, np.nan)
        style = {"marker": "o", "markersize": 3} if len(time) < 3 else {}
        axes.plot(time, shown, label=change.name, **style)
        largest = max(largest, np.nanmax(change.values))
    if largest > 0:
        axes.set_yscale("log")
    else:
        axes.set_ylim(-1, 1)
        axes.annotate("no change", (0.5, 0.5), xycoords="axes fraction", ha="center", color=canvas.PALE)
    _legend(axes)
    axes.set_ylabel(label, wrap=True)
    axes.margins(x=0.01)


def _others(table, columns):
    """Columns worth a panel beside the conserved ones: list of (unit, names), those of one kind together."""
    parts = {name for names in conservation.vectors(table).values() for name in names}
    left = [name for name in table
            if name not in ("step", "time") and not name.startswith("wall/") and name not in parts]
    groups = []
    energies = [name for name in ("energy", "kinetic", "potential") if name in left]
    if len(energies) > 1:
        groups.append((columns[energies[0]].unit, energies))
        left = [name for name in left if name not in energies]
    left = [name for name in left if not columns[name].conserved]
    groups += [(columns[name].unit, [name]) for name in left]
    return groups[:FEW]
