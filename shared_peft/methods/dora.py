"""DoRA (Liu et al. 2024, arXiv:2402.09353, Eq. 5): W' = m (W + dW) / ||W + dW||, magnitude and direction apart.

Equation:
    W' = m (W + s B A) / ||W + s B A||
    m: (out), the norms of W's rows at the start; the norm counts as a constant in the gradient

Use:
    Where LoRA of a small rank is not enough: the direction and the length of every output channel are trained apart. A
    step builds the whole changed weight; merged, it costs nothing.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from shared_peft.low_rank import LowRankConfig, LowRankMethod
from shared_peft.method import METHODS, AdapterConfig, WeightSpec


@dataclass(frozen=True)
class DoraConfig(LowRankConfig):
    """Low-rank adaptation of the weight's directions, with their lengths trained beside it."""


@METHODS.register("dora")
class Dora(LowRankMethod):
    """The change m (W + s B A) / ||W + s B A|| - W, with one norm and one magnitude m for each output channel.

    The norm is taken over everything but the output channel, as in the paper's code and Hugging Face peft; that an
    embedding's output channels are its features is ours. It counts as a constant in the gradient (Sec. 4.3).
    """

    config_class: ClassVar[type[AdapterConfig]] = DoraConfig
    citation = "Liu et al. 2024, DoRA: Weight-Decomposed Low-Rank Adaptation, arXiv:2402.09353"

    def __init__(self, spec: WeightSpec, config: DoraConfig, generator: torch.Generator | None = None) -> None:
        super().__init__(spec, config, generator)
        self.magnitude = nn.Parameter(torch.ones(spec.shape[0]))  # m

    @torch.no_grad()
    def start(self, weight: Tensor) -> None:
        """Take the weight's own norms as magnitude, so that the change is 0 to the last bit."""
        self.magnitude.copy_(self._norms(weight, self.product().compose().to(weight.device)))

    def delta_weight(self, weight: Tensor) -> Tensor:
        """Return W' - W, as (m / norm - 1) W + (m / norm) dW."""
        change = self.product().compose()
        norms = self._norms(weight, change)
        ratio = self.magnitude / torch.where(norms == 0, 1.0, norms)  # a weight of zeros has no direction
        ratio = ratio.reshape(-1, *(1,) * (weight.dim() - 1))
        return (ratio - 1) * weight + ratio * change

    def _norms(self, weight: Tensor, change: Tensor) -> Tensor:
        """Return the norm of each output channel of W + dW, shape (out,), without gradient."""
        changed = (weight + change).detach().to(self.magnitude.dtype)
        return torch.linalg.vector_norm(changed.flatten(1), dim=1)
