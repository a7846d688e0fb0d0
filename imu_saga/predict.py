"""What a fine-tuned model says about a recording: one line a window, none where too little was measured."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imu_saga.datasets import open_dataset
from imu_saga.finetune import predict_probabilities
from imu_saga.resample import resample_all
from imu_saga.windows import cut_windows
from shared_peft.atomic import replacing
from shared_peft.errors import DataError
from shared_peft.training import TrainedModel

ABSTAIN = ""


@dataclass(frozen=True)
class Prediction:
    """One window's answer.

    Args:
        session: file or session.
        start_s: first sample's time [s].
        end_s: end of the window [s].
        label: class name, or "" where the model abstains.
        confidence: probability of the label, in [0, 1]; 0 where it abstains.
    """

    session: str
    start_s: float
    end_s: float
    label: str
    confidence: float


def predict_csv(
    run: TrainedModel, path: Path, *, options: dict[str, Any], overlap: float = 0.0, min_valid: float = 0.8
) -> list[Prediction]:
    """Classify a csv file of any rate.

    Args:
        run: a fine-tuned run.
        path: the file, or a folder of files.
        options: options of the data set "csv": column names, units, rate.
        overlap: part of a window shared with the next, in [0, 1).
        min_valid: measured part below which the model abstains, in [0, 1].

    Returns:
        One Prediction a window, in the file's order.

    Raises:
        DataError: a file that cannot be read, lacks the model's channels, or is shorter than a window.
    """
    wanted = run.preprocessing
    recordings = resample_all(open_dataset("csv", options).read(path), wanted["rate_hz"])
    windows, report = cut_windows(
        recordings, (), seconds=wanted["seconds"], overlap=overlap, keep_unlabelled=True, min_valid=0.0
    )
    if not len(windows):
        raise DataError(path, f"must hold {wanted['seconds']:g} s or more without a break", report, "Record longer")
    missing = [name for name in wanted["channels"] if name not in windows.channels]
    if missing:
        fix = "Map its columns with --columns acc=x,y,z gyro=x,y,z"
        raise DataError(path, f"must have the channels {', '.join(wanted['channels'])}", list(windows.channels), fix)
    columns = [windows.channels.index(name) for name in wanted["channels"]]
    probabilities = predict_probabilities(run.model, windows.x[:, :, columns])
    confidence, answer = probabilities.max(1)
    measured = windows.valid.mean(1) >= min_valid
    return [
        Prediction(
            str(windows.sessions[row]),
            round(float(windows.start_s[row]), 3),
            round(float(windows.start_s[row] + windows.seconds), 3),
            run.classes[int(answer[row])] if measured[row] else ABSTAIN,
            round(float(confidence[row]), 4) if measured[row] else 0.0,
        )
        for row in range(len(windows))
    ]


def write_predictions(path: Path, predictions: list[Prediction]) -> None:
    """Write predictions as csv, whole or not at all."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(("session", "start_s", "end_s", "label", "confidence"))
        writer.writerows((each.session, each.start_s, each.end_s, each.label, each.confidence) for each in predictions)
