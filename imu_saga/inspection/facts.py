"""What is in a recording before anything is repaired: facts with their evidence, one function each."""

import csv
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from imu_saga.datasets import DATASETS, open_dataset
from imu_saga.files.table_recording import TableDataset
from imu_saga.files.table_rows import LARGEST_NUMBER
from imu_saga.files.tables import check_file, read_header
from imu_saga.inspection.axes import (
    Arrangement,
    AxisFacts,
    axis_facts,
    calm_bias,
    fit_arrangement,
    gravity_direction,
)
from imu_saga.inspection.guess import guess_columns
from imu_saga.recording import Recording
from imu_saga.signal.clock import MISSING_PERIODS, TIME_SCALE, TimeUnit, detect_time_unit, typical_period
from imu_saga.signal.units import detect_acc_unit, detect_gyro_unit
from shared_peft.errors import DataError, SagaPeftError

LOOSE_BYTES = 1 << 30  # a file beyond it is not read loosely
BATCH_GAP_S = 0.5  # the readers' own limit
LARGEST_STAMP = 1e19  # nanoseconds in three centuries


@dataclass(frozen=True)
class ClockFacts:
    """The stamps of a file.

    Args:
        unit: unit told, or "" where none fits.
        rate_hz: samples per second [Hz].
        jitter: standard deviation of the regular steps, in sampling periods.
        gap_from_s: a step longer than this [s] is a gap; longer where stamps come in batches, which are no gaps.
        gaps: steps with samples missing.
        longest_gap_s: the longest step [s].
        repeated: rows with the stamp of the row before.
        backwards: rows earlier than the row before.
        first_backwards: the first such row, as the file counts; 0 where there is none.
        missing: rows without a stamp.
    """

    unit: str
    rate_hz: float
    jitter: float
    gap_from_s: float
    gaps: int
    longest_gap_s: float
    repeated: int
    backwards: int
    first_backwards: int
    missing: int


@dataclass(frozen=True)
class UnitFacts:
    """A unit with its evidence, or why it cannot be told."""

    unit: str
    evidence: str


@dataclass(frozen=True)
class TableFacts:
    """Everything found in one file, or in one recording of a data set.

    Args:
        path: the file.
        options: the reader's options: the columns guessed or given.
        rows: rows read.
        broken_rows: rows left out because they have too many cells.
        clock: the stamps; None where there is no column of them.
        axes: every sensor axis, acc gyro mag.
        acc_unit: unit of the accelerometer.
        gyro_unit: unit of the gyroscope.
        gravity: unit vector of the mean accelerometer, or None.
        bias: the gyroscope's mean over the calmest second, file units; None where it never rests.
        arrangement: how its axes fit the accelerometer's, or None.
        times_s: (rows,) [s] and
        values: (rows, axes) in file units, for the picture; NaN where a cell is empty.
    """

    path: Path
    options: Mapping[str, Any]
    rows: int
    broken_rows: int
    clock: ClockFacts | None
    axes: tuple[AxisFacts, ...]
    acc_unit: UnitFacts
    gyro_unit: UnitFacts
    gravity: tuple[float, float, float] | None
    bias: tuple[float, float, float] | None
    arrangement: Arrangement | None
    times_s: np.ndarray
    values: np.ndarray


def dataset_of(path: Path) -> str:
    """Return the registered name of the reader of a file, by its suffix; any other text is read as csv."""
    readers = {reader.suffix: name for name, reader in DATASETS.items() if issubclass(reader, TableDataset)}
    return readers.get(path.suffix.lstrip(".").lower(), "csv")


