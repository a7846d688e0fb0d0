"""Parquet shards as the Hugging Face hub stores image data sets (huggingface.co/docs/datasets/image_dataset)."""

import contextlib
import functools
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from shared_peft.archives import check_content
from shared_peft.errors import DataError
from shared_peft.packages import load_package
from vision.datasets.decode import read_image
from vision.datasets.labelled import DATASETS, ImageData, ImageSource, LabelledImages
from vision.datasets.sampling import set_aside

_TEST_NAMES = ("test", "validation", "valid", "val")
_ROW_BYTES = 64  # ours: what a label takes in memory
_IMAGE_NAMES, _LABEL_NAMES = ("image", "img", "picture"), ("label", "labels", "fine_label", "target", "class")


@dataclass(frozen=True)
class _Shard:
    """One file: where it is, and its columns.

    Args:
        path: the file.
        image: column of encoded images.
        labels: one class index a row, or a list of them.
        names: class names as its metadata give them; none otherwise.
    """

    path: Path
    image: str
    labels: list[Any]
    names: tuple[str, ...]


def load_parquet(argument: str) -> ImageData:
    """Open shards of encoded images with labels.

    The image column holds bytes, or {bytes, path} with the bytes in it; the label column integers or text, or lists
    of integers where an image may have several classes. Names of classes come from the metadata, if there are any.
    Files that begin with train, and test (or validation), are the two sides; otherwise a fifth of every class is set
    aside, always the same.

    Args:
        argument: a file, or the folder of the shards (or of the folder ``data`` with them).

    Returns:
        The data set; a shard is read when its first image is.

    Raises:
        MissingPackageError: pyarrow is not installed.
        DataError: no shards, a damaged one, or one without images and labels.
    """
    path = Path(argument)
    files = _shard_files(path)
    if not files:
        raise DataError(path, "must be a parquet file or a folder of them", "none", "Check the path")
    sides = {side: [f for f in files if f.name.startswith(side)] for side in ("train", *_TEST_NAMES)}
    test = next((sides[side] for side in _TEST_NAMES if sides[side]), [])
    chosen = [sides["train"], test] if sides["train"] and test else [files]
    shards = [[_open_shard(file) for file in part] for part in chosen]
    classes = _classes(path, [shard for part in shards for shard in part])
    images = [_images(part, classes) for part in shards]
    return ImageData(path.stem, *images) if len(images) == 2 else set_aside(path.stem, images[0])


def _shard_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if path.suffix.lower() == ".parquet" else []
    return sorted(path.glob("*.parquet")) or sorted((path / "data").glob("*.parquet"))


def _pyarrow_parquet() -> Any:
    return load_package("pyarrow.parquet", "parquet", extra="parquet")


def _open_shard(path: Path) -> _Shard:
    """Read a shard's labels and what its metadata say, not its images."""
    with _damage_reported(path):
        schema = _pyarrow_parquet().read_schema(path)
    features = _features(schema.metadata or {})
    image, label = _columns(path, schema, features)
    with _damage_reported(path):
        check_content(path, _pyarrow_parquet().read_metadata(path).num_rows * _ROW_BYTES)
    labels = _read_column(path, label).to_pylist()
    described = features.get(label)
    described = described.get("feature", described) if isinstance(described, dict) else {}  # a list of classes
    names = described.get("names") if isinstance(described, dict) else None
    return _Shard(path, image, labels, tuple(map(str, names)) if isinstance(names, list) else ())


def _read_column(path: Path, name: str) -> Any:
    with _damage_reported(path):
        return _pyarrow_parquet().read_table(path, columns=[name]).column(0)


@contextlib.contextmanager
def _damage_reported(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, NotImplementedError, MemoryError) as error:  # what pyarrow's own derive from
        got = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
        raise DataError(path, "must be a parquet file", got, "Fetch the file again") from error


