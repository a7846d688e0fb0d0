"""Protocol `leave_one_subject_out`: every person is the test side once."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from imu_saga import splits
from imu_saga.split_protocol import PROTOCOLS, SplitProtocol
from imu_saga.windows import WindowSet


@PROTOCOLS.register("leave_one_subject_out")
@dataclass(frozen=True)
class LeaveOneSubjectOut(SplitProtocol):
    """One fold a person, in order of name."""

    name: ClassVar[str] = "leave_one_subject_out"

    def draw(self, windows: WindowSet) -> Iterator[splits.Split]:
        """Yield one split a person."""
        return splits.leave_one_subject_out(windows)
