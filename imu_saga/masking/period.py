"""Period level: one main period of the movement (Saga, arXiv:2504.11726)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from imu_saga.masking.point import point_where
from imu_saga.masking_level import MASKING_LEVELS, MaskingLevel, check_windows, spans, uniform_integers
from imu_saga.signal.rhythm import energy, main_period


@MASKING_LEVELS.register("period")
@dataclass(frozen=True)
class PeriodLevel(MaskingLevel):
    """Hide one main period at a uniform place; windows without a clear period fall back to the point level."""

    def draw(
        self, x: Tensor, valid: Tensor, generator: torch.Generator, *, rate_hz: float, channels: Sequence[str]
    ) -> Tensor:
        """Draw the place of one period a window; see MaskingLevel."""
        check_windows(x, channels)
        samples = x.shape[1]
        period, clear = main_period(energy(x, valid, rate_hz, channels))
        length = period.round().long().clamp(2, samples // 2)
        start = uniform_integers(samples - length, generator)
        hidden = spans(start, start + length, samples).unsqueeze(-1).expand_as(x)
        return point_where(~clear, hidden, x, valid, generator, rate_hz, channels)
