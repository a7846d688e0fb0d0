"""From timestamps to a uniform grid: gaps split or are filled and marked, batched deliveries are spread evenly."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.interpolate import CubicSpline

from shared_peft.errors import DataError

TimeUnit = Literal["s", "ms", "us", "ns"]
Clock = Literal["auto", "even", "stamps"]
TIME_SCALE: dict[TimeUnit, float] = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
PLAUSIBLE_HZ = (4.0, 1000.0)  # narrower than the factor of 1000 between two units, so at most one of them fits
MISSING_PERIODS = 1.75  # two stamps further apart than this have a sample missing between them
MIN_STRETCH = 4  # samples; shorter stretches between two gaps are left out


@dataclass(frozen=True, eq=False)
class Stretch:
    """A gap-free piece on a uniform grid.

    Args:
        values: (samples, channels) float64.
        valid: (samples,) bool; False where a short gap was filled.
        nearest: (samples,) int64, the input row closest in time, for labels.
        start_s: time of the first sample [s].
        rate_hz: samples per second [Hz].
    """

    values: np.ndarray
    valid: np.ndarray
    nearest: np.ndarray
    start_s: float
    rate_hz: float


def detect_time_unit(stamps: np.ndarray, where: str) -> TimeUnit:
    """Tell the unit of timestamps: the one that makes the rate plausible for a motion sensor (4 to 1000 Hz).

    Args:
        stamps: (samples,) in any unit, ascending.
        where: file and column, for the error message.

    Raises:
        DataError: fewer than two different stamps, or no unit gives a plausible rate.
    """
    period = typical_period(stamps)
    for unit, scale in TIME_SCALE.items():
        if period > 0 and PLAUSIBLE_HZ[0] <= 1 / (period * scale) <= 1.001 * PLAUSIBLE_HZ[1]:
            return unit
    must = f"timestamps must give {PLAUSIBLE_HZ[0]:g} to {PLAUSIBLE_HZ[1]:g} samples/s in s, ms, us or ns"
    raise DataError(where, must, f"a mean step of {period:.4g}", "Declare the time unit, or correct the column")


def check_ascending(stamps: np.ndarray, where: str, *, first_row: int = 0) -> None:
    """Raise DataError, naming the row, where time runs backwards; equal neighbours are allowed."""
    back = np.flatnonzero(np.diff(stamps) < 0)
    if len(back):
        row = int(back[0]) + 1
        came = f"{stamps[row]:.10g} after {stamps[row - 1]:.10g} at row {first_row + row}"
        fix = "Sort the rows by time, or name the column that tells subjects or sessions apart"
        raise DataError(where, "time must not run backwards", came, fix)


def to_uniform(
    times_s: np.ndarray, values: np.ndarray, *, max_gap_s: float, clock: Clock = "auto", where: str = "times"
) -> list[Stretch]:
    """Put timestamped samples on uniform grids, one for each stretch without a long gap.

    Args:
        times_s: (samples,) [s], ascending; neighbours may be equal.
        values: (samples, channels), finite.
        max_gap_s: a step longer than this [s] splits; a shorter gap is interpolated linearly and marked invalid.
        clock: "even" takes the samples of a stretch as equally spaced and the stamps as their noisy delivery times
            (phones deliver in batches); "stamps" takes the stamps as true times and interpolates (cubic spline);
            "auto" chooses "even" when more than 1 % of the steps are shorter than a tenth of a period.
        where: the recording's address, for error messages.

    Returns:
        The stretches of four samples or more, in order of time.

    Raises:
        DataError: time runs backwards, the limit is shorter than a sampling period, or nothing is left.
    """
    check_ascending(times_s, where)
    period = typical_period(times_s)
    if period <= 0 or max_gap_s <= MISSING_PERIODS * period:
        must = f"max_gap_s must exceed {MISSING_PERIODS} sampling periods"
        raise DataError(where, must, f"{max_gap_s} s at a period of {period:.4g} s", "Raise it or check the time unit")
    steps = np.diff(times_s)
    even = clock == "even" or (clock == "auto" and float((steps < period / 10).mean()) > 0.01)
    edges = [0, *(np.flatnonzero(steps > max_gap_s) + 1).tolist(), len(times_s)]
    pieces = [(first, last) for first, last in zip(edges, edges[1:], strict=False) if last - first >= MIN_STRETCH]
    make = _even if even else _interpolated
    stretches = [make(times_s[first:last], values[first:last], first, period) for first, last in pieces]
    if not stretches:
        must = f"a stretch of {MIN_STRETCH} samples without a gap over {max_gap_s} s is needed"
        raise DataError(where, must, f"{len(times_s)} samples with none", "Raise max_gap_s or check the time unit")
    return stretches


def _even(times_s: np.ndarray, values: np.ndarray, offset: int, period: float) -> Stretch:
    """Fit time = start + period * index by least squares; the samples stay as they are."""
    index = np.arange(len(times_s), dtype=np.float64)
    shifted = times_s - times_s[0]
    slope, start = np.polyfit(index, shifted, 1)
    if not slope > 0:
        slope, start = period, 0.0
    samples = np.arange(len(times_s), dtype=np.int64) + offset
    valid = np.ones(len(times_s), dtype=bool)
    return Stretch(values.astype(np.float64), valid, samples, float(times_s[0] + start), float(1 / slope))


def _interpolated(times_s: np.ndarray, values: np.ndarray, offset: int, period: float) -> Stretch:
    """Interpolate at the stamps' typical period: cubic between neighbours, linear across short gaps."""
    fresh = np.concatenate([[True], np.diff(times_s) > period / 10])  # a repeated stamp would make the spline swing
    rows = np.flatnonzero(fresh)
    times, known = times_s[rows] - times_s[0], values[rows].astype(np.float64)
    steps = np.diff(times)
    regular = steps[steps <= MISSING_PERIODS * period]
    spacing = float(regular.mean()) if len(regular) else period
    grid = np.arange(int(np.floor(times[-1] / spacing + 1e-6)) + 1) * spacing
    full_times, full = _bridged(times, known, spacing)
    before = np.clip(np.searchsorted(times, grid, side="right") - 1, 0, len(rows) - 1)
    after = np.minimum(before + 1, len(rows) - 1)
    closest = np.where(np.abs(grid - times[before]) <= np.abs(grid - times[after]), before, after)
    in_gap = times[after] - times[before] > MISSING_PERIODS * period
    spline = CubicSpline(full_times, full, axis=0)(grid) if len(full_times) > 1 else known
    valid = ~in_gap | (np.abs(grid - times[closest]) <= spacing / 2)
    return Stretch(spline, valid, rows[closest] + offset, float(times_s[0]), 1 / spacing)


