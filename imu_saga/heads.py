"""Classifier: an encoder, a mean over its tokens and one linear layer called ``head``."""

from torch import Tensor, nn

from imu_saga.encoder import Encoder


class Classifier(nn.Module):
    """Windows in SI units to class scores.

    Args:
        encoder: the backbone.
        n_classes: number of classes.
    """

    def __init__(self, encoder: Encoder, n_classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.width, n_classes)

    def forward(self, window: Tensor) -> Tensor:
        """Return logits, shape (windows, classes), of windows of shape (windows, samples, channels)."""
        return self.head(self.features(window))

    def features(self, window: Tensor) -> Tensor:
        """Return the mean token, shape (windows, width)."""
        return self.encoder(window).mean(1)
