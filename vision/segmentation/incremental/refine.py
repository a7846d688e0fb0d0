"""Pixel-adaptive refinement: maps follow the image's edges (Araslanov and Roth 2020, arXiv:2005.08104)."""

import itertools
from collections.abc import Iterator

import torch
from torch.nn import functional

DILATIONS, ROUNDS = (1, 2), 6  # ours, for maps of about 32 px; the paper's are 1 to 24 and 10
_SHARPNESS = 0.1  # the paper's factor of the local standard deviation


def refine(maps: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Replace each pixel of the maps by the mean of its neighbours that look alike, a few times over.

    A neighbour at one of eight directions and the given distances weighs by the softmax of -|x_i - x_j| / (0.1 s_i),
    s_i the standard deviation of the image among the neighbours, both averaged over the channels.

    Args:
        maps: (batch, classes, height, width).
        images: what the edges are taken from, (batch, channels, height, width).

    Returns:
        The maps, in their shape; where they summed to one over the classes they still do.
    """
    around = torch.stack(list(_neighbours(images)), dim=2)
    spread = around.std(dim=2, keepdim=True)
    unlikeness = (around - images[:, :, None]).abs() / (_SHARPNESS * spread + 1e-8)
    weights = (-unlikeness.mean(dim=1, keepdim=True)).softmax(dim=2).unbind(dim=2)
    for _ in range(ROUNDS):
        total = torch.zeros_like(maps)
        for weight, neighbour in zip(weights, _neighbours(maps), strict=True):
            total.addcmul_(weight, neighbour)  # one at a time: 24 copies of the maps would not fit a cache
        maps = total
    return maps


def _neighbours(x: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield ``x`` moved to each neighbour in turn, in its shape; edges repeat."""
    height, width = x.shape[-2:]
    for far in DILATIONS:
        padded = functional.pad(x, (far,) * 4, mode="replicate")
        for down, across in itertools.product((0, far, 2 * far), repeat=2):
            if (down, across) != (far, far):
                yield padded[:, :, down : down + height, across : across + width]
