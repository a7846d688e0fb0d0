"""Thumbnails of classified images: a look at what was answered, before the answers are used."""

from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

import torch

from shared_peft.picture import new_figure
from vision.report.figure import INK, QUIET, label_text, show_image

COLUMNS = 8


def thumbnails_picture(
    images: torch.Tensor, names: Sequence[str], answers: Sequence[str], confidence: Sequence[float]
) -> Any:
    """Draw images in a grid; above each its answer with the confidence, below it its file's name.

    Args:
        images: uint8, shape (images, channels, height, width), at least one.
        names: paths.
        answers: class names.
        confidence: of the answers, in [0, 1].
    """
    columns = min(COLUMNS, len(images))
    lines = -(-len(images) // columns)
    figure = new_figure("explain", 1.5 * columns, 2.0 * lines)
    grid = figure.subplots(lines, columns, squeeze=False)
    for axes in grid.flat[len(images) :]:
        axes.set_axis_off()
    for axes, image, name, answer, share in zip(grid.flat, images, names, answers, confidence, strict=False):
        show_image(axes, image)
        axes.set_title(f"{label_text(answer, 16)}\n{100 * share:.0f} %", fontsize=9, color=INK, pad=3)
        axes.set_xlabel(label_text(PurePath(name).name, 20), fontsize=7, color=QUIET, labelpad=3)
    figure.get_layout_engine().set(h_pad=0.1, w_pad=0.05)
    return figure
