"""Which images are used: k per class by seed, and stratified splits. Pure functions of their arguments."""

import math
from collections.abc import Callable

import torch

from shared_peft.errors import DataError
from vision.datasets.labelled import LabelledImages


def draw_shots(
    images: LabelledImages, shots: int, seed: int, readable: Callable[[int], bool] = lambda row: True
) -> torch.Tensor:
    """Draw ``shots`` images of every class without replacement.

    Args:
        images: where to draw from.
        shots: images per class; 0 takes every readable image.
        seed: the same seed draws the same images.
        readable: tells whether a row can be used; the next image of the class replaces one that cannot.

    Returns:
        Row numbers, sorted, shape (shots * classes,).

    Raises:
        DataError: a class with fewer readable images.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn: list[int] = []
    for label, name in enumerate(images.classes):
        rows = torch.nonzero(images.labels == label).flatten()
        chosen: list[int] = []
        for row in rows[torch.randperm(len(rows), generator=generator)].tolist():
            if shots and len(chosen) == shots:
                break
            if readable(row):
                chosen.append(row)
        if len(chosen) < max(shots, 1):
            must = f"must hold at least {max(shots, 1)} readable images to train on"
            raise DataError(f"class {name!r}", must, len(chosen), "Lower --shots or add images")
        drawn += chosen
    return torch.tensor(sorted(drawn))


def stratified_folds(labels: torch.Tensor, folds: int, seed: int) -> torch.Tensor:
    """Deal the samples of every class to ``folds`` folds as evenly as possible.

    Args:
        labels: class indices, shape (samples,).
        folds: how many folds, at least 2.
        seed: the same seed deals the same way.

    Returns:
        The fold of each sample, shape (samples,).
    """
    generator = torch.Generator().manual_seed(seed)
    fold_of = torch.zeros_like(labels)
    dealt = 0  # go on where the last class stopped, so that small classes do not all land in fold 0
    for label in labels.unique().tolist():
        rows = torch.nonzero(labels == label).flatten()
        shuffled = rows[torch.randperm(len(rows), generator=generator)]
        fold_of[shuffled] = (torch.arange(len(rows)) + dealt) % folds
        dealt += len(rows)
    return fold_of


def stratified_split(labels: torch.Tensor, fraction: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Split rows in two with every class in the same proportion.

    Args:
        labels: class indices, shape (samples,).
        fraction: share of every class that goes to the second part (rounded; at least 1 where a class has 2).
        seed: the same seed splits the same way.

    Returns:
        Row numbers of the first and of the second part, sorted.
    """
    generator = torch.Generator().manual_seed(seed)
    first, second = [], []
    for label in labels.unique().tolist():
        rows = torch.nonzero(labels == label).flatten()
        count = min(len(rows) - 1, max(1, math.floor(len(rows) * fraction + 0.5)))
        shuffled = rows[torch.randperm(len(rows), generator=generator)]
        second.append(shuffled[:count])
        first.append(shuffled[count:])
    return torch.cat(first).sort().values, torch.cat(second).sort().values
