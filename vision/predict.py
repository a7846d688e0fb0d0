"""Predictions of a finished run for the images of a folder."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import torch

from shared_peft.atomic import write_text
from shared_peft.errors import DataError
from vision.datasets.class_folder import list_image_files
from vision.datasets.decode import read_image
from vision.datasets.labelled import LabelledImages
from vision.evaluate import predict_logits
from vision.trained import load_model, read_description
from vision.transforms import load_pixels


@dataclass(frozen=True)
class Prediction:
    """The most likely class of one image.

    Args:
        path: of the image.
        label: class name.
        confidence: its softmax probability, in [0, 1].
    """

    path: str
    label: str
    confidence: float


def predict(
    run: Path, images: Path, *, skip_broken: bool = False, progress: bool = False
) -> tuple[list[Prediction], tuple[str, ...]]:
    """Classify every image of a folder and of its subfolders.

    Args:
        run: a finished run folder.
        images: a folder, or one image.
        skip_broken: leave unreadable images out; else the first one is an error.
        progress: show a progress bar.

    Returns:
        The predictions sorted by path, and the errors of the images left out.

    Raises:
        RunError: no finished vision run.
        DataError: no images, or a broken one.
    """
    description = read_description(run)
    files = [images] if images.is_file() else _files_below(images)
    if not files:
        raise DataError(images, "must be an image or a folder of images", "none", "Check the path")
    unlabelled = torch.zeros(len(files), dtype=torch.int64)
    listed = LabelledImages(tuple(map(str, files)), unlabelled, description.classes, lambda row: read_image(files[row]))
    label = "read images" if progress else None
    pixels = load_pixels(listed, description.data, skip_broken=skip_broken, progress=label)
    logits = predict_logits(load_model(run, description), pixels.values, description.data)
    confidence, winner = logits.softmax(dim=1).max(dim=1)
    answers = zip(pixels.names, winner.tolist(), confidence.tolist(), strict=True)
    return [Prediction(name, description.classes[index], value) for name, index, value in answers], pixels.skipped


def write_predictions(path: Path, predictions: list[Prediction]) -> None:
    """Write predictions as CSV with the columns path, label, confidence."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("path", "label", "confidence"))
    writer.writerows((row.path, row.label, f"{row.confidence:.6f}") for row in predictions)
    write_text(path, text.getvalue())


def _files_below(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    folders = [folder, *sorted(entry for entry in folder.rglob("*") if entry.is_dir())]
    return [file for entry in folders for file in list_image_files(entry)]
