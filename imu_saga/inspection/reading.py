"""What a reader makes of a file: recordings, repairs, or a refusal and the options that cure it."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from imu_saga.datasets import DATASETS, open_dataset
from imu_saga.files.table_recording import TableDataset
from imu_saga.recording import Recording
from imu_saga.signal.resample import resample_all
from imu_saga.windows import cut_windows
from shared_peft.errors import SagaPeftError

REPAIRS: tuple[dict[str, Any], ...] = (
    {"decimal": "comma"},
    {"sort": True},
    {"split_resets": True},
    {"gyro_unit": "rad/s"},
    {"gyro": None},
)


@dataclass(frozen=True)
class ReadFacts:
    """What the reader makes of it.

    Args:
        refusal: the reader's error, or "".
        repairs: what it mended, in words.
        cure: options with which it reads a refused file, empty where none was found.
        recordings: (where, seconds, rate_hz, measured part) of every recording.
        seconds_by: seconds of every (subject, label).
        windows: the report of the windows it would yield, in words.
    """

    refusal: str
    repairs: tuple[str, ...]
    cure: Mapping[str, Any]
    recordings: tuple[tuple[str, float, float, float], ...]
    seconds_by: Mapping[tuple[str, str], float]
    windows: str


def read_facts(
    dataset: str, options: Mapping[str, Any], root: Path | None, *, rate_hz: float, seconds: float
) -> tuple[ReadFacts, list[Recording]]:
    """Read as training and prediction would, and look for options that cure a refusal.

    Args:
        dataset: registered name of the reader.
        options: its options.
        root: file or folder.
        rate_hz: rate of the windows [Hz].
        seconds: their length [s].
    """
    try:
        recordings, repairs, classes = _read(dataset, options, root)
    except SagaPeftError as error:
        return ReadFacts(str(error), (), _cure(dataset, options, root), (), {}, "none"), []
    table: dict[tuple[str, str], float] = {}
    for one in recordings:
        for label, count in zip(*np.unique(one.labels, return_counts=True), strict=True):
            key = (one.subject, classes[label] if label >= 0 else "unlabelled")
            table[key] = table.get(key, 0.0) + float(count) / one.rate_hz
    listed = tuple((one.where, one.seconds, one.rate_hz, float(one.valid.mean())) for one in recordings)
    report = _windows(recordings, classes, rate_hz, seconds)
    return ReadFacts("", repairs, {}, listed, table, report), recordings


def _windows(recordings: list[Recording], classes: tuple[str, ...], rate_hz: float, seconds: float) -> str:
    try:
        at_rate = resample_all(recordings, rate_hz)
        return str(cut_windows(at_rate, classes, seconds=seconds, keep_unlabelled=not classes)[1])
    except SagaPeftError as error:
        return str(error)


def _read(
    dataset: str, options: Mapping[str, Any], root: Path | None
) -> tuple[list[Recording], tuple[str, ...], tuple[str, ...]]:
    reader = open_dataset(dataset, options)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        recordings = reader.read(root)
    repairs = [str(each.message) for each in caught]
    filled = sum(int((~one.valid).sum()) for one in recordings)
    if filled:
        repairs.append(f"{filled} samples in short gaps interpolated and marked as not measured")
    if len(recordings) > 1 and isinstance(reader, TableDataset) and root is not None and root.is_file():
        repairs.append(f"split into {len(recordings)} recordings at long gaps, sessions and subjects")
    return recordings, tuple(repairs), reader.class_names(root)


def _cure(dataset: str, options: Mapping[str, Any], root: Path | None) -> dict[str, Any]:
    """Return the options of ours that make the reader accept the file, the fewest first."""
    if not issubclass(DATASETS.get(dataset), TableDataset):
        return {}
    pairs = [{**one, **other} for index, one in enumerate(REPAIRS) for other in REPAIRS[index + 1 :]]
    for change in (*REPAIRS, *pairs):
        if all(options.get(name, "") == value for name, value in change.items()):
            continue
        try:
            _read(dataset, {**options, **change}, root)
        except SagaPeftError:
            continue
        return change
    return {}
