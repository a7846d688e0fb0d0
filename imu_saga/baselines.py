"""Classical rows beside every network: the majority class, and a random forest on hand features."""

from abc import ABC, abstractmethod

import numpy as np

from imu_saga.features import window_features
from imu_saga.windows import WindowSet
from shared_peft.errors import DataError
from shared_peft.registry import Registry

TREES = 300


class Baseline(ABC):
    """A classifier of WindowSets. Subclasses are final and register themselves in BASELINES.

    Args:
        seed: seed of whatever it draws.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    @abstractmethod
    def fit(self, windows: WindowSet) -> "Baseline":
        """Learn from the labelled windows of ``windows``."""

    @abstractmethod
    def predict(self, windows: WindowSet) -> np.ndarray:
        """Return class indices, shape (windows,)."""


BASELINES: Registry[type[Baseline]] = Registry("baseline")


def labelled(windows: WindowSet) -> WindowSet:
    """Return the windows that carry a label.

    Raises:
        DataError: there are none.
    """
    kept = windows.subset(windows.labels >= 0)
    if not len(kept):
        raise DataError("baseline", "there must be labelled windows", 0, "Label some, or raise --shots")
    return kept


@BASELINES.register("majority")
class Majority(Baseline):
    """Always the most frequent class."""

    def fit(self, windows: WindowSet) -> "Majority":
        """Count the classes; of equally frequent ones the first is kept."""
        self.answer = int(np.bincount(labelled(windows).labels).argmax())
        return self

    def predict(self, windows: WindowSet) -> np.ndarray:
        """Return the same class for every window."""
        return np.full(len(windows), self.answer, np.int64)


@BASELINES.register("random_forest")
class RandomForest(Baseline):
    """300 trees on hand features (Breiman 2001, doi:10.1023/A:1010933404324; scikit-learn's defaults)."""

    def fit(self, windows: WindowSet) -> "RandomForest":
        """Grow the trees."""
        from sklearn.ensemble import RandomForestClassifier  # noqa: PLC0415  (slow to import)

        known = labelled(windows)
        self.forest = RandomForestClassifier(TREES, random_state=self.seed)
        self.forest.fit(window_features(known.x, known.rate_hz, known.channels), known.labels)
        return self

    def predict(self, windows: WindowSet) -> np.ndarray:
        """Return the trees' vote."""
        features = window_features(windows.x, windows.rate_hz, windows.channels)
        return self.forest.predict(features).astype(np.int64)
