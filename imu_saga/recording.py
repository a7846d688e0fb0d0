"""Recording: one uninterrupted, uniformly sampled stretch of one device on one person, in SI units."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from shared_peft.errors import DataError

UNLABELLED = -1
ACC_CHANNELS = ("acc_x", "acc_y", "acc_z")
GYRO_CHANNELS = ("gyro_x", "gyro_y", "gyro_z")
MAG_CHANNELS = ("mag_x", "mag_y", "mag_z")
IMU_CHANNELS = ACC_CHANNELS + GYRO_CHANNELS
Gravity = Literal["kept", "removed"]


@dataclass(frozen=True, eq=False)
class Recording:
    """A uniformly sampled recording in SI units (acc [m/s^2], +g upwards at rest; gyro [rad/s]; mag [uT]).

    Args:
        signal: (samples, channels) float32, finite everywhere; gaps are filled and marked in ``valid``.
        channels: the channels' names, for example ``("acc_x", ..., "gyro_z")``.
        rate_hz: samples per second [Hz].
        labels: (samples,) int64 class indices; -1 where no label is known.
        valid: (samples,) bool; False where the signal was interpolated or is otherwise not measured.
        subject: who wore the device.
        session: one unbroken run of one device on one person; windows never cross it.
        placement: where the device was worn.
        dataset: the data set's name.
        start_s: time of the first sample [s] on the session's clock.
        gravity: whether the accelerometer still measures gravity.

    Raises:
        DataError: a shape, type or value that cannot be a recording.

    Example:
        >>> still = np.tile(np.float32([0.0, 0.0, 9.81]), (50, 1))
        >>> labels, valid = np.zeros(50, np.int64), np.ones(50, bool)
        >>> one = Recording(still, ACC_CHANNELS, 50.0, labels, valid, "s1", "a", "waist", "my")
        >>> one.seconds
        1.0
    """

    signal: np.ndarray
    channels: tuple[str, ...]
    rate_hz: float
    labels: np.ndarray
    valid: np.ndarray
    subject: str
    session: str
    placement: str
    dataset: str
    start_s: float = 0.0
    gravity: Gravity = "kept"

    def __post_init__(self) -> None:
        self._check_signal()
        self._check_companions()
        if not (np.isfinite(self.rate_hz) and self.rate_hz > 0):
            raise self._wrong("rate_hz must be a positive number", self.rate_hz, "Give the sampling rate in Hz")
        if not np.isfinite(self.start_s):
            raise self._wrong("start_s must be a finite number", self.start_s, "Give the start time in seconds")
        for name in ("subject", "session"):
            if not getattr(self, name):
                raise self._wrong(f"{name} must be a name", repr(""), "Name it, or splits cannot keep people apart")

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.signal)

    @property
    def seconds(self) -> float:
        """Duration [s]."""
        return len(self.signal) / self.rate_hz

    @property
    def where(self) -> str:
        """The recording's address in error messages: data set/subject/session/placement."""
        return "/".join((self.dataset, self.subject, self.session, self.placement))

    def _check_signal(self) -> None:
        if self.signal.ndim != 2 or self.signal.dtype != np.float32:
            came = f"{self.signal.dtype} of shape {self.signal.shape}"
            raise self._wrong("signal must be float32 (samples, channels)", came, "Convert or transpose it")
        if not len(self.signal):
            raise self._wrong("signal must hold at least one sample", "none", "Leave empty stretches out")
        if len(self.channels) != self.signal.shape[1] or len(set(self.channels)) != len(self.channels):
            must = f"channels must be {self.signal.shape[1]} different names"
            raise self._wrong(must, self.channels, "Name every column of the signal once")
        if not np.isfinite(self.signal).all():
            row, column = np.argwhere(~np.isfinite(self.signal))[0]
            came = f"{self.signal[row, column]} at sample {row}, channel {self.channels[column]}"
            raise self._wrong("signal must be finite", came, "Interpolate gaps and mark them in valid")

    def _check_companions(self) -> None:
        for name, array, kind in (("labels", self.labels, np.int64), ("valid", self.valid, np.bool_)):
            if array.shape != (len(self.signal),) or array.dtype != kind:
                must = f"{name} must be {np.dtype(kind)} of shape ({len(self.signal)},)"
                raise self._wrong(must, f"{array.dtype} of shape {array.shape}", "Give one value per sample")
        if self.labels.min() < UNLABELLED:
            raise self._wrong("labels must be -1 or more", int(self.labels.min()), "Use -1 for unlabelled samples")

    def _wrong(self, must: str, got: object, fix: str) -> DataError:
        return DataError(f"recording {self.where}", must, got, fix)
