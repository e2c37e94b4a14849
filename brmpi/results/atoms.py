"""Pictures of atoms in a periodic box: those in a slab through the middle, as discs in their true size."""

from dataclasses import dataclass

import numpy as np

from brmpi.results import canvas

SLAB = 1.5  # diameters that a slab is thick
DIAMETER = 2 ** (1 / 6)  # where a pair is at rest [the snapshot's unit]


@dataclass(frozen=True)
class Slab:
    """Atoms in a slab of a box.

    Attributes
    ----------
    edges : (2,) float64, of the box across the slab
    names : str, of two axes
    places : (n, 2) float64
    values : (n,) float64, what is shown by colour
    label : str, what that is
    """

    edges: np.ndarray
    names: str
    places: np.ndarray
    values: np.ndarray
    label: str


def fits(species):
    """Whether particles are atoms in a box.

    Parameters
    ----------
    species : snapshots.Particles

    Returns
    -------
    bool
    """
    return species.total > 0 and len(species.attributes.get("box", ())) == 3


def slab(species):
    """Atoms in the middle of a box, across its shortest edge; z where all are alike.

    Parameters
    ----------
    species : snapshots.Particles with ``box``; coloured by ``energy`` if it is there, else by speed

    Returns
    -------
    Slab
    """
    box, pos = np.asarray(species.attributes["box"], float), np.asarray(species["position"], float)
    through = 2 - int(np.argmin(box[::-1]))
    flat = [axis for axis in range(3) if axis != through]
    inside = abs(pos[:, through] - box[through] / 2) <= SLAB * DIAMETER / 2
    if "energy" in species.records:
        values, label = species["energy"], canvas.quantity("potential energy", species.records["energy"].unit)
    else:
        velocity = species.records["velocity"]
        values, label = np.linalg.norm(species["velocity"], axis=1), canvas.quantity("speed", velocity.unit)
    order = np.flatnonzero(inside)[np.argsort(pos[inside, through], kind="stable")]  # those in front last
    return Slab(box[flat], "".join("xyz"[axis] for axis in flat), pos[order][:, flat], np.asarray(values)[order], label)


def limits(slabs):
    """Ends of a scale of colours that all slabs share, without the rarest values.

    Parameters
    ----------
    slabs : list of Slab

    Returns
    -------
    (float, float)
    """
    values = np.concatenate([one.values for one in slabs])
    low, high = np.percentile(values, (1, 99)) if len(values) else (0.0, 1.0)
    return float(low), float(max(high, low + 1e-9 * (1 + abs(low))))


def draw(slabs, times, title, unit, scale=None):
    """Slabs at several times, one panel each, on one scale of colours.

    Parameters
    ----------
    slabs : list of Slab
    times : list of str, what stands over each panel
    title : str
    unit : str, of length
    scale : (float, float) or None, ends of the scale of colours; None means those of these slabs

    Returns
    -------
    matplotlib.figure.Figure
    """
    scale, (across, up) = scale or limits(slabs), slabs[0].edges
    wide = across > 1.8 * up
    columns = 1 if wide else min(len(slabs), 3)
    lines = -(-len(slabs) // columns)
    width = 7.6 if columns == 1 else 3.6
    sheet = canvas.figure(width * columns + 1.0, max(width * up / across, 1.2) * lines + 0.5 * lines + 0.5, title)
    panels = sheet.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
    for axes in panels.flat[len(slabs):]:
        axes.set_visible(False)
    discs = canvas.library("matplotlib.collections").EllipseCollection
    for place, (axes, one, when) in enumerate(zip(panels.flat, slabs, times)):
        size = np.full(len(one.places), DIAMETER)
        drawn = discs(size, size, np.zeros(len(size)), units="xy", offsets=one.places, transOffset=axes.transData,
                      cmap="viridis", edgecolors="white", linewidths=0.2)
        drawn.set_array(one.values)
        drawn.set_clim(*scale)
        axes.add_collection(drawn)
        axes.grid(False)
        axes.set(xlim=(0, one.edges[0]), ylim=(0, one.edges[1]), aspect="equal")
        axes.set_title(when, fontweight="normal")
        if place % columns == 0:
            axes.set_ylabel(canvas.quantity(one.names[1], unit))
        if place + columns >= len(slabs):
            axes.set_xlabel(canvas.quantity(one.names[0], unit))
            axes.tick_params(labelbottom=True)
    bar = sheet.colorbar(drawn, ax=panels, shrink=0.9, pad=0.015, aspect=30)
    bar.set_label(slabs[0].label)
    bar.outline.set_visible(False)
    return sheet
