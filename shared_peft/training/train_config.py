"""What a training is told, and the learning rate it follows."""

import math
from dataclasses import dataclass
from typing import Literal

from shared_peft.errors import ConfigError

Schedule = Literal["cosine", "onecycle", "constant"]


@dataclass(frozen=True)
class TrainConfig:
    """How to train.

    Args:
        steps: optimiser steps.
        learning_rate: peak learning rate of AdamW.
        weight_decay: decoupled weight decay of AdamW.
        warmup_steps: steps of linear warm-up.
        schedule: "cosine" falls to zero at the last step, "constant" stays, "onecycle" rises slowly and then falls to
            almost zero (Smith and Topin 2018, arXiv:1708.07120; phases and shape of torch's OneCycleLR), its rise in
            the place of the warm-up.
        gradient_accumulation: batches per optimiser step.
        clip_norm: largest gradient norm; 0 turns clipping off.
        mixed_precision: "no", "bf16" or "fp16", as accelerate knows them.
        checkpoint_every: steps between checkpoints to resume from; 0 writes none.
        log_every: steps between lines in metrics.jsonl.
        seed: every random draw of step s is a function of (seed, s).
        ema_decay: decay of the average of the trained weights, which is then what is kept; 0 keeps the last weights.
        validate_every: steps between calls of ``validate``, where one is given.
        patience: validations without a better score that end training; 0 never ends it.
    """

    steps: int
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    warmup_steps: int = 0
    schedule: Schedule = "cosine"
    gradient_accumulation: int = 1
    clip_norm: float = 1.0
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    checkpoint_every: int = 0
    log_every: int = 10
    seed: int = 0
    ema_decay: float = 0.0
    validate_every: int = 100
    patience: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "gradient_accumulation", "log_every", "validate_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"TrainConfig.{name}", "must be at least 1", getattr(self, name), "Raise it")
        if not self.learning_rate > 0:
            raise ConfigError("TrainConfig.learning_rate", "must be positive", self.learning_rate, "Raise it")
        if not 0 <= self.ema_decay < 1:
            raise ConfigError("TrainConfig.ema_decay", "must be in [0, 1)", self.ema_decay, "Use 0.999, or 0 for none")


def learning_rate_factor(step: int, config: TrainConfig) -> float:
    """Return the multiple of the peak learning rate used at ``step`` (0-based), in [0, 1]."""
    if config.schedule == "onecycle":
        return _one_cycle(step, config.steps)
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return 1.0
    span = max(1, config.steps - config.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * (step - config.warmup_steps) / span))


def _one_cycle(step: int, steps: int) -> float:
    """Return the one-cycle factor: 1/25 to 1 over three tenths of the run, then down to 4e-7, on half cosines."""
    top, last, lowest = 0.3 * steps - 1, steps - 1, 1 / 25 / 1e4
    start, end, done = (1 / 25, 1.0, step / top) if step <= top else (1.0, lowest, (step - top) / (last - top))
    return end + (start - end) / 2 * (1 + math.cos(math.pi * done))
