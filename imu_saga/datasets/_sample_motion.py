"""Motion for written samples: a device that rests at a tilt and, while active, swings about its y axis and bounces."""

from dataclasses import dataclass

import numpy as np

from imu_saga.signal.units import GRAVITY

EASE_S = 0.2  # [s] over which activity starts and stops


@dataclass(frozen=True, eq=False)
class SampleMotion:
    """What an ideal device measures.

    Args:
        gravity: (samples, 3) [m/s^2], gravity's part of the accelerometer.
        linear: (samples, 3) [m/s^2], the rest of it, with noise.
        gyro: (samples, 3) [rad/s], with noise; it turns as fast as gravity tilts.
    """

    gravity: np.ndarray
    linear: np.ndarray
    gyro: np.ndarray

    @property
    def acc(self) -> np.ndarray:
        """(samples, 3) [m/s^2], gravity kept."""
        return self.gravity + self.linear


def sample_motion(
    active: np.ndarray, rate_hz: float, generator: np.random.Generator, *, tilt: float = 0.3, tempo_hz: float = 1.6
) -> SampleMotion:
    """Simulate a device worn by someone who is active from time to time.

    Args:
        active: (samples,) bool.
        rate_hz: samples per second [Hz].
        generator: source of the noise.
        tilt: angle of the device at rest, about y, from z up [rad].
        tempo_hz: swings per second while active [Hz].
    """
    seconds = np.arange(len(active)) / rate_hz
    width = max(1, round(EASE_S * rate_hz))
    strength = np.convolve(active.astype(np.float64), np.full(width, 1 / width), mode="same")
    angle = tilt + 0.4 * strength * np.sin(2 * np.pi * tempo_hz * seconds)
    still = np.zeros_like(angle)
    bounce = 2.0 * strength * np.sin(4 * np.pi * tempo_hz * seconds)
    gravity = GRAVITY * np.stack([np.sin(angle), still, np.cos(angle)], axis=1)
    linear = np.stack([still, 0.3 * bounce, bounce], axis=1) + generator.normal(0, 0.03, (len(active), 3))
    gyro = np.stack([still, -np.gradient(angle, 1 / rate_hz), still], axis=1)
    return SampleMotion(gravity, linear, gyro + generator.normal(0, 0.01, gyro.shape))
