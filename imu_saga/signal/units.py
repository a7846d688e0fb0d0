"""Units of accelerometer and gyroscope: converted, detected, and refused where the signal contradicts them."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.ndimage import median_filter

from shared_peft.errors import DataError

GRAVITY = 9.80665  # standard gravity [m/s^2], ISO 80000-3
AccUnit = Literal["m/s^2", "g", "mg"]
GyroUnit = Literal["rad/s", "deg/s"]
MagUnit = Literal["uT", "nT", "mT", "T", "G", "mG"]
ACC_SCALE: dict[AccUnit, float] = {"m/s^2": 1.0, "g": GRAVITY, "mg": GRAVITY / 1000}
GYRO_SCALE: dict[GyroUnit, float] = {"rad/s": 1.0, "deg/s": float(np.pi / 180)}
MAG_SCALE: dict[MagUnit, float] = {"uT": 1.0, "nT": 1e-3, "mT": 1e3, "T": 1e6, "G": 100.0, "mG": 0.1}

# Ours. A worn device's median |acc| is near gravity: 7.7 to 14.2 m/s^2 on the recordings tried, jumping included.
ACC_RANGE = (7.0, 15.0)  # [m/s^2]
STEADY_SAMPLES, STEADY_PART = 10, 0.5  # gravity outlives the mean of 10 samples (0.72 on the recordings tried)
ACC_LIMIT = 4000.0  # [m/s^2] beyond the range of the accelerometers people wear (400 g)
# Ours. Turning tilts gravity: (rate of tilt) / (angular rate) is 0.29 to 4.9 in rad/s, so at most 0.086 in deg/s, on
# the recordings tried but for four with a gyroscope that jumped (0.10).
RAD_RATIO, DEG_RATIO = (0.18, 12.0), (0.003, 0.085)
REST_TILT = 0.05  # [rad/s] below it nothing turns, and the unit of the gyroscope cannot be told
GYRO_LIMIT = 75.0  # [rad/s] beyond the range of any motion sensor for people (4000 deg/s = 70 rad/s)
MAG_LIMIT = 6000.0  # [uT] beyond the range of a phone's magnetometer (4915 uT)
SMOOTHING_S = 0.25
SPIKE_SAMPLES = 5  # a median of this width drops broken samples
CALM_PART = 0.9  # of the times count; in the fastest a cell is broken, or a jump leaves no gravity to tilt


@dataclass(frozen=True)
class UnitEvidence:
    """A unit and the number it was told from.

    Args:
        unit: the unit found.
        measure: what was measured, in words.
        value: its value, in the signal's own units.
    """

    unit: str
    measure: str
    value: float


def detect_acc_unit(acc: np.ndarray, where: str) -> UnitEvidence:
    """Tell the accelerometer's unit from the median length of its vectors, which is near gravity.

    Args:
        acc: (samples, 3), any unit.
        where: file and columns, for the error message.

    Returns:
        The unit with the median |acc| as evidence.

    Raises:
        DataError: the median fits neither m/s^2, g nor mg (free fall, gravity removed, raw counts), or acc is noise.
    """
    if not len(acc):
        raise DataError(where, "acc must hold a sample to tell its unit", "none", "Check the columns")
    median = float(np.median(np.linalg.norm(acc, axis=1)))
    kept = steadiness(acc)
    if median > 0 and kept < STEADY_PART:
        must = f"acc must keep its direction over {STEADY_SAMPLES} samples, as gravity does, to tell the unit"
        fix = "Record with gravity, or check the columns; this is noise or free fall"
        raise DataError(where, must, f"{kept:.2g} of its length kept", fix)
    for unit, scale in ACC_SCALE.items():
        if ACC_RANGE[0] <= median * scale <= ACC_RANGE[1]:
            return UnitEvidence(unit, "median |acc|", median)
    must = "median |acc| must be about 9.8 (m/s^2), 1 (g) or 1000 (mg) to tell the unit"
    raise DataError(where, must, f"{median:.4g}", "Convert it to m/s^2 with gravity kept; raw counts need their scale")


def acc_to_si(acc: np.ndarray, unit: AccUnit | Literal["auto"], where: str) -> np.ndarray:
    """Return the accelerometer in m/s^2.

    Args:
        acc: (samples, 3) in ``unit``.
        unit: the declared unit, or "auto" to detect it.
        where: file and columns, for the error message.

    Raises:
        DataError: the median |acc| contradicts the declared unit, or no unit fits.
    """
    found = detect_acc_unit(acc, where)
    if unit not in ("auto", found.unit):
        must = f"acc declared in {unit} must have a median |acc| near {GRAVITY / ACC_SCALE[unit]:.4g}"
        raise DataError(where, must, f"{found.value:.4g}, which fits {found.unit}", f"Declare acc in {found.unit}")
    converted = acc * ACC_SCALE[found.unit]  # type: ignore[index]  (the key is one of AccUnit)
    _check_below(converted, ACC_LIMIT, "m/s^2", where)
    return converted


def steadiness(acc: np.ndarray) -> float:
    """Return the median |mean of 10 neighbours| over the median |acc|: near 1 under gravity, 0.3 for pure noise."""
    length = float(np.median(np.linalg.norm(acc, axis=1)))
    means = _moving_mean(acc, min(STEADY_SAMPLES, len(acc)))
    return float(np.median(np.linalg.norm(means, axis=1))) / max(length, 1e-12)


def mag_to_si(mag: np.ndarray, unit: MagUnit, where: str) -> np.ndarray:
    """Return the magnetometer, (samples, 3) in ``unit``, in uT; a field no phone measures is refused."""
    converted = mag * MAG_SCALE[unit]
    _check_below(converted, MAG_LIMIT, "uT", where)
    return converted


def _check_below(values: np.ndarray, limit: float, unit: str, where: str) -> None:
    beyond = np.abs(values) > limit
    if beyond.any():
        row, axis = np.argwhere(beyond)[0]
        came = (
            f"{values[row, axis]:.4g} at sample {row}, axis {'xyz'[axis]}, and {int(beyond.sum())} such values in all"
        )
        raise DataError(where, f"must stay within {limit:g} {unit}", came, "Correct or remove the row, or the unit")


def detect_gyro_unit(acc: np.ndarray, gyro: np.ndarray, rate_hz: float, where: str) -> UnitEvidence:
    """Tell the gyroscope's unit by how fast gravity tilts in the device while it turns.

    Args:
        acc: (samples, 3), any unit.
        gyro: (samples, 3), rad/s or deg/s.
        rate_hz: samples per second [Hz].
        where: file and columns, for the error message.

    Returns:
        The unit with the ratio (tilt rate [rad/s]) / (angular rate [gyro's unit]) as evidence.

    Raises:
        DataError: too short, at rest, or a ratio that fits neither unit.
    """
    tilt, turn = _tilt_and_turn(acc, gyro, rate_hz)
    if not tilt >= REST_TILT:
        must = f"the device must turn (gravity tilting by {REST_TILT} rad/s or more) to tell the gyroscope's unit"
        raise DataError(where, must, f"{tilt:.3g} rad/s", "Declare the gyroscope's unit: rad/s or deg/s")
    ratio = tilt / max(turn, 1e-12)
    for unit, (low, high) in (("rad/s", RAD_RATIO), ("deg/s", DEG_RATIO)):
        if low <= ratio <= high:
            return UnitEvidence(unit, "tilt rate / angular rate", ratio)
    must = f"tilt rate over angular rate must be in {list(RAD_RATIO)} (rad/s) or {list(DEG_RATIO)} (deg/s)"
    raise DataError(where, must, f"{ratio:.3g}", "Check the gyroscope's columns, then declare its unit")


def gyro_to_si(
    acc: np.ndarray, gyro: np.ndarray, unit: GyroUnit | Literal["auto"], rate_hz: float, where: str
) -> np.ndarray:
    """Return the gyroscope in rad/s.

    Args:
        acc: (samples, 3) of the same device and times, any unit.
        gyro: (samples, 3) in ``unit``.
        unit: the declared unit, or "auto" to detect it.
        rate_hz: samples per second [Hz].
        where: file and columns, for the error message.

    Raises:
        DataError: the unit cannot be told, or the declared one gives impossible rates.
    """
    chosen = detect_gyro_unit(acc, gyro, rate_hz, where).unit if unit == "auto" else unit
    converted = gyro * GYRO_SCALE[chosen]  # type: ignore[index]  (the key is one of GyroUnit)
    fastest = float(np.percentile(np.linalg.norm(converted, axis=1), 99))
    if fastest > GYRO_LIMIT:
        must = f"gyro in {chosen} must stay below {GYRO_LIMIT:g} rad/s"
        raise DataError(where, must, f"a 99th percentile of {fastest:.4g} rad/s", "Declare gyro in deg/s or rescale it")
    _check_below(converted, GYRO_LIMIT, "rad/s", where)
    if unit != "auto":
        _check_declared(acc, gyro, unit, rate_hz, where)
    return converted


def _check_declared(acc: np.ndarray, gyro: np.ndarray, unit: str, rate_hz: float, where: str) -> None:
    """Refuse a declared unit only when a moving signal plainly shows the other one."""
    tilt, turn = _tilt_and_turn(acc, gyro, rate_hz)
    ratio = tilt / max(turn, 1e-12)
    shown = "deg/s" if ratio < DEG_RATIO[1] / 2 else "rad/s" if 2 * RAD_RATIO[0] < ratio < RAD_RATIO[1] else unit
    if tilt >= REST_TILT and shown != unit:
        must = f"gyro declared in {unit} must turn as fast as gravity tilts in the device"
        raise DataError(where, must, f"tilt rate / angular rate {ratio:.3g}, as in {shown}", f"Declare gyro in {shown}")


def _tilt_and_turn(acc: np.ndarray, gyro: np.ndarray, rate_hz: float) -> tuple[float, float]:
    """Return the root mean square rates of gravity's tilt [rad/s] and of the gyroscope [its unit] at the same times.

    Both are means over a quarter of a second, free of isolated spikes; 0 where acc holds no gravity.
    """
    steps = max(1, round(SMOOTHING_S * rate_hz))
    if len(acc) < 4 * steps or steadiness(acc) < STEADY_PART:
        return 0.0, 0.0
    acc, gyro = (median_filter(values.astype(np.float64), (SPIKE_SAMPLES, 1)) for values in (acc, gyro))
    down, turning = _moving_mean(acc, steps), _moving_mean(gyro - np.median(gyro, axis=0), steps)
    down = down / np.maximum(np.linalg.norm(down, axis=1, keepdims=True), 1e-9)
    tilting = (down[steps:] - down[:-steps]) * (rate_hz / steps)
    turning = _moving_mean(turning, steps)[: len(tilting)]
    return _calm_rms(tilting), _calm_rms(turning)


def _calm_rms(vectors: np.ndarray) -> float:
    """Return the root mean square length of the calmer nine tenths of (samples, 3) vectors."""
    squares = np.sort((vectors**2).sum(axis=1))
    return float(np.sqrt(squares[: max(1, int(CALM_PART * len(squares)))].mean()))


def _moving_mean(values: np.ndarray, steps: int) -> np.ndarray:
    sums = np.cumsum(np.concatenate([np.zeros((1, 3)), values.astype(np.float64)]), axis=0)
    return (sums[steps:] - sums[:-steps]) / steps
