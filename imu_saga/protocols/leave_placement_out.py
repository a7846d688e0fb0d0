"""Protocol `leave_placement_out`: a placement of the device that training never saw, on people it never saw (ours)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from imu_saga.split_protocol import PROTOCOLS, SplitProtocol
from imu_saga.splits import PEOPLE_APART, Kind, Split, drawn_part, subjects_of
from imu_saga.windows import WindowSet
from shared_peft.errors import DataError


@PROTOCOLS.register("leave_placement_out")
@dataclass(frozen=True)
class LeavePlacementOut(SplitProtocol):
    """One fold a placement.

    Devices at several placements record the same movement at the same time, so that with shared people a model has
    seen the very steps it is tested on. By default the test side is therefore the held-out placement on held-out
    people, and training is the other placements on the other people.
    """

    name: ClassVar[str] = "leave_placement_out"

    seed: int = 0
    """Seed of the choice of people."""
    test_fraction: float = 0.25
    """Part of the people held out, in (0, 1)."""
    people: Literal["apart", "shared"] = "apart"
    """shared leaves out the placement only: everyone, and sessions worn at several placements, are on both sides."""

    @property
    def apart(self) -> tuple[Kind, ...]:
        """Placements, and people too unless they are shared."""
        return ("window", "sample", "placement") if self.people == "shared" else (*PEOPLE_APART, "placement")

    def draw(self, windows: WindowSet) -> Iterator[Split]:
        """Yield one split a placement, in order of name.

        Raises:
            DataError: fewer than two placements.
        """
        placements = np.unique(windows.placements)
        if len(placements) < 2:
            fix = "Read several placements (for example --data-options placement=both), or choose another --protocol"
            raise DataError("windows", "must come from 2 placements or more", placements.tolist(), fix)
        for placement in placements:
            there = windows.placements == placement
            tested = trained = np.ones(len(windows), bool)
            if self.people == "apart":
                wearers = np.unique(windows.subjects[there])
                pool = wearers if len(wearers) > 1 else subjects_of(windows, 2)
                held = drawn_part(pool, self.test_fraction, np.random.default_rng(self.seed))
                tested = np.isin(windows.subjects, held)
                trained = ~tested
            yield Split(
                np.flatnonzero(~there & trained), np.flatnonzero(there & tested), (str(placement),), "placement"
            )
