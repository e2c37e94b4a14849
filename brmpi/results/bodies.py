"""Pictures of particles: orbits of a few, the density of many."""

from dataclasses import dataclass

import numpy as np

from brmpi.results import canvas

FEW = 64  # up to here each body has an orbit of its own
LABELS = 16  # up to here each body has its name
TURN = 0.6  # radian between snapshots beyond which joining them would draw chords, not an orbit
SMALL = 0.1  # radian beyond which the chords of several turns blur the orbit


@dataclass(frozen=True)
class Track:
    """Where all bodies were, in the snapshots of a run.

    Attributes
    ----------
    times : (t,) float64
    places : (t, n, 2) float64, in the xy plane
    names : list of n str, empty where the bodies have none
    """

    times: np.ndarray
    places: np.ndarray
    names: list


def flat(species):
    """Positions in the xy plane.

    Parameters
    ----------
    species : snapshots.Particles

    Returns
    -------
    (n, 2) float64 [the snapshot's unit]
    """
    position = np.asarray(species["position"], float)
    return position[:, :2] if position.shape[1] > 1 else np.pad(position, ((0, 0), (0, 1)))


def _radii(track):
    """Each body's largest distance from the centre of motion."""
    centre = track.places[:, _centre(track)]
    return np.linalg.norm(track.places - centre[:, None], axis=2).max(axis=0)


def split(track):
    """The radius between an inner and an outer group of orbits, or None where there is one group.

    Parameters
    ----------
    track : Track

    Returns
    -------
    float or None: bodies with smaller orbits would be lost in a picture of all of them
    """
    radii = np.sort(_radii(track))
    radii = radii[radii > 1e-3 * radii[-1]]
    if len(radii) < 4 or radii[-1] < 6 * radii[0]:
        return None
    # at least two orbits on each side, and the widest gap between neighbours
    gaps = radii[2:-1] / radii[1:-2]
    return float(radii[1 + np.argmax(gaps)]) if gaps.max() > 1.5 else None


def orbits(track, title, unit, when):
    """Orbits in the xy plane with the last position of each body.

    Parameters
    ----------
    track : Track
    title : str
    unit : str, of length
    when : str, the last time as the person reads it

    Returns
    -------
    matplotlib.figure.Figure
    """
    def _draw(axes, shown, named, pens):
        _orbits(axes, track, shown, named, pens, unit)

    return _panels(track, _draw, 6.2, title, when)


def _centre(track):
    """The body that moves least."""
    return int(np.argmin(np.ptp(track.places, axis=0).sum(axis=1)))


def _pens(track, inner):
    """A colour for each body, the same in every panel; the star of a system is amber."""
    star, rest = canvas.PENS[4], [pen for pen in canvas.PENS if pen != canvas.PENS[4]]
    centre = _centre(track) if inner else None
    return [star if body == centre else (rest if inner else canvas.PENS)[body % (len(canvas.PENS) - bool(inner))]
            for body in range(track.places.shape[1])]


def _panels(track, draw, width, title, when):
    """A sheet with the orbits, or with the inner ones and all; ``draw(axes, shown, named, pens)`` fills a panel."""
    inner, radii = split(track), _radii(track)
    sheet = canvas.figure(width * (1.86 if inner else 1.0), width * (0.98 if inner else 1.06), title)
    panels = sheet.subplots(1, 2 if inner else 1, squeeze=False)[0]
    pens, small = _pens(track, inner), radii <= (inner or np.inf) * 1.0001
    for axes, close in zip(panels, (True, False) if inner else (True,)):
        draw(axes, small if close else np.ones(len(radii), bool),
             small if close else ~small | (radii < 1e-3 * radii.max()), pens)
        if inner:
            axes.set_title("inner orbits" if close else "all orbits")
    panels[-1].annotate(when, (1, 1.012), xycoords="axes fraction", ha="right", va="bottom", color=canvas.PALE)
    return sheet


def _orbits(axes, track, shown, named, pens, unit, extent=None):
    """One panel of orbits; ``extent`` are the places that it must have room for."""
    places = track.places[:, shown] if extent is None else extent
    low, high = places.min(axis=(0, 1)), places.max(axis=(0, 1))
    middle, half = (low + high) / 2, 0.56 * max(*(high - low), 1e-300)
    centre = track.places[:, _centre(track)]
    for body in np.flatnonzero(shown):
        path = track.places[:, body]
        angle = np.unwrap(np.arctan2(*(path - centre).T[::-1]))
        turn = np.median(np.abs(np.diff(angle))) if len(path) > 2 else 0.0
        sparse = turn > TURN or (turn > SMALL and np.ptp(angle) > 3 * np.pi)
        style = {"linestyle": "none", "marker": ".", "markersize": 1.8} if sparse else {"linewidth": 1.1}
        axes.plot(*path.T, color=pens[body], alpha=0.7, **style)
        axes.plot(*path[-1], "o", color=pens[body], markersize=6.5 if named[body] else 3.0, markeredgecolor="white",
                  markeredgewidth=0.8, zorder=3)
    axes.set(xlim=(middle[0] - half, middle[0] + half), ylim=(middle[1] - half, middle[1] + half), aspect="equal",
             xlabel=canvas.quantity("x", unit), ylabel=canvas.quantity("y", unit))
    if track.names and named.sum() <= LABELS:
        _labels(axes, track, np.flatnonzero(named), half)


