"""Sensors with a clock each, put on one: the accelerometer's uniform grid, over the time all of them cover."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy.interpolate import CubicSpline

from imu_saga.recording import ACC_CHANNELS, GYRO_CHANNELS, MAG_CHANNELS, UNLABELLED, Recording
from imu_saga.signal.clock import MIN_STRETCH, Clock, Stretch, to_uniform
from imu_saga.signal.resample import rational_ratio, resample_array, resample_mask
from shared_peft.errors import DataError

Sensor = Literal["acc", "gyro", "mag"]
CHANNELS_OF: dict[Sensor, tuple[str, str, str]] = {"acc": ACC_CHANNELS, "gyro": GYRO_CHANNELS, "mag": MAG_CHANNELS}
REFERENCE: Sensor = "acc"
# Ours. A cubic spline on a grid of rate r answers a frequency f with 3 sinc(f/r)^4 / (2 + cos(2 pi f/r)) (Unser 1999,
# doi:10.1109/79.799930): on four points a sample it is within 3e-4 of one up to 80 % of the Nyquist frequency.
OVERSAMPLING = 4
ROUNDING = 1e-6  # of a sample: two clocks that agree lose no sample to the last bit of a float


class NoOverlapError(DataError):
    """Sensors of one device that never measured at the same time, as far as their clocks tell."""


@dataclass(frozen=True, eq=False)
class SensorStream:
    """One sensor's samples on its own clock.

    Args:
        times_s: (samples,) [s], ascending; neighbours may be equal.
        values: (samples, 3), finite, in SI units.
        labels: (samples,) int64 class indices, -1 where unlabelled; None where another sensor carries them.

    Raises:
        DataError: shapes that disagree, or a value that is not finite.
    """

    times_s: np.ndarray
    values: np.ndarray
    labels: np.ndarray | None = None

    def __post_init__(self) -> None:
        shapes = (self.times_s.shape, self.values.shape, None if self.labels is None else self.labels.shape)
        rows = (len(self.times_s),)
        if shapes[:2] != (rows, (*rows, 3)) or shapes[2] not in (None, rows):
            must = "must have times (samples,), values (samples, 3) and labels (samples,)"
            raise DataError("sensor stream", must, f"shapes {shapes}", "Give one time and one label per sample")
        for name, array in (("times", self.times_s), ("values", self.values)):
            if not np.isfinite(array).all():
                row = int(np.argwhere(~np.isfinite(array))[0][0])
                raise DataError(f"sensor stream, sample {row}", f"{name} must be finite", array[row], "Leave it out")


@dataclass(frozen=True)
class Wearer:
    """Who wore the device where, and the data set that tells so; the fields are those of Recording."""

    subject: str
    session: str
    placement: str
    dataset: str


def on_one_clock(
    streams: Mapping[Sensor, SensorStream], max_gap_s: float, where: str, *, clock: Clock = "auto"
) -> list[Stretch]:
    """Put sensors that share a time axis, but neither stamps nor rates, on the accelerometer's uniform grid.

    A sensor faster than the accelerometer goes through the anti-alias filter first, so nothing above the
    accelerometer's Nyquist frequency folds down; then a cubic spline through four points a sample is read off at the
    accelerometer's times. The pass band of every sensor but the accelerometer is 80 % of the lower Nyquist frequency.

    Args:
        streams: by sensor; the accelerometer must be there.
        max_gap_s: a step longer than this [s], of any sensor, splits; shorter gaps of any sensor are marked invalid.
        where: the recording's address, for error messages.
        clock: how stamps are read, as in ``to_uniform``.

    Returns:
        The stretches covered by all sensors, in order of time: ``values`` (samples, 3 x sensors) in the order of
        ``streams``, accelerometer first; ``nearest`` are rows of the accelerometer's stream.

    Raises:
        NoOverlapError: two sensors' times have nothing in common.
        DataError: no accelerometer, or a stream ``to_uniform`` refuses.
    """
    if REFERENCE not in streams:
        fix = "Read the accelerometer's file too"
        raise DataError(where, f"the sensors must include {REFERENCE}", ", ".join(streams) or "none", fix)
    uniform: dict[Sensor, list[Stretch]] = {
        sensor: to_uniform(stream.times_s, stream.values, max_gap_s=max_gap_s, clock=clock, where=f"{where}, {sensor}")
        for sensor, stream in streams.items()
    }
    joint = uniform.pop(REFERENCE)
    rate_hz = float(np.median([stretch.rate_hz for stretch in joint]))
    _check_epochs(joint, uniform, where)
    for sensor, stretches in uniform.items():
        joint = [one for other in stretches for one in _read_off(joint, other, rate_hz, f"{where}, {sensor}")]
    if not joint:
        must = f"all sensors must cover {MIN_STRETCH} samples in common, without a gap over {max_gap_s} s"
        raise NoOverlapError(where, must, "no such stretch", "Raise max_gap_s, or read the accelerometer alone")
    return sorted(joint, key=lambda stretch: stretch.start_s)


def joint_channels(streams: Mapping[Sensor, SensorStream]) -> tuple[str, ...]:
    """Return the channel names of ``on_one_clock``'s values."""
    others = [name for sensor in streams if sensor != REFERENCE for name in CHANNELS_OF[sensor]]
    return (*CHANNELS_OF[REFERENCE], *others)


