"""Images with a mask each: every pixel has the index of its class, or 255 where nobody says."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch.nn import functional

from shared_peft.errors import DataError
from shared_peft.registry import Registry

BACKGROUND, IGNORE = 0, 255
BACKGROUND_NAME = "background"
MOST_CLASSES = 255


@dataclass(frozen=True)
class MaskedImages:
    """Images by row number, with their masks.

    Args:
        names: one per image, its path where it has one.
        classes: class names in the order of the indices; the first is the background.
        read: returns an image and its mask by row: uint8 (3, height, width) and uint8 (height, width).
    """

    names: tuple[str, ...]
    classes: tuple[str, ...]
    read: Callable[[int], tuple[torch.Tensor, torch.Tensor]]

    def __len__(self) -> int:
        return len(self.names)

    def take(self, rows: Sequence[int]) -> "MaskedImages":
        """Return the images of ``rows`` only, in that order."""
        read = self.read
        return replace(self, names=tuple(self.names[row] for row in rows), read=lambda row: read(rows[row]))


@dataclass(frozen=True)
class SegmentationData:
    """A data set: images to train on and images to test on, with the same classes.

    Args:
        name: how it was asked for.
        train: images to learn from.
        test: images never trained on.
    """

    name: str
    train: MaskedImages
    test: MaskedImages

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the mask's indices; the first is the background."""
        return self.train.classes


@dataclass(frozen=True)
class MaskedPixels:
    """Images and masks at the model's size, in memory.

    Args:
        values: uint8, shape (images, 3, size, size).
        masks: uint8, shape (images, size, size).
        names: one per image.
        classes: class names in the order of the indices.
    """

    values: torch.Tensor
    masks: torch.Tensor
    names: tuple[str, ...]
    classes: tuple[str, ...]

    def presence(self, classes: Sequence[str]) -> torch.Tensor:
        """Return which of ``classes`` each image shows, 0 or 1: float32, shape (images, classes)."""
        flat = self.masks.flatten(1)
        return torch.stack([(flat == self.classes.index(name)).any(1) for name in classes], dim=1).float()


SEGMENTATION_DATASETS: Registry[Callable[[Path | None], SegmentationData]] = Registry("segmentation data set")


def keep_classes(data: SegmentationData, classes: Sequence[str]) -> SegmentationData:
    """Return the data set with only ``classes``, numbered from 1 in the order given; the others become background.

    Objects of the other classes stay in the images, as in the "overlap" setting of incremental segmentation (Cermelli
    et al. 2020, arXiv:2002.00718).

    Raises:
        DataError: a class the data set does not have, or one named twice.
    """
    offered = data.classes[1:]
    for name in classes:
        if name not in offered or classes.count(name) > 1:
            must = f"classes must be different ones of {', '.join(offered[:20])}"
            raise DataError(data.name, must, repr(name), "Correct --classes")
    renumbered = torch.full((256,), BACKGROUND, dtype=torch.uint8)
    renumbered[IGNORE] = IGNORE
    for label, name in enumerate(classes, start=1):
        renumbered[data.classes.index(name)] = label

    def keep(images: MaskedImages) -> MaskedImages:
        def read(row: int) -> tuple[torch.Tensor, torch.Tensor]:
            image, mask = images.read(row)
            return image, renumbered[mask.long()]

        return replace(images, classes=(BACKGROUND_NAME, *classes), read=read)

    return SegmentationData(data.name, keep(data.train), keep(data.test))


def load_masked(images: MaskedImages, size: int, *, progress: str | None = None) -> MaskedPixels:
    """Read images and masks and stretch both to the model's size: images bilinearly, masks by the nearest pixel.

    Args:
        images: what to read.
        size: height and width [px].
        progress: label of a progress bar; None shows none.

    Raises:
        DataError: nothing to read, or a file that cannot be.
    """
    if not len(images):
        raise DataError("images", "there must be at least one", 0, "Check the data set")
    from shared_peft.progress import Bar  # noqa: PLC0415  (only where something is read)

    rows = Bar(range(len(images)), desc=progress or "", disable=progress is None, unit="image", dynamic_ncols=True)
    pairs = [images.read(row) for row in rows]
    return MaskedPixels(
        values=torch.stack([stretch(image, size) for image, _ in pairs]),
        masks=torch.stack([_nearest(mask, size) for _, mask in pairs]),
        names=images.names,
        classes=images.classes,
    )


def load_sides(
    data: SegmentationData, images: int, size: int, *, progress: bool = False
) -> tuple[MaskedPixels, MaskedPixels]:
    """Read the training and the test side at the model's size.

    Args:
        data: the data set.
        images: training images to read, the first ones; 0 reads all.
        size: height and width [px].
        progress: show progress bars.

    Raises:
        DataError: a file that cannot be read.
    """
    chosen = data.train.take(range(min(images, len(data.train)))) if images else data.train
    train = load_masked(chosen, size, progress="read train images" if progress else None)
    return train, load_masked(data.test, size, progress="read test images" if progress else None)


def stretch(image: torch.Tensor, size: int) -> torch.Tensor:
    """Return an image, uint8 (3, height, width), at (3, size, size), antialiased."""
    if tuple(image.shape[1:]) == (size, size):
        return image
    wide = functional.interpolate(image[None].float(), (size, size), mode="bilinear", antialias=True)
    return wide[0].round().clamp(0, 255).to(torch.uint8)


def _nearest(mask: torch.Tensor, size: int) -> torch.Tensor:
    return functional.interpolate(mask[None, None].float(), (size, size), mode="nearest-exact")[0, 0].to(torch.uint8)
