"""What a fine-tuned model says about a recording: one line a window, none where too little was measured."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from imu_saga.datasets import open_dataset
from imu_saga.files.table_recording import TableDataset
from imu_saga.finetune import predict_probabilities
from imu_saga.inspection.guess import guess_columns
from imu_saga.recording import UNLABELLED, Recording
from imu_saga.signal.gravity import remove_gravity
from imu_saga.signal.resample import resample
from imu_saga.streaming.smoothing import NoSmoothing, Smoothing
from imu_saga.windows import cut_windows
from shared_peft.atomic import replacing
from shared_peft.errors import DataError
from shared_peft.progress import Bar
from shared_peft.training import TrainedModel

ABSTAIN = ""
GAP, TOO_SHORT, FEW_MEASURED = "gap", "shorter than a window", "too few samples measured"


@dataclass(frozen=True)
class Prediction:
    """One window's answer, or a stretch of time without one.

    Args:
        session: file or session.
        start_s: first sample's time [s].
        end_s: end of the window [s].
        label: class name, or "" where the model abstains.
        confidence: probability of the label, in [0, 1]; 0 where it abstains.
        note: why there is no label: a gap, a stretch shorter than a window, too few samples measured.
        probabilities: of every class, in the model's order; () where it abstains.
    """

    session: str
    start_s: float
    end_s: float
    label: str
    confidence: float
    note: str = ""
    probabilities: tuple[float, ...] = ()


class Labeller:
    """Answers the windows of one device in order, smoothing over them; files and streams use the same one.

    Args:
        run: a fine-tuned run.
        smoothing: rule over consecutive windows.
        min_valid: measured part of a window below which the model abstains, in [0, 1].
    """

    def __init__(self, run: TrainedModel, smoothing: Smoothing, min_valid: float) -> None:
        if not 0 <= min_valid <= 1:
            raise DataError("min_valid", "must be in [0, 1]", min_valid, "Give the smallest measured part of a window")
        self.run, self.smoothing, self.min_valid = run, smoothing, min_valid
        self.seconds = float(run.preprocessing["samples"] / run.preprocessing["rate_hz"])
        self.memory: tuple[Any, ...] = ()

    def restart(self) -> None:
        """Forget the windows before: a new stretch begins."""
        self.memory = ()

    def probabilities(self, x: np.ndarray) -> np.ndarray:
        """Return (windows, classes) probabilities of (windows, samples, channels) float32, the model's channels."""
        if not len(x):
            return np.zeros((0, len(self.run.classes)), np.float32)
        return predict_probabilities(self.run.model, x).numpy()

    def label(self, session: str, start_s: float, probabilities: np.ndarray, measured: float) -> Prediction:
        """Return one window's answer.

        Args:
            session: file or session.
            start_s: first sample's time [s].
            probabilities: (classes,).
            measured: part of its samples that were measured, in [0, 1].
        """
        end_s = start_s + self.seconds
        if measured < self.min_valid:
            return silence(session, start_s, end_s, FEW_MEASURED)
        answer = self.smoothing.step(self.memory, probabilities)
        self.memory = answer.memory
        shown = tuple(float(value) for value in probabilities)
        return Prediction(session, start_s, end_s, self.run.classes[answer.index], answer.confidence, "", shown)


def silence(session: str, start_s: float, end_s: float, note: str) -> Prediction:
    """Return a Prediction without a label."""
    return Prediction(session, start_s, end_s, ABSTAIN, 0.0, note)


def read_recordings(path: Path | None, options: dict[str, Any], data: str = "") -> list[Recording]:
    """Read a file, a folder, or a registered data set, at its own rate.

    Args:
        path: a csv, npz or parquet file, or a folder; of a data set that needs none, None.
        options: options of the data set: column names, units, rate.
        data: a registered data set; "" chooses by the suffix of the file, or of the first file in the folder.

    Raises:
        DataError: a file that cannot be read.
        UnknownNameError: no such data set.
    """
    return open_dataset(data or data_of(path), options).read(path)


def data_of(path: Path | None) -> str:
    """Return csv, npz or parquet by the suffix of a file, or of the first file in a folder."""
    return {".npz": "npz", ".parquet": "parquet"}.get(_first_file(path).suffix.lower() if path else "", "csv")


def guessed_options(path: Path, data: str = "") -> dict[str, Any]:
    """Return what the names of a file's columns tell of them; labels are of no use here and are left alone.

    Args:
        path: a csv, npz or parquet file, or a folder of them.
        data: a registered data set; "" chooses by the suffix.

    Returns:
        Options of the reader; none where the names tell of no accelerometer, or the data set maps no columns.

    Raises:
        DataError: a file without a header that can be read.
    """
    reader, first = open_dataset(data or data_of(path)), _first_file(path)
    if not isinstance(reader, TableDataset) or not first.is_file():
        return {}
    options = guess_columns(reader.column_names(first))
    return {name: value for name, value in options.items() if name not in ("label", "mag")} if "acc" in options else {}


def _first_file(path: Path) -> Path:
    return next(iter(sorted(path.glob("*.*"))), path) if path.is_dir() else path


