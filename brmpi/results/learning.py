"""Pictures of a training run: how it learned, which classes it takes for which, and what it mistakes."""

import numpy as np

from brmpi.results import canvas

PARTS = (("", "training"), ("validation_", "validation"), ("test_", "test"))
SHOWN = 18  # mistakes that are drawn
LONG = 14  # letters of a class's name


def draw(table, meshes, classes, title):
    """Loss and accuracy over epochs; below them the confusion matrix, and samples that were mistaken.

    Parameters
    ----------
    table : dict of str to (n,) ndarray, as ``diagnostics.read`` gives it; n > 0
    meshes : dict of str to snapshots.Mesh of the last snapshot: "confusion", "mistakes" and "mistaken", or none of them
    classes : list of str
    title : str

    Returns
    -------
    matplotlib.figure.Figure
    """
    below = "confusion" in meshes
    sheet = canvas.figure(10.4, 8.0 if below else 3.6, title)
    top, *bottom = sheet.subfigures(2, 1, height_ratios=(3.2, 4.4)) if below else [sheet]
    for axes, quantity in zip(top.subplots(1, 2), ("loss", "accuracy")):
        _curves(axes, table, quantity)
    if below:
        left, right = bottom[0].subfigures(1, 2, width_ratios=(1.1, 1.0))
        _confusion(left.subplots(), np.asarray(meshes["confusion"].piece.data), classes)
        _mistakes(right, meshes, classes)
    return sheet


def _curves(axes, table, quantity):
    """One quantity of training, validation and test."""
    style = {"marker": "o", "markersize": 4} if len(table["time"]) < 3 else {}
    drawn = []
    for (prefix, label), colour in zip(PARTS, canvas.PENS):
        if f"{prefix}{quantity}" in table:
            values = table[f"{prefix}{quantity}"]
            axes.plot(table["time"], values, label=label, color=colour, **style)
            drawn.append(values)
    axes.set(xlabel="time [epochs]", ylabel=quantity)
    axes.margins(x=0.01)
    if quantity == "loss":
        if all((values > 0).all() for values in drawn):
            axes.set_yscale("log")
    else:
        axes.set_ylim(top=1.0 + 0.02 * (1 - min(float(values.min()) for values in drawn)))
    axes.legend(loc="upper right" if quantity == "loss" else "lower right")


def _confusion(axes, counts, classes):
    """How many samples of each class are taken for which; what is right stands pale, so that mistakes are seen."""
    wrong = counts.astype(float)
    np.fill_diagonal(wrong, 0)
    names = [name if len(name) <= LONG else name[: LONG - 1] + "…" for name in classes]
    axes.imshow(wrong, cmap="Oranges", vmin=0, vmax=max(1.0, wrong.max()))
    axes.grid(False)
    few = len(classes) <= 20
    if few:
        middle = wrong.max() / 2
        for (row, column), count in np.ndenumerate(counts):
            right = row == column
            if count:
                axes.text(column, row, str(count), ha="center", va="center", fontsize=9,
                          color="white" if wrong[row, column] > middle else canvas.PALE if right else canvas.INK)
        crowded = max(map(len, names)) > 3
        axes.set_xticks(range(len(names)), names, rotation=30 if crowded else 0, ha="right" if crowded else "center")
        axes.set_yticks(range(len(names)), names)
    axes.tick_params(length=0)
    share = np.trace(counts) / max(counts.sum(), 1)
    axes.set(xlabel="taken for", ylabel="label",
             title=f"test: {np.trace(counts)} of {counts.sum()} right ({share:.2%})")


def _mistakes(sheet, meshes, classes):
    """Images that were taken for another class, each over its label and what it was taken for."""
    if "mistakes" not in meshes:
        sheet.text(0.5, 0.5, "no mistakes", ha="center", color=canvas.PALE)
        return
    images, told = (np.asarray(meshes[name].piece.data) for name in ("mistakes", "mistaken"))
    if images.ndim != 3:
        _listed(sheet, told, classes)
        return
    panels = sheet.subplots(3, SHOWN // 3).ravel()
    for axes in panels:
        axes.set_axis_off()
    for axes, image, (_, label, answer) in zip(panels, images, told):
        axes.imshow(image, cmap="gray_r")
        axes.set_title(f"{classes[label]} → {classes[answer]}", fontsize=9, loc="center", pad=2)
    more = len(images) - len(panels)
    sheet.suptitle("mistakes: label → taken for" + (f" (and {more} more)" if more > 0 else ""), fontsize=10.5, x=0.02,
                   ha="left")


def _listed(sheet, told, classes):
    """Mistakes as lines of text."""
    lines = ["mistakes"] + [f"sample {place}: {classes[label]} → {classes[answer]}"
                            for place, label, answer in told[:SHOWN]]
    lines += [f"and {len(told) - SHOWN} more"] if len(told) > SHOWN else []
    sheet.text(0.08, 0.92, "\n".join(lines), va="top", fontsize=9.5, linespacing=1.5)
