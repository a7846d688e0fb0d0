"""Sub-period level: everything between two neighbouring key points of the energy (Saga, arXiv:2504.11726)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from imu_saga.masking.point import point_where
from imu_saga.masking_level import MASKING_LEVELS, MaskingLevel, check_windows, spans, uniform, uniform_integers
from imu_saga.signal.rhythm import energy, key_points


@MASKING_LEVELS.register("sub_period")
@dataclass(frozen=True)
class SubPeriodLevel(MaskingLevel):
    """Hide one stroke of a movement; windows with fewer than 2 key points fall back to the point level.

    Args:
        longest_share: longest part of the window to hide, in (0, 1); of a longer stroke a random part is hidden.
    """

    longest_share: float = 0.4

    def draw(
        self, x: Tensor, valid: Tensor, generator: torch.Generator, *, rate_hz: float, channels: Sequence[str]
    ) -> Tensor:
        """Draw one pair of neighbouring key points a window; see MaskingLevel."""
        check_windows(x, channels)
        samples = x.shape[1]
        rank = key_points(energy(x, valid, rate_hz, channels), rate_hz).cumsum(1)
        pairs = rank[:, -1] - 1
        chosen = torch.minimum((uniform(len(x), generator) * pairs).long(), pairs - 1).clamp(min=0).unsqueeze(1)
        first, last = (rank <= chosen).sum(1), (rank <= chosen + 1).sum(1)  # indices of the two key points
        stroke = last - first + 1
        length = stroke.clamp(max=max(1, int(self.longest_share * samples)))
        start = first + uniform_integers((stroke - length).clamp(min=0), generator)
        hidden = spans(start, start + length, samples).unsqueeze(-1).expand_as(x)
        return point_where(pairs < 1, hidden, x, valid, generator, rate_hz, channels)
