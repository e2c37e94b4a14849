"""Pictures of meshes: a line, an image, or the middle slice of a volume."""

import numpy as np

from brmpi.results import canvas

ROWS = 3  # meshes in one picture
COLUMNS = 3  # times in one picture
APART = 3
GAP = "#cdbfa3"  # where there is no number, as of water on dry land


def values(mesh):
    """A mesh as one number a point: the length of a vector, the middle slice of a volume.

    Parameters
    ----------
    mesh : snapshots.Mesh, read whole

    Returns
    -------
    (n,) or (m, n) float64, list of 1 or 2 axes of the mesh that it lies along, and what was cut (may be empty)
    """
    if isinstance(mesh.piece, dict):
        data = np.sqrt(sum(np.asarray(piece.data, float) ** 2 for piece in mesh.piece.values()))
    else:
        data = np.abs(mesh.piece.data) if mesh.piece.data.dtype.kind == "c" else np.asarray(mesh.piece.data, float)
    axes, cut = list(range(data.ndim)), ""
    if data.ndim == 3:
        middle = data.shape[0] // 2
        place = mesh.origin[0] + mesh.spacing[0] * (middle + (mesh.position[0] if mesh.position else 0.0))
        cut = f"{mesh.axes[0]} = {place:.3g} {mesh.grid_unit}".strip()
        data, axes = data[middle], [1, 2]
    return data, axes, cut


def limits(images):
    """The range of values of a set of images, and a colour map that suits it.

    Parameters
    ----------
    images : list of ndarray

    Returns
    -------
    float, float, str: symmetric about zero where the values have both signs to a similar extent. One image whose values
        are more than ``APART`` times as large as all others' does not count, or nothing would be seen on those
    """
    finite = [image[np.isfinite(image)] for image in images]
    reaches = sorted((float(np.abs(part).max(initial=0)), place) for place, part in enumerate(finite))
    if len(reaches) > 2 and reaches[-1][0] > APART * reaches[-2][0] > 0:
        del finite[reaches[-1][1]]
    low = min((float(part.min()) for part in finite if part.size), default=0.0)
    high = max((float(part.max()) for part in finite if part.size), default=1.0)
    if low < 0 < high and min(-low, high) > 0.1 * max(-low, high):
        reach = max(-low, high)
        return -reach, reach, "RdBu_r"
    return (low, high, "viridis") if high > low else (low - 0.5, low + 0.5, "viridis")


def draw(series, times, title, ranges=None):
    """Each mesh at some times: a row of images on one scale, or curves in one panel.

    Parameters
    ----------
    series : dict of str to list of Mesh, one for each time
    times : list of str
    title : str
    ranges : dict of str to what ``limits`` gives; None means those of these meshes

    Returns
    -------
    matplotlib.figure.Figure
    """
    shown = dict(list(series.items())[:ROWS])
    flat = all(values(meshes[0])[0].ndim == 1 for meshes in shown.values())
    columns = 1 if flat else len(times)
    heights = [2.6 if flat else _height(meshes[0], 3.4 if columns > 1 else 5.0) for meshes in shown.values()]
    width = 7.2 if flat else 3.4 * columns + 1.0 if columns > 1 else 6.4
    sheet = canvas.figure(width, sum(heights) + 0.8, title)
    panels = sheet.subplots(len(shown), columns, squeeze=False, gridspec_kw={"height_ratios": heights})
    for row, (name, meshes) in zip(panels, shown.items()):
        found = [values(mesh) for mesh in meshes]
        scale = (ranges or {}).get(name) or limits([data for data, *_ in found])
        if found[0][0].ndim == 1:
            for axes in row[1:]:
                axes.set_visible(False)
            _lines(row[0], name, meshes, [data for data, *_ in found], times, scale)
            continue
        for axes, mesh, (data, along, cut), when in zip(row, meshes, found, times):
            drawn = _image(axes, mesh, data, along, scale)
            axes.set_title(f"{when}, {cut}" if cut else when)
        over = any(data.max(initial=scale[1]) > scale[1] for data, *_ in found)
        under = any(data.min(initial=scale[0]) < scale[0] for data, *_ in found)
        bar = sheet.colorbar(drawn, ax=list(row), shrink=0.9, pad=0.015, aspect=25,
                             extend={(True, True): "both", (True, False): "max", (False, True): "min"}.get(
                                 (over, under), "neither"))
        bar.set_label(canvas.quantity(name.replace("_", " "), meshes[0].unit))
        bar.outline.set_visible(False)
    return sheet


def _height(mesh, width):
    """How high an image of a mesh stands with its axes, if it is that wide [inch]."""
    data, along, _ = values(mesh)
    if data.ndim == 1:
        return 2.6
    (low, high), (left, right) = (_ends(mesh, axis, count) for axis, count in zip(along, data.shape))
    return float(np.clip(0.8 + (width - 0.6) * (high - low) / (right - left), 1.6, 1.4 * width))


def _ends(mesh, axis, count):
    """Where the cells of an axis begin and end."""
    start = mesh.origin[axis] + mesh.spacing[axis] * ((mesh.position[axis] if mesh.position else 0.0) - 0.5)
    return start, start + mesh.spacing[axis] * count


def _image(axes, mesh, data, along, scale):
    """One image with the extent of its grid."""
    low, high, colours = scale
    down, across = along
    drawn = axes.imshow(data, origin="lower", vmin=low, vmax=high, cmap=colours,
                        extent=(*_ends(mesh, across, data.shape[1]), *_ends(mesh, down, data.shape[0])))
    axes.grid(False)
    if np.isnan(data).any():
        axes.set_facecolor(GAP)
    axes.set(xlabel=canvas.quantity(mesh.axes[across], mesh.grid_unit),
             ylabel=canvas.quantity(mesh.axes[down], mesh.grid_unit))
    return drawn


def _lines(axes, name, meshes, lines, times, scale):
    """Curves of one mesh at some times, the latest the darkest."""
    shades = canvas.library("matplotlib").colormaps["viridis_r"](np.linspace(0.15, 1.0, len(lines)))
    for mesh, line, when, shade in zip(meshes, lines, times, shades):
        first, last = _ends(mesh, 0, len(line))
        places = np.linspace(first, last, 2 * len(line) + 1)[1::2]
        axes.plot(places, line, color=shade, label=when)
    low, high, _ = scale
    margin = 0.05 * (high - low)
    axes.set(ylim=(low - margin, high + margin), xlabel=canvas.quantity(meshes[0].axes[0], meshes[0].grid_unit),
             ylabel=canvas.quantity(name.replace("_", " "), meshes[0].unit))
    axes.margins(x=0.01)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.2)
