"""Where the model looks, before and after its training, on the same images."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from shared_peft.picture import new_figure
from vision.report.figure import INK, QUIET, WRONG, bare, label_text, show_image


@dataclass(frozen=True)
class HeatRow:
    """One model's heat maps.

    Args:
        title: which model.
        heat: shape (images, height, width), at least 0.
        answers: what it says of each image.
        right: whether that is true, for each image.
    """

    title: str
    heat: torch.Tensor
    answers: Sequence[str]
    right: Sequence[bool]


def heat_map_picture(images: torch.Tensor, truths: Sequence[str], rows: Sequence[HeatRow]) -> Any:
    """Draw the images, and below them each model's heat on the same images in grey.

    Args:
        images: uint8, shape (images, channels, height, width).
        truths: true class of each image.
        rows: heat maps of each model; every map is drawn from its own smallest to its own largest value.
    """
    figure = new_figure("explain", 0.5 + 1.5 * len(images), 0.2 + 1.66 * (1 + len(rows)))
    grid = figure.subplots(1 + len(rows), len(images), squeeze=False)
    for axes, image, truth in zip(grid[0], images, truths, strict=True):
        show_image(axes, image)
        axes.set_title(label_text(truth, 16), fontsize=9, color=INK, weight="bold")
    for line, row in zip(grid[1:], rows, strict=True):
        for place, axes in enumerate(line):
            _overlay(axes, images[place], row.heat[place])
            colour = INK if row.right[place] else WRONG
            axes.set_xlabel(label_text(row.answers[place], 18), fontsize=8, color=colour, labelpad=3)
    for line, title in zip(grid, ("image", *(row.title for row in rows)), strict=True):
        line[0].set_ylabel(title, fontsize=10, color=QUIET, labelpad=8)
    return figure


def _overlay(axes: Any, image: torch.Tensor, heat: torch.Tensor) -> None:
    """Draw heat over the image in grey: what counts for little stays grey, what counts most glows."""
    grey = image.float().mean(dim=0).numpy()
    axes.imshow(grey, cmap="gray", vmin=-60, vmax=315, interpolation="nearest")
    shown = scaled(heat).numpy()
    axes.imshow(shown, cmap="inferno", vmin=0, vmax=1, alpha=0.15 + 0.6 * shown, interpolation="bilinear")
    bare(axes)


def scaled(heat: torch.Tensor) -> torch.Tensor:
    """Return heat moved and scaled to [0, 1]; a flat map is 0 everywhere.

    Example:
        >>> scaled(torch.tensor([[2.0, 3.0], [4.0, 2.0]])).tolist()
        [[0.0, 0.5], [1.0, 0.0]]
    """
    above = heat - heat.min()
    return above / above.max().clamp_min(torch.finfo(above.dtype).tiny)
