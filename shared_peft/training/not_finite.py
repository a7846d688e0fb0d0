"""Where numbers stopped being finite: the step is run once more, every layer's output and gradient looked at (ours)."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

AFTER, NOWHERE = "what is computed after the last layer", "nothing, when this process ran the step again"


def first_not_finite(model: nn.Module, losses: Iterator[Tensor]) -> str:
    """Say what is the first thing that is not finite: a weight, a layer's input or output, a gradient on the way back.

    Args:
        model: the model, without wrappers; gradients are added to its parameters.
        losses: gives the losses of a step's batches, each computed when it is asked for, as in training.

    Returns:
        Words such as "the output of encoder.blocks.2.norm (LayerNorm)".
    """
    found: list[str] = []
    for name, weight in model.named_parameters():
        if not _finite(weight):
            return f"{name}, before the step"
    hooks = [module.register_forward_hook(_looking(name, found)) for name, module in model.named_modules()]
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            hooks.append(weight.register_hook(_noting(f"the gradient of {name}", found)))
    try:
        for loss in losses:
            if not _finite(loss):
                found.append(AFTER)
            if found:
                break
            loss.backward()
    finally:
        for hook in hooks:
            hook.remove()
    return found[0] if found else NOWHERE


def _looking(name: str, found: list[str]) -> Callable[[nn.Module, Any, Any], None]:
    """Return a forward hook that notes an output that is not finite, and has the way back noted likewise."""

    def look(module: nn.Module, inputs: Any, output: Any) -> None:
        where = f"{name or 'the model'} ({type(module).__name__})"
        if not all(_finite(tensor) for tensor in _tensors(inputs)):
            found.append(f"the input of {where}")
        for tensor in _tensors(output):
            if not _finite(tensor):
                found.append(f"the output of {where}")
            elif tensor.requires_grad:
                tensor.register_hook(_noting(f"the gradient at the output of {where}", found))

    return look


def _noting(what: str, found: list[str]) -> Callable[[Tensor], None]:
    def note(gradient: Tensor) -> None:
        if not _finite(gradient):
            found.append(what)

    return note


def _tensors(value: Any) -> Iterator[Tensor]:
    """Give the tensors of a module's inputs or outputs."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _tensors(each)
    elif isinstance(value, dict):
        for each in value.values():
            yield from _tensors(each)


def _finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or math.isfinite(float(tensor.detach().abs().sum(dtype=torch.float64)))
