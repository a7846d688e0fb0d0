"""Time warp: the same movement made faster here and slower there, by a smooth monotone warp that keeps both ends."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from imu_saga.augmentation import AUGMENTATIONS, Augmentation, Windows, check_range
from imu_saga.recording import GYRO_CHANNELS


@AUGMENTATIONS.register("time_warp")
@dataclass(frozen=True)
class TimeWarp(Augmentation):
    """Play every window at a varying speed, 1 on average; its logarithm is normal at a few knots, linear between them.

    What stays physical: an angular rate is an angle over time, so the gyroscope is multiplied by the local speed and
    the angle turned over the window is kept. The accelerometer's values are only moved in time: gravity does not
    depend on speed, and the rest, which goes with the speed's square, cannot be told from it without the device's
    orientation; for speeds near 1 the error is small. A sample between a measured and an unmeasured one counts as
    unmeasured.

    Args:
        strength: standard deviation of the speed's logarithm at a knot.
        knots: places where the speed is drawn, the two ends included.
    """

    strength: float = 0.15
    knots: int = 5

    def __post_init__(self) -> None:
        check_range(self, "strength", 0, 1)
        check_range(self, "knots", 2, 1000)

    def apply(
        self, x: Tensor, valid: Tensor, channels: Sequence[str], rate_hz: float, generator: torch.Generator
    ) -> Windows:
        """Warp every window; see Augmentation."""
        time, speed = warps(len(x), x.shape[1], self.strength, self.knots, generator)
        before = time.long()
        after = (before + 1).clamp(max=x.shape[1] - 1)
        part = time - before
        rows = torch.arange(len(x)).unsqueeze(1)
        low, high = x[rows, before], x[rows, after]
        warped = low + part.to(x.dtype).unsqueeze(2) * (high - low)
        turning = torch.tensor([name in GYRO_CHANNELS for name in channels])
        factor = torch.where(turning, speed.to(x.dtype).unsqueeze(2), torch.ones((), dtype=x.dtype))
        return warped * factor, valid[rows, before] & (valid[rows, after] | (part == 0))


def warps(count: int, samples: int, strength: float, knots: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw warps of time.

    Args:
        count: how many.
        samples: samples in a window.
        strength: standard deviation of the speed's logarithm at a knot.
        knots: knots of the speed.
        generator: source of randomness.

    Returns:
        Where each new sample lies on the old time line, [samples], ascending from 0 to samples - 1, and its slope,
        the speed; both float64 of shape (count, samples).
    """
    drawn = strength * torch.randn(count, 1, knots, generator=generator, dtype=torch.float64)
    speed = functional.interpolate(drawn, size=samples, mode="linear", align_corners=True).squeeze(1).exp()
    steps = (speed[:, 1:] + speed[:, :-1]) / 2
    time = functional.pad(steps.cumsum(1), (1, 0))
    total = time[:, -1:].clamp(min=1e-12)
    return (time * (samples - 1) / total).clamp(max=samples - 1), speed * (
        samples - 1
    ) / total if samples > 1 else speed
