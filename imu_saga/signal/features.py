"""Hand features of a window: 34 kinds, each with its formula and unit in ``feature_table``.

The signals are the channels and, for every triad (``*_x, *_y, *_z``), the length of its vector, which no rotation of
the device changes. All formulas are textbook statistics; the choice is ours. Classical
baselines learn from all of them, pre-training may predict them, and a classifier may read the smooth ones.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

BAND_EDGES_HZ = (0.0, 0.75, 1.5, 3.0, 5.0, 10.0)
_AXIS_PAIRS = {"xy": (0, 1), "xz": (0, 2), "yz": (1, 2)}
LEAST_DEVIATION = 1e-3  # [SI] ours: below any phone sensor's noise; a signal that moves less counts as constant
LEAST_POWER = 1e-12  # ours: keeps logarithms finite
_BLOCK = 2048  # windows computed at once


@dataclass(frozen=True)
class Feature:
    """One kind of feature.

    Args:
        name: the end of its columns' names.
        formula: x[i] is a signal of L samples, m its mean, s its deviation, f a frequency, P[f] its power |X[f]|^2/L^2.
        unit: "x" stands for the signal's own unit.
        smooth: whether it changes continuously with the signal and takes matrix products and sorting alone, so that it
            may stand inside an exported network.
    """

    name: str
    formula: str
    unit: str
    smooth: bool = True


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
    Feature("crossings", "changes of sign of x[i] - m, per second", "1/s", smooth=False),
    Feature("slope", "of the straight line with the least squared error", "x/s"),
    Feature("halves", "mean of the second half minus mean of the first", "x"),
)
_OF_SPECTRUM = (
    Feature("peak_hz", "f > 0 of the largest P[f]", "Hz", smooth=False),
    Feature("peak_share", "largest P[f] / sum of P[f]", "1"),
    Feature("entropy", "-sum of p log p / log of their number, p = P[f] / sum of P[f]", "1"),
    Feature("centroid_hz", "sum of f P[f] / sum of P[f]", "Hz"),
    Feature("spread_hz", "sqrt(sum of (f - centroid)^2 P[f] / sum of P[f])", "Hz"),
    Feature("autocorrelation", "largest for lags between 0.25 s and half the window, 1 at lag 0", "1", smooth=False),
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


def feature_names(channels: Sequence[str], *, smooth: bool = False) -> tuple[str, ...]:
    """Return the names of the columns that ``window_features`` gives for these channels.

    Args:
        channels: the channels' names.
        smooth: only the features that may stand inside a network.
    """
    triads = [name for name, _ in _triads(channels)]
    signals = [*channels, *(f"{triad}_length" for triad in triads)]
    kinds = [feature.name for feature in _OF_VALUES + _OF_SPECTRUM if feature.smooth or not smooth]
    names = [f"{signal}_{kind}" for kind in kinds for signal in signals]
    return (*names, *(f"{triad}_{feature.name}" for triad in triads for feature in _OF_TRIADS))


def window_features(x: np.ndarray, rate_hz: float, channels: Sequence[str] | None = None) -> np.ndarray:
    """Compute every feature of every window, in 64 bits.

    Args:
        x: (windows, length, channels), SI units.
        rate_hz: samples per second [Hz].
        channels: the channels' names; None takes each three channels as one triad.

    Returns:
        (windows, features) float32, finite, in the order of ``feature_names``.
    """
    names = tuple(channels) if channels is not None else tuple(f"{i // 3}_{'xyz'[i % 3]}" for i in range(x.shape[2]))
    features = WindowFeatures(names, rate_hz, x.shape[1], dtype=torch.float64)
    blocks = (torch.from_numpy(x[row : row + _BLOCK].astype(np.float64)) for row in range(0, len(x), _BLOCK))
    empty = np.zeros((0, len(features.names)), np.float32)
    return np.concatenate([empty, *(features(block).float().numpy() for block in blocks)])


class WindowFeatures(nn.Module):
    """The features as a network without weights.

    Args:
        channels: the channels' names.
        rate_hz: samples per second [Hz].
        samples: samples in a window.
        smooth: only the features that may stand inside an exported network.
        dtype: what is computed in.
    """

    cosines: Tensor
    sines: Tensor
    frequencies: Tensor
    times: Tensor

    def __init__(
        self,
        channels: Sequence[str],
        rate_hz: float,
        samples: int,
        *,
        smooth: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.names = feature_names(channels, smooth=smooth)
        self.kinds = [feature.name for feature in _OF_VALUES + _OF_SPECTRUM if feature.smooth or not smooth]
        self.triads = [columns for _, columns in _triads(channels)]
        self.rate_hz, self.samples = rate_hz, samples
        sample = torch.arange(samples, dtype=torch.float64)
        bins = torch.arange(1, samples // 2 + 1, dtype=torch.float64)
        angles = 2 * torch.pi * torch.outer(sample, bins) / samples
        self.register_buffer("cosines", (angles.cos() / samples).to(dtype), persistent=False)
        self.register_buffer("sines", (angles.sin() / samples).to(dtype), persistent=False)
        self.register_buffer("frequencies", (bins * rate_hz / samples).to(dtype), persistent=False)
        self.register_buffer("times", ((sample - (samples - 1) / 2) / rate_hz).to(dtype), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features, shape (windows, features), of windows in SI, shape (windows, samples, channels)."""
        triads = [x[:, :, columns] for columns in self.triads]
        lengths = [triad.square().sum(2, keepdim=True).sqrt() for triad in triads]
        signals = torch.cat([x, *lengths], dim=2).mT  # samples last: every formula below runs along them
        found = {**self._of_values(signals), **self._of_spectrum(signals)}
        if "autocorrelation" in self.kinds:
            found["autocorrelation"] = self._autocorrelation(signals)
        return torch.cat([*(found[kind] for kind in self.kinds), *map(_of_triad, triads)], dim=1)

    def _of_values(self, x: Tensor) -> dict[str, Tensor]:
        """Return the features of _OF_VALUES, each (windows, signals)."""
        half = self.samples // 2
        mean = x.mean(2)
        centred = x - mean.unsqueeze(2)
        std = centred.square().mean(2).sqrt()
        scale = std.clamp(min=LEAST_DEVIATION)
        steps = x.diff(dim=2) * self.rate_hz
        above = centred > 0
        ordered = x.sort(dim=2).values
        low, first, median, third, high = (_percentile(ordered, share) for share in (0.05, 0.25, 0.5, 0.75, 0.95))
        return {
            "mean": mean,
            "std": std,
            "min": ordered[:, :, 0],
            "max": ordered[:, :, -1],
            "median": median,
            "iqr": third - first,
            "p05": low,
            "p95": high,
            "skewness": (centred / scale.unsqueeze(2)).pow(3).mean(2),
            "kurtosis": (centred / scale.unsqueeze(2)).pow(4).mean(2) - 3,
            "mean_abs_deviation": centred.abs().mean(2),
            "rms": x.square().mean(2).sqrt(),
            "mean_abs_step": steps.abs().mean(2),
            "step_std": (steps - steps.mean(2, keepdim=True)).square().mean(2).sqrt(),
            "crossings": (above[:, :, 1:] != above[:, :, :-1]).to(x.dtype).mean(2) * self.rate_hz,
            "slope": centred @ (self.times / self.times.square().sum()),
            "halves": x[:, :, half:].mean(2) - x[:, :, :half].mean(2),
        }

    def _of_spectrum(self, x: Tensor) -> dict[str, Tensor]:
        """Return the features of _OF_SPECTRUM but the autocorrelation, each (windows, signals)."""
        centred = x - x.mean(2, keepdim=True)
        power = (centred @ self.cosines).square() + (centred @ self.sines).square()
        frequency = self.frequencies
        share = power / power.sum(2, keepdim=True).clamp(min=LEAST_DEVIATION**2)
        centroid = share @ frequency
        found = {
            "peak_hz": frequency[share.argmax(2)],
            "peak_share": share.amax(2),
            "entropy": -(share * (share + LEAST_POWER).log()).sum(2) / math.log(max(len(frequency), 2)),
            "centroid_hz": centroid,
            "spread_hz": (share @ frequency.square() - centroid.square()).clamp(min=0).sqrt(),
        }
        edges = zip(BAND_EDGES_HZ, BAND_EDGES_HZ[1:], strict=False)
        for low, high in edges:
            band = ((frequency > low) & (frequency <= high)).to(x.dtype)
            found[f"band_{low:g}_{high:g}_hz"] = (power @ band + LEAST_DEVIATION**2).log10()
        return found

    def _autocorrelation(self, x: Tensor) -> Tensor:
        """Return the largest autocorrelation away from lag 0, shape (windows, signals)."""
        centred = x - x.mean(2, keepdim=True)
        spectrum = torch.fft.rfft(centred, 2 * self.samples, dim=2)
        lags = torch.fft.irfft(spectrum.abs().square(), dim=2)[:, :, : self.samples]
        lags = lags / lags[:, :, :1].clamp(min=LEAST_POWER)
        shortest = min(max(1, round(0.25 * self.rate_hz)), self.samples - 1)
        return lags[:, :, shortest : max(self.samples // 2, shortest + 1)].amax(2)


def _percentile(ordered: Tensor, share: float) -> Tensor:
    """Return a quantile of rising values along the last dimension, by linear interpolation."""
    place = share * (ordered.shape[2] - 1)
    low = math.floor(place)
    high = min(low + 1, ordered.shape[2] - 1)
    return ordered[:, :, low].lerp(ordered[:, :, high], place - low)


def _of_triad(x: Tensor) -> Tensor:
    """Return the features of _OF_TRIADS, (windows, 6), of (windows, length, 3); 0 where an axis is constant."""
    mean = x.mean(1)
    centred = x - mean.unsqueeze(1)
    spread = centred.square().sum(1).sqrt().clamp(min=LEAST_DEVIATION)
    products = [
        (centred[:, :, a] * centred[:, :, b]).sum(1) / (spread[:, a] * spread[:, b]) for a, b in _AXIS_PAIRS.values()
    ]
    direction = mean / mean.square().sum(1, keepdim=True).sqrt().clamp(min=LEAST_DEVIATION)
    return torch.cat([torch.stack(products, dim=1), direction], dim=1)


def _triads(channels: Sequence[str]) -> list[tuple[str, list[int]]]:
    """Return (name, columns x y z) of every sensor of which all three axes are there, in order of appearance."""
    names = list(channels)
    sensors = dict.fromkeys(name[:-2] for name in names if name.endswith(("_x", "_y", "_z")))
    axes = {sensor: [f"{sensor}_{axis}" for axis in "xyz"] for sensor in sensors}
    return [
        (sensor, [names.index(axis) for axis in wanted]) for sensor, wanted in axes.items() if set(wanted) <= set(names)
    ]
