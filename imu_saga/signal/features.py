"""Hand features of a window for the classical baselines: 34 kinds, each with its formula and unit in ``feature_table``.

The signals are the channels and, for every triad (``*_x, *_y, *_z``), the length of its vector, which no rotation of
the device changes. All formulas are textbook statistics; the choice is ours.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

BAND_EDGES_HZ = (0.0, 0.75, 1.5, 3.0, 5.0, 10.0)
_AXIS_PAIRS = {"xy": (0, 1), "xz": (0, 2), "yz": (1, 2)}
_BLOCK = 2048  # windows computed at once


@dataclass(frozen=True)
class Feature:
    """One kind of feature.

    Args:
        name: the end of its columns' names.
        formula: x[i] is a signal of L samples, m its mean, s its deviation, f a frequency, P[f] its power |X[f]|^2/L^2.
        unit: "x" stands for the signal's own unit.
    """

    name: str
    formula: str
    unit: str


_OF_VALUES = (
    Feature("mean", "m = sum of x[i] / L", "x"),
    Feature("std", "s = sqrt(mean of (x[i] - m)^2)", "x"),
    Feature("min", "smallest x[i]", "x"),
    Feature("max", "largest x[i]", "x"),
    Feature("median", "50th percentile", "x"),
    Feature("iqr", "75th minus 25th percentile", "x"),
    Feature("p05", "5th percentile", "x"),
    Feature("p95", "95th percentile", "x"),
    Feature("skewness", "mean of (x[i] - m)^3 / s^3", "1"),
    Feature("kurtosis", "mean of (x[i] - m)^4 / s^4 - 3", "1"),
    Feature("mean_abs_deviation", "mean of |x[i] - m|", "x"),
    Feature("rms", "sqrt(mean of x[i]^2)", "x"),
    Feature("mean_abs_step", "mean of |x[i+1] - x[i]| times the rate", "x/s"),
    Feature("step_std", "deviation of (x[i+1] - x[i]) times the rate", "x/s"),
    Feature("crossings", "changes of sign of x[i] - m, per second", "1/s"),
    Feature("slope", "of the straight line with the least squared error", "x/s"),
    Feature("halves", "mean of the second half minus mean of the first", "x"),
)
_OF_SPECTRUM = (
    Feature("peak_hz", "f > 0 of the largest P[f]", "Hz"),
    Feature("peak_share", "largest P[f] / sum of P[f]", "1"),
    Feature("entropy", "-sum of p log p / log of their number, p = P[f] / sum of P[f]", "1"),
    Feature("centroid_hz", "sum of f P[f] / sum of P[f]", "Hz"),
    Feature("spread_hz", "sqrt(sum of (f - centroid)^2 P[f] / sum of P[f])", "Hz"),
    Feature("autocorrelation", "largest for lags between 0.25 s and half the window, 1 at lag 0", "1"),
    *(
        Feature(f"band_{low:g}_{high:g}_hz", f"log10 of the sum of P[f], {low:g} < f <= {high:g} Hz", "log10(x^2)")
        for low, high in zip(BAND_EDGES_HZ, BAND_EDGES_HZ[1:], strict=False)
    ),
)
_OF_TRIADS = (
    *(Feature(f"correlation_{pair}", f"Pearson's, of the axes {pair[0]} and {pair[1]}", "1") for pair in _AXIS_PAIRS),
    *(Feature(f"direction_{axis}", f"mean of axis {axis} / length of the three means", "1") for axis in "xyz"),
)


def feature_table() -> str:
    """Return the documentation of every kind of feature as a Markdown table: name, of what, formula, unit."""
    kinds = ((_OF_VALUES + _OF_SPECTRUM, "every channel and length"), (_OF_TRIADS, "every triad"))
    lines = ["| feature | of | formula | unit |", "|---|---|---|---|"]
    for features, of in kinds:
        lines += [f"| `{f.name}` | {of} | {f.formula.replace('|', chr(92) + '|')} | {f.unit} |" for f in features]
    return "\n".join(lines)


def feature_names(channels: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the columns that ``window_features`` gives for these channels."""
    triads = [name for name, _ in _triads(channels)]
    signals = [*channels, *(f"{triad}_length" for triad in triads)]
    names = [f"{signal}_{feature.name}" for feature in _OF_VALUES + _OF_SPECTRUM for signal in signals]
    return (*names, *(f"{triad}_{feature.name}" for triad in triads for feature in _OF_TRIADS))


def window_features(x: np.ndarray, rate_hz: float, channels: Sequence[str] | None = None) -> np.ndarray:
    """Compute every feature of every window.

    Args:
        x: (windows, length, channels), SI units.
        rate_hz: samples per second [Hz].
        channels: the channels' names; None takes each three channels as one triad.

    Returns:
        (windows, features) float32, finite, in the order of ``feature_names``.
    """
    names = tuple(channels) if channels is not None else tuple(f"{i // 3}_{'xyz'[i % 3]}" for i in range(x.shape[2]))
    blocks = [_features(x[row : row + _BLOCK].astype(np.float64), rate_hz, names) for row in range(0, len(x), _BLOCK)]
    return np.concatenate([np.zeros((0, len(feature_names(names))), np.float32), *blocks])


