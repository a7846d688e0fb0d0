"""Teach a segmenter new classes from image-level labels: localise, make pseudo-masks, distil the old model."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from shared_peft.training import Batch, RunFolder, TrainResult, train
from vision.adapt import Trainee
from vision.backbones.family import DataConfig
from vision.segmentation.fit import HEAD_RATE, SegmentSettings, pair_batches, train_config
from vision.segmentation.incremental.localizer import Localizer, localizer_loss
from vision.segmentation.incremental.pseudo_masks import exclusive, seeds
from vision.segmentation.incremental.refine import refine
from vision.segmentation.model import WIDTH, Segmenter

WARMUP_SHARE = 0.25  # ours: part of the run before seeds count; WILSON waits 5 of 40 epochs


@dataclass(frozen=True)
class StepRules:
    """What protects the old classes; all off is naive fine-tuning on the localiser's pseudo-masks.

    Args:
        distil: the old model says what a pixel is that no seed claims; else it is background.
        sure: probability from which an old class excludes new ones there; above 1 none does.
        refined: seeds follow the image's edges.
    """

    distil: bool = True
    sure: float = 0.7
    refined: bool = True


class Learner(nn.Module):
    """The model being taught, its localiser, and the model it was, in one module.

    Args:
        model: the segmenter with outputs for old and new classes, adapter included.
        old: the segmenter before this step; never changed.
    """

    def __init__(self, model: nn.Module, old: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.old = old.requires_grad_(False)
        self.localizer = Localizer(WIDTH, _outputs(model))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return logits and localiser scores of all classes, and the old model's probabilities of its own.

        All of shape (batch, classes, height, width), at the resolution of the finest feature map.
        """
        model: Any = self.model  # a Segmenter, or a PeftModel that passes its names through
        old: Any = self.old
        embedded = model.embed(x)
        with torch.no_grad():
            before = old.classifier(old.embed(x)).softmax(dim=1)
        return model.classifier(embedded), self.localizer(embedded), before


def fit_new_classes(  # noqa: PLR0913  (two models, and what a run needs)
    trainee: Trainee,
    old: nn.Module,
    values: torch.Tensor,
    presence: torch.Tensor,
    data: DataConfig,
    settings: SegmentSettings,
    *,
    rules: StepRules | None = None,
    folder: RunFolder | None = None,
    resume: bool = False,
    progress: str | None = None,
) -> TrainResult:
    """Train a segmenter in place on images without masks.

    Args:
        trainee: the widened model, its method applied.
        old: the model before this step, on its own weights.
        values: uint8 images, shape (images, 3, size, size).
        presence: which new classes each image shows, 0 or 1: float32, shape (images, new classes).
        data: what the model expects.
        settings: how.
        rules: what protects the old classes; None is everything.
        folder: where metrics and checkpoints go.
        resume: go on from the folder's checkpoint.
        progress: label of the progress bar; None shows none.

    Raises:
        TrainingError: the loss is not finite.
    """
    rules = rules or StepRules()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        learner = Learner(trainee.model, old)
    config = train_config(settings, len(values))
    objective = _objective(trainee, old, rules, round(WARMUP_SHARE * config.steps))
    nobody_says = torch.zeros(values[:, 0].shape, dtype=torch.uint8)
    batches = pair_batches(values, nobody_says, data, settings, presence)
    localizer = {"params": list(learner.localizer.parameters()), "lr": settings.head_learning_rate or HEAD_RATE}
    result = train(
        learner,
        objective,
        batches,
        config,
        folder=folder,
        resume=resume,
        parameters=[*settings.groups(trainee), localizer],
        after_step=trainee.after_step,
        progress=progress,
    )
    trainee.model.eval()
    return result


def _objective(
    trainee: Trainee, old: nn.Module, rules: StepRules, warmup: int
) -> Callable[[nn.Module, Batch, int], tuple[torch.Tensor, dict[str, float]]]:
    def objective(learner: nn.Module, batch: Batch, step: int) -> tuple[torch.Tensor, dict[str, float]]:
        trainee.enter_training()
        images, _, presence = batch
        old.eval()
        logits, scores, before = learner(images)
        with torch.no_grad():
            claims = seeds(_maps(scores, images, rules), presence) * float(step >= warmup)
            target = exclusive(before if rules.distil else _all_background(before), claims, rules.sure)
        segmented = functional.cross_entropy(logits, target)
        located = localizer_loss(scores, presence, before)
        return segmented + located, {"segmented": float(segmented.detach()), "located": float(located.detach())}

    return objective


def _maps(scores: torch.Tensor, images: torch.Tensor, rules: StepRules) -> torch.Tensor:
    shares = scores.softmax(dim=1)
    if not rules.refined:
        return shares
    return refine(shares, functional.interpolate(images, size=scores.shape[-2:], mode="area"))


def _all_background(before: torch.Tensor) -> torch.Tensor:
    return functional.one_hot(torch.zeros_like(before[:, 0]).long(), before.shape[1]).movedim(-1, 1).to(before.dtype)


def _outputs(model: nn.Module) -> int:
    """Return the number of classes a segmenter tells apart, whatever wraps it."""
    return next(module for module in model.modules() if isinstance(module, Segmenter)).num_classes
