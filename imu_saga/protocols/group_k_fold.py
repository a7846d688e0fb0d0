"""Protocol `group_k_fold`: people dealt into k folds, every fold the test side once."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from imu_saga.split_protocol import PROTOCOLS, SplitProtocol
from imu_saga.splits import Split, group_folds
from imu_saga.windows import WindowSet


@PROTOCOLS.register("group_k_fold")
@dataclass(frozen=True)
class GroupKFold(SplitProtocol):
    """k folds of people."""

    name: ClassVar[str] = "group_k_fold"

    seed: int = 0
    """Seed of who shares a fold."""
    n_folds: int = 5
    """Number of folds, 2 or more."""

    def draw(self, windows: WindowSet) -> Iterator[Split]:
        """Yield the k splits."""
        return group_folds(windows, folds=self.n_folds, seed=self.seed)
