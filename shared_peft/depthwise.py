"""Weight gradient of a depthwise convolution as matrix products (ours).

On CPUs the library's own is 10 to 25 times slower than the forward for kernels of 5 and 7. Here each kernel row is one
matrix product a channel, (columns of the output's gradient) x (columns of the padded input), summed over batch and
rows; a kernel column is a diagonal of it. More multiplications than needed, by columns / kernel width, but fast ones.
"""

import torch
from torch import Tensor

LARGEST_FAST_KERNEL = 3  # up to this size the library's own gradient is fast


def pays(x: Tensor, weight: Tensor, groups: int) -> bool:
    """Tell whether the gradient here is faster than the library's for this input and kernel."""
    return (
        x.dim() == 4  # noqa: PLR2004  (batch, channels, height, width)
        and groups == x.shape[1] == weight.shape[0]
        and max(weight.shape[2:]) > LARGEST_FAST_KERNEL
        and x.device.type == "cpu"
        and x.dtype == torch.float32
    )


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
