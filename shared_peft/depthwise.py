"""Weight gradient of a depthwise convolution as matrix products (ours).

On CPUs the library's own is 10 to 25 times slower than the forward for kernels of 5 and 7. Here each kernel row is one
matrix product a channel, (columns of the output's gradient) x (columns of the padded input), summed over batch and
rows; a kernel column is a diagonal of it. More multiplications than needed, by columns / kernel width, but fast ones.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_convolution_backward = torch.ops.aten.convolution_backward
LARGEST_FAST_KERNEL = 3  # up to this size the library's own gradient is fast


def pays(layer: Any, x: Tensor) -> bool:
    """Tell whether the gradient here is faster than the library's for this layer and input."""
    return (
        isinstance(layer, nn.Conv2d)
        and layer.groups == layer.in_channels == layer.out_channels
        and max(layer.kernel_size) > LARGEST_FAST_KERNEL
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
        and x.device.type == "cpu"
        and x.dim() == 4  # noqa: PLR2004  (batch, channels, height, width)
        and x.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
    )


def convolution(x: Tensor, weight: Tensor, layer: Any) -> Tensor:
    """Convolve ``x``, shape (batch, channels, height, width), with ``weight``, shape (channels, 1, *kernel).

    Args:
        x: the input.
        weight: the layer's weight with its change.
        layer: an nn.Conv2d for which `pays` holds; its bias is added.
    """
    return _Depthwise.apply(x, weight, layer.bias, layer.stride, layer.padding, layer.dilation)  # type: ignore[return-value]


class _Depthwise(torch.autograd.Function):
    """A depthwise convolution whose weight gradient is `weight_gradient`."""

    @staticmethod
    def forward(  # type: ignore[override]  # noqa: PLR0913, PLR0917  (torch passes arguments one by one)
        ctx: Any, x: Tensor, weight: Tensor, bias: Any, stride: Any, padding: Any, dilation: Any
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding, ctx.dilation = stride, padding, dilation
        return torch.conv2d(x, weight, bias, stride, padding, dilation, weight.shape[0])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        x, weight = ctx.saved_tensors
        to_input = to_weight = None
        if ctx.needs_input_grad[0]:
            geometry = (ctx.stride, ctx.padding, ctx.dilation, False, [0, 0], weight.shape[0])
            to_input = _convolution_backward(gradient, x, weight, None, *geometry, [True, False, False])[0]
        if ctx.needs_input_grad[1]:
            to_weight = weight_gradient(x, gradient, weight.shape[2:], ctx.stride, ctx.padding, ctx.dilation)
        to_bias = gradient.sum((0, 2, 3)) if ctx.needs_input_grad[2] else None
        return to_input, to_weight, to_bias, None, None, None


def weight_gradient(  # noqa: PLR0913, PLR0917  (a convolution's geometry)
    x: Tensor,
    gradient: Tensor,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
) -> Tensor:
    """Return the gradient of a depthwise kernel, shape (channels, 1, *kernel).

    Args:
        x: the input, shape (batch, channels, height, width).
        gradient: that of the output, shape (batch, channels, rows, columns).
        kernel, stride, padding, dilation: (vertical, horizontal).
    """
    channels, rows, columns = gradient.shape[1:]
    height = (rows - 1) * stride[0] + (kernel[0] - 1) * dilation[0] + 1
    width = (columns - 1) * stride[1] + (kernel[1] - 1) * dilation[1] + 1
    padded = _padded(x, padding, (height, width))  # (channels, height, batch, width)
    phases = [padded[:, phase :: stride[0]].contiguous() for phase in range(stride[0])]
    columns_first = gradient.permute(1, 2, 0, 3).reshape(channels, -1, columns).mT  # (channels, columns, rows * batch)
    result = x.new_empty(channels, 1, *kernel)
    for row in range(kernel[0]):
        first, phase = divmod(row * dilation[0], stride[0])
        seen = phases[phase].narrow(1, first, rows).flatten(1, 2)  # (channels, rows * batch, width)
        products = torch.bmm(columns_first, seen)
        diagonals = (columns * width, dilation[1], width + stride[1])
        result[:, 0, row] = products.as_strided((channels, kernel[1], columns), diagonals).sum(-1)
    return result


def _padded(x: Tensor, padding: tuple[int, ...], size: tuple[int, int]) -> Tensor:
    """Return the input as (channels, height, batch, width), zeros around it, cut to the part the kernel sees."""
    (above, left), (height, width) = padding, size
    rows, columns = min(x.shape[2], height - above), min(x.shape[3], width - left)
    padded = x.new_zeros(x.shape[1], height, x.shape[0], width)
    padded[:, above : above + rows, :, left : left + columns] = x[:, :, :rows, :columns].permute(1, 2, 0, 3)
    return padded
