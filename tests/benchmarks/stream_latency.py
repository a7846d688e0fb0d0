"""What a stream costs: latency of a window, memory after 1 and 10 million samples.

Run: python -m tests.benchmarks.stream_latency [MILLIONS ...]
"""

import resource
import sys
import time

import numpy as np
import torch

from imu_saga.encoder import build_encoder, card_of
from imu_saga.heads import Classifier
from imu_saga.input_spec import InputSpec
from imu_saga.recording import IMU_CHANNELS
from imu_saga.streaming.classifier import StreamClassifier, StreamOptions
from imu_saga.streaming.source import SourceOptions
from imu_saga.trained import KIND, preprocessing
from shared_peft.training import TrainedModel

SOURCE_HZ, RATE_HZ, SAMPLES = 100.0, 20.0, 120
LIVE_CHUNK, LIVE_WINDOWS = 10, 200  # samples a push, as a phone delivers them
BULK_CHUNK = 10_000


def untrained(name: str) -> TrainedModel:
    """Return an encoder's classifier as a run; what it answers does not matter here."""
    spec = InputSpec(IMU_CHANNELS, RATE_HZ, SAMPLES)
    torch.manual_seed(0)
    model = Classifier(build_encoder(name, spec), 7).eval().requires_grad_(False)
    classes = tuple(f"class {index}" for index in range(7))
    examples = torch.zeros(1, SAMPLES, len(IMU_CHANNELS))
    kind = preprocessing(card_of(name, model.encoder, classes))
    return TrainedModel(KIND, model, lambda: model, "window", (SAMPLES, 6), classes, kind, examples)


def classifier(name: str, source_hz: float = SOURCE_HZ) -> StreamClassifier:
    """Return a stream in SI units with windows of 6 s every 3 s."""
    source = SourceOptions(source_hz, acc_unit="m/s^2", gyro_unit="rad/s", time_unit="s", clock="stamps")
    return StreamClassifier(untrained(name), StreamOptions(source, hop_s=3.0))


def latencies_ms(name: str) -> np.ndarray:
    """Return the time from the push that completes a window to its answer [ms], samples coming ten at a time."""
    stream, found = classifier(name), list[float]()
    values = np.random.default_rng(0).normal(0, 1, (LIVE_CHUNK, 6)) + [0, 0, 9.8, 0, 0, 0]
    row = 0
    while len(found) < LIVE_WINDOWS:
        stream.push((row + np.arange(LIVE_CHUNK)) / SOURCE_HZ, values)
        found += stream.latencies_s
        row += LIVE_CHUNK
    return np.array(found[5:]) * 1e3


def peaks_mib(name: str, millions: list[float]) -> list[tuple[float, float]]:
    """Return the resident memory now and the samples a second so far, after each of ``millions`` of samples."""
    stream, found = classifier(name), []
    values = np.random.default_rng(0).normal(0, 1, (BULK_CHUNK, 6)) + [0, 0, 9.8, 0, 0, 0]
    row, began = 0, time.perf_counter()
    for million in millions:
        while row < million * 1e6:
            stream.push((row + np.arange(BULK_CHUNK)) / SOURCE_HZ, values)
            row += BULK_CHUNK
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # [KiB] on Linux
        found.append((peak, row / (time.perf_counter() - began)))
    return found


def main() -> None:
    """Print one line for each encoder."""
    torch.set_num_threads(1)
    millions = [float(text) for text in sys.argv[1:]] or [1.0, 10.0]
    shown = " | ".join(f"peak RSS at {million:g} M [MiB]" for million in millions)
    print(f"| encoder | window p50 [ms] | p95 [ms] | {shown} | samples/s |")
    print("|---|---|---|" + "---|" * (len(millions) + 1))
    for name in ("limu", "saga"):
        middle, high = np.percentile(latencies_ms(name), [50, 95])
        measured = peaks_mib(name, millions)
        peaks = " | ".join(f"{peak:.0f}" for peak, _ in measured)
        print(f"| {name} | {middle:.2f} | {high:.2f} | {peaks} | {measured[-1][1]:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