def _bridged(times: np.ndarray, values: np.ndarray, spacing: float) -> tuple[np.ndarray, np.ndarray]:
    """Fill every gap with equally spaced points on the straight line between its ends."""
    missing = np.maximum(np.rint(np.diff(times) / spacing).astype(np.int64) - 1, 0)
    missing[np.diff(times) <= MISSING_PERIODS * spacing] = 0
    if not missing.any():
        return times, values
    before = np.repeat(np.arange(len(missing)), missing)
    within = np.arange(len(before)) - np.repeat(np.cumsum(missing) - missing, missing) + 1
    part = within / (missing[before] + 1)
    extra_times = times[before] + part * np.diff(times)[before]
    extra = values[before] + part[:, None] * np.diff(values, axis=0)[before]
    order = np.argsort(np.concatenate([times, extra_times]), kind="stable")
    return np.concatenate([times, extra_times])[order], np.concatenate([values, extra])[order]


def typical_period(stamps: np.ndarray) -> float:
    """Return the usual step: the median, or where stamps come in batches the mean without the longest 1 %."""
    if len(stamps) < 2:
        return 0.0
    steps = np.diff(stamps.astype(np.float64))
    median = float(np.median(steps))
    if median > 0 and float((steps < median / 10).mean()) <= 0.01:
        return median
    return float(steps[steps <= np.quantile(steps, 0.99)].mean())
