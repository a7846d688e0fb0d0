"""From a registered data set to windows: read, resample, cut, split by subject."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imu_saga.datasets import open_dataset
from imu_saga.gravity import remove_gravity
from imu_saga.recording import Gravity
from imu_saga.resample import resample_all
from imu_saga.splits import Split, check_apart, subject_split
from imu_saga.windows import LabelRule, WindowReport, WindowSet, cut_windows
from shared_peft.errors import ConfigError, DataError


@dataclass(frozen=True)
class DataOptions:
    """Which recordings, and how they are cut."""

    data: str = "synthetic"
    """Data set: synthetic, csv for your own files, or one of those the README lists."""
    root: Path | None = None
    """Folder of the data set, or a csv file."""
    data_options: tuple[str, ...] = ()
    """Options of the data set as NAME=VALUE, for example placement=watch or label=activity."""
    rate_hz: float = 20.0
    """Rate to resample to [Hz]."""
    seconds: float = 6.0
    """Window length [s]."""
    overlap: float = 0.0
    """Part of a window shared with the next in training, in [0, 1)."""
    label_rule: LabelRule = "all_same"
    """When a window gets a label: all samples agree, or a majority."""
    gravity: Gravity = "kept"
    """kept, or removed by a causal high-pass filter."""
    test_fraction: float = 0.25
    """Part of the subjects held out of everything."""
    split_seed: int = 0
    """Seed of the choice of held-out subjects."""


def parsed_options(pairs: tuple[str, ...], flag: str = "--data-options") -> dict[str, Any]:
    """Return NAME=VALUE pairs as a mapping; values are JSON where they parse, comma-separated lists, or text.

    Args:
        pairs: as typed.
        flag: where they were typed, for the error message.

    Raises:
        ConfigError: a pair without "=".
    """
    options: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise ConfigError(flag, "must be NAME=VALUE", repr(pair), "Put = between the name and its value")
        try:
            options[name] = json.loads(text)
        except json.JSONDecodeError:
            options[name] = text.split(",") if "," in text else text
    return options


def load_windows(options: DataOptions, *, unlabelled: bool = False) -> tuple[WindowSet, WindowReport]:
    """Read a data set and cut it into windows.

    Args:
        options: see DataOptions.
        unlabelled: keep windows without a label, and mixed ones, as -1 (for pre-training).

    Returns:
        The windows and what became of every position.

    Raises:
        DataError: data that cannot be used, or no window left.
    """
    dataset = open_dataset(options.data, parsed_options(options.data_options))
    recordings = resample_all(dataset.read(options.root), options.rate_hz)
    if options.gravity == "removed":
        recordings = [remove_gravity(recording) for recording in recordings]
    windows, report = cut_windows(
        recordings,
        dataset.class_names(options.root),
        seconds=options.seconds,
        overlap=options.overlap,
        label_rule=options.label_rule,
        keep_unlabelled=unlabelled,
    )
    if not len(windows):
        raise DataError(options.data, "must give at least one window", report, "Choose a smaller --seconds")
    return windows, report


def split_by_subject(windows: WindowSet, options: DataOptions) -> Split:
    """Hold out the options' part of the subjects; the two sides are checked to share nothing."""
    split = subject_split(windows, test_fraction=options.test_fraction, seed=options.split_seed)
    check_apart(windows, split.train, split.test, what="training and test")
    return split
