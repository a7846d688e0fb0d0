"""UMAFall: nineteen people, five devices, activities and falls (Casilari et al. 2017, 10.1016/j.procs.2017.06.110)."""

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
from imu_saga.recording import IMU_CHANNELS, MAG_CHANNELS, UNLABELLED, Recording
from imu_saga.signal.clock import MIN_STRETCH
from imu_saga.signal.sensor_clocks import NoOverlapError, Sensor, SensorStream, Wearer, joint_recordings
from imu_saga.signal.units import ACC_SCALE, GYRO_SCALE
from shared_peft.errors import DataError

ACTIVITIES = (
    "Walking",
    "Jogging",
    "GoUpstairs",
    "GoDownstairs",
    "Bending",
    "Hopping",
    "LyingDown_OnABed",
    "Sitting_GettingUpOnAChair",
    "HandsUp",
    "Aplausing",
    "MakingACall",
    "OpeningDoor",
)
FALLS = ("forwardFall", "backwardFall", "lateralFall")
# Positions in the files' headers; which number a device has, and which are there, differs from file to file.
PLACEMENT = {
    "RIGHTPOCKET": "pocket",
    "LEFTPOCKET": "pocket",
    "CHEST": "chest",
    "WAIST": "waist",
    "WRIST": "wrist",
    "ANKLE": "ankle",
}
TYPES: dict[int, tuple[Sensor, float]] = {0: ("acc", ACC_SCALE["g"]), 1: ("gyro", GYRO_SCALE["deg/s"]), 2: ("mag", 1.0)}
COLUMNS = ("time_ms", "sample", "x", "y", "z", "type", "device")
MAX_GAP_S = 0.5  # [s] ours; at 20 Hz ten samples lost over the air
_NAME = re.compile(r"UMAFall_Subject_(\d+)_(ADL|Fall)_([A-Za-z_]+?)_(\d+)_(\d{4}-\d\d-\d\d)_(\d\d-\d\d-\d\d)\.csv")
_DEVICE = re.compile(r"%\s*[0-9A-Fa-f:]+\s*;\s*(\d+)\s*;\s*(\w+)\s*;")
_NUMBER = r"\s*-?\d+(\.\d*)?([eE][+-]?\d{1,3})?\s*"
_ROW = re.compile(rf"{_NUMBER}(;{_NUMBER}){{{len(COLUMNS) - 1}}};?\s*")
_FIX = "Use the official file, unchanged"


