"""Train one model on labelled pixels with one method; the same settings and seed give the same weights."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn

from shared_peft.errors import ConfigError, DataError
from shared_peft.training import Batch, RunFolder, TrainConfig, train
from shared_peft.training.train_config import Schedule
from vision.adapt import FULL, PROBE, Trainee, adapt
from vision.augmentation import find_augmentation
from vision.backbones.family import Backbone, DataConfig
from vision.correlations import penalties
from vision.datasets import stratified_split
from vision.depth import decayed_groups
from vision.recompute import recomputed_blocks
from vision.tasks import TASKS, Task, task_of
from vision.transforms import Pixels, make_batches, normalise

DEFAULT_LEARNING_RATES = {FULL: 1e-3, PROBE: 1e-2}
DEFAULT_ADAPTER_LEARNING_RATE, DEFAULT_HEAD_LEARNING_RATE = 5e-3, 1e-2
CHECKPOINT_EVERY = 50
VALIDATION_BATCH = 128
Precision = Literal["no", "bf16", "fp16"]


@dataclass(frozen=True)
class FitSettings:
    """How to train on one set of labelled images.

    Args:
        method: "full", "probe", "bitfit" or a registered adapter method.
        adapter: fields of the adapter's config.
        budget: largest number of adapter parameters; None keeps the rank of ``adapter``.
        epochs: passes over the images.
        batch_size: images a batch.
        learning_rate: of the adapter, or of the whole model with "full"; None is the method's default.
        head_learning_rate: of the head; None is the default.
        weight_decay: decoupled weight decay.
        augment: see `vision.augmentation.find_augmentation`.
        seed: of the order, the augmentation and the adapter's initial weights.
        schedule: see `shared_peft.training.TrainConfig`.
        layer_decay: factor on the body's learning rate from one depth to the one below, in (0, 1].
        label_smoothing: share of the targets spread evenly, in [0, 1).
        precision: "no" computes in 32 bits, the others multiply matrices in 16.
        gradient_accumulation: batches a step.
        ema_decay: decay of the average of the weights, which is then kept; 0 keeps the last weights.
        patience: epochs without a better validation loss after which training ends, the best weights kept; 0 trains
            to the end and needs no validation images.
        gradient_checkpointing: run blocks again in the backward instead of keeping what they made.
    """

    method: str = "lora"
    adapter: dict[str, Any] = field(default_factory=dict)
    budget: int | None = None
    epochs: int = 30
    batch_size: int = 32
    learning_rate: float | None = None
    head_learning_rate: float | None = None
    weight_decay: float = 0.01
    augment: str = "light"
    seed: int = 0
    schedule: Schedule = "cosine"
    layer_decay: float = 1.0
    label_smoothing: float = 0.0
    precision: Precision = "no"
    gradient_accumulation: int = 1
    ema_decay: float = 0.0
    patience: int = 0
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        find_augmentation(self.augment)
        for name, least in (("epochs", 1), ("batch_size", 1), ("gradient_accumulation", 1), ("patience", 0)):
            if getattr(self, name) < least:
                raise ConfigError(name, f"must be at least {least}", getattr(self, name), "Raise it")
        for name in ("learning_rate", "head_learning_rate"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise ConfigError(name, "must be positive", getattr(self, name), "Raise it")
        if not 0 < self.layer_decay <= 1:
            raise ConfigError("layer_decay", "must be in (0, 1]", self.layer_decay, "Use 0.65 to 0.9, or 1 for none")
        if self.precision == "fp16" and not torch.cuda.is_available():
            raise ConfigError("precision", "must be no or bf16 on a CPU", self.precision, "Use bf16")
        for name, fix in (("label_smoothing", "Use 0.1, or 0 for none"), ("ema_decay", "Use 0.999, or 0 for none")):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(name, "must be in [0, 1)", getattr(self, name), fix)

    def batches_per_epoch(self, images: int) -> int:
        """Return the batches that one pass over ``images`` takes."""
        return max(1, images // self.batch_size)

    def steps(self, images: int) -> int:
        """Return the optimiser steps that ``epochs`` passes over ``images`` take."""
        return max(1, self.epochs * self.batches_per_epoch(images) // self.gradient_accumulation)

    def rates(self) -> tuple[float, float]:
        """Return the learning rates of the body and of the head."""
        body = self.learning_rate or DEFAULT_LEARNING_RATES.get(self.method, DEFAULT_ADAPTER_LEARNING_RATE)
        if self.method == PROBE:
            return body, self.head_learning_rate or body
        return body, self.head_learning_rate or DEFAULT_HEAD_LEARNING_RATE


@dataclass(frozen=True)
class Fitted:
    """A trained model.

    Args:
        trainee: the model, in eval mode.
        steps: optimiser steps in all; fewer than planned where training ended early.
        seconds: spent training, in this call.
        loss: the last batch's loss.
        trainable: parameters trained, by part.
        kept_step: the step whose weights validated best and were kept; 0 without validation.
    """

    trainee: Trainee
    steps: int
    seconds: float
    loss: float
    trainable: dict[str, int]
    kept_step: int = 0


def start(backbone: Backbone, settings: FitSettings, images: int) -> Trainee:
    """Attach the adapter, or free the parameters, that ``settings`` ask for.

    Args:
        backbone: the model to adapt, in place.
        settings: how it will be trained.
        images: how many images it will be trained on.

    Returns:
        The model, ready to train.

    Raises:
        ConfigError, UnknownNameError, TargetError, RankError: see `vision.adapt.adapt`.
    """
    steps = settings.steps(images)
    return adapt(backbone, settings.method, settings.adapter, steps=steps, budget=settings.budget, seed=settings.seed)


def hold_out(pixels: Pixels, fraction: float, seed: int) -> tuple[Pixels, Pixels]:
    """Split labelled images into a part to train on and a part to validate on, every class in the same proportion.

    Raises:
        ConfigError: a fraction outside (0, 1).
        DataError: so few images that nothing can be held out.
    """
    if not 0 < fraction < 1:
        raise ConfigError("--validation-fraction", "must be in (0, 1)", fraction, "Use 0.2")
    kept, held = stratified_split(pixels.labels, fraction, seed)
    if not len(held):
        must = "must leave images to validate on, two a class at least"
        raise DataError("--patience", must, f"{len(pixels.labels)} images", "Raise --shots, or set --patience 0")
    return pixels.take(kept), pixels.take(held)


def fit(
    backbone: Backbone,
    pixels: Pixels,
    settings: FitSettings,
    *,
    trainee: Trainee | None = None,
    validation: Pixels | None = None,
    folder: RunFolder | None = None,
    resume: bool = False,
    progress: str | None = None,
) -> Fitted:
    """Train ``backbone`` in place.

    Args:
        backbone: the model to adapt.
        pixels: training images.
        settings: how.
        trainee: what `start` returned for the same arguments; None starts here.
        validation: images to choose the kept weights by, after every epoch.
        folder: where metrics and checkpoints go.
        resume: go on from the folder's checkpoint.
        progress: label of the progress bar; None shows none.

    Returns:
        The trained model and what it took.

    Raises:
        ConfigError, UnknownNameError, TargetError: see `vision.adapt.adapt`.
        TrainingError: the loss is not finite.
    """
    images = len(pixels.labels)
    trainee = trainee or start(backbone, settings, images)
    trainee.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # measured: 2 to 3 times faster convolutions on a CPU
    task = TASKS.get(task_of(pixels.labels))
    body_rate, head_rate = settings.rates()
    groups = decayed_groups(trainee.inner, trainee.body, body_rate, settings.layer_decay)
    groups.append({"params": trainee.head, "lr": head_rate})
    again = recomputed_blocks(trainee.inner) if settings.gradient_checkpointing else contextlib.nullcontext()
    with again:
        result = train(
            trainee.model,
            _objective(trainee, task, settings.label_smoothing),
            make_batches(pixels, backbone.data, settings.batch_size, settings.augment, settings.seed),
            train_config(settings, images),
            folder=folder,
            resume=resume,
            parameters=[group for group in groups if group["params"]],
            after_step=trainee.after_step,
            validate=None if validation is None else _validate(validation, backbone.data, task),
            progress=progress,
        )
    trainee.model.eval()
    trainable = {"body": _count(trainee.body), "head": _count(trainee.head)}
    return Fitted(trainee, result.done, result.seconds, result.loss, trainable, result.kept_step)


def train_config(settings: FitSettings, images: int) -> TrainConfig:
    """Return what the training loop is told when it trains on ``images`` images."""
    steps = settings.steps(images)
    return TrainConfig(
        steps=steps,
        weight_decay=settings.weight_decay,
        warmup_steps=min(10, steps // 10),
        schedule=settings.schedule,
        gradient_accumulation=settings.gradient_accumulation,
        mixed_precision=settings.precision,
        checkpoint_every=CHECKPOINT_EVERY,
        seed=settings.seed,
        ema_decay=settings.ema_decay,
        validate_every=max(1, settings.batches_per_epoch(images) // settings.gradient_accumulation),
        patience=settings.patience,
    )


def _objective(
    trainee: Trainee, task: Task, label_smoothing: float
) -> Callable[[nn.Module, Batch, int], tuple[torch.Tensor, dict[str, float]]]:
    def objective(model: nn.Module, batch: Batch, step: int) -> tuple[torch.Tensor, dict[str, float]]:
        trainee.enter_training()
        images, targets = batch
        logits = model(images.contiguous(memory_format=torch.channels_last))
        return task.loss(logits.float(), targets, label_smoothing) + penalties(trainee.model, targets), {}

    return objective


def _validate(held: Pixels, data: DataConfig, task: Task) -> Callable[[nn.Module], float]:
    """Return model -> mean loss on the images held out."""

    def validate(model: nn.Module) -> float:
        device, total = next(model.parameters()).device, 0.0
        for rows in torch.arange(len(held.labels)).split(VALIDATION_BATCH):
            logits = model(normalise(held.values[rows].to(device), data)).float()
            total += float(task.loss(logits, held.labels[rows].to(device), 0.0)) * len(rows)
        return total / len(held.labels)

    return validate


def _count(parameters: list[nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)
