"""Reliability diagram (DeGroot and Fienberg 1983; as in Guo et al. 2017, Figure 1): confidence against accuracy."""

from typing import Any

import numpy as np

from shared_peft.picture import new_figure
from vision.report.calibration import Reliability
from vision.report.figure import AFTER, GRID, INK, QUIET, WRONG, hide_spines


def reliability_picture(found: Reliability) -> Any:
    """Draw the accuracy of every bin of confidence with its gap to the diagonal, and below it how many answers it has.

    Args:
        found: of `vision.report.calibration.reliability`.
    """
    figure = new_figure("explain", 5.4, 5.4)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3.2, 1))
    left, width = found.edges[:-1].numpy(), float(found.edges[1])
    accuracy, confidence = found.accuracy.nan_to_num().numpy(), found.confidence.nan_to_num().numpy()
    both = np.minimum(accuracy, confidence)
    upper.bar(left, both, width, align="edge", color=AFTER, edgecolor="white")
    for upto, colour, label in ((confidence, WRONG, "surer than right"), (accuracy, AFTER, "righter than sure")):
        over = np.maximum(upto - both, 0)
        upper.bar(left, over, width, bottom=both, align="edge", color=colour, alpha=0.3, edgecolor="white", label=label)
    upper.plot([0, 1], [0, 1], color=QUIET, linestyle=(0, (4, 3)), linewidth=1.2, label="confidence = accuracy")
    upper.set_ylim(0, 1)
    upper.set_ylabel("share of right answers", color=QUIET, fontsize=9)
    figure.legend(frameon=False, fontsize=9, loc="outside lower center", ncols=3, labelcolor=INK)
    upper.set_title(f"expected calibration error {100 * found.error:.1f} %", fontsize=10, color=INK, loc="right")
    lower.bar(left, found.counts.numpy(), width, align="edge", color=QUIET, edgecolor="white")
    lower.set_ylabel("answers", color=QUIET, fontsize=9)
    lower.set_xlabel("confidence", color=QUIET, fontsize=9)
    lower.set_xlim(0, 1)
    for axes in (upper, lower):
        axes.set_xticks(np.linspace(0, 1, 6))
        axes.set_axisbelow(True)
        axes.grid(visible=True, axis="y", color=GRID, linewidth=0.7)
        hide_spines(axes)
    return figure
