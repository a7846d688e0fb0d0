"""WISDM 2019: 51 people, phone and watch, 18 activities (Weiss et al. 2019, doi:10.1109/ACCESS.2019.2940729)."""

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pandas as pd

from imu_saga.dataset import DATASETS, ImuDataset
from imu_saga.datasets._own_clock import worn_device
from imu_saga.files.tables import check_file
from imu_saga.recording import Recording
from imu_saga.signal.clock import MIN_STRETCH
from imu_saga.signal.sensor_clocks import NoOverlapError, Sensor, SensorStream, Wearer, joint_recordings
from shared_peft.errors import DataError

# The letters and names of activity_key.txt; there is no N.
ACTIVITIES = {
    "A": "walking",
    "B": "jogging",
    "C": "stairs",
    "D": "sitting",
    "E": "standing",
    "F": "typing",
    "G": "teeth",
    "H": "soup",
    "I": "chips",
    "J": "pasta",
    "K": "drinking",
    "L": "sandwich",
    "M": "kicking",
    "O": "catch",
    "P": "dribbling",
    "Q": "writing",
    "R": "clapping",
    "S": "folding",
}
PLACEMENT = {"phone": "pocket", "watch": "wrist"}
SENSOR_FOLDER: dict[Sensor, str] = {"acc": "accel", "gyro": "gyro"}
COLUMNS = ("subject", "activity", "timestamp_ns", "x", "y", "z")
MAX_GAP_S = 0.5  # [s] ours
_NUMBER = r"-?\d+(\.\d*)?([eE][+-]?\d{1,3})?"
_ROW = re.compile(rf"\s*\d+\s*,\s*[{''.join(ACTIVITIES)}]\s*,\s*\d+\s*(,\s*{_NUMBER}\s*){{3}};?\s*")


@dataclass(frozen=True, eq=False)
class _Run:
    """Rows of one subject and activity over which time never runs back: (rows,) times [s] and (rows, 3) values."""

    subject: str
    activity: str
    times_s: np.ndarray
    values: np.ndarray


@DATASETS.register("wisdm")
@dataclass(frozen=True)
class Wisdm(ImuDataset):
    """Walking to folding clothes, three minutes each: phone in the pocket, LG watch on the wrist.

    The nominal rate is 20 Hz, but runs of 25, 50 and 100 Hz exist; each recording has the rate of its own stamps.
    Stamps are nanoseconds since some start, which differs between devices and now and then within a file, where an
    activity follows another or is taken up again: a run ends where the activity changes or time runs back. A run of
    the accelerometer is joined with those of the gyroscope that have the same activity and overlap it in time; one
    without any is left out.
    """

    name: ClassVar[str] = "wisdm"
    title: ClassVar[str] = "WISDM Smartphone and Smartwatch Activity and Biometrics"
    licence: ClassVar[str] = "CC BY 4.0"
    url: ClassVar[str] = (
        "https://archive.ics.uci.edu/dataset/507/wisdm+smartphone+and+smartwatch+activity+and+biometrics+dataset"
    )
    placements: ClassVar[tuple[str, ...]] = ("pocket", "wrist")
    native_rate_hz: ClassVar[float | None] = 20.0

    device: Literal["phone", "watch", "both"] = "phone"
    """Which device."""
    gyro: bool = True
    """Read the gyroscope too."""

    def class_names(self, root: Path | None = None) -> tuple[str, ...]:
        """Return the eighteen activities, in order of their letters."""
        return tuple(ACTIVITIES.values())

    def read(self, root: Path | None = None) -> list[Recording]:
        """Return one recording for each stretch without a gap, by subject, activity and device.

        Raises:
            DataError: the folder is missing (the message names the download page), or a file cannot be used.
        """
        devices = ("phone", "watch") if self.device == "both" else (self.device,)
        return [recording for device in devices for recording in self._read_device(root, device)]

    def write_sample(self, root: Path) -> None:
        """Write two subjects with three activities on both devices, and the traps: see ``_write_device``."""
        generator = np.random.default_rng(0)
        for device in PLACEMENT:
            for subject in ("1600", "1601"):
                _write_device(root / "wisdm-dataset" / "raw" / device, device, subject, generator)

    def _read_device(self, root: Path | None, device: str) -> list[Recording]:
        name = f"{device}/accel/data_[0-9]*_accel_{device}.txt"
        found = self.folder(root, *(above + name for above in ("", "raw/", "*/raw/", "*/*/raw/")))
        folder = found.parent.parent
        recordings = []
        for path in sorted(found.parent.glob(f"data_[0-9]*_accel_{device}.txt")):
            runs: dict[Sensor, list[_Run]] = {"acc": list(_runs(path))}
            if self.gyro:
                other = folder / "gyro" / path.name.replace("_accel_", "_gyro_")
                runs["gyro"] = list(_runs(other)) if other.is_file() else []
            for index, run in enumerate(runs["acc"]):
                wearer = Wearer(run.subject, f"{run.activity}_{index:02d}", PLACEMENT[device], "wisdm")
                recordings += self._recordings(run, runs.get("gyro", []), wearer)
        return recordings

    def _recordings(self, run: _Run, gyro: list[_Run], wearer: Wearer) -> list[Recording]:
        label = list(ACTIVITIES).index(run.activity)
        acc = SensorStream(run.times_s, run.values, np.full(len(run.values), label, np.int64))
        if not self.gyro:
            return joint_recordings({"acc": acc}, MAX_GAP_S, wearer)
        recordings = []
        for other in gyro:
            if (other.subject, other.activity) == (run.subject, run.activity):
                try:
                    streams: dict[Sensor, SensorStream] = {
                        "acc": acc,
                        "gyro": SensorStream(other.times_s, other.values),
                    }
                    recordings += joint_recordings(streams, MAX_GAP_S, wearer)
                except NoOverlapError:
                    continue
        return recordings


