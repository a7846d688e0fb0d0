"""Masks for the images of a folder, and scores of a run on a data set."""

from pathlib import Path

import torch
from torch.nn import functional

from shared_peft.errors import DataError
from vision.backbones.family import Backbone, DataConfig
from vision.datasets.class_folder import list_image_files
from vision.datasets.decode import read_image
from vision.evaluate import predict_logits
from vision.segmentation.datasets import open_masked
from vision.segmentation.masked import load_masked, stretch
from vision.segmentation.overlay import write_mask, write_overlay
from vision.segmentation.scores import SegmentationScores, score_masks
from vision.segmentation.trained import read_segmenter


def predict_folder(
    run: Path, images: Path, out: Path, *, skip_broken: bool = False, progress: bool = False
) -> tuple[int, tuple[str, ...]]:
    """Write a mask and an overlay for every image, at the image's own size.

    Args:
        run: a finished segment run.
        images: a folder of images, or one image.
        out: folder to write ``NAME.png`` (class indices, with a palette) and ``NAME_overlay.png`` into.
        skip_broken: leave unreadable images out; else the first one is an error.
        progress: show a progress bar.

    Returns:
        How many masks were written, and the errors of the images left out.

    Raises:
        RunError: no finished segment run.
        DataError: no images, two of one stem, or a broken one.
    """
    from shared_peft.progress import Bar  # noqa: PLC0415  (only where something is read)

    _, backbone = read_segmenter(run)
    files = [images] if images.is_file() else list_image_files(images) if images.is_dir() else []
    if not files:
        raise DataError(images, "must be an image or a folder of images", "none", "Check the path")
    stems = [file.stem for file in files]
    twice = next((stem for stem in stems if stems.count(stem) > 1), None)
    if twice is not None:
        raise DataError(images, "every image must have a stem of its own", f"{twice!r} twice", "Rename one of them")
    skipped: list[str] = []
    for file in Bar(files, desc="segment", disable=not progress, unit="image", dynamic_ncols=True):
        try:
            image = read_image(file)
        except DataError as error:
            if not skip_broken:
                raise
            skipped.append(str(error))
            continue
        image = image.expand(3, -1, -1).contiguous()
        mask = mask_of(backbone.model, image, backbone.data)
        write_mask(out / f"{file.stem}.png", mask)
        write_overlay(out / f"{file.stem}_overlay.png", image, mask)
    return len(files) - len(skipped), tuple(skipped)


def predict_masks(model: torch.nn.Module, values: torch.Tensor, backbone: Backbone) -> torch.Tensor:
    """Return the most likely class of every pixel of uint8 images at the model's size, (images, height, width)."""
    parts = [predict_logits(model, part, backbone.data).argmax(dim=1).byte() for part in values.split(64)]
    return torch.cat(parts)


def mask_of(model: torch.nn.Module, image: torch.Tensor, data: DataConfig) -> torch.Tensor:
    """Return the class of every pixel of an image of any size: uint8 (3, h, w) to uint8 (h, w).

    The image is stretched to the model's size and its logits back to the image's.
    """
    logits = predict_logits(model, stretch(image, data.size)[None], data)
    whole = functional.interpolate(logits, size=image.shape[1:], mode="bilinear")
    return whole[0].argmax(dim=0).to(torch.uint8)


def evaluate_masks(run: Path, data: str, *, progress: bool = False) -> tuple[tuple[str, ...], SegmentationScores]:
    """Score a finished run on the test side of a data set that has the run's classes.

    Args:
        run: a finished segment run.
        data: a folder of images and masks, or a registered data set.
        progress: show a progress bar.

    Returns:
        Class names and scores.

    Raises:
        RunError: no finished segment run.
        DataError: classes the data set does not have, or a file that cannot be read.
    """
    description, backbone = read_segmenter(run)
    images = open_masked(data, description.classes[1:])
    pixels = load_masked(images.test, backbone.data.size, progress="read test images" if progress else None)
    predicted = predict_masks(backbone.model, pixels.values, backbone)
    return description.classes, score_masks(predicted, pixels.masks, len(description.classes))
