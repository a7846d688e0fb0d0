"""`python -m imu_saga predict`."""

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from imu_saga.inspection.guess import as_flag
from imu_saga.predict import GAP, check_windows, guessed_options, predict_recordings, read_recordings, write_predictions
from imu_saga.source import parsed_options
from imu_saga.streaming.smoothing import build_smoothing
from imu_saga.timeline import draw_timeline
from imu_saga.trained import load_run
from shared_peft.command import Command

AUTO, NONE = "auto", "none"


@dataclass(frozen=True)
class PredictOptions:
    """Options of `python -m imu_saga predict`."""

    run: tyro.conf.Positional[Path]
    """A finished fine-tuning run."""
    file: tyro.conf.Positional[Path]
    """A csv, npz or parquet recording of any rate, a folder of them, or with --data the folder of a data set."""
    columns: tuple[str, ...] = ()
    """Options of the reader as NAME=VALUE: time=t acc=ax,ay,az gyro=gx,gy,gz acc_unit=g max_gap_s=1 ...; none takes
    the columns by their names, and tells which."""
    data: str = ""
    """A registered data set; by default csv, npz or parquet by the file's suffix."""
    overlap: float = 0.0
    """Part of a window shared with the next, in [0, 1)."""
    min_valid: float = 0.8
    """Measured part of a window below which no label is given."""
    smoothing: str = "none"
    """Rule over consecutive windows: none, vote (most of the last n), hysteresis (a new label must win n times)."""
    smoothing_options: tuple[str, ...] = ()
    """Options of the smoothing as NAME=VALUE: n=5, margin=0.1."""
    probabilities: bool = False
    """Write the probability of every class, too."""
    out: Path = Path("predictions.csv")
    """CSV file to write: session, start_s, end_s, label, confidence, note."""
    picture: str = AUTO
    """Timeline to draw (png, svg, pdf); none for none, auto beside the CSV file where matplotlib is installed."""


def run(options: PredictOptions) -> None:
    """Classify a recording, write the CSV file and draw the timeline."""
    trained = load_run(options.run)
    smoothing = build_smoothing(options.smoothing, parsed_options(options.smoothing_options, "--smoothing-options"))
    columns: dict[str, Any] = parsed_options(options.columns, "--columns")
    if not columns:
        columns = guessed_options(options.file, options.data)
        sys.stdout.write(f"columns taken: {as_flag(columns)}\n" if columns else "")
    recordings = read_recordings(options.file, columns, options.data)
    found = predict_recordings(
        trained,
        recordings,
        overlap=options.overlap,
        min_valid=options.min_valid,
        smoothing=smoothing,
        progress="recordings" if len(recordings) > 1 else None,
    )
    check_windows(found, trained, options.file)
    write_predictions(options.out, found, trained.classes if options.probabilities else ())
    gaps = sum(each.note == GAP for each in found)
    silent = sum(not each.label for each in found) - gaps
    sys.stdout.write(f"{len(found) - gaps} windows, {silent} without a label, {gaps} long gaps, in {options.out}\n")
    picture = picture_path(options)
    if picture is not None:
        drawn = draw_timeline(picture, recordings, found, trained.classes)
        sys.stdout.write(f"timeline of {drawn} sessions in {picture}\n")


def picture_path(options: PredictOptions) -> Path | None:
    """Return where the timeline goes, or None for none."""
    if options.picture == NONE or (options.picture == AUTO and importlib.util.find_spec("matplotlib") is None):
        return None
    return options.out.with_suffix(".png") if options.picture == AUTO else Path(options.picture)


COMMAND = Command(
    name="predict",
    config=PredictOptions,
    run=run,
    summary="Classify a recording of any rate window by window; a csv and a timeline.",
    example="python -m imu_saga predict runs/finetune FILE.csv --out predictions.csv",
    place=40,
)
