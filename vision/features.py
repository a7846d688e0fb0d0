"""Features of a backbone: what goes into its head, for a classifier, a search or a picture of one's own."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from shared_peft.atomic import replacing
from shared_peft.errors import ConfigError
from vision.backbones import Backbone
from vision.backbones.family import DataConfig
from vision.predict import unlabelled_images
from vision.trained import load_model, read_description
from vision.transforms import Pixels, load_pixels, normalise


@torch.inference_mode()
def head_inputs(
    model: nn.Module, head: str, values: torch.Tensor, data: DataConfig, batch_size: int = 128
) -> torch.Tensor:
    """Return what goes into a model's head.

    Args:
        model: a classifier in eval mode, with or without an adapter.
        head: name of the module that makes the logits, in the model without adapter.
        values: uint8, shape (images, channels, size, size).
        data: what the model expects.
        batch_size: images at a time.

    Returns:
        Features, shape (images, width); a feature map in front of the head is averaged over the image.
    """
    module = next(found for name, found in model.named_modules() if f".{name}".endswith(f".{head}"))
    seen: list[torch.Tensor] = []
    handle = module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        for part in values.split(batch_size):
            model(normalise(part, data))
    finally:
        handle.remove()
    features = torch.cat(seen).float()
    return features.flatten(2).mean(dim=2) if features.dim() > 2 else features


def features_of_run(
    run: Path, images: Sequence[Path], *, skip_broken: bool = False, progress: bool = False
) -> tuple[torch.Tensor, Pixels]:
    """Return the features of image files in a finished run's model, its adapter included.

    Args:
        run: a finished run folder.
        images: folders (with subfolders), image files, and csv files with a column "path".
        skip_broken: leave unreadable images out; else the first one is an error.
        progress: show a progress bar.

    Returns:
        Features, shape (images, width), and the images they are of.

    Raises:
        RunError: no finished vision run.
        DataError: no images, or a broken one.
    """
    described = read_description(run)
    pixels = _pixels(images, described.data, skip_broken=skip_broken, progress=progress)
    return head_inputs(load_model(run, described), described.head[0], pixels.values, described.data), pixels


def features_of_backbone(
    backbone: Backbone, images: Sequence[Path], *, skip_broken: bool = False, progress: bool = False
) -> tuple[torch.Tensor, Pixels]:
    """Return the features of image files in a backbone as it is; otherwise as `features_of_run`."""
    pixels = _pixels(images, backbone.data, skip_broken=skip_broken, progress=progress)
    return head_inputs(backbone.model, backbone.head[0], pixels.values, backbone.data), pixels


def _pixels(images: Sequence[Path], data: DataConfig, *, skip_broken: bool, progress: bool) -> Pixels:
    label = "read images" if progress else None
    return load_pixels(unlabelled_images(images), data, skip_broken=skip_broken, progress=label)


def write_features(path: Path, features: torch.Tensor, names: Sequence[str]) -> None:
    """Write features as an npz file: `features`, float32, shape (images, width), and `paths`, text, in the same order.

    Raises:
        ConfigError: another file name ending.
    """
    if path.suffix != ".npz":
        raise ConfigError("--out", "must be a .npz file", path.name, "Change the ending")
    content = io.BytesIO()
    np.savez(content, features=features.numpy(), paths=np.array(names, dtype=np.str_))
    with replacing(path) as temporary:
        temporary.write_bytes(content.getvalue())
