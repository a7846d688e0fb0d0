"""What a stream's source is: rate, unit of the time, units of the sensors; declared, or told from its start."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from imu_saga.recording import ACC_CHANNELS, GYRO_CHANNELS
from imu_saga.signal.clock import TIME_SCALE, Clock, TimeUnit, detect_time_unit, to_uniform
from imu_saga.signal.units import ACC_SCALE, GYRO_SCALE, AccUnit, GyroUnit, detect_acc_unit, detect_gyro_unit
from imu_saga.streaming.clock import StreamTiming
from shared_peft.errors import DataError

WHERE = "start of the stream"


@dataclass(frozen=True)
class SourceOptions:
    """What is known of a stream's source; "auto" and no rate are told from its first samples."""

    source_hz: float | None = None
    """Rate of the source [Hz]; none measures it by the stamps of the start."""
    acc_unit: AccUnit | Literal["auto"] = "auto"
    """Unit of the accelerometer: m/s^2, g, mg, or auto."""
    gyro_unit: GyroUnit | Literal["auto"] = "auto"
    """Unit of the gyroscope: rad/s, deg/s, or auto (the device must turn at the start)."""
    time_unit: TimeUnit | Literal["auto"] = "auto"
    """Unit of the stamps: s, ms, us, ns, or auto."""
    clock: Clock = "auto"
    """stamps: the stamps are true times. even: samples are equally spaced, stamps only tell of long gaps (phones that
    deliver in batches). auto: even where more than 1 % of the first steps are shorter than a tenth of a period."""
    max_gap_s: float = 0.5
    """A gap longer than this [s] starts afresh; a shorter one is bridged and marked as not measured."""
    settle_samples: int = 500
    """Samples at the start from which what is not declared is told."""


@dataclass(frozen=True, eq=False)
class Source:
    """A source all of which is known.

    Args:
        rate_hz: samples per second [Hz].
        timing: how its stamps are to be taken.
        time_scale: unit of the stamps [s].
        scale: (channels,) factor to SI units.
    """

    rate_hz: float
    timing: StreamTiming
    time_scale: float
    scale: np.ndarray


def needs_start(options: SourceOptions, channels: Sequence[str], *, stamped: bool) -> bool:
    """Tell whether something must be told from the start of the stream."""
    units = (options.acc_unit, options.gyro_unit if set(GYRO_CHANNELS) <= set(channels) else "")
    return "auto" in units or (stamped and ("auto" in (options.clock, options.time_unit) or options.source_hz is None))


def settle(options: SourceOptions, channels: Sequence[str], times: np.ndarray | None, values: np.ndarray) -> Source:
    """Tell what was not declared from the start of a stream.

    Args:
        options: what is known.
        channels: names of the columns.
        times: (samples,) stamps, or None where the samples are evenly spaced.
        values: (samples, channels) in the source's units; rows that are not finite are left out.

    Raises:
        DataError: a unit or a rate cannot be told, or is not one there is.
    """
    measured = np.isfinite(values).all(axis=1) & (np.isfinite(times) if times is not None else True)
    values = values[measured]
    time_scale, rate_hz, timing = 1.0, options.source_hz, "stamps"
    if times is not None:
        stamps = np.maximum.accumulate(times[measured])
        unit = options.time_unit
        time_scale = _scale_of(TIME_SCALE, detect_time_unit(stamps, WHERE) if unit == "auto" else unit, "time_unit")
        timing = options.clock if options.clock != "auto" else _timing(stamps)
        if rate_hz is None:
            stretches = to_uniform(stamps * time_scale, values, max_gap_s=options.max_gap_s, clock=timing, where=WHERE)
            rate_hz = max(stretches, key=lambda stretch: len(stretch.values)).rate_hz
    if rate_hz is None:
        raise DataError("stream", "must have stamps or a rate", "neither", "Give --source-hz, or a column of times")
    return Source(rate_hz, timing, time_scale, _scales(options, channels, values, rate_hz))


def _timing(stamps: np.ndarray) -> StreamTiming:
    """Choose as `to_uniform` does: batched deliveries are spread evenly."""
    steps = np.diff(stamps)
    usual = float(np.median(steps)) or float(steps.mean()) if len(steps) else 0.0
    return "even" if len(steps) and float((steps < usual / 10).mean()) > 0.01 else "stamps"


def _scales(options: SourceOptions, channels: Sequence[str], values: np.ndarray, rate_hz: float) -> np.ndarray:
    """Return (channels,) factors to SI units."""
    scale = np.ones(len(channels))
    acc, gyro = (
        [list(channels).index(name) for name in names if name in channels] for names in (ACC_CHANNELS, GYRO_CHANNELS)
    )
    if acc:
        unit = options.acc_unit
        unit = detect_acc_unit(_whole(values, acc, "acc_unit"), WHERE).unit if unit == "auto" else unit
        scale[acc] = _scale_of(ACC_SCALE, unit, "acc_unit")
    if gyro:
        unit = options.gyro_unit
        if unit == "auto":
            falling, turning = _whole(values, acc, "gyro_unit"), _whole(values, gyro, "gyro_unit")
            unit = detect_gyro_unit(falling, turning, rate_hz, WHERE).unit
        scale[gyro] = _scale_of(GYRO_SCALE, unit, "gyro_unit")
    return scale


def _whole(values: np.ndarray, columns: list[int], option: str) -> np.ndarray:
    """Return a sensor's three axes; a unit can be told from no fewer."""
    if len(columns) != 3 or not len(values):
        came = f"{len(columns)} axes of {len(values)} samples"
        raise DataError(f"stream {option}", "three axes with samples are needed to tell a unit", came, "Declare it")
    return values[:, columns]


def _scale_of(scales: Mapping[Any, float], unit: str, option: str) -> float:
    if unit not in scales:
        raise DataError(f"stream {option}", f"must be one of {', '.join(scales)}, auto", repr(unit), "Correct the unit")
    return scales[unit]
