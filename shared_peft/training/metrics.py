"""Classification scores: accuracy, macro-F1, per-class F1 and the confusion matrix (torchmetrics)."""

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
    from torchmetrics.functional.classification import (  # noqa: PLC0415  (slow to import)
        multiclass_confusion_matrix,
        multiclass_f1_score,
    )

    if labels.numel() == 0:
        raise DataError("evaluation", "there must be at least one sample", 0, "Check the split")
    predicted, labels = predicted.cpu(), labels.cpu()
    count = max(n_classes, 2)
    return Classification(
        accuracy=float((predicted == labels).double().mean()),
        macro_f1=float(multiclass_f1_score(predicted, labels, num_classes=count, average="macro")),
        per_class_f1=multiclass_f1_score(predicted, labels, num_classes=count, average="none").tolist()[:n_classes],
        confusion=multiclass_confusion_matrix(predicted, labels, num_classes=count)[:n_classes, :n_classes].tolist(),
        count=labels.numel(),
    )
