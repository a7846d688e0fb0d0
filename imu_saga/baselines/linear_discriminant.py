"""Linear discriminant analysis on standardised hand features, its covariances shrunk."""

import numpy as np

from imu_saga.baseline import BASELINES, Baseline
from imu_saga.heads import LEAST_DEVIATION, LIMIT, discriminant
from imu_saga.signal.features import window_features
from imu_saga.windows import WindowSet


@BASELINES.register("linear_discriminant")
class LinearDiscriminant(Baseline):
    """The closed-form head of imu_saga.heads, without an encoder and with all hand features."""

    def learn(self, windows: WindowSet) -> None:
        """Standardise by the labelled windows, then solve."""
        features = window_features(windows.x, windows.rate_hz, windows.channels).astype(np.float64)
        self.mean = features.mean(0)
        self.deviation = np.maximum(features.std(0), LEAST_DEVIATION)
        self.weight, self.bias = discriminant(self._standardised(windows), windows.labels, len(windows.classes))

    def answer(self, windows: WindowSet) -> np.ndarray:
        """Return the posterior of the Gaussian model."""
        scores = self._standardised(windows) @ self.weight.T + self.bias
        shares = np.exp(scores - scores.max(1, keepdims=True))[:, self.seen]
        return shares / shares.sum(1, keepdims=True)

    def _standardised(self, windows: WindowSet) -> np.ndarray:
        features = window_features(windows.x, windows.rate_hz, windows.channels)
        return ((features - self.mean) / self.deviation).clip(-LIMIT, LIMIT)
