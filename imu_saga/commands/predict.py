"""`python -m imu_saga predict`."""

import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from imu_saga.predict import predict_csv, write_predictions
from imu_saga.source import parsed_options
from imu_saga.trained import load_run
from shared_peft.command import Command


@dataclass(frozen=True)
class PredictOptions:
    """Options of `python -m imu_saga predict`."""

    run: tyro.conf.Positional[Path]
    """A finished fine-tuning run."""
    file: tyro.conf.Positional[Path]
    """A csv recording of any rate, with a header row, or a folder of them."""
    columns: tuple[str, ...] = ()
    """Options of the csv reader as NAME=VALUE: time=t acc=ax,ay,az gyro=gx,gy,gz acc_unit=g rate_hz=416 ..."""
    overlap: float = 0.0
    """Part of a window shared with the next, in [0, 1)."""
    min_valid: float = 0.8
    """Measured part of a window below which no label is given."""
    out: Path = Path("predictions.csv")
    """CSV file to write: session, start_s, end_s, label, confidence."""


def run(options: PredictOptions) -> None:
    """Classify a recording and write the CSV file."""
    trained = load_run(options.run)
    found = predict_csv(
        trained,
        options.file,
        options=parsed_options(options.columns, "--columns"),
        overlap=options.overlap,
        min_valid=options.min_valid,
    )
    write_predictions(options.out, found)
    silent = sum(not each.label for each in found)
    sys.stdout.write(f"{len(found)} windows, {silent} without a label, in {options.out}\n")


COMMAND = Command(
    name="predict",
    config=PredictOptions,
    run=run,
    summary="Classify a csv recording window by window.",
    example="python -m imu_saga predict runs/finetune FILE.csv --out predictions.csv",
    place=40,
)
