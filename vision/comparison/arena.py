"""What all compared methods share: the start, the images, the folds; and one training in it, scored.

The images of every training depend on its shots and seed alone, never on the method. Learning rates are tried by
cross-validation inside the shots of one pilot seed that is not among the compared seeds, so neither test images nor
more labels than a training has are looked at.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vision.backbones import Backbone, build_backbone
from vision.comparison.contender import Contender
from vision.datasets import ImageData, draw_shots, stratified_folds
from vision.evaluate import predict_logits
from vision.fit import fit
from vision.tasks import TASKS, Task, task_of
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
        folds: of the pilot's cross-validation; fewer where there are fewer shots.
    """

    source: Source
    images: ImageData
    test: Pixels
    folds: int

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.images.classes)

    @property
    def task(self) -> Task:
        """What the labels mean."""
        return TASKS.get(task_of(self.test.labels))

    def build(self) -> Backbone:
        """Return a fresh copy of the start."""
        return self.source.build(self.n_classes)

    def draw(self, shots: int, seed: int, backbone: Backbone) -> Pixels:
        """Return the training images of a seed."""
        return load_pixels(self.images.train.take(draw_shots(self.images.train, shots, seed)), backbone.data)


def run_cell(arena: Arena, contender: Contender, shots: int, seed: int) -> tuple[dict[str, Any], torch.Tensor]:
    """Train on the shots of a seed and score on the test side.

    Returns:
        Scores, trainable parameters and seconds, as plain JSON values; and what the task keeps of the answers.
    """
    backbone = arena.build()
    settings = dataclasses.replace(contender.settings, seed=seed)
    pixels = arena.draw(shots, seed, backbone)
    trainee = contender.begin(backbone, settings, len(pixels.labels))
    fitted = fit(backbone, pixels, settings, trainee=trainee)
    logits = predict_logits(fitted.trainee.model, arena.test.values, backbone.data)
    scores = arena.task.score(logits, arena.test.labels, arena.n_classes)
    found = {
        "method": contender.name,
        "shots": shots,
        "seed": seed,
        "score": getattr(scores, arena.task.headline),
        "accuracy": scores.accuracy,
        "macro_f1": scores.macro_f1,
        "trainable": sum(fitted.trainable.values()),
        **fitted.trainable,
        "seconds": round(fitted.seconds, 4),
        "seconds_per_epoch": round(fitted.seconds / settings.epochs, 5),
        "learning_rate": settings.rates()[0],
    }
    return found, arena.task.evidence(logits, arena.test.labels)


def run_pilot(arena: Arena, contender: Contender, shots: int, fold: int) -> dict[str, Any]:
    """Train on the pilot's shots without one fold and score on that fold.

    Args:
        arena: what all methods share.
        contender: with the learning rate to try; its seed is replaced by the pilot's.
        shots: training images per class, the fold included.
        fold: the fold held out.

    Returns:
        The validation score and the number of images it was measured on.
    """
    backbone = arena.build()
    pixels = arena.draw(shots, PILOT_SEED, backbone)
    held_out = stratified_folds(pixels.labels, min(arena.folds, shots), PILOT_SEED) == fold
    kept, held = (pixels.take(torch.nonzero(part).flatten()) for part in (~held_out, held_out))
    settings = dataclasses.replace(contender.settings, seed=PILOT_SEED + fold)
    trainee = contender.begin(backbone, settings, len(kept.labels))
    fitted = fit(backbone, kept, settings, trainee=trainee)
    logits = predict_logits(fitted.trainee.model, held.values, backbone.data)
    scores = arena.task.score(logits, held.labels, arena.n_classes)
    return {"score": getattr(scores, arena.task.headline), "images": scores.count}
