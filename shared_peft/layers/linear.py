"""Linear layers: y = x W^T + b."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from shared_peft import factored
from shared_peft.factors import Factors
from shared_peft.layer_kind import LAYER_KINDS, Category, LayerKind, WeightSlot, is_hooked, stacked_parts
from shared_peft.paths import PathCosts, path_costs


class LinearKind(LayerKind):
    """nn.Linear and its subclasses."""

    module_types = (nn.Linear,)

    def category(self, layer: nn.Module) -> Category:
        """Every linear layer is "linear"."""
        return "linear"

    def slots(self, layer: nn.Module) -> tuple[WeightSlot, ...]:
        """One weight, (out, in)."""
        return (WeightSlot("weight", "weight"),)

    def parts(self, layer: Any) -> tuple[WeightSlot, ...]:
        """Three square matrices on top of each other, where the shape allows it."""
        out_features, in_features = layer.weight.shape
        return stacked_parts("weight", in_features) if out_features == 3 * in_features else ()

    def run(self, layer: Any, weights: Mapping[str, Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """Call the linear function itself where the layer is a plain one."""
        if self.is_plain(layer) and not is_hooked(layer) and len(args) == 1 and not kwargs:
            return functional.linear(args[0], weights["weight"], layer.bias)
        return super().run(layer, weights, args, kwargs)

    def is_plain(self, layer: nn.Module) -> bool:
        """Only where forward is nn.Linear's own, or timm's, which differs while it is scripted alone."""
        cls = type(layer)
        return cls.forward is nn.Linear.forward or (cls.__module__, cls.__qualname__) == (
            "timm.layers.linear",
            "Linear",
        )

    def narrow(self, layer: nn.Module, x: Tensor, core: Tensor) -> Tensor:
        """Multiply by the core, (rank, in)."""
        return functional.linear(x, core)

    def runs_factored(self, layer: nn.Module, x: Tensor) -> bool:
        """For every plain layer."""
        return self.is_plain(layer) and not is_hooked(layer)

    def run_factored(self, layer: Any, x: Tensor, factors: Factors, *, whole: bool) -> Tensor:
        """Multiply by W + dW once."""
        return factored.linear(x, layer.weight, layer.bias, factors, whole=whole)

    def training_costs(self, layer: Any, x: Tensor, factors: Factors) -> PathCosts:
        """Every row of the input is a position."""
        rows = x.numel() // x.shape[-1]
        return path_costs(layer.weight.shape, factors.without_in_factor(), rows, rows)


LAYER_KINDS.register("linear")(LinearKind())