def _features(metadata: dict[bytes, bytes]) -> dict[str, Any]:
    """Return the Hugging Face description of the columns; empty where there is none."""
    try:
        found = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def _columns(path: Path, schema: Any, features: dict[str, Any]) -> tuple[str, str]:
    """Return the names of the image and of the label column: as described, by their usual names, or the only one."""
    kinds = {field.name: str(field.type) for field in schema}
    described = {name: value.get("_type") for name, value in features.items() if isinstance(value, dict)}
    images = [n for n, kind in kinds.items() if kind in ("binary", "large_binary") or _holds_bytes(kind)]
    labels = [n for n, kind in kinds.items() if "struct" not in kind and ("int" in kind or "string" in kind)]
    image = [n for n in images if described.get(n) == "Image"] or [n for n in _IMAGE_NAMES if n in images] or images
    label = (
        [n for n in labels if described.get(n) == "ClassLabel"] or [n for n in _LABEL_NAMES if n in labels] or labels
    )
    if not image or not label:
        got = ", ".join(f"{name} {kind}" for name, kind in kinds.items())
        must = "must have a column of image bytes and one of labels"
        raise DataError(path, must, got, "Store images as bytes or {bytes, path}, labels as integers")
    return image[0], label[0]


def _holds_bytes(kind: str) -> bool:
    return kind.startswith("struct<") and "bytes: " in kind


def _classes(path: Path, shards: Sequence[_Shard]) -> tuple[str, ...]:
    """Return the class names: those described, or the labels that occur."""
    described = {shard.names for shard in shards if shard.names}
    if len(described) > 1:
        raise DataError(path, "all shards must describe the same classes", "differing names", "Fetch them again")
    values = {value for shard in shards for labels in shard.labels for value in _as_list(labels)}
    if described:
        names = described.pop()
        wrong = [value for value in values if not isinstance(value, int) or not 0 <= value < len(names)]
        if wrong:
            raise DataError(
                path, f"labels must be in [0, {len(names) - 1}]", wrong[0], "Leave out images without label"
            )
        return names
    if not values or len({type(value) for value in values}) > 1 or None in values:
        raise DataError(path, "every image must have a label, integer or text", "none or mixed", "Complete the labels")
    numbers = all(isinstance(value, int) for value in values)
    return tuple(map(str, range(max(values) + 1) if numbers and min(values) >= 0 else sorted(values)))


def _as_list(labels: Any) -> list[Any]:
    return labels if isinstance(labels, list) else [labels]


def _images(shards: Sequence[_Shard], classes: tuple[str, ...]) -> LabelledImages:
    places = [(number, row) for number, shard in enumerate(shards) for row in range(len(shard.labels))]
    index = {name: label for label, name in enumerate(classes)}
    values = [
        [v if isinstance(v, int) and v >= 0 else index[str(v)] for v in _as_list(shards[s].labels[r])]
        for s, r in places
    ]
    if any(isinstance(label, list) for shard in shards for label in shard.labels):
        labels = torch.zeros(len(places), len(classes))
        for row, present in enumerate(values):
            labels[row, present] = 1
    else:
        labels = torch.tensor([value for (value,) in values], dtype=torch.int64)

    @functools.lru_cache(maxsize=4)  # the last few shards stay in memory as they are, encoded
    def column(shard: int) -> Any:
        return _read_column(shards[shard].path, shards[shard].image)

    def read(row: int) -> torch.Tensor:
        shard, place = places[row]
        stored = column(shard)[place].as_py()
        content = stored.get("bytes") if isinstance(stored, dict) else stored
        if content is None:
            raise DataError(names[row], "must hold the image's bytes", "none", "Embed the images when writing the file")
        return read_image(io.BytesIO(content), names[row])

    names = tuple(f"{shards[shard].path}[{row}]" for shard, row in places)
    return LabelledImages(names, labels, classes, read)


DATASETS.register("parquet")(
    ImageSource(
        "parquet shards of encoded images as on the Hugging Face hub (extra `parquet`)",
        "FOLDER",
        load_parquet,
        lambda path: bool(_shard_files(path)),
    )
)
