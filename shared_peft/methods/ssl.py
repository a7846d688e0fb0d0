"""SSL, scaling the subspace of the left singular vectors (Si et al. 2024, arXiv:2407.05417, Sec. III-B): W D_in.

The paper writes a layer as x W with W (in x out): its left singular vectors span the input side, and the released code
scales input features. (IA)^3 scales the right singular vectors, the output side.

Equation:
    W' = W D_in                   D_in: a factor for each input channel, 1 at the start

Use:
    As (IA)^3, on the side of the input: where some of a layer's input features do not matter for the task.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from shared_peft.method import METHODS, AdapterConfig, AdapterMethod, WeightSpec
from shared_peft.methods.ssb import new_in_scale, scaled_change


@dataclass(frozen=True)
class SslConfig(AdapterConfig):
    """One factor for every input channel; nothing to choose but the layers."""


@METHODS.register("ssl")
class Ssl(AdapterMethod):
    """The change W D_in - W, the diagonal starting at 1."""

    config_class: ClassVar[type[AdapterConfig]] = SslConfig
    citation = "Si et al. 2024, See Further for Parameter Efficient Fine-tuning (SSL), arXiv:2407.05417"

    def __init__(self, spec: WeightSpec, config: SslConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.groups = spec.groups
        self.in_scale = new_in_scale(spec)

    def delta_weight(self, weight: Tensor) -> Tensor:
        """Return W D_in - W."""
        return scaled_change(weight, None, self.in_scale, self.groups)
