"""The contract of an adapter method: a function of the frozen weight that yields a change of the same shape."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, ClassVar, Literal, Protocol

from torch import Tensor, nn

from shared_peft.errors import ConfigError, RankError
from shared_peft.factors import Factors
from shared_peft.registry import Registry


@dataclass(frozen=True)
class AdapterConfig:
    """What every method's configuration holds, under Hugging Face peft's names.

    Args:
        target_modules: layers to adapt: a list of name suffixes, a regular expression that matches the whole name, or
            "all", "all-linear" (1x1 convolutions included), "all-conv".
        exclude_modules: layers to leave alone, in the same notation.
        modules_to_save: modules trained in full and stored with the adapter (a new classifier head), as suffixes.
        qkv_parts: parts of fused query-key-value weights to adapt, some of "q", "k", "v", each by factors of its own;
            None adapts a fused linear layer as one weight, and all three parts of nn.MultiheadAttention.
    """

    _: KW_ONLY
    target_modules: list[str] | str = "all"
    exclude_modules: list[str] | str | None = None
    modules_to_save: list[str] | None = None
    qkv_parts: list[Literal["q", "k", "v"]] | None = None


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


class LayerMaps(Protocol):
    """What a method that cannot be merged may use of the layer it sits beside."""

    @property
    def channel_dimension(self) -> int:
        """Dimension of the layer's output that holds the channels."""
        ...

    def narrow(self, x: Tensor, core: Tensor) -> Tensor:
        """Run the layer's own operation (stride, padding, dilation) with another weight, (rank, in, *kernel)."""
        ...

    def mix(self, x: Tensor, matrix: Tensor) -> Tensor:
        """Map the channels of a narrow map, or of an output, by a matrix (out, rank)."""
        ...


class AdapterMethod(nn.Module, ABC):
    """One adapter on one weight. Subclasses are final, register themselves in METHODS and own their parameters.

    A method that cannot be written as a weight change sets ``mergeable = False`` and implements `respond`.

    Args:
        spec: the weight to adapt.
        config: the method's configuration, ranks already resolved for this layer.
        generator: source of the random initial values; None uses torch's global one.
    """

    config_class: ClassVar[type[AdapterConfig]]
    citation: ClassVar[str]
    mergeable: ClassVar[bool] = True
    experimental: ClassVar[bool] = False
    dropout: float = 0.0
    clamped: str = ""

    def start(self, weight: Tensor) -> None:
        """Take start values from the frozen weight; called once when a fresh adapter is attached, never on loading.

        Args:
            weight: shape (out, in / groups, *kernel), of any floating type.
        """

    @abstractmethod
    def delta_weight(self, weight: Tensor) -> Tensor:
        """Return the change of ``weight``, in its shape (out, in / groups, *kernel)."""

    def factors(self) -> Factors | None:
        """Return the change as a chain of small maps, or None for a method that has none."""
        return None

    def respond(self, x: Tensor, output: Tensor, maps: LayerMaps) -> Tensor:
        """Return what a method that cannot be merged adds to the layer's output.

        Args:
            x: the layer's input, after this method's dropout.
            output: the frozen layer's output.
            maps: the layer's operation with narrow weights.
        """
        raise AssertionError(f"{type(self).__name__} is mergeable: use delta_weight")

    def penalty(self) -> Tensor | None:
        """Return a scalar to add to the training loss, or None."""
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
