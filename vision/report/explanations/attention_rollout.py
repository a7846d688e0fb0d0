"""Attention roll-out (Abnar and Zuidema 2020, arXiv:2005.00928, Section 3) of any vision transformer."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from shared_peft.errors import ConfigError
from vision.report.explanation import EXPLANATIONS, Explanation, enlarged

MOST_PREFIX_TOKENS = 8  # ours: class, distillation and register tokens before the patches
_SOFTMAX = (torch.softmax, torch.Tensor.softmax, functional.softmax)


class AttentionWatch(TorchFunctionMode):
    """Watch a forward pass and keep every layer's attention, however the layer computes it.

    Fused attention never shows its weights, so they are computed beside it from the same queries and keys; the model
    answers as ever. Inside the block torch's encoder layers leave their own fused path.

    Args:
        batch: images in the pass.
    """

    def __init__(self, batch: int) -> None:
        super().__init__()
        self.batch = batch
        self.layers: list[torch.Tensor] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run the function; keep attention of shape (batch, heads, tokens, tokens)."""
        arguments = dict(kwargs or {})
        if func is functional.multi_head_attention_forward:
            arguments |= {"need_weights": True, "average_attn_weights": False}
            answer = func(*args, **arguments)
            self._keep(answer[1])
            return answer
        answer = func(*args, **arguments)
        if func is functional.scaled_dot_product_attention:
            self._keep(_attention(*args, **arguments))
        elif func in _SOFTMAX:
            self._keep(answer)
        return answer

    def _keep(self, attention: torch.Tensor) -> None:
        square = attention.dim() == 4 and attention.shape[-1] == attention.shape[-2]
        if square and attention.shape[0] == self.batch:
            self.layers.append(attention.detach().float())


class AttentionRollout(Explanation):
    """Attention roll-out: how much of each patch reaches the token that is classified, through all layers."""

    cost = 1
    title = "Attention roll-out"

    def suits(self, model: nn.Module, image: torch.Tensor) -> bool:
        """A model whose layers all attend over the same tokens, laid out as a square of patches."""
        return _can_be_multiplied(_watched(model, image))

    def explain(self, model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the roll-out of the class token, or its mean over all tokens where none is; targets don't matter."""
        layers = _watched(model, images)
        if not _can_be_multiplied(layers):
            must = "the model must have attention layers, all over the same square of patches"
            got = ", ".join(sorted({f"{layer.shape[-1]} tokens" for layer in layers})) or "none"
            raise ConfigError("attention_rollout", must, got, "Choose another explanation, grad_cam for example")
        flow = roll_out(layers)
        side, prefix = _grid(flow.shape[-1])
        reads_first = prefix and getattr(model, "global_pool", "token") == "token"
        heat = flow[:, 0] if reads_first else flow[:, prefix:].mean(dim=1)
        patches = heat[:, prefix:].reshape(-1, side, side)
        return enlarged(patches, (images.shape[2], images.shape[3]))


def roll_out(layers: list[torch.Tensor]) -> torch.Tensor:
    """Multiply the layers' attention, heads averaged and the shortcut counted as half, from first to last.

    Args:
        layers: attention of each layer, shape (n, heads, tokens, tokens), rows summing to 1.

    Returns:
        Flow from every input token (columns) to every output token (rows), shape (n, tokens, tokens); rows sum to 1.

    Example:
        >>> roll_out([torch.eye(2).expand(1, 1, 2, 2)] * 3)[0].tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    shortcut = torch.eye(layers[0].shape[-1], device=layers[0].device)
    flow = shortcut.expand(len(layers[0]), -1, -1)
    for layer in layers:
        flow = (0.5 * layer.mean(dim=1) + 0.5 * shortcut) @ flow
    return flow


def _can_be_multiplied(layers: list[torch.Tensor]) -> bool:
    """Tell whether there are layers, all over the same tokens, which are a square of patches and a few before it."""
    return len({layer.shape[-1] for layer in layers}) == 1 and _grid(layers[0].shape[-1])[1] <= MOST_PREFIX_TOKENS


def _watched(model: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    with torch.no_grad(), AttentionWatch(len(images)) as watch:
        model(images)
    return watch.layers


def _attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,  # noqa: FBT001, FBT002  (torch's own signature)
    scale: float | None = None,
    enable_gqa: bool = False,  # noqa: FBT001, FBT002
) -> torch.Tensor:
    """Return softmax(Q K^T scale + mask), the weights inside `scaled_dot_product_attention`."""
    scores = query @ key.transpose(-2, -1) * (scale or query.shape[-1] ** -0.5)
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, -math.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
    return scores.softmax(dim=-1)


def _grid(tokens: int) -> tuple[int, int]:
    """Return the side of the largest square of patches and how many other tokens come before it."""
    side = math.isqrt(tokens)
    return side, tokens - side * side


EXPLANATIONS.register("attention_rollout")(AttentionRollout())
