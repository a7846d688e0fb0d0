"""The contract of an adapter method: a function of the frozen weight that yields a change of the same shape."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from shared_peft.errors import ConfigError, RankError
from shared_peft.registry import Registry


@dataclass(frozen=True)
class AdapterConfig:
    """What every method's configuration holds, under Hugging Face peft's names.

    Args:
        target_modules: layers to adapt: a list of name suffixes, a regular expression that matches the whole name, or
            "all", "all-linear" (1x1 convolutions included), "all-conv".
        exclude_modules: layers to leave alone, in the same notation.
        modules_to_save: modules trained in full and stored with the adapter (a new classifier head), as suffixes.
    """

    _: KW_ONLY
    target_modules: list[str] | str = "all"
    exclude_modules: list[str] | str | None = None
    modules_to_save: list[str] | None = None


@dataclass(frozen=True)
class WeightSpec:
    """One weight as methods see it, whatever layer it lives in.

    Args:
        name: full name of the layer (and slot) in the model, for error messages.
        shape: (out, in / groups, *kernel); a linear layer has no kernel modes.
        groups: number of groups of a convolution, else 1.
    """

    name: str
    shape: tuple[int, ...]
    groups: int = 1

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """Shape of the weight as a matrix: (out, in / groups * kernel size)."""
        return self.shape[0], math.prod(self.shape[1:])


@dataclass(frozen=True)
class Factors:
    """A weight change as a chain of small maps: out_factor . core . in_factor.

    Args:
        core: shape (rank_out, rank_in, *kernel).
        out_factor: shape (out, rank_out), the scale included.
        in_factor: shape (rank_in, in / groups), or None where the core takes the layer's input itself.
    """

    core: Tensor
    out_factor: Tensor
    in_factor: Tensor | None = None

    def compose(self) -> Tensor:
        """Multiply the chain out: shape (out, in / groups, *kernel), contracting the smaller channel mode first."""
        core, kernel = self.core, self.core.shape[2:]
        rank_out, rank_in = core.shape[:2]
        if self.in_factor is not None:
            channels = self.in_factor.shape[1]
            core = torch.einsum("oi...,ic->oc...", core, self.in_factor) if kernel else core @ self.in_factor
            rank_in = channels
        change = self.out_factor @ core.reshape(rank_out, -1)
        return change.reshape(self.out_factor.shape[0], rank_in, *kernel)


class AdapterMethod(nn.Module, ABC):
    """One adapter on one weight. Subclasses are final, register themselves in METHODS and own their parameters.

    Args:
        spec: the weight to adapt.
        config: the method's configuration, ranks already resolved for this layer.
        generator: source of the random initial values; None uses torch's global one.
    """

    config_class: ClassVar[type[AdapterConfig]]
    citation: ClassVar[str]
    dropout: float = 0.0
    clamped: str = ""

    @abstractmethod
    def delta_weight(self, weight: Tensor) -> Tensor:
        """Return the change of ``weight``, in its shape (out, in / groups, *kernel)."""

    def factors(self) -> Factors | None:
        """Return the change as a chain of small maps, or None for a method that has none."""
        return None

    def update_and_allocate(self, step: int, weight: Tensor) -> Iterator[nn.Parameter]:
        """Move on to the phase that optimiser step ``step`` belongs to.

        Args:
            step: optimiser steps done so far.
            weight: the frozen weight, shape (out, in / groups, *kernel).

        Returns:
            The parameters whose values were restarted, and whose optimiser state must be too.
        """
        return iter(())


METHODS: Registry[type[AdapterMethod]] = Registry("adapter method")


def make_config(method: str, **fields: Any) -> AdapterConfig:
    """Return the configuration of the method called ``method``, checking every field.

    Args:
        method: a name from METHODS, such as "lora".
        fields: the configuration's fields by name.

    Raises:
        UnknownNameError: no such method.
        ConfigError: no such field, or a value of another type.
    """
    from shared_peft.config import from_json  # noqa: PLC0415

    return from_json(METHODS.get(method).config_class, fields, f"{method} config")


def method_name(config: AdapterConfig) -> str:
    """Return the registered name of the method a configuration belongs to."""
    for name, method in METHODS.items():
        if method.config_class is type(config):
            return name
    raise ConfigError(
        "config", f"must be one of {', '.join(METHODS.names())}", type(config).__name__, "Use make_config"
    )


def checked_rank(spec: WeightSpec, rank: int) -> int:
    """Return ``rank`` if the weight, read as a matrix, can have it.

    Raises:
        RankError: the rank is below 1 or above the smaller matrix dimension.
    """
    largest = min(spec.matrix_shape)
    if not 1 <= rank <= largest:
        raise RankError(spec.name, f"rank must be in [1, {largest}]", rank, "Lower r or exclude the layer")
    return rank


def pattern_field() -> Any:
    """Return a dataclass field for values by layer-name pattern."""
    return field(default_factory=dict)
