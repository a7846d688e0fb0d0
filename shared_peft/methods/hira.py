"""HiRA, the first order of LieRA (Huang et al. 2025, ICLR; Si et al. 2025, arXiv:2504.00851): dW = W * (s B A).

Equation:
    W' = W + W * (s B A)          * entry by entry

Use:
    Where the change should have the weight's own rank: r bounds the factor, not the change. Entries of W that are 0
    stay 0, which suits pruned weights. A step builds the whole weight.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from shared_peft.low_rank import LowRankConfig, LowRankMethod
from shared_peft.method import METHODS, AdapterConfig


@dataclass(frozen=True)
class HiraConfig(LowRankConfig):
    """Low-rank adaptation that multiplies the frozen weight, entry by entry."""


@METHODS.register("hira")
class Hira(LowRankMethod):
    """The change W * (s B A), entry by entry: of the weight's own rank, however small r is.

    LieRA writes the adapted weight as W * exp(s B A), entry by entry, and its first order is this. Where W is 0 it
    stays 0.
    """

    config_class: ClassVar[type[AdapterConfig]] = HiraConfig
    citation = "Si et al. 2025, Generalized Tensor-based PEFT via Lie Group Transformations (LieRA), arXiv:2504.00851"

    def delta_weight(self, weight: Tensor) -> Tensor:
        """Return W * (s B A)."""
        return weight * self.product().compose()
