"""Classifier: an encoder, mean and maximum over its tokens, standardised, and one linear layer called ``head``."""

import torch
from torch import Tensor, nn

from imu_saga.encoder import Encoder

LEAST_DEVIATION = 1e-3


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
        """Return standardised features, shape (windows, width)."""
        return (features - self.mean) / self.deviation

    @torch.no_grad()
    def fit(self, features: Tensor) -> None:
        """Take mean and deviation from features, shape (windows, width); at least 2 windows."""
        self.mean.copy_(features.mean(0))
        self.deviation.copy_(features.std(0).clamp(min=LEAST_DEVIATION))


class Classifier(nn.Module):
    """Windows in SI units to class scores.

    Args:
        encoder: the backbone.
        n_classes: number of classes.
    """

    def __init__(self, encoder: Encoder, n_classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.standardise = Standardise(2 * encoder.width)
        self.head = nn.Linear(2 * encoder.width, n_classes)

    def forward(self, window: Tensor) -> Tensor:
        """Return logits, shape (windows, classes), of windows of shape (windows, samples, channels)."""
        return self.head(self.standardise(self.features(window)))

    def features(self, window: Tensor) -> Tensor:
        """Return mean and maximum of the tokens, shape (windows, 2 * width)."""
        tokens = self.encoder(window)
        return torch.cat([tokens.mean(1), tokens.amax(1)], dim=1)

    @torch.no_grad()
    def calibrate(self, windows: Tensor) -> None:
        """Standardise by the features that the encoder gives now for ``windows`` (windows, samples, channels)."""
        self.standardise.fit(torch.cat([self.features(part) for part in windows.split(512)]))
