"""Confusion matrix: what was answered for each true class."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from shared_peft.picture import new_figure
from vision.report.figure import INK, QUIET, hide_spines, label_text

MOST_NUMBERED = 20  # ours: more classes are drawn without numbers
DARK = 55.0  # [%]: beyond it text is white


def confusion_picture(confusion: Sequence[Sequence[int]], classes: Sequence[str]) -> Any:
    """Draw shares of each true class [%]; what is 0 stays blank.

    Args:
        confusion: counts, rows are true classes, columns answered ones.
        classes: class names.
    """
    counts = np.asarray(confusion, dtype=float)
    shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(12.0, 2.4 + 0.46 * len(classes))
    figure = new_figure("explain", side + 0.6, side)
    axes = figure.subplots()
    drawn = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    numbered = len(classes) <= MOST_NUMBERED
    if numbered:
        for (row, column), share in np.ndenumerate(shares):
            if counts[row, column]:
                colour = "white" if share > DARK else INK
                text = f"{share:.0f}" if share >= 0.5 else "<1"
                weight = "bold" if row == column else "normal"
                axes.text(column, row, text, ha="center", va="center", fontsize=8, color=colour, weight=weight)
    else:
        figure.colorbar(drawn, ax=axes, shrink=0.6, label="% of the true class")
    size = 9 if numbered else max(3.0, 9 * MOST_NUMBERED / len(classes))
    names = [label_text(name) for name in classes]
    axes.set_xticks(range(len(classes)), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(classes)), names)
    hide_spines(axes, ("top", "right", "bottom", "left"))
    axes.tick_params(labelsize=size, labelcolor=INK)
    axes.set_xlabel("answered", color=QUIET)
    axes.set_ylabel("true class", color=QUIET)
    return figure
