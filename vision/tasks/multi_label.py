"""Several labels an image: one yes or no a class; binary cross-entropy, mean average precision, F1."""

from dataclasses import dataclass

import torch
from torch.nn import functional

from shared_peft.errors import DataError
from vision.tasks.task import TASKS, Task


@dataclass(frozen=True)
class MultiLabelScores:
    """Scores of one evaluation; a class is said to be there where its probability is above one half.

    Args:
        mean_average_precision: mean over the classes that occur in the labels, in [0, 1].
        accuracy: share of images with every label right, in [0, 1].
        macro_f1: mean F1 over the classes that occur in labels or predictions, in [0, 1].
        micro_f1: F1 over all labels of all images, in [0, 1].
        per_class_average_precision: one per class, in [0, 1]; 0 for a class that does not occur.
        per_class_f1: one per class, in [0, 1].
        count: number of images.
    """

    mean_average_precision: float
    accuracy: float
    macro_f1: float
    micro_f1: float
    per_class_average_precision: list[float]
    per_class_f1: list[float]
    count: int


def average_precision(scores: torch.Tensor, labels: torch.Tensor) -> float:
    """Return the area under the precision-recall steps: the sum of (R_n - R_n-1) P_n over the distinct scores.

    Args:
        scores: higher is likelier, shape (images,).
        labels: 0 or 1, shape (images,).

    Returns:
        In [0, 1]; 0 where no label is 1.
    """
    return float(weighted_average_precision(scores, labels, torch.ones(1, len(scores), dtype=torch.float64)))


def weighted_average_precision(scores: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return `average_precision` where every image counts as often as its weight says.

    Args:
        scores: higher is likelier, shape (images,).
        labels: 0 or 1, shape (images,).
        weights: at least 0, float64, shape (draws, images).

    Returns:
        In [0, 1], shape (draws,); 0 where no image with a weight has label 1.
    """
    ordered, order = scores.double().sort(descending=True)
    last_of_equals = torch.cat([ordered[1:] != ordered[:-1], ordered.new_ones(1, dtype=torch.bool)])
    weights = weights[:, order]
    hits, passed = (part.cumsum(dim=1)[:, last_of_equals] for part in (weights * labels[order].double(), weights))
    gained = torch.diff(hits, prepend=hits.new_zeros(len(hits), 1))
    precision = hits / torch.where(passed > 0, passed, 1.0)
    all_hits = hits[:, -1]
    return (gained * precision).sum(dim=1) / torch.where(all_hits > 0, all_hits, 1.0)


def score_labels(logits: torch.Tensor, labels: torch.Tensor, n_classes: int) -> MultiLabelScores:
    """Score the logits of several labels an image.

    Args:
        logits: shape (images, classes).
        labels: 0 or 1, shape (images, classes).
        n_classes: number of classes.

    Returns:
        The scores.

    Raises:
        DataError: nothing to score.

    Example:
        >>> score_labels(torch.tensor([[2.0, -1.0]]), torch.tensor([[1.0, 0.0]]), 2).micro_f1
        1.0
    """
    if not len(labels):
        raise DataError("evaluation", "there must be at least one sample", 0, "Check the split")
    truth, predicted = labels.cpu() > 0.5, logits.cpu() > 0
    right, told = (truth & predicted).sum(0).double(), (truth.sum(0) + predicted.sum(0)).double()
    per_class = 2 * right / told.clamp_min(1)  # 2 TP / (2 TP + FP + FN)
    precisions = [average_precision(logits[:, column].cpu(), truth[:, column]) for column in range(n_classes)]
    occurring = truth.any(0)
    return MultiLabelScores(
        mean_average_precision=_mean(torch.tensor(precisions, dtype=torch.float64)[occurring]),
        accuracy=float((truth == predicted).all(1).double().mean()),
        macro_f1=_mean(per_class[told > 0]),
        micro_f1=float(2 * right.sum() / told.sum().clamp_min(1)),
        per_class_average_precision=precisions,
        per_class_f1=per_class.tolist(),
        count=len(labels),
    )


def _mean(values: torch.Tensor) -> float:
    return float(values.mean()) if len(values) else 0.0


def _loss(logits: torch.Tensor, targets: torch.Tensor, label_smoothing: float) -> torch.Tensor:
    """Return the mean binary cross-entropy; smoothing draws every target that far towards one half."""
    smooth = targets * (1 - label_smoothing) + label_smoothing / 2
    return functional.binary_cross_entropy_with_logits(logits, smooth.to(logits.dtype))


def _owns(labels: torch.Tensor) -> bool:
    return labels.is_floating_point()


def _weighted_mean(logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return the mean average precision over the classes that occur, under each weighting, shape (draws,)."""
    truth = labels > 0.5
    columns = range(logits.shape[1])
    found = torch.stack([weighted_average_precision(logits[:, c], truth[:, c], weights) for c in columns])
    occurring = (weights @ truth.double()).T > 0
    return (found * occurring).sum(dim=0) / occurring.sum(dim=0).clamp_min(1)


TASKS.register("multi-label")(
    Task(
        summary="several labels an image",
        owns=_owns,
        loss=_loss,
        score=score_labels,
        probabilities=torch.sigmoid,
        headline="mean_average_precision",
        headline_title="mAP",
        evidence=lambda logits, labels: logits,
        weighted=_weighted_mean,
    )
)
