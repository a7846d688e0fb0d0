"""Image files to a bundle's input, prepared as its manifest says: the inverse of `describe_preprocessing`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deploy.manifest import Manifest
from deploy.multi.manifest import MultiManifest
from shared_peft.errors import DataError
from vision import transforms
from vision.backbones.family import DataConfig
from vision.datasets.decode import read_image


def read_inputs(paths: Sequence[Path], manifest: Manifest | MultiManifest) -> np.ndarray:
    """Return images as a bundle takes them, float32, shape (images, channels, size, size).

    Raises:
        DataError: no file, a file that is no image, or a bundle that does not take images.
    """
    if manifest.kind != "vision" or not paths:
        got = "no file" if manifest.kind == "vision" else manifest.kind
        raise DataError("images", "must be files for a bundle of vision", got, "Give images to a vision bundle")
    data = data_config(manifest.preprocessing)
    pixels = torch.stack([transforms.fit_image(read_image(path), data) for path in paths])
    return transforms.normalise(pixels, data).numpy()


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
        resized = {mode: preprocessing.get(f"resize_{side}_px") for mode, side in transforms._RESIZED.items()}
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
