"""Train one model on labelled pixels with one method; the same settings and seed give the same weights."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn import functional

from shared_peft.errors import ConfigError
from shared_peft.training import Batch, RunFolder, TrainConfig, train
from vision.adapt import FULL, PROBE, Trainee, adapt
from vision.backbones.family import Backbone
from vision.transforms import Augment, Pixels, make_batches

DEFAULT_LEARNING_RATES = {FULL: 1e-3, PROBE: 1e-2}
DEFAULT_ADAPTER_LEARNING_RATE, DEFAULT_HEAD_LEARNING_RATE = 5e-3, 1e-2
CHECKPOINT_EVERY = 50


@dataclass(frozen=True)
class FitSettings:
    """How to train on one set of labelled images.

    Args:
        method: "full", "probe" or a registered adapter method.
        adapter: fields of the adapter's config.
        budget: largest number of adapter parameters; None keeps the rank of ``adapter``.
        epochs: passes over the images.
        batch_size: images a step.
        learning_rate: of the adapter, or of the whole model with "full"; None is the method's default.
        head_learning_rate: of the head; None is the default.
        weight_decay: decoupled weight decay.
        augment: see `vision.transforms.augment`.
        seed: of the order, the augmentation and the adapter's initial weights.
    """

    method: str = "lora"
    adapter: dict[str, Any] = field(default_factory=dict)
    budget: int | None = None
    epochs: int = 30
    batch_size: int = 32
    learning_rate: float | None = None
    head_learning_rate: float | None = None
    weight_decay: float = 0.01
    augment: Augment = "light"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(name, "must be at least 1", getattr(self, name), "Raise it")

    def steps(self, images: int) -> int:
        """Return the optimiser steps that ``epochs`` passes over ``images`` take."""
        return self.epochs * max(1, images // self.batch_size)

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
        steps: optimiser steps in all.
        seconds: spent training, in this call.
        loss: the last batch's loss.
        trainable: parameters trained, by part.
    """

    trainee: Trainee
    steps: int
    seconds: float
    loss: float
    trainable: dict[str, int]


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


def fit(
    backbone: Backbone,
    pixels: Pixels,
    settings: FitSettings,
    *,
    trainee: Trainee | None = None,
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
        folder: where metrics and checkpoints go.
        resume: go on from the folder's checkpoint.
        progress: label of the progress bar; None shows none.

    Returns:
        The trained model and what it took.

    Raises:
        ConfigError, UnknownNameError, TargetError: see `vision.adapt.adapt`.
        TrainingError: the loss is not finite.
    """
    steps = settings.steps(len(pixels.labels))
    trainee = trainee or start(backbone, settings, len(pixels.labels))
    trainee.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # measured: 2 to 3 times faster convolutions on a CPU
    body_rate, head_rate = settings.rates()
    groups = [{"params": trainee.body, "lr": body_rate}, {"params": trainee.head, "lr": head_rate}]

    def objective(model: torch.nn.Module, batch: Batch, step: int) -> tuple[torch.Tensor, dict[str, float]]:
        trainee.enter_training()
        images, labels = batch
        logits = model(images.contiguous(memory_format=torch.channels_last))
        return functional.cross_entropy(logits, labels), {}

    config = TrainConfig(
        steps=steps,
        weight_decay=settings.weight_decay,
        warmup_steps=min(10, steps // 10),
        checkpoint_every=CHECKPOINT_EVERY,
        seed=settings.seed,
    )
    result = train(
        trainee.model,
        objective,
        make_batches(pixels, backbone.data, settings.batch_size, settings.augment, settings.seed),
        config,
        folder=folder,
        resume=resume,
        parameters=[group for group in groups if group["params"]],
        after_step=trainee.after_step,
        progress=progress,
    )
    trainee.model.eval()
    trainable = {"body": _count(trainee.body), "head": _count(trainee.head)}
    return Fitted(trainee, steps, result.seconds, result.loss, trainable)


def _count(parameters: list[torch.nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)
