"""LoRA-Init: LoRA restarts on the r directions the task moves most (Si et al. 2024, arXiv:2409.01035v5).

Equation:
    W' = W + s B A - s B0 A0
    B0, A0: on the r singular directions that moved most in the first warmup_steps; B and A restart there

Use:
    Where LoRA learns slowly and there are some hundred steps: after the warm-up it starts again from the directions
    that this task moves. It ends as a LoRA of twice the rank, and merges like one.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from shared_peft.method import METHODS, AdapterConfig, WeightSpec
from shared_peft.task_directions import TaskDirections, TaskDirectionsConfig


@dataclass(frozen=True)
class LoraInitConfig(TaskDirectionsConfig):
    """Low-rank adaptation that restarts on as many of the directions the task moves most as it has ranks."""


@METHODS.register("lora_init")
class LoraInit(TaskDirections):
    """The change s B A - s B0 A0, with s B0 A0 the frozen weight's part along the r directions."""

    config_class: ClassVar[type[AdapterConfig]] = LoraInitConfig
    citation = "Si et al. 2024, Unleashing the Power of Task-Specific Directions in PEFT, arXiv:2409.01035v5, LoRA-Init"
    restarts, dashes = True, False

    def __init__(self, spec: WeightSpec, config: LoraInitConfig, generator: torch.Generator | None = None) -> None:
        super().__init__(spec, config, config.r, generator)
