"""The worst mistakes: wrong answers the model was surest of."""

from typing import Any

import torch

from vision.report.answers import Answers
from vision.report.figure import INK, WRONG, label_text, new_figure, show_image

COLUMNS = 6


def mistakes_picture(answers: Answers, rows: torch.Tensor) -> Any:
    """Draw images in a grid; above each what was answered with its confidence, below it what is true.

    Args:
        answers: of the model.
        rows: the images to draw, at least one.
    """
    columns = min(COLUMNS, len(rows))
    lines = -(-len(rows) // columns)
    figure = new_figure(1.75 * columns, 2.3 * lines)
    grid = figure.subplots(lines, columns, squeeze=False)
    for axes in grid.flat[len(rows) :]:
        axes.set_axis_off()
    for axes, row in zip(grid.flat, rows.tolist(), strict=False):
        show_image(axes, answers.pixels.values[row])
        answered = label_text(answers.classes[int(answers.predicted[row])], 18)
        true = label_text(answers.classes[int(answers.pixels.labels[row])], 18)
        axes.set_title(f"{answered}\n{100 * float(answers.confidence[row]):.0f} % sure", fontsize=9, color=WRONG, pad=4)
        axes.set_xlabel(f"is {true}", fontsize=9, color=INK, labelpad=4)
    figure.get_layout_engine().set(h_pad=0.12, w_pad=0.06)
    return figure
