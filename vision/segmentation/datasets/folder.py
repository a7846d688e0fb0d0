"""Folders of images and masks: train/images, train/masks, test/images, test/masks, and perhaps classes.txt.

A mask is a PNG of class indices, grey or with a palette as in PASCAL VOC; it has the stem of its image's name.
"""

from pathlib import Path

import numpy as np
import torch

from shared_peft.errors import DataError
from vision.datasets.class_folder import list_image_files
from vision.datasets.decode import read_image
from vision.segmentation.masked import (
    BACKGROUND_NAME,
    IGNORE,
    MOST_CLASSES,
    SEGMENTATION_DATASETS,
    MaskedImages,
    SegmentationData,
)

_TEST_NAMES = ("test", "val", "validation")
_FIX = "Save class indices as a grey or palette PNG"


@SEGMENTATION_DATASETS.register("folder")
def load_pairs(path: Path | None) -> SegmentationData:
    """List the image and mask pairs of a folder.

    Args:
        path: a folder with ``train/images/*``, ``train/masks/*.png`` and the same under ``test/`` (or ``val/``);
            ``classes.txt`` names the classes, one a line, the background first.

    Raises:
        DataError: a missing folder, an image without a mask, or more classes than the names given.
    """
    if path is None or not (path / "train").is_dir():
        must = "must be a folder with train/images, train/masks, test/images and test/masks"
        raise DataError(path or "--data", must, "none of them", "Check the path; DATASET names work too")
    test = next((path / name for name in _TEST_NAMES if (path / name).is_dir()), path / "test")
    classes = _class_names(path)
    return SegmentationData(path.name, _list_pairs(path / "train", classes), _list_pairs(test, classes))


def read_mask(path: Path, classes: int) -> torch.Tensor:
    """Read a mask of class indices.

    Args:
        path: a grey or palette PNG.
        classes: number of classes; larger indices than these are an error, 255 aside.

    Returns:
        uint8, shape (height, width).

    Raises:
        DataError: no mask there, a colour picture, or an index without a class.
    """
    from PIL import Image, UnidentifiedImageError  # noqa: PLC0415  (slow to import)

    try:
        with Image.open(path) as image:
            if image.mode not in ("P", "L", "1"):
                raise DataError(path, "a mask must hold one index a pixel", f"mode {image.mode}", _FIX)
            mask = np.array(image).astype(np.uint8)
    except (OSError, SyntaxError, ValueError, EOFError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        got = "no such file" if isinstance(error, FileNotFoundError) else f"{type(error).__name__}: {error}"
        raise DataError(path, "must be a mask Pillow can read", got, "Repair or remove the file") from error
    known = mask[mask != IGNORE]
    if known.size and known.max() >= classes:
        fix = f"Correct the mask, or name the class in classes.txt ({IGNORE} means nobody says)"
        raise DataError(path, f"indices must be below {classes}, the number of classes", int(known.max()), fix)
    return torch.from_numpy(mask)


def _class_names(path: Path) -> tuple[str, ...]:
    listed = path / "classes.txt"
    if listed.is_file():
        names = tuple(line.strip() for line in listed.read_text(encoding="utf-8").splitlines() if line.strip())
        if not 2 <= len(set(names)) == len(names) <= MOST_CLASSES:
            fix = "Name the background first, then every class once"
            raise DataError(listed, f"must hold 2 to {MOST_CLASSES} different names", f"{len(names)} lines", fix)
        return names
    masks = sorted((path / "train" / "masks").glob("*.png"))
    indices = [read_mask(mask, MOST_CLASSES) for mask in masks]
    largest = max((int(mask[mask != IGNORE].max()) for mask in indices if (mask != IGNORE).any()), default=0)
    if not largest:
        fix = "Check the folder, or give classes.txt"
        raise DataError(path / "train" / "masks", "masks must hold a class beside the background", "none", fix)
    return (BACKGROUND_NAME, *(f"class_{index}" for index in range(1, largest + 1)))


def _list_pairs(side: Path, classes: tuple[str, ...]) -> MaskedImages:
    images, masks = side / "images", side / "masks"
    for folder in (images, masks):
        if not folder.is_dir():
            raise DataError(folder, "must be a folder", "no such folder", "Add it beside the other side's")
    files = list_image_files(images)
    pairs = [(file, masks / f"{file.stem}.png") for file in files]
    if not pairs:
        raise DataError(images, "must hold images", "none", "Check the folder")
    for file, mask in pairs:
        if not mask.is_file():
            raise DataError(
                file, f"must have a mask {mask.name} in {masks}", "none", "Add the mask or remove the image"
            )

    def read(row: int) -> tuple[torch.Tensor, torch.Tensor]:
        file, path = pairs[row]
        image, mask = read_image(file), read_mask(path, len(classes))
        if image.shape[1:] != mask.shape:
            got = f"{tuple(mask.shape)} beside {tuple(image.shape[1:])}"
            raise DataError(path, "a mask must have the height and width of its image", got, "Repair the mask")
        return image.expand(3, -1, -1).contiguous(), mask

    return MaskedImages(tuple(map(str, files)), classes, read)
