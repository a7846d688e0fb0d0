"""Protocol `random`: windows shuffled, as many papers do; people, sessions and raw samples stand on both sides."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from imu_saga.split_protocol import PROTOCOLS, SplitProtocol
from imu_saga.splits import Kind, Split, drawn_part
from imu_saga.windows import WindowSet
from shared_peft.errors import DataError


@PROTOCOLS.register("random")
@dataclass(frozen=True)
class RandomWindows(SplitProtocol):
    """One split of shuffled windows, only to compare with numbers published that way."""

    name: ClassVar[str] = "random"
    warning: ClassVar[str] = (
        "WARNING: protocol random puts the same people, sessions and, with overlapping windows, the same raw samples "
        "on both sides. Scores are inflated, by 10 to 16 % in published comparisons, and say nothing about new people; "
        "`audit` fails such a run. Use --protocol subject for scores that can be believed."
    )

    seed: int = 0
    """Seed of the shuffle."""
    test_fraction: float = 0.25
    """Part of the windows held out, in (0, 1)."""

    @property
    def apart(self) -> tuple[Kind, ...]:
        """Nothing but the windows themselves."""
        return ("window",)

    def draw(self, windows: WindowSet) -> Iterator[Split]:
        """Yield the one split.

        Raises:
            DataError: fewer than two windows.
        """
        if len(windows) < 2:
            raise DataError("windows", "must be 2 or more", len(windows), "Add recordings")
        rows = np.arange(len(windows))
        held = drawn_part(rows, self.test_fraction, np.random.default_rng(self.seed))
        yield Split(np.setdiff1d(rows, held), np.sort(held), (f"{len(held)} shuffled",), "window")