def _labels(axes, track, bodies, half):
    """Names beside the last positions; bodies that would share a place share a label."""
    groups = []
    for body in bodies:
        place = track.places[-1, body]
        near = next((g for g in groups if np.linalg.norm(track.places[-1, g[0]] - place) < 0.05 * half), None)
        if near is None:
            groups.append([body])
        else:
            near.append(body)
    effects = canvas.library("matplotlib.patheffects")
    middle = sum(axes.get_xlim()) / 2
    for group in groups:
        place = track.places[-1, group[0]]
        left = place[0] > middle + 0.6 * half  # away from the edge
        axes.annotate(", ".join(track.names[body] for body in group), place, xytext=(-8 if left else 8, 5),
                      textcoords="offset points", ha="right" if left else "left", fontsize=9, zorder=4,
                      path_effects=[effects.withStroke(linewidth=2.5, foreground="white")])


def window(frames):
    """Middle and half-width of a square that holds nearly all bodies of all frames.

    Parameters
    ----------
    frames : list of (n, 2) ndarray

    Returns
    -------
    (2,) float64, float
    """
    low, high = np.percentile(np.concatenate(frames), (2, 98), axis=0)
    return (low + high) / 2, 0.55 * max(*(high - low), 1e-300)


def densities(frames, view):
    """Bodies per area on one grid for all frames, finer where there are more bodies.

    Parameters
    ----------
    frames : list of (n, 2) ndarray
    view : middle and half-width, as ``window`` gives it

    Returns
    -------
    list of (bins, bins) float64 [1 / length**2], the first axis is y
    """
    middle, half = view
    bins = int(np.clip(2 * np.sqrt(max(map(len, frames))), 48, 240))
    edges = [np.linspace(m - half, m + half, bins + 1) for m in middle]
    area = (2 * half / bins) ** 2
    return [np.histogram2d(*frame.T, bins=edges)[0].T / area for frame in frames]


def density(frames, times, title, unit, columns=None, view=None, top=None):
    """The density of bodies in the xy plane, one panel a time, all on the same scale.

    Parameters
    ----------
    frames : list of (n, 2) ndarray
    times : list of str, what stands over each panel
    title : str
    unit : str, of length
    columns : int or None, panels in a row
    view : middle and half-width; None means that of these frames
    top : float or None, the largest density of the scale

    Returns
    -------
    matplotlib.figure.Figure
    """
    view = view or window(frames)
    (x, y), half = view
    columns = columns or min(len(frames), 3)
    lines = -(-len(frames) // columns)
    images = densities(frames, view)
    seen = [image[image > 0] for image in images]
    lowest = min((values.min() for values in seen if len(values)), default=1.0)
    highest = max(top or max((values.max() for values in seen if len(values)), default=1.0), 2 * lowest)
    norm = canvas.library("matplotlib.colors").LogNorm(lowest / 4, highest)  # a single body is well above black
    colours = canvas.library("matplotlib").colormaps["inferno"]
    colours = colours.with_extremes(bad=colours(0.0))
    wide = 3.5 if len(frames) > 1 else 5.6
    sheet = canvas.figure(wide * columns + 0.9, wide * lines + 0.6, title)
    panels = sheet.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
    for axes in panels.flat[len(frames):]:
        axes.set_visible(False)
    for place, (axes, image, when) in enumerate(zip(panels.flat, images, times)):
        drawn = axes.imshow(np.ma.masked_equal(image, 0), origin="lower", cmap=colours, norm=norm,
                            extent=(x - half, x + half, y - half, y + half))
        axes.grid(False)
        axes.set_title(when, fontweight="normal")
        if place % columns == 0:
            axes.set_ylabel(canvas.quantity("y", unit))
        if place + columns >= len(frames):
            axes.set_xlabel(canvas.quantity("x", unit))
            axes.tick_params(labelbottom=True)
    bar = sheet.colorbar(drawn, ax=panels, shrink=0.9, pad=0.015, aspect=30)
    bar.set_label(canvas.quantity("bodies per area", f"1/{unit}²" if unit else ""))
    bar.outline.set_visible(False)
    return sheet


def frame(track, index, trail, title, unit, when):
    """A few bodies at one time with the last stretch of their ways.

    Parameters
    ----------
    track : Track
    index : int, the snapshot
    trail : int, how many snapshots a trail is long
    title : str
    unit : str, of length
    when : str, the time as the person reads it

    Returns
    -------
    matplotlib.figure.Figure
    """
    past = Track(track.times, track.places[max(0, index - trail):index + 1], track.names)

    def _draw(axes, shown, named, pens):
        _orbits(axes, past, shown, named, pens, unit, track.places[:, shown])

    return _panels(track, _draw, 5.2, title, when)
