"""LoRA-TSD = LoRA-Dash + LoRA-Init on task-specific directions (Si et al. 2024, arXiv:2409.01035v5).

Equation:
    W' = W + s B A - s B0 A0 + sum over i in I of dsigma_i u_i v_i^T
    I: the n_directions singular directions that moved most in the first warmup_steps; B and A restart there

Use:
    Both halves of the paper at once: LoRA-Init's restart and LoRA-Dash's singular values. It needs some hundred steps
    after the warm-up; in a training of little more than a hundred the restart costs more than it gives.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from shared_peft.method import METHODS, AdapterConfig, WeightSpec
from shared_peft.task_directions import TaskDirections, TaskDirectionsConfig


@dataclass(frozen=True)
class LoraTsdConfig(TaskDirectionsConfig):
    """Low-rank adaptation that restarts on the directions the task moves most, and trains their singular values.

    Args:
        n_directions: number of directions whose singular values are trained; clamped to the matrix's own rank.
        warmup_steps: optimiser steps of plain LoRA before the directions are chosen.
    """

    n_directions: int = 8
    warmup_steps: int = 100


@METHODS.register("lora_tsd")
class LoraTsd(TaskDirections):
    """The change s B A - s B0 A0 + sum over I of dsigma_i u_i v_i^T: a plain LoRA of rank r + |I| on the base."""

    config_class: ClassVar[type[AdapterConfig]] = LoraTsdConfig
    citation = "Si et al. 2024, Unleashing the Power of Task-Specific Directions in PEFT, arXiv:2409.01035v5"
    restarts, dashes = True, True

    def __init__(self, spec: WeightSpec, config: LoraTsdConfig, generator: torch.Generator | None = None) -> None:
        super().__init__(spec, config, config.n_directions, generator)
