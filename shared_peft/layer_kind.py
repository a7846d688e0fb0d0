"""The contract of a layer kind: which weights a layer has, in what layout, and how to run it with others."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from shared_peft.factors import Factors
from shared_peft.paths import PathCosts
from shared_peft.registry import Registry

Category = Literal["linear", "conv", "embedding", "attention", "recurrent"]
QKV: tuple[Literal["q", "k", "v"], ...] = ("q", "k", "v")


@dataclass(frozen=True)
class WeightSlot:
    """One adaptable weight inside a layer.

    Args:
        key: name of the slot, unique in its layer, without dots ("weight", "q").
        parameter: name of the parameter inside the layer ("weight", "in_proj_weight", "out_proj.weight").
        rows: the part of the parameter's first dimension that is this slot, (start, stop); None is all of it.
        transposed: the parameter's first two dimensions are (in, out / groups) rather than (out, in / groups).
        groups: number of groups of a convolution.
    """

    key: str
    parameter: str
    rows: tuple[int, int] | None = None
    transposed: bool = False
    groups: int = 1

    def read(self, parameter: Tensor) -> Tensor:
        """Return the slot's weight as methods see it, (out, in / groups, *kernel)."""
        part = parameter if self.rows is None else parameter[self.rows[0] : self.rows[1]]
        return self._flipped(part)

    def stored(self, change: Tensor) -> Tensor:
        """Return a change in the layout of the stored parameter's rows."""
        return self._flipped(change)

    def _flipped(self, weight: Tensor) -> Tensor:
        """Exchange the channel dimensions within each group; doing it twice changes nothing."""
        if not self.transposed:
            return weight
        if self.groups == 1:
            return weight.transpose(0, 1)
        return weight.unflatten(0, (self.groups, -1)).transpose(1, 2).flatten(0, 1)


def stacked_parts(parameter: str, size: int) -> tuple[WeightSlot, ...]:
    """Return q, k and v as slots of a parameter that stacks them, ``size`` rows each."""
    return tuple(WeightSlot(part, parameter, rows=(i * size, (i + 1) * size)) for i, part in enumerate(QKV))


class LayerKind(ABC):
    """How adapters meet one family of layers. Subclasses are final and register an instance in LAYER_KINDS."""

    module_types: ClassVar[tuple[type[nn.Module], ...]]

    @abstractmethod
    def category(self, layer: nn.Module) -> Category:
        """Return which target keyword covers the layer: "all-linear" (linear), "all-conv" (conv), or only "all"."""

    @abstractmethod
    def slots(self, layer: nn.Module) -> tuple[WeightSlot, ...]:
        """Return the layer's adaptable weights."""

    def parts(self, layer: nn.Module) -> tuple[WeightSlot, ...]:
        """Return q, k and v as slices of a fused weight, or nothing where it does not stack three of equal size."""
        return ()

    def refusal(self, layer: nn.Module) -> str | None:
        """Return why this layer cannot be adapted, or None."""
        return None

    def run(
        self, layer: nn.Module, weights: Mapping[str, Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Run the layer with other values for some parameters (the weight path)."""
        return functional_call(layer, dict(weights), args, kwargs)

    def is_plain(self, layer: nn.Module) -> bool:
        """Tell whether the layer's forward is torch's own, one linear function of its one weight."""
        return False

    def runs_chain(self, layer: nn.Module) -> bool:
        """Tell whether `run_chain` holds for this layer."""
        return self.is_plain(layer)

    def channel_dimension(self, layer: nn.Module) -> int:
        """Return the dimension of the layer's output that holds the channels."""
        return -1

    def narrow(self, layer: nn.Module, x: Tensor, core: Tensor) -> Tensor:
        """Run the layer's operation with a weight (rank, in, *kernel) and no bias."""
        raise AssertionError(f"{type(layer).__name__} has no activation path")

    def mix(self, layer: nn.Module, x: Tensor, matrix: Tensor) -> Tensor:
        """Map the channels of ``x`` by a matrix (out, rank)."""
        return functional.linear(x, matrix)

    def run_chain(self, layer: nn.Module, x: Tensor, factors: Factors) -> Tensor:
        """Return the change's output for input ``x``, without bias (the activation path)."""
        if factors.in_factor is not None:
            x = self.mix(layer, x, factors.in_factor)
        return self.mix(layer, self.narrow(layer, x, factors.core), factors.out_factor)

    def runs_factored(self, layer: nn.Module, x: Tensor) -> bool:
        """Tell whether `run_factored` holds for this layer and input."""
        return False

    def run_factored(self, layer: nn.Module, x: Tensor, factors: Factors, *, whole: bool) -> Tensor:
        """Return the layer's output with W + dW, whose backward reaches the factors alone.

        Args:
            layer: the layer.
            x: its input.
            factors: the change.
            whole: take the factors' gradients from the full weight's, not from narrow maps.
        """
        raise AssertionError(f"{type(layer).__name__} has no factored path")

    def training_costs(self, layer: nn.Module, x: Tensor, factors: Factors) -> PathCosts | None:
        """Return what each path costs in training where the layer has all three; None where the chain is best."""
        return None


@dataclass(frozen=True)
class LayerMapsOf:
    """A layer's operation with narrow weights, as `AdapterMethod.respond` sees it (a LayerMaps)."""

    kind: LayerKind
    layer: nn.Module

    @property
    def channel_dimension(self) -> int:
        """Dimension of the layer's output that holds the channels."""
        return self.kind.channel_dimension(self.layer)

    def narrow(self, x: Tensor, core: Tensor) -> Tensor:
        """Run the layer's operation with another weight, (rank, in, *kernel)."""
        return self.kind.narrow(self.layer, x, core)

    def mix(self, x: Tensor, matrix: Tensor) -> Tensor:
        """Map channels by a matrix (out, rank)."""
        return self.kind.mix(self.layer, x, matrix)


LAYER_KINDS: Registry[LayerKind] = Registry("layer kind")


def kind_of(layer: nn.Module) -> LayerKind | None:
    """Return the kind that adapts ``layer``, or None."""
    return next((kind for _, kind in LAYER_KINDS.items() if isinstance(layer, kind.module_types)), None)


def is_hooked(layer: nn.Module) -> bool:
    """Tell whether anything hooks into the layer's forward."""
    return bool(layer._forward_hooks or layer._forward_pre_hooks)
