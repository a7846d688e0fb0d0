"""Merged forward, factored gradient: a layer runs once with W + dW, and its factors learn from narrow maps (ours).

The forward is one linear map or convolution with W + dW. The backward gives the input's gradient by one more with the
same weight, and the factors' gradients from maps of as many channels as the rank: the input mapped by the in-factor,
the output's gradient mapped by the out-factor, and a small weight gradient between the two. No low-rank output of full
width is written, and no gradient of the full weight. W + dW is built again in the backward rather than kept: building
it costs little, keeping it would double the memory of the weights.

Wide maps are always the right operand of a matrix product with a narrow left one: on CPUs the other order is several
times slower.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from shared_peft.factors import Factors

_convolution_backward = torch.ops.aten.convolution_backward


@dataclass(frozen=True)
class Geometry:
    """Stride, zero padding and dilation of a convolution without groups, one number for each kernel mode."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Convolve ``x``, shape (batch, in, *size), with ``weight``, shape (out, in, *kernel)."""
        none = [0] * len(self.stride)
        return torch.convolution(x, weight, bias, self.stride, self.padding, self.dilation, False, none, 1)

    def backward(
        self, gradient: Tensor, x: Tensor, weight: Tensor, *, to_input: bool, to_weight: bool
    ) -> tuple[Any, Any]:
        """Return the gradients of input and weight from that of the output; None where not asked for."""
        none, wanted = [0] * len(self.stride), [to_input, to_weight, False]
        return _convolution_backward(
            gradient, x, weight, None, self.stride, self.padding, self.dilation, False, none, 1, wanted
        )[:2]

    def mixes_channels_only(self, kernel: tuple[int, ...]) -> bool:
        """Tell whether each output position sees one input position."""
        return set(kernel) == {1} and set(self.padding) == {0}

    def seen(self, x: Tensor) -> Tensor:
        """Return the input positions that a kernel of size 1 sees."""
        return x[(..., *(slice(None, None, step) for step in self.stride))]


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, factors: Factors) -> Tensor:
    """Return x (W + dW)^T + b.

    Args:
        x: shape (..., in).
        weight: frozen, shape (out, in).
        bias: shape (out,), or None.
        factors: dW, without kernel modes.
    """
    plain = factors.without_in_factor()
    return _with_type(_FactoredLinear, x, weight, bias, plain, ())


def convolution(x: Tensor, weight: Tensor, bias: Tensor | None, factors: Factors, geometry: Geometry) -> Tensor:
    """Return the convolution of ``x`` with W + dW.

    Args:
        x: shape (batch, in, *size).
        weight: frozen, shape (out, in, *kernel).
        bias: shape (out,), or None.
        factors: dW.
        geometry: stride, padding and dilation.
    """
    if geometry.mixes_channels_only(tuple(weight.shape[2:])):
        factors = factors.without_in_factor()
    return _with_type(_FactoredConvolution, x, weight, bias, factors, (geometry,))


def _with_type(function: Any, x: Tensor, weight: Tensor, bias: Tensor | None, factors: Factors, rest: Any) -> Tensor:
    """Run an autograd function in the input's type, or autocast's; the factors are cast, so their gradients are too."""
    device = x.device.type
    if torch.is_autocast_enabled(device):
        x = x.to(torch.get_autocast_dtype(device))
        bias = None if bias is None else bias.to(x.dtype)
    with torch.autocast(device, enabled=False):
        return function.apply(x, weight, bias, factors.core, factors.out_factor, factors.in_factor, *rest)


def _changed_weight(weight: Tensor, factors: Factors, dtype: torch.dtype) -> Tensor:
    """Return W + dW in ``dtype``, added up in the factors' type and in one pass where W has that type too."""
    core = factors.without_in_factor().core
    matrix = weight.reshape(weight.shape[0], -1).to(core.dtype)
    return torch.addmm(matrix, factors.out_factor, core.reshape(core.shape[0], -1)).view(weight.shape).to(dtype)


def _narrow(matrix: Tensor, wide: Tensor) -> Tensor:
    """Map channels: matrix (rank, channels), wide (batch, channels, positions) -> (batch, rank, positions)."""
    return torch.bmm(matrix.expand(wide.shape[0], -1, -1), wide)