def joint_recordings(
    streams: Mapping[Sensor, SensorStream], max_gap_s: float, wearer: Wearer, *, clock: Clock = "auto"
) -> list[Recording]:
    """Return one recording for each stretch all sensors cover, labelled by the accelerometer's stream.

    Args:
        streams: by sensor, SI units.
        max_gap_s: a step longer than this [s] of any sensor splits.
        wearer: whose recordings these are.
        clock: how stamps are read, as in ``to_uniform``.

    Raises:
        NoOverlapError: two sensors' times have nothing in common.
        DataError: a stream that cannot be used.
    """
    where = f"{wearer.dataset}/{wearer.subject}/{wearer.session}/{wearer.placement}"
    labels = streams[REFERENCE].labels if REFERENCE in streams else None
    return [
        Recording(
            signal=stretch.values.astype(np.float32),
            channels=joint_channels(streams),
            rate_hz=stretch.rate_hz,
            labels=np.full(len(stretch.values), UNLABELLED, np.int64) if labels is None else labels[stretch.nearest],
            valid=stretch.valid,
            subject=wearer.subject,
            session=wearer.session,
            placement=wearer.placement,
            dataset=wearer.dataset,
            start_s=stretch.start_s,
        )
        for stretch in on_one_clock(streams, max_gap_s, where, clock=clock)
    ]


def _end_s(stretch: Stretch) -> float:
    return stretch.start_s + (len(stretch.values) - 1) / stretch.rate_hz


def _check_epochs(reference: list[Stretch], others: Mapping[Sensor, list[Stretch]], where: str) -> None:
    """Raise NoOverlapError, telling by how much, when a sensor ends before the accelerometer starts or the reverse."""
    start, end = reference[0].start_s, _end_s(reference[-1])
    for sensor, stretches in others.items():
        apart = max(stretches[0].start_s - end, start - _end_s(stretches[-1]))
        if apart > 0:
            came = f"{stretches[0].start_s:.10g} to {_end_s(stretches[-1]):.10g} s, {apart:.6g} s apart"
            must = f"{sensor} must overlap {REFERENCE} in time, {start:.10g} to {end:.10g} s"
            fix = "Check that both clocks count from the same moment, and the time unit"
            raise NoOverlapError(where, must, came, fix)


def _read_off(joint: list[Stretch], other: Stretch, rate_hz: float, where: str) -> list[Stretch]:
    """Return the parts of ``joint`` that ``other`` covers, with its values as further columns."""
    overlaps = [(one, *_common_rows(one, other)) for one in joint]
    overlaps = [(one, first, last) for one, first, last in overlaps if last - first >= MIN_STRETCH]
    if not overlaps:
        return []
    spline = _band_limited(other, rate_hz, where)
    parts = []
    for one, first, last in overlaps:
        since_s = one.start_s - other.start_s + np.arange(first, last) / one.rate_hz  # on the other's clock
        reach = max(1.0, other.rate_hz / one.rate_hz)
        measured = resample_mask(other.valid, since_s * other.rate_hz, reach=reach)
        parts.append(
            replace(
                one,
                values=np.concatenate([one.values[first:last], spline(since_s)], axis=1),
                valid=one.valid[first:last] & measured,
                nearest=one.nearest[first:last],
                start_s=one.start_s + first / one.rate_hz,
            )
        )
    return parts


def _common_rows(one: Stretch, other: Stretch) -> tuple[int, int]:
    """Return the first row of ``one`` within ``other``'s time, and the row after the last."""
    first = np.ceil((other.start_s - one.start_s) * one.rate_hz - ROUNDING)
    last = np.floor((_end_s(other) - one.start_s) * one.rate_hz + ROUNDING)
    return max(0, int(first)), min(len(one.values), int(last) + 1)


def _band_limited(stretch: Stretch, rate_hz: float, where: str) -> CubicSpline:
    """Return the stretch as a function of the time [s] since its start, free of what ``rate_hz`` cannot carry."""
    up, down = rational_ratio(stretch.rate_hz, min(stretch.rate_hz, rate_hz), 1, where)
    values = stretch.values if up == down else resample_array(stretch.values, up, down)
    fine = resample_array(values, OVERSAMPLING, 1)
    return CubicSpline(np.arange(len(fine)) * (down / (up * OVERSAMPLING * stretch.rate_hz)), fine, axis=0)