def predict_recordings(
    run: TrainedModel,
    recordings: Sequence[Recording],
    *,
    overlap: float = 0.0,
    min_valid: float = 0.8,
    smoothing: Smoothing | None = None,
    progress: str | None = None,
) -> list[Prediction]:
    """Classify recordings of any rate, window by window.

    Args:
        run: a fine-tuned run.
        recordings: in SI units; more channels than the model's are left out.
        overlap: part of a window shared with the next, in [0, 1).
        min_valid: measured part below which the model abstains, in [0, 1].
        smoothing: rule over consecutive windows of a recording; None for none.
        progress: label of the progress bar; None shows none.

    Returns:
        One Prediction a window in order, and one without a label for every gap between two recordings of a session
        and every recording shorter than a window.

    Raises:
        DataError: a recording that lacks a channel of the model, or gravity where the model needs it.
    """
    labeller = Labeller(run, smoothing or NoSmoothing(), min_valid)
    found: list[Prediction] = []
    before: Recording | None = None
    for recording in Bar(recordings, desc=progress, disable=progress is None):
        if before is not None and before.where == recording.where:
            end_s = before.start_s + before.seconds
            if recording.start_s > end_s:
                found.append(silence(recording.where, end_s, recording.start_s, GAP))
        before = prepared(recording, run)
        found += _one_recording(labeller, before, overlap)
    return found


def predict_csv(
    run: TrainedModel,
    path: Path,
    *,
    options: dict[str, Any],
    overlap: float = 0.0,
    min_valid: float = 0.8,
    smoothing: Smoothing | None = None,
) -> list[Prediction]:
    """Classify a csv, npz or parquet file of any rate, or a folder of them.

    Args:
        run: a fine-tuned run.
        path: the file or folder.
        options: options of its data set: column names, units, rate.
        overlap: part of a window shared with the next, in [0, 1).
        min_valid: measured part below which the model abstains, in [0, 1].
        smoothing: rule over consecutive windows; None for none.

    Returns:
        As `predict_recordings`.

    Raises:
        DataError: a file that cannot be read, lacks the model's channels, or is shorter than a window.
    """
    recordings = read_recordings(path, options)
    found = predict_recordings(run, recordings, overlap=overlap, min_valid=min_valid, smoothing=smoothing)
    check_windows(found, run, path)
    return found


def check_windows(predictions: Sequence[Prediction], run: TrainedModel, where: object) -> None:
    """Raise DataError when not a single window fitted in."""
    if all(each.note in (GAP, TOO_SHORT) for each in predictions):
        longest = max((each.end_s - each.start_s for each in predictions if each.note == TOO_SHORT), default=0.0)
        must = f"must hold {run.preprocessing['seconds']:g} s or more without a break"
        raise DataError(where, must, f"{longest:.3g} s at most", "Record longer, or raise max_gap_s")


def prepared(recording: Recording, run: TrainedModel) -> Recording:
    """Return a recording as the model wants it: its channels in its order, its rate, gravity kept or removed.

    Raises:
        DataError: a channel is missing, or gravity.
    """
    wanted = run.preprocessing
    columns = check_source(recording.channels, recording.gravity, run, recording.where)
    chosen = replace(
        recording,
        signal=recording.signal[:, columns],
        channels=tuple(wanted["channels"]),
        labels=np.full(len(recording), UNLABELLED, np.int64),
    )
    made = resample(chosen, wanted["rate_hz"])
    return remove_gravity(made) if wanted["gravity"] == "removed" else made


def check_source(channels: Sequence[str], gravity: str, run: TrainedModel, where: object) -> list[int]:
    """Return the positions of the model's channels among a source's.

    Raises:
        DataError: a channel is missing, or the model needs gravity and the source has none.
    """
    wanted = run.preprocessing
    if not set(wanted["channels"]) <= set(channels):
        fix = "Map its columns with --columns acc=x,y,z gyro=x,y,z"
        raise DataError(where, f"must have the channels {', '.join(wanted['channels'])}", list(channels), fix)
    if wanted["gravity"] == "kept" and gravity == "removed":
        fix = "Record with gravity, or fine-tune a model with --gravity removed"
        raise DataError(where, "the accelerometer must measure gravity, as in training", "gravity removed", fix)
    return [list(channels).index(name) for name in wanted["channels"]]


def _one_recording(labeller: Labeller, recording: Recording, overlap: float) -> list[Prediction]:
    windows, _ = cut_windows(
        [recording], (), seconds=labeller.seconds, overlap=overlap, keep_unlabelled=True, min_valid=0.0
    )
    if not len(windows):
        return [silence(recording.where, recording.start_s, recording.start_s + recording.seconds, TOO_SHORT)]
    labeller.restart()
    probabilities = labeller.probabilities(windows.x)
    rows = zip(windows.start_s, probabilities, windows.valid.mean(1), strict=True)
    return [labeller.label(recording.where, float(start), row, float(part)) for start, row, part in rows]


def write_predictions(path: Path, predictions: Sequence[Prediction], classes: Sequence[str] = ()) -> None:
    """Write predictions as csv, whole or not at all; with ``classes``, a column of probabilities for each."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(csv_header(classes))
        writer.writerows(csv_row(each, classes) for each in predictions)


def csv_header(classes: Sequence[str] = ()) -> list[str]:
    """Return the column names of a csv of predictions."""
    return ["session", "start_s", "end_s", "label", "confidence", "note", *(f"p_{name}" for name in classes)]


def csv_row(each: Prediction, classes: Sequence[str] = ()) -> list[str]:
    """Return the cells of one prediction, times to the millisecond; cells without a value are empty."""
    cells = [each.session, f"{each.start_s:.3f}", f"{each.end_s:.3f}", each.label, f"{each.confidence:.4f}", each.note]
    shown = [f"{value:.6f}" for value in each.probabilities] or [""] * len(classes)
    return cells + shown if classes else cells
