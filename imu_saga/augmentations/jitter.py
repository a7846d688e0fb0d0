"""Jitter: more sensor noise, in proportion to how much each channel moves."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from imu_saga.augmentation import AUGMENTATIONS, Augmentation, Windows, check_range


@AUGMENTATIONS.register("jitter")
@dataclass(frozen=True)
class Jitter(Augmentation):
    """White noise on every sample; a channel at rest stays as it is.

    Args:
        strength: the noise's standard deviation as a part of the channel's own within the window.
    """

    strength: float = 0.05

    def __post_init__(self) -> None:
        check_range(self, "strength", 0, 1)

    def apply(
        self, x: Tensor, valid: Tensor, channels: Sequence[str], rate_hz: float, generator: torch.Generator
    ) -> Windows:
        """Add noise to every window; see Augmentation."""
        deviation = (x - x.mean(1, keepdim=True)).square().mean(1, keepdim=True).sqrt()
        return x + self.strength * deviation * torch.randn(x.shape, generator=generator), valid