@DATASETS.register("umafall")
@dataclass(frozen=True)
class UmaFall(ImuDataset):
    """Twelve daily activities and three falls: a phone in the pocket (200 Hz), motes at four places (20 Hz).

    The four motes (TI SensorTag) have accelerometer, gyroscope and magnetometer; the phone has an accelerometer only,
    so it is left out unless ``gyro`` and ``mag`` are off. Every device stamps its samples by its own time of arrival,
    in milliseconds since the trial began.
    """

    name: ClassVar[str] = "umafall"
    title: ClassVar[str] = "UMAFall"
    licence: ClassVar[str] = "CC BY 4.0"
    url: ClassVar[str] = "https://figshare.com/articles/dataset/UMA_ADL_FALL_Dataset_zip/4214283"
    placements: ClassVar[tuple[str, ...]] = ("pocket", "chest", "waist", "wrist", "ankle")
    native_rate_hz: ClassVar[float | None] = 20.0
    channels: ClassVar[tuple[str, ...]] = IMU_CHANNELS + MAG_CHANNELS

    placement: Literal["all", "pocket", "chest", "waist", "wrist", "ankle"] = "all"
    """Which device."""
    gyro: bool = True
    """Read the gyroscope too; the phone in the pocket has none."""
    mag: bool = False
    """Read the magnetometer too; the phone in the pocket has none."""
    falls: Literal["unlabelled", "labelled", "left_out"] = "unlabelled"
    """What becomes of the falls; labelled adds their three kinds to the classes."""

    def class_names(self, root: Path | None = None) -> tuple[str, ...]:
        """Return the twelve daily activities, and the three falls when they are labelled."""
        return ACTIVITIES + (FALLS if self.falls == "labelled" else ())

    def read(self, root: Path | None = None) -> list[Recording]:
        """Return one recording for each trial, device and stretch without a gap.

        Raises:
            DataError: the folder is missing (the message names the download page), or a file cannot be used.
        """
        name = "UMAFall_Subject_*.csv"
        found = self.folder(root, *(above + name for above in ("", "UMAFall_Dataset/", "*/", "*/*/")))
        return [one for path in sorted(found.parent.glob(name)) for one in self._read_file(path)]

    def write_sample(self, root: Path) -> None:
        """Write two subjects with two activities and a fall each, in the official names and layout."""
        generator = np.random.default_rng(0)
        folder = root / "UMAFall_Dataset"
        folder.mkdir(parents=True, exist_ok=True)
        for subject in ("01", "18"):
            for kind, name in (("ADL", "Walking"), ("ADL", "Sitting_GettingUpOnAChair"), ("Fall", "lateralFall")):
                path = folder / f"UMAFall_Subject_{subject}_{kind}_{name}_1_2016-06-13_20-23-52.csv"
                path.write_text(_sample_text(subject, name, generator), encoding="ascii")

    def _read_file(self, path: Path) -> list[Recording]:
        match = _NAME.fullmatch(path.name)
        if match is None:
            must = "name must be UMAFall_Subject_NN_ADL or Fall_NAME_TRIAL_DATE_TIME.csv"
            raise DataError(path, must, path.name, _FIX)
        subject, kind, activity, trial, date, clock = match.groups()
        if kind == "Fall" and self.falls == "left_out":
            return []
        label = self._label(activity, path)
        wanted: list[Sensor] = ["acc", *(["gyro"] if self.gyro else []), *(["mag"] if self.mag else [])]
        recordings = []
        for placement, streams in _devices(path):
            if self.placement in ("all", placement) and set(wanted) <= set(streams):
                acc = streams["acc"]
                streams["acc"] = SensorStream(acc.times_s, acc.values, np.full(len(acc.values), label, np.int64))
                wearer = Wearer(subject, f"{activity}_{trial}_{date}_{clock}", placement, "umafall")
                try:
                    recordings += joint_recordings({sensor: streams[sensor] for sensor in wanted}, MAX_GAP_S, wearer)
                except NoOverlapError:
                    continue  # a mote that lost its connection
        return recordings

    def _label(self, activity: str, path: Path) -> int:
        """Return the class of an activity as the file's name spells it: whole, or its beginning."""
        known = [name for name in ACTIVITIES + FALLS if name.lower().startswith(activity.lower())]
        if len(known) != 1:
            must = f"activity must be one of {', '.join(ACTIVITIES + FALLS)}"
            raise DataError(path, must, repr(activity), _FIX)
        names = self.class_names()
        return names.index(known[0]) if known[0] in names else UNLABELLED


def _devices(path: Path) -> Iterator[tuple[str, dict[Sensor, SensorStream]]]:
    """Yield each device's placement and streams, in SI units [uT for mag]."""
    placements, rows = read_trial(path)
    for device in sorted(set(rows[:, 6].astype(int).tolist())):
        if device not in placements:
            must = f"device must be one of the header's {', '.join(map(str, placements))}"
            raise DataError(path, must, device, _FIX)
        streams: dict[Sensor, SensorStream] = {}
        for kind, (sensor, scale) in TYPES.items():
            found = rows[(rows[:, 6] == device) & (rows[:, 5] == kind)]
            if len(np.unique(found[:, 0])) >= MIN_STRETCH:
                found = found[np.argsort(found[:, 0], kind="stable")]
                streams[sensor] = SensorStream(found[:, 0] / 1000, found[:, 2:5] * scale)
        if "acc" in streams:
            yield placements[device], streams


