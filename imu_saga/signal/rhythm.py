"""Rhythm of movement: energy, key points and main period of many windows at once (idea: Saga, arXiv:2504.11726).

The paper names the quantities; every constant here is ours.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

SMOOTHING_S = 0.15
KEY_POINT_DISTANCE_S = 0.2
KEY_POINT_HEIGHT = 0.1
CLEAR_PEAK = 3.0


def accelerometer_columns(channels: Sequence[str]) -> list[int]:
    """Return the columns of the accelerometer ("acc_x", ...), or all columns where there is none."""
    found = [column for column, name in enumerate(channels) if name.startswith("acc")]
    return found or list(range(len(channels)))


def energy(x: Tensor, valid: Tensor, rate_hz: float, channels: Sequence[str]) -> Tensor:
    """Return the smoothed energy of movement: sum over accelerometer axes of (a - mean)^2.

    Args:
        x: windows, shape (windows, samples, channels), acceleration in [m/s^2].
        valid: which samples were measured, bool, shape (windows, samples); others count as no movement.
        rate_hz: sampling rate [Hz].
        channels: channel names in the order of the last dimension.

    Returns:
        Energy [m^2/s^4], smoothed by a centred mean over 0.15 s, shape (windows, samples).
    """
    acceleration = x[..., accelerometer_columns(channels)]
    weight = valid.unsqueeze(-1).to(x.dtype)
    mean = (acceleration * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp(min=1)
    raw = ((acceleration - mean) * weight).square().sum(-1)
    reach = round(SMOOTHING_S * rate_hz) // 2
    if reach == 0:
        return raw
    return functional.avg_pool1d(
        raw.unsqueeze(1), 2 * reach + 1, stride=1, padding=reach, count_include_pad=False
    ).squeeze(1)


def key_points(movement: Tensor, rate_hz: float) -> Tensor:
    """Mark peaks and valleys: the extreme of everything within 0.2 s, and 10 % of the range away from the other end.

    Args:
        movement: energy, shape (windows, samples).
        rate_hz: sampling rate [Hz].

    Returns:
        Bool, shape (windows, samples); of equal neighbours the first is marked. A flat window has none.
    """
    low, high = movement.amin(1, keepdim=True), movement.amax(1, keepdim=True)
    least = KEY_POINT_HEIGHT * (high - low)
    peaks = _first_maximum_around(movement, rate_hz) & (movement - low >= least)
    valleys = _first_maximum_around(-movement, rate_hz) & (high - movement >= least)
    return (peaks | valleys) & (high > low)


def _first_maximum_around(values: Tensor, rate_hz: float) -> Tensor:
    """Mark values that are above all earlier and not below all later ones within 0.2 s."""
    reach = max(1, round(KEY_POINT_DISTANCE_S * rate_hz))
    padded = functional.pad(values.unsqueeze(1), (reach, reach), value=-torch.inf)
    highest = functional.max_pool1d(padded, reach, stride=1).squeeze(1)
    samples = values.shape[1]
    before, after = highest[:, :samples], highest[:, reach + 1 : reach + 1 + samples]
    return (values > before) & (values >= after)


def main_period(movement: Tensor) -> tuple[Tensor, Tensor]:
    """Find the period of the largest Fourier amplitude among periods of 2 samples to half the window.

    Args:
        movement: energy, shape (windows, samples); at least 4 samples.

    Returns:
        The period [samples], float, shape (windows,), and whether its amplitude is at least 3 times the median.
    """
    samples = movement.shape[1]
    amplitude = torch.fft.rfft(movement - movement.mean(1, keepdim=True)).abs()[:, 2:]
    strongest, offset = amplitude.max(1)
    clear = (strongest >= CLEAR_PEAK * amplitude.median(1).values) & (strongest > 0)
    return samples / (offset + 2).to(movement.dtype), clear
