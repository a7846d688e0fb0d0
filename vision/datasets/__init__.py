"""Image data sets: one file each, each registers itself; `open_images` finds one by name or folder."""

from collections.abc import Sequence
from pathlib import Path

from shared_peft.registry import import_siblings
from vision.datasets.decode import read_image
from vision.datasets.labelled import DATASETS, ImageData, LabelledImages, keep_classes
from vision.datasets.sampling import draw_shots, stratified_folds, stratified_split

import_siblings(__name__, __path__)


def open_images(data: str, classes: Sequence[str] = ()) -> ImageData:
    """Open a data set by its name ("digits") or by the path of a class folder.

    Args:
        data: a registered name, or a folder.
        classes: the classes to keep, in this order; all if empty.

    Returns:
        The data set; files are decoded when read.

    Raises:
        DataError: no such folder, an empty class folder, an unknown class.
    """
    named = data in DATASETS and data != "folder"
    found = DATASETS.get(data)(None) if named else DATASETS.get("folder")(Path(data))
    return keep_classes(found, classes) if classes else found


__all__ = [
    "DATASETS",
    "ImageData",
    "LabelledImages",
    "draw_shots",
    "keep_classes",
    "open_images",
    "read_image",
    "stratified_folds",
    "stratified_split",
]
