"""LoRA (Hu et al. 2021, arXiv:2106.09685): dW = (alpha / r) B A, convolutions as in Sec. 4.1's matrix form."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from shared_peft.errors import ConfigError
from shared_peft.factors import Factors
from shared_peft.method import METHODS, AdapterConfig, AdapterMethod, WeightSpec, checked_rank, pattern_field


@dataclass(frozen=True)
class LoraConfig(AdapterConfig):
    """Low-rank adaptation.

    Args:
        r: rank.
        lora_alpha: the change is scaled by lora_alpha / r.
        lora_dropout: dropout on the input of the change, in [0, 1).
        use_rslora: scale by lora_alpha / sqrt(r) instead (Kalajdzievski 2023, arXiv:2312.03732).
        init_lora_weights: A is drawn "default" (kaiming-uniform, a = sqrt 5) or "gaussian" (std 1 / r); B is 0.
        rank_pattern: ranks by layer-name suffix or regular expression, over ``r``.
        alpha_pattern: alphas likewise, over ``lora_alpha``.
    """

    r: int = 8
    lora_alpha: float = 8.0
    lora_dropout: float = 0.0
    use_rslora: bool = False
    init_lora_weights: Literal["default", "gaussian"] = "default"
    rank_pattern: dict[str, int] = pattern_field()
    alpha_pattern: dict[str, float] = pattern_field()

    def __post_init__(self) -> None:
        check_dropout(self.lora_dropout)


def check_dropout(dropout: float) -> None:
    """Raise ConfigError unless ``dropout`` is a probability below 1."""
    if not 0 <= dropout < 1:
        raise ConfigError("lora_dropout", "must be in [0, 1)", dropout, "Use 0 to turn dropout off")


def lora_scale(alpha: float, rank: int, *, use_rslora: bool = False) -> float:
    """Return the factor on B A."""
    return alpha / (math.sqrt(rank) if use_rslora else rank)


def new_factors(spec: WeightSpec, rank: int, generator: torch.Generator | None) -> tuple[nn.Parameter, nn.Parameter]:
    """Return A, shape (rank, in / groups, *kernel), kaiming-uniform, and B, shape (out, rank), zero."""
    down = nn.Parameter(torch.empty(rank, *spec.shape[1:]))
    nn.init.kaiming_uniform_(down, a=math.sqrt(5), generator=generator)
    return down, nn.Parameter(torch.zeros(spec.shape[0], rank))


@METHODS.register("lora")
class Lora(AdapterMethod):
    """The change (alpha / r) B A; A has the kernel's modes, B is a matrix."""

    config_class: ClassVar[type[AdapterConfig]] = LoraConfig
    citation = "Hu et al. 2021, LoRA: Low-Rank Adaptation of Large Language Models, arXiv:2106.09685"

    def __init__(self, spec: WeightSpec, config: LoraConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        rank = checked_rank(spec, config.r)
        self.scale = lora_scale(config.lora_alpha, rank, use_rslora=config.use_rslora)
        self.dropout = config.lora_dropout
        self.lora_A, self.lora_B = new_factors(spec, rank, generator)
        if config.init_lora_weights == "gaussian":
            nn.init.normal_(self.lora_A, std=1 / rank, generator=generator)

    def factors(self) -> Factors:
        """Return A as core and s B as out-factor."""
        return Factors(core=self.lora_A, out_factor=self.lora_B * self.scale)

    def delta_weight(self, weight: Tensor) -> Tensor:
        """Return s B A."""
        return self.factors().compose()
