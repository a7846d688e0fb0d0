"""Windows whose truth is known: movement of a planted period, three activities that differ in tempo and tilt."""

import numpy as np
import torch

from imu_saga.recording import IMU_CHANNELS
from imu_saga.windows import WindowSet

RATE_HZ = 20.0


def bursts(period: int, windows: int = 8, samples: int = 120, noise: float = 0.02) -> torch.Tensor:
    """Return windows whose energy comes in bursts every ``period`` samples, each at its own phase."""
    generator = torch.Generator().manual_seed(period)
    phase = torch.arange(windows).view(-1, 1) * period / windows
    time = torch.arange(samples) + phase
    envelope = (0.5 + 0.5 * torch.cos(2 * torch.pi * time / period)) ** 2
    x = torch.randn(windows, samples, 6, generator=generator) * noise
    x[..., 0] += 3 * envelope.sqrt() * torch.where(torch.arange(samples) % 2 == 0, 1.0, -1.0)
    x[..., 2] += 9.8
    return x


def people(subjects: int = 6, each: int = 12, samples: int = 40, seed: int = 0) -> WindowSet:
    """Return three activities of several people: tempo 1, 2 and 4 Hz, each person with a tilt and strength."""
    rng = np.random.default_rng(seed)
    x, labels, names = [], [], []
    for subject in range(subjects):
        strength, tilt = rng.uniform(0.8, 1.2), rng.normal(0, 0.1)
        for label in range(3):
            for _ in range(each):
                time = np.arange(samples) / RATE_HZ + rng.uniform(0, 1)
                wave = strength * np.sin(2 * np.pi * 2.0**label * time)
                signal = np.stack([wave, 0.5 * wave, 9.8 + wave, wave, -wave, 0.2 * wave], axis=1)
                signal[:, 0] += 9.8 * tilt
                x.append(signal + rng.normal(0, 0.1, signal.shape))
                labels.append(label)
                names.append(f"p{subject}")
    count = len(x)
    return WindowSet(
        x=np.stack(x).astype(np.float32),
        labels=np.asarray(labels, np.int64),
        subjects=np.asarray(names),
        sessions=np.asarray([f"{name}_{row}" for row, name in enumerate(names)]),
        placements=np.full(count, "waist"),
        start_s=np.zeros(count),
        valid=np.ones((count, samples), bool),
        classes=("slow", "middle", "fast"),
        channels=IMU_CHANNELS,
        rate_hz=RATE_HZ,
        seconds=samples / RATE_HZ,
    )
