"""(IA)^3 (Liu et al. 2022, arXiv:2205.05638, Sec. 3.3): learned factors on a layer's output, or on its input.

Equation:
    W' = D_out W                  D_out: a factor for each output channel, 1 at the start
    W' = W D_in                   on feedforward_modules

Use:
    With very few labels or very little room: one number a channel. It can only make channels louder or quieter, so
    it falls behind where the task needs new features.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from shared_peft.errors import ConfigError
from shared_peft.method import METHODS, AdapterConfig, AdapterMethod, WeightSpec
from shared_peft.methods.ssb import new_in_scale, new_out_scale, scaled_change
from shared_peft.targets import matches


@dataclass(frozen=True)
class IA3Config(AdapterConfig):
    """Factors on activations, folded into the weight.

    Args:
        feedforward_modules: layers whose input is scaled instead of their output (the second layer of a feedforward
            block, whose input is the block's inner activation): a list of name suffixes, or a regular expression
            that matches the whole name.
    """

    feedforward_modules: list[str] | str | None = None

    def __post_init__(self) -> None:
        pattern = self.feedforward_modules
        if isinstance(pattern, str) and (pattern == "all" or pattern.startswith("all-")):
            must = "must be a list of name suffixes or a regular expression"
            raise ConfigError("IA3Config.feedforward_modules", must, repr(pattern), "Use '.*' for every layer")


@METHODS.register("ia3")
class IA3(AdapterMethod):
    """The change D_out W - W, or W D_in - W for feedforward modules, the diagonal starting at 1.

    Ours: the bias is left as it is, so that the change is one of the weight alone; Hugging Face peft scales it too.
    """

    config_class: ClassVar[type[AdapterConfig]] = IA3Config
    citation = "Liu et al. 2022, Few-Shot PEFT is Better and Cheaper than In-Context Learning, arXiv:2205.05638"

    def __init__(self, spec: WeightSpec, config: IA3Config, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.groups = spec.groups
        self.scales_input = bool(config.feedforward_modules) and matches(spec.name, config.feedforward_modules or [])
        self.scale = new_in_scale(spec) if self.scales_input else new_out_scale(spec)

    def delta_weight(self, weight: Tensor) -> Tensor:
        """Return D_out W - W, or W D_in - W."""
        if self.scales_input:
            return scaled_change(weight, None, self.scale, self.groups)
        return scaled_change(weight, self.scale, None, self.groups)
