"""Windows of fixed length cut from recordings, never across two of them, with a report of what was left out."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from imu_saga.recording import UNLABELLED, Gravity, Recording
from shared_peft.errors import DataError

LabelRule = Literal["all_same", "majority"]


@dataclass(frozen=True, eq=False)
class WindowSet:
    """Windows and all that is known about each; n windows of L samples and C channels.

    Args:
        x: (n, L, C) float32, SI units (acc [m/s^2], gyro [rad/s]).
        labels: (n,) int64 indices into ``classes``; -1 where unlabelled.
        subjects: (n,) str.
        sessions: (n,) str; the recording's whole address: data set/subject/session/placement.
        placements: (n,) str.
        start_s: (n,) float64, time of each window's first sample [s].
        valid: (n, L) bool, False where a sample was not measured.
        classes: the class names.
        channels: the C channel names.
        rate_hz: samples per second [Hz].
        seconds: a window's duration [s].
        gravity: whether the accelerometer still measures gravity.

    Raises:
        DataError: two fields disagree in length, or a label is outside ``classes``.
    """

    x: np.ndarray
    labels: np.ndarray
    subjects: np.ndarray
    sessions: np.ndarray
    placements: np.ndarray
    start_s: np.ndarray
    valid: np.ndarray
    classes: tuple[str, ...]
    channels: tuple[str, ...]
    rate_hz: float
    seconds: float
    gravity: Gravity = "kept"

    def __post_init__(self) -> None:
        if self.x.ndim != 3 or self.x.shape[2] != len(self.channels):
            must = f"x must be (windows, length, {len(self.channels)} channels)"
            raise DataError("windows", must, f"shape {self.x.shape}", "Name every channel of x")
        for name in ("labels", "subjects", "sessions", "placements", "start_s"):
            shape = getattr(self, name).shape
            if shape != (len(self.x),):
                raise DataError(
                    f"windows.{name}", f"shape must be ({len(self.x)},)", shape, "Give one value per window"
                )
        if self.valid.shape != self.x.shape[:2]:
            raise DataError("windows.valid", f"shape must be {self.x.shape[:2]}", self.valid.shape, "One per sample")
        if len(self.labels) and not UNLABELLED <= self.labels.min() <= self.labels.max() < len(self.classes):
            came = f"labels from {self.labels.min()} to {self.labels.max()}"
            raise DataError("windows.labels", f"must be in [-1, {len(self.classes)})", came, "Name every class")

    def __len__(self) -> int:
        """Return the number of windows."""
        return len(self.x)

    def subset(self, rows: np.ndarray) -> "WindowSet":
        """Return the windows chosen by ``rows``: (k,) integer positions, or (n,) bool."""
        return replace(
            self,
            x=self.x[rows],
            labels=self.labels[rows],
            subjects=self.subjects[rows],
            sessions=self.sessions[rows],
            placements=self.placements[rows],
            start_s=self.start_s[rows],
            valid=self.valid[rows],
        )

    @property
    def datasets(self) -> np.ndarray:
        """(n,) str, the data set each window comes from: the first part of its session's address."""
        names, where = np.unique(self.sessions, return_inverse=True)
        return np.asarray([str(name).partition("/")[0] for name in names], dtype=np.str_)[where]


@dataclass(frozen=True)
class WindowReport:
    """What became of every window position.

    Args:
        kept: windows returned.
        mixed: dropped because their samples carry more than one label.
        unlabelled: dropped because they carry no label.
        invalid: dropped because too few of their samples were measured.
        short: recordings shorter than one window.
        per_class: (class name, windows kept) for every class.
    """

    kept: int
    mixed: int
    unlabelled: int
    invalid: int
    short: int
    per_class: tuple[tuple[str, int], ...]

    def __str__(self) -> str:
        counts = ", ".join(f"{name} {count}" for name, count in self.per_class)
        dropped = f"dropped: {self.mixed} mixed, {self.unlabelled} unlabelled, {self.invalid} with too many gaps"
        return f"{self.kept} windows ({counts}); {dropped}; {self.short} recordings shorter than a window"


