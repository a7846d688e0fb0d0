"""`python -m vision predict`."""

import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from shared_peft.command import Command
from vision.predict import predict, write_predictions


@dataclass(frozen=True)
class PredictConfig:
    """Options of `python -m vision predict`."""

    run: tyro.conf.Positional[Path]
    """A finished run folder."""
    images: tyro.conf.Positional[Path]
    """A folder of images (with subfolders), or one image."""
    out: Path = Path("predictions.csv")
    """CSV file to write: path, label, confidence."""
    skip_broken: bool = False
    """Leave unreadable images out and report them, instead of stopping."""


def run(config: PredictConfig) -> None:
    """Classify images and write the CSV file."""
    predictions, skipped = predict(config.run, config.images, skip_broken=config.skip_broken, progress=True)
    write_predictions(config.out, predictions)
    for reason in skipped:
        sys.stderr.write(f"skipped {reason}\n")
    sys.stdout.write(f"{len(predictions)} predictions in {config.out}\n")


COMMAND = Command(
    name="predict",
    config=PredictConfig,
    run=run,
    summary="Classify the images of a folder into a CSV file.",
    example="python -m vision predict runs/flora FOLDER --out predictions.csv",
    place=30,
)
