"""A user's own recording: any text table with a header, columns mapped by name."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from imu_saga.clock import TIME_SCALE, TimeUnit, check_ascending, detect_time_unit, to_uniform, typical_period
from imu_saga.dataset import DATASETS, ImuDataset
from imu_saga.recording import ACC_CHANNELS, GYRO_CHANNELS, UNLABELLED, Recording
from imu_saga.tables import Separator, read_table
from imu_saga.units import AccUnit, GyroUnit, acc_to_si, gyro_to_si
from shared_peft.errors import DataError

FIRST_ROW = 2  # of data in the file; row 1 is the header


@dataclass(frozen=True)
class _Table:
    """A file's columns: (rows, channels) signal in file units, (rows,) times [s], and (rows,) str columns."""

    path: Path
    signal: np.ndarray
    times_s: np.ndarray
    labels: np.ndarray
    subjects: np.ndarray
    sessions: np.ndarray


@DATASETS.register("csv")
@dataclass(frozen=True)
class CsvFile(ImuDataset):
    """One csv file, or a folder of them, each a session; units and time are detected where not declared.

    Every option about columns is a name in the header. Rows whose sensor cells are empty count as a gap: gaps up to
    ``max_gap_s`` are interpolated and marked invalid, longer ones are refused (empty cells) or split the recording
    (missing rows).
    """

    name: ClassVar[str] = "csv"
    title: ClassVar[str] = "your csv file, or a folder of csv files"
    licence: ClassVar[str] = "yours"
    url: ClassVar[str] = "your own device (no download page: any csv with a header row will do)"
    placements: ClassVar[tuple[str, ...]] = ("unknown",)
    native_rate_hz: ClassVar[float | None] = None

    acc: tuple[str, str, str] = ACC_CHANNELS
    """Columns of the accelerometer, x y z, gravity included."""
    gyro: tuple[str, str, str] | None = GYRO_CHANNELS
    """Columns of the gyroscope, x y z; none for an accelerometer alone."""
    time: str | None = "time"
    """Column of timestamps; none when the rows are evenly spaced at rate_hz."""
    label: str | None = None
    """Column of class names; empty cells are unlabelled."""
    subject: str | None = None
    """Column of subject names; none takes the file's name."""
    session: str | None = None
    """Column of session names; none makes each file a session."""
    acc_unit: AccUnit | Literal["auto"] = "auto"
    """Unit of the accelerometer."""
    gyro_unit: GyroUnit | Literal["auto"] = "auto"
    """Unit of the gyroscope."""
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
    separator: Separator = "auto"
    """Separator of the columns."""

    def class_names(self, root: Path | None = None) -> tuple[str, ...]:
        """Return the declared classes, or the sorted names in the files' label column."""
        if self.classes or self.label is None:
            return self.classes
        files = self._files(root)
        found = [
            np.unique(read_table(file, (), (self.label,), separator=self.separator)[1][self.label]) for file in files
        ]
        return tuple(str(name) for name in np.unique(np.concatenate(found)) if name)

    def read(self, root: Path | None = None) -> list[Recording]:
        """Return one recording for each stretch without a long gap.

        Args:
            root: a csv file, or a folder of files ``*.csv``.

        Raises:
            DataError: says which file, row and column cannot be used, and why.
        """
        if (self.time is None) == (self.rate_hz is None):
            came = "both" if self.time else "neither"
            raise DataError("csv", "must have a time column or rate_hz", came, "Give one of the two")
        classes = self.class_names(root)
        return [recording for path in self._files(root) for recording in self._read_file(path, classes)]

    def write_sample(self, root: Path) -> None:
        """Write two files of 20 s in SI units, with a label column, at 50 Hz."""
        generator = np.random.default_rng(0)
        root.mkdir(parents=True, exist_ok=True)
        for subject in ("ann", "bob"):
            seconds = np.arange(1000) / 50
            tilt = 0.3 * np.sin(2 * np.pi * 0.9 * seconds)
            columns = np.zeros((1000, 7))
            columns[:, 0] = seconds
            columns[:, 1], columns[:, 3] = 9.8 * np.sin(tilt), 9.8 * np.cos(tilt)
            columns[:, 5] = -np.gradient(tilt, seconds)
            columns[:, 1:] += generator.normal(0, 0.05, (1000, 6))
            header = ",".join(("time", *ACC_CHANNELS, *GYRO_CHANNELS, "label"))
            rows = [",".join(f"{value:.5f}" for value in row) for row in columns.tolist()]
            text = "\n".join(f"{row},{'rock' if i < 500 else 'roll'}" for i, row in enumerate(rows))
            (root / f"{subject}.csv").write_text(f"{header}\n{text}\n", encoding="utf-8")

    @property
    def _sensor_columns(self) -> tuple[str, ...]:
        return (*self.acc, *(self.gyro or ()))

    def _files(self, root: Path | None) -> list[Path]:
        if root is not None and root.is_file():
            return [root]
        self.folder(root, "*.csv")
        assert root is not None
        return sorted(root.glob("*.csv"))

    def _read_file(self, path: Path, classes: tuple[str, ...]) -> list[Recording]:
        table = self._table(path)
        labels = self._label_indices(table, classes)
        runs = _runs(table.subjects, table.sessions)
        for rows in runs:
            check_ascending(table.times_s[rows], f"{path}, column {self.time}", first_row=int(rows[0]) + FIRST_ROW)
        filled, measured = self._filled(table)
        signal = self._in_si(path, filled, typical_period(table.times_s[max(runs, key=len)]))
        return [recording for rows in runs for recording in self._recordings(table, rows, signal, labels, measured)]

    def _in_si(self, path: Path, signal: np.ndarray, period_s: float) -> np.ndarray:
        acc = acc_to_si(signal[:, :3], self.acc_unit, f"{path}, columns {', '.join(self.acc)}")
        if self.gyro is None:
            return acc
        if not period_s > 0:
            fix = "Name the column of timestamps, or give rate_hz"
            raise DataError(f"{path}, column {self.time}", "time must advance", "stamps that stand still", fix)
        where = f"{path}, columns {', '.join(self.gyro)}"
        gyro = gyro_to_si(acc, signal[:, 3:], self.gyro_unit, 1 / period_s, where)
        return np.concatenate([acc, gyro], axis=1)

    def _recordings(
        self, table: _Table, rows: np.ndarray, signal: np.ndarray, labels: np.ndarray, measured: np.ndarray
    ) -> list[Recording]:
        stretches = to_uniform(table.times_s[rows], signal[rows], max_gap_s=self.max_gap_s, where=str(table.path))
        return [
            Recording(
                signal=stretch.values.astype(np.float32),
                channels=ACC_CHANNELS + (GYRO_CHANNELS if self.gyro is not None else ()),
                rate_hz=stretch.rate_hz,
                labels=labels[rows[stretch.nearest]],
                valid=stretch.valid & measured[rows[stretch.nearest]],
                subject=str(table.subjects[rows[0]]),
                session=str(table.sessions[rows[0]]),
                placement=self.placement,
                dataset="csv",
                start_s=stretch.start_s,
            )
            for stretch in stretches
        ]

    def _table(self, path: Path) -> _Table:
        texts = [name for name in (self.label, self.subject, self.session) if name is not None]
        times = [self.time] if self.time is not None else []
        numbers, words = read_table(path, (*self._sensor_columns, *times), texts, separator=self.separator)
        signal = np.stack([numbers[name] for name in self._sensor_columns], axis=1)
        fallback = np.full(len(signal), path.stem)
        return _Table(
            path,
            signal,
            self._times(path, numbers, len(signal)),
            words[self.label] if self.label is not None else np.full(len(signal), ""),
            words[self.subject] if self.subject is not None else fallback,
            words[self.session] if self.session is not None else fallback,
        )

    def _times(self, path: Path, numbers: dict[str, np.ndarray], rows: int) -> np.ndarray:
        """Return (rows,) times [s] from the first row on; finite."""
        if self.time is None:
            assert self.rate_hz is not None
            if not (np.isfinite(self.rate_hz) and self.rate_hz > 0):
                raise DataError("rate_hz", "must be a positive number", self.rate_hz, "Give the rate in Hz")
            return np.arange(rows) / self.rate_hz
        stamps, where = numbers[self.time], f"{path}, column {self.time}"
        if not np.isfinite(stamps).all():
            row = int(np.argmax(~np.isfinite(stamps)))
            fix = "Fill the cell or remove the row"
            raise DataError(
                f"{path}, row {row + FIRST_ROW}, column {self.time}", "time must be given", stamps[row], fix
            )
        unit = detect_time_unit(stamps, where) if self.time_unit == "auto" else self.time_unit
        return (stamps - stamps[0]) * TIME_SCALE[unit]

    def _filled(self, table: _Table) -> tuple[np.ndarray, np.ndarray]:
        """Interpolate short runs of empty cells; return the signal and (rows,) bool, False where it was filled."""
        wrong = np.argwhere(np.isinf(table.signal))
        if len(wrong):
            row, column = wrong[0]
            where = f"{table.path}, row {row + FIRST_ROW}, column {self._sensor_columns[column]}"
            raise DataError(where, "must be a finite number", table.signal[row, column], "Correct the cell")
        missing = np.isnan(table.signal)
        signal = table.signal.copy()
        for column, name in enumerate(self._sensor_columns):
            gaps = missing[:, column]
            if not gaps.any():
                continue
            self._check_runs(table, gaps, name)
            signal[gaps, column] = np.interp(np.flatnonzero(gaps), np.flatnonzero(~gaps), signal[~gaps, column])
        return signal, np.asarray(~missing.any(axis=1))

    def _check_runs(self, table: _Table, gaps: np.ndarray, column: str) -> None:
        """Raise when a run of empty cells lasts longer than max_gap_s, or the column is empty."""
        edges = np.diff(np.concatenate([[0], gaps.astype(np.int8), [0]]))
        first, last = np.flatnonzero(edges > 0), np.flatnonzero(edges < 0) - 1
        before, after = np.maximum(first - 1, 0), np.minimum(last + 1, len(gaps) - 1)
        too_long = table.times_s[after] - table.times_s[before] > self.max_gap_s
        if gaps.all() or too_long.any():
            run = 0 if gaps.all() else int(np.argmax(too_long))
            where = f"{table.path}, rows {first[run] + FIRST_ROW} to {last[run] + FIRST_ROW}, column {column}"
            fix = "Remove these rows: the recording is then split there"
            raise DataError(where, f"empty cells must span at most {self.max_gap_s} s", "a longer run of NaN", fix)

    def _label_indices(self, table: _Table, classes: tuple[str, ...]) -> np.ndarray:
        labels = np.full(len(table.labels), UNLABELLED, dtype=np.int64)
        for index, name in enumerate(classes):
            labels[table.labels == name] = index
        strange = (labels == UNLABELLED) & (table.labels != "")
        if strange.any():
            row = int(np.argmax(strange))
            where = f"{table.path}, row {row + FIRST_ROW}, column {self.label}"
            must = f"label must be empty or one of {', '.join(classes)}"
            raise DataError(where, must, repr(str(table.labels[row])), "Correct the label or the list of classes")
        return labels


def _runs(subjects: np.ndarray, sessions: np.ndarray) -> list[np.ndarray]:
    """Return the rows of every (subject, session), in order of first appearance."""
    keys = np.char.add(np.char.add(subjects, "\0"), sessions)
    _, first, group = np.unique(keys, return_index=True, return_inverse=True)
    return [np.flatnonzero(group == index) for index in np.argsort(first)]
