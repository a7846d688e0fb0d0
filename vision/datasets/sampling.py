"""Which images are used: k per class by seed, and stratified splits. Pure functions of their arguments."""

import math
from collections.abc import Callable

import torch

from shared_peft.errors import DataError
from vision.datasets.labelled import ImageData, LabelledImages, positives
from vision.datasets.stratify import deal_evenly

TEST_FRACTION, SPLIT_SEED = 0.2, 0  # ours: what a data set without a test side gives up for one


def draw_shots(
    images: LabelledImages, shots: int, seed: int, readable: Callable[[int], bool] = lambda row: True
) -> torch.Tensor:
    """Draw ``shots`` images of every class without replacement.

    Where an image may have several classes, the rarest class draws first and each draws until ``shots`` of its images
    are in, those drawn for a class before it counted. So every class gets at least ``shots``, or all it has, and a
    frequent one may get more.

    Args:
        images: where to draw from.
        shots: images per class; 0 takes every readable image.
        seed: the same seed draws the same images.
        readable: tells whether a row can be used; the next image of the class replaces one that cannot.

    Returns:
        Row numbers, sorted, shape (shots * classes,); at most so many where an image may have several classes.

    Raises:
        DataError: a class with fewer readable images; with none, where an image may have several classes.
    """
    if not shots and images.multi_label:
        return torch.tensor([row for row in range(len(images)) if readable(row)], dtype=torch.int64)
    generator = torch.Generator().manual_seed(seed)
    rows_of = [positives(images.labels, label) for label in range(len(images.classes))]
    order = range(len(rows_of))
    if images.multi_label:
        order = sorted(order, key=lambda label: (len(rows_of[label]), label))
    drawn: set[int] = set()
    for label in order:
        rows = rows_of[label]
        chosen = drawn & set(rows.tolist())
        for row in rows[torch.randperm(len(rows), generator=generator)].tolist():
            if shots and len(chosen) >= shots:
                break
            if row not in drawn and readable(row):
                chosen.add(row)
        least = 1 if images.multi_label else max(shots, 1)
        if len(chosen) < least:
            must = f"must hold at least {least} readable images to train on"
            fix = "Lower --shots or add images"
            raise DataError(f"class {images.classes[label]!r}", must, len(chosen), fix)
        drawn |= chosen
    return torch.tensor(sorted(drawn))


def stratified_folds(labels: torch.Tensor, folds: int, seed: int) -> torch.Tensor:
    """Deal the samples of every class to ``folds`` folds as evenly as possible.

    Args:
        labels: class indices, shape (samples,), or 0 and 1, shape (samples, classes).
        folds: how many folds, at least 2.
        seed: the same seed deals the same way.

    Returns:
        The fold of each sample, int64, shape (samples,).
    """
    generator = torch.Generator().manual_seed(seed)
    if labels.dim() == 2:
        return deal_evenly(labels, torch.full((folds,), 1 / folds), generator)
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
        labels: class indices, shape (samples,), or 0 and 1, shape (samples, classes).
        fraction: share of every class that goes to the second part (rounded; at least 1 where a class has 2; as near
            as can be where a sample may have several classes).
        seed: the same seed splits the same way.

    Returns:
        Row numbers of the first and of the second part, sorted.
    """
    generator = torch.Generator().manual_seed(seed)
    if labels.dim() == 2:
        part = deal_evenly(labels, torch.tensor([1 - fraction, fraction]), generator)
        return torch.nonzero(part == 0).flatten(), torch.nonzero(part == 1).flatten()
    first, second = [], []
    for label in labels.unique().tolist():
        rows = torch.nonzero(labels == label).flatten()
        count = min(len(rows) - 1, max(1, math.floor(len(rows) * fraction + 0.5)))
        shuffled = rows[torch.randperm(len(rows), generator=generator)]
        second.append(shuffled[:count])
        first.append(shuffled[count:])
    return torch.cat(first).sort().values, torch.cat(second).sort().values


def set_aside(name: str, images: LabelledImages, fraction: float = TEST_FRACTION) -> ImageData:
    """Split images that come without a test side, always the same way.

    Args:
        name: of the data set.
        images: all of them.
        fraction: share of every class that becomes the test side.

    Returns:
        The data set.

    Raises:
        DataError: a class with fewer than 2 images.
    """
    for label, of_class in enumerate(images.classes):
        count = len(positives(images.labels, label))
        if count < 2:
            fix = "Add images, leave the class out, or give a test side"
            raise DataError(f"{name}, class {of_class!r}", "must hold at least 2 images to be split", count, fix)
    train_rows, test_rows = stratified_split(images.labels, fraction, SPLIT_SEED)
    return ImageData(name, images.take(train_rows), images.take(test_rows))
