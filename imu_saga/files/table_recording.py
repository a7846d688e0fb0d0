"""A user's own table, whatever file it came from: columns mapped by name, units and time told, recordings made."""

import abc
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from imu_saga.dataset import ImuDataset
from imu_saga.files.table_rows import TableRows, are_interleaved, check_numbers, fill_holes, pieces_in_order
from imu_saga.recording import ACC_CHANNELS, GYRO_CHANNELS, IMU_CHANNELS, MAG_CHANNELS, UNLABELLED, Recording
from imu_saga.signal.clock import TIME_SCALE, Stretch, TimeUnit, detect_time_unit, to_uniform
from imu_saga.signal.sensor_clocks import CHANNELS_OF, Sensor, SensorStream, on_one_clock
from imu_saga.signal.units import AccUnit, GyroUnit, MagUnit, acc_to_si, gyro_to_si, mag_to_si
from shared_peft.errors import DataError

Columns = tuple[dict[str, np.ndarray], dict[str, np.ndarray]]


@dataclass(frozen=True)
class TableDataset(ImuDataset):
    """One table, or a folder of them, each a session; units and time are detected where not declared.

    Every option about columns is a name in the file. Empty cells count as a gap: gaps up to ``max_gap_s`` are
    interpolated and marked invalid, longer ones are refused (empty cells) or split the recording (missing rows).
    Sensors on rows of their own, or in files of their own, are put on the accelerometer's clock.
    """

    licence: ClassVar[str] = "yours"
    placements: ClassVar[tuple[str, ...]] = ("unknown",)
    native_rate_hz: ClassVar[float | None] = None
    channels: ClassVar[tuple[str, ...]] = IMU_CHANNELS + MAG_CHANNELS
    suffix: ClassVar[str]
    first_row: ClassVar[int] = 0

    acc: tuple[str, str, str] = ACC_CHANNELS
    """Columns of the accelerometer, x y z, gravity included."""
    gyro: tuple[str, str, str] | None = GYRO_CHANNELS
    """Columns of the gyroscope, x y z; none for an accelerometer alone."""
    mag: tuple[str, str, str] | None = None
    """Columns of the magnetometer, x y z; none leaves it out."""
    time: str | None = "time"
    """Column of timestamps; none when the rows are evenly spaced at rate_hz."""
    label: str | None = None
    """Column of class names; empty cells are unlabelled."""
    subject: str | None = None
    """Column of subject names; none takes the file's name."""
    session: str | None = None
    """Column of session names; none makes each file a session."""
    gyro_file: str | None = None
    """File beside the accelerometer's that holds the gyroscope, with a clock of its own; none for the same file."""
    mag_file: str | None = None
    """File beside the accelerometer's that holds the magnetometer; none for the same file."""
    acc_unit: AccUnit | Literal["auto"] = "auto"
    """Unit of the accelerometer."""
    gyro_unit: GyroUnit | Literal["auto"] = "auto"
    """Unit of the gyroscope."""
    mag_unit: MagUnit = "uT"
    """Unit of the magnetometer."""
    time_unit: TimeUnit | Literal["auto"] = "auto"
    """Unit of the timestamps."""
    rate_hz: float | None = None
    """Sampling rate [Hz], for files without timestamps."""
    classes: tuple[str, ...] = ()
    """Class names in order; empty takes those in the files, sorted."""
    placement: str = "unknown"
    """Where the device was worn."""
    max_gap_s: float = 0.5
    """A gap longer than this [s] splits the recording."""
    sort: bool = False
    """Put rows in order of time, with a warning, where they are not."""
    split_resets: bool = False
    """Begin a new session where the clock restarts."""

    @abc.abstractmethod
    def read_columns(self, path: Path, numbers: Sequence[str], texts: Sequence[str] = ()) -> Columns:
        """Return the named columns of a file: numbers as (rows,) float64 with NaN for empty cells, texts as str."""

    @abc.abstractmethod
    def column_names(self, path: Path) -> list[str]:
        """Return the names of all columns of a file."""

    def class_names(self, root: Path | None = None) -> tuple[str, ...]:
        """Return the declared classes, or the sorted names in the files' label column."""
        if self.classes or self.label is None:
            return self.classes
        found = [np.unique(self.read_columns(file, (), (self.label,))[1][self.label]) for file in self.files(root)]
        return tuple(str(name) for name in np.unique(np.concatenate(found)) if name)

    def read(self, root: Path | None = None) -> list[Recording]:
        """Return one recording for each stretch without a long gap.

        Args:
            root: a file, or a folder of them.

        Raises:
            DataError: says which file, row and column cannot be used, and why.
        """
        if (self.time is None) == (self.rate_hz is None):
            came = "both" if self.time else "neither"
            raise DataError(self.name, "must have a time column or rate_hz", came, "Give one of the two")
        self._check_columns()
        classes = self.class_names(root)
        return [recording for path in self.files(root) for recording in self._read_file(path, classes)]

    def files(self, root: Path | None) -> list[Path]:
        """Return the files with an accelerometer: ``root`` itself, or those of its folder."""
        if root is not None and root.is_file():
            return [root]
        self.folder(root, f"*.{self.suffix}")
        assert root is not None
        return [path for path in sorted(root.glob(f"*.{self.suffix}")) if path.name not in self._other_files]

    @property
    def sensors(self) -> dict[Sensor, tuple[str, str, str]]:
        """The columns of every sensor asked for."""
        mapped = {"acc": self.acc, "gyro": self.gyro, "mag": self.mag}
        return {name: columns for name, columns in mapped.items() if columns is not None}  # type: ignore[misc]

    @property
    def _other_files(self) -> dict[str, Sensor]:
        named: tuple[tuple[str | None, Sensor], ...] = ((self.gyro_file, "gyro"), (self.mag_file, "mag"))
        return {file: sensor for file, sensor in named if file is not None}

    def _check_columns(self) -> None:
        apart = self._other_files.values()
        here = [column for sensor, columns in self.sensors.items() if sensor not in apart for column in columns]
        here += [self.time] if self.time is not None else []
        repeated = sorted({name for name in here if here.count(name) > 1})
        if repeated:
            fix = "Map every axis to a column of its own"
            raise DataError(f"{self.name} columns", "must differ", f"{', '.join(repeated)} twice", fix)

    def _read_file(self, path: Path, classes: tuple[str, ...]) -> list[Recording]:
        apart = self._other_files
        here: list[Sensor] = [sensor for sensor in self.sensors if sensor not in apart.values()]
        first = self._table(path, here, classes)
        tables = [(here, first)]
        for file, sensor in apart.items():
            tables.append(([sensor], self._table(path.with_name(file), [sensor], origin=first.origin)))
        pieces = [
            (sensors, pieces_in_order(table, sort=self.sort, split_resets=self.split_resets))
            for sensors, table in tables
        ]
        cut = [
            (key, labels, stretch)
            for key in pieces[0][1]
            for labels, stretch in self._stretches([(s, self._piece(found, key, path)) for s, found in pieces])
        ]
        signals = self._in_si(path, [stretch for _, _, stretch in cut])
        return [
            self._recording(key, labels, stretch, signal)
            for (key, labels, stretch), signal in zip(cut, signals, strict=True)
        ]

    def _piece(self, found: dict[tuple[str, str], TableRows], key: tuple[str, str], path: Path) -> TableRows:
        if self.subject is None and self.session is None and len(found) == 1:
            return next(iter(found.values()))
        if key not in found:
            fix = "Name the subjects and sessions alike in every sensor's file"
            raise DataError(path, "every sensor must have the same sessions", f"no {'/'.join(key)} in one", fix)
        return found[key]

    def _stretches(self, tables: list[tuple[list[Sensor], TableRows]]) -> list[tuple[np.ndarray, Stretch]]:
        """Return stretches in file units, acc gyro mag, each with the labels of its samples."""
        first = tables[0][1]
        interleaved = self.time is not None and are_interleaved(first.values, len(tables[0][0]))
        if len(tables) == 1 and not interleaved:
            values, measured = fill_holes(first, self.max_gap_s)
            made = to_uniform(first.times_s, values, max_gap_s=self.max_gap_s, where=str(first.path))
            return [(first.labels[one.nearest], replace(one, valid=one.valid & measured[one.nearest])) for one in made]
        streams: dict[Sensor, SensorStream] = {}
        labels = first.labels
        for sensors, table in tables:
            for index, sensor in enumerate(sensors):
                part = table.at(np.arange(len(table)), slice(3 * index, 3 * index + 3))
                part = part.at(np.flatnonzero(~np.isnan(part.values).any(axis=1)))
                labels = part.labels if sensor == "acc" else labels
                streams[sensor] = SensorStream(part.times_s, part.values)
        ordered: dict[Sensor, SensorStream] = {sensor: streams[sensor] for sensor in self.sensors}
        made = on_one_clock(ordered, self.max_gap_s, str(first.path))
        return [(labels[one.nearest], one) for one in made]

    def _in_si(self, path: Path, stretches: list[Stretch]) -> list[np.ndarray]:
        """Convert the stretches of a file; units are told from all of them together."""
        together = np.concatenate([one.values for one in stretches])
        rate_hz = float(np.median([one.rate_hz for one in stretches]))
        where = {sensor: f"{path}, columns {', '.join(columns)}" for sensor, columns in self.sensors.items()}
        parts = [acc_to_si(together[:, :3], self.acc_unit, where["acc"])]
        if "gyro" in where:
            parts.append(gyro_to_si(parts[0], together[:, 3:6], self.gyro_unit, rate_hz, where["gyro"]))
        if "mag" in where:
            parts.append(mag_to_si(together[:, -3:], self.mag_unit, where["mag"]))
        edges = np.cumsum([len(one.values) for one in stretches])[:-1]
        return np.split(np.concatenate(parts, axis=1), edges)

    def _recording(self, key: tuple[str, str], labels: np.ndarray, stretch: Stretch, signal: np.ndarray) -> Recording:
        return Recording(
            signal=signal.astype(np.float32),
            channels=tuple(name for sensor in self.sensors for name in CHANNELS_OF[sensor]),
            rate_hz=stretch.rate_hz,
            labels=labels,
            valid=stretch.valid,
            subject=key[0],
            session=key[1],
            placement=self.placement,
            dataset=self.name,
            start_s=stretch.start_s,
        )

    def _table(
        self, path: Path, sensors: list[Sensor], classes: tuple[str, ...] | None = None, origin: float | None = None
    ) -> TableRows:
        """Read one file; without ``classes`` its labels are left alone, without ``origin`` it begins at 0 s."""
        columns = tuple(column for sensor in sensors for column in self.sensors[sensor])
        label = self.label if classes is not None else None
        texts = [name for name in (label, self.subject, self.session) if name is not None]
        times = [self.time] if self.time is not None else []
        numbers, words = self.read_columns(path, (*columns, *times), texts)
        values = np.stack([numbers[name] for name in columns], axis=1)
        stem = np.full(len(values), path.stem)
        times_s, zero = self._times(path, numbers, values, origin)
        table = TableRows(
            path=path,
            columns=columns,
            values=values,
            time=self.time or "row number",
            times_s=times_s,
            origin=zero,
            labels=self._label_indices(path, words[label], classes or ()) if label else _unlabelled(len(values)),
            subjects=words[self.subject] if self.subject is not None else stem,
            sessions=words[self.session] if self.session is not None else stem,
            numbers=np.arange(len(values)) + self.first_row,
        )
        check_numbers(table)
        return table

    def _times(
        self, path: Path, numbers: dict[str, np.ndarray], values: np.ndarray, origin: float | None
    ) -> tuple[np.ndarray, float]:
        """Return (rows,) times [s] since ``origin``, or since the earliest stamp, and that stamp."""
        if self.time is None:
            assert self.rate_hz is not None
            if not (np.isfinite(self.rate_hz) and self.rate_hz > 0):
                raise DataError("rate_hz", "must be a positive number", self.rate_hz, "Give the rate in Hz")
            return np.arange(len(values)) / self.rate_hz, 0.0
        stamps, where = numbers[self.time], f"{path}, column {self.time}"
        if not np.isfinite(stamps).all():
            row = int(np.argmax(~np.isfinite(stamps)))
            fix = "Fill the cell or remove the row"
            where = f"{path}, row {row + self.first_row}, column {self.time}"
            raise DataError(where, "time must be given", stamps[row], fix)
        zero = float(stamps.min()) if origin is None else origin
        unit = detect_time_unit(_of_first_sensor(stamps, values), where) if self.time_unit == "auto" else self.time_unit
        return (stamps - zero) * TIME_SCALE[unit], zero

    def _label_indices(self, path: Path, names: np.ndarray, classes: tuple[str, ...]) -> np.ndarray:
        labels = _unlabelled(len(names))
        for index, name in enumerate(classes):
            labels[names == name] = index
        strange = (labels == UNLABELLED) & (names != "")
        if strange.any():
            row = int(np.argmax(strange))
            where = f"{path}, row {row + self.first_row}, column {self.label}"
            must = f"label must be empty or one of {', '.join(classes)}"
            raise DataError(where, must, repr(str(names[row])), "Correct the label or the list of classes")
        return labels


