"""HAPT: 30 people, six activities and six postural transitions (Reyes-Ortiz et al. 2016).

doi:10.1016/j.neucom.2015.07.085
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from imu_saga.dataset import DATASETS, ImuDataset
from imu_saga.datasets._sample_motion import sample_motion
from imu_saga.files.number_rows import read_rows
from imu_saga.recording import IMU_CHANNELS, UNLABELLED, Recording
from imu_saga.signal.units import GRAVITY
from shared_peft.errors import DataError

BASIC = ("WALKING", "WALKING_UPSTAIRS", "WALKING_DOWNSTAIRS", "SITTING", "STANDING", "LAYING")  # ids 1 to 6
TRANSITIONS = ("STAND_TO_SIT", "SIT_TO_STAND", "SIT_TO_LIE", "LIE_TO_SIT", "STAND_TO_LIE", "LIE_TO_STAND")  # 7 to 12
RATE_HZ = 50.0
LABEL_COLUMNS = 5  # experiment, user, activity, first sample, last sample
_NAME = re.compile(r"acc_exp(\d+)_user(\d+)\.txt")


@DATASETS.register("hapt")
@dataclass(frozen=True)
class Hapt(ImuDataset):
    """Activities and postural transitions, phone at the waist, 50 Hz, raw signals (g with gravity, rad/s).

    RawData/labels.txt names stretches by experiment, user, activity, first and last sample; both count from 1 and the
    last one belongs to the stretch. What no line covers is unlabelled.
    """

    name: ClassVar[str] = "hapt"
    title: ClassVar[str] = "HAPT (Smartphone-Based Recognition of Human Activities and Postural Transitions)"
    licence: ClassVar[str] = "CC BY 4.0"
    url: ClassVar[str] = (
        "https://archive.ics.uci.edu/dataset/341/"
        "smartphone+based+recognition+of+human+activities+and+postural+transitions"
    )
    placements: ClassVar[tuple[str, ...]] = ("waist",)
    people: ClassVar[str] = "uci_har"  # the same 30 volunteers, numbered alike
    native_rate_hz: ClassVar[float | None] = RATE_HZ

    transitions: bool = True
    """Twelve classes; without transitions the six activities, and transitions are unlabelled."""

    def class_names(self, root: Path | None = None) -> tuple[str, ...]:
        """Return the activities, and the transitions if they are read, in the order of activity_labels.txt."""
        return BASIC + TRANSITIONS if self.transitions else BASIC

    def read(self, root: Path | None = None) -> list[Recording]:
        """Return one recording for each experiment.

        Raises:
            DataError: the folder is missing (the message names the download page), or a file cannot be used.
        """
        patterns = [f"{above}RawData/labels.txt" for above in ("", "HAPT Data Set/", "*/")]
        stretches = self.folder(root, *patterns, "labels.txt")
        lines = _whole_numbers(stretches)
        files = sorted(stretches.parent.glob("acc_exp*_user*.txt"))
        if not files:
            fix = f"Download {self.title} from {self.url} again"
            raise DataError(stretches.parent, "must hold acc_expXX_userYY.txt", "no such file", fix)
        return [self._read_experiment(file, lines, stretches) for file in files]

    def write_sample(self, root: Path) -> None:
        """Write two users, one with two experiments, in the official layout; a walk ends with the last sample."""
        generator = np.random.default_rng(0)
        folder = root / "RawData"
        folder.mkdir(parents=True, exist_ok=True)
        names = "".join(f"{number} {name}\n" for number, name in enumerate(BASIC + TRANSITIONS, start=1))
        (root / "activity_labels.txt").write_text(names, encoding="ascii")
        lines = []
        for experiment, user in ((1, 1), (2, 1), (3, 2)):
            active = np.arange(600) >= 400
            motion = sample_motion(active, RATE_HZ, generator, tilt=1.2)
            for sensor, values in (("acc", motion.acc / GRAVITY), ("gyro", motion.gyro)):
                rows = [" ".join(f"{value:.16g}" for value in row) for row in values.tolist()]
                path = folder / f"{sensor}_exp{experiment:02d}_user{user:02d}.txt"
                path.write_text("\n".join(rows) + "\n", encoding="ascii")
            first = 50 * experiment + 1  # each experiment's stretches are its own
            lines += [f"{experiment} {user} {span}" for span in (f"5 {first} 250", "7 251 330", "1 401 600")]
        (folder / "labels.txt").write_text("\n".join(lines) + "\n", encoding="ascii")

    def _read_experiment(self, path: Path, lines: np.ndarray, stretches: Path) -> Recording:
        name = _NAME.fullmatch(path.name)
        if name is None:
            must = "name must be acc_expXX_userYY.txt"
            raise DataError(path, must, path.name, "Use the official file, unchanged")
        other = path.with_name(path.name.replace("acc", "gyro", 1))
        acc, gyro = read_rows(path, 3), read_rows(other, 3)
        if len(acc) != len(gyro):
            must = f"must hold as many rows as {path.name}, {len(acc)}"
            raise DataError(other, must, len(gyro), "Use the official files, unchanged")
        experiment, user = int(name[1]), int(name[2])
        own = np.flatnonzero((lines[:, 0] == experiment) & (lines[:, 1] == user))
        return Recording(
            signal=np.concatenate([acc * GRAVITY, gyro], axis=1).astype(np.float32),
            channels=IMU_CHANNELS,
            rate_hz=RATE_HZ,
            labels=self._labels(lines, own, len(acc), stretches),
            valid=np.ones(len(acc), dtype=bool),
            subject=f"{user:02d}",
            session=f"exp{experiment:02d}",
            placement="waist",
            dataset="hapt",
        )

    def _labels(self, lines: np.ndarray, own: np.ndarray, samples: int, path: Path) -> np.ndarray:
        """Return (samples,) class indices from the stretches in the rows ``own`` of labels.txt."""
        labels = np.full(samples, UNLABELLED, dtype=np.int64)
        covered = np.zeros(samples, dtype=bool)
        for row in own.tolist():
            _, _, activity, first, last = lines[row].tolist()
            if not (1 <= activity <= len(BASIC + TRANSITIONS) and 1 <= first <= last <= samples):
                must = f"must name an activity from 1 to 12 and samples from 1 to {samples}"
                came = " ".join(map(str, lines[row].tolist()))
                raise DataError(f"{path}, row {row + 1}", must, came, "Use the official files, unchanged")
            span = slice(first - 1, last)
            label = activity - 1 if activity <= len(self.class_names()) else UNLABELLED
            labels[span] = np.where(covered[span] & (labels[span] != label), UNLABELLED, label)
            covered[span] = True
        return labels


def _whole_numbers(path: Path) -> np.ndarray:
    """Return (rows, 5) int64 of labels.txt."""
    values = read_rows(path, LABEL_COLUMNS)
    wrong = ((values % 1 != 0) | (np.abs(values) > np.iinfo(np.int32).max)).any(axis=1)
    if wrong.any():
        row = int(np.argmax(wrong))
        came = " ".join(f"{value:g}" for value in values[row])
        raise DataError(f"{path}, row {row + 1}", "must hold whole numbers", came, "Use the official file, unchanged")
    return values.astype(np.int64)
