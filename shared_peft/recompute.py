"""Inputs made again in the backward instead of kept: those a layer norm or GELU has just produced (ours).

The frozen model keeps what went into its norm or activation, not what came out; an adapter that kept its input would
hold one more wide map a layer, in a ViT about half as much memory again. Making the map again costs one cheap
elementwise pass.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from shared_peft.registry import Registry

PRODUCERS: Registry[Callable[[Any], Tensor]] = Registry("producer")


def maker_of(x: Tensor) -> Callable[[], Tensor] | None:
    """Return a function that makes ``x`` again while its graph is alive, or None where it has to be kept."""
    node = x.grad_fn
    if node is None or x.output_nr != 0 or node.name() not in PRODUCERS:
        return None
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)  # type: ignore[attr-defined]
    if hooks is not None:
        return None  # checkpointing hands each saved tensor out once
    make = PRODUCERS.get(node.name())
    return lambda: make(node)


@PRODUCERS.register("GeluBackward0")
def _gelu(node: Any) -> Tensor:
    return functional.gelu(node._saved_self, approximate=node._saved_approximate)


@PRODUCERS.register("NativeLayerNormBackward0")
def _layer_norm(node: Any) -> Tensor:
    x = node._saved_input
    normal = (x - node._saved_result1).mul_(node._saved_result2)
    if node._saved_weight is not None:
        normal.mul_(node._saved_weight)
    return (normal if node._saved_bias is None else normal.add_(node._saved_bias)).to(x.dtype)
