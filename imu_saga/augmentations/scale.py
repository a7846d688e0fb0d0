"""Scale: movements made wider or narrower around each channel's mean, so that gravity stays what it is."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from imu_saga.augmentation import AUGMENTATIONS, Augmentation, Windows, check_range


@AUGMENTATIONS.register("scale")
@dataclass(frozen=True)
class Scale(Augmentation):
    """One factor a window and channel, normal around 1.

    Args:
        strength: the factor's standard deviation.
    """

    strength: float = 0.05

    def __post_init__(self) -> None:
        check_range(self, "strength", 0, 1)

    def apply(
        self, x: Tensor, valid: Tensor, channels: Sequence[str], rate_hz: float, generator: torch.Generator
    ) -> Windows:
        """Scale every window; see Augmentation."""
        change = self.strength * torch.randn(len(x), 1, x.shape[2], generator=generator)
        return x + change * (x - x.mean(1, keepdim=True)), valid
