"""Occlusion (Zeiler and Fergus 2014, arXiv:1311.2901, Section 4.2): cover a square and see the confidence fall."""

import math

import torch
from torch import nn

from vision.report.explanation import EXPLANATIONS, Explanation

SQUARES = 8  # ours: the image is covered by a square of an eighth of its side, moved by half of that
BATCH = 128  # ours: covered images answered at a time


class Occlusion(Explanation):
    """Occlusion: the fall of the target's probability while a square of the image is covered by its mean colour."""

    cost = 3
    title = "Occlusion"

    def suits(self, model: nn.Module, image: torch.Tensor) -> bool:
        """Any classifier: only its answers are used."""
        return True

    def explain(self, model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return, for every pixel, the mean fall over the squares that cover it; a rise counts as 0."""
        height, width = images.shape[2:]
        masks = squares(height, width).to(images.device)
        with torch.no_grad():
            falls = torch.stack(
                [_falls(model, image, masks, int(target)) for image, target in zip(images, targets, strict=True)]
            )
        covered = masks.float()
        heat = torch.einsum("ns,shw->nhw", falls, covered) / covered.sum(dim=0)
        return heat.relu().cpu()


def squares(height: int, width: int) -> torch.Tensor:
    """Return the squares to cover, bool, shape (squares, height, width); every pixel is in at least one."""
    rows, columns = (_strips(length) for length in (height, width))
    return (rows[:, None, :, None] & columns[None, :, None, :]).reshape(-1, height, width)


def _strips(length: int) -> torch.Tensor:
    """Return overlapping strips of a side, bool, shape (strips, length)."""
    size = math.ceil(length / SQUARES)
    step = max(1, size // 2)
    starts = torch.tensor(sorted({*range(0, length - size, step), length - size}))[:, None]
    place = torch.arange(length)[None]
    return (place >= starts) & (place < starts + size)


def _falls(model: nn.Module, image: torch.Tensor, masks: torch.Tensor, target: int) -> torch.Tensor:
    """Return the fall of the target's probability for each mask, shape (masks,)."""
    colour = image.mean(dim=(1, 2), keepdim=True)
    whole = model(image[None]).softmax(dim=1)[0, target]
    parts = [model(torch.where(part[:, None], colour, image)).softmax(dim=1)[:, target] for part in masks.split(BATCH)]
    return (whole - torch.cat(parts)).float()


EXPLANATIONS.register("occlusion")(Occlusion())
