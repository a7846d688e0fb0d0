"""From images to a model's input: resize and crop once on uint8, then augment and normalise by the batch."""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch

from shared_peft.errors import DataError
from vision.augmentation import TrainingBatch, find_augmentation
from vision.backbones.family import DataConfig
from vision.datasets.labelled import LabelledImages
from vision.torchvision_ops import declare_missing_operators

Augment: TypeAlias = str  # see vision.augmentation.find_augmentation
LARGEST_ASPECT = 16  # ours: of a narrower image only the middle is resized, however long it is
RESIZED_SIDE = {"center": "shorter_side", "squash": "both_sides", "border": "longer_side"}


@dataclass(frozen=True)
class Pixels:
    """Images at the model's size, in memory.

    Args:
        values: uint8, shape (images, channels, size, size).
        labels: class indices, int64, shape (images,), or 0 and 1, float32, shape (images, classes).
        names: one per image.
        skipped: the errors of images left out because they could not be read.
        classes: number of classes; 0 counts those that ``labels`` show.
    """

    values: torch.Tensor
    labels: torch.Tensor
    names: tuple[str, ...]
    skipped: tuple[str, ...] = ()
    classes: int = 0

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        shown = self.labels.shape[1] if self.labels.dim() == 2 else int(self.labels.max()) + 1
        return max(self.classes, shown)

    def take(self, rows: torch.Tensor) -> "Pixels":
        """Return the images of ``rows`` only, in that order."""
        names = tuple(self.names[row] for row in rows.tolist())
        return replace(self, values=self.values[rows], labels=self.labels[rows], names=names)


