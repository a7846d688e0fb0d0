"""A copy with random weights and statistics: on it, a parity test can fail.

A freshly built model hides faults: its last norms are zero, its layers equal, its adapters without effect.
"""

import copy

import torch
from torch import nn

_LEAST_VARIANCE = 1e-2
_LEAST_VECTOR_SPREAD, _LEAST_MATRIX_SPREAD = 0.1, 0.02


@torch.no_grad()
def randomised_copy(model: nn.Module, examples: torch.Tensor, *, generator: torch.Generator) -> nn.Module:
    """Return a CPU copy of ``model`` in eval mode with random parameters and batch-norm statistics.

    Every parameter keeps its mean and its spread (a lower bound makes zero-initialised ones count), so activations
    keep their size and an absolute tolerance keeps its meaning. Batch-norm statistics are measured on ``examples``,
    then shaken.

    Args:
        model: adapted or plain; left as it is.
        examples: inputs, shape (n, *input_shape).
        generator: source of the random numbers, on the CPU.
    """
    twin = copy.deepcopy(model).cpu().float()
    for parameter in twin.parameters():
        spread = max(float(parameter.detach().std(unbiased=False)), _least_spread(parameter))
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.copy_(parameter.mean() + spread * noise)
    _measure_statistics(twin, examples.cpu(), generator)
    return twin.eval().requires_grad_(False)


def _least_spread(parameter: torch.Tensor) -> float:
    """Return the smallest standard deviation a parameter gets: that of usual initial weights, so nothing dominates."""
    return _LEAST_VECTOR_SPREAD if parameter.dim() < 2 else _LEAST_MATRIX_SPREAD


def _measure_statistics(model: nn.Module, examples: torch.Tensor, generator: torch.Generator) -> None:
    model.eval()
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.train()
        norm.momentum = None  # a plain mean over what is seen
    model(examples if len(examples) > 1 else examples.repeat_interleave(2, 0))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.eval()
        norm.momentum = momentum
        assert norm.running_mean is not None
        assert norm.running_var is not None
        variance = norm.running_var.clamp(min=_LEAST_VARIANCE)
        shift = 0.2 * variance.sqrt() * torch.randn(variance.shape, generator=generator)
        norm.running_mean.add_(shift)
        norm.running_var.copy_(variance * (0.5 + torch.rand(variance.shape, generator=generator)))
