"""Channel drop: one axis, or one whole sensor, silent for the whole window, as on a device that lacks it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from imu_saga.augmentation import AUGMENTATIONS, Augmentation, Windows, check_range, sensors
from imu_saga.masking_level import uniform, uniform_integers


@AUGMENTATIONS.register("channel_drop")
@dataclass(frozen=True)
class ChannelDrop(Augmentation):
    """Set one axis or sensor to 0, as pre-training's masks do; the last one left is never dropped.

    Args:
        probability: part of the windows that lose something.
        drops: "axis", or "sensor": all axes of one.
    """

    probability: float = 0.2
    drops: Literal["axis", "sensor"] = "sensor"

    def __post_init__(self) -> None:
        check_range(self, "probability", 0, 1)

    def apply(
        self, x: Tensor, valid: Tensor, channels: Sequence[str], rate_hz: float, generator: torch.Generator
    ) -> Windows:
        """Silence a part of the windows; see Augmentation."""
        group = torch.arange(len(channels))
        if self.drops == "sensor":
            for number, columns in enumerate(sensors(channels).values()):
                group[columns] = number
        loses = uniform(len(x), generator) < self.probability
        chosen = uniform_integers(group.max().expand(len(x)), generator)
        dropped = (group == chosen.unsqueeze(1)) & loses.unsqueeze(1) & (group.max() > 0)
        return x.masked_fill(dropped.unsqueeze(1), 0.0), valid
