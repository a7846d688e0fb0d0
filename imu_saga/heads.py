"""Classifier: tokens and the statistics of a window, standardised, and one linear layer called ``head``."""

import numpy as np
import torch
from torch import Tensor, nn

from imu_saga.encoder import Encoder
from imu_saga.signal.features import WindowFeatures, feature_names

LEAST_DEVIATION = 1e-3
LIMIT = 6.0  # ours: standardised features are cut off here, so that one odd window cannot drown the others
ALIKE = 2.0  # ours: how much more a covariance is shrunk than if windows were independent
START_SPREAD = 2.0  # ours: deviation of a closed-form head's logits, where training can still move them


class Standardise(nn.Module):
    """Subtract a stored mean and divide by a stored deviation; both are stored with the weights, and never trained.

    Args:
        width: number of features.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(width))

    def forward(self, features: Tensor) -> Tensor:
        """Return standardised features in [-6, 6], shape (windows, width)."""
        return ((features - self.mean) / self.deviation).clamp(-LIMIT, LIMIT)

    @torch.no_grad()
    def fit(self, features: Tensor) -> None:
        """Take mean and deviation from features, shape (windows, width); at least 2 windows."""
        self.mean.copy_(features.mean(0))
        self.deviation.copy_(features.std(0).clamp(min=LEAST_DEVIATION))


class Statistics(nn.Module):
    """The smooth features of imu_saga.signal.features, with a place for every channel an encoder has weights for.

    Args:
        encoder: the backbone; features of channels that do not come are 0 in ``forward`` and in ``present``.
    """

    source: Tensor
    present: Tensor

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        spec = encoder.spec
        self.features = WindowFeatures(spec.channels, spec.rate_hz, spec.samples, smooth=True)
        here, self.names = list(self.features.names), feature_names(encoder.slots, smooth=True)
        source = torch.tensor([here.index(name) if name in here else len(here) for name in self.names])
        self.complete = here == list(self.names)
        self.register_buffer("source", source, persistent=False)
        self.register_buffer("present", (source < len(here)).float(), persistent=False)

    def forward(self, window: Tensor) -> Tensor:
        """Return statistics, shape (windows, places), of windows in SI, shape (windows, samples, channels)."""
        found = self.features(window)
        if self.complete:
            return found
        return torch.cat([found, found.new_zeros(len(found), 1)], dim=1).index_select(1, self.source)


class Classifier(nn.Module):
    """Windows in SI units to class scores.

    Args:
        encoder: the backbone.
        n_classes: number of classes.
        statistics: whether the head sees the window's statistics beside the tokens.
    """

    def __init__(self, encoder: Encoder, n_classes: int, *, statistics: bool = False) -> None:
        super().__init__()
        self.encoder = encoder
        self.statistics = Statistics(encoder) if statistics else None
        width = 2 * encoder.width + (len(self.statistics.names) if self.statistics else 0)
        self.standardise = Standardise(width)
        self.head = nn.Linear(width, n_classes)

    def forward(self, window: Tensor) -> Tensor:
        """Return logits, shape (windows, classes), of windows of shape (windows, samples, channels)."""
        return self.head(self.head_input(window))

    def head_input(self, window: Tensor) -> Tensor:
        """Return what the head sees: standardised features, shape (windows, features)."""
        standardised = self.standardise(self.features(window))
        if self.statistics is None or self.statistics.complete:
            return standardised
        tokens, statistics = standardised.split([2 * self.encoder.width, len(self.statistics.names)], dim=1)
        return torch.cat([tokens, statistics * self.statistics.present], dim=1)

    def features(self, window: Tensor) -> Tensor:
        """Return mean and maximum of the tokens, and the statistics: shape (windows, features)."""
        tokens = self.encoder(window)
        parts = [tokens.mean(1), tokens.amax(1)]
        if self.statistics is not None:
            parts.append(self.statistics(window))
        return torch.cat(parts, dim=1)

    @torch.no_grad()
    def calibrate(self, windows: Tensor) -> None:
        """Standardise by the features that the encoder gives now for ``windows`` (windows, samples, channels)."""
        self.standardise.fit(torch.cat([self.features(part) for part in windows.split(512)]))

    @torch.no_grad()
    def start_head(self, windows: Tensor, labels: Tensor) -> None:
        """Set the head to the linear discriminant of the features that the encoder gives now.

        Args:
            windows: (windows, samples, channels) in SI units.
            labels: their classes, int64, shape (windows,); 2 classes or more.
        """
        features = torch.cat([self.head_input(part) for part in windows.split(512)])
        weight, bias = discriminant(features.double().numpy(), labels.numpy(), self.head.out_features)
        logits = features.double().numpy() @ weight.T + bias
        seen = np.unique(labels.numpy())
        spread = (logits[:, seen] - logits[:, seen].mean(1, keepdims=True)).std()
        scale = START_SPREAD / max(float(spread), LEAST_DEVIATION)
        self.head.weight.copy_(torch.from_numpy(scale * weight))
        self.head.bias.copy_(torch.from_numpy(scale * bias))


def discriminant(features: np.ndarray, labels: np.ndarray, n_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return weight and bias of Fisher's linear discriminant for equally frequent classes.

    Args:
        features: standardised, shape (windows, width).
        labels: classes, shape (windows,).
        n_classes: all classes; those without a window never have the largest score.

    Returns:
        weight (n_classes, width) and bias (n_classes,).
    """
    seen, codes = np.unique(labels, return_inverse=True)
    means = np.stack([features[codes == index].mean(0) for index in range(len(seen))])
    rows = np.linalg.solve(within_covariance(features - means[codes], len(seen)), means.T).T
    offsets = -0.5 * (rows * means).sum(1)
    weight, bias = np.zeros((n_classes, features.shape[1])), np.full(n_classes, offsets.min() - 1.0)
    weight[seen], bias[seen] = rows, offsets
    return weight, bias


def within_covariance(rest: np.ndarray, n_classes: int) -> np.ndarray:
    """Return the classes' common covariance, shrunk towards its diagonal.

    The share of the diagonal is twice Ledoit and Wolf's (2004): theirs takes windows for independent, but those of one
    person are alike (ours; measured for 5 to 50 windows a class). With one window a class it is the identity: the
    nearest class mean then answers.

    Args:
        rest: features minus their class's mean, shape (windows, width).
        n_classes: classes among the windows.
    """
    from sklearn.covariance import ledoit_wolf_shrinkage  # noqa: PLC0415  (slow to import)

    freedom = len(rest) - n_classes
    if freedom < 1:
        return np.eye(rest.shape[1])
    pooled = rest.T @ rest / freedom
    deviation = np.sqrt(np.maximum(np.diag(pooled), LEAST_DEVIATION**2))
    found = ledoit_wolf_shrinkage(rest / deviation, assume_centered=True)
    share = min(max(ALIKE * found, LEAST_DEVIATION), 1.0)
    return (1 - share) * pooled + share * np.diag(deviation**2)
