"""One label an image: cross-entropy over the classes (with label smoothing, Szegedy et al. 2016, arXiv:1512.00567)."""

import torch
from torch.nn import functional

from shared_peft.training import Classification, score_classification
from vision.tasks.task import TASKS, Task
from vision.torchvision_ops import declare_missing_operators


def _owns(labels: torch.Tensor) -> bool:
    return not labels.is_floating_point()


def _loss(logits: torch.Tensor, targets: torch.Tensor, label_smoothing: float) -> torch.Tensor:
    """Return the mean cross-entropy; targets are labels (batch,) or shares of the classes (batch, classes)."""
    return functional.cross_entropy(logits, targets, label_smoothing=label_smoothing)


def _score(logits: torch.Tensor, labels: torch.Tensor, n_classes: int) -> Classification:
    declare_missing_operators()
    return score_classification(logits.argmax(dim=1), labels, n_classes)


def _probabilities(logits: torch.Tensor) -> torch.Tensor:
    return logits.softmax(dim=1)


def _right(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return logits.argmax(dim=1) == labels


def _weighted_accuracy(right: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    return weights @ right.double() / weights.sum(dim=1)


TASKS.register("single-label")(
    Task(
        summary="one label an image",
        owns=_owns,
        loss=_loss,
        score=_score,
        probabilities=_probabilities,
        headline="accuracy",
        headline_title="accuracy",
        evidence=_right,
        weighted=_weighted_accuracy,
    )
)
