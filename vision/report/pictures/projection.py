"""Features of the same images on a plane, before and after training, coloured by their true class."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from shared_peft.picture import new_figure
from vision.report.figure import INK, QUIET, bare, colours_of, label_text

MOST_IN_LEGEND = 20


def projection_picture(planes: Sequence[tuple[str, np.ndarray]], labels: np.ndarray, classes: Sequence[str]) -> Any:
    """Draw one panel a model.

    Args:
        planes: title and points, shape (images, 2), of each model.
        labels: true class of each image, shape (images,).
        classes: class names; more than 20 share colours and have no legend.
    """
    legend = len(classes) <= MOST_IN_LEGEND
    figure = new_figure("explain", 4.3 * len(planes) + 1.9 * legend, 4.5)
    panels = figure.subplots(1, len(planes), squeeze=False)[0]
    for axes, (title, points) in zip(panels, planes, strict=True):
        for label, colour in enumerate(colours_of(len(classes))):
            mine = points[labels == label]
            axes.scatter(*mine.T, s=20, color=colour, alpha=0.85, linewidths=0.4, edgecolors="white")
            if legend and len(mine):
                axes.text(
                    *np.median(mine, axis=0),
                    str(label + 1),
                    fontsize=8,
                    weight="bold",
                    color=INK,
                    ha="center",
                    va="center",
                    bbox={"boxstyle": "circle,pad=0.18", "facecolor": "white", "edgecolor": colour},
                )
        axes.set_title(title, fontsize=10, color=INK)
        bare(axes)
    if legend:
        handles = [panels[0].scatter([], [], s=36, color=colour) for colour in colours_of(len(classes))]
        names = [f"{label + 1}  {label_text(name)}" for label, name in enumerate(classes)]
        figure.legend(handles, names, loc="outside right center", frameon=False, fontsize=9, labelcolor=QUIET)
    return figure