def inspect_table(path: Path, options: Mapping[str, Any]) -> TableFacts:
    """Look at a csv, npz or parquet file as it stands.

    Args:
        path: the file.
        options: options of its reader; columns that are not named are guessed.

    Raises:
        DataError: there is no table to look at, or no column looks like an accelerometer.
    """
    kind = dataset_of(path)
    reader = open_dataset(kind, options)
    assert isinstance(reader, TableDataset)
    header = reader.column_names(path)
    merged = {**guess_columns(header), **options}
    if "acc" not in merged:
        fix = "Name the columns, as in --columns acc=x,y,z gyro=gx,gy,gz time=t"
        raise DataError(path, "must have columns that look like an accelerometer", ", ".join(header)[:300], fix)
    if merged["time"] is None and "rate_hz" not in merged:
        merged["rate_hz"] = 50.0
    frame, broken = _loosely(reader, path, header)
    names = [column for sensor in ("acc", "gyro", "mag") for column in merged.get(sensor) or ()]
    absent = [name for name in names if name not in frame]
    if absent:
        must = f"columns {', '.join(absent)} must be in the header"
        raise DataError(path, must, ", ".join(header)[:300], "Correct --columns")
    if reader.suffix == "csv" and merged.get("decimal", "comma") == "comma" and _has_commas(frame, names):
        merged["decimal"] = "comma"
        frame = pd.DataFrame({name: frame[name].str.replace(",", ".") for name in frame})
    values = np.stack([_as_numbers(frame[name]) for name in names], axis=1)
    stamps = None if merged["time"] is None else _as_numbers(frame[merged["time"]], is_date=True)
    return _facts(path, merged, names, values, stamps, broken, reader.first_row)


def inspect_recording(one: Recording) -> TableFacts:
    """Look at a recording of a data set: SI units, one rate."""
    count = len(one.channels)
    options = {"acc": list(one.channels[:3]), "gyro": list(one.channels[3:6]) if count >= 6 else None, "time": "time"}
    times = one.start_s + np.arange(len(one)) / one.rate_hz
    values = np.where(one.valid[:, None], one.signal.astype(np.float64), np.nan)
    return _facts(Path(one.where), options, list(one.channels), values, times, 0, 0)


def clock_facts(stamps: np.ndarray, unit: TimeUnit | None, first_row: int) -> ClockFacts:
    """Describe the stamps of a file.

    Args:
        stamps: (rows,) in the file's unit; NaN where missing.
        unit: the declared unit; None to tell it.
        first_row: what the file calls its first row of data.
    """
    known = stamps[np.isfinite(stamps)]
    if unit is None:
        try:
            unit = detect_time_unit(np.sort(known), "time")
        except SagaPeftError:
            return ClockFacts("", 0.0, 0.0, 0.0, 0, 0.0, 0, 0, 0, len(stamps) - len(known))
    steps = np.diff(known) * TIME_SCALE[unit]
    back = np.flatnonzero(steps < 0)
    forward = steps[steps >= 0]
    period = typical_period(np.concatenate([[0.0], np.cumsum(forward)]))
    regular = forward[(forward > 0) & (forward <= MISSING_PERIODS * period)]
    batched = len(forward) > 0 and float((forward < period / 10).mean()) > 0.01  # as in to_uniform
    gap_from_s = BATCH_GAP_S if batched else MISSING_PERIODS * period
    return ClockFacts(
        unit=unit,
        rate_hz=1 / period if period > 0 else 0.0,
        jitter=float(regular.std() / period) if len(regular) and period > 0 else 0.0,
        gap_from_s=gap_from_s,
        gaps=int((forward > gap_from_s).sum()),
        longest_gap_s=float(forward.max()) if len(forward) else 0.0,
        repeated=int((steps == 0).sum()),
        backwards=len(back),
        first_backwards=int(np.flatnonzero(np.isfinite(stamps))[back[0] + 1]) + first_row if len(back) else 0,
        missing=len(stamps) - len(known),
    )


def unit_facts(acc: np.ndarray, gyro: np.ndarray | None, rate_hz: float) -> tuple[UnitFacts, UnitFacts]:
    """Tell the units of (samples, 3) acc and gyro with the evidence, or say why not."""
    told = [UnitFacts("", "no samples"), UnitFacts("", "no gyroscope" if gyro is None else "no rate")]
    calls = [lambda: detect_acc_unit(acc, "acc")]
    if gyro is not None and rate_hz > 0:
        calls.append(lambda: detect_gyro_unit(acc, gyro, rate_hz, "gyro"))
    for index, call in enumerate(calls):
        try:
            found = call()
            told[index] = UnitFacts(found.unit, f"{found.measure} {found.value:.4g}")
        except SagaPeftError as error:
            told[index] = UnitFacts("", f"{error.must}, got {error.got}")
    return told[0], told[1]


