"""idx files, as MNIST and its like are published (LeCun, Cortes and Burges 1998, yann.lecun.com/exdb/mnist), gz or raw.

A file is two zero bytes, the type code 0x08 (uint8), the number of dimensions, each size as a big-endian int32, and the
values, the last dimension fastest.
"""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
import torch

from shared_peft.archives import check_content, largest_content
from shared_peft.errors import DataError
from vision.datasets.labelled import DATASETS, ImageData, ImageSource, LabelledImages
from vision.datasets.sampling import set_aside

_IMAGES, _LABELS = "-images-idx3-ubyte", "-labels-idx1-ubyte"
_UINT8 = 0x08


def load_idx(argument: str) -> ImageData:
    """Read MNIST's files: ``NAME-images-idx3-ubyte`` and ``NAME-labels-idx1-ubyte``, with or without ``.gz``.

    Args:
        argument: the folder. The files called train and t10k (or test) are the two sides; where there is one pair
            only, a fifth of every class is set aside for testing, always the same.

    Returns:
        The data set; its classes are the labels that occur.

    Raises:
        DataError: no such files, a damaged one, or images and labels of different number.
    """
    folder = Path(argument)
    stems = {file.name.split(_IMAGES)[0]: file for file in _image_files(folder)}
    train = stems.pop("train", None)
    test = next((stems[name] for name in ("t10k", "test") if name in stems), None)
    if train is None and test is None:
        must = f"must hold train{_IMAGES} or t10k{_IMAGES} (.gz)"
        raise DataError(folder, must, "none", "Check the path")
    if train is None or test is None:
        return set_aside(folder.name, _named(*_read_pair(train or test or folder)))
    sides = [_read_pair(train), _read_pair(test)]
    present = torch.cat([labels for _, labels, _ in sides]).unique().tolist()
    return ImageData(folder.name, *(_named(*side, present) for side in sides))


def read_idx(path: Path) -> np.ndarray:
    """Return the uint8 array of an idx file.

    Raises:
        DataError: it is damaged, or of another type.
    """
    try:
        content = _unpacked(path) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(path, "must be readable", f"{type(error).__name__}: {error}", "Fetch the file again") from error
    start = 4 + 4 * content[3] if len(content) >= 4 else 0
    if content[:3] != bytes((0, 0, _UINT8)) or len(content) < start:
        raise DataError(path, "must be an idx file of uint8", f"begins {content[:4].hex()}", "Fetch the file again")
    shape = tuple(np.frombuffer(content[4:start], ">u4").tolist())
    if len(content) - start != math.prod(shape):
        got = f"{len(content) - start:,} bytes"
        must = f"must hold {' x '.join(map(str, shape))} values"
        raise DataError(path, must, got, "Fetch the file again")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _unpacked(path: Path) -> bytes:
    with gzip.open(path) as stream:
        content = stream.read(largest_content(path) + 1)
    check_content(path, len(content))
    return content


def _image_files(folder: Path) -> list[Path]:
    found = folder.glob(f"*{_IMAGES}*") if folder.is_dir() else ()
    return sorted(file for file in found if file.name.endswith((_IMAGES, f"{_IMAGES}.gz")))


def _read_pair(path: Path) -> tuple[torch.Tensor, torch.Tensor, str]:
    """Return images, uint8 (images, height, width), labels, int64 (images,), and what they are called."""
    names = [path.name.removesuffix(".gz").replace(_IMAGES, _LABELS) + suffix for suffix in ("", ".gz")]
    label_file = next((path.parent / name for name in names if (path.parent / name).is_file()), None)
    if label_file is None:
        raise DataError(path.parent, f"must hold {names[0]} (.gz)", "no such file", "Fetch the file")
    images, labels = read_idx(path), read_idx(label_file)
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels) or 0 in images.shape:
        got = f"shapes {images.shape} and {labels.shape}"
        raise DataError(path, "must hold images, and one label an image beside it", got, "Fetch the files again")
    return torch.from_numpy(images.copy()), torch.from_numpy(labels.astype(np.int64)), path.name


def _named(images: torch.Tensor, labels: torch.Tensor, name: str, present: list[int] | None = None) -> LabelledImages:
    """Return images with their labels counted from 0; the labels that occur are the classes."""
    values = torch.tensor(labels.unique().tolist() if present is None else present)
    names = tuple(f"{name}[{row}]" for row in range(len(images)))
    indices = torch.searchsorted(values, labels)
    return LabelledImages(names, indices, tuple(map(str, values.tolist())), lambda row: images[row][None])


DATASETS.register("idx")(
    ImageSource(
        "the idx files of MNIST and its like, gz or raw",
        "FOLDER",
        load_idx,
        lambda path: bool(_image_files(path)),
    )
)
