"""RealWorld: fifteen people, seven devices each, eight activities (Sztyler and Stuckenschmidt 2016, PerCom)."""

import io
import re
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pandas as pd

from imu_saga.dataset import DATASETS, ImuDataset
from imu_saga.datasets._own_clock import worn_device
from imu_saga.files.tables import check_file
from imu_saga.recording import IMU_CHANNELS, MAG_CHANNELS, Recording
from imu_saga.signal.clock import MIN_STRETCH
from imu_saga.signal.sensor_clocks import NoOverlapError, Sensor, SensorStream, Wearer, joint_recordings
from shared_peft.errors import DataError

CLASSES = ("climbingdown", "climbingup", "jumping", "lying", "running", "sitting", "standing", "walking")
POSITIONS = ("chest", "forearm", "head", "shin", "thigh", "upperarm", "waist")
ARCHIVE_OF: dict[Sensor, str] = {"acc": "acc", "gyro": "gyr", "mag": "mag"}
TABLE_OF: dict[Sensor, str] = {"acc": "acc", "gyro": "Gyroscope", "mag": "MagneticField"}
COLUMNS = ("attr_time", "attr_x", "attr_y", "attr_z")
MAX_GAP_S = 0.5  # [s] ours
MAX_ARCHIVE_BYTES = 512 << 20  # ours; the real archives hold some 30 MB
MAX_NESTED = 2  # an archive of a climb holds one archive for each of its parts
_FIX = "Use the official file, unchanged"

_Parts = dict[tuple[str, str], list[np.ndarray]]  # (activity, position): (rows, 4) time [ms] and x, y, z


@DATASETS.register("realworld")
@dataclass(frozen=True)
class RealWorld(ImuDataset):
    """Stairs, jumping, lying, running, sitting, standing and walking, outdoors, seven places at once, about 50 Hz.

    The files are read as they are distributed, zips within folders (some with zips for the parts of a climb within), or
    unpacked; a table's own name tells what it holds. Parts of an activity need no order: their stamps are the phone's
    wall clock [ms], so parts are laid end to end by time and the time between them is a gap.
    """

    name: ClassVar[str] = "realworld"
    title: ClassVar[str] = "RealWorld (HAR)"
    licence: ClassVar[str] = "research use"
    url: ClassVar[str] = (
        "https://www.uni-mannheim.de/dws/research/projects/activity-recognition/dataset/dataset-realworld/"
    )
    placements: ClassVar[tuple[str, ...]] = POSITIONS
    native_rate_hz: ClassVar[float | None] = 50.0
    channels: ClassVar[tuple[str, ...]] = IMU_CHANNELS + MAG_CHANNELS

    placement: Literal["all", "chest", "forearm", "head", "shin", "thigh", "upperarm", "waist"] = "waist"
    """Which device."""
    gyro: bool = True
    """Read the gyroscope too; recordings without one are then left out."""
    mag: bool = False
    """Read the magnetometer too; recordings without one are then left out."""

    def class_names(self, root: Path | None = None) -> tuple[str, ...]:
        """Return the eight activities."""
        return CLASSES

    def read(self, root: Path | None = None) -> list[Recording]:
        """Return one recording for each person, activity, device and stretch without a gap.

        Raises:
            DataError: the folder is missing (the message names the download page), or a file cannot be used.
        """
        name = "proband[0-9]*/data"
        found = self.folder(root, *(above + name for above in ("", "realworld2016_dataset/", "*/")))
        folders = sorted(found.parent.parent.glob(name), key=lambda folder: (len(folder.parent.name), folder.parent))
        return [recording for folder in folders for recording in self._read_person(folder)]

    def write_sample(self, root: Path) -> None:
        """Write two people with walking, sitting and a climb in two parts, zipped as the official files are."""
        generator = np.random.default_rng(0)
        for person in (1, 4):
            folder = root / "realworld2016_dataset" / f"proband{person}" / "data"
            folder.mkdir(parents=True, exist_ok=True)
            for start_s, activity in ((1_435_993_000.0, "walking"), (1_435_994_000.0, "sitting")):
                infix = f"{activity}_2" if person == 4 and activity == "walking" else activity
                for sensor, tables in _sample_tables(infix, start_s, activity == "walking", generator).items():
                    path = folder / f"{ARCHIVE_OF[sensor]}_{activity}_csv.zip"
                    path.write_bytes(_zipped({**tables, "readMe": b"one table for each position"}))
            self._write_climb(folder, generator)

    def _read_person(self, folder: Path) -> list[Recording]:
        wanted: list[Sensor] = ["acc", *(["gyro"] if self.gyro else []), *(["mag"] if self.mag else [])]
        positions = POSITIONS if self.placement == "all" else (self.placement,)
        parts = {sensor: _parts(folder, sensor, positions) for sensor in wanted}
        recordings = []
        for activity, position in sorted(parts["acc"]):
            streams: dict[Sensor, SensorStream] = {}
            for sensor in wanted:
                rows = _by_time(parts[sensor].get((activity, position), []))
                if len(rows) >= MIN_STRETCH:
                    streams[sensor] = SensorStream(rows[:, 0] / 1000, rows[:, 1:])
            if len(streams) == len(wanted):
                wearer = Wearer(folder.parent.name.removeprefix("proband"), activity, position, "realworld")
                recordings += _labelled(streams, CLASSES.index(activity), wearer)
        return recordings

    def _write_climb(self, folder: Path, generator: np.random.Generator) -> None:
        """Write zips in a zip; the accelerometer's first part is numbered, the other sensors' is not."""
        inner: dict[Sensor, dict[str, bytes]] = defaultdict(dict)
        for part, infix in enumerate(("climbingup", "climbingup_2"), start=1):
            tables_of = _sample_tables(infix, 1_435_995_000.0 + 60 * part, True, generator)
            for sensor, tables in tables_of.items():
                number = f"_{part}" if part > 1 or sensor == "acc" else ""
                inner[sensor][f"{ARCHIVE_OF[sensor]}_climbingup{number}_csv.zip"] = _zipped(tables)
        for sensor, archives in inner.items():
            (folder / f"{ARCHIVE_OF[sensor]}_climbingup_csv.zip").write_bytes(_zipped(archives))


