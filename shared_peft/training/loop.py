"""The one training loop, on accelerate: every step is a function of (seed, step), so a resumed run is the same run."""

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from shared_peft.errors import ConfigError, TrainingError
from shared_peft.inject import training_penalty
from shared_peft.training.book import Book
from shared_peft.training.checkpoint import CHECKPOINT, Resumable, restore, save
from shared_peft.training.keep import Keeper, Validate
from shared_peft.training.not_finite import first_not_finite
from shared_peft.training.run import RunFolder

Schedule = Literal["cosine", "onecycle", "constant"]
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
    rows: int = 0
    kept_step: int = 0
    done: int = 0


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
    groups = _groups(model, parameters)
    accelerator = _accelerator(config.mixed_precision)
    fused = accelerator.mixed_precision != "fp16"
    optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=config.weight_decay, fused=fused)
    peaks = [group["lr"] for group in optimizer.param_groups]
    prepared, prepared_optimizer = accelerator.prepare(model, optimizer)
    keeper = _keeper(model, config, validate, accelerator)
    parts: dict[str, Resumable] = {"optimizer": optimizer, **keeper.parts()}
    first, loss = restore(folder.path / CHECKPOINT, model, parts) if resume and folder else (0, math.nan)
    prepared.train()
    rows, done, safe, main = 0, first, first, accelerator.is_main_process
    with contextlib.closing(Book(config.steps, first, folder, progress)) if main else contextlib.nullcontext() as book:
        while done < config.steps and not keeper.over:
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * learning_rate_factor(done, config)
            loss, logs, seen = _gradients(prepared, objective, batches, config, accelerator, done)
            trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            norm = float(accelerator.clip_grad_norm_(trained, config.clip_norm or math.inf))
            skipped = accelerator.scaler is not None  # fp16 lets such a step pass
            if not (math.isfinite(loss) and (skipped or math.isfinite(norm))):
                runs = _runs_of_step(model, objective, batches, config, accelerator, done)
                raise _not_finite(loss, norm, first_not_finite(model, runs), done, folder, safe)
            prepared_optimizer.step()
            done, rows = done + 1, rows + seen
            if after_step is not None:
                after_step(done, optimizer)
            prepared_optimizer.zero_grad(set_to_none=True)
            validated = keeper.after_step(done, last=done == config.steps)
            if book is not None:
                line = done % config.log_every == 0 or done == config.steps or bool(validated)
                values = {"lr": optimizer.param_groups[0]["lr"], **logs, **validated}
                book.keep(done, loss, rows, values, line=line)
                if folder is not None and config.checkpoint_every and done % config.checkpoint_every == 0:
                    save(folder.path / CHECKPOINT, done, loss, model, parts)
                    safe = done
    keeper.finish()
    _undo_autocast(accelerator, prepared, model)
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


def _gradients(
    model: nn.Module,
    objective: Objective,
    batches: Callable[[int], Batch],
    config: TrainConfig,
    accelerator: Any,
    step: int,
) -> tuple[float, dict[str, float], int]:
    """Add up the gradients of one optimiser step.

    Returns:
        The last micro batch's loss over all processes, penalties included, its logs, and the rows of all micro batches.
    """
    loss, logs, rows, micros = torch.tensor(math.nan), {}, 0, config.gradient_accumulation
    for micro in range(micros):
        loss, logs, seen = _micro_loss(model, objective, batches, config, accelerator, step * micros + micro)
        with accelerator.no_sync(model) if micro + 1 < micros else contextlib.nullcontext():
            accelerator.backward(loss / micros)
        rows += seen
    return float(accelerator.reduce(loss.detach(), "mean")), logs, rows


def _micro_loss(
    model: nn.Module,
    objective: Objective,
    batches: Callable[[int], Batch],
    config: TrainConfig,
    accelerator: Any,
    index: int,
) -> tuple[torch.Tensor, dict[str, float], int]:
    """Return the loss of batch ``index`` on this process's rows, penalties included, its logs, and all its rows."""
    torch.manual_seed((config.seed * 7_368_787 + index * 1_009 + accelerator.process_index) % 2**63)
    whole = batches(index)
    batch = _my_rows(whole, accelerator)
    with accelerator.autocast():
        loss, logs = objective(model, batch, index // config.gradient_accumulation)
    # processes are averaged as equals, rows should be: one with a row more counts for more
    loss = loss * (len(batch[0]) * accelerator.num_processes / len(whole[0]))
    penalty = training_penalty(model)
    return loss if penalty is None else loss + penalty, logs, len(whole[0])


def _runs_of_step(
    model: nn.Module,
    objective: Objective,
    batches: Callable[[int], Batch],
    config: TrainConfig,
    accelerator: Any,
    step: int,
) -> Iterator[torch.Tensor]:
    """Give the losses of a step's batches once more, each computed when it is asked for."""
    micros = config.gradient_accumulation
    for index in range(step * micros, (step + 1) * micros):
        yield _micro_loss(model, objective, batches, config, accelerator, index)[0]


def _groups(model: nn.Module, parameters: Any) -> list[Any]:
    groups = list(parameters) if parameters is not None else [p for p in model.parameters() if p.requires_grad]
    if not groups:
        fix = "Attach an adapter, or unfreeze the head"
        raise TrainingError("train", "at least one parameter must require a gradient", "none", fix)
    return groups


def _my_rows(batch: Batch, accelerator: Any) -> list[torch.Tensor]:
    rank, world = accelerator.process_index, accelerator.num_processes
    return [tensor[rank::world].to(accelerator.device, non_blocking=True) for tensor in batch]


def _not_finite(loss: float, norm: float, first: str, step: int, folder: RunFolder | None, safe: int) -> TrainingError:
    """Return the error of a step whose loss or gradient is not finite; ``safe`` is the last checkpoint's step, or 0."""
    what, value = ("gradient", norm) if math.isfinite(loss) else ("loss", loss)
    fix = "Look at the data of this step, or start anew with a lower learning rate"
    if folder is not None and safe:
        fix += (
            f"; the last good checkpoint is that of step {safe} in {folder.path}: once the cause is removed, --resume"
        )
        fix += " goes on from it"
    return TrainingError(f"step {step}", f"the {what} must be finite", f"{value}, first in {first}", fix)


def _undo_autocast(accelerator: Any, prepared: nn.Module, model: nn.Module) -> None:
    """Take back what accelerate put around ``forward``: the model answers in full precision again."""
    if accelerator.native_amp:
        accelerator.unwrap_model(prepared, keep_fp32_wrapper=False)
        vars(model).pop("forward", None)
