"""HHAR: nine people, eight phones and four watches of six models (Stisen et al. 2015, doi:10.1145/2809695.2809718)."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pandas as pd

from imu_saga.dataset import DATASETS, ImuDataset
from imu_saga.datasets._own_clock import worn_device
from imu_saga.files.tables import read_header
from imu_saga.recording import UNLABELLED, Recording
from imu_saga.signal.sensor_clocks import NoOverlapError, Sensor, SensorStream, Wearer, joint_recordings
from shared_peft.errors import DataError

CLASSES = ("bike", "sit", "stand", "walk", "stairsup", "stairsdown")
COLUMNS = ("Arrival_Time", "Creation_Time", "x", "y", "z", "User", "Device", "gt")
FILES: dict[str, dict[Sensor, str]] = {
    "phone": {"acc": "Phones_accelerometer.csv", "gyro": "Phones_gyroscope.csv"},
    "watch": {"acc": "Watch_accelerometer.csv", "gyro": "Watch_gyroscope.csv"},
}
PLACEMENT = {"phone": "waist", "watch": "wrist"}
CHUNK_ROWS = 500_000  # 13 million rows a file: text is held for this many, numbers (29 bytes a row) for all
MAX_GAP_S = 0.5  # [s] ours
EPOCH_APART_S = 5.0  # [s] ours; deliveries come less late than this, restarts of a clock are further apart

_Key = tuple[str, str]  # user, device


@dataclass(frozen=True, eq=False)
class _Rows:
    """One sensor of one device on one user: (rows,) arrival and creation times, (rows, 3) values, (rows,) labels."""

    arrival_ms: np.ndarray
    creation_ns: np.ndarray
    values: np.ndarray
    labels: np.ndarray


@DATASETS.register("hhar")
@dataclass(frozen=True)
class Hhar(ImuDataset):
    """Bike, sit, stand, walk, stairs up and down; phones in a waist pouch, watches on the wrist, 50 to 200 Hz by model.

    Two clocks are given for each sample. Creation_Time [ns] is the sensor's own and steady, but it counts from the
    epoch on some devices, from the last start on others, and starts anew in the middle of a file. Arrival_Time [ms] is
    the device's one wall clock for both sensors, but samples arrive late and in batches. So the steps are those of
    Creation_Time, and each of its epochs is moved as a whole to where Arrival_Time says it belongs.
    """

    name: ClassVar[str] = "hhar"
    title: ClassVar[str] = "HHAR (Heterogeneity Activity Recognition)"
    licence: ClassVar[str] = "CC BY 4.0"
    url: ClassVar[str] = "https://archive.ics.uci.edu/dataset/344/heterogeneity+activity+recognition"
    placements: ClassVar[tuple[str, ...]] = ("waist", "wrist")
    native_rate_hz: ClassVar[float | None] = None

    device: Literal["phone", "watch", "both"] = "phone"
    """Which kind of device."""
    gyro: bool = True
    """Read the gyroscope too; devices without one are then left out."""

    def class_names(self, root: Path | None = None) -> tuple[str, ...]:
        """Return the six activities."""
        return CLASSES

    def read(self, root: Path | None = None) -> list[Recording]:
        """Return one recording for each stretch without a gap, by user and device.

        Raises:
            DataError: the folder is missing (the message names the download page), or a file cannot be used.
        """
        kinds = ("phone", "watch") if self.device == "both" else (self.device,)
        return [recording for kind in kinds for recording in self._read_kind(root, kind)]

    def write_sample(self, root: Path) -> None:
        """Write two users with two phones and a watch each, and the traps: see ``_write_device``."""
        generator = np.random.default_rng(0)
        folder = root / "Activity recognition exp"
        folder.mkdir(parents=True, exist_ok=True)
        header = ",".join(("Index", *COLUMNS[:6], "Model", *COLUMNS[6:]))
        for names in FILES.values():
            for name in names.values():
                (folder / name).write_text(header + "\n", encoding="utf-8")
        for user in "ab":
            for kind, device, rate_hz in (("phone", "nexus4_1", 200.0), ("phone", "s3mini_2", 100.0)):
                _write_device(folder, kind, user, device, rate_hz, generator)
            _write_device(folder, "watch", user, "gear_1", 100.0, generator)

    def _read_kind(self, root: Path | None, kind: str) -> list[Recording]:
        names = FILES[kind]
        patterns = tuple(f"{above}{names['acc']}" for above in ("", "Activity recognition exp/", "*/", "*/*/"))
        folder = self.folder(root, *patterns).parent
        sensors: tuple[Sensor, ...] = ("acc", "gyro") if self.gyro else ("acc",)
        rows = {sensor: _read_rows(folder / names[sensor]) for sensor in sensors}
        recordings = []
        for key in sorted(rows["acc"]):
            found: dict[Sensor, _Rows] = {sensor: rows[sensor].pop(key) for sensor in sensors if key in rows[sensor]}
            if len(found) == len(sensors):
                recordings += _recordings(found, Wearer(key[0], key[1], PLACEMENT[kind], "hhar"))
        return recordings


def _recordings(rows: dict[Sensor, _Rows], wearer: Wearer) -> list[Recording]:
    times = _on_arrival_clock(rows)
    streams: dict[Sensor, SensorStream] = {}
    for sensor, found in rows.items():
        order = np.argsort(times[sensor], kind="stable")
        streams[sensor] = SensorStream(times[sensor][order], found.values[order], found.labels[order].astype(np.int64))
    try:
        return joint_recordings(streams, MAX_GAP_S, wearer)
    except NoOverlapError:
        return []  # a sensor that failed while the other went on


def _on_arrival_clock(rows: dict[Sensor, _Rows]) -> dict[Sensor, np.ndarray]:
    """Return each sensor's (rows,) times [s] since the device's first arrival.

    How late a sample arrives by its creation clock tells the clock's epoch: within one the lateness varies by delays
    alone. The sensors are pooled, because on a common clock their different delays must not tear them apart.
    """
    start_ms = min(int(found.arrival_ms.min()) for found in rows.values())
    late: dict[Sensor, np.ndarray] = {
        sensor: (found.arrival_ms - start_ms) / 1e3 - found.creation_ns / 1e9 for sensor, found in rows.items()
    }
    pooled = np.sort(np.concatenate(list(late.values())))
    epochs = np.split(pooled, np.flatnonzero(np.diff(pooled) > EPOCH_APART_S) + 1)
    begins, shifts = np.array([epoch[0] for epoch in epochs]), np.array([np.median(epoch) for epoch in epochs])
    return {
        sensor: found.creation_ns / 1e9 + shifts[np.searchsorted(begins, late[sensor], side="right") - 1]
        for sensor, found in rows.items()
    }


def _read_rows(path: Path) -> dict[_Key, _Rows]:
    """Read a file of any length, grouped by user and device."""
    parts: dict[_Key, list[_Rows]] = defaultdict(list)
    for chunk in _chunks(path):
        labels = _label_indices(chunk["gt"], path)
        for key, rows in chunk.groupby(["User", "Device"], observed=True, sort=False).indices.items():
            part = chunk.iloc[rows]
            found = _Rows(
                part["Arrival_Time"].to_numpy(np.int64),
                part["Creation_Time"].to_numpy(np.int64),
                part[["x", "y", "z"]].to_numpy(np.float32),
                labels[rows],
            )
            if not np.isfinite(found.values).all():
                row = int(part.index[np.argmax(~np.isfinite(found.values).all(axis=1))]) + 2
                raise DataError(f"{path}, row {row}", "x, y, z must be finite", "nan or inf", "Use the official file")
            user, device = key  # type: ignore[misc]  (grouped by two columns)
            parts[str(user), str(device)].append(found)
    fields = ("arrival_ms", "creation_ns", "values", "labels")
    return {
        key: _Rows(*(np.concatenate([getattr(part, field) for part in found]) for field in fields))
        for key, found in parts.items()
    }


def _chunks(path: Path) -> Iterator[pd.DataFrame]:
    names, _ = read_header(path, ",")
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        raise DataError(path, f"header must name {', '.join(missing)}", ", ".join(names), "Use the official file")
    kinds = {"Arrival_Time": "int64", "Creation_Time": "int64", "User": "category", "Device": "category"}
    kinds |= {"x": "float32", "y": "float32", "z": "float32", "gt": "category"}
    try:
        with pd.read_csv(
            path,
            usecols=list(COLUMNS),
            dtype=kinds,  # type: ignore[arg-type]  (a mapping from names to types)
            chunksize=CHUNK_ROWS,
            keep_default_na=False,
        ) as chunks:
            yield from chunks
    except (ValueError, OverflowError, pd.errors.ParserError) as error:
        raise DataError(path, "every row must be as in the official file", error, "Download it again") from error


def _label_indices(texts: pd.Series, path: Path) -> np.ndarray:
    """Return (rows,) int8 class indices; "null" and empty cells are unlabelled."""
    known = {name: index for index, name in enumerate(CLASSES)} | {"null": UNLABELLED, "": UNLABELLED}
    names = [str(name).strip() for name in texts.cat.categories]
    strange = [name for name in names if name not in known]
    if strange:
        must = f"gt must be null, empty or one of {', '.join(CLASSES)}"
        raise DataError(path, must, ", ".join(map(repr, strange)), "Use the official file, unchanged")
    return np.array([known[name] for name in names], np.int8)[texts.cat.codes.to_numpy()]


def _write_device(
    folder: Path, kind: str, user: str, device: str, rate_hz: float, generator: np.random.Generator
) -> None:
    """Append 16 s of one device with the traps of the real files.

    The gyroscope runs at its own rate and phase; samples arrive in batches of ten, up to 50 ms late; the creation
    clock counts from the epoch, and starts anew at 0 half-way through; the first third of the rows comes last; the
    labels begin as "null", and one activity follows another.
    """
    start_s, model = 1_424_696_633.0, device.rpartition("_")[0]
    measured = worn_device(16, (6, 16), generator)
    for column, (sensor, name) in enumerate(FILES[kind].items()):
        rate = rate_hz * (1.0 if sensor == "acc" else 0.97)
        times = (0.0 if sensor == "acc" else 0.0042) + np.arange(round(16 * rate)) / rate
        values = measured(times)[column]
        created_ns = np.rint(1e9 * np.where(times < 8, start_s - 2 + times, times - 8)).astype(np.int64)
        batch_s = times[np.minimum(np.arange(len(times)) // 10 * 10 + 9, len(times) - 1)]
        arrived_ms = np.rint(1e3 * (start_s + batch_s)).astype(np.int64)
        truth = np.select([times < 2, times < 6, times < 12], ["null", "stand", "walk"], "stairsup")
        rows = [
            f"{index},{arrived_ms[index]},{created_ns[index]},"
            f"{','.join(map(repr, values[index].tolist()))},{user},{model},{device},{truth[index]}"
            for index in np.roll(np.arange(len(times)), -(len(times) // 3)).tolist()
        ]
        with (folder / name).open("a", encoding="utf-8") as stream:
            stream.write("\n".join(rows) + "\n")
