"""What the axes tell of themselves: stuck, clipped, equal, exchanged; where gravity points; the gyroscope's bias."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import median_filter

from imu_saga.signal.units import GYRO_SCALE, SMOOTHING_S, SPIKE_SAMPLES

# Ours.
CLIPPED_PART, CLIPPED_RUN = 0.002, 3  # of the samples on the extreme value, and so many of them in a row
CALM_S, CALM_SPREAD = 1.0, 0.05  # [s], [rad/s]
FIT_S, FIT_NEEDED = 8.0, 0.6  # [s] and correlation needed to judge
FIT_LEAD = 0.8  # the better an arrangement fits, the smaller a lead is needed: 1 - 0.8 x its correlation
MAPS = tuple(
    (order, signs) for order in itertools.permutations(range(3)) for signs in itertools.product((1, -1), repeat=3)
)


@dataclass(frozen=True)
class AxisFacts:
    """One axis in the file's units.

    Args:
        name: its column.
        missing: empty or unreadable cells.
        low: smallest value.
        high: largest value.
        constant: it never changes.
        clipped: part of the samples that stand on the smallest or largest value, 0 unless several do in a row.
        same_as: an earlier axis with equal values, or "".
    """

    name: str
    missing: int
    low: float
    high: float
    constant: bool
    clipped: float
    same_as: str


@dataclass(frozen=True)
class Arrangement:
    """How the gyroscope's axes fit the accelerometer's: d(gravity)/dt = -omega x gravity.

    Args:
        given: correlation of both sides as the columns are mapped, in [-1, 1].
        best: the highest correlation of any order and sign of the gyroscope's axes.
        mapping: that order and sign, as in ("y", "-x", "z").
        exchanged: the mapped columns do not fit, and another arrangement does.
    """

    given: float
    best: float
    mapping: tuple[str, str, str]
    exchanged: bool


def axis_facts(names: Sequence[str], values: np.ndarray) -> tuple[AxisFacts, ...]:
    """Describe every column of ``values`` (rows, axes); NaN where a cell is empty."""
    facts = []
    for index, name in enumerate(names):
        known = values[np.isfinite(values[:, index]), index]
        if not len(known):
            facts.append(AxisFacts(name, len(values), np.nan, np.nan, constant=True, clipped=0.0, same_as=""))
            continue
        twin = next(
            (names[i] for i in range(index) if np.array_equal(values[:, i], values[:, index], equal_nan=True)), ""
        )
        low, high = float(known.min()), float(known.max())
        missing = len(values) - len(known)
        clipped = 0.0 if low == high else clipped_part(known)
        facts.append(AxisFacts(name, missing, low, high, constant=low == high, clipped=clipped, same_as=twin))
    return tuple(facts)


def clipped_part(values: np.ndarray) -> float:
    """Return the part of (samples,) values on their extremes, 0 unless that is a rail: often, and several in a row."""
    part = 0.0
    for extreme in (values.min(), values.max()):
        on_it = values == extreme
        runs = np.convolve(on_it, np.ones(CLIPPED_RUN), "valid") == CLIPPED_RUN
        if runs.any() and on_it.mean() >= CLIPPED_PART:
            part += float(on_it.mean())
    return part


def gravity_direction(acc: np.ndarray) -> tuple[float, float, float]:
    """Return the unit vector of the mean of (samples, 3) acc: what points up while the device is still."""
    mean = acc.mean(axis=0)
    x, y, z = (mean / max(float(np.linalg.norm(mean)), 1e-12)).tolist()
    return x, y, z


def calm_bias(gyro: np.ndarray, rate_hz: float, unit: str) -> tuple[float, float, float] | None:
    """Return the mean of (samples, 3) gyro over its calmest second, in its ``unit``; None where it never rests."""
    steps = min(len(gyro), max(2, round(CALM_S * rate_hz)))
    pieces = gyro[: len(gyro) // steps * steps].reshape(-1, steps, 3)
    spread = np.sqrt(pieces.var(axis=1).sum(axis=1))
    calmest = int(np.argmin(spread))
    if spread[calmest] > CALM_SPREAD / (GYRO_SCALE["deg/s"] if unit == "deg/s" else 1.0):
        return None
    x, y, z = pieces[calmest].mean(axis=0).tolist()
    return x, y, z


def fit_arrangement(acc: np.ndarray, gyro: np.ndarray, rate_hz: float) -> Arrangement | None:
    """Try every order and sign of the gyroscope's axes against how gravity moves in the device.

    Args:
        acc: (samples, 3), any unit.
        gyro: (samples, 3), any unit.
        rate_hz: samples per second [Hz].

    Returns:
        The arrangement, or None where the recording is too short or nothing turns.
    """
    steps = max(1, round(SMOOTHING_S * rate_hz))
    if len(acc) < FIT_S * rate_hz:
        return None
    kernel = np.ones(steps) / steps
    acc, gyro = (median_filter(each.astype(np.float64), (SPIKE_SAMPLES, 1)) for each in (acc, gyro))
    gyro = gyro - np.median(gyro, axis=0)
    down, turn = (np.stack([np.convolve(each[:, i], kernel, "valid") for i in range(3)], 1) for each in (acc, gyro))
    moved = down[steps:] - down[:-steps]
    between = (down[steps:] + down[:-steps]) / 2
    turned = np.stack([np.convolve(turn[:, i], kernel, "valid") for i in range(3)], 1)[: len(moved)]
    if not (moved.any() and turned.any()):
        return None
    fits = [_fit(moved, between, turned[:, order] * signs) for order, signs in MAPS]
    best = int(np.argmax(fits))
    order, signs = MAPS[best]
    x, y, z = (("-" if sign < 0 else "") + "xyz"[axis] for axis, sign in zip(order, signs, strict=True))
    given = fits[MAPS.index(((0, 1, 2), (1, 1, 1)))]
    exchanged = fits[best] >= FIT_NEEDED and fits[best] - given >= 1 - FIT_LEAD * fits[best]
    return Arrangement(given, fits[best], (x, y, z), exchanged)


def _fit(moved: np.ndarray, down: np.ndarray, turned: np.ndarray) -> float:
    """Return the correlation of d(down) with -turned x down, all (samples, 3)."""
    predicted = -np.cross(turned, down)
    scale = float(np.sqrt((predicted**2).sum() * (moved**2).sum()))
    return float((predicted * moved).sum()) / scale if scale > 0 else 0.0
