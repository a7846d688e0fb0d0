"""A convolution of kernel size 1 as a batched matrix product (ours).

On CPUs the library's convolution first brings the maps into a layout of its own; for maps of a few hundred positions
that costs more than the multiplications. A matrix product reads them as they are: up to three times faster.
"""

import math
from typing import Any

import torch
from torch import Tensor

FEWEST_POSITIONS = 200  # of an image; below, the library's own is as fast


def pays(x: Tensor, geometry: Any, kernel: torch.Size) -> bool:
    """Tell whether the products here are faster than the library's convolution for this input.

    Args:
        x: shape (batch, in, *size).
        geometry: the convolution's stride, padding, dilation and groups.
        kernel: its kernel size.
    """
    return (
        set(kernel) == {1}
        and set(geometry.stride) == {1}
        and set(geometry.padding) == {0}
        and geometry.groups == 1
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and math.prod(x.shape[2:]) >= FEWEST_POSITIONS
        and x.is_contiguous()
    )


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return the convolution of ``x`` with ``weight``, shape (out, in, 1, ...), as no view of another tensor."""
    output = x.new_empty(x.shape[0], weight.shape[0], *x.shape[2:])
    maps = output.view(*output.shape[:2], -1)
    torch.bmm(weight.flatten(1).expand(x.shape[0], -1, -1), x.flatten(2), out=maps)
    if bias is not None:
        maps += bias[:, None]
    return output


def backward(
    gradient: Tensor, x: Tensor, weight: Tensor, *, to_input: bool, to_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients of input and weight from that of the output; None where not asked for."""
    wide, input_gradient, weight_gradient = gradient.flatten(2), None, None
    if to_input:
        product = torch.bmm(weight.flatten(1).mT.expand(x.shape[0], -1, -1), wide)
        input_gradient = product.unflatten(2, x.shape[2:])
    if to_weight:
        weight_gradient = torch.bmm(x.flatten(2), wide.mT).sum(0).mT.reshape(weight.shape)
    return input_gradient, weight_gradient
