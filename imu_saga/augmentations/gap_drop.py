"""Gap drop: a stretch of samples lost on the way, filled as a receiver would and marked as not measured."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from imu_saga.augmentation import AUGMENTATIONS, Augmentation, Windows, check_range
from imu_saga.masking_level import spans, uniform, uniform_integers


@AUGMENTATIONS.register("gap_drop")
@dataclass(frozen=True)
class GapDrop(Augmentation):
    """Lose one stretch of all channels; at least one sample of a window stays.

    Args:
        probability: part of the windows that lose a stretch.
        longest_s: longest stretch [s]; lengths are uniform from one sample on, starts uniform.
        fill: "hold" repeats the last sample before the stretch (the first after it where there is none), "zero".
    """

    probability: float = 0.2
    longest_s: float = 0.5
    fill: Literal["hold", "zero"] = "hold"

    def __post_init__(self) -> None:
        check_range(self, "probability", 0, 1)
        check_range(self, "longest_s", 0, float("inf"))

    def apply(
        self, x: Tensor, valid: Tensor, channels: Sequence[str], rate_hz: float, generator: torch.Generator
    ) -> Windows:
        """Lose a stretch of a part of the windows; see Augmentation."""
        windows, samples = valid.shape
        longest = int(min(self.longest_s * rate_hz, samples - 1))
        loses = (uniform(windows, generator) < self.probability) & (longest > 0)
        length = 1 + uniform_integers(torch.full((windows,), max(longest - 1, 0)), generator)
        start = uniform_integers(samples - length, generator)
        lost = spans(start, start + length, samples) & loses.unsqueeze(1)
        held = torch.where(start > 0, start - 1, start + length).clamp(max=samples - 1)
        value = x[torch.arange(windows), held] if self.fill == "hold" else torch.zeros_like(x[:, 0])
        return torch.where(lost.unsqueeze(2), value.unsqueeze(1), x), valid & ~lost
