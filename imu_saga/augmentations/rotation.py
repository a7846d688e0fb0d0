"""Rotation: the device worn at another angle; one proper rotation turns all its sensors."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from imu_saga.augmentation import AUGMENTATIONS, Augmentation, Windows, check_range, sensors


@AUGMENTATIONS.register("rotation")
@dataclass(frozen=True)
class Rotation(Augmentation):
    """One rotation a window, det +1, about a uniform axis, shared by accelerometer, gyroscope and magnetometer.

    Args:
        largest_deg: largest angle [degrees], drawn uniformly from [-largest, largest].
    """

    largest_deg: float = 15.0

    def __post_init__(self) -> None:
        check_range(self, "largest_deg", 0, 180)

    def apply(
        self, x: Tensor, valid: Tensor, channels: Sequence[str], rate_hz: float, generator: torch.Generator
    ) -> Windows:
        """Turn every window; see Augmentation."""
        return rotate(x, random_rotations(len(x), self.largest_deg, generator), channels), valid


def random_rotations(count: int, largest_deg: float, generator: torch.Generator) -> Tensor:
    """Draw rotations about uniform axes by angles uniform in [-largest, largest] (Rodrigues' formula).

    Args:
        count: how many.
        largest_deg: largest angle [degrees].
        generator: source of randomness.

    Returns:
        Matrices of determinant +1, shape (count, 3, 3).
    """
    axis = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=1)
    angle = (2 * torch.rand(count, 1, 1, generator=generator) - 1) * math.radians(largest_deg)
    cross = torch.zeros(count, 3, 3)
    cross[:, 0, 1], cross[:, 0, 2], cross[:, 1, 2] = -axis[:, 2], axis[:, 1], -axis[:, 0]
    cross = cross - cross.mT
    return torch.eye(3) + angle.sin() * cross + (1 - angle.cos()) * (cross @ cross)


def rotate(x: Tensor, rotations: Tensor, channels: Sequence[str]) -> Tensor:
    """Turn every complete sensor (three axes *_x, *_y, *_z) of every window by the window's rotation.

    Args:
        x: windows, shape (windows, samples, channels).
        rotations: shape (windows, 3, 3).
        channels: channel names; axes of incomplete sensors stay as they are.

    Returns:
        The turned windows, in the shape of ``x``.
    """
    turned = x.clone()
    for sensor in sensors(channels):
        axes = [f"{sensor}_{axis}" for axis in "xyz"]
        if all(axis in channels for axis in axes):
            columns = [list(channels).index(axis) for axis in axes]
            turned[..., columns] = x[..., columns] @ rotations.mT
    return turned
