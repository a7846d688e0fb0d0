"""MiniRocket's features (Dempster, Schmidt and Webb 2021, arXiv:2012.08791, section 3), for several channels.

84 kernels of nine taps: six of weight -1 and three of weight 2 (section 3.1.2), at dilations spread evenly on a
logarithmic scale up to the window's length. A feature is the share of samples at which a kernel's response exceeds a
bias, and the biases are quantiles of that kernel's response on training windows drawn at random (3.1.3). Every kernel
and dilation reads a random group of channels, whose responses are added (the authors' multivariate extension).
"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

TAPS = 9
KERNELS = tuple(combinations(range(TAPS), 3))  # the places of the three weights 2
FEATURES = 84 * 119  # the paper's "about 10,000"
MOST_DILATIONS = 32
GOLDEN_RATIO = (5**0.5 + 1) / 2
_BLOCK = 64  # windows computed at once: the responses of one dilation stay in the cache


@dataclass(frozen=True, eq=False)
class Rocket:
    """Kernels ready to answer; D dilations, C channels.

    Args:
        dilations: (D,) samples between two taps.
        mixing: (D, 84, C) float32, 1 where a kernel at a dilation reads a channel, else 0.
        biases: D tensors, shape (84, biases of this dilation), float32.
    """

    dilations: tuple[int, ...]
    mixing: Tensor
    biases: tuple[Tensor, ...]

    def features(self, x: Tensor) -> Tensor:
        """Return shares in [0, 1], shape (windows, features), of windows, shape (windows, samples, channels).

        The order is that of dilation, kernel and bias. Every other combination of kernel and dilation sees the window
        padded by zeros; the others see only whole kernels.
        """
        return torch.cat([self._features(block) for block in x.split(_BLOCK)])

    def _features(self, x: Tensor) -> Tensor:
        found = []
        for place, (dilation, mixing, biases) in enumerate(zip(self.dilations, self.mixing, self.biases, strict=True)):
            response = responses(x, dilation, mixing)
            shares = torch.empty(len(x), *biases.shape)
            for padded, kernels in self._sides(place):
                margin = 0 if padded else min(TAPS // 2 * dilation, (x.shape[1] - 1) // 2)
                inside = response[:, kernels, margin : x.shape[1] - margin]
                for column, bias in enumerate(biases[kernels].T):
                    above = inside > bias.view(1, -1, 1)
                    shares[:, kernels, column] = above.sum(2, dtype=torch.int32) / inside.shape[2]
            found.append(shares.flatten(1))
        return torch.cat(found, 1)

    @staticmethod
    def _sides(place: int) -> tuple[tuple[bool, slice], tuple[bool, slice]]:
        """Return which kernels of a dilation are padded, and which are not."""
        return (True, slice(place % 2, None, 2)), (False, slice(1 - place % 2, None, 2))


def fit_rocket(x: Tensor, generator: np.random.Generator, *, features: int = FEATURES) -> Rocket:
    """Draw channels, and biases from the responses of training windows.

    Args:
        x: training windows, shape (windows, samples, channels).
        generator: source of randomness.
        features: number of features, rounded down to a multiple of 84; 84 at least.
    """
    dilations, counts = spread_dilations(x.shape[1], features)
    mixing = draw_channels(len(dilations), x.shape[2], generator)
    levels = torch.from_numpy(np.arange(1, 84 * sum(counts) + 1) * GOLDEN_RATIO % 1).float()  # low-discrepancy
    biases, first = [], 0
    for dilation, mixed, count in zip(dilations, mixing, counts, strict=True):
        chosen = torch.from_numpy(generator.integers(len(x), size=len(KERNELS)))
        drawn = torch.stack([responses(x[row : row + 1], dilation, mixed)[0, k] for k, row in enumerate(chosen)])
        wanted = levels[first : first + len(KERNELS) * count].view(len(KERNELS), count)
        biases.append(_quantiles(drawn, wanted))
        first += len(KERNELS) * count
    return Rocket(dilations, mixing, tuple(biases))


def spread_dilations(samples: int, features: int = FEATURES) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the dilations, and how many biases a kernel has at each (section 3.1.2).

    Args:
        samples: samples in a window.
        features: number of features in all.
    """
    per_kernel = max(1, features // len(KERNELS))
    places = min(per_kernel, MOST_DILATIONS)
    largest = max(0.0, np.log2((samples - 1) / (TAPS - 1)))
    dilations, shares = np.unique(np.logspace(0, largest, places, base=2).astype(int), return_counts=True)
    counts = (shares * per_kernel / places).astype(int)
    missing = per_kernel - counts.sum()
    counts[:missing] += 1  # what rounding left over goes to the smallest dilations; it is fewer than there are
    return tuple(dilations.tolist()), tuple(counts.tolist())


def draw_channels(dilations: int, channels: int, generator: np.random.Generator) -> Tensor:
    """Draw 1 to 9 channels for every dilation and kernel, fewer more often: shape (dilations, 84, channels)."""
    most = np.log2(min(channels, TAPS) + 1)
    size = (2 ** generator.uniform(0, most, (dilations, len(KERNELS), 1))).astype(int)
    rank = generator.random((dilations, len(KERNELS), channels)).argsort(axis=2).argsort(axis=2)
    return torch.from_numpy((rank < size).astype(np.float32))


def responses(x: Tensor, dilation: int, mixing: Tensor) -> Tensor:
    """Return the responses of all kernels, shape (windows, 84, samples), with zeros outside the window.

    A kernel is -1 everywhere plus 3 at three places, so all 84 are sums of the same nine shifted copies.

    Args:
        x: shape (windows, samples, channels).
        dilation: samples between two taps.
        mixing: shape (84, channels), the channels each kernel reads.
    """
    samples, reach = x.shape[1], TAPS // 2 * dilation
    padded = functional.pad(x.mT, (reach, reach))
    shifted = torch.stack([padded[:, :, tap * dilation : tap * dilation + samples] for tap in range(TAPS)], dim=2)
    taps = torch.full((len(KERNELS), TAPS), -1.0)
    taps.scatter_(1, torch.tensor(KERNELS), 2.0)
    weights = (mixing[:, :, None] * taps[:, None]).flatten(1)
    return weights @ shifted.flatten(1, 2)


def _quantiles(values: Tensor, levels: Tensor) -> Tensor:
    """Return quantiles by linear interpolation: rows of ``values`` (84, samples) at rows of ``levels`` (84, count)."""
    ordered = values.sort(dim=1).values
    place = levels * (values.shape[1] - 1)
    low = place.floor().long()
    high = (low + 1).clamp(max=values.shape[1] - 1)
    return ordered.gather(1, low).lerp(ordered.gather(1, high), place - low)
