"""Mixup: windows and targets of one batch, blended pair by pair (Zhang et al. 2018, arXiv:1710.09412, Eq. 1)."""

import math

import numpy as np
import torch
from torch import Tensor

from shared_peft.errors import ConfigError


def mixed(x: Tensor, targets: Tensor, alpha: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Blend every window and its target with those of another window of the batch, by one share for the batch.

    Args:
        x: windows, shape (windows, samples, channels).
        targets: share of each class, shape (windows, classes).
        alpha: the share is drawn from Beta(alpha, alpha): near 0 windows stay almost pure, at 1 all shares are alike.
        generator: source of the share and of the pairs; the same state gives the same batch.

    Returns:
        Windows and targets in the shapes given; rows of targets keep their sum.
    """
    draw = int(torch.randint(2**63 - 1, (1,), generator=generator))
    share = float(np.random.default_rng(draw).beta(alpha, alpha))
    partner = torch.randperm(len(x), generator=generator)
    return torch.lerp(x[partner], x, share), torch.lerp(targets[partner], targets, share)


def check_alpha(alpha: float) -> None:
    """Raise ConfigError unless ``alpha`` is 0 (no mixup) or a positive number."""
    if not 0 <= alpha < math.inf:
        raise ConfigError("finetune mixup", "alpha must be 0 or a positive number", alpha, "Use 0.2, or 0 for none")
