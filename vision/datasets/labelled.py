"""Labelled images that are read when asked for, and what a data set gives: a training and a test side."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from shared_peft.errors import DataError
from shared_peft.registry import Registry


@dataclass(frozen=True)
class LabelledImages:
    """Images by row number, with their labels.

    Args:
        names: one name per image, its path where it has one.
        labels: class indices, int64, shape (images,); or, where an image may have several classes or none, 0 and 1,
            float32, shape (images, classes).
        classes: class names in the order of the indices.
        read: returns an image by its row, uint8, shape (channels, height, width) with 1 (grey) or 3 (RGB) channels.
    """

    names: tuple[str, ...]
    labels: torch.Tensor
    classes: tuple[str, ...]
    read: Callable[[int], torch.Tensor]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def multi_label(self) -> bool:
        """Whether an image may have several classes."""
        return self.labels.dim() == 2

    def take(self, rows: torch.Tensor) -> "LabelledImages":
        """Return the images of ``rows`` only, in that order."""
        chosen, read = rows.tolist(), self.read
        return replace(
            self,
            names=tuple(self.names[row] for row in chosen),
            labels=self.labels[rows],
            read=lambda row: read(chosen[row]),
        )


@dataclass(frozen=True)
class ImageData:
    """A data set: images to train on and images to test on, with the same classes.

    Args:
        name: how it was asked for.
        train: images to draw shots from.
        test: images never trained on.
    """

    name: str
    train: LabelledImages
    test: LabelledImages

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the labels."""
        return self.train.classes


@dataclass(frozen=True)
class ImageSource:
    """A kind of data set.

    Args:
        summary: what it reads, one sentence without the final period.
        argument: what follows the name and a colon, for messages; empty where nothing does.
        load: opens it by that argument.
        recognises: whether a path is of this kind, told without reading its images.
    """

    summary: str
    argument: str
    load: Callable[[str], ImageData]
    recognises: Callable[[Path], bool] = lambda path: False


DATASETS: Registry[ImageSource] = Registry("image data set")


def class_indices(classes: Sequence[str]) -> dict[str, int]:
    """Return the position of every class name."""
    return {name: index for index, name in enumerate(classes)}


def positives(labels: torch.Tensor, label: int) -> torch.Tensor:
    """Return the rows that have class ``label``, for either kind of labels (see `LabelledImages`), sorted."""
    return torch.nonzero(labels == label if labels.dim() == 1 else labels[:, label] > 0).flatten()


def keep_classes(data: ImageData, classes: Sequence[str]) -> ImageData:
    """Return the data set with only ``classes``, relabelled in the order given.

    Images of other classes are left out; where an image may have several classes all images stay, because one that
    shows none of ``classes`` is an example of their absence.

    Raises:
        DataError: a class the data set does not have, or one named twice.
    """
    for name in classes:
        if name not in data.classes or classes.count(name) > 1:
            must = f"classes must be different ones of {', '.join(data.classes[:20])}"
            raise DataError(data.name, must, repr(name), "Correct --classes")
    columns = torch.tensor([data.classes.index(name) for name in classes])

    def keep(images: LabelledImages) -> LabelledImages:
        if images.multi_label:
            return replace(images, labels=images.labels[:, columns], classes=tuple(classes))
        new_label = torch.full((len(images.classes),), -1)
        new_label[columns] = torch.arange(len(classes))
        labels = new_label[images.labels]
        kept = images.take(torch.nonzero(labels >= 0).flatten())
        return replace(kept, labels=labels[labels >= 0], classes=tuple(classes))

    return ImageData(data.name, keep(data.train), keep(data.test))
