"""What drawing the masks costs beside a training step: all four levels for a batch of 512 x 120 x 6.

Run: python -m tests.benchmarks.mask_cost
"""

import time
from collections.abc import Callable

import torch

from imu_saga.encoder import build_encoder
from imu_saga.input_spec import InputSpec
from imu_saga.masking_level import MASKING_LEVELS
from imu_saga.mixture import draw_every_level
from imu_saga.objectives.rebuild import Rebuilder
from imu_saga.recording import IMU_CHANNELS

BATCH, SAMPLES, RATE_HZ, REPEATS = 512, 120, 20.0, 5


def median_ms(work: Callable[[], object]) -> float:
    """Return the median time of a call [ms], after one call to warm up."""
    work()
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        work()
        times.append(1e3 * (time.perf_counter() - began))
    return sorted(times)[REPEATS // 2]


def main() -> None:
    """Print one line for each encoder."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(BATCH, SAMPLES, len(IMU_CHANNELS), generator=generator).cumsum(1)
    valid = torch.ones(BATCH, SAMPLES, dtype=torch.bool)
    levels = MASKING_LEVELS.names()

    def draw() -> torch.Tensor:
        return draw_every_level(x, valid, levels, generator, rate_hz=RATE_HZ, channels=IMU_CHANNELS)

    masks_ms, mask = median_ms(draw), draw()[:, 0]
    for name in ("limu", "saga"):
        encoder = build_encoder(name, InputSpec(IMU_CHANNELS, RATE_HZ, SAMPLES))
        model = Rebuilder(encoder)
        step_ms = median_ms(lambda model=model: model(x, mask, valid, x).mean().backward())
        share = 100 * masks_ms / (masks_ms + step_ms)
        print(f"| {name} | {masks_ms:.1f} | {step_ms:.0f} | {share:.1f} |")


if __name__ == "__main__":
    main()
