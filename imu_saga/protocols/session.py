"""Protocol `session`: other sessions of the same people, for user identification; impostors stand outside (ours)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from imu_saga.split_protocol import PROTOCOLS, SplitProtocol
from imu_saga.splits import Kind, Split, drawn_part, occasions, subjects_of
from imu_saga.windows import WindowSet
from shared_peft.errors import DataError


@PROTOCOLS.register("session")
@dataclass(frozen=True)
class SessionSplit(SplitProtocol):
    """One split by sessions of every person.

    What several devices recorded at once is one session. A person with a single session is tested on its last part,
    after a gap of ``guard_windows`` windows that stands on neither side.
    """

    name: ClassVar[str] = "session"

    seed: int = 0
    """Seed of the choice of sessions and impostors."""
    test_fraction: float = 0.25
    """Part of each person's sessions held out (of a single session: of its time), in (0, 1)."""
    impostor_fraction: float = 0.0
    """Part of the people kept out of training and testing, to attack with in open-set verification, in [0, 1)."""
    guard_windows: float = 2.0
    """Gap inside a divided session, in windows, at least 1; 2 leave one even if pre-training cuts with overlap."""

    @property
    def apart(self) -> tuple[Kind, ...]:
        """Raw samples; sessions too, but for people who have only one."""
        return ("window", "sample")

    def draw(self, windows: WindowSet) -> Iterator[Split]:
        """Yield the one split.

        Raises:
            DataError: a guard gap below one window, or fractions out of range.
        """
        if not self.guard_windows >= 1:
            fix = "Use 1 or more, or neighbouring windows leak"
            raise DataError("guard_windows", "must be 1 or more", self.guard_windows, fix)
        generator = np.random.default_rng(self.seed)
        people = subjects_of(windows)
        impostors = people[:0]
        if self.impostor_fraction:
            impostors = drawn_part(subjects_of(windows, 3), self.impostor_fraction, generator)
        sessions, train, test, held = occasions(windows), [], [], []
        for person in np.setdiff1d(people, impostors):
            rows = np.flatnonzero(windows.subjects == person)
            names = np.unique(sessions[rows])
            if len(names) > 1:
                chosen = drawn_part(names, self.test_fraction, generator)
                outside = np.isin(sessions[rows], chosen)
                train.append(rows[~outside])
                test.append(rows[outside])
            else:
                chosen = names
                before, after = self._divided(windows, rows)
                train.append(before)
                test.append(after)
            held += chosen.tolist()
        outside = np.flatnonzero(np.isin(windows.subjects, impostors))
        yield Split(np.concatenate(train), np.concatenate(test), tuple(sorted(held)), "session", outside)

    def _divided(self, windows: WindowSet, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the first and the last windows of one session; those in the gap between are on neither side."""
        starts_s, slack = windows.start_s[rows], 0.5 / windows.rate_hz
        after = starts_s >= starts_s.min() + (1 - self.test_fraction) * np.ptp(starts_s) - slack
        before = starts_s + (1 + self.guard_windows) * windows.seconds <= starts_s[after].min() + slack
        return rows[before], rows[after]
