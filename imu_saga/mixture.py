"""Masks of several levels at once: one level a window drawn by weight, or every level for the weighted sum."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

import imu_saga.masking  # noqa: F401  (registers the levels)
from imu_saga.masking_level import MASKING_LEVELS
from shared_peft.errors import ConfigError


def normalised_weights(weights: Mapping[str, float]) -> dict[str, float]:
    """Return weights that sum to 1, for every registered level, absent ones as 0, sorted by name.

    Raises:
        UnknownNameError: a level that is not registered.
        ConfigError: a negative weight, or none above 0.
    """
    for name, weight in weights.items():
        MASKING_LEVELS.get(name)
        if not 0 <= weight < float("inf"):
            raise ConfigError(f"weight of level {name}", "must be 0 or more", weight, "Correct it")
    total = sum(weights.values())
    if total <= 0:
        raise ConfigError("weights", "one must be above 0", dict(weights), "Give a level a weight")
    return {name: weights.get(name, 0.0) / total for name in MASKING_LEVELS.names()}


def draw_mixture(
    x: Tensor,
    valid: Tensor,
    weights: Mapping[str, float],
    generator: torch.Generator,
    *,
    rate_hz: float,
    channels: Sequence[str],
) -> tuple[Tensor, Tensor]:
    """Draw one level a window with probability its weight, and that level's mask.

    Args:
        x: windows, shape (windows, samples, channels).
        valid: measured samples, bool, shape (windows, samples).
        weights: probability by level, summing to 1.
        generator: source of randomness.
        rate_hz: sampling rate [Hz].
        channels: channel names.

    Returns:
        The mask, bool, in the shape of ``x``, and each window's level as an index into ``weights``, shape (windows,).
    """
    probabilities = torch.tensor(list(weights.values()), dtype=torch.float64)
    level = torch.multinomial(probabilities, len(x), replacement=True, generator=generator)
    mask = torch.zeros(x.shape, dtype=torch.bool)
    for index, name in enumerate(weights):
        rows = (level == index).nonzero().squeeze(1)
        if len(rows):
            chosen = MASKING_LEVELS.get(name)()
            mask[rows] = chosen.draw(x[rows], valid[rows], generator, rate_hz=rate_hz, channels=channels)
    return mask, level


def draw_every_level(
    x: Tensor,
    valid: Tensor,
    levels: Sequence[str],
    generator: torch.Generator,
    *,
    rate_hz: float,
    channels: Sequence[str],
) -> Tensor:
    """Draw a mask of every level for every window: bool, shape (windows, levels, samples, channels)."""
    masks = [
        MASKING_LEVELS.get(name)().draw(x, valid, generator, rate_hz=rate_hz, channels=channels) for name in levels
    ]
    return torch.stack(masks, dim=1)