def fit_image(image: torch.Tensor, data: DataConfig) -> torch.Tensor:
    """Convert an image to the model's channels, resize it and crop the centre, as timm's evaluation does.

    Args:
        image: uint8, shape (1 or 3, height, width).
        data: what the model expects.

    Returns:
        uint8, shape (channels, size, size).
    """
    declare_missing_operators()
    from torchvision.transforms.v2 import InterpolationMode  # noqa: PLC0415  (slow to import)
    from torchvision.transforms.v2 import functional as ops  # noqa: PLC0415

    image = with_channels(image, data.channels)
    height, width = image.shape[1:]
    if data.crop_mode == "center":
        image = ops.center_crop(image, [min(height, LARGEST_ASPECT * width), min(width, LARGEST_ASPECT * height)])
    size = resized_size(image.shape[1], image.shape[2], data)
    if tuple(image.shape[1:]) != size:
        mode = InterpolationMode(data.interpolation)
        image = ops.resize(image, list(size), interpolation=mode, antialias=True)
    lacking = [max(0, data.size - side) for side in size[::-1]]
    if any(lacking):
        border = [part // 2 for part in lacking] + [(part + 1) // 2 for part in lacking]
        image = ops.pad(image, border, fill=[float(level) for level in border_colour(data)])
    return ops.center_crop(image, [data.size, data.size]).contiguous()


def with_channels(image: torch.Tensor, channels: int) -> torch.Tensor:
    """Return an image of 1 or 3 channels, shape (1 or 3, height, width), with ``channels``: grey where they differ."""
    declare_missing_operators()
    from torchvision.transforms.v2 import functional as ops  # noqa: PLC0415  (slow to import)

    if image.shape[0] == channels:
        return image
    return (ops.rgb_to_grayscale(image) if image.shape[0] == 3 else image).expand(channels, -1, -1)


def resized_side(data: DataConfig) -> int:
    """Return what a side is resized to [px]; rounded down, as timm does (its `transforms_imagenet_eval`)."""
    return math.floor(data.size / data.crop_fraction)


def resized_size(height: int, width: int, data: DataConfig) -> tuple[int, int]:
    """Return what an image of ``height`` and ``width`` [px] is resized to before the crop.

    Its shorter side, both sides or its longer side become `resized_side`, by the crop mode; of the other side the part
    of a pixel is cut off where it is the longer, as torchvision does, or rounded where it is the shorter, as timm does.

    Example:
        >>> [resized_size(30, 40, DataConfig(8, (0.0,), (1.0,), crop_mode=m)) for m in ("center", "squash", "border")]
        [(8, 10), (8, 8), (6, 8)]
    """
    side, ends = resized_side(data), (height, width)
    if data.crop_mode == "squash":
        return side, side
    if data.crop_mode == "border":
        ratio = max(height / side, width / side)
        return max(1, round(height / ratio)), max(1, round(width / ratio))
    first, second = (int(side * end / min(ends)) for end in ends)
    return first, second


def border_colour(data: DataConfig) -> list[int]:
    """Return the levels of an added border, one per channel, in [0, 255]: the mean, as timm takes it."""
    return [round(255 * level) for level in data.mean]


def load_pixels(
    images: LabelledImages, data: DataConfig, *, skip_broken: bool = False, progress: str | None = None
) -> Pixels:
    """Decode images and fit them to the model's size.

    Args:
        images: what to read.
        data: what the model expects.
        skip_broken: leave unreadable images out and list them; else the first one is an error.
        progress: label of a progress bar; None shows none.

    Returns:
        The images in the order of ``images``.

    Raises:
        DataError: an unreadable image, or none left.
    """

    def load(row: int) -> torch.Tensor | DataError:
        try:
            return fit_image(images.read(row), data)
        except DataError as error:
            if skip_broken:
                return error
            raise

    with ThreadPoolExecutor(max_workers=2) as pool:
        loaded = list(_with_progress(pool.map(load, range(len(images))), progress, len(images)))
    good = [row for row, value in enumerate(loaded) if isinstance(value, torch.Tensor)]
    if not good:
        raise DataError("images", "at least one must be readable", f"none of {len(images)}", "Check the files")
    return Pixels(
        values=torch.stack([value for value in loaded if isinstance(value, torch.Tensor)]),
        labels=images.labels[good],
        names=tuple(images.names[row] for row in good),
        skipped=tuple(str(value) for value in loaded if isinstance(value, DataError)),
        classes=len(images.classes),
    )


def normalise(values: torch.Tensor, data: DataConfig) -> torch.Tensor:
    """Scale pixels to [0, 1], subtract the mean and divide by the standard deviation of each channel.

    Args:
        values: uint8, shape (images, channels, size, size).
        data: what the model expects.

    Returns:
        float32, the same shape.
    """
    mean, std = (torch.tensor(v, device=values.device)[None, :, None, None] for v in (data.mean, data.std))
    return (values.float() / 255 - mean) / std


def make_batches(
    pixels: Pixels, data: DataConfig, batch_size: int, preset: Augment, seed: int
) -> Callable[[int], tuple[torch.Tensor, torch.Tensor]]:
    """Return batch number -> (inputs, targets), a pure function of the number and the seed.

    Targets are class indices, int64, shape (images,), or shares, float32, shape (images, classes), where an image may
    have several classes or the augmentation mixes images.

    Args:
        pixels: the training images.
        data: what the model expects.
        batch_size: images a batch; fewer images make one smaller batch.
        preset: see `vision.augmentation.find_augmentation`.
        seed: of the order and of the augmentation.

    Raises:
        UnknownNameError: no such augmentation.
    """
    from shared_peft.training import epoch_order  # noqa: PLC0415

    augmentation, n_classes = find_augmentation(preset), pixels.n_classes

    def batch(index: int) -> tuple[torch.Tensor, torch.Tensor]:
        rows = epoch_order(len(pixels.labels), batch_size, index, seed)
        generator = torch.Generator().manual_seed((seed * 9_176_213 + index) % 2**63)
        drawn = TrainingBatch(pixels.values[rows], pixels.labels[rows], n_classes)
        changed = augmentation.apply(drawn, generator)
        return normalise(changed.values, data), changed.targets

    return batch


def describe_preprocessing(data: DataConfig) -> dict[str, Any]:
    """Return what must happen to an image file before the model sees it, as plain JSON values."""
    return {
        "input": "uint8 image, EXIF orientation applied, transparency on white",
        "colour": "grey" if data.channels == 1 else "RGB",
        "channels": data.channels,
        "height_px": data.size,
        "width_px": data.size,
        f"resize_{RESIZED_SIDE[data.crop_mode]}_px": resized_side(data),
        "interpolation": data.interpolation,
        "antialias": True,
        "crop": "centre",
        **({"border_levels": border_colour(data)} if data.crop_mode == "border" else {}),
        "scale": 1 / 255,
        "mean": list(data.mean),
        "std": list(data.std),
        "layout": "NCHW",
    }


def _with_progress(values: Any, label: str | None, total: int) -> Any:
    if label is None:
        return values
    from shared_peft.progress import Bar  # noqa: PLC0415

    return Bar(values, total=total, desc=label, unit="image", dynamic_ncols=True, mininterval=0.5)
