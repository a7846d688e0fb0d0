"""Protocol `subject`: one split, a part of the people held out of everything."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from imu_saga.split_protocol import PROTOCOLS, SplitProtocol
from imu_saga.splits import Split, subject_split
from imu_saga.windows import WindowSet


@PROTOCOLS.register("subject")
@dataclass(frozen=True)
class SubjectSplit(SplitProtocol):
    """One split by people."""

    name: ClassVar[str] = "subject"

    seed: int = 0
    """Seed of the choice of people."""
    test_fraction: float = 0.25
    """Part of the people held out, in (0, 1)."""

    def draw(self, windows: WindowSet) -> Iterator[Split]:
        """Yield the one split."""
        yield subject_split(windows, test_fraction=self.test_fraction, seed=self.seed)
