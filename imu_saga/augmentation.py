"""The contract of an augmentation: windows that could have been measured too, made from those that were."""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from shared_peft.config import from_json
from shared_peft.errors import ConfigError
from shared_peft.registry import Registry

Windows = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Augmentation(ABC):
    """One kind of change. Subclasses are final frozen dataclasses and register themselves in AUGMENTATIONS.

    With its first field, the strength, at 0 each leaves its windows as they are.
    """

    @abstractmethod
    def apply(
        self, x: Tensor, valid: Tensor, channels: Sequence[str], rate_hz: float, generator: torch.Generator
    ) -> Windows:
        """Change every window of a batch, each in its own way.

        Args:
            x: windows, shape (windows, samples, channels), SI units; left untouched.
            valid: which samples were measured, bool, shape (windows, samples); left untouched.
            channels: channel names in the order of the last dimension.
            rate_hz: sampling rate [Hz].
            generator: source of randomness; the same state gives the same windows.

        Returns:
            The changed windows and which of their samples rest on measured ones, in the shapes given.
        """


AUGMENTATIONS: Registry[type[Augmentation]] = Registry("augmentation")


class Augmentations:
    """Augmentations one after the other.

    Args:
        options: the options of each by its name in AUGMENTATIONS, in the order they are applied.

    Raises:
        UnknownNameError: no such augmentation.
        ConfigError: an option it does not have, or a value out of range.

    Example:
        >>> chain = Augmentations({"rotation": {"largest_deg": 180.0}, "gap_drop": {}})
        >>> x, valid = torch.zeros(4, 120, 3), torch.ones(4, 120, dtype=torch.bool)
        >>> x, valid = chain.apply(x, valid, ("acc_x", "acc_y", "acc_z"), 20.0, torch.Generator())
        >>> x.shape
        torch.Size([4, 120, 3])
    """

    def __init__(self, options: Mapping[str, Mapping[str, Any]]) -> None:
        import imu_saga.augmentations  # noqa: F401, PLC0415  (the entries import this file)

        self.chain = [
            from_json(AUGMENTATIONS.get(name), given, f"augmentation {name}") for name, given in options.items()
        ]

    def apply(
        self, x: Tensor, valid: Tensor, channels: Sequence[str], rate_hz: float, generator: torch.Generator
    ) -> Windows:
        """Apply every augmentation in turn; see Augmentation."""
        for augmentation in self.chain:
            x, valid = augmentation.apply(x, valid, channels, rate_hz, generator)
        return x, valid


def parse_augmentations(texts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return options by augmentation, from NAME or NAME.OPTION=VALUE as typed; numbers are read as such.

    Raises:
        ConfigError: an option without a value.

    Example:
        >>> parse_augmentations(["rotation", "gap_drop.fill=zero", "gap_drop.longest_s=1"])
        {'rotation': {}, 'gap_drop': {'fill': 'zero', 'longest_s': 1}}
    """
    options: dict[str, dict[str, Any]] = {}
    for text in texts:
        name, dot, rest = text.partition(".")
        option, equals, value = rest.partition("=")
        chosen = options.setdefault(name, {})
        if dot and not equals:
            raise ConfigError("--augment", "must be NAME or NAME.OPTION=VALUE", repr(text), "Give the option a value")
        if dot:
            try:
                chosen[option] = json.loads(value)
            except json.JSONDecodeError:
                chosen[option] = value
    return options


def sensors(channels: Sequence[str]) -> dict[str, list[int]]:
    """Return the columns of every sensor: channels whose names are alike up to the last "_".

    Example:
        >>> sensors(("acc_x", "acc_y", "mag_x"))
        {'acc': [0, 1], 'mag': [2]}
    """
    found: dict[str, list[int]] = {}
    for column, name in enumerate(channels):
        found.setdefault(name.rpartition("_")[0] or name, []).append(column)
    return found


def check_range(augmentation: Augmentation, name: str, lowest: float, highest: float) -> None:
    """Raise ConfigError unless a field of an augmentation lies in [lowest, highest]."""
    value = getattr(augmentation, name)
    if not lowest <= value <= highest:
        where = f"augmentation {type(augmentation).__name__}.{name}"
        raise ConfigError(where, f"must be in [{lowest:g}, {highest:g}]", value, "Correct it")
