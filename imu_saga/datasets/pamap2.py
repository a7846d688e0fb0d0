"""PAMAP2: 9 people, 18 activities, hand, chest and ankle (Reiss and Stricker 2012, doi:10.1109/ISWC.2012.13)."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from imu_saga.dataset import DATASETS, ImuDataset
from imu_saga.datasets._sample_motion import sample_motion
from imu_saga.files.number_rows import read_rows
from imu_saga.recording import IMU_CHANNELS, MAG_CHANNELS, UNLABELLED, Recording
from imu_saga.signal.clock import to_uniform
from shared_peft.errors import DataError

ACTIVITIES = {
    1: "lying",
    2: "sitting",
    3: "standing",
    4: "walking",
    5: "running",
    6: "cycling",
    7: "Nordic walking",
    9: "watching TV",
    10: "computer work",
    11: "car driving",
    12: "ascending stairs",
    13: "descending stairs",
    16: "vacuum cleaning",
    17: "ironing",
    18: "folding laundry",
    19: "house cleaning",
    20: "playing soccer",
    24: "rope jumping",
}  # 0 is everything between them
COLUMNS = 54  # timestamp [s], activity, heart rate, then 17 of each IMU
FIRST_COLUMN = {"hand": 3, "chest": 20, "ankle": 37}
ACC_16G, GYRO, MAG = (1, 2, 3), (7, 8, 9), (10, 11, 12)  # within an IMU's 17: temperature, acc 16 g, acc 6 g, ...
MAX_GAP_S = 0.5  # [s] ours; lost packets leave gaps of a few samples, sometimes of seconds
_NAME = re.compile(r"subject(\d+)\.dat")


@DATASETS.register("pamap2")
@dataclass(frozen=True)
class Pamap2(ImuDataset):
    """Daily and sports activities, three IMUs, 100 Hz: acc (the +-16 g sensor, m/s^2), gyro (rad/s), mag (uT).

    Rows of NaN are lost packets: gaps of up to half a second are filled and marked invalid, longer ones split. The
    +-6 g accelerometer saturates and the orientation is not valid, as the data set's readme says; neither is read.
    """

    name: ClassVar[str] = "pamap2"
    title: ClassVar[str] = "PAMAP2 Physical Activity Monitoring"
    licence: ClassVar[str] = "CC BY 4.0"
    url: ClassVar[str] = "https://archive.ics.uci.edu/dataset/231/pamap2+physical+activity+monitoring"
    placements: ClassVar[tuple[str, ...]] = tuple(FIRST_COLUMN)
    native_rate_hz: ClassVar[float | None] = 100.0
    channels: ClassVar[tuple[str, ...]] = IMU_CHANNELS + MAG_CHANNELS

    placement: Literal["hand", "chest", "ankle", "all"] = "hand"
    """Which IMU: hand, chest, ankle, or all, a recording each."""
    magnetometer: bool = False
    """Read the magnetometer too."""
    part: Literal["protocol", "optional", "all"] = "protocol"
    """The protocol (12 activities, 9 people), the optional activities (5 people), or both."""

    def class_names(self, root: Path | None = None) -> tuple[str, ...]:
        """Return the eighteen activities, in the order of their ids."""
        return tuple(ACTIVITIES.values())

    def read(self, root: Path | None = None) -> list[Recording]:
        """Return one recording for each stretch without a long gap, of each placement chosen.

        Raises:
            DataError: the folder is missing (the message names the download page), or a file cannot be used.
        """
        parts = ("Protocol", "Optional") if self.part == "all" else (self.part.capitalize(),)
        recordings = []
        for part in parts:
            patterns = [f"{above}{part}/subject*.dat" for above in ("", "PAMAP2_Dataset/", "*/PAMAP2_Dataset/")]
            for path in sorted(self.folder(root, *patterns).parent.glob("subject*.dat")):
                recordings += self._read_file(path, part.lower())
        return recordings

    def write_sample(self, root: Path) -> None:
        """Write three subjects in the official layout, the third with little, with lost packets and transient rows."""
        generator = np.random.default_rng(0)
        runs = {"subject101": (1, 0, 4, 12, 24), "subject102": (2, 0, 4, 24), "subject109": (0, 24)}
        for part, subjects in (("Protocol", tuple(runs)), ("Optional", ("subject101",))):
            (root / "PAMAP2_Dataset" / part).mkdir(parents=True, exist_ok=True)
            for subject in subjects:
                activities = (9, 0, 20) if part == "Optional" else runs[subject]
                path = root / "PAMAP2_Dataset" / part / f"{subject}.dat"
                path.write_text(_sample_text(generator, activities), encoding="ascii")

    def _read_file(self, path: Path, session: str) -> list[Recording]:
        name = _NAME.fullmatch(path.name)
        if name is None:
            raise DataError(path, "name must be subjectNNN.dat", path.name, "Use the official file, unchanged")
        places = self.placements if self.placement == "all" else (self.placement,)
        wanted = ACC_16G + GYRO + (MAG if self.magnetometer else ())
        columns = [FIRST_COLUMN[place] + offset for place in places for offset in wanted]
        rows = read_rows(path, COLUMNS, use=(0, 1, *columns), missing=True)
        unknown = np.isnan(rows[:, :2]).any(axis=1)
        if unknown.any():
            must, fix = "timestamps and activities must be given", "Use the official file, unchanged"
            raise DataError(f"{path}, row {int(np.argmax(unknown)) + 1}", must, "NaN", fix)
        labels = _labels(rows[:, 1], path)
        return [
            recording
            for index, place in enumerate(places)
            for recording in self._recordings(
                rows[:, 0],
                rows[:, 2 + index * len(wanted) :][:, : len(wanted)],
                labels,
                (name[1], session, place),
                path,
            )
        ]

    def _recordings(
        self, times_s: np.ndarray, signal: np.ndarray, labels: np.ndarray, who: tuple[str, str, str], path: Path
    ) -> list[Recording]:
        """Return the recordings of one IMU: (rows,) times and labels, (rows, channels) signal with NaN where lost."""
        known = np.flatnonzero(np.isfinite(signal).all(axis=1))
        if not len(known):
            return []
        subject, session, placement = who
        where = f"{path}, {placement}"
        stretches = to_uniform(times_s[known], signal[known], max_gap_s=MAX_GAP_S, clock="stamps", where=where)
        return [
            Recording(
                signal=stretch.values.astype(np.float32),
                channels=self.channels if self.magnetometer else IMU_CHANNELS,
                rate_hz=stretch.rate_hz,
                labels=labels[_rows_at(times_s, stretch.start_s, stretch.rate_hz, len(stretch.values))],
                valid=stretch.valid,
                subject=subject,
                session=session,
                placement=placement,
                dataset="pamap2",
                start_s=stretch.start_s,
            )
            for stretch in stretches
        ]


def _labels(activities: np.ndarray, path: Path) -> np.ndarray:
    """Return (rows,) class indices for the ids in the file; 0, between two activities, is unlabelled."""
    labels = np.full(len(activities), UNLABELLED, dtype=np.int64)
    for index, activity in enumerate(ACTIVITIES):
        labels[activities == activity] = index
    strange = (labels == UNLABELLED) & (activities != 0)
    if strange.any():
        row = int(np.argmax(strange))
        must = f"activity must be 0 or one of {', '.join(map(str, ACTIVITIES))}"
        raise DataError(f"{path}, row {row + 1}", must, f"{activities[row]:g}", "Use the official file, unchanged")
    return labels


def _rows_at(times_s: np.ndarray, start_s: float, rate_hz: float, samples: int) -> np.ndarray:
    """Return (samples,) the rows of the file closest in time, rows without a signal included."""
    wanted = start_s + np.arange(samples) / rate_hz
    return np.rint(np.interp(wanted, times_s, np.arange(len(times_s)))).astype(np.int64)


def _sample_text(generator: np.random.Generator, activities: tuple[int, ...]) -> str:
    """Return 3 s of each activity; of the hand's packets 5 are lost at 1 s and all from 2 s to 2.8 s of the first."""
    samples = 300 * len(activities)
    ids = np.repeat(activities, 300)
    table = np.full((samples, COLUMNS), np.nan)
    table[:, 0], table[:, 1] = 8.38 + np.arange(samples) / 100, ids
    table[::11, 2] = 104
    for place, tilt in zip(FIRST_COLUMN, (0.4, 1.4, 1.2), strict=True):
        motion = sample_motion(ids > 3, 100.0, generator, tilt=tilt)
        acc_6g = np.clip(motion.acc * 1.05, -9, 9)  # saturated and badly calibrated
        magnetic = motion.gravity * 4.5 + (0, 20, 0)
        temperature, orientation = np.full((samples, 1), 30.375), np.tile((1.0, 0.0, 0.0, 0.0), (samples, 1))
        block = np.concatenate([temperature, motion.acc, acc_6g, motion.gyro, magnetic, orientation], axis=1)
        table[:, FIRST_COLUMN[place] :][:, : block.shape[1]] = block
    table[100:105, 3:20] = np.nan
    table[200:280, 3:20] = np.nan
    rows = [" ".join(f"{value:.7g}" for value in row).replace("nan", "NaN") for row in table.tolist()]
    return "\n".join(rows) + "\n"
