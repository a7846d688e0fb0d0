"""Image data sets: one file each, each registers itself; `open_images` finds one by name or by the looks of a path."""

from collections.abc import Sequence
from pathlib import Path

from shared_peft.registry import import_siblings
from vision.datasets.decode import read_image
from vision.datasets.labelled import DATASETS, ImageData, ImageSource, LabelledImages, keep_classes, positives
from vision.datasets.sampling import draw_shots, stratified_folds, stratified_split

import_siblings(__name__, __path__)


def open_images(data: str, classes: Sequence[str] = ()) -> ImageData:
    """Open a data set.

    Args:
        data: a path, whose kind is recognised (a folder of class folders, a csv file, idx files, ...); or the name of
            a data set ("digits"); or a name and what it reads ("torchvision:CIFAR10=FOLDER", "csv:photos/list.txt").
        classes: the classes to keep, in this order; all if empty.

    Returns:
        The data set; files are decoded when read.

    Raises:
        DataError: nothing there, a data set that breaks its own rules, an unknown class.
    """
    name, _, argument = data.partition(":")
    if name in DATASETS:
        found = DATASETS.get(name).load(argument)
    else:
        path = Path(data)
        kinds = (source for _, source in DATASETS.items() if source.recognises(path))
        found = next(kinds, DATASETS.get("folder")).load(data)
    return keep_classes(found, classes) if classes else found


def describe_datasets() -> str:
    """Return a Markdown table of the registered data sets: how to ask for one, and what it reads."""
    lines = ["| `--data` | what it reads |", "|---|---|"]
    for name, source in DATASETS.items():
        asked = f"{name}:{source.argument}" if source.argument else name
        summary = source.summary.replace("|", "\\|")  # a bar inside a cell
        lines.append(f"| `{asked}` | {summary} |")
    return "\n".join(lines)


__all__ = [
    "DATASETS",
    "ImageData",
    "ImageSource",
    "LabelledImages",
    "describe_datasets",
    "draw_shots",
    "keep_classes",
    "open_images",
    "positives",
    "read_image",
    "stratified_folds",
    "stratified_split",
]