def _labelled(streams: dict[Sensor, SensorStream], label: int, wearer: Wearer) -> list[Recording]:
    acc = streams["acc"]
    streams["acc"] = SensorStream(acc.times_s, acc.values, np.full(len(acc.values), label, np.int64))
    try:
        return joint_recordings(streams, MAX_GAP_S, wearer)
    except NoOverlapError:
        return []  # a sensor that failed


def _by_time(parts: list[np.ndarray]) -> np.ndarray:
    """Return the (rows, 4) of all parts in order of time, each time once."""
    if not parts:
        return np.zeros((0, 4))
    rows = np.concatenate(parts)
    return rows[np.unique(rows[:, 0], return_index=True)[1]]


def _parts(folder: Path, sensor: Sensor, positions: tuple[str, ...]) -> _Parts:
    """Read all of a person's tables of one sensor, unpacked or in archives."""
    wanted = re.compile(rf"{TABLE_OF[sensor]}_({'|'.join(CLASSES)})(?:_\d)?_({'|'.join(positions)})\.csv")
    found: _Parts = defaultdict(list)
    for path in sorted(folder.rglob("*.csv")):
        match = wanted.fullmatch(path.name)
        if match:
            check_file(path)
            found[match[1], match[2]].append(_read_table(path, str(path)))
    for path in sorted(folder.glob(f"{ARCHIVE_OF[sensor]}_*_csv.zip")):
        check_file(path)
        for where, match, content in _in_archive(str(path), path.read_bytes(), wanted):
            found[match[1], match[2]].append(_read_table(io.BytesIO(content), where))
    return found


def _in_archive(
    where: str, content: bytes, wanted: re.Pattern[str], depth: int = 1
) -> Iterator[tuple[str, re.Match[str], bytes]]:
    """Yield (address, match, bytes) of the wanted tables of a zip file; an entry's name is never used as a path."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
            if size > MAX_ARCHIVE_BYTES or depth > MAX_NESTED:
                must = f"must hold at most {MAX_ARCHIVE_BYTES >> 20} MiB, and archives at most {MAX_NESTED} deep"
                raise DataError(where, must, f"{size / 2**20:.1f} MiB, {depth} deep", _FIX)
            for entry in archive.infolist():
                name = entry.filename.rpartition("/")[2]
                match, address = wanted.fullmatch(name), f"{where}, {entry.filename}"
                if match:
                    yield address, match, archive.read(entry)
                elif name.endswith(".zip"):
                    yield from _in_archive(address, archive.read(entry), wanted, depth + 1)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        raise DataError(where, "must be a whole zip file", error, "Copy or download it again") from error


def _read_table(stream: io.BytesIO | Path, where: str) -> np.ndarray:
    """Return the (rows, 4) float64 of a table: attr_time [ms], attr_x, attr_y, attr_z."""
    try:
        frame = pd.read_csv(stream, usecols=list(COLUMNS), dtype=np.float64, skipinitialspace=True)
    except (ValueError, OverflowError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise DataError(where, f"must be a table with {', '.join(COLUMNS)}", error, _FIX) from error
    rows = frame[list(COLUMNS)].to_numpy(np.float64)
    bad = ~np.isfinite(rows).all(axis=1)
    if bad.any():
        raise DataError(f"{where}, row {int(np.argmax(bad)) + 2}", "must hold numbers", "an empty cell", _FIX)
    return rows


def _zipped(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def _sample_tables(
    infix: str, start_s: float, active: bool, generator: np.random.Generator
) -> dict[Sensor, dict[str, bytes]]:
    """Return 10 s of tables of three sensors at two positions, stamped in whole ms, each sensor by its own clock."""
    tables: dict[Sensor, dict[str, bytes]] = {"acc": {}, "gyro": {}, "mag": {}}
    for position in ("chest", "waist"):
        measured = worn_device(10, (0.0, 10.0 if active else 0.0), generator)
        rates_hz: dict[Sensor, float] = {"acc": 50.1, "gyro": 49.7, "mag": 50.0}
        for column, (sensor, rate_hz) in enumerate(rates_hz.items()):
            times = 0.006 * column + np.arange(490) / rate_hz
            values = (*measured(times), generator.normal((20, -5, -40), 0.5, (len(times), 3)))[column]
            stamps = np.rint((start_s + times) * 1000).astype(np.int64).tolist()
            rows = [
                f"{number},{stamp},{','.join(f'{value:.7g}' for value in row)}"
                for number, (stamp, row) in enumerate(zip(stamps, values.tolist(), strict=True), start=1)
            ]
            text = "\n".join(["id," + ",".join(COLUMNS), *rows]) + "\n"
            tables[sensor][f"{TABLE_OF[sensor]}_{infix}_{position}.csv"] = text.encode("ascii")
    return tables
