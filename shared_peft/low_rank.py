"""What the methods around LoRA's product B A share: the factors, their scale, dropout and penalty."""

import math
from abc import ABC
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor, nn

from shared_peft.errors import ConfigError
from shared_peft.factors import Factors
from shared_peft.method import AdapterMethod, WeightSpec, checked_rank, pattern_field
from shared_peft.penalties import PenaltyConfig


@dataclass(frozen=True)
class LowRankConfig(PenaltyConfig):
    """What every method built on B A can be told.

    Args:
        r: rank.
        lora_alpha: B A is scaled by lora_alpha / r.
        lora_dropout: dropout on the input of the change, in [0, 1).
        use_rslora: scale by lora_alpha / sqrt(r) instead (Kalajdzievski 2023, arXiv:2312.03732).
        rank_pattern: ranks by layer-name suffix or regular expression, over ``r``.
        alpha_pattern: alphas likewise, over ``lora_alpha``.
    """

    r: int = 8
    lora_alpha: float = 8.0
    _: KW_ONLY
    lora_dropout: float = 0.0
    use_rslora: bool = False
    rank_pattern: dict[str, int] = pattern_field()
    alpha_pattern: dict[str, float] = pattern_field()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.lora_dropout < 1:
            raise ConfigError("lora_dropout", "must be in [0, 1)", self.lora_dropout, "Use 0 to turn dropout off")


class LowRankMethod(AdapterMethod, ABC):
    """A method with the trainable product s B A, s = lora_alpha / r, that starts at 0.

    Args:
        spec: the weight to adapt.
        config: a LowRankConfig.
        generator: source of A's random values.

    Raises:
        RankError: a rank the weight, read as a matrix, cannot have.
    """

    lora_A: nn.Parameter  # shape (r, in / groups, *kernel), kaiming-uniform
    lora_B: nn.Parameter  # shape (out, r), 0

    def __init__(self, spec: WeightSpec, config: LowRankConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        rank = checked_rank(spec, config.r)
        self.scale = config.lora_alpha / (math.sqrt(rank) if config.use_rslora else rank)
        self.dropout = config.lora_dropout
        self.config = config
        self.lora_A = nn.Parameter(torch.empty(rank, *spec.shape[1:]))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5), generator=generator)
        self.lora_B = nn.Parameter(torch.zeros(spec.shape[0], rank))

    def product(self) -> Factors:
        """Return s B A as a chain: A as core, s B as out-factor."""
        return Factors(core=self.lora_A, out_factor=self.lora_B * self.scale)

    def penalty(self) -> Tensor | None:
        """Return the orthogonality penalty of A and B, where the configuration asks for one."""
        return self.config.penalty(self.lora_A, self.lora_B)
