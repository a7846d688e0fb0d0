"""Convolutions in one, two and three dimensions, of any groups, stride, dilation, padding and padding mode."""

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from shared_peft import factored
from shared_peft.factors import Factors
from shared_peft.layer_kind import LAYER_KINDS, Category, LayerKind, WeightSlot, is_hooked
from shared_peft.paths import PathCosts, path_costs

_CONVOLVE = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}


class ConvKind(LayerKind):
    """nn.Conv1d, nn.Conv2d, nn.Conv3d and their subclasses."""

    module_types = (nn.Conv1d, nn.Conv2d, nn.Conv3d)

    def category(self, layer: Any) -> Category:
        """A 1x1 convolution without groups is a linear layer on every position."""
        return "linear" if math.prod(layer.kernel_size) == 1 and layer.groups == 1 else "conv"

    def slots(self, layer: Any) -> tuple[WeightSlot, ...]:
        """One weight, (out, in / groups, *kernel)."""
        return (WeightSlot("weight", "weight", groups=layer.groups),)

    def run(self, layer: Any, weights: Mapping[str, Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """Call the convolution itself, padding mode included, where the layer is a plain one."""
        if self.is_plain(layer) and not is_hooked(layer) and len(args) == 1 and not kwargs:
            return layer._conv_forward(args[0], weights["weight"], layer.bias)
        return super().run(layer, weights, args, kwargs)

    def runs_chain(self, layer: Any) -> bool:
        """Only for plain layers without groups: a grouped chain costs more than the grouped convolution."""
        return layer.groups == 1 and self.is_plain(layer)

    def is_plain(self, layer: nn.Module) -> bool:
        """Only where forward is torch's own."""
        own: Any = next(cls for cls in self.module_types if isinstance(layer, cls))
        return type(layer).forward is own.forward and type(layer)._conv_forward is own._conv_forward  # type: ignore[attr-defined]

    def channel_dimension(self, layer: nn.Module) -> int:
        """Channels come after the batch, which may be missing."""
        return -1 - len(layer.kernel_size)  # type: ignore[arg-type]

    def narrow(self, layer: Any, x: Tensor, core: Tensor) -> Tensor:
        """Convolve with the core as the layer would, padding mode included."""
        return layer._conv_forward(x, core, None)

    def mix(self, layer: Any, x: Tensor, matrix: Tensor) -> Tensor:
        """Convolve with a kernel of size 1."""
        modes = len(layer.kernel_size)
        return _CONVOLVE[modes](x, matrix.reshape(*matrix.shape, *(1,) * modes))

    def runs_factored(self, layer: nn.Module, x: Tensor) -> bool:
        """For every plain layer, batched."""
        return self.is_plain(layer) and not is_hooked(layer) and x.dim() == layer.weight.dim()  # type: ignore[operator]

    def run_factored(self, layer: Any, x: Tensor, factors: Factors, *, whole: bool) -> Tensor:
        """Convolve with W + dW once; padding that is not plain zeros is written around the input first."""
        padding = layer.padding
        if layer.padding_mode != "zeros" or isinstance(padding, str):
            around = layer._reversed_padding_repeated_twice
            mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
            x, padding = functional.pad(x, around, mode) if any(around) else x, (0,) * len(layer.kernel_size)
        geometry = factored.Geometry(layer.stride, padding, layer.dilation, layer.groups)
        return factored.convolution(x, layer.weight, layer.bias, factors, geometry, whole=whole or layer.groups > 1)

    def training_costs(self, layer: Any, x: Tensor, factors: Factors) -> PathCosts:
        """Positions are pixels of all images of the batch."""
        before = x.numel() // layer.in_channels
        after = before // math.prod(layer.stride)
        if layer.groups > 1:
            return PathCosts(weight=after * layer.weight.numel() // layer.groups)
        return path_costs(layer.weight.shape, factors, before, after)


LAYER_KINDS.register("conv")(ConvKind())
