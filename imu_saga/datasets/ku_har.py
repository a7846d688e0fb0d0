"""KU-HAR: 90 people, 18 activities, phone at the waist (Sikder and Nahid 2021, doi:10.1016/j.patrec.2021.02.024).

The format follows the data set's page, its authors' own scripts and the readers of others: files
``N.Name/USER_LETTER_TRIAL.csv`` without a header, columns time, acc x y z, time, gyro x y z. The page says that the
times are in ms, the authors' scripts take them as s, so the unit is told from the stamps themselves. Where one sensor
ends earlier, its cells are empty, NaN, missing, or all zero.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from imu_saga.dataset import DATASETS, ImuDataset
from imu_saga.datasets._sample_motion import sample_motion
from imu_saga.files.number_rows import read_rows
from imu_saga.recording import Gravity, Recording
from imu_saga.signal.clock import TIME_SCALE, detect_time_unit
from imu_saga.signal.sensor_clocks import Sensor, SensorStream, Wearer, joint_recordings
from shared_peft.errors import DataError

CLASSES = (
    "Stand",
    "Sit",
    "Talk-sit",
    "Talk-stand",
    "Stand-sit",
    "Lay",
    "Lay-stand",
    "Pick",
    "Jump",
    "Push-up",
    "Sit-up",
    "Walk",
    "Walk-backward",
    "Walk-circle",
    "Run",
    "Stair-up",
    "Stair-down",
    "Table-tennis",
)  # folders 0 to 17
COLUMNS = 8
MAX_GAP_S = 0.5  # [s] ours
TOP = "1.Raw_time_domian_data"  # sic
_FOLDER = re.compile(r"(\d{1,2})\..*")
_FILE = re.compile(r"(\d+)_(.+)\.csv")


@DATASETS.register("ku_har")
@dataclass(frozen=True)
class KuHar(ImuDataset):
    """Eighteen activities, phone in a waist bag, about 100 Hz; m/s^2 without gravity, rad/s, a clock each."""

    name: ClassVar[str] = "ku_har"
    title: ClassVar[str] = "KU-HAR"
    licence: ClassVar[str] = "CC BY 4.0"
    url: ClassVar[str] = "https://data.mendeley.com/datasets/45f952y38r/5"
    placements: ClassVar[tuple[str, ...]] = ("waist",)
    native_rate_hz: ClassVar[float | None] = 100.0
    gravity: ClassVar[Gravity] = "removed"

    def class_names(self, root: Path | None = None) -> tuple[str, ...]:
        """Return the eighteen activities, in the order of the folders' numbers."""
        return CLASSES

    def read(self, root: Path | None = None) -> list[Recording]:
        """Return one recording for each stretch without a long gap.

        Raises:
            DataError: the folder is missing (the message names the download page), or a file cannot be used.
        """
        inside = "[0-9]*.*/[0-9]*_*.csv"
        trials = self.folder(root, *(f"{above}{inside}" for above in (f"{TOP}/", f"*/{TOP}/", ""))).parent.parent
        return [recording for path in sorted(trials.glob(inside)) for recording in _read_trial(path)]

    def write_sample(self, root: Path) -> None:
        """Write two people with three activities each; the gyroscope starts later and ends earlier."""
        generator = np.random.default_rng(0)
        for number, letter in ((0, "A"), (11, "L"), (16, "T")):
            for user in (1001, 1002):
                path = root / TOP / f"{number}.{CLASSES[number]}" / f"{user}_{letter}_1.csv"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(_sample_text(generator, active=number > 0), encoding="ascii")


def _read_trial(path: Path) -> list[Recording]:
    folder, file = _FOLDER.fullmatch(path.parent.name), _FILE.fullmatch(path.name)
    if folder is None or file is None or int(folder[1]) >= len(CLASSES):
        must = "must be N.Name/USER_LETTER_TRIAL.csv with N from 0 to 17"
        raise DataError(path, must, f"{path.parent.name}/{path.name}", "Use the official folders, unchanged")
    rows = read_rows(path, COLUMNS, between=",", missing=True, fewest=COLUMNS // 2)
    acc, gyro = _measured(rows[:, :4], path), _measured(rows[:, 4:], path)
    seconds = TIME_SCALE[detect_time_unit(acc[:, 0], f"{path}, column 1")]
    streams: dict[Sensor, SensorStream] = {
        "acc": SensorStream(acc[:, 0] * seconds, acc[:, 1:], np.full(len(acc), int(folder[1]), dtype=np.int64)),
        "gyro": SensorStream(gyro[:, 0] * seconds, gyro[:, 1:]),
    }
    recordings = joint_recordings(streams, MAX_GAP_S, Wearer(file[1], path.stem, "waist", "ku_har"))
    return [replace(recording, gravity="removed") for recording in recordings]


def _measured(block: np.ndarray, path: Path) -> np.ndarray:
    """Return the rows of one sensor (time, x, y, z) that hold a sample: all cells known, and no zeros at the end."""
    known = block[~np.isnan(block).any(axis=1)]
    used = np.flatnonzero(known.any(axis=1))
    if not len(used):
        raise DataError(path, "must hold samples of both sensors", "none of one", "Use the official file, unchanged")
    return known[: used[-1] + 1]


def _sample_text(generator: np.random.Generator, *, active: bool) -> str:
    """Return 5 s of both sensors at about 100 Hz; the gyroscope 30 ms late and shorter by 0.4 s."""
    motion = sample_motion(np.full(500, active), 100.0, generator)
    times = np.cumsum(generator.normal(0.01, 0.0004, 500))
    rows = []
    for index in range(500):
        acc = ",".join(f"{value:.5f}" for value in (times[index], *motion.linear[index]))
        late = index + 3
        gyro = ",".join(f"{value:.5f}" for value in (times[late], *motion.gyro[late])) if index < 460 else ",,,"
        rows += [f"{acc},{gyro}"] * (2 if index == 100 else 1)
    return "\n".join(rows) + "\n"
