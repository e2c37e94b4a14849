"""Paper, ink and pens: how pictures look, and how they get onto the disk."""

import contextlib
import io

from brmpi.errors import Fault
from brmpi.results import disk

INK = "#22262b"
PALE = "#8a9099"
# distinguishable with any colour vision (Okabe & Ito)
PENS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f")
STYLE = {
    "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"], "font.size": 10.0, "axes.titlesize": 10.5,
    "axes.labelsize": 10.0, "xtick.labelsize": 9.0, "ytick.labelsize": 9.0, "legend.fontsize": 9.0,
    "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": PALE, "xtick.color": PALE, "ytick.color": PALE,
    "xtick.labelcolor": INK, "ytick.labelcolor": INK, "axes.linewidth": 0.8, "axes.grid": True,
    "grid.color": "#e7e9ec", "grid.linewidth": 0.8, "axes.axisbelow": True, "axes.spines.top": False,
    "axes.spines.right": False, "lines.linewidth": 1.5, "legend.frameon": False, "figure.facecolor": "white",
    "axes.titlelocation": "left", "image.interpolation": "nearest", "mathtext.default": "regular",
    "axes.formatter.useoffset": False, "axes.formatter.limits": (-4, 5), "axes.formatter.use_mathtext": True,
}


def library(name):
    """Import what only pictures need.

    Parameters
    ----------
    name : str, such as ``"matplotlib.figure"``

    Returns
    -------
    module

    Raises
    ------
    Fault : it is not installed; the sentence says how to install it
    """
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Fault(f"pictures need {name.partition('.')[0]}, which is not here: pip install brmpi[plot]") from error


@contextlib.contextmanager
def pens():
    """A with-block in which matplotlib draws in the style of all pictures here; nothing is changed outside it."""
    matplotlib = library("matplotlib")
    with matplotlib.rc_context(STYLE | {"axes.prop_cycle": library("cycler").cycler(color=PENS)}):
        yield


def figure(width, height, title):
    """An empty sheet, drawn in memory.

    Parameters
    ----------
    width, height : float [inch]
    title : str

    Returns
    -------
    matplotlib.figure.Figure
    """
    sheet = library("matplotlib.figure").Figure(figsize=(width, height), layout="constrained")
    library("matplotlib.backends.backend_agg").FigureCanvasAgg(sheet)
    sheet.suptitle(title, x=0.015, ha="left", fontsize=12.5, fontweight="bold")
    return sheet


def quantity(name, unit=""):
    """A name and its unit as they stand on an axis.

    Parameters
    ----------
    name : str
    unit : str, may be empty
    """
    return f"{name} [{unit}]" if unit else name


def clock(values, unit):
    """Times in a unit that suits their span.

    Parameters
    ----------
    values : float or (n,) ndarray [unit]
    unit : str

    Returns
    -------
    function of values to values, and the unit's name

    Days turn into years where there are more than a thousand of them.
    """
    if unit == "d" and max(abs(float(v)) for v in values) > 1000:
        return (lambda time: time / 365.25), "yr"
    return (lambda time: time), unit


def save(sheet, path, dpi):
    """Write a figure as PNG, whole or not at all.

    Parameters
    ----------
    sheet : matplotlib.figure.Figure
    path : Path
    dpi : float [dots / inch]

    Raises
    ------
    Fault : no room, or the file system refused
    """
    memory = io.BytesIO()
    sheet.savefig(memory, format="png", dpi=dpi)
    disk.write(path, memory.getvalue())


def film(sheets, path, dpi, rate=12):
    """Write figures as an endless GIF, whole or not at all.

    Parameters
    ----------
    sheets : iterable of matplotlib.figure.Figure, all of one size; drawn one at a time
    path : Path
    dpi : float [dots / inch]
    rate : float [1/s], pictures a second

    Raises
    ------
    Fault : no room, the file system refused, or Pillow is not installed
    """
    image = library("PIL.Image")
    frames, places = [], []
    for sheet in sheets:
        sheet.set_dpi(dpi)
        if frames:  # all panels where the first picture has them: nothing trembles, and layout is costly
            sheet.set_layout_engine("none")
            for axes, place in zip(sheet.axes, places):
                axes.set_position(place)
        sheet.canvas.draw()
        if not frames:
            places = [axes.get_position(original=True) for axes in sheet.axes]
        whole = image.frombuffer("RGBA", sheet.canvas.get_width_height(), bytes(sheet.canvas.buffer_rgba()))
        frames.append(whole.convert("RGB").quantize(256, method=image.Quantize.MAXCOVERAGE, dither=image.Dither.NONE))
    memory = io.BytesIO()
    frames[0].save(memory, format="GIF", save_all=True, append_images=frames[1:], duration=round(1000 / rate), loop=0)
    disk.write(path, memory.getvalue())
