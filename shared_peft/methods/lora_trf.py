"""LoRATRF, LoRA with a task-relevant feature filter, after arXiv:2412.09827; the equations here are ours.

The paper's equation is in no text we could read. Known of it: a task-aware filter selects from hidden representations.

Equation:
    y = h + s B A x + s_f D C f   h = W x + bias
    f = h * clamp(cos(h, t), 0, 1)   t: a learned task vector, over the channels at each position

Use:
    To see whether filtering the layer's own output by the task helps. It cannot be merged, and an exported model has
    extra nodes. The equations are ours. Experimental.
"""

from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from shared_peft.errors import RankError
from shared_peft.low_rank import LowRankConfig, LowRankMethod
from shared_peft.method import METHODS, AdapterConfig, LayerMaps, WeightSpec
from shared_peft.methods.mpc_n import not_a_weight_change


@dataclass(frozen=True)
class LoraTrfConfig(LowRankConfig):
    """Low-rank adaptation with a second, filtered branch on the layer's output; cannot be merged.

    Args:
        filter_r: rank of the filtered branch; None takes ``r``.
        filter_scale: factor s_f on the filtered branch.
    """

    _: KW_ONLY
    filter_r: int | None = None
    filter_scale: float = 1.0


@METHODS.register("lora_trf")
class LoraTrf(LowRankMethod):
    """Adds s B A x + s_f D C f to the output h, where f = h * clamp(cos(h, t), 0, 1) and t is a learned task vector.

    Ours: h is the frozen layer's output, its bias included, and the cosine is over the channels at each position. The
    branch lets through what already points where the task does, and nothing else.
    """

    config_class: ClassVar[type[AdapterConfig]] = LoraTrfConfig
    citation = "Low-Rank Adaptation with Task-Relevant Feature Enhancement, arXiv:2412.09827 (equations ours)"
    mergeable = False
    experimental = True

    def __init__(self, spec: WeightSpec, config: LoraTrfConfig, generator: torch.Generator | None = None) -> None:
        super().__init__(spec, config, generator)
        channels = spec.shape[0]
        rank = config.r if config.filter_r is None else config.filter_r
        if not 1 <= rank <= channels:
            must = f"rank of the filtered branch must be in [1, {channels}]"
            raise RankError(spec.name, must, rank, "Lower filter_r or exclude the layer")
        self.filter_scale = config.filter_scale
        self.task = nn.Parameter(torch.empty(channels))  # t
        nn.init.normal_(self.task, generator=generator)
        self.filter_A = nn.Parameter(torch.empty(rank, channels))  # C
        nn.init.kaiming_uniform_(self.filter_A, a=5**0.5, generator=generator)
        self.filter_B = nn.Parameter(torch.zeros(channels, rank))  # D

    def respond(self, x: Tensor, output: Tensor, maps: LayerMaps) -> Tensor:
        """Return s B A x + s_f D C f."""
        low_rank = maps.mix(maps.narrow(x, self.lora_A), self.lora_B * self.scale)
        narrow = maps.mix(self.filtered(output, maps.channel_dimension), self.filter_A)
        return low_rank + maps.mix(narrow, self.filter_B * self.filter_scale)

    def filtered(self, output: Tensor, dimension: int) -> Tensor:
        """Return f = h * clamp(cos(h, t), 0, 1), channels along ``dimension``, in the shape of ``output``."""
        task = self.task.reshape(-1, *(1,) * (-1 - dimension))
        likeness = functional.cosine_similarity(output, task, dim=dimension).unsqueeze(dimension)
        return output * likeness.clamp(0, 1)

    def delta_weight(self, weight: Tensor) -> Tensor:
        """Refuse: no weight change answers like a filter on the output.

        Raises:
            MergeError: always.
        """
        raise not_a_weight_change("lora_trf")
