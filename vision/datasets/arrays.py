"""Images and labels in one numpy file (.npz), also as MedMNIST publishes them (Yang et al. 2023, medmnist.com)."""

import zipfile
from pathlib import Path

import numpy as np
import torch

from shared_peft.archives import check_unpacked
from shared_peft.errors import DataError
from vision.datasets.labelled import DATASETS, ImageData, ImageSource, LabelledImages
from vision.datasets.sampling import set_aside

_FIX = "Save images and labels with numpy.savez"


def load_arrays(argument: str) -> ImageData:
    """Read ``images`` and ``labels``, or ``train_images``, ``train_labels``, ``test_images`` and ``test_labels``.

    Images are uint8, shape (images, height, width) or (images, height, width, 1 or 3). Labels are integers, shape
    (images,) or (images, 1), or 0 and 1 of shape (images, classes). ``class_names`` may name the classes. Without a
    test side a fifth of every class is set aside, always the same.

    Args:
        argument: the .npz file.

    Returns:
        The data set.

    Raises:
        DataError: no such file, a damaged one, or arrays of another form.
    """
    path = Path(argument)
    arrays = _read(path)
    if "train_images" not in arrays:
        return set_aside(path.stem, _images(path, arrays, "", _classes(path, arrays, ("",))))
    classes = _classes(path, arrays, ("train_", "test_"))
    return ImageData(path.stem, *(_images(path, arrays, side, classes) for side in ("train_", "test_")))


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        if zipfile.is_zipfile(path):
            check_unpacked(path)
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except DataError:
        raise
    except Exception as error:  # a damaged archive makes zipfile, zlib and numpy raise almost anything
        got = "no such file" if isinstance(error, FileNotFoundError) else f"{type(error).__name__}: {error}"
        raise DataError(path, "must be an npz file of plain arrays", got, _FIX) from error
    others = [name for name, array in arrays.items() if not isinstance(array, np.ndarray) or not array.ndim]
    if others:
        raise DataError(path, "must be an npz file of plain arrays", ", ".join(others[:5]), _FIX)
    return arrays


def _labels(path: Path, arrays: dict[str, np.ndarray], side: str) -> np.ndarray:
    """Return labels as int64 (images,), or 0 and 1 as float32 (images, classes)."""
    name = f"{side}labels"
    labels = arrays.get(name, np.zeros(0))
    labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    marks = labels.ndim == 2 and bool(np.isin(labels, (0, 1)).all())
    if not len(labels) or not (marks or (labels.ndim == 1 and labels.dtype.kind in "iu" and labels.min() >= 0)):
        must = f"{name} must be class indices (images,) or 0 and 1 (images, classes)"
        raise DataError(path, must, f"{labels.dtype} {labels.shape}", _FIX)
    return labels.astype(np.float32 if marks else np.int64)


def _classes(path: Path, arrays: dict[str, np.ndarray], sides: tuple[str, ...]) -> tuple[str, ...]:
    labels = [_labels(path, arrays, side) for side in sides]
    count = max(array.shape[1] if array.ndim == 2 else int(array.max()) + 1 for array in labels)
    names = (
        tuple(map(str, arrays["class_names"].tolist())) if "class_names" in arrays else tuple(map(str, range(count)))
    )
    if len(set(names)) != len(names) or len(names) < count or (labels[0].ndim == 2 and len(names) != count):
        must = f"class_names must be {count} different names"
        raise DataError(path, must, ", ".join(names[:10]), _FIX)
    return names


def _images(path: Path, arrays: dict[str, np.ndarray], side: str, classes: tuple[str, ...]) -> LabelledImages:
    images, labels = arrays.get(f"{side}images", np.zeros(0)), torch.from_numpy(_labels(path, arrays, side))
    images = images[..., None] if images.ndim == 3 else images
    shaped = images.ndim == 4 and images.shape[3] in (1, 3) and 0 not in images.shape
    if images.dtype != np.uint8 or not shaped or len(images) != len(labels):
        must = f"{side}images must be uint8 (images, height, width[, 1 or 3]), as many as labels"
        raise DataError(path, must, f"{images.dtype} {images.shape} for {len(labels)} labels", _FIX)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
    names = tuple(f"{path.name}[{side}{row}]" for row in range(len(images)))
    return LabelledImages(names, labels, classes, lambda row: pixels[row].contiguous())


DATASETS.register("npz")(
    ImageSource(
        "one numpy file with images, labels and perhaps class_names; MedMNIST's files too",
        "FILE",
        load_arrays,
        lambda path: path.suffix.lower() == ".npz",
    )
)
