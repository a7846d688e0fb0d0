"""Gravity taken out of the accelerometer by a causal high-pass filter, so that a stream gives what a file gives."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy import signal as sps

from imu_saga.recording import ACC_CHANNELS, Recording

CUTOFF_HZ = 0.3  # below any step of walking, above how fast a worn device is tilted for good
ORDER = 2


class CausalHighPass:
    """A Butterworth high-pass filter with state; a constant input gives 0 from its first sample on.

    Args:
        rate_hz: samples per second [Hz].
        columns: number of channels.
        cutoff_hz: frequency at which half of the power passes [Hz].

    Example:
        >>> filtered = CausalHighPass(50.0, columns=1)
        >>> float(abs(filtered.push(np.full((100, 1), 9.81))).max()) < 1e-9
        True
    """

    def __init__(self, rate_hz: float, columns: int, cutoff_hz: float = CUTOFF_HZ) -> None:
        self.sections = np.asarray(sps.butter(ORDER, cutoff_hz, "highpass", fs=rate_hz, output="sos"))
        self.settled = sps.sosfilt_zi(self.sections)[:, :, None] * np.ones((1, 1, columns))
        self.state: np.ndarray | None = None

    def push(self, values: np.ndarray) -> np.ndarray:
        """Filter the next samples, shape (samples, columns), float64; any chunking gives the same result."""
        if not len(values):
            return values.astype(np.float64)
        if self.state is None:
            self.state = self.settled * values[0].astype(np.float64)
        filtered, self.state = sps.sosfilt(self.sections, values.astype(np.float64), axis=0, zi=self.state)
        return np.asarray(filtered)

    def reset(self) -> None:
        """Forget the past: the next sample counts as having lasted for ever."""
        self.state = None


def acc_columns(channels: Sequence[str]) -> list[int]:
    """Return the positions of the accelerometer's axes among ``channels``."""
    return [index for index, name in enumerate(channels) if name in ACC_CHANNELS]


def remove_gravity(recording: Recording) -> Recording:
    """Return the recording with gravity removed from its accelerometer; one without gravity comes back as it is."""
    columns = acc_columns(recording.channels)
    if recording.gravity == "removed" or not columns:
        return recording
    values = recording.signal.copy()
    values[:, columns] = CausalHighPass(recording.rate_hz, len(columns)).push(values[:, columns])
    return replace(recording, signal=values, gravity="removed")
