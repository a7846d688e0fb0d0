"""The row without which no score means anything: the class frequencies."""

import numpy as np

from imu_saga.baseline import BASELINES, Baseline
from imu_saga.windows import WindowSet


@BASELINES.register("majority")
class Majority(Baseline):
    """Always the most frequent class."""

    def learn(self, windows: WindowSet) -> None:
        """Count the classes."""
        self.frequency = np.bincount(windows.labels)[self.seen] / len(windows)

    def answer(self, windows: WindowSet) -> np.ndarray:
        """Return the same frequencies for every window."""
        return np.tile(self.frequency, (len(windows), 1))
