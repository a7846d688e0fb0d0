"""Image files to a bundle's input, prepared as its manifest says: the inverse of `describe_preprocessing`."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deploy.manifest import Manifest
from deploy.multi.manifest import MultiManifest
from deploy.preprocessor import INSIDE
from shared_peft.errors import DataError
from vision import transforms
from vision.backbones.family import DataConfig
from vision.datasets.decode import read_image


def read_inputs(paths: Sequence[Path], manifest: Manifest | MultiManifest) -> Iterator[np.ndarray]:
    """Yield batches of images as a bundle takes them, in order.

    Yields:
        All at once, float32, shape (images, channels, size, size); one by one, uint8, shape (1, height, width,
        channels), where preprocessing is inside the graph.

    Raises:
        DataError: no file, a file that is no image, or a bundle that does not take images.
    """
    if manifest.kind != "vision" or not paths:
        got = "no file" if manifest.kind == "vision" else manifest.kind
        raise DataError("images", "must be files for a bundle of vision", got, "Give images to a vision bundle")
    if INSIDE in manifest.preprocessing:
        channels, aspect = (int(manifest.preprocessing[name]) for name in ("channels", "largest_aspect"))
        yield from (raw_pixels(read_image(path), channels, aspect) for path in paths)
        return
    data = data_config(manifest.preprocessing)
    pixels = torch.stack([transforms.fit_image(read_image(path), data) for path in paths])
    yield transforms.normalise(pixels, data).numpy()


def raw_pixels(image: torch.Tensor, channels: int, largest_aspect: int) -> np.ndarray:
    """Return an image as a graph with preprocessing takes it.

    Args:
        image: uint8, shape (1 or 3, height, width).
        channels: of the model.
        largest_aspect: of an image this many times as long as wide, or more, only the middle is kept.

    Returns:
        uint8, shape (1, height, width, channels).
    """
    image = transforms.with_channels(image, channels)
    height, width = image.shape[1:]
    rows, columns = min(height, largest_aspect * width), min(width, largest_aspect * height)
    top, left = round((height - rows) / 2), round((width - columns) / 2)
    cut = image[:, top : top + rows, left : left + columns]
    return cut.permute(1, 2, 0)[None].contiguous().numpy()


def data_config(preprocessing: dict[str, Any]) -> DataConfig:
    """Return what a manifest's preprocessing says in words and numbers.

    Raises:
        DataError: a key is missing, or a value that cannot be.

    Example:
        >>> config = DataConfig(32, (0.5,), (0.25,), crop_fraction=0.875, crop_mode="center")
        >>> transforms.resized_side(data_config(transforms.describe_preprocessing(config)))
        36
    """
    try:
        resized = {mode: preprocessing.get(f"resize_{side}_px") for mode, side in transforms.RESIZED_SIDE.items()}
        mode, side = next((mode, side) for mode, side in resized.items() if side is not None)
        size = int(preprocessing["height_px"])
        return DataConfig(
            size=size,
            mean=tuple(preprocessing["mean"]),
            std=tuple(preprocessing["std"]),
            interpolation=preprocessing["interpolation"],
            crop_fraction=size / (side + 0.5),  # half a pixel more, as the resized side is rounded down
            crop_mode=mode,  # type: ignore[arg-type]
        )
    except (KeyError, StopIteration, TypeError, ValueError) as error:
        must = "must say size, resize, interpolation, mean and std"
        raise DataError("preprocessing", must, f"{type(error).__name__}: {error}", "Export the run again") from error
