"""The one training loop, on accelerate: every step is a function of (seed, step), so a resumed run is the same run."""

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from shared_peft.errors import ConfigError, TrainingError
from shared_peft.training.book import Book
from shared_peft.training.checkpoint import CHECKPOINT, Resumable, restore, save
from shared_peft.training.keep import Keeper, Validate
from shared_peft.training.run import RunFolder
from shared_peft.training.step import Batch, Objective, Stepper
from shared_peft.training.train_config import TrainConfig


@dataclass(frozen=True)
class TrainResult:
    """What a training run did.

    Args:
        steps: steps made in this call.
        loss: the last loss.
        seconds: time taken [s].
        rows: rows of batches seen in this call, those of all processes together.
        kept_step: the step whose weights validated best and were kept; 0 without validation.
        done: steps made in all, those before a resume included.
    """

    steps: int
    loss: float
    seconds: float
    rows: int
    kept_step: int
    done: int


def train(  # noqa: PLR0913  (a run, and all who listen to it)
    model: nn.Module,
    objective: Objective,
    batches: Callable[[int], Batch],
    config: TrainConfig,
    *,
    folder: RunFolder | None = None,
    resume: bool = False,
    parameters: Iterable[nn.Parameter] | Sequence[dict[str, Any]] | None = None,
    after_step: Callable[[int, torch.optim.Optimizer], None] | None = None,
    validate: Validate | None = None,
    progress: str | None = None,
) -> TrainResult:
    """Train ``model`` in place.

    Args:
        model: the model; parameters without ``requires_grad`` are left alone.
        objective: called as objective(model, batch, step); returns the scalar loss, a mean over the batch's rows, and
            numbers to log. In a run of several processes each sees its own rows of the batch.
        batches: called with the batch number (step * gradient_accumulation + micro step); returns tensors on the
            CPU whose first dimension is the global batch.
        config: see TrainConfig.
        folder: where metrics and checkpoints go.
        resume: start from ``folder``'s checkpoint if there is one.
        parameters: parameter groups for AdamW; by default every parameter with ``requires_grad``.
        after_step: called as after_step(steps_done, optimizer) after every optimiser step, the step's gradients still
            in place; adapters whose training has phases move on here.
        validate: called as validate(model), in eval mode and without gradients, every ``config.validate_every`` steps
            and after the last; returns a score, lower is better. The weights that score best are kept.
        progress: label of the progress bar; None shows none.

    Returns:
        A TrainResult.

    Raises:
        TrainingError: nothing is trainable, or a loss is not finite.
        ConfigError: fp16 without an accelerator.
    """
    started = time.perf_counter()
    accelerator = _accelerator(config.mixed_precision)
    optimizer = _optimizer(model, config, parameters, fused=accelerator.mixed_precision != "fp16")
    stepper = Stepper(model, objective, batches, config, optimizer, accelerator)
    keeper = _keeper(model, config, validate, accelerator)
    parts: dict[str, Resumable] = {"optimizer": optimizer, **keeper.parts()}
    first, loss = restore(folder.path / CHECKPOINT, model, parts) if resume and folder else (0, math.nan)
    stepper.wrapped.train()
    rows, done, safe, main = 0, first, first, accelerator.is_main_process
    with contextlib.closing(Book(config.steps, first, folder, progress)) if main else contextlib.nullcontext() as book:
        while done < config.steps and not keeper.over:
            loss, logs, seen = stepper.gradients(done, _resumable(folder, safe))
            stepper.apply()
            done, rows = done + 1, rows + seen
            if after_step is not None:
                after_step(done, optimizer)
            stepper.clear()
            validated = keeper.after_step(done, last=done == config.steps)
            if book is not None:
                line = done % config.log_every == 0 or done == config.steps or bool(validated)
                book.keep(done, loss, rows, {"lr": stepper.learning_rate, **logs, **validated}, line=line)
                if folder is not None and config.checkpoint_every and done % config.checkpoint_every == 0:
                    save(folder.path / CHECKPOINT, done, loss, model, parts)
                    safe = done
    keeper.finish()
    stepper.finish()
    kept = keeper.stop.best_step if keeper.stop else 0
    return TrainResult(done - first, loss, time.perf_counter() - started, rows, kept, done)


def _accelerator(mixed_precision: str) -> Any:
    from accelerate import Accelerator  # noqa: PLC0415  (slow to import; not needed to use adapters)
    from accelerate.state import AcceleratorState  # noqa: PLC0415

    if mixed_precision == "fp16" and not torch.cuda.is_available():
        raise ConfigError("TrainConfig.mixed_precision", "must be no or bf16 on a CPU", mixed_precision, "Use bf16")
    AcceleratorState._reset_state()  # it remembers the precision of the process's last run, and refuses another
    return Accelerator(mixed_precision=mixed_precision, cpu=not torch.cuda.is_available())


def _keeper(model: nn.Module, config: TrainConfig, validate: Validate | None, accelerator: Any) -> Keeper:
    def agree(score: float) -> float:
        return float(accelerator.reduce(torch.tensor(score, device=accelerator.device), "mean"))

    every, patience = config.validate_every, config.patience
    return Keeper(model, ema_decay=config.ema_decay, validate=validate, every=every, patience=patience, agree=agree)


def _optimizer(model: nn.Module, config: TrainConfig, parameters: Any, *, fused: bool) -> torch.optim.Optimizer:
    groups = list(parameters) if parameters is not None else [p for p in model.parameters() if p.requires_grad]
    if not groups:
        fix = "Attach an adapter, or unfreeze the head"
        raise TrainingError("train", "at least one parameter must require a gradient", "none", fix)
    return torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=config.weight_decay, fused=fused)


def _resumable(folder: RunFolder | None, step: int) -> str:
    """Return what an error says about the checkpoint of ``step``, 0 where there is none."""
    if folder is None or not step:
        return ""
    kept = f"the last good checkpoint is that of step {step} in {folder.path}"
    return f"; {kept}: once the cause is removed, --resume goes on from it"
