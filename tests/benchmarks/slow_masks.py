"""The four masking levels window by window in numpy and scipy, as a first draft would have them: slow, independent."""

import numpy as np
from scipy.ndimage import uniform_filter1d
from scipy.signal import find_peaks


def slow_mask(x: np.ndarray, rate_hz: float, rng: np.random.Generator) -> np.ndarray:
    """Return what one window hides: a level drawn uniformly, bool, shape (samples, channels)."""
    level = rng.integers(4)
    if level == 0:
        mask = np.zeros(x.shape, bool)
        mask[:, rng.integers(x.shape[1])] = True
        return mask
    samples = len(x)
    hidden = (point, sub_period, period)[level - 1](energy(x, rate_hz), samples, rate_hz, rng)
    return np.repeat(hidden[:, None], x.shape[1], axis=1)


def energy(x: np.ndarray, rate_hz: float) -> np.ndarray:
    """Return the smoothed energy of the accelerometer's movement, shape (samples,)."""
    raw = ((x[:, :3] - x[:, :3].mean(0)) ** 2).sum(1)
    return uniform_filter1d(raw, 2 * (round(0.15 * rate_hz) // 2) + 1, mode="nearest")


def point(movement: np.ndarray, samples: int, rate_hz: float, rng: np.random.Generator) -> np.ndarray:
    """Hide spans until 15 % is hidden."""
    hidden = np.zeros(samples, bool)
    while hidden.sum() < 0.15 * samples:
        length = min(rng.geometric(0.2), 10)
        start = rng.integers(samples - length + 1)
        hidden[start : start + length] = True
    return hidden


def sub_period(movement: np.ndarray, samples: int, rate_hz: float, rng: np.random.Generator) -> np.ndarray:
    """Hide what lies between two neighbouring peaks or valleys."""
    span, distance = np.ptp(movement), max(1, round(0.2 * rate_hz))
    peaks, _ = find_peaks(movement, height=movement.min() + 0.1 * span, distance=distance)
    valleys, _ = find_peaks(-movement, height=-movement.max() + 0.1 * span, distance=distance)
    points = np.sort(np.concatenate([peaks, valleys]))
    if len(points) < 2:
        return point(movement, samples, rate_hz, rng)
    pair = rng.integers(len(points) - 1)
    stroke = points[pair + 1] - points[pair] + 1
    length = min(stroke, int(0.4 * samples))
    return _span(int(points[pair] + rng.integers(stroke - length + 1)), length, samples)


def period(movement: np.ndarray, samples: int, rate_hz: float, rng: np.random.Generator) -> np.ndarray:
    """Hide one main period."""
    amplitude = np.abs(np.fft.rfft(movement - movement.mean()))[2:]
    if amplitude.max() < 3 * np.median(amplitude):
        return point(movement, samples, rate_hz, rng)
    length = int(np.clip(round(samples / (int(amplitude.argmax()) + 2)), 2, samples // 2))
    return _span(int(rng.integers(samples - length + 1)), length, samples)


def _span(start: int, length: int, samples: int) -> np.ndarray:
    index = np.arange(samples)
    return (index >= start) & (index < start + length)
