"""Protocol `leave_dataset_out`: train on all data sets but one, test on that one."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from imu_saga.split_protocol import PROTOCOLS, SplitProtocol
from imu_saga.splits import PEOPLE_APART, Kind, Split
from imu_saga.windows import WindowSet
from shared_peft.errors import DataError


@PROTOCOLS.register("leave_dataset_out")
@dataclass(frozen=True)
class LeaveDatasetOut(SplitProtocol):
    """One fold a data set, in order of name; its classes that no other has are left out and counted."""

    name: ClassVar[str] = "leave_dataset_out"
    leaves_out_unseen: ClassVar[bool] = True

    @property
    def apart(self) -> tuple[Kind, ...]:
        """People and data sets."""
        return (*PEOPLE_APART, "dataset")

    def draw(self, windows: WindowSet) -> Iterator[Split]:
        """Yield one split a data set.

        Raises:
            DataError: fewer than two data sets.
        """
        origins = windows.datasets
        names = np.unique(origins)
        if len(names) < 2:
            fix = "Name several: --data sisfall=FOLDER sp_sw_har=FOLDER"
            raise DataError("windows", "must come from 2 data sets or more", names.tolist(), fix)
        for name in names:
            there = origins == name
            yield Split(np.flatnonzero(~there), np.flatnonzero(there), (str(name),), "dataset")
