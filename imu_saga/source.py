"""From registered data sets to windows on two sides: read, resample, combine, cut, label for a task, split."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from imu_saga.combine import Part, combine, parse_label_map, people_of
from imu_saga.dataset import ImuDataset
from imu_saga.datasets import open_dataset
from imu_saga.protocols import SplitProtocol, open_protocol
from imu_saga.recording import UNLABELLED, Gravity, Recording
from imu_saga.signal.gravity import remove_gravity
from imu_saga.signal.resample import resample_all
from imu_saga.splits import Split, labelled_rows, without_overlap
from imu_saga.tasks import TASKS
from imu_saga.windows import LabelRule, WindowReport, WindowSet, cut_windows
from shared_peft.config import to_json
from shared_peft.errors import ConfigError, DataError


@dataclass(frozen=True)
class DataOptions:
    """Which recordings, how they are cut, what is told apart, and who is held out."""

    data: str | tuple[str, ...] = "synthetic"
    """Data set: synthetic, csv for your own files, or one of those the README lists; several as NAME=FOLDER."""
    root: Path | None = None
    """Folder of the data set, or a csv file."""
    data_options: tuple[str, ...] = ()
    """Options of the data set as NAME=VALUE, for example placement=watch; of one among several as SET.NAME=VALUE."""
    label_map: tuple[str, ...] = ()
    """Classes renamed or merged as NEW=OLD,OLD; an empty NEW leaves them without a label."""
    rate_hz: float = 20.0
    """Rate to resample to [Hz]."""
    seconds: float = 6.0
    """Window length [s]."""
    overlap: float = 0.0
    """Part of a window shared with the next in training, in [0, 1); test windows never overlap."""
    label_rule: LabelRule = "all_same"
    """When a window gets a label: all samples agree, or a majority."""
    gravity: Gravity = "kept"
    """kept, or removed by a causal high-pass filter."""
    task: str = "activity"
    """What is told apart: activity, placement or user."""
    protocol: str = ""
    """Who is held out: subject, leave_one_subject_out, group_k_fold, leave_placement_out, leave_dataset_out, session
    or random; by default the task's: subject, or session for users."""
    protocol_options: tuple[str, ...] = ()
    """Options of the protocol as NAME=VALUE, for example n_folds=10 or impostor_fraction=0.25."""
    fold: int = 0
    """Which fold of the protocol, from 0."""
    test_fraction: float = 0.25
    """Part of the subjects held out of everything, where the protocol asks for one."""
    split_seed: int = 0
    """Seed of the choice of what is held out."""


@dataclass(frozen=True, eq=False)
class SplitWindows:
    """Windows and the two sides they stand on.

    Args:
        windows: all windows, labelled for the task.
        split: one fold; test windows never overlap each other.
        protocol: who drew it.
        report: what became of every window position.
        left_out: windows of the test side left out, by class that the training side never shows.
    """

    windows: WindowSet
    split: Split
    protocol: SplitProtocol
    report: WindowReport
    left_out: Mapping[str, int]

    def __str__(self) -> str:
        lines = [str(self.report), f"held out: {self.split}"]
        if len(self.split.impostors):
            names = np.unique(self.windows.subjects[self.split.impostors]).tolist()
            lines.append(f"impostors: {', '.join(names)}")
        if self.left_out:
            counts = ", ".join(f"{name} ({count} windows)" for name, count in self.left_out.items())
            lines.append(f"left out, because training never shows them: {counts}")
        return "\n".join([*lines, *([self.protocol.warning] if self.protocol.warning else [])])


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


def load_recordings(options: DataOptions) -> tuple[list[Recording], tuple[str, ...]]:
    """Read every data set at the options' rate, on one class list and one channel list.

    Raises:
        ConfigError: data sets, their options or the label map cannot be understood.
        DataError: data that cannot be used or combined.
    """
    parts = []
    for dataset, root in opened(options):
        recordings = resample_all(dataset.read(root), options.rate_hz)
        if options.gravity == "removed":
            recordings = [remove_gravity(recording) for recording in recordings]
        parts.append(Part(dataset.name, recordings, dataset.class_names(root)))
    return combine(parts, parse_label_map(options.label_map))


def opened(options: DataOptions) -> list[tuple[ImuDataset, Path | None]]:
    """Return every data set named, with its options set, and its folder.

    Raises:
        ConfigError: a data set named twice, or --root beside several.
    """
    named = [options.data] if isinstance(options.data, str) else list(options.data)
    roots = {name: Path(folder) if folder else options.root for name, _, folder in (n.partition("=") for n in named)}
    if len(roots) < len(named) or not named:
        raise ConfigError("--data", "must name each data set once", " ".join(named) or "none", "Name others")
    if len(roots) > 1 and options.root is not None:
        raise ConfigError(
            "--root", "must not stand beside several data sets", options.root, "Give NAME=FOLDER in --data"
        )
    given = parsed_options(options.data_options)
    sets = []
    for name, root in roots.items():
        own = {key.removeprefix(f"{name}."): value for key, value in given.items() if _meant_for(key, name, roots)}
        sets.append((open_dataset(name, own), root))
    return sets


