"""Merged forward, factored gradient: a layer runs once with W + dW, and only its factors learn (ours).

The forward is one linear map or convolution with W + dW; the backward gives the input's gradient by one more with the
same weight. The factors' gradients come from one of two sources:

- narrow maps, of as many channels as the rank: the input mapped by the in-factor, the output's gradient mapped by the
  out-factor, and a small weight gradient between the two. No gradient of the full weight is formed;
- the full weight's gradient, then projected: cheaper where the weight is small or grouped.

Either way no output of full width is written beside the layer's own. W + dW is built again in the backward rather than
kept, unless it is small beside the input: keeping it would double the memory of the weights. A linear layer with few
rows for its size does without: there the products of narrow maps are added to the output in place. Wide maps are always
the right operand of a matrix product with a narrow left one: on CPUs the other order is several times slower.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from shared_peft import depthwise, pointwise
from shared_peft.factors import Factors
from shared_peft.paths import builds
from shared_peft.recompute import maker_of

_convolution_backward = torch.ops.aten.convolution_backward


@dataclass(frozen=True)
class Geometry:
    """Stride, zero padding and dilation of a convolution, one number for each kernel mode, and its groups."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int = 1

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Convolve ``x``, shape (batch, in, *size), with ``weight``, shape (out, in, *kernel)."""
        if pointwise.pays(x, self, weight.shape[2:]):
            return pointwise.convolve(x, weight, bias)
        none = [0] * len(self.stride)
        return torch.convolution(x, weight, bias, self.stride, self.padding, self.dilation, False, none, self.groups)

    def backward(
        self, gradient: Tensor, x: Tensor, weight: Tensor, *, to_input: bool, to_weight: bool
    ) -> tuple[Any, Any]:
        """Return the gradients of input and weight from that of the output; None where not asked for."""
        if pointwise.pays(x, self, weight.shape[2:]):
            return pointwise.backward(gradient, x, weight, to_input=to_input, to_weight=to_weight)
        fast = to_weight and depthwise.pays(x, weight, self.groups)
        none, wanted = [0] * len(self.stride), [to_input, to_weight and not fast, False]
        options = (self.stride, self.padding, self.dilation, False, none, self.groups, wanted)
        gradients = _convolution_backward(gradient, x, weight, None, *options)[:2] if any(wanted) else (None, None)
        if not fast:
            return gradients
        geometry = (self.stride, self.padding, self.dilation)
        return gradients[0], depthwise.weight_gradient(x, gradient, tuple(weight.shape[2:]), *geometry)

    def mixes_channels_only(self, kernel: tuple[int, ...]) -> bool:
        """Tell whether each output position sees one input position, and all its channels."""
        return set(kernel) == {1} and set(self.padding) == {0} and self.groups == 1

    def seen(self, x: Tensor) -> Tensor:
        """Return the input positions that a kernel of size 1 sees."""
        return x[(..., *(slice(None, None, step) for step in self.stride))]


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, factors: Factors, *, whole: bool = False) -> Tensor:
    """Return x (W + dW)^T + b.

    Args:
        x: shape (..., in).
        weight: frozen, shape (out, in).
        bias: shape (out,), or None.
        factors: dW, without kernel modes.
        whole: take the factors' gradients from the full weight's.
    """
    factors = factors.without_in_factor()
    frozen_core = not factors.core.requires_grad
    if frozen_core or not (whole or builds(weight.shape, factors.core.shape[0], x.numel() // x.shape[-1])):
        return _with_type(_AddedLinear, x, weight, bias, factors, (None if frozen_core else maker_of(x),))
    return _with_type(_FactoredLinear, x, weight, bias, factors, (whole, maker_of(x)))


def convolution(  # noqa: PLR0913  (a convolution's operands)
    x: Tensor, weight: Tensor, bias: Tensor | None, factors: Factors, geometry: Geometry, *, whole: bool = False
) -> Tensor:
    """Return the convolution of ``x`` with W + dW.

    Args:
        x: shape (batch, in, *size).
        weight: frozen, shape (out, in / groups, *kernel).
        bias: shape (out,), or None.
        factors: dW.
        geometry: stride, padding, dilation and groups.
        whole: take the factors' gradients from the full weight's; the only way with groups.
    """
    if geometry.mixes_channels_only(tuple(weight.shape[2:])):
        factors = factors.without_in_factor()
    return _with_type(_FactoredConvolution, x, weight, bias, factors, (geometry, whole))


def _with_type(function: Any, x: Tensor, weight: Tensor, bias: Tensor | None, factors: Factors, rest: Any) -> Tensor:
    """Run an autograd function in the input's type, or autocast's; the factors are cast, so their gradients are too."""
    device, tensors = x.device.type, (factors.core, factors.out_factor, factors.in_factor)
    if not torch.is_autocast_enabled(device):
        return function.apply(x, weight, bias, *tensors, *rest)
    x = x.to(torch.get_autocast_dtype(device))
    with torch.autocast(device, enabled=False):
        widest = [None if tensor is None else tensor.to(torch.float32) for tensor in tensors]
        return function.apply(x, weight, None if bias is None else bias.to(x.dtype), *widest, *rest)


def _changed_weight(weight: Tensor, factors: Factors, dtype: torch.dtype) -> Tensor:
    """Return W + dW in ``dtype``, added up in the wider of both types, in one pass where they are the same."""
    core, wider = factors.without_in_factor().core, torch.promote_types(weight.dtype, factors.core.dtype)
    matrix, out_factor, rest = (t.flatten(1).to(wider) for t in (weight, factors.out_factor, core))
    return torch.addmm(matrix, out_factor, rest).view(weight.shape).to(dtype)


def _is_small(weight: Tensor, x: Tensor) -> bool:
    """Tell whether keeping a weight costs little memory beside the input, which is alive anyway."""
    return 8 * weight.numel() <= x.numel()


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
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Any,
        core: Tensor,
        out_factor: Tensor,
        _: None,
        whole: bool,
        make: Any,
    ) -> Tensor:
        ctx.whole, ctx.make = whole, make
        changed = _changed_weight(weight, Factors(core, out_factor), x.dtype)
        kept = changed if _is_small(changed, x) else None
        ctx.save_for_backward(None if make else x, weight, core, out_factor, kept)
        return _linear(x, changed, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        x, weight, core, out_factor, changed = ctx.saved_tensors
        wide_out = _rows(gradient)
        to_input = to_bias = None
        if ctx.needs_input_grad[0]:
            if changed is None:
                changed = _changed_weight(weight, Factors(core, out_factor), gradient.dtype)
            to_input = (wide_out @ changed).view(*gradient.shape[:-1], -1)
        if ctx.needs_input_grad[2]:
            to_bias = wide_out.sum(0)
        wide_in = _rows(ctx.make().to(gradient.dtype) if x is None else x)
        if ctx.whole:
            to_core, to_out_factor, _ = _projected(wide_out.mT @ wide_in, core, out_factor, None)
        else:
            to_core = (_narrow_rows(out_factor.mT, wide_out) @ wide_in).to(core.dtype)
            to_out_factor = (_narrow_rows(core, wide_in) @ wide_out).mT.to(out_factor.dtype)
        return to_input, None, to_bias, to_core, to_out_factor, None, None, None


class _AddedLinear(torch.autograd.Function):
    """x W^T + b, and out_factor (core x) added in place; x is kept only where the core is trained."""

    @staticmethod
    def forward(  # type: ignore[override]  # noqa: PLR0913, PLR0917  (torch passes tensors one by one)
        ctx: Any, x: Tensor, weight: Tensor, bias: Any, core: Tensor, out_factor: Tensor, _: None, make: Any
    ) -> Tensor:
        narrow_in = _narrow_rows(core, x)
        ctx.make, kept = make, x if ctx.needs_input_grad[3] and make is None else None
        ctx.save_for_backward(kept, weight, core, out_factor, narrow_in)
        output = _linear(x, weight.to(x.dtype), bias)
        output.view(-1, output.shape[-1]).addmm_(narrow_in.mT, out_factor.to(x.dtype).mT)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        x, weight, core, out_factor, narrow_in = ctx.saved_tensors
        wide_out = _rows(gradient)
        narrow_out = _narrow_rows(out_factor.mT, wide_out)
        to_input = to_bias = to_core = None
        if ctx.needs_input_grad[0]:
            to_input = wide_out @ weight.to(gradient.dtype)
            to_input.addmm_(narrow_out.mT, core.to(gradient.dtype))
            to_input = to_input.view(*gradient.shape[:-1], -1)
        if ctx.needs_input_grad[2]:
            to_bias = wide_out.sum(0)
        if ctx.needs_input_grad[3]:
            wide_in = _rows(ctx.make().to(gradient.dtype) if x is None else x)
            to_core = (narrow_out @ wide_in).to(core.dtype)
        return to_input, None, to_bias, to_core, (narrow_in @ wide_out).mT.to(out_factor.dtype), None, None


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return x W^T + b as no view of another tensor, so that an activation may write over it."""
    output = x.new_empty(*x.shape[:-1], weight.shape[0])
    rows = output.view(-1, weight.shape[0])
    if bias is None:
        torch.mm(_rows(x), weight.mT, out=rows)
    else:
        torch.addmm(bias, _rows(x), weight.mT, out=rows)
    return output


