"""What windows are read through: a WindowSet in memory and a WindowStore on disk are both one."""

from typing import Any, Protocol

import numpy as np

from imu_saga.recording import Gravity


class RowReader(Protocol):
    """Something indexed by window: an array, or rows fetched from files."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Windows first."""
        ...

    def __getitem__(self, rows: Any, /) -> Any:
        """Return the rows chosen by (k,) integer positions, in their order, as a new array."""
        ...


class WindowSource(Protocol):
    """Windows as pre-training needs them; n windows of L samples and C channels, SI units."""

    @property
    def x(self) -> RowReader:
        """(n, L, C) float32 where read."""
        ...

    @property
    def valid(self) -> RowReader:
        """(n, L) bool where read."""
        ...

    @property
    def subjects(self) -> np.ndarray:
        """(n,) str."""
        ...

    @property
    def channels(self) -> tuple[str, ...]:
        """The C channel names."""
        ...

    @property
    def rate_hz(self) -> float:
        """Samples per second [Hz]."""
        ...

    @property
    def gravity(self) -> Gravity:
        """Whether the accelerometer still measures gravity."""
        ...

    def __len__(self) -> int:
        """Return the number of windows."""
        ...

    def subset(self, rows: np.ndarray, /) -> "WindowSource":
        """Return the windows chosen by ``rows``: (k,) integer positions, or (n,) bool."""
        ...
