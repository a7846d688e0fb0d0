"""LoRA (Hu et al. 2021, arXiv:2106.09685): dW = (alpha / r) B A, convolutions as in Sec. 4.1's matrix form."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from shared_peft.factors import Factors
from shared_peft.low_rank import LowRankConfig, LowRankMethod
from shared_peft.method import METHODS, AdapterConfig, WeightSpec


@dataclass(frozen=True)
class LoraConfig(LowRankConfig):
    """Low-rank adaptation.

    Args:
        init_lora_weights: A is drawn "default" (kaiming-uniform, a = sqrt 5) or "gaussian" (std 1 / r); B is 0.
    """

    lora_dropout: float = 0.0  # again, because positional here
    use_rslora: bool = False
    init_lora_weights: Literal["default", "gaussian"] = "default"


@METHODS.register("lora")
class Lora(LowRankMethod):
    """The change (alpha / r) B A; A has the kernel's modes, B is a matrix."""

    config_class: ClassVar[type[AdapterConfig]] = LoraConfig
    citation = "Hu et al. 2021, LoRA: Low-Rank Adaptation of Large Language Models, arXiv:2106.09685"

    def __init__(self, spec: WeightSpec, config: LoraConfig, generator: torch.Generator | None = None) -> None:
        super().__init__(spec, config, generator)
        if config.init_lora_weights == "gaussian":
            nn.init.normal_(self.lora_A, std=1 / config.r, generator=generator)

    def factors(self) -> Factors:
        """Return A as core and s B as out-factor."""
        return self.product()

    def delta_weight(self, weight: Tensor) -> Tensor:
        """Return s B A."""
        return self.product().compose()
