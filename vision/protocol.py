"""An honest comparison of methods: the same images, seeds and parameter budget; learning rates tuned inside the budget.

For every method the learning rate is chosen by cross-validation inside the shots of one pilot seed that is not among
the compared seeds, so neither test images nor labels beyond the budget are looked at.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vision.adapt import FULL, PROBE
from vision.backbones import Backbone, build_backbone
from vision.datasets import ImageData, draw_shots, stratified_folds
from vision.evaluate import evaluate
from vision.fit import FitSettings, fit
from vision.transforms import Pixels, load_pixels

PILOT_SEED = 1_000


@dataclass(frozen=True)
class Source:
    """Where every compared model starts.

    Args:
        backbone: its name.
        checkpoint: its weight file.
        pretrained: fetch published weights instead.
        image_size: input height and width [px]; None is the backbone's own.
    """

    backbone: str
    checkpoint: Path | None
    pretrained: bool = False
    image_size: int | None = None

    def build(self, num_classes: int) -> Backbone:
        """Return a fresh copy with a new head."""
        return build_backbone(
            self.backbone,
            num_classes,
            image_size=self.image_size,
            checkpoint=self.checkpoint,
            pretrained=self.pretrained,
            new_head=True,
        )


@dataclass(frozen=True)
class Arena:
    """What all methods share.

    Args:
        source: the start.
        images: the data set.
        test: its test side at the backbone's size.
        shots: training images per class.
        folds: of the pilot's cross-validation.
        validated_folds: how many of them are held out in turn.
    """

    source: Source
    images: ImageData
    test: Pixels
    shots: int
    folds: int
    validated_folds: int

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.images.classes)

    def draw(self, seed: int, backbone: Backbone) -> Pixels:
        """Return the training images of a seed."""
        return load_pixels(self.images.train.take(draw_shots(self.images.train, self.shots, seed)), backbone.data)


def lora_budget(source: Source, num_classes: int, rank: int, fields: Mapping[str, Any]) -> int:
    """Return the adapter parameters of plain LoRA of ``rank``, the head not counted: what every adapter may have."""
    from shared_peft import LoraConfig, count_parameters  # noqa: PLC0415

    backbone = source.build(num_classes)
    head = list(backbone.head)
    targets = fields.get("target_modules", "all")
    config = LoraConfig(r=rank, target_modules=targets, exclude_modules=head, modules_to_save=head)
    return count_parameters(backbone.model, config)


def run_cell(arena: Arena, settings: FitSettings) -> dict[str, Any]:
    """Train on the shots of ``settings.seed`` and score on the test side.

    Returns:
        Scores, trainable parameters and seconds, as plain JSON values.
    """
    backbone = arena.source.build(arena.n_classes)
    fitted = fit(backbone, arena.draw(settings.seed, backbone), settings)
    scores = evaluate(fitted.trainee.model, arena.test, backbone.data, arena.n_classes)
    return {
        "accuracy": scores.accuracy,
        "macro_f1": scores.macro_f1,
        "trainable": sum(fitted.trainable.values()),
        **fitted.trainable,
        "seconds": round(fitted.seconds, 2),
        "learning_rate": settings.rates()[0],
    }


def run_pilot(arena: Arena, settings: FitSettings, fold: int) -> dict[str, Any]:
    """Train on the pilot's shots without one fold and score on that fold.

    Args:
        arena: what all methods share.
        settings: with the learning rate to try; the seed is replaced by the pilot's.
        fold: the fold held out.

    Returns:
        The validation accuracy and the number of images it was measured on.
    """
    backbone = arena.source.build(arena.n_classes)
    pixels = arena.draw(PILOT_SEED, backbone)
    held_out = stratified_folds(pixels.labels, arena.folds, PILOT_SEED) == fold
    fitted = fit(backbone, _rows(pixels, ~held_out), dataclasses.replace(settings, seed=PILOT_SEED + fold))
    scores = evaluate(fitted.trainee.model, _rows(pixels, held_out), backbone.data, arena.n_classes)
    return {"accuracy": scores.accuracy, "images": scores.count}


def settings_for(base: FitSettings, method: str, budget: int) -> FitSettings:
    """Return ``base`` for another method: only adapters get the adapter fields and the budget."""
    if method in (FULL, PROBE):
        return dataclasses.replace(base, method=method, adapter={}, budget=None)
    return dataclasses.replace(base, method=method, budget=budget)


def best_rate(rates: tuple[float, ...], accuracy_of: Callable[[float], float]) -> float:
    """Return the rate with the highest validation accuracy; the smaller one of equals."""
    return max(sorted(rates), key=accuracy_of)


def _rows(pixels: Pixels, mask: torch.Tensor) -> Pixels:
    rows = torch.nonzero(mask).flatten()
    names = tuple(pixels.names[row] for row in rows.tolist())
    return Pixels(pixels.values[rows], pixels.labels[rows], names)
