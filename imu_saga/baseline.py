"""What every baseline offers beside the networks, and the registry they stand in."""

import warnings
from abc import ABC, abstractmethod

import numpy as np

from imu_saga.input_spec import InputSpec
from imu_saga.windows import WindowSet
from shared_peft.errors import DataError
from shared_peft.registry import Registry


class Baseline(ABC):
    """A classifier of WindowSets. Subclasses are final and register themselves in BASELINES.

    Args:
        seed: seed of whatever it draws.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def fit(self, windows: WindowSet) -> "Baseline":
        """Learn from the labelled windows of ``windows``; classes without one get probability 0.

        Raises:
            DataError: no labelled window.
        """
        known = labelled(windows)
        self.spec, self.classes = InputSpec.of(known), known.classes
        self.seen = np.unique(known.labels)
        if len(self.seen) > 1:
            with warnings.catch_warnings():  # one window of each of many classes is what few labels means
                warnings.filterwarnings("ignore", "The number of unique classes is greater than 50%")
                self.learn(known)
        return self

    def probabilities(self, windows: WindowSet) -> np.ndarray:
        """Return class probabilities, shape (windows, classes); every row sums to 1.

        Raises:
            DataError: windows of another rate, length, channel list or gravity than those learnt from.
        """
        if InputSpec.of(windows) != self.spec:
            name = type(self).__name__
            raise DataError(f"baseline {name}", f"windows must be {self.spec}", InputSpec.of(windows), "Cut them alike")
        found = np.zeros((len(windows), len(self.classes)))
        if len(windows):
            found[:, self.seen] = self.answer(windows) if len(self.seen) > 1 else 1.0
        return found

    def predict(self, windows: WindowSet) -> np.ndarray:
        """Return the most probable classes, shape (windows,) int64; of equally probable ones the first."""
        return self.probabilities(windows).argmax(axis=1)

    @abstractmethod
    def learn(self, windows: WindowSet) -> None:
        """Learn from windows that all carry a label, of two classes or more."""

    @abstractmethod
    def answer(self, windows: WindowSet) -> np.ndarray:
        """Return the probabilities of the classes seen, in order, shape (windows, seen); one window or more."""


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