def read_trial(path: Path) -> tuple[dict[int, str], np.ndarray]:
    """Read one trial's file.

    Args:
        path: a text file of comment lines that start with %, some of which describe the devices as in
            ``%C4:BE:84:71:A5:02; 2; WAIST; SensorTag``, and rows of seven numbers between semicolons.

    Returns:
        The placement of each device's number, and (rows, 7) float64: time [ms], sample number, x, y, z [g, deg/s or
        uT], sensor type (0 acc, 1 gyro, 2 mag), device number.

    Raises:
        DataError: the file is missing or empty, no device is described, or a row is broken.
    """
    check_file(path)
    lines = path.read_text(encoding="latin-1").splitlines()
    placements = {}
    for found in filter(None, map(_DEVICE.match, lines)):
        position = found[2].upper()
        if position not in PLACEMENT:
            raise DataError(path, f"position must be one of {', '.join(PLACEMENT)}", repr(found[2]), _FIX)
        placements[int(found[1])] = PLACEMENT[position]
    if not placements:
        raise DataError(path, "header must describe the devices", "no such line", _FIX)
    rows = [(number, line) for number, line in enumerate(lines, start=1) if line.strip() and not line.startswith("%")]
    broken = next(((number, line) for number, line in rows if not _ROW.fullmatch(line)), None)
    if broken is not None or not rows:
        number, line = broken or (len(lines), "no row")
        raise DataError(f"{path}, row {number}", f"must be {'; '.join(COLUMNS)}", repr(line[:60]), _FIX)
    text = "\n".join(line.rstrip("; \t") for _, line in rows)
    frame = pd.read_csv(io.StringIO(text), sep=";", header=None, dtype=np.float64, quoting=csv.QUOTE_NONE)
    return placements, frame.to_numpy(np.float64)


_HEADER = """\
% Universidad de Malaga - ETSI de Telecomunicacion (Spain)
% Subject ID: Subject_{subject}
% Type of Movement: {activity}
%
%f8:95:c7:f3:ba:82; 0; RIGHTPOCKET; lge-LG-H815-5.1
%C4:BE:84:71:A5:02; 2; WAIST; SensorTag
%C4:BE:84:70:0E:80; 3; WRIST; SensorTag
%B0:B4:48:B8:77:03; 4; ANKLE; SensorTag
%C4:BE:84:70:64:8A; 1; CHEST; SensorTag
%
% Sensor_Type:
% Accelerometer = 0
% Gyroscope = 1
% Magnetometer = 2
%
% TimeStamp; Sample No; X-Axis; Y-Axis; Z-Axis; Sensor Type; Sensor ID
"""


def _sample_text(subject: str, activity: str, generator: np.random.Generator) -> str:
    """Return 12 s of all five devices, their rows mixed in order of time, stamps in whole milliseconds."""
    rows: list[tuple[int, str]] = []
    for device in range(5):
        measured = worn_device(12, (3.0, 9.0), generator)
        rate_hz = 200.0 if device == 0 else 20.1
        times = 0.007 * device + np.arange(round(11.8 * rate_hz)) / rate_hz
        acc, gyro = measured(times)
        mag = generator.normal((20, -5, -40), 0.5, acc.shape)
        for kind, values in ((0, acc), (1, gyro), (2, mag))[: 1 if device == 0 else 3]:
            stamps = np.rint(times * 1000).astype(int).tolist()
            scaled = (values / TYPES[kind][1]).tolist()
            rows += [
                (stamp, f"{stamp};{sample};{';'.join(f'{value:.6g}' for value in row)};{kind};{device}")
                for sample, (stamp, row) in enumerate(zip(stamps, scaled, strict=True), start=1)
            ]
    ordered = sorted(rows, key=lambda row: row[0])
    return _HEADER.format(subject=subject, activity=activity) + "\n".join(row for _, row in ordered) + "\n"