def _features(x: np.ndarray, rate_hz: float, names: tuple[str, ...]) -> np.ndarray:
    triads = [x[:, :, columns] for _, columns in _triads(names)]
    lengths = [np.linalg.norm(triad, axis=2, keepdims=True) for triad in triads]
    signals = np.concatenate([x, *lengths], axis=2)
    columns = [*_of_values(signals, rate_hz), *_of_spectrum(signals, rate_hz)]
    return np.concatenate([*columns, *map(_of_triad, triads)], axis=1).astype(np.float32)


def _of_values(x: np.ndarray, rate_hz: float) -> list[np.ndarray]:
    """Return the features of _OF_VALUES, each (windows, signals)."""
    length = x.shape[1]
    mean, std = x.mean(axis=1), x.std(axis=1)
    centred = x - mean[:, None]
    scale = np.maximum(std, 1e-9)
    low, first, median, third, high = np.percentile(x, [5, 25, 50, 75, 95], axis=1)
    above = centred > 0
    steps = np.diff(x, axis=1) * rate_hz
    time = (np.arange(length) - (length - 1) / 2) / rate_hz
    return [
        mean,
        std,
        x.min(axis=1),
        x.max(axis=1),
        median,
        third - first,
        low,
        high,
        (centred**3).mean(axis=1) / scale**3,
        (centred**4).mean(axis=1) / scale**4 - 3 * (std > 1e-9),
        np.abs(centred).mean(axis=1),
        np.sqrt(mean**2 + std**2),
        np.abs(steps).mean(axis=1),
        steps.std(axis=1),
        (above[:, 1:] != above[:, :-1]).mean(axis=1) * rate_hz,
        np.einsum("l,nls->ns", time, centred) / (time**2).sum(),
        x[:, length // 2 :].mean(axis=1) - x[:, : length // 2].mean(axis=1),
    ]


def _of_spectrum(x: np.ndarray, rate_hz: float) -> list[np.ndarray]:
    """Return the features of _OF_SPECTRUM, each (windows, signals)."""
    length = x.shape[1]
    centred = x - x.mean(axis=1, keepdims=True)
    power = np.abs(np.fft.rfft(centred, axis=1)[:, 1:]) ** 2 / length**2
    frequency = np.fft.rfftfreq(length, 1 / rate_hz)[1:]
    share = power / np.maximum(power.sum(axis=1, keepdims=True), 1e-12)
    entropy = -(share * np.log(share + 1e-12)).sum(axis=1) / np.log(max(len(frequency), 2))
    centroid = np.einsum("f,nfs->ns", frequency, share)
    squares = np.einsum("f,nfs->ns", frequency**2, share)
    padded = np.abs(np.fft.rfft(centred, 2 * length, axis=1)) ** 2
    correlation = np.fft.irfft(padded, axis=1)[:, :length]
    correlation = correlation / np.maximum(correlation[:, :1], 1e-9)
    shortest = min(max(1, round(0.25 * rate_hz)), length - 1)
    found = correlation[:, shortest : max(length // 2, shortest + 1)].max(axis=1)
    spread = np.sqrt(np.maximum(squares - centroid**2, 0.0))
    bands = [
        np.log10(power[:, (frequency > low) & (frequency <= high)].sum(axis=1) + 1e-8)
        for low, high in zip(BAND_EDGES_HZ, BAND_EDGES_HZ[1:], strict=False)
    ]
    return [frequency[share.argmax(axis=1)], share.max(axis=1), entropy, centroid, spread, found, *bands]


def _of_triad(x: np.ndarray) -> np.ndarray:
    """Return the features of _OF_TRIADS, (windows, 6), of (windows, length, 3); 0 where an axis is constant."""
    mean = x.mean(axis=1)
    centred = x - mean[:, None]
    spread = np.maximum(np.sqrt((centred**2).sum(axis=1)), 1e-9)
    pairs = _AXIS_PAIRS.values()
    products = [(centred[:, :, a] * centred[:, :, b]).sum(axis=1) / (spread[:, a] * spread[:, b]) for a, b in pairs]
    direction = mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-9)
    return np.concatenate([np.stack(products, axis=1), direction], axis=1)


def _triads(channels: Sequence[str]) -> list[tuple[str, list[int]]]:
    """Return (name, columns x y z) of every sensor of which all three axes are there, in order of appearance."""
    names = list(channels)
    sensors = dict.fromkeys(name[:-2] for name in names if name.endswith(("_x", "_y", "_z")))
    axes = {sensor: [f"{sensor}_{axis}" for axis in "xyz"] for sensor in sensors}
    return [
        (sensor, [names.index(axis) for axis in wanted]) for sensor, wanted in axes.items() if set(wanted) <= set(names)
    ]
