"""Units of accelerometer and gyroscope: converted, detected, and refused where the signal contradicts them."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from shared_peft.errors import DataError

GRAVITY = 9.80665  # standard gravity [m/s^2], ISO 80000-3
AccUnit = Literal["m/s^2", "g", "mg"]
GyroUnit = Literal["rad/s", "deg/s"]
ACC_SCALE: dict[AccUnit, float] = {"m/s^2": 1.0, "g": GRAVITY, "mg": GRAVITY / 1000}
GYRO_SCALE: dict[GyroUnit, float] = {"rad/s": 1.0, "deg/s": float(np.pi / 180)}

# Ours. A worn device's median |acc| is near gravity: 8.9 to 11.9 m/s^2 on the recordings tried, jogging included.
ACC_RANGE = (7.0, 15.0)  # [m/s^2]
# Ours. Turning tilts gravity: (rate of tilt) / (angular rate) is 0.1 to 13 in rad/s and at most 0.03 in deg/s.
RAD_RATIO, DEG_RATIO = 0.08, 0.05
REST_TILT = 0.05  # [rad/s] below it nothing turns, and the unit of the gyroscope cannot be told
GYRO_LIMIT = 75.0  # [rad/s] beyond the range of any motion sensor for people (4000 deg/s = 70 rad/s)
SMOOTHING_S = 0.25


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
        DataError: the median fits neither m/s^2, g nor mg (free fall, gravity removed, raw counts).
    """
    median = float(np.median(np.linalg.norm(acc, axis=1)))
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
    return acc * ACC_SCALE[found.unit]  # type: ignore[index]  (the key is one of AccUnit)


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
    if DEG_RATIO < ratio < RAD_RATIO or ratio > 1000 * RAD_RATIO:
        must = f"tilt rate over angular rate must be above {RAD_RATIO} (rad/s) or below {DEG_RATIO} (deg/s)"
        raise DataError(where, must, f"{ratio:.3g}", "Check the gyroscope's columns, then declare its unit")
    return UnitEvidence("rad/s" if ratio >= RAD_RATIO else "deg/s", "tilt rate / angular rate", ratio)


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
    if unit != "auto":
        _check_declared(acc, gyro, unit, rate_hz, where)
    return converted


def _check_declared(acc: np.ndarray, gyro: np.ndarray, unit: str, rate_hz: float, where: str) -> None:
    """Refuse a declared unit only when a moving signal plainly shows the other one."""
    tilt, turn = _tilt_and_turn(acc, gyro, rate_hz)
    ratio = tilt / max(turn, 1e-12)
    shown = "deg/s" if ratio < DEG_RATIO / 2 else "rad/s" if RAD_RATIO * 4 < ratio < RAD_RATIO * 250 else unit
    if tilt >= REST_TILT and shown != unit:
        must = f"gyro declared in {unit} must turn as fast as gravity tilts in the device"
        raise DataError(where, must, f"tilt rate / angular rate {ratio:.3g}, as in {shown}", f"Declare gyro in {shown}")


def _tilt_and_turn(acc: np.ndarray, gyro: np.ndarray, rate_hz: float) -> tuple[float, float]:
    """Return the root mean square rates of gravity's tilt [rad/s] and of the gyroscope [its unit], smoothed."""
    steps = max(1, round(SMOOTHING_S * rate_hz))
    if len(acc) < 4 * steps:
        return 0.0, 0.0
    down, turning = _moving_mean(acc, steps), _moving_mean(gyro - np.median(gyro, axis=0), steps)
    down = down / np.maximum(np.linalg.norm(down, axis=1, keepdims=True), 1e-9)
    tilting = (down[steps:] - down[:-steps]) * (rate_hz / steps)
    rms = [float(np.sqrt((vectors**2).sum(axis=1).mean())) for vectors in (tilting, turning)]
    return rms[0], rms[1]


def _moving_mean(values: np.ndarray, steps: int) -> np.ndarray:
    sums = np.cumsum(np.concatenate([np.zeros((1, 3)), values.astype(np.float64)]), axis=0)
    return (sums[steps:] - sums[:-steps]) / steps