def _facts(
    path: Path,
    options: Mapping[str, Any],
    names: list[str],
    values: np.ndarray,
    stamps: np.ndarray | None,
    broken: int,
    first_row: int,
) -> TableFacts:
    declared = options.get("time_unit", "auto")
    clock = None if stamps is None else clock_facts(stamps, None if declared == "auto" else declared, first_row)
    rate_hz = clock.rate_hz if clock is not None else float(options.get("rate_hz") or 0.0)
    has_gyro = bool(options.get("gyro"))
    whole = values[np.isfinite(values[:, : 6 if has_gyro else 3]).all(axis=1)]
    acc, gyro = whole[:, :3], whole[:, 3:6] if has_gyro else None
    acc_unit, gyro_unit = unit_facts(acc, gyro, rate_hz)
    turning = gyro is not None and len(gyro) > 1 and rate_hz > 0
    scale = TIME_SCALE[clock.unit] if clock is not None and clock.unit else 1 / max(rate_hz, 1e-9)  # type: ignore[index]
    told = stamps is not None and np.isfinite(stamps).any()
    counted = stamps - np.nanmin(stamps) if stamps is not None and told else np.arange(len(values), dtype=np.float64)
    return TableFacts(
        path=path,
        options=options,
        rows=len(values),
        broken_rows=broken,
        clock=clock,
        axes=axis_facts(names, values),
        acc_unit=acc_unit,
        gyro_unit=gyro_unit,
        gravity=gravity_direction(acc) if len(acc) else None,
        bias=calm_bias(gyro, rate_hz, gyro_unit.unit) if turning and gyro is not None else None,
        arrangement=fit_arrangement(acc, gyro, rate_hz) if turning and gyro is not None else None,
        times_s=counted * scale,
        values=values,
    )


def _loosely(reader: TableDataset, path: Path, header: list[str]) -> tuple[pd.DataFrame, int]:
    """Return the whole table with whatever rows can be read, and how many could not."""
    if reader.suffix != "csv":
        return pd.DataFrame({name: _column(reader, path, name) for name in header}), 0
    check_file(path)
    if path.stat().st_size > LOOSE_BYTES:
        raise DataError(path, "must be at most 1 GiB to be inspected", path.stat().st_size, "Inspect a part of it")
    names, char = read_header(path, getattr(reader, "separator", "auto"))
    with path.open("rb") as stream:
        lines = sum(1 for line in stream if line.strip())
    try:
        frame = _skipping(path, names, char, csv.QUOTE_MINIMAL)
    except (pd.errors.ParserError, ValueError):  # a quote that is never closed
        frame = _skipping(path, names, char, csv.QUOTE_NONE)
    return frame, max(0, lines - 1 - len(frame))


def _has_commas(frame: pd.DataFrame, names: list[str]) -> bool:
    """Tell whether commas mark the decimals of most cells."""
    marked = [frame[name].str.fullmatch(r"\s*-?\d+,\d+\s*", na=False).mean() for name in names]
    return float(np.mean(marked)) > 0.5


def _skipping(path: Path, names: list[str], char: str, quoting: Literal[0, 3]) -> pd.DataFrame:
    """Return all rows that have no more cells than the header, as text."""
    columns = [name or f"unnamed {index}" for index, name in enumerate(names)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pd.errors.ParserWarning)  # rows that are too long are counted by the caller
        return pd.read_csv(
            path,
            sep=char,
            header=None,
            skiprows=1,
            names=columns,
            dtype=str,
            on_bad_lines="skip",
            encoding_errors="replace",
            index_col=False,
            skipinitialspace=True,
            quoting=quoting,
        )


def _column(reader: TableDataset, path: Path, name: str) -> np.ndarray:
    try:
        return reader.read_columns(path, (name,))[0][name]
    except SagaPeftError:
        return reader.read_columns(path, (), (name,))[1][name]


def _as_numbers(column: pd.Series, *, is_date: bool = False) -> np.ndarray:
    """Return (rows,) float64, NaN where a cell is no number or beyond any; ISO dates as seconds where asked."""
    numbers = np.asarray(pd.to_numeric(column, errors="coerce"), dtype=np.float64)
    if is_date and np.isnan(numbers).all():
        dates = pd.to_datetime(column, errors="coerce", format="ISO8601", utc=True)
        numbers = np.asarray((dates - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(seconds=1), dtype=np.float64)
    return np.where(np.abs(numbers) <= (LARGEST_STAMP if is_date else LARGEST_NUMBER), numbers, np.nan)
