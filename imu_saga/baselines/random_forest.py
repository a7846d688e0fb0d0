"""Random forest on hand features (Breiman 2001, doi:10.1023/A:1010933404324)."""

import numpy as np

from imu_saga.baseline import BASELINES, Baseline
from imu_saga.signal.features import window_features
from imu_saga.windows import WindowSet

TREES = 300


@BASELINES.register("random_forest")
class RandomForest(Baseline):
    """300 trees on hand features (Breiman 2001, doi:10.1023/A:1010933404324; scikit-learn's defaults)."""

    def learn(self, windows: WindowSet) -> None:
        """Grow the trees."""
        from sklearn.ensemble import RandomForestClassifier  # noqa: PLC0415  (slow to import)

        self.forest = RandomForestClassifier(TREES, random_state=self.seed)
        self.forest.fit(window_features(windows.x, windows.rate_hz, windows.channels), windows.labels)

    def answer(self, windows: WindowSet) -> np.ndarray:
        """Return the mean of the trees' probabilities."""
        features = window_features(windows.x, windows.rate_hz, windows.channels)
        return np.asarray(self.forest.predict_proba(features))
