"""UCI HAR: 30 people with a phone at the waist (Anguita et al. 2013, ESANN, "A public domain dataset ...").

The signals are published as windows that overlap by half; they are put together again here.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from imu_saga.dataset import DATASETS, ImuDataset
from imu_saga.datasets._sample_motion import sample_motion
from imu_saga.files.number_rows import read_rows
from imu_saga.recording import IMU_CHANNELS, UNLABELLED, Recording
from imu_saga.signal.units import GRAVITY
from shared_peft.errors import DataError

CLASSES = ("WALKING", "WALKING_UPSTAIRS", "WALKING_DOWNSTAIRS", "SITTING", "STANDING", "LAYING")  # ids 1 to 6
RATE_HZ = 50.0
WINDOW = 128  # samples; the next window starts after half of them
HALF = WINDOW // 2
SIGNALS = tuple(f"{sensor}_{axis}" for sensor in ("total_acc", "body_gyro") for axis in "xyz")


@dataclass
class _Session:
    """Halves of windows that follow each other in time: (HALF, 6) each, and a label for each."""

    name: str
    subject: str
    halves: list[np.ndarray] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)


@DATASETS.register("uci_har")
@dataclass(frozen=True)
class UciHar(ImuDataset):
    """Six activities, phone at the waist, 50 Hz; total_acc (gravity kept, g) and body_gyro (rad/s).

    A window whose first half is exactly the second half of the one before, of the same subject, goes on with that
    one's session; where the halves differ a new session starts. So every raw sample is read once. A sample that two
    windows label differently is unlabelled.
    """

    name: ClassVar[str] = "uci_har"
    title: ClassVar[str] = "UCI HAR (Human Activity Recognition Using Smartphones)"
    licence: ClassVar[str] = "CC BY 4.0"
    url: ClassVar[str] = "https://archive.ics.uci.edu/dataset/240/human+activity+recognition+using+smartphones"
    placements: ClassVar[tuple[str, ...]] = ("waist",)
    native_rate_hz: ClassVar[float | None] = RATE_HZ

    part: Literal["all", "train", "test"] = "all"
    """The official training part (21 subjects), the test part (9), or both."""

    def class_names(self, root: Path | None = None) -> tuple[str, ...]:
        """Return the six activities, in the order of activity_labels.txt."""
        return CLASSES

    def read(self, root: Path | None = None) -> list[Recording]:
        """Return one recording for each run of windows that overlap without a break.

        Raises:
            DataError: the folder is missing (the message names the download page), or a file cannot be used.
        """
        parts = ("train", "test") if self.part == "all" else (self.part,)
        return [recording for part in parts for recording in _read_part(self._part_folder(root, part), part)]

    def write_sample(self, root: Path) -> None:
        """Write three subjects, two in train and one in test, in the official layout.

        Subject 1 sits and then walks without a break (one window overlaps both); subject 3 follows at once; subject 2
        has two runs of one activity with a break between them.
        """
        generator = np.random.default_rng(0)
        top = root / "UCI HAR Dataset"
        top.mkdir(parents=True, exist_ok=True)
        names = "".join(f"{number} {name}\n" for number, name in enumerate(CLASSES, start=1))
        (top / "activity_labels.txt").write_text(names, encoding="ascii")
        runs = {
            "train": [(1, [4, 4, 1, 1, 1], _sample(generator, 6, 3)), (3, [1, 1, 1, 1], _sample(generator, 5, 0))],
            "test": [(2, [5, 5], _sample(generator, 3, 3)), (2, [5, 5, 5], _sample(generator, 4, 4))],
        }
        for part, of_part in runs.items():
            _write_part(top / part, part, of_part)

    def _part_folder(self, root: Path | None, part: str) -> Path:
        inside = f"{part}/Inertial Signals/{SIGNALS[0]}_{part}.txt"
        return self.folder(root, inside, f"UCI HAR Dataset/{inside}", f"*/UCI HAR Dataset/{inside}").parents[1]


def stitched(windows: np.ndarray, labels: np.ndarray, subjects: np.ndarray, prefix: str) -> list[_Session]:
    """Put half-overlapping windows together so that no half stands in two places.

    Args:
        windows: (n, 128, channels), in the order of the file.
        labels: (n,) class indices.
        subjects: (n,) subject numbers.
        prefix: start of the sessions' names; the number of their first window follows.

    Returns:
        The sessions, in order.
    """
    sessions: list[_Session] = []
    seen: dict[tuple[int, bytes], tuple[_Session, int]] = {}  # where each half of a subject's windows stands
    for row, (window, label, subject) in enumerate(zip(windows, labels.tolist(), subjects.tolist(), strict=True)):
        session, last = None, -1
        for half in (window[:HALF], window[HALF:]):
            key = (subject, half.tobytes())
            if key in seen:  # the same samples again: a second opinion on their label
                session, last = seen[key]
                session.labels[last] = label if session.labels[last] == label else UNLABELLED
                continue
            if session is None or last != len(session.halves) - 1:
                session = _Session(f"{prefix}_{row + 1:04d}", f"{subject:02d}")
                sessions.append(session)
            session.halves.append(half)
            session.labels.append(label)
            last = len(session.halves) - 1
            seen[key] = (session, last)
    return sessions


def _read_part(folder: Path, part: str) -> list[Recording]:
    columns = [read_rows(folder / "Inertial Signals" / f"{name}_{part}.txt", WINDOW) for name in SIGNALS]
    labels = _whole_numbers(folder / f"y_{part}.txt", len(CLASSES))
    subjects = _whole_numbers(folder / f"subject_{part}.txt", 30)
    counts = [len(values) for values in (*columns, labels, subjects)]
    if len(set(counts)) != 1:
        must = "all files of a part must have the same number of rows"
        raise DataError(folder, must, ", ".join(map(str, counts)), "Use the official files, unchanged")
    windows = np.stack(columns, axis=2)
    windows[:, :, :3] *= GRAVITY
    return [_recording(session) for session in stitched(windows, labels - 1, subjects, part)]


def _recording(session: _Session) -> Recording:
    signal = np.concatenate(session.halves).astype(np.float32)
    return Recording(
        signal=signal,
        channels=IMU_CHANNELS,
        rate_hz=RATE_HZ,
        labels=np.repeat(np.asarray(session.labels, dtype=np.int64), HALF),
        valid=np.ones(len(signal), dtype=bool),
        subject=session.subject,
        session=session.name,
        placement="waist",
        dataset="uci_har",
    )


def _whole_numbers(path: Path, most: int) -> np.ndarray:
    """Return a file's one column of whole numbers from 1 to ``most``."""
    values = read_rows(path, 1)[:, 0]
    wrong = (values % 1 != 0) | (values < 1) | (values > most)
    if wrong.any():
        row = int(np.argmax(wrong))
        must = f"must be a whole number from 1 to {most}"
        raise DataError(f"{path}, row {row + 1}", must, f"{values[row]:g}", "Use the official file, unchanged")
    return values.astype(np.int64)


