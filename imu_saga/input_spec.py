"""What one window looks like: channels, rate and length, in SI units."""

from dataclasses import dataclass

from imu_saga.recording import Gravity
from imu_saga.windows import WindowSet


@dataclass(frozen=True)
class InputSpec:
    """What one window looks like.

    Args:
        channels: channel names in order; acc_* in [m/s^2], gyro_* in [rad/s].
        rate_hz: sampling rate [Hz].
        samples: samples in a window.
        gravity: whether the accelerometer still measures gravity.
    """

    channels: tuple[str, ...]
    rate_hz: float
    samples: int
    gravity: Gravity = "kept"

    @classmethod
    def of(cls, windows: WindowSet) -> "InputSpec":
        """Return what these windows look like."""
        return cls(windows.channels, float(windows.rate_hz), windows.x.shape[1], windows.gravity)

    @property
    def seconds(self) -> float:
        """Duration of a window [s]."""
        return self.samples / self.rate_hz

    @property
    def units(self) -> tuple[str, ...]:
        """Unit of every channel."""
        return tuple(
            {"acc": "m/s^2", "gyro": "rad/s", "mag": "uT"}.get(name.split("_")[0], "SI") for name in self.channels
        )