def _correlate(narrow: Tensor, wide: Tensor) -> Tensor:
    """Sum products over batch and positions: (batch, rank, P), (batch, channels, P) -> (rank, channels)."""
    return torch.bmm(narrow, wide.mT).sum(0)


class _FactoredLinear(torch.autograd.Function):
    """x (W + core^T out_factor^T) + b; only x, W and the factors are kept."""

    @staticmethod
    def forward(  # type: ignore[override]  # noqa: PLR0913, PLR0917  (torch passes tensors one by one)
        ctx: Any, x: Tensor, weight: Tensor, bias: Any, core: Tensor, out_factor: Tensor, _: None
    ) -> Tensor:
        ctx.save_for_backward(x, weight, core, out_factor)
        return functional.linear(x, _changed_weight(weight, Factors(core, out_factor), x.dtype), bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        x, weight, core, out_factor = ctx.saved_tensors
        wide_out, wide_in = gradient.reshape(-1, gradient.shape[-1]), x.reshape(-1, x.shape[-1])
        to_input = to_bias = None
        if ctx.needs_input_grad[0]:
            changed = _changed_weight(weight, Factors(core, out_factor), x.dtype)
            to_input = (wide_out @ changed).view(x.shape)
        if ctx.needs_input_grad[2]:
            to_bias = wide_out.sum(0)
        narrow_out = out_factor.to(x.dtype).mT @ wide_out.mT  # (rank, rows)
        narrow_in = core.to(x.dtype) @ wide_in.mT
        to_core = (narrow_out @ wide_in).to(core.dtype)
        to_out_factor = (narrow_in @ wide_out).mT.to(out_factor.dtype)
        return to_input, None, to_bias, to_core, to_out_factor, None


class _FactoredConvolution(torch.autograd.Function):
    """A convolution with W + out_factor . core . in_factor; only x, W and the factors are kept."""

    @staticmethod
    def forward(  # type: ignore[override]  # noqa: PLR0913, PLR0917  (torch passes tensors one by one)
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Any,
        core: Tensor,
        out_factor: Tensor,
        in_factor: Any,
        geometry: Geometry,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, core, out_factor, in_factor)
        ctx.geometry = geometry
        return geometry.convolve(x, _changed_weight(weight, Factors(core, out_factor, in_factor), x.dtype), bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        x, weight, core, out_factor, in_factor = ctx.saved_tensors
        geometry: Geometry = ctx.geometry
        to_input = to_bias = None
        if ctx.needs_input_grad[0]:
            changed = _changed_weight(weight, Factors(core, out_factor, in_factor), x.dtype)
            to_input, _ = geometry.backward(gradient, x, changed, to_input=True, to_weight=False)
        if ctx.needs_input_grad[2]:
            to_bias = gradient.flatten(2).sum((0, 2))
        cast = [None if factor is None else factor.to(x.dtype) for factor in (core, out_factor, in_factor)]
        gradients = _factor_gradients(x, gradient, *cast, geometry)  # type: ignore[arg-type]
        to_core, to_out, to_in = (g if g is None else g.to(core.dtype) for g in gradients)
        return to_input, None, to_bias, to_core, to_out, to_in, None


def _factor_gradients(
    x: Tensor, gradient: Tensor, core: Tensor, out_factor: Tensor, in_factor: Tensor | None, geometry: Geometry
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the gradients of core, out-factor and in-factor from the input and the output's gradient."""
    wide_out = gradient.flatten(2)
    narrow_out = _narrow(out_factor.mT, wide_out)
    if in_factor is None and geometry.mixes_channels_only(tuple(core.shape[2:])):
        wide_in = geometry.seen(x).flatten(2)
        responses = _narrow(core.flatten(1), wide_in)
        return _correlate(narrow_out, wide_in).view(core.shape), _correlate(responses, wide_out).mT, None
    narrow_in = x if in_factor is None else _narrow(in_factor, x.flatten(2)).unflatten(2, x.shape[2:])
    responses = geometry.convolve(narrow_in, core).flatten(2)
    to_narrow_in, to_core = geometry.backward(
        narrow_out.unflatten(2, gradient.shape[2:]), narrow_in, core, to_input=in_factor is not None, to_weight=True
    )
    to_in_factor = None if in_factor is None else _correlate(to_narrow_in.flatten(2), x.flatten(2))
    return to_core, _correlate(responses, wide_out).mT, to_in_factor
