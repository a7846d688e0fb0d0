"""Folders of images, one folder a class: with train/ and test/ (or val/) inside, or one folder to split."""

from pathlib import Path

import torch

from shared_peft.errors import DataError
from vision.datasets.decode import SUFFIXES, read_image
from vision.datasets.labelled import DATASETS, ImageData, ImageSource, LabelledImages
from vision.datasets.sampling import set_aside

_TEST_NAMES = ("test", "val", "validation")


def load_folder(argument: str) -> ImageData:
    """List the images of a class folder.

    Args:
        argument: a folder with ``train/CLASS/*`` and ``test/CLASS/*`` (or ``val/``), or with ``CLASS/*`` alone, of
            which a fifth of every class is set aside for testing, always the same.

    Returns:
        The training and the test side; nothing is decoded yet.

    Raises:
        DataError: no such folder, no class folders, a class folder without images, or other classes in the test side.
    """
    path = Path(argument)
    if not argument or not path.is_dir():
        names = ", ".join(DATASETS.names())
        must = f"must be a folder of class folders, or one of {names}"
        raise DataError(argument or "--data", must, "no such folder", "Check the path")
    if not (path / "train").is_dir():
        return set_aside(path.name, _list_images(path))
    test = next((path / name for name in _TEST_NAMES if (path / name).is_dir()), None)
    if test is None:
        fix = "Add test/, or move the class folders up one level to have them split"
        raise DataError(path, "must hold test/ or val/ beside train/", "train/ alone", fix)
    train_side, test_side = _list_images(path / "train"), _list_images(test)
    if train_side.classes != test_side.classes:
        differing = sorted(set(train_side.classes) ^ set(test_side.classes))
        fix = "Make the class folders of both sides the same"
        raise DataError(test, "classes must be those of train/", f"differences in {', '.join(differing[:5])}", fix)
    return ImageData(path.name, train_side, test_side)


def list_image_files(path: Path) -> list[Path]:
    """Return the image files directly in ``path``, sorted; hidden files are left out."""
    files = (entry for entry in path.iterdir() if entry.suffix.lower() in SUFFIXES and not entry.name.startswith("."))
    return sorted(entry for entry in files if entry.is_file())


def _list_images(path: Path) -> LabelledImages:
    folders = sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not folders:
        raise DataError(path, "must hold one folder per class", "no folders", "Sort the images into class folders")
    files: list[Path] = []
    labels: list[int] = []
    for label, folder in enumerate(folders):
        found = list_image_files(folder)
        if not found:
            fix = "Add images or remove the folder"
            raise DataError(folder, f"must hold images ({', '.join(sorted(SUFFIXES))})", "none", fix)
        files += found
        labels += [label] * len(found)
    classes = tuple(folder.name for folder in folders)
    return LabelledImages(tuple(map(str, files)), torch.tensor(labels), classes, lambda row: read_image(files[row]))


DATASETS.register("folder")(
    ImageSource(
        "folders of images, one a class, inside train/ and test/ (or val/), or to be split", "FOLDER", load_folder
    )
)
