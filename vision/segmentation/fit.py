"""Train a segmenter on images and masks; the same settings and seed give the same weights."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from shared_peft.errors import ConfigError
from shared_peft.training import Batch, RunFolder, TrainConfig, TrainResult, epoch_order, train
from vision.adapt import FULL, Trainee, adapt
from vision.backbones.family import Backbone, DataConfig
from vision.segmentation.augment import PAIR_AUGMENTATIONS, augment_pair
from vision.segmentation.losses import mask_loss
from vision.segmentation.masked import MaskedPixels
from vision.transforms import normalise

FULL_RATE, ADAPTER_RATE, HEAD_RATE = 2e-3, 5e-3, 3e-3  # ours
CHECKPOINT_EVERY = 50


@dataclass(frozen=True)
class SegmentSettings:
    """How to train a segmenter.

    Args:
        method: "full", "probe" or a registered adapter method, for the backbone; the head is always trained.
        adapter: fields of the adapter's config.
        budget: largest number of adapter parameters; None keeps the rank of ``adapter``.
        epochs: passes over the images.
        batch_size: images a step.
        learning_rate: of the adapter, or of the backbone with "full"; None is the method's default.
        head_learning_rate: of the head; None is the default.
        weight_decay: decoupled weight decay.
        augment: a name from PAIR_AUGMENTATIONS.
        dice: weight of the Dice loss beside cross-entropy.
        seed: of the order, the augmentation and the adapter's initial weights.
    """

    method: str = "lora"
    adapter: dict[str, Any] = field(default_factory=dict)
    budget: int | None = None
    epochs: int = 20
    batch_size: int = 16
    learning_rate: float | None = None
    head_learning_rate: float | None = None
    weight_decay: float = 0.01
    augment: str = "flip"
    dice: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(name, "must be at least 1", getattr(self, name), "Raise it")
        if self.dice < 0:
            raise ConfigError("dice", "must not be negative", self.dice, "Use 0 for none")
        PAIR_AUGMENTATIONS.get(self.augment)

    def steps(self, images: int) -> int:
        """Return the optimiser steps that ``epochs`` passes over ``images`` take."""
        return self.epochs * max(1, images // self.batch_size)

    def groups(self, trainee: Trainee) -> list[dict[str, Any]]:
        """Return what is trained with which learning rate."""
        body_rate = self.learning_rate or (FULL_RATE if self.method == FULL else ADAPTER_RATE)
        pairs = ((trainee.body, body_rate), (trainee.head, self.head_learning_rate or HEAD_RATE))
        return [{"params": parameters, "lr": rate} for parameters, rate in pairs if parameters]


def start(backbone: Backbone, settings: SegmentSettings, images: int) -> Trainee:
    """Attach the adapter, or free the parameters, that ``settings`` ask for; see `vision.adapt.adapt`."""
    steps = settings.steps(images)
    return adapt(backbone, settings.method, settings.adapter, steps=steps, budget=settings.budget, seed=settings.seed)


def fit_masks(
    trainee: Trainee,
    pixels: MaskedPixels,
    data: DataConfig,
    settings: SegmentSettings,
    *,
    folder: RunFolder | None = None,
    resume: bool = False,
    progress: str | None = None,
) -> TrainResult:
    """Train a segmenter in place.

    Args:
        trainee: what `start` returned.
        pixels: training images with masks.
        data: what the model expects.
        settings: how.
        folder: where metrics and checkpoints go.
        resume: go on from the folder's checkpoint.
        progress: label of the progress bar; None shows none.

    Raises:
        TrainingError: the loss is not finite.
    """

    def objective(model: torch.nn.Module, batch: Batch, step: int) -> tuple[torch.Tensor, dict[str, float]]:
        trainee.enter_training()
        images, masks = batch
        return mask_loss(model(images), masks, settings.dice), {}

    result = train(
        trainee.model,
        objective,
        pair_batches(pixels.values, pixels.masks, data, settings),
        train_config(settings, len(pixels.names)),
        folder=folder,
        resume=resume,
        parameters=settings.groups(trainee),
        after_step=trainee.after_step,
        progress=progress,
    )
    trainee.model.eval()
    return result


def train_config(settings: SegmentSettings, images: int) -> TrainConfig:
    """Return the loop's configuration for training on ``images`` images."""
    steps = settings.steps(images)
    return TrainConfig(
        steps=steps,
        weight_decay=settings.weight_decay,
        warmup_steps=min(10, steps // 10),
        checkpoint_every=CHECKPOINT_EVERY,
        seed=settings.seed,
    )


def pair_batches(
    values: torch.Tensor, masks: torch.Tensor, data: DataConfig, settings: SegmentSettings, *rest: torch.Tensor
) -> Callable[[int], tuple[torch.Tensor, ...]]:
    """Return batch number -> (inputs, masks, *rest), a pure function of the number and the seed.

    Args:
        values: uint8, shape (images, channels, size, size).
        masks: uint8, shape (images, size, size).
        data: what the model expects.
        settings: batch size, augmentation and seed.
        rest: more values by image, which augmentation leaves alone.
    """

    def batch(index: int) -> tuple[torch.Tensor, ...]:
        rows = epoch_order(len(values), settings.batch_size, index, settings.seed)
        generator = torch.Generator().manual_seed((settings.seed * 9_176_213 + index) % 2**63)
        images, moved = augment_pair(values[rows], masks[rows], settings.augment, generator)
        inputs = normalise(images, data).contiguous(memory_format=torch.channels_last)
        return inputs, moved, *(more[rows] for more in rest)

    return batch
