"""Learning curve: every quantity the run wrote to its metrics, over the optimiser steps."""

from collections.abc import Mapping, Sequence
from typing import Any

from shared_peft.picture import new_figure
from vision.report.figure import AFTER, GRID, INK, QUIET, hide_spines, label_text

NOT_DRAWN = frozenset({"step", "seconds"})
COLUMNS = 3


def learning_curve_picture(metrics: Sequence[Mapping[str, Any]]) -> Any:
    """Draw one panel a quantity.

    Args:
        metrics: the objects of metrics.jsonl, with at least one `curve_names` finds.
    """
    names = curve_names(metrics)
    columns = min(COLUMNS, len(names))
    lines = -(-len(names) // columns)
    figure = new_figure("explain", 3.6 * columns, 2.5 * lines)
    grid = figure.subplots(lines, columns, squeeze=False)
    for axes in grid.flat[len(names) :]:
        axes.set_axis_off()
    for axes, name in zip(grid.flat, names, strict=False):
        points = [(row["step"], row[name]) for row in metrics if name in row]
        axes.plot(
            *zip(*points, strict=True), color=AFTER, linewidth=1.8, marker="o", markersize=3 if len(points) < 40 else 0
        )
        axes.set_title(label_text(name, 40), fontsize=10, color=INK, loc="left")
        axes.set_xlabel("step", color=QUIET, fontsize=9)
        axes.grid(visible=True, color=GRID, linewidth=0.7)
        hide_spines(axes)
    return figure


def curve_names(metrics: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of numbers in the metrics, in the order they first come, without steps and seconds."""
    found = (
        name for row in metrics for name, value in row.items() if isinstance(value, (int, float)) and "step" in row
    )
    return [name for name in dict.fromkeys(found) if name not in NOT_DRAWN]
