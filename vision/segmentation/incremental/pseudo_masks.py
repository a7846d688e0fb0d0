"""Pseudo-masks: what every pixel should be, from the old model and the seeds of new classes, which exclude each other.

The seeds are those of WILSON (Cermelli et al. 2022, arXiv:2112.01882): half hard, half soft. That an old
and a new class must not both claim a pixel, and that the old one has precedence, is the tendency-driven mutual
exclusivity of Si et al. 2024 (arXiv:2404.11981); its form as one product of probabilities is ours.
"""

import torch
from torch.nn import functional

HARD_SHARE = 0.5  # arXiv:2112.01882: alpha


def seeds(maps: torch.Tensor, presence: torch.Tensor) -> torch.Tensor:
    """Return how much of each pixel the new classes claim.

    Args:
        maps: the localiser's refined probabilities over all classes, old first, (batch, classes, height, width).
        presence: which new classes the image shows, 0 or 1, (batch, new classes); the others claim nothing.

    Returns:
        (batch, new classes, height, width), at least 0, at most 1 in sum.
    """
    old = maps.shape[1] - presence.shape[1]
    allowed = torch.cat([maps.new_ones(len(maps), old), presence], dim=1)[:, :, None, None]
    maps = maps * allowed
    maps = maps / maps.sum(dim=1, keepdim=True).clamp_min(1e-8)
    hard = functional.one_hot(maps.argmax(dim=1), maps.shape[1]).movedim(-1, 1)
    return (HARD_SHARE * hard + (1 - HARD_SHARE) * maps)[:, old:]


def exclusive(old: torch.Tensor, claims: torch.Tensor, sure: float) -> torch.Tensor:
    """Return one distribution over old and new classes at every pixel.

    Where the old model gives one of its classes (not the background) at least ``sure``, new classes have no claim.
    Elsewhere they take what they claim, and the old model's distribution is scaled to the rest: a pixel a seed is
    sure of is no old class either.

    Args:
        old: the old model's probabilities, (batch, old classes, height, width), the background first.
        claims: what `seeds` returned, (batch, new classes, height, width).
        sure: probability from which an old class excludes new ones; above 1 none does.

    Returns:
        (batch, old + new classes, height, width); sums to 1 over the classes.
    """
    open_ = (old[:, 1:].amax(dim=1, keepdim=True) < sure).to(claims.dtype)
    claims = claims * open_
    return torch.cat([old * (1 - claims.sum(dim=1, keepdim=True)), claims], dim=1)
