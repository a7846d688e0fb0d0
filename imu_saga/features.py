"""Hand features of a window for the classical baselines: 16 statistics of every signal, and how the axes go together.

The signals are the channels and, for every triad (``*_x, *_y, *_z``), the length of its vector, which no rotation of
the device changes. All formulas are textbook statistics; the choice is ours.
"""

from collections.abc import Sequence

import numpy as np

STATISTICS = (
    "mean",
    "std",
    "min",
    "max",
    "median",
    "iqr",  # 75th minus 25th percentile
    "p05",
    "p95",
    "skewness",
    "kurtosis",  # excess
    "mean_abs_step",  # mean |x[i+1] - x[i]| times the rate
    "crossings",  # of the mean, per second
    "peak_hz",  # frequency of the largest amplitude, the mean removed
    "peak_share",  # its part of the power
    "entropy",  # of the power spectrum, in [0, 1]
    "autocorrelation",  # largest for lags between 0.25 s and half the window
)
BAND_EDGES_HZ = (0.0, 0.75, 1.5, 3.0, 5.0, 10.0)  # log power in each band, of every signal


def feature_names(channels: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the columns that ``window_features`` gives for these channels."""
    triads = _triads(channels)
    signals = [*channels, *(f"{name}_length" for name, _ in triads)]
    bands = [f"band_{low:g}_{high:g}_hz" for low, high in zip(BAND_EDGES_HZ, BAND_EDGES_HZ[1:], strict=False)]
    names = [f"{signal}_{statistic}" for statistic in (*STATISTICS, *bands) for signal in signals]
    for name, _ in triads:
        names += [f"{name}_correlation_{pair}" for pair in ("xy", "xz", "yz")]
    return tuple(names)


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
    blocks = [_features(x[rows : rows + 2048].astype(np.float64), rate_hz, names) for rows in range(0, len(x), 2048)]
    return np.concatenate([np.zeros((0, len(feature_names(names))), np.float32), *blocks])


def _features(x: np.ndarray, rate_hz: float, names: tuple[str, ...]) -> np.ndarray:
    triads = _triads(names)
    lengths = [np.linalg.norm(x[:, :, columns], axis=2) for _, columns in triads]
    signals = np.concatenate([x, *(length[:, :, None] for length in lengths)], axis=2)
    columns = [*_of_values(signals, rate_hz), *_of_spectrum(signals, rate_hz)]
    correlations = [_correlations(x[:, :, axes]) for _, axes in triads]
    return np.concatenate([*columns, *correlations], axis=1).astype(np.float32)


def _of_values(x: np.ndarray, rate_hz: float) -> list[np.ndarray]:
    """Return the first twelve statistics, each (windows, signals)."""
    mean, std = x.mean(axis=1), x.std(axis=1)
    centred = x - mean[:, None]
    scale = np.maximum(std, 1e-9)
    low, first, median, third, high = np.percentile(x, [5, 25, 50, 75, 95], axis=1)
    above = centred > 0
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
        np.abs(np.diff(x, axis=1)).mean(axis=1) * rate_hz,
        (above[:, 1:] != above[:, :-1]).mean(axis=1) * rate_hz,
    ]


def _of_spectrum(x: np.ndarray, rate_hz: float) -> list[np.ndarray]:
    """Return the last four statistics and the band powers, each (windows, signals)."""
    length = x.shape[1]
    centred = x - x.mean(axis=1, keepdims=True)
    power = np.abs(np.fft.rfft(centred, axis=1)[:, 1:]) ** 2 / length**2
    frequency = np.fft.rfftfreq(length, 1 / rate_hz)[1:]
    share = power / np.maximum(power.sum(axis=1, keepdims=True), 1e-12)
    entropy = -(share * np.log(share + 1e-12)).sum(axis=1) / np.log(max(len(frequency), 2))
    padded = np.abs(np.fft.rfft(centred, 2 * length, axis=1)) ** 2
    correlation = np.fft.irfft(padded, axis=1)[:, :length]
    correlation = correlation / np.maximum(correlation[:, :1], 1e-9)
    shortest = min(max(1, round(0.25 * rate_hz)), length - 1)
    found = correlation[:, shortest : max(length // 2, shortest + 1)].max(axis=1)
    bands = [
        np.log10(power[:, (frequency > low) & (frequency <= high)].sum(axis=1) + 1e-8)
        for low, high in zip(BAND_EDGES_HZ, BAND_EDGES_HZ[1:], strict=False)
    ]
    return [frequency[share.argmax(axis=1)], share.max(axis=1), entropy, found, *bands]


def _correlations(x: np.ndarray) -> np.ndarray:
    """Return (windows, 3) Pearson correlations xy, xz, yz of (windows, length, 3); 0 where an axis is constant."""
    centred = x - x.mean(axis=1, keepdims=True)
    spread = np.maximum(np.sqrt((centred**2).sum(axis=1)), 1e-9)
    products = [(centred[:, :, a] * centred[:, :, b]).sum(axis=1) / (spread[:, a] * spread[:, b]) for a, b in _PAIRS]
    return np.stack(products, axis=1)


_PAIRS = ((0, 1), (0, 2), (1, 2))


def _triads(channels: Sequence[str]) -> list[tuple[str, list[int]]]:
    """Return (name, columns x y z) of every sensor of which all three axes are there, in order of appearance."""
    names = list(channels)
    sensors = dict.fromkeys(name[:-2] for name in names if name.endswith(("_x", "_y", "_z")))
    axes = {sensor: [f"{sensor}_{axis}" for axis in "xyz"] for sensor in sensors}
    return [
        (sensor, [names.index(axis) for axis in wanted]) for sensor, wanted in axes.items() if set(wanted) <= set(names)
    ]