def _unlabelled(rows: int) -> np.ndarray:
    return np.full(rows, UNLABELLED, dtype=np.int64)


def _of_first_sensor(stamps: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the ascending stamps of the rows that hold the first sensor: the others may tick in between."""
    own = ~np.isnan(values[:, :3]).all(axis=1)
    kept = stamps[own] if own.any() else stamps
    return kept if (np.diff(kept) >= 0).all() else np.sort(kept)


def sample_table(seed: int = 0) -> dict[str, dict[str, np.ndarray]]:
    """Return, by file name, two tables of 20 s at 50 Hz in SI units: time, acc, gyro and label columns."""
    generator = np.random.default_rng(seed)
    tables = {}
    for subject in ("ann", "bob"):
        seconds = np.arange(1000) / 50
        tilt = 0.3 * np.sin(2 * np.pi * 0.9 * seconds)
        signal = np.zeros((1000, 6))
        signal[:, 0], signal[:, 2] = 9.8 * np.sin(tilt), 9.8 * np.cos(tilt)
        signal[:, 4] = -np.gradient(tilt, seconds)
        signal += generator.normal(0, 0.05, (1000, 6))
        columns = dict(zip(IMU_CHANNELS, signal.T, strict=True))
        tables[subject] = {"time": seconds, **columns, "label": np.repeat(["rock", "roll"], 500)}
    return tables
