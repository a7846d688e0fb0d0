"""Masks as pictures: palette PNGs, overlays on the image, and a sheet of examples with a legend."""

from pathlib import Path

import numpy as np
import torch

from shared_peft.atomic import replacing
from shared_peft.picture import new_figure, write_picture

_OPACITY = 0.7


def palette(n_classes: int = 256) -> np.ndarray:
    """Return a colour by class, uint8 (n_classes, 3): that of PASCAL VOC, which spreads an index's bits over R, G, B.

    Example:
        >>> palette(3).tolist()
        [[0, 0, 0], [128, 0, 0], [0, 128, 0]]
    """
    colours = np.zeros((n_classes, 3), np.uint8)
    index = np.arange(n_classes)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= (((index >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    return colours


def write_mask(path: Path, mask: torch.Tensor) -> None:
    """Write class indices, uint8 (height, width), as a palette PNG that reads back to the same indices."""
    from PIL import Image  # noqa: PLC0415  (slow to import)

    image = Image.fromarray(mask.numpy())
    image.putpalette(palette().flatten().tolist())  # the mode becomes P
    with replacing(path) as temporary:
        image.save(temporary, format="PNG")


def write_overlay(path: Path, image: torch.Tensor, mask: torch.Tensor) -> None:
    """Write an image, uint8 (3, height, width), with its classes laid over it in colour; the background stays."""
    from PIL import Image  # noqa: PLC0415  (slow to import)

    with replacing(path) as temporary:
        Image.fromarray(overlay(image, mask)).save(temporary, format="PNG")


def overlay(image: torch.Tensor, mask: torch.Tensor) -> np.ndarray:
    """Return uint8 (height, width, 3): the image, grey under the class's colour wherever there is a class."""
    pixels = image.movedim(0, -1).numpy().astype(np.float64)
    known = mask.numpy()[..., None] > 0
    coloured = (1 - _OPACITY) * pixels.mean(axis=-1, keepdims=True) + _OPACITY * palette()[mask.numpy()]
    return np.round(np.where(known, coloured, pixels)).astype(np.uint8)


def write_overview(
    path: Path, values: torch.Tensor, masks: torch.Tensor, predicted: torch.Tensor, classes: tuple[str, ...]
) -> None:
    """Write a sheet of images, true masks and predicted masks, one column an image, with a legend.

    Args:
        path: PNG file.
        values: uint8, shape (images, 3, size, size).
        masks: true class indices, shape (images, size, size).
        predicted: predicted class indices, the same shape.
        classes: class names in the order of the indices.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    titles = ("image", "truth", "predicted")
    figure = new_figure("segment", 1.2 * len(values) + 0.6, 4.2)
    from matplotlib.patches import Patch  # noqa: PLC0415  (new_figure has said so where it is missing)

    axes = figure.subplots(3, len(values), squeeze=False)
    nothing = torch.zeros_like(masks[0])
    for column, image in enumerate(values):
        for row, mask in enumerate((nothing, masks[column], predicted[column])):
            axes[row, column].imshow(overlay(image, mask), interpolation="nearest")
            axes[row, column].set(xticks=[], yticks=[], ylabel=titles[row] if column == 0 else "")
    colours = palette(len(classes)) / 255
    patches = [Patch(color=colour, label=name) for colour, name in zip(colours[1:], classes[1:], strict=True)]
    figure.legend(handles=patches, loc="outside lower center", ncols=min(7, len(patches)), frameon=False)
    write_picture(path, figure)
