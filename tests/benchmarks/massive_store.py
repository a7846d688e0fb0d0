"""A window store of millions of windows: written, then one pre-training epoch sampled from it, beside training itself.

Run: python -m tests.benchmarks.massive_store [--windows 5000000] [--folder FOLDER] [--threads 1]
It needs 1.5 kB of disk a window (7.3 GB for five million), in a folder that is removed again.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from imu_saga.encoder import build_encoder
from imu_saga.input_spec import InputSpec
from imu_saga.mixture import draw_every_level
from imu_saga.objectives.rebuild import Rebuilder
from imu_saga.pretrain import EQUAL_WEIGHTS, PretrainConfig, mask_batches
from imu_saga.recording import IMU_CHANNELS
from imu_saga.source import DataOptions, load_windows
from imu_saga.store.format import StoreCard
from imu_saga.store.store import WindowStore
from imu_saga.store.writer import store_writer
from imu_saga.windows import WindowSet
from shared_peft.training import TrainConfig, epoch_order, train

BATCHES = (128, 512)
SAMPLES, RATE_HZ = 120, 20.0
BLOCK = 8192  # windows made and appended at once
TRAINED_STEPS, TRAINED_BATCH = 4, 128
BAR_BYTES, BAR_RATIO = 2 << 30, 10


def blocks(windows: int) -> "tuple[WindowSet, list[int]]":
    """Return one block of real synthetic windows, and the sizes of the blocks that make ``windows``."""
    found, _ = load_windows(DataOptions(), unlabelled=True)
    block = found.subset(np.resize(np.arange(len(found)), BLOCK))
    whole, rest = divmod(windows, BLOCK)
    return block, [BLOCK] * whole + ([rest] if rest else [])


def write(folder: Path, windows: int) -> float:
    """Write the store, each block turned upside down, scaled and moved in its own way; return seconds taken."""
    block, sizes = blocks(windows)
    card = StoreCard(SAMPLES, IMU_CHANNELS, RATE_HZ, "kept", block.classes, "float16")
    generator = np.random.default_rng(0)
    began = time.perf_counter()
    with store_writer(folder, card) as writer:
        for number, size in enumerate(tqdm(sizes, desc="write", unit="block", mininterval=5)):
            moved = np.roll(block.x, int(generator.integers(SAMPLES)), axis=1)
            moved *= generator.uniform(0.9, 1.1, (1, 1, 6)).astype(np.float32)
            people = np.full(BLOCK, f"person {number % 500}")
            writer.append(replace(block, x=moved, subjects=people).subset(np.arange(size)))
        writer.finish()
    return time.perf_counter() - began


def sample(folder: Path, batch_size: int) -> None:
    """Read one epoch as tensors; print windows/s and the process's largest resident memory [bytes]."""
    began = time.perf_counter()
    store = WindowStore.open(folder)
    seen = 0
    for index in tqdm(range(len(store) // batch_size), desc=f"batches of {batch_size}", mininterval=5):
        x, valid = store.batch(epoch_order(len(store), batch_size, index, 0).numpy())
        tensors = torch.from_numpy(x), torch.from_numpy(valid)
        seen += len(tensors[0])
    print(seen / (time.perf_counter() - began), peak_bytes())


def peak_bytes() -> int:
    """Return VmHWM, the largest resident memory this process ever had."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) << 10


def trained_per_second(folder: Path, mixing: str) -> float:
    """Return windows/s of the training loop itself: the LIMU-BERT network on one batch held in memory."""
    store = WindowStore.open(folder)
    config = PretrainConfig(encoder="limu", batch_size=TRAINED_BATCH, mixing="draw" if mixing == "draw" else "sum")
    x, mask, valid, *_ = mask_batches(store, EQUAL_WEIGHTS, config)(0)
    if mixing == "sum":
        about = {"rate_hz": RATE_HZ, "channels": IMU_CHANNELS}
        mask = draw_every_level(x, valid, list(EQUAL_WEIGHTS), torch.Generator().manual_seed(0), **about)
    encoder = build_encoder("limu", InputSpec(IMU_CHANNELS, RATE_HZ, SAMPLES))
    model = Rebuilder(encoder)

    def objective(network, batch, step):
        windows, masks, measured = batch
        each = masks.unbind(1) if mixing == "sum" else [masks]
        return torch.stack([network(windows, one, measured).mean() for one in each]).mean(), {}

    def run(steps: int) -> float:
        return train(model, objective, lambda index: [x, mask, valid], TrainConfig(steps=steps)).seconds

    run(1)
    return TRAINED_STEPS * TRAINED_BATCH / run(TRAINED_STEPS)


def measured(folder: Path, batch_size: int, threads: int) -> tuple[float, int]:
    """Run `sample` in a process of its own; return windows/s and its largest resident memory [bytes]."""
    call = [sys.executable, "-m", "tests.benchmarks.massive_store", "--sample", str(batch_size), "--folder", folder]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(call, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    rate, peak = done.stdout.split()
    return float(rate), int(peak)


def report(folder: Path, windows: int, threads: int) -> None:
    """Write the store and print the tables."""
    torch.set_num_threads(threads)
    seconds = write(folder, windows)
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{windows:,} windows of 6 s, 20 Hz, 6 channels, float16: {size / 1e9:.2f} GB in {seconds:.0f} s, ", end="")
    print(f"{windows / seconds:,.0f} windows/s written; {threads} thread(s)\n")
    print("| batch | read, windows/s | peak resident | training, one level a window | ratio | all levels | ratio |")
    print("|---|---|---|---|---|---|---|")
    speeds = [trained_per_second(folder, mixing) for mixing in ("draw", "sum")]
    for batch_size in BATCHES:
        rate, peak = measured(folder, batch_size, threads)
        cells = " | ".join(f"{speed:,.0f} | {rate / speed:.0f} x" for speed in speeds)
        print(f"| {batch_size} | {rate:,.0f} | {peak / 2**20:.0f} MiB | {cells} |", flush=True)
        if peak >= BAR_BYTES or rate < BAR_RATIO * max(speeds):
            sys.exit(f"missed: resident memory must stay below 2 GiB and reading be {BAR_RATIO} x training")


def main() -> None:
    """Run the benchmark, or with --sample the part that is measured in its own process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--windows", type=int, default=5_000_000)
    parser.add_argument("--folder", type=Path, help="where to put the store for a while; a temporary folder if absent")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sample", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.sample:
        sample(given.folder, given.sample)
        return
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        report(Path(folder) / "store", given.windows, given.threads)


if __name__ == "__main__":
    main()
