"""The one training loop, on accelerate: every step is a function of (seed, step), so a resumed run is the same run."""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from shared_peft.atomic import replacing
from shared_peft.errors import ConfigError, TrainingError
from shared_peft.inject import training_penalty
from shared_peft.training.run import RunFolder

CHECKPOINT = "checkpoint.pt"

Batch = Sequence[torch.Tensor]
Objective = Callable[[nn.Module, Batch, int], tuple[torch.Tensor, dict[str, float]]]


@dataclass(frozen=True)
class TrainConfig:
    """How to train.

    Args:
        steps: optimiser steps.
        learning_rate: peak learning rate of AdamW.
        weight_decay: decoupled weight decay of AdamW.
        warmup_steps: steps of linear warm-up.
        schedule: "cosine" falls to zero at the last step, "constant" stays.
        gradient_accumulation: batches per optimiser step.
        clip_norm: largest gradient norm; 0 turns clipping off.
        mixed_precision: "no", "bf16" or "fp16", as accelerate knows them.
        checkpoint_every: steps between checkpoints to resume from; 0 writes none.
        log_every: steps between lines in metrics.jsonl.
        seed: every random draw of step s is a function of (seed, s).
    """

    steps: int
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    warmup_steps: int = 0
    schedule: Literal["cosine", "constant"] = "cosine"
    gradient_accumulation: int = 1
    clip_norm: float = 1.0
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    checkpoint_every: int = 0
    log_every: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "gradient_accumulation", "log_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"TrainConfig.{name}", "must be at least 1", getattr(self, name), "Raise it")
        if not self.learning_rate > 0:
            raise ConfigError("TrainConfig.learning_rate", "must be positive", self.learning_rate, "Raise it")


@dataclass(frozen=True)
class TrainResult:
    """What a training run did: steps made in this call, the last loss, seconds taken."""

    steps: int
    loss: float
    seconds: float


def learning_rate_factor(step: int, config: TrainConfig) -> float:
    """Return the multiple of the peak learning rate used at ``step`` (0-based), in [0, 1]."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return 1.0
    span = max(1, config.steps - config.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * (step - config.warmup_steps) / span))


def train(
    model: nn.Module,
    objective: Objective,
    batches: Callable[[int], Batch],
    config: TrainConfig,
    *,
    folder: RunFolder | None = None,
    resume: bool = False,
    parameters: Iterable[nn.Parameter] | Sequence[dict[str, Any]] | None = None,
    after_step: Callable[[int, torch.optim.Optimizer], None] | None = None,
    progress: str | None = None,
) -> TrainResult:
    """Train ``model`` in place.

    Args:
        model: the model; parameters without ``requires_grad`` are left alone.
        objective: called as objective(model, batch, step); returns the scalar loss and numbers to log. In a run of
            several processes each sees its own rows of the batch.
        batches: called with the batch number (step * gradient_accumulation + micro step); returns tensors on the
            CPU whose first dimension is the global batch.
        config: see TrainConfig.
        folder: where metrics and checkpoints go.
        resume: start from ``folder``'s checkpoint if there is one.
        parameters: parameter groups for AdamW; by default every parameter with ``requires_grad``.
        after_step: called as after_step(steps_done, optimizer) after every optimiser step, the step's gradients still
            in place; adapters whose training has phases move on here.
        progress: label of the progress bar; None shows none.

    Returns:
        A TrainResult.

    Raises:
        TrainingError: nothing is trainable, or a loss is not finite.
    """
    started = time.perf_counter()
    from accelerate import Accelerator  # noqa: PLC0415  (slow to import; not needed to use adapters)

    groups = _groups(model, parameters)
    accelerator = Accelerator(mixed_precision=config.mixed_precision, cpu=not torch.cuda.is_available())
    fused = accelerator.mixed_precision != "fp16"
    optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=config.weight_decay, fused=fused)
    peaks = [group["lr"] for group in optimizer.param_groups]
    first = _restore(model, optimizer, folder.path / CHECKPOINT) if resume and folder else 0
    prepared, prepared_optimizer = accelerator.prepare(model, optimizer)
    prepared.train()
    book = _Book(model, optimizer, config, folder, first, progress) if accelerator.is_main_process else None
    loss_value = math.nan
    for step in range(first, config.steps):
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * learning_rate_factor(step, config)
        loss, logs = _gradients(prepared, objective, batches, config, accelerator, step)
        loss_value = _finite(loss, step, folder)
        if config.clip_norm:
            accelerator.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], config.clip_norm)
        prepared_optimizer.step()
        if after_step is not None:
            after_step(step + 1, optimizer)
        prepared_optimizer.zero_grad(set_to_none=True)
        if book is not None:
            book.keep(step + 1, loss_value, logs)
    return TrainResult(max(0, config.steps - first), loss_value, time.perf_counter() - started)


def _gradients(
    model: nn.Module,
    objective: Objective,
    batches: Callable[[int], Batch],
    config: TrainConfig,
    accelerator: Any,
    step: int,
) -> tuple[torch.Tensor, dict[str, float]]:
    """Add up the gradients of one optimiser step; return the last micro batch's loss, penalties included, and logs."""
    loss, logs = torch.tensor(math.nan), {}
    for micro in range(config.gradient_accumulation):
        index = step * config.gradient_accumulation + micro
        torch.manual_seed((config.seed * 7_368_787 + index * 1_009 + accelerator.process_index) % 2**63)
        batch = _my_rows(batches(index), accelerator)
        with accelerator.autocast():
            loss, logs = objective(model, batch, step)
        penalty = training_penalty(model)
        loss = loss if penalty is None else loss + penalty
        accelerator.backward(loss / config.gradient_accumulation)
    return loss, logs


