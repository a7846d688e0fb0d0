"""Classification scores: accuracy, macro-F1, per-class F1 and the confusion matrix."""

from dataclasses import dataclass

import torch

from shared_peft.errors import DataError


@dataclass(frozen=True)
class Classification:
    """Scores of one evaluation.

    Args:
        accuracy: share of right answers, in [0, 1].
        macro_f1: mean F1 over the classes that occur in labels or predictions, in [0, 1].
        per_class_f1: one F1 per class, in [0, 1].
        confusion: counts, rows are true classes, columns predicted ones.
        count: number of samples.
    """

    accuracy: float
    macro_f1: float
    per_class_f1: list[float]
    confusion: list[list[int]]
    count: int


def score_classification(predicted: torch.Tensor, labels: torch.Tensor, n_classes: int) -> Classification:
    """Score integer predictions.

    Args:
        predicted: class indices, shape (samples,).
        labels: true class indices, shape (samples,).
        n_classes: number of classes.

    Returns:
        The scores.

    Raises:
        DataError: nothing to score.

    Example:
        >>> score_classification(torch.tensor([0, 1, 1, 0]), torch.tensor([0, 1, 0, 0]), 2).accuracy
        0.75
    """
    if labels.numel() == 0:
        raise DataError("evaluation", "there must be at least one sample", 0, "Check the split")
    cells = labels.cpu().long() * n_classes + predicted.cpu().long()
    confusion = torch.bincount(cells, minlength=n_classes**2).reshape(n_classes, n_classes)
    right, occurrences = confusion.diagonal().double(), (confusion.sum(0) + confusion.sum(1)).double()
    per_class = torch.where(occurrences > 0, 2 * right / occurrences.clamp_min(1), 0.0)  # 2 TP / (2 TP + FP + FN)
    return Classification(
        accuracy=float(right.sum() / labels.numel()),
        macro_f1=float(per_class[occurrences > 0].mean()),
        per_class_f1=per_class.tolist(),
        confusion=confusion.tolist(),
        count=labels.numel(),
    )