def load_windows(options: DataOptions, *, unlabelled: bool = False) -> tuple[WindowSet, WindowReport]:
    """Read the data sets, cut them into windows and label these for the task.

    Args:
        options: see DataOptions.
        unlabelled: keep windows without a label, and mixed ones, as -1 (for pre-training).

    Returns:
        The windows and what became of every position. Of several data sets, subjects are called data set/subject.

    Raises:
        DataError: data that cannot be used, or no window left.
    """
    task = TASKS.get(options.task)
    recordings, classes = load_recordings(options)
    windows, report = cut_windows(
        recordings,
        classes,
        seconds=options.seconds,
        overlap=options.overlap,
        label_rule=options.label_rule,
        keep_unlabelled=unlabelled or not task.needs_labels,
    )
    if not len(windows):
        where = options.data if isinstance(options.data, str) else " ".join(options.data)
        raise DataError(where, "must give at least one window", report, "Choose a smaller --seconds")
    if not isinstance(options.data, str):
        windows = replace(windows, subjects=people_of(windows))
    windows = task.relabel(windows)
    counts = np.bincount(windows.labels[windows.labels >= 0], minlength=len(windows.classes)).tolist()
    return windows, replace(report, per_class=tuple(zip(windows.classes, counts, strict=True)))


def split_protocol(options: DataOptions) -> SplitProtocol:
    """Return the options' protocol, checked to suit the task.

    Raises:
        ConfigError: a protocol that keeps the task's classes apart, or options it does not have.
    """
    task = TASKS.get(options.task)
    name = options.protocol or task.default_protocol
    common = {"seed": options.split_seed, "test_fraction": options.test_fraction}
    known = {field.name for field in fields(open_protocol(name))}  # type: ignore[arg-type]  (each is a dataclass)
    given = {key: value for key, value in common.items() if key in known}
    protocol = open_protocol(name, given | parsed_options(options.protocol_options, "--protocol-options"))
    task.check(protocol)
    return protocol


def split_windows(windows: WindowSet, options: DataOptions) -> Split:
    """Return the options' fold of the windows; its two sides are checked to share nothing they must not.

    Raises:
        ConfigError: no such fold.
    """
    protocol = split_protocol(options)
    for split in islice(protocol.folds(windows), max(options.fold, 0), options.fold + 1):
        return split
    count = sum(1 for _ in protocol.folds(windows))
    raise ConfigError(
        "--fold", f"must be in [0, {count}) with protocol {protocol.name}", options.fold, "Choose another"
    )


def load_split(options: DataOptions, *, unlabelled: bool = False) -> SplitWindows:
    """Read, cut, label and split.

    Args:
        options: see DataOptions.
        unlabelled: keep windows without a label on both sides (for pre-training).

    Raises:
        ConfigError, DataError: options or data that cannot be used.
    """
    windows, report = load_windows(options, unlabelled=unlabelled)
    protocol, split, left_out = split_protocol(options), split_windows(windows, options), {}
    if protocol.leaves_out_unseen or len(split.impostors):
        windows, left_out = without_unseen(windows, split)
    kept = (lambda rows: rows) if unlabelled else (lambda rows: labelled_rows(windows, rows))
    test = without_overlap(windows, kept(split.test))
    split = replace(split, train=kept(split.train), test=test, impostors=without_overlap(windows, split.impostors))
    return SplitWindows(windows, split, protocol, report, left_out)


def described_split(loaded: SplitWindows, options: DataOptions) -> dict[str, Any]:
    """Return what was told apart and how it was split, as plain JSON values for results.json."""
    protocol, split = loaded.protocol, loaded.split
    return {
        "task": options.task,
        "split": {
            "protocol": protocol.name,
            **to_json(protocol),
            "fold": options.fold,
            "kind": split.kind,
            "held_out": list(split.held_out),
            "impostors": np.unique(loaded.windows.subjects[split.impostors]).tolist(),
            "left_out_classes": dict(loaded.left_out),
        },
    }


def without_unseen(windows: WindowSet, split: Split) -> tuple[WindowSet, dict[str, int]]:
    """Take classes that the training side never shows out of the class list; their windows become unlabelled.

    Returns:
        The windows, and the number of test windows left out by class.
    """
    shown = np.isin(np.arange(len(windows.classes)), windows.labels[split.train])
    table = np.append(np.where(shown, np.cumsum(shown) - 1, UNLABELLED), UNLABELLED)
    counts = {
        windows.classes[index]: count
        for index in np.flatnonzero(~shown).tolist()
        if (count := int((windows.labels[split.test] == index).sum()))
    }
    classes = tuple(name for name, seen in zip(windows.classes, shown, strict=True) if seen)
    return replace(windows, labels=table[windows.labels].astype(np.int64), classes=classes), counts


def _meant_for(key: str, name: str, names: Mapping[str, Any]) -> bool:
    """Tell whether an option belongs to data set ``name``: SET.OPTION to that set, OPTION to every set."""
    owner, dot, _ = key.partition(".")
    return owner == name if dot and owner in names else True
