"""Sensor level: one axis, or one whole sensor, for the whole window (Saga, arXiv:2504.11726)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from imu_saga.masking.point import PointLevel
from imu_saga.masking_level import MASKING_LEVELS, MaskingLevel, check_windows, uniform_integers


@MASKING_LEVELS.register("sensor")
@dataclass(frozen=True)
class SensorLevel(MaskingLevel):
    """Hide one axis drawn uniformly; windows of a single channel fall back to the point level.

    Args:
        hides: "axis", or "sensor": all axes of one device (names alike up to the "_") where there are two.
    """

    hides: Literal["axis", "sensor"] = "axis"

    def draw(
        self, x: Tensor, valid: Tensor, generator: torch.Generator, *, rate_hz: float, channels: Sequence[str]
    ) -> Tensor:
        """Draw one axis or sensor a window; see MaskingLevel."""
        check_windows(x, channels)
        if len(channels) == 1:
            return PointLevel().draw(x, valid, generator, rate_hz=rate_hz, channels=channels)
        group = self._groups(channels)
        chosen = uniform_integers(torch.full((len(x),), int(group.max())), generator)
        return (group == chosen.unsqueeze(1)).unsqueeze(1).expand_as(x).clone()

    def _groups(self, channels: Sequence[str]) -> Tensor:
        """Return the group number of every channel, shape (channels,)."""
        sensors = list(dict.fromkeys(name.split("_")[0] for name in channels))
        if self.hides == "axis" or len(sensors) == 1:
            return torch.arange(len(channels))
        return torch.tensor([sensors.index(name.split("_")[0]) for name in channels])