def cut_windows(
    recordings: Sequence[Recording],
    classes: tuple[str, ...],
    *,
    seconds: float,
    overlap: float = 0.0,
    label_rule: LabelRule = "all_same",
    keep_unlabelled: bool = False,
    min_valid: float = 0.8,
) -> tuple[WindowSet, WindowReport]:
    """Cut recordings into windows of equal length.

    Args:
        recordings: recordings of one rate and one channel list.
        classes: class names; the recordings' labels index them.
        seconds: a window's duration [s].
        overlap: part of a window shared with the next one, in [0, 1); 0 for evaluation.
        label_rule: "all_same" labels a window when all its samples agree, "majority" when more than half do.
        keep_unlabelled: keep windows without a label, and mixed ones, with label -1 (for pre-training).
        min_valid: smallest measured part of a window, in [0, 1].

    Returns:
        The windows, and the report of what was kept and dropped.

    Raises:
        DataError: no recordings, different rates or channels, a label outside ``classes``, a bad option.
    """
    length, hop = _length_and_hop(recordings, seconds, overlap)
    _check_alike(recordings, classes)
    if not 0 <= min_valid <= 1:
        raise DataError("min_valid", "must be in [0, 1]", min_valid, "Give the smallest measured part of a window")
    parts: list[tuple[Recording, np.ndarray, np.ndarray]] = []
    mixed = unlabelled = invalid = short = 0
    for recording in recordings:
        if len(recording) < length:
            short += 1
            continue
        starts = np.arange(0, len(recording) - length + 1, hop)
        measured = sliding_window_view(recording.valid, length)[starts].mean(axis=1) >= min_valid
        invalid += int((~measured).sum())
        starts = starts[measured]
        labels, is_mixed = window_labels(sliding_window_view(recording.labels, length)[starts], label_rule)
        if not keep_unlabelled:
            mixed += int(is_mixed.sum())
            unlabelled += int(((labels == UNLABELLED) & ~is_mixed).sum())
            starts, labels = starts[labels != UNLABELLED], labels[labels != UNLABELLED]
        parts.append((recording, starts, labels))
    windows = _gather(parts, recordings[0], classes, length)
    per_class = tuple((name, int((windows.labels == index).sum())) for index, name in enumerate(classes))
    return windows, WindowReport(len(windows), mixed, unlabelled, invalid, short, per_class)


def window_labels(labels: np.ndarray, rule: LabelRule) -> tuple[np.ndarray, np.ndarray]:
    """Give each window one label.

    Args:
        labels: (n, L) int64, one per sample; -1 where unlabelled.
        rule: "all_same" or "majority" (of all samples, the unlabelled included).

    Returns:
        (n,) int64 labels, -1 where there is none, and (n,) bool, True where the reason is mixed labels.
    """
    first = labels[:, 0]
    same = (labels == first[:, None]).all(axis=1)
    if rule == "all_same":
        return np.where(same, first, UNLABELLED), ~same
    ordered = np.sort(labels, axis=1)
    middle = ordered[:, labels.shape[1] // 2]  # a value held by more than half of the samples is the median
    wins = (labels == middle[:, None]).sum(axis=1) * 2 > labels.shape[1]
    return np.where(wins, middle, UNLABELLED), ~wins


def _length_and_hop(recordings: Sequence[Recording], seconds: float, overlap: float) -> tuple[int, int]:
    if not recordings:
        raise DataError("recordings", "must be at least one", "none", "Check the data folder and the options")
    length = round(seconds * recordings[0].rate_hz) if np.isfinite(seconds) else 0
    if length < 2:
        must = f"a window must hold 2 samples or more at {recordings[0].rate_hz:g} Hz"
        raise DataError("seconds", must, f"{seconds} s", "Choose longer windows")
    if not 0 <= overlap < 1:
        raise DataError("overlap", "must be in [0, 1)", overlap, "Give the shared part of two neighbours, 0.5 for half")
    return length, max(1, round(length * (1 - overlap)))


def _check_alike(recordings: Sequence[Recording], classes: tuple[str, ...]) -> None:
    first = recordings[0]
    for recording in recordings:
        if recording.channels != first.channels:
            fix = "Select the same channels of every recording"
            raise DataError(recording.where, f"channels must be {first.channels}", recording.channels, fix)
        if recording.gravity != first.gravity:
            must = f"gravity must be {first.gravity} as in {first.where}"
            raise DataError(recording.where, must, recording.gravity, "Remove gravity from all of them")
        if not np.isclose(recording.rate_hz, first.rate_hz, rtol=1e-6, atol=0):
            must = f"rate must be {first.rate_hz:g} Hz as in {first.where}"
            raise DataError(recording.where, must, f"{recording.rate_hz:g} Hz", "Resample to one rate first")
        if recording.labels.max() >= len(classes):
            must = f"labels must be below {len(classes)}, the number of classes"
            raise DataError(recording.where, must, int(recording.labels.max()), "Name every class")


def _gather(
    parts: list[tuple[Recording, np.ndarray, np.ndarray]], first: Recording, classes: tuple[str, ...], length: int
) -> WindowSet:
    def repeated(values: list[str]) -> np.ndarray:
        counts = [len(starts) for _, starts, _ in parts]
        return np.repeat(np.asarray(values, dtype=np.str_), counts)

    def windows_of(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
        return values[starts[:, None] + np.arange(length)]

    no_x = np.zeros((0, length, len(first.channels)), np.float32)
    return WindowSet(
        x=np.concatenate([no_x, *(windows_of(r.signal, starts) for r, starts, _ in parts)]),
        labels=np.concatenate([np.zeros(0, np.int64), *(labels for _, _, labels in parts)]),
        subjects=repeated([r.subject for r, _, _ in parts]),
        sessions=repeated([r.where for r, _, _ in parts]),
        placements=repeated([r.placement for r, _, _ in parts]),
        start_s=np.concatenate([np.zeros(0), *(r.start_s + starts / r.rate_hz for r, starts, _ in parts)]),
        valid=np.concatenate([np.zeros((0, length), bool), *(windows_of(r.valid, starts) for r, starts, _ in parts)]),
        classes=classes,
        channels=first.channels,
        rate_hz=first.rate_hz,
        seconds=length / first.rate_hz,
        gravity=first.gravity,
    )
