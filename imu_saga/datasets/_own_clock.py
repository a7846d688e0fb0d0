"""A written sample's motion read off at a sensor's own times, as sensors on separate clocks measure it."""

from collections.abc import Callable

import numpy as np

from imu_saga.datasets._sample_motion import sample_motion

FINE_HZ = 400.0  # above every sensor's rate

Sensors = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def worn_device(seconds: float, active_s: tuple[float, float], generator: np.random.Generator) -> Sensors:
    """Simulate a device whose wearer is active for a while.

    Args:
        seconds: how long it is worn.
        active_s: start and end of the activity [s].
        generator: source of the noise.

    Returns:
        A function from (samples,) times [s] to (samples, 3) acc [m/s^2] and (samples, 3) gyro [rad/s].
    """
    fine_s = np.arange(round((seconds + 1) * FINE_HZ)) / FINE_HZ
    motion = sample_motion((fine_s >= active_s[0]) & (fine_s < active_s[1]), FINE_HZ, generator)
    true = np.concatenate([motion.acc, motion.gyro], axis=1)

    def measured(times_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        read = np.stack([np.interp(times_s, fine_s, column) for column in true.T], axis=1)
        return read[:, :3], read[:, 3:]

    return measured
