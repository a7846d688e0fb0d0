"""Transposed convolutions in one, two and three dimensions: the weight is stored (in, out / groups, *kernel)."""

import math
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from shared_peft.factors import Factors
from shared_peft.layer_kind import LAYER_KINDS, Category, LayerKind, WeightSlot
from shared_peft.paths import PathCosts

_CONVOLVE = {1: functional.conv_transpose1d, 2: functional.conv_transpose2d, 3: functional.conv_transpose3d}


class ConvTransposeKind(LayerKind):
    """nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d and their subclasses.

    Methods see (out, in / groups, *kernel), as for a convolution. A requested ``output_size`` takes the weight path.
    """

    module_types = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)

    def category(self, layer: nn.Module) -> Category:
        """Every transposed convolution is "conv"."""
        return "conv"

    def slots(self, layer: Any) -> tuple[WeightSlot, ...]:
        """One weight, stored (in, out / groups, *kernel)."""
        return (WeightSlot("weight", "weight", transposed=True, groups=layer.groups),)

    def is_plain(self, layer: nn.Module) -> bool:
        """Only where forward is torch's own."""
        own: Any = next(cls for cls in self.module_types if isinstance(layer, cls))
        return type(layer).forward is own.forward

    def runs_chain(self, layer: Any) -> bool:
        """Only for plain layers without groups, as for convolutions."""
        return layer.groups == 1 and self.is_plain(layer)

    def channel_dimension(self, layer: Any) -> int:
        """Channels come after the batch, which may be missing."""
        return -1 - len(layer.kernel_size)

    def narrow(self, layer: Any, x: Tensor, core: Tensor) -> Tensor:
        """Run the transposed convolution with the core, (rank, in, *kernel)."""
        modes = len(layer.kernel_size)
        options = (None, layer.stride, layer.padding, layer.output_padding, 1, layer.dilation)
        return _CONVOLVE[modes](x, core.transpose(0, 1), *options)

    def mix(self, layer: Any, x: Tensor, matrix: Tensor) -> Tensor:
        """Map the channels at every position."""
        modes = len(layer.kernel_size)
        return (matrix @ x.flatten(-modes)).unflatten(-1, x.shape[-modes:])

    def training_costs(self, layer: Any, x: Tensor, factors: Factors) -> PathCosts | None:
        """Compare 3 chains with the weight's gradient and 3 builds of dW, multiplications alone (a model, ours).

        The kernel works at every input position, the out-factor at the output's, prod(stride) times as many. There is
        no factored path.
        """
        if x.dim() != layer.weight.dim():
            return None
        before, weight, rank = x.numel() // layer.in_channels, layer.weight.numel(), factors.core.shape[0]
        chain = before * (factors.core.numel() + math.prod(layer.stride) * factors.out_factor.numel())
        chain += 0 if factors.in_factor is None else before * factors.in_factor.numel()
        return PathCosts(weight=before * weight + 3 * rank * weight, activation=3 * chain)


LAYER_KINDS.register("conv_transpose")(ConvTransposeKind())
