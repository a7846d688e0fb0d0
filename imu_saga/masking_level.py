"""The contract of a masking level: which entries of a window pre-training hides (Saga, arXiv:2504.11726)."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from shared_peft.errors import DataError
from shared_peft.registry import Registry

SHORTEST_WINDOW = 4


@dataclass(frozen=True)
class MaskingLevel(ABC):
    """One semantic level. Subclasses are final frozen dataclasses and register themselves in MASKING_LEVELS."""

    @abstractmethod
    def draw(
        self, x: Tensor, valid: Tensor, generator: torch.Generator, *, rate_hz: float, channels: Sequence[str]
    ) -> Tensor:
        """Draw what to hide in every window of a batch.

        Args:
            x: windows, shape (windows, samples, channels), SI units.
            valid: which samples were measured, bool, shape (windows, samples).
            generator: source of randomness; the same state gives the same mask.
            rate_hz: sampling rate [Hz].
            channels: channel names in the order of the last dimension.

        Returns:
            Bool, True where hidden, shape (windows, samples, channels); never all of a window.
        """


MASKING_LEVELS: Registry[type[MaskingLevel]] = Registry("masking level")


def uniform(count: int, generator: torch.Generator) -> Tensor:
    """Draw ``count`` numbers in [0, 1), shape (count,)."""
    return torch.rand(count, generator=generator)


def uniform_integers(highest: Tensor, generator: torch.Generator) -> Tensor:
    """Draw integers uniformly in [0, highest], the ends included, one for each entry of ``highest``."""
    drawn = torch.rand(highest.shape, generator=generator) * (highest + 1)
    return torch.minimum(drawn.long(), highest)


def spans(start: Tensor, stop: Tensor, samples: int) -> Tensor:
    """Mark start <= index < stop: bool, shape (*start.shape, samples)."""
    index = torch.arange(samples)
    return (index >= start.unsqueeze(-1)) & (index < stop.unsqueeze(-1))


def check_windows(x: Tensor, channels: Sequence[str]) -> None:
    """Refuse windows too short to hide a part of, or with other channels than named.

    Raises:
        DataError: fewer than 4 samples, or a channel count that differs from the names.
    """
    if x.ndim != 3 or x.shape[1] < SHORTEST_WINDOW or x.shape[2] != len(channels):
        must = f"windows must be (windows, at least {SHORTEST_WINDOW} samples, {len(channels)} channels)"
        raise DataError("masking", must, tuple(x.shape), "Cut longer windows, or name the channels they have")
