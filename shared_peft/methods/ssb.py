"""SSB, scaling the subspace of both sides (Si et al. 2024, arXiv:2407.05417, Eq. 10): phi(W) = D_out W D_in.

Equation:
    W' = D_out W D_in             one factor for each output and each input channel, 1 at the start

Use:
    The smallest method that touches both sides of a weight. Try it before LoRA when an adapter may have a few
    thousand parameters.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from shared_peft.method import METHODS, AdapterConfig, AdapterMethod, WeightSpec


@dataclass(frozen=True)
class SsbConfig(AdapterConfig):
    """One factor for every output channel and one for every input channel; nothing to choose but the layers."""


@METHODS.register("ssb")
class Ssb(AdapterMethod):
    """The change D_out W D_in - W, both diagonals starting at 1. The bias stays as it is."""

    config_class: ClassVar[type[AdapterConfig]] = SsbConfig
    citation = "Si et al. 2024, See Further for Parameter Efficient Fine-tuning (SSB), arXiv:2407.05417"

    def __init__(self, spec: WeightSpec, config: SsbConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.groups = spec.groups
        self.out_scale = new_out_scale(spec)
        self.in_scale = new_in_scale(spec)

    def delta_weight(self, weight: Tensor) -> Tensor:
        """Return D_out W D_in - W."""
        return scaled_change(weight, self.out_scale, self.in_scale, self.groups)


def new_out_scale(spec: WeightSpec) -> nn.Parameter:
    """Return D_out's diagonal, all ones: shape (out,)."""
    return nn.Parameter(torch.ones(spec.shape[0]))


def new_in_scale(spec: WeightSpec) -> nn.Parameter:
    """Return D_in's diagonal, all ones: shape (in,), every input channel of every group."""
    return nn.Parameter(torch.ones(spec.groups * spec.shape[1]))


def scaled_change(weight: Tensor, out_scale: Tensor | None, in_scale: Tensor | None, groups: int) -> Tensor:
    """Return D_out W D_in - W, exactly 0 where both factors are 1.

    Column j of the rows of group g meets input channel g * in / groups + j, so it takes that channel's factor.

    Args:
        weight: shape (out, in / groups, *kernel).
        out_scale: shape (out,), or None for an identity.
        in_scale: shape (in,), or None for an identity.
        groups: number of groups of a convolution, else 1.
    """
    by_group = weight.unflatten(0, (groups, -1))  # (groups, out / groups, in / groups, *kernel)
    modes = (1,) * (weight.dim() - 2)
    factor: Tensor | float = 1.0
    if out_scale is not None:
        factor = factor * out_scale.reshape(groups, -1, 1, *modes)
    if in_scale is not None:
        factor = factor * in_scale.reshape(groups, 1, -1, *modes)
    return (by_group * (factor - 1)).flatten(0, 1)
