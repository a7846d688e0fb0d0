"""LoRA-Dash: the singular values of the directions the task moves most join LoRA (Si et al. 2024, arXiv:2409.01035).

Equation:
    W' = W + s B A + sum over i in I of dsigma_i u_i v_i^T
    I: the n_directions singular directions that moved most in the first warmup_steps

Use:
    Where LoRA has to stay what it is (its file, its start) and a little more is wanted: the singular values of the
    chosen directions are trained beside it.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from shared_peft.method import METHODS, AdapterConfig, WeightSpec
from shared_peft.task_directions import TaskDirections, TaskDirectionsConfig


@dataclass(frozen=True)
class LoraDashConfig(TaskDirectionsConfig):
    """Low-rank adaptation that also trains the singular values of the directions the task moves most.

    Args:
        n_directions: number of directions whose singular values are trained; clamped to the matrix's own rank.
        warmup_steps: optimiser steps of plain LoRA before the directions are chosen.
    """

    n_directions: int = 8
    warmup_steps: int = 100


@METHODS.register("lora_dash")
class LoraDash(TaskDirections):
    """The change s B A + sum over I of dsigma_i u_i v_i^T; B and A train on through the launch."""

    config_class: ClassVar[type[AdapterConfig]] = LoraDashConfig
    citation = "Si et al. 2024, Unleashing the Power of Task-Specific Directions in PEFT, arXiv:2409.01035v5, LoRA-Dash"
    restarts, dashes = False, True

    def __init__(self, spec: WeightSpec, config: LoraDashConfig, generator: torch.Generator | None = None) -> None:
        super().__init__(spec, config, config.n_directions, generator)
