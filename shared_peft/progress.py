"""Progress bars on a clock that never goes back: tqdm's own reads the time of day, which may be set while it runs."""

import time
from collections.abc import Callable
from typing import Any

from tqdm import tqdm


class Bar(tqdm):
    """tqdm as it is, but for its clock; the thread that watches bars by the time of day is not started for it."""

    monitor_interval = 0

    @property
    def _time(self) -> Callable[[], float]:
        return time.monotonic

    @_time.setter
    def _time(self, clock: Any) -> None:
        """Leave the clock as it is, whatever tqdm sets."""
