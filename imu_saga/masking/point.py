"""Point level: short spans of time on all axes (as LIMU-BERT, Xu et al. 2021, but with every index reachable)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from imu_saga.masking_level import MASKING_LEVELS, MaskingLevel, check_windows, spans, uniform_integers

REFERENCE_RATE_HZ = 20.0


@MASKING_LEVELS.register("point")
@dataclass(frozen=True)
class PointLevel(MaskingLevel):
    """Hide spans whose length is geometric, clipped, at uniform places.

    Args:
        p: parameter of the geometric length at 20 Hz; at other rates spans last the same time.
        longest: longest span [samples at 20 Hz].
        share: spans are added until this share of the window is hidden, in (0, 1).
        count: "repeat" until ``share`` is hidden, or "one" span.
    """

    p: float = 0.2
    longest: int = 10
    share: float = 0.15
    count: Literal["repeat", "one"] = "repeat"

    def draw(
        self, x: Tensor, valid: Tensor, generator: torch.Generator, *, rate_hz: float, channels: Sequence[str]
    ) -> Tensor:
        """Draw spans over all axes; see MaskingLevel."""
        check_windows(x, channels)
        windows, samples, _ = x.shape
        needed = max(1, math.ceil(self.share * samples))
        candidates = 1 if self.count == "one" else self._candidates(needed, rate_hz)
        start, stop = self._spans(windows, candidates, samples, rate_hz, generator)
        order = torch.arange(candidates, dtype=torch.int16).view(1, -1, 1)
        first = torch.where(spans(start, stop, samples), order, candidates).amin(1)  # first span over each index
        last_used = first.kthvalue(needed, dim=1, keepdim=True).values if self.count == "repeat" else 0
        hidden = (first <= last_used) & (first < candidates)
        return hidden.unsqueeze(-1).expand_as(x).clone()

    def _probability(self, rate_hz: float) -> float:
        return min(1.0, self.p * REFERENCE_RATE_HZ / rate_hz)

    def _candidates(self, needed: int, rate_hz: float) -> int:
        """Return a number of spans that as good as always hides ``needed`` samples, overlaps included."""
        return 6 + math.ceil(3 * needed * self._probability(rate_hz))

    def _spans(
        self, windows: int, count: int, samples: int, rate_hz: float, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return starts and stops (exclusive), each of shape (windows, count)."""
        p = self._probability(rate_hz)
        longest = max(1, min(round(self.longest * rate_hz / REFERENCE_RATE_HZ), samples // 2))
        drawn = torch.rand(windows, count, generator=generator, dtype=torch.float64)
        # inverse of the geometric distribution function, lengths 1, 2, ...
        length = torch.ones_like(drawn) if p >= 1 else torch.log1p(-drawn).div(math.log1p(-p)).floor() + 1
        length = length.clamp(max=longest).long()
        start = uniform_integers(samples - length, generator)
        return start, start + length


def point_where(
    fallback: Tensor,
    hidden: Tensor,
    x: Tensor,
    valid: Tensor,
    generator: torch.Generator,
    rate_hz: float,
    channels: Sequence[str],
) -> Tensor:
    """Return ``hidden`` with a point-level mask in the windows marked in ``fallback``, bool, shape (windows,)."""
    mask = hidden.clone()
    if fallback.any():
        level = PointLevel()
        mask[fallback] = level.draw(x[fallback], valid[fallback], generator, rate_hz=rate_hz, channels=channels)
    return mask