def _runs(path: Path) -> Iterator[_Run]:
    frame = _read_rows(path)
    stamps = frame["timestamp_ns"].to_numpy(np.int64)
    values = frame[["x", "y", "z"]].to_numpy(np.float64)
    subjects, activities = frame["subject"].to_numpy(), frame["activity"].to_numpy()
    ends = (np.diff(stamps) < 0) | (subjects[1:] != subjects[:-1]) | (activities[1:] != activities[:-1])
    for rows in np.split(np.arange(len(stamps)), np.flatnonzero(ends) + 1):
        if np.count_nonzero(np.diff(stamps[rows])) >= MIN_STRETCH:
            # kept in whole nanoseconds up to here: as float64, stamps since 1970 would lose a quarter of a microsecond
            times_s = (stamps[rows] // 10**9).astype(np.float64) + (stamps[rows] % 10**9) / 1e9
            yield _Run(str(subjects[rows[0]]), str(activities[rows[0]]), times_s, values[rows])


def _read_rows(path: Path) -> pd.DataFrame:
    """Read rows like ``1600,A,252207666810782,-0.36476135,8.793503,1.0550842;``."""
    check_file(path)
    kinds = {"subject": "str", "activity": "str", "timestamp_ns": "int64"} | dict.fromkeys("xyz", "float64")
    try:
        text = path.read_text(encoding="ascii")
        frame = pd.read_csv(
            io.StringIO(text.replace(";", "")),
            header=None,
            names=list(COLUMNS),
            dtype=kinds,  # type: ignore[arg-type]  (a mapping from names to types)
            index_col=False,
            skipinitialspace=True,
            keep_default_na=False,
            quoting=csv.QUOTE_NONE,
        )
    except UnicodeDecodeError as error:
        raise DataError(path, "must be ASCII text", str(error), "Use the official file, unchanged") from error
    except (ValueError, OverflowError, pd.errors.ParserError, pd.errors.ParserWarning):
        raise _fault(path, text) from None
    usable = frame["activity"].isin(list(ACTIVITIES)) & np.isfinite(frame[["x", "y", "z"]]).all(axis=1)
    if frame.empty or not usable.all():
        raise _fault(path, text)
    return frame


def _fault(path: Path, text: str) -> DataError:
    """Return the error for the first row that is not as it should be."""
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    number, line = next(((at, line) for at, line in lines if not _ROW.fullmatch(line)), (1, "no rows"))
    must = f"must be {', '.join(COLUMNS)}; with an activity of {''.join(ACTIVITIES)}"
    return DataError(f"{path}, row {number}", must, repr(line.strip()[:60]), "Use the official file, unchanged")


def _write_device(folder: Path, device: str, subject: str, generator: np.random.Generator) -> None:
    """Write one subject's two files with the traps of the real ones.

    Walking at 20 Hz with a stamp given twice, then jogging at 50 Hz stamped by a clock that runs from an earlier
    start, then folding; the gyroscope's stamps lie between the accelerometer's, and it runs 3 % faster.
    """
    for column, (sensor, folder_name) in enumerate(SENSOR_FOLDER.items()):
        rows: list[str] = []
        for letter, start_s, rate_hz in (("A", 252_207.6, 20.0), ("B", 90_426.7, 50.0), ("S", 90_460.0, 20.0)):
            rate = rate_hz * (1.0 if sensor == "acc" else 1.03)
            times = (0.0 if sensor == "acc" else 0.011) + np.arange(round(12 * rate)) / rate
            measured = worn_device(12, (0.0, 12.0 if letter == "B" else 6.0), np.random.default_rng(ord(letter)))
            values = measured(times)[column] + generator.normal(0, 0.01, (len(times), 3))
            stamps = np.rint((start_s + times) * 1e9).astype(np.int64)
            stamps[30] = stamps[29]
            rows += [
                f"{subject},{letter},{stamp},{','.join(f'{value:.7g}' for value in value_row)};"
                for stamp, value_row in zip(stamps.tolist(), values.tolist(), strict=True)
            ]
        path = folder / folder_name / f"data_{subject}_{folder_name}_{device}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(rows) + "\n", encoding="ascii")
