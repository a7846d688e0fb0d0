"""Scores of predicted masks: the confusion matrix of pixels, intersection over union, pixel accuracy."""

from dataclasses import dataclass

import torch

from shared_peft.errors import DataError
from vision.segmentation.masked import IGNORE


@dataclass(frozen=True)
class SegmentationScores:
    """How well masks were predicted.

    Args:
        miou: mean intersection over union of the classes that occur in truth or prediction, in [0, 1].
        per_class_iou: by class; None where a class occurs in neither.
        pixel_accuracy: share of pixels with the right class, in [0, 1].
        confusion: pixel counts, rows are true classes, columns predicted ones.
        pixels: pixels scored; those marked 255 are not.
    """

    miou: float
    per_class_iou: list[float | None]
    pixel_accuracy: float
    confusion: list[list[int]]
    pixels: int

    def mean_of(self, classes: range) -> float:
        """Return the mean intersection over union of some classes, in [0, 1]; nan where none of them occurs."""
        found = [value for value in (self.per_class_iou[index] for index in classes) if value is not None]
        return sum(found) / len(found) if found else float("nan")


def score_masks(predicted: torch.Tensor, masks: torch.Tensor, n_classes: int) -> SegmentationScores:
    """Score predicted masks (Everingham et al. 2010, doi:10.1007/s11263-009-0275-4, Section 4.3).

    Args:
        predicted: class indices, shape (images, height, width).
        masks: true class indices, 255 where nobody says, the same shape.
        n_classes: number of classes, the background included.

    Raises:
        DataError: no pixel to score.

    Example:
        >>> score_masks(torch.tensor([[[0, 1]]]), torch.tensor([[[0, 0]]]), 2).per_class_iou
        [0.5, 0.0]
    """
    known = masks != IGNORE
    truth, answer = masks[known].long(), predicted[known].long()
    if not truth.numel():
        raise DataError("evaluation", "there must be a pixel with a known class", "none", "Check the masks")
    confusion = torch.bincount(truth * n_classes + answer, minlength=n_classes**2).reshape(n_classes, n_classes)
    right = confusion.diagonal()
    union = confusion.sum(0) + confusion.sum(1) - right
    pairs = zip(right.tolist(), union.tolist(), strict=True)
    per_class = [hit / all_ if all_ else None for hit, all_ in pairs]
    occurring = [value for value in per_class if value is not None]
    return SegmentationScores(
        miou=sum(occurring) / len(occurring),
        per_class_iou=per_class,
        pixel_accuracy=int(right.sum()) / truth.numel(),
        confusion=confusion.tolist(),
        pixels=truth.numel(),
    )