def _rows(x: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[-1])


def _narrow_rows(matrix: Tensor, x: Tensor) -> Tensor:
    """Map the last dimension: matrix (rank, channels), x (..., channels) -> (rank, rows)."""
    return matrix.to(x.dtype) @ _rows(x).mT


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
        whole: bool,
    ) -> Tensor:
        changed = _changed_weight(weight, Factors(core, out_factor, in_factor), x.dtype)
        kept = changed if _is_small(changed, x) else None
        ctx.save_for_backward(x, weight, core, out_factor, in_factor, kept)
        ctx.geometry, ctx.whole = geometry, whole
        return geometry.convolve(x, changed, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        x, weight, core, out_factor, in_factor, changed = ctx.saved_tensors
        geometry: Geometry = ctx.geometry
        to_input = to_whole = to_bias = None
        if ctx.needs_input_grad[0] or ctx.whole:
            if changed is None:
                changed = _changed_weight(weight, Factors(core, out_factor, in_factor), x.dtype)
            asked = {"to_input": ctx.needs_input_grad[0], "to_weight": ctx.whole}
            to_input, to_whole = geometry.backward(gradient, x, changed, **asked)
        if ctx.needs_input_grad[2]:
            to_bias = gradient.flatten(2).sum((0, 2))
        if to_whole is not None:
            to_factors = _projected(to_whole, core, out_factor, in_factor)
        else:
            cast = [None if factor is None else factor.to(x.dtype) for factor in (core, out_factor, in_factor)]
            gradients = _factor_gradients(x, gradient, *cast, geometry)  # type: ignore[arg-type]
            to_factors = tuple(g if g is None else g.to(core.dtype) for g in gradients)
        return to_input, None, to_bias, *to_factors, None, None


def _projected(
    to_weight: Tensor, core: Tensor, out_factor: Tensor, in_factor: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the gradients of core, out-factor and in-factor from the full weight's, (out, in / groups, *kernel)."""
    matrix = to_weight.flatten(1).to(core.dtype)
    whole_core = Factors(core, out_factor, in_factor).without_in_factor().core
    to_out_factor, to_whole_core = matrix @ whole_core.flatten(1).mT, (out_factor.mT @ matrix).view(whole_core.shape)
    if in_factor is None:
        return to_whole_core, to_out_factor, None
    by_tap = to_whole_core.flatten(2)  # (rank_out, in / groups, taps)
    to_core = (in_factor @ by_tap).view(core.shape)
    to_in_factor = core.flatten(2).transpose(0, 1).flatten(1) @ by_tap.transpose(0, 1).flatten(1).mT
    return to_core, to_out_factor, to_in_factor


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
