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
_PERCENTILES = (0.0, 1.0, 0.5, 0.25, 0.75, 0.05, 0.95)  # in the order that _of_values reads them
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

    Every formula takes all signals at once: an exporter's time and a phone's go with the number of operations. A
    spectrum needs half of each table, since at sample L - n a cosine is the same and a sine the negative.

    Args:
        channels: the channels' names.
        rate_hz: samples per second [Hz].
        samples: samples in a window.
        smooth: only the features that may stand inside an exported network.
        dtype: what is computed in.
    """

    cosines: Tensor
    sines: Tensor
    mirror: Tensor
    frequencies: Tensor
    bands: Tensor
    lines: Tensor
    below: Tensor
    above: Tensor
    between: Tensor
    members: Tensor
    first: Tensor
    second: Tensor
    axes: Tensor
    owners: Tensor
    triad_order: Tensor

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
        self.names, self.smooth = feature_names(channels, smooth=smooth), smooth
        self.rate_hz, self.samples = rate_hz, samples
        triads = [columns for _, columns in _triads(channels)]
        self.has_triads = bool(triads)
        places = torch.tensor(_PERCENTILES, dtype=torch.float64) * (samples - 1)
        below = places.floor().long()
        tables = {
            **_spectrum_tables(rate_hz, samples),
            "lines": _lines(rate_hz, samples),
            "below": below,
            "above": (below + 1).clamp(max=samples - 1),
            "between": places - below,
            **_triad_tables(triads, len(channels)),
        }
        for name, table in tables.items():
            self.register_buffer(name, table.to(dtype) if table.is_floating_point() else table, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features, shape (windows, features), of windows in SI, shape (windows, samples, channels)."""
        lengths = (x.square() @ self.members).sqrt()
        signals = torch.cat([x, lengths], dim=2).mT  # samples last: every formula below runs along them
        mean = signals.mean(2, keepdim=True)
        centred = signals - mean
        blocks = [*self._of_values(signals, mean, centred), *self._of_spectrum(centred)]
        of_signals = torch.cat(blocks, dim=2).mT.flatten(1)
        return torch.cat([of_signals, self._of_triads(mean, centred)], dim=1) if self.has_triads else of_signals

    def _of_values(self, x: Tensor, mean: Tensor, centred: Tensor) -> list[Tensor]:
        """Return the features of _OF_VALUES in their order, each (windows, signals, 1 or more)."""
        squares = centred.square()
        std = squares.mean(2, keepdim=True).sqrt()
        scaled = centred / std.clamp(min=LEAST_DEVIATION)
        powers = scaled.square()
        steps = x.diff(dim=2) * self.rate_hz
        ordered = x.sort(dim=2).values
        low, high = ordered.index_select(2, self.below), ordered.index_select(2, self.above)
        ranks = low + (high - low) * self.between
        above = centred > 0
        crossings = (above[:, :, 1:] != above[:, :, :-1]).to(x.dtype).mean(2, keepdim=True) * self.rate_hz
        return [
            mean,
            std,
            ranks[:, :, :3],
            ranks[:, :, 4:5] - ranks[:, :, 3:4],
            ranks[:, :, 5:],
            (powers * scaled).mean(2, keepdim=True),
            powers.square().mean(2, keepdim=True) - 3,
            centred.abs().mean(2, keepdim=True),
            x.square().mean(2, keepdim=True).sqrt(),
            steps.abs().mean(2, keepdim=True),
            (steps - steps.mean(2, keepdim=True)).square().mean(2, keepdim=True).sqrt(),
            *(() if self.smooth else (crossings,)),
            centred @ self.lines,
        ]

    def _of_spectrum(self, x: Tensor) -> list[Tensor]:
        """Return the features of _OF_SPECTRUM of centred signals in their order, each (windows, signals, 1 or more)."""
        half, mirrored = x[:, :, : len(self.mirror)], x.index_select(2, self.mirror)
        power = ((half + mirrored) @ self.cosines).square() + ((half - mirrored) @ self.sines).square()
        share = power / power.sum(2, keepdim=True).clamp(min=LEAST_DEVIATION**2)
        centroid = share @ self.frequencies
        frequency = self.frequencies.mT
        count = math.log(max(frequency.shape[1], 2))
        return [
            *(() if self.smooth else (self.frequencies[share.argmax(2)],)),
            share.amax(2, keepdim=True),
            (share * (share + LEAST_POWER).log()).sum(2, keepdim=True) / -count,
            centroid,
            (share * (frequency - centroid).square()).sum(2, keepdim=True).sqrt(),
            *(() if self.smooth else (self._autocorrelation(x),)),
            (power @ self.bands + LEAST_DEVIATION**2).log10(),
        ]

    def _autocorrelation(self, centred: Tensor) -> Tensor:
        """Return the largest autocorrelation away from lag 0, shape (windows, signals, 1)."""
        spectrum = torch.fft.rfft(centred, 2 * self.samples, dim=2)
        lags = torch.fft.irfft(spectrum.abs().square(), dim=2)[:, :, : self.samples]
        lags = lags / lags[:, :, :1].clamp(min=LEAST_POWER)
        shortest = min(max(1, round(0.25 * self.rate_hz)), self.samples - 1)
        return lags[:, :, shortest : max(self.samples // 2, shortest + 1)].amax(2, keepdim=True)

    def _of_triads(self, mean: Tensor, centred: Tensor) -> Tensor:
        """Return the features of _OF_TRIADS, (windows, 6 * triads); 0 where an axis is constant."""
        first, second = centred.index_select(1, self.first), centred.index_select(1, self.second)
        spread = centred.square().sum(2).sqrt().clamp(min=LEAST_DEVIATION)
        products = (first * second).sum(2) / (spread.index_select(1, self.first) * spread.index_select(1, self.second))
        means = mean.squeeze(2)
        lengths = (means[:, : len(self.members)].square() @ self.members).sqrt().clamp(min=LEAST_DEVIATION)
        directions = means.index_select(1, self.axes) / lengths.index_select(1, self.owners)
        return torch.cat([products, directions], dim=1).index_select(1, self.triad_order)


def _spectrum_tables(rate_hz: float, samples: int) -> dict[str, Tensor]:
    """Return half of the cosines and sines, and of each frequency [Hz] its value and the bands it belongs to.

    ``mirror`` is where the other half's samples stand. The first and the middle one are their own mirror images.
    """
    places = torch.arange(samples // 2 + 1)
    mirror = (samples - places) % samples
    share = torch.where(mirror == places, 0.5, 1.0).double().unsqueeze(1) / samples
    angles = 2 * torch.pi * torch.outer(places, places[1:]).double() / samples
    frequency = (places[1:].double() * rate_hz / samples).unsqueeze(1)
    low, high = (torch.tensor(edges, dtype=torch.float64) for edges in (BAND_EDGES_HZ[:-1], BAND_EDGES_HZ[1:]))
    return {
        "mirror": mirror,
        "cosines": share * angles.cos(),
        "sines": share * angles.sin(),
        "frequencies": frequency,
        "bands": ((frequency > low) & (frequency <= high)).double(),
    }


def _lines(rate_hz: float, samples: int) -> Tensor:
    """Return what a centred signal is multiplied by for its slope and its halves, shape (samples, 2)."""
    sample = torch.arange(samples, dtype=torch.float64)
    times, half = (sample - (samples - 1) / 2) / rate_hz, samples // 2
    earlier = (sample < half).double()
    halves = (1 - earlier) / (samples - half) - earlier / max(half, 1)
    return torch.stack([times / times.square().sum(), halves], dim=1)


def _triad_tables(triads: list[list[int]], channels: int) -> dict[str, Tensor]:
    """Return which channels belong to which triad, and the places of the axes that `_of_triads` compares.

    All correlations come first there, then all directions; ``triad_order`` puts them in order, triad by triad.
    """
    members, each = torch.zeros(channels, len(triads)), len(_AXIS_PAIRS)
    for triad, columns in enumerate(triads):
        members[columns, triad] = 1
    order = [
        start + each * triad + i
        for triad in range(len(triads))
        for start in (0, each * len(triads))
        for i in range(each)
    ]
    places = {
        "first": [columns[pair[0]] for columns in triads for pair in _AXIS_PAIRS.values()],
        "second": [columns[pair[1]] for columns in triads for pair in _AXIS_PAIRS.values()],
        "axes": [axis for columns in triads for axis in columns],
        "owners": [triad for triad, columns in enumerate(triads) for _ in columns],
        "triad_order": order,
    }
    return {"members": members, **{name: torch.tensor(found, dtype=torch.int64) for name, found in places.items()}}


def _triads(channels: Sequence[str]) -> list[tuple[str, list[int]]]:
    """Return (name, columns x y z) of every sensor of which all three axes are there, in order of appearance."""
    names = list(channels)
    sensors = dict.fromkeys(name[:-2] for name in names if name.endswith(("_x", "_y", "_z")))
    axes = {sensor: [f"{sensor}_{axis}" for axis in "xyz"] for sensor in sensors}
    return [
        (sensor, [names.index(axis) for axis in wanted]) for sensor, wanted in axes.items() if set(wanted) <= set(names)
    ]
