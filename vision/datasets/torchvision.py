"""Any classification data set of torchvision that lies on disk already: `torchvision:CIFAR10=FOLDER`."""

import difflib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from shared_peft.errors import DataError, UnknownNameError
from vision.datasets.decode import pixels_of
from vision.datasets.labelled import DATASETS, ImageData, ImageSource, LabelledImages
from vision.datasets.sampling import set_aside
from vision.torchvision_ops import declare_missing_operators

_TRAIN_SIDES, _TEST_SIDES = ("train", "trainval"), ("test", "val", "valid")
_LABEL_ATTRIBUTES = ("targets", "labels", "_labels")  # where torchvision's classes keep them; else they are read


def load_torchvision(argument: str) -> ImageData:
    """Open a data set by the name of its class in `torchvision.datasets`; nothing is ever fetched.

    Its training side is train=True, or split train (trainval); its test side train=False, or split test (val). One
    that knows neither is split, a fifth of every class set aside, always the same.

    Args:
        argument: NAME=FOLDER, where FOLDER is what torchvision calls ``root``.

    Returns:
        The data set; images are decoded when read.

    Raises:
        UnknownNameError: no such class.
        DataError: not NAME=FOLDER, files that are not there, or labels that are no class indices.
    """
    name, equals, folder = argument.partition("=")
    if not equals or not folder:
        raise DataError("torchvision", "must be NAME=FOLDER", repr(argument), "Write torchvision:CIFAR10=FOLDER")
    make = _class_named(name)
    sides = _sides(name, make, folder)
    images = [_images(name, side) for side in sides]
    if images[0].classes != images[-1].classes:
        raise DataError(argument, "both sides must have the same classes", "others", "Use class folders instead")
    return ImageData(name, *images) if len(images) == 2 else set_aside(name, images[0])


def _class_named(name: str) -> Callable[..., Any]:
    declare_missing_operators()
    from torchvision import datasets  # noqa: PLC0415  (slow to import)

    known = [entry for entry in datasets.__all__ if _takes(getattr(datasets, entry), "root")]
    if name not in known:
        close = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
        fix = f"Did you mean {', '.join(close)}?" if close else "Correct the name"
        raise UnknownNameError("torchvision data set", "must be a class of torchvision.datasets", repr(name), fix)
    return getattr(datasets, name)


def _takes(make: Callable[..., Any], parameter: str) -> bool:
    return parameter in inspect.signature(make).parameters


def _sides(name: str, make: Callable[..., Any], folder: str) -> list[Any]:
    """Return the data set's training and test side, or the only side it has."""
    if not Path(folder).is_dir():
        raise DataError(folder, f"must be the folder {name} lies in", "no such folder", "Check the path")
    if _takes(make, "train"):
        choices = [[{"train": True}], [{"train": False}]]
    elif _takes(make, "split"):
        choices = [[{"split": side} for side in sides] for sides in (_TRAIN_SIDES, _TEST_SIDES)]
    else:
        choices = [[{}]]
    return [_first_that_opens(name, make, folder, options) for options in choices]


def _first_that_opens(name: str, make: Callable[..., Any], folder: str, options: list[dict[str, Any]]) -> Any:
    reasons = []
    for chosen in options:
        try:
            return make(folder, **chosen)
        except Exception as error:  # noqa: PERF203  (each class has its own way to say what is missing)
            reasons.append(f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}")
    must = f"must hold {name} as torchvision lays it out"
    raise DataError(folder, must, "; ".join(reasons), "Fetch it with torchvision (download=True), or check the folder")


def _images(name: str, side: Any) -> LabelledImages:
    values = next((v for v in (getattr(side, a, None) for a in _LABEL_ATTRIBUTES) if v is not None), None)
    if values is None or len(values) != len(side):
        values = [side[row][1] for row in range(len(side))]
    labels = torch.as_tensor(values) if len(side) else torch.zeros(0)
    if labels.dim() != 1 or not len(labels) or labels.is_floating_point() or int(labels.min()) < 0:
        got = f"{labels.dtype} of shape {tuple(labels.shape)}"
        raise DataError(f"torchvision:{name}", "labels must be one class index an image", got, "Use a csv file instead")
    count = int(labels.max()) + 1
    classes = tuple(map(str, getattr(side, "classes", ())))
    if len(classes) < count or len(set(classes)) < len(classes):
        classes = tuple(map(str, range(count)))
    names = tuple(f"{name}[{row}]" for row in range(len(side)))
    return LabelledImages(names, labels.long(), classes, lambda row: pixels_of(side[row][0], names[row]))


DATASETS.register("torchvision")(
    ImageSource(
        "a classification data set of torchvision by its class name, where it lies already (nothing is fetched)",
        "NAME=FOLDER",
        load_torchvision,
    )
)