class _Book:
    """Keeps the progress bar, metrics.jsonl and the checkpoint of a run up to date."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        config: TrainConfig,
        folder: RunFolder | None,
        first: int,
        progress: str | None,
    ) -> None:
        self.model, self.optimizer, self.config, self.folder = model, optimizer, config, folder
        self.started = time.perf_counter()
        self.bar = _progress_bar(progress, config.steps, first)

    def keep(self, done: int, loss: float, logs: dict[str, float]) -> None:
        """Record that ``done`` steps are done."""
        last = done == self.config.steps
        if self.bar is not None:
            self.bar.update()
            self.bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
            if last:
                self.bar.close()
        if self.folder is None:
            return
        if done % self.config.log_every == 0 or last:
            seconds = round(time.perf_counter() - self.started, 3)
            self.folder.log(step=done, loss=loss, lr=self.optimizer.param_groups[0]["lr"], seconds=seconds, **logs)
        if self.config.checkpoint_every and done % self.config.checkpoint_every == 0:
            _save(self.model, self.optimizer, done, self.folder.path / CHECKPOINT)


def _groups(model: nn.Module, parameters: Any) -> list[Any]:
    groups = list(parameters) if parameters is not None else [p for p in model.parameters() if p.requires_grad]
    if not groups:
        fix = "Attach an adapter, or unfreeze the head"
        raise TrainingError("train", "at least one parameter must require a gradient", "none", fix)
    return groups


def _my_rows(batch: Batch, accelerator: Any) -> list[torch.Tensor]:
    rank, world = accelerator.process_index, accelerator.num_processes
    return [tensor[rank::world].to(accelerator.device, non_blocking=True) for tensor in batch]


def _finite(loss: torch.Tensor, step: int, folder: RunFolder | None) -> float:
    value = float(loss.detach())
    if not math.isfinite(value):
        saved = folder is not None and (folder.path / CHECKPOINT).exists()
        fix = "Lower the learning rate" + (
            f"; the last good checkpoint is in {folder.path}" if saved and folder else ""
        )
        raise TrainingError(f"step {step}", "the loss must be finite", value, fix)
    return value


def _trained_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return what training can change: parameters with a gradient, and buffers."""
    kept = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    kept |= {name for name, _ in model.named_buffers()}
    return {name: tensor for name, tensor in model.state_dict().items() if name in kept}


def _save(model: nn.Module, optimizer: torch.optim.Optimizer, step: int, path: Path) -> None:
    with replacing(path) as temporary:
        torch.save({"step": step, "model": _trained_state(model), "optimizer": optimizer.state_dict()}, temporary)


def _restore(model: nn.Module, optimizer: torch.optim.Optimizer, path: Path) -> int:
    if not path.exists():
        return 0
    saved = torch.load(path, map_location="cpu", weights_only=True)
    if saved["model"].keys() != _trained_state(model).keys():
        raise TrainingError(
            path, "must be a checkpoint of this model", "other parameter names", "Remove it and restart"
        )
    model.load_state_dict(saved["model"], strict=False)
    optimizer.load_state_dict(saved["optimizer"])
    return int(saved["step"])


def _progress_bar(label: str | None, total: int, initial: int) -> Any:
    if label is None:
        return None
    from tqdm import tqdm  # noqa: PLC0415

    return tqdm(total=total, initial=initial, desc=label, unit="step", dynamic_ncols=True, mininterval=0.5)
