"""The worst mistakes: wrong answers the model was surest of."""

from collections.abc import Sequence
from typing import Any

import torch

from shared_peft.picture import new_figure
from vision.report.answers import Mistake
from vision.report.figure import INK, WRONG, label_text, show_image

COLUMNS = 6


def mistakes_picture(images: torch.Tensor, mistakes: Sequence[Mistake]) -> Any:
    """Draw images in a grid; above each what was answered with its confidence, below it what is true.

    Args:
        images: uint8, shape (images, channels, height, width).
        mistakes: what to draw, at least one.
    """
    columns = min(COLUMNS, len(mistakes))
    lines = -(-len(mistakes) // columns)
    figure = new_figure("explain", 1.75 * columns, 2.3 * lines)
    grid = figure.subplots(lines, columns, squeeze=False)
    for axes in grid.flat[len(mistakes) :]:
        axes.set_axis_off()
    for axes, mistake in zip(grid.flat, mistakes, strict=False):
        show_image(axes, images[mistake.row])
        said = f"{label_text(mistake.answered, 18)}\n{100 * mistake.confidence:.0f} % sure"
        axes.set_title(said, fontsize=9, color=WRONG, pad=4)
        axes.set_xlabel(f"is {label_text(mistake.true, 18)}", fontsize=9, color=INK, labelpad=4)
    figure.get_layout_engine().set(h_pad=0.12, w_pad=0.06)
    return figure
