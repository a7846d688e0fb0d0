"""Segmentation data sets: one file each, each registers itself; `open_masked` finds one by name or folder."""

from collections.abc import Sequence
from pathlib import Path

from shared_peft.registry import import_siblings
from vision.segmentation.masked import SEGMENTATION_DATASETS, SegmentationData, keep_classes

import_siblings(__name__, __path__)


def open_masked(data: str, classes: Sequence[str] = ()) -> SegmentationData:
    """Open a data set by its name ("shapes") or by the path of a folder of images and masks.

    Args:
        data: a registered name, or a folder.
        classes: the classes to keep, in this order, the background left out; all if empty.

    Raises:
        DataError: no such folder, an image without a mask, an unknown class.
    """
    named = data in SEGMENTATION_DATASETS and data != "folder"
    opener = SEGMENTATION_DATASETS.get(data if named else "folder")
    found = opener(None if named else Path(data))
    return keep_classes(found, classes) if classes else found


__all__ = ["open_masked"]
