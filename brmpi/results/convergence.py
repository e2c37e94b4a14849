"""Pictures of a sampling run: how the estimates settle, how their errors shrink, how the samples are distributed."""

import numpy as np

from brmpi.results import canvas

FEW = 3  # quantities that are drawn


def draw(table, columns, quantities, exact, distribution, title):
    """Estimates with their standard errors, the errors beside 1 / sqrt(samples), and a histogram where there is one.

    Parameters
    ----------
    table : dict of str to (n,) ndarray, as ``diagnostics.read`` gives it: ``time`` in samples, each quantity and its
        ``_error``; n > 0
    columns : dict of str to Column
    quantities : list of str, the most important first
    exact : dict of quantity to float, where it is known
    distribution : snapshots.Mesh of one axis, read whole, or None
    title : str

    Returns
    -------
    matplotlib.figure.Figure
    """
    names = [name for name in quantities if f"{name}_error" in table][:FEW]
    rows = len(names) + (distribution is not None)
    sheet = canvas.figure(9.6, 0.7 + 2.7 * rows, title)
    panels = sheet.subplots(rows, 2, squeeze=False)
    for (left, right), name in zip(panels, names):
        quantity = canvas.quantity(name.replace("_", " "), columns[name].unit)
        told = np.flatnonzero(table[f"{name}_error"] > 0)
        first = told[0] if told.size else 0  # before that there was nothing to estimate from
        rows = [values[first:] for values in (table["time"], table[name], table[f"{name}_error"])]
        _estimate(left, *rows, exact.get(name), quantity)
        _error(right, *rows, exact.get(name), columns["time"].unit)
    for axes in panels[len(names) - 1]:
        axes.set_xlabel(columns["time"].unit)
    if distribution is not None:
        panels[-1][1].set_visible(False)
        _histogram(panels[-1][0], distribution)
    return sheet


def _estimate(axes, samples, values, errors, exact, label):
    """An estimate and the band of its standard error, over the number of samples."""
    axes.fill_between(samples, values - errors, values + errors, color=canvas.PENS[0], alpha=0.2, linewidth=0,
                      label="standard error")
    style = {"marker": "o", "markersize": 4} if len(samples) < 3 else {}
    axes.plot(samples, values, color=canvas.PENS[0], label="estimate", **style)
    later = slice(len(samples) // 3, None)  # where it began it may be far off
    reach = 1.5 * float(np.nanmax(np.abs(values[later] - values[-1]) + np.nan_to_num(errors[later]), initial=0))
    if exact is not None:
        axes.axhline(exact, color=canvas.INK, linewidth=1, linestyle=(0, (4, 3)), label="exact")
        reach = max(reach, 1.3 * abs(exact - values[-1]))
    if reach > 0:
        axes.set_ylim(values[-1] - reach, values[-1] + reach)
    axes.set_xscale("log")
    axes.set_ylabel(label)
    axes.legend(loc="best")


def _error(axes, samples, values, errors, exact, unit):
    """The standard error beside the line that it keeps to where samples are independent."""
    seen = np.isfinite(errors) & (errors > 0)
    style = {"marker": "o", "markersize": 4} if seen.sum() < 3 else {}
    axes.plot(samples[seen], errors[seen], color=canvas.PENS[0], label="standard error", **style)
    if exact is not None:
        off = np.abs(values - exact)
        axes.plot(samples[off > 0], off[off > 0], ".", markersize=4, color=canvas.PENS[1], label="distance from exact")
    if seen.any():
        first = np.flatnonzero(seen)[seen.sum() // 2]
        axes.plot(samples, errors[first] * np.sqrt(samples[first] / samples), color=canvas.PALE, linewidth=1,
                  linestyle=(0, (4, 3)), label=f"1 / sqrt({unit})")
        axes.set_yscale("log")
    axes.set_xscale("log")
    axes.set_ylabel("error")
    axes.legend(loc="best")


def _histogram(axes, mesh):
    """How the samples of the first quantity are distributed."""
    density = np.asarray(mesh.piece.data, float)
    edges = mesh.origin[0] + mesh.spacing[0] * np.arange(len(density) + 1)
    axes.stairs(density, edges, fill=True, color=canvas.PENS[0], alpha=0.35)
    axes.stairs(density, edges, color=canvas.PENS[0])
    used = np.flatnonzero(density)
    if used.size:
        axes.set_xlim(edges[used[0]], edges[used[-1] + 1])
    axes.set(xlabel=canvas.quantity(mesh.axes[0].replace("_", " "), mesh.grid_unit), ylabel="density of samples")
    axes.set_ylim(bottom=0)
