"""Predictions of a finished run for image files: the likeliest classes of each, and what could not be read."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from shared_peft.atomic import write_text
from shared_peft.errors import ConfigError, DataError
from vision.datasets.class_folder import list_image_files
from vision.datasets.decode import read_image
from vision.datasets.labelled import LabelledImages
from vision.evaluate import predict_logits
from vision.tasks import TASKS
from vision.trained import load_model, read_description
from vision.transforms import Pixels, load_pixels

_COLUMNS = ("label", "confidence")


@dataclass(frozen=True)
class Prediction:
    """The likeliest classes of one image.

    Args:
        path: of the image.
        ranked: class names with their probabilities in [0, 1], the likeliest first.
    """

    path: str
    ranked: tuple[tuple[str, float], ...]

    @property
    def label(self) -> str:
        """The likeliest class."""
        return self.ranked[0][0]

    @property
    def confidence(self) -> float:
        """Its probability, in [0, 1]."""
        return self.ranked[0][1]


@dataclass(frozen=True)
class Predicted:
    """What a run says about image files.

    Args:
        predictions: one per readable image, in the order of the files.
        pixels: the same images at the model's size; its `skipped` says why the others were left out.
    """

    predictions: list[Prediction]
    pixels: Pixels


def predict(
    run: Path, images: Sequence[Path], *, top: int = 1, skip_broken: bool = False, progress: bool = False
) -> Predicted:
    """Classify images.

    Args:
        run: a finished run folder.
        images: folders (with subfolders), image files, and csv files with a column "path".
        top: classes to give for each image; all of them where there are fewer.
        skip_broken: leave unreadable images out; else the first one is an error.
        progress: show a progress bar.

    Returns:
        The predictions in the order of the files.

    Raises:
        RunError: no finished vision run.
        DataError: no images, or a broken one.
        ConfigError: no class asked for.
    """
    if top < 1:
        raise ConfigError("--top", "must be at least 1", top, "Raise it")
    description = read_description(run)
    label = "read images" if progress else None
    pixels = load_pixels(unlabelled_images(images), description.data, skip_broken=skip_broken, progress=label)
    logits = predict_logits(load_model(run, description), pixels.values, description.data)
    best = TASKS.get(description.task).probabilities(logits).topk(min(top, len(description.classes)), dim=1)
    return Predicted(
        [
            Prediction(name, tuple((description.classes[k], share) for k, share in zip(classes, row, strict=True)))
            for name, classes, row in zip(pixels.names, best.indices.tolist(), best.values.tolist(), strict=True)
        ],
        pixels,
    )


def unlabelled_images(images: Sequence[Path]) -> LabelledImages:
    """Return images by file, folder or table, their labels all 0; see `image_files`."""
    files = [file for given in images for file in image_files(given)]
    unknown = torch.zeros(len(files), dtype=torch.int64)
    return LabelledImages(tuple(map(str, files)), unknown, ("unknown",), lambda row: read_image(files[row]))


def image_files(given: Path) -> list[Path]:
    """Return the image files that ``given`` stands for.

    Args:
        given: a folder, of which all images and those of its subfolders are taken, sorted; a csv file with a column
            "path", relative to the file's own folder; or an image.

    Raises:
        DataError: no images, or a table without paths.
    """
    if given.is_dir():
        folders = [given, *sorted(entry for entry in given.rglob("*") if entry.is_dir())]
        found = [file for entry in folders for file in list_image_files(entry)]
    elif given.suffix.lower() == ".csv" and given.is_file():
        found = [given.parent / row for row in _listed_paths(given)]
    else:
        found = [given] if given.is_file() else []
    if not found:
        raise DataError(given, "must be an image, a folder of images or a csv file of paths", "none", "Check the path")
    return found


def _listed_paths(table: Path) -> list[str]:
    try:
        with table.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            columns, rows = reader.fieldnames or (), list(reader)
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(table, "must be a csv file in UTF-8", error, "Write the file anew") from error
    if "path" not in columns:
        got = ", ".join(map(str, columns)) or "none"
        raise DataError(table, 'must have a column "path"', got, "Add the header line")
    missing = next((line for line, row in enumerate(rows, start=2) if not row["path"]), None)
    if missing is not None:
        raise DataError(f"{table}: line {missing}", "must have a path", "none", "Correct the line")
    return [row["path"] for row in rows]


def write_predictions(path: Path, predictions: Sequence[Prediction]) -> None:
    """Write predictions as CSV: path, label, confidence, and label_2, confidence_2, ... where more were asked for."""
    most = max((len(row.ranked) for row in predictions), default=1)
    headings = [f"{name}{'' if place == 1 else f'_{place}'}" for place in range(1, most + 1) for name in _COLUMNS]
    rows = [[row.path, *(cell for name, share in row.ranked for cell in (name, f"{share:.6f}"))] for row in predictions]
    _write_csv(path, [["path", *headings], *rows])


def write_skipped(path: Path, skipped: Sequence[str]) -> None:
    """Write the errors of images left out as CSV with the one column error."""
    _write_csv(path, [["error"], *([reason] for reason in skipped)])


def _write_csv(path: Path, rows: Sequence[Sequence[str]]) -> None:
    """Write rows; bytes in file names that are no UTF-8 are written as escapes."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_text(path, text.getvalue().encode("utf-8", "backslashreplace").decode("utf-8"))
