"""Augmentation of windows: one proper rotation of the device, shared by all its sensors; jitter and scale."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


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
    for sensor in dict.fromkeys(name.rpartition("_")[0] for name in channels):
        axes = [f"{sensor}_{axis}" for axis in "xyz"]
        if sensor and all(axis in channels for axis in axes):
            columns = [list(channels).index(axis) for axis in axes]
            turned[..., columns] = x[..., columns] @ rotations.mT
    return turned


def jitter_and_scale(x: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Scale every channel by about 1 +- ``strength`` and add noise of ``strength`` times its deviation."""
    deviation = x.std(1, keepdim=True)
    scale = 1 + strength * torch.randn(x.shape[0], 1, x.shape[2], generator=generator)
    centre = x.mean(1, keepdim=True)
    return centre + (x - centre) * scale + strength * deviation * torch.randn(x.shape, generator=generator)
