"""`python -m vision predict`."""

import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from shared_peft.atomic import replacing
from shared_peft.command import Command
from vision.predict import Predicted, predict, write_predictions, write_skipped


@dataclass(frozen=True)
class PredictConfig:
    """Options of `python -m vision predict`."""

    run: tyro.conf.Positional[Path]
    """A finished run folder."""
    images: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of images (with subfolders), images, or csv files with a column "path"."""
    out: Path = Path("predictions.csv")
    """CSV file to write: path, label, confidence; label_2, confidence_2, ... with --top."""
    top: int = 1
    """Classes to write for each image, the likeliest first."""
    picture: Path | None = None
    """PNG file to draw the images with their answers to, the least certain first."""
    pictured: int = 40
    """Images in that picture at most."""
    skip_broken: bool = False
    """Leave unreadable images out and list them in OUT_skipped.csv, instead of stopping."""


def run(config: PredictConfig) -> None:
    """Classify images and write the CSV file."""
    done = predict(config.run, config.images, top=config.top, skip_broken=config.skip_broken, progress=True)
    skipped = done.pixels.skipped
    drawn = None if config.picture is None else _draw(done, config.pictured)
    write_predictions(config.out, done.predictions)
    if drawn is not None and config.picture is not None:
        with replacing(config.picture) as temporary:
            temporary.write_bytes(drawn)
    if skipped:
        listed = config.out.with_name(f"{config.out.stem}_skipped.csv")
        write_skipped(listed, skipped)
        sys.stderr.write("".join(f"skipped {reason}\n" for reason in skipped))
        sys.stdout.write(f"{len(skipped)} unreadable images in {listed}\n")
    sys.stdout.write(f"{len(done.predictions)} predictions in {config.out}\n")


def _draw(done: Predicted, most: int) -> bytes:
    """Return the picture of the least certain answers."""
    from vision.report.figure import png_of  # noqa: PLC0415  (only where something is drawn)
    from vision.report.pictures.thumbnails import thumbnails_picture  # noqa: PLC0415

    rows = sorted(range(len(done.predictions)), key=lambda row: done.predictions[row].confidence)[: max(most, 1)]
    shown = [done.predictions[row] for row in rows]
    answers, confidence = [row.label for row in shown], [row.confidence for row in shown]
    return png_of(thumbnails_picture(done.pixels.values[rows], [row.path for row in shown], answers, confidence))


COMMAND = Command(
    name="predict",
    config=PredictConfig,
    run=run,
    summary="Classify images into a CSV file.",
    example="python -m vision predict runs/flora FOLDER --top 3 --out predictions.csv",
    place=30,
)