def _sample(generator: np.random.Generator, halves: int, walking_from: int) -> np.ndarray:
    """Return (halves x 64, 6) of a phone at the waist [g, rad/s] that walks from the half ``walking_from`` on."""
    motion = sample_motion(np.arange(halves * HALF) >= walking_from * HALF, RATE_HZ, generator, tilt=1.3)
    return np.concatenate([motion.acc / GRAVITY, motion.gyro], axis=1)


def _write_part(folder: Path, part: str, runs: list[tuple[int, list[int], np.ndarray]]) -> None:
    """Write runs of (subject, label of each window, motion) as windows that overlap by half."""
    (folder / "Inertial Signals").mkdir(parents=True, exist_ok=True)
    windows = [motion[row * HALF :][:WINDOW] for _, labels, motion in runs for row in range(len(labels))]
    for column, name in enumerate(SIGNALS):
        rows = ["".join(f" {_matlab(value)}" for value in window[:, column]) for window in windows]
        path = folder / "Inertial Signals" / f"{name}_{part}.txt"
        path.write_text("\n".join(rows) + "\n", encoding="ascii")
    for name, numbers in (
        ("y", [label for _, labels, _ in runs for label in labels]),
        ("subject", [subject for subject, labels, _ in runs for _ in labels]),
    ):
        text = "".join(f"{number}\n" for number in numbers)
        (folder / f"{name}_{part}.txt").write_text(text, encoding="ascii")


def _matlab(value: float) -> str:
    """Return a number as the data set's files have it: 16 wide, an exponent of three digits."""
    mantissa, exponent = f"{value:.7e}".split("e")
    return f"{mantissa:>10}e{exponent[0]}{int(exponent[1:]):03d}"
