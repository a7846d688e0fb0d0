"""Windows per second of one pre-training step, ours beside the obvious loop, interleaved in one run.

The obvious loop is LIMU-BERT's own way (Xu et al. 2021, SenSys): a Dataset that masks window by window in numpy, a
DataLoader without workers, attention, norms and GELU written out, plain Adam, 32 bits. All contenders rebuild windows
of 120 samples of 6 channels. With --clock cpu the time counted is the process's own, for machines others use too.

Run: python -m tests.benchmarks.pretrain_throughput --threads 1
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import count

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from imu_saga.encoder import build_encoder
from imu_saga.encoders.limu import HEADS, LAYERS, LimuConfig, LimuEncoder
from imu_saga.input_spec import InputSpec
from imu_saga.objectives.rebuild import Rebuilder
from imu_saga.pretrain import EQUAL_WEIGHTS, PretrainConfig, mask_batches
from imu_saga.recording import IMU_CHANNELS
from imu_saga.windows import WindowSet
from tests.benchmarks.slow_masks import slow_mask

BATCH, SAMPLES, RATE_HZ, WINDOWS = 128, 120, 20.0, 2048
SPEC = InputSpec(IMU_CHANNELS, RATE_HZ, SAMPLES)
CONFIG = PretrainConfig(batch_size=BATCH)
OBVIOUS, READY = "obvious loop, limu as published", "limu, masks ready"
Step = Callable[[], object]


def movement(seed: int = 0) -> WindowSet:
    """Return windows of noise, of rhythms and of rest, so that every level finds what it looks for."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(SAMPLES) / RATE_HZ
    hertz, phase = rng.uniform(0.5, 3, (WINDOWS, 1, 1)), rng.uniform(0, 6, (WINDOWS, 1, 6))
    strength = rng.choice([0.0, 1.0, 4.0], (WINDOWS, 1, 1))
    x = strength * np.sin(2 * np.pi * hertz * time_s[None, :, None] + phase) + rng.normal(0, 0.3, (WINDOWS, SAMPLES, 6))
    x[..., 2] += 9.8
    names = np.asarray([f"p{row % 8}" for row in range(WINDOWS)])
    return WindowSet(
        x=x.astype(np.float32),
        labels=np.full(WINDOWS, -1, np.int64),
        subjects=names,
        sessions=names,
        placements=names,
        start_s=np.zeros(WINDOWS),
        valid=np.ones((WINDOWS, SAMPLES), bool),
        classes=(),
        channels=IMU_CHANNELS,
        rate_hz=RATE_HZ,
        seconds=SAMPLES / RATE_HZ,
    )


class WrittenOutNorm(nn.LayerNorm):
    """LayerNorm as LIMU-BERT's code has it: mean, squares and root one after the other."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise the last dimension."""
        centred = input - input.mean(-1, keepdim=True)
        return self.weight * (centred / torch.sqrt(centred.pow(2).mean(-1, keepdim=True) + self.eps)) + self.bias


def written_out_gelu(h: Tensor) -> Tensor:
    """Return GELU by its formula."""
    return h * 0.5 * (1.0 + torch.erf(h / math.sqrt(2.0)))


class WrittenOut(LimuEncoder):
    """The same network with attention as its authors wrote it: matmul, softmax, matmul."""

    gelu = staticmethod(functional.gelu)

    def forward(self, x: Tensor) -> Tensor:
        """Return one token a sample, shape (windows, 120, 72)."""
        h = self.embed_norm(self.embed_norm(self.embed(self.scaled(x))) + self.position(torch.arange(SAMPLES)))
        for _ in range(LAYERS):
            heads = (layer(h).view(len(h), SAMPLES, HEADS, -1).transpose(1, 2) for layer in (self.q, self.k, self.v))
            query, key, value = heads
            scores = functional.softmax(query @ key.transpose(-2, -1) / math.sqrt(key.shape[-1]), dim=-1)
            attended = (scores @ value).transpose(1, 2).contiguous().flatten(2)
            h = self.attention_norm(attended + self.proj(attended))
            h = self.feed_forward_norm(h + self.fc2(self.gelu(self.fc1(h))))
        return h


class AsPublished(WrittenOut):
    """The same network with norms and GELU written out too, as in the code its authors published."""

    gelu = staticmethod(written_out_gelu)

    def make_decoder(self) -> nn.Module:
        """Return the decoder with a norm and a GELU written out."""
        decoder = super().make_decoder()
        decoder.forward = lambda tokens: decoder.out(decoder.norm(written_out_gelu(decoder.hidden(tokens))))
        return decoder


class MaskedWindows(torch.utils.data.Dataset):
    """One window and its mask at a time, in numpy."""

    def __init__(self, windows: WindowSet) -> None:
        self.windows, self.rng = windows, np.random.default_rng(0)

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, row: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        x, valid = self.windows.x[row], self.windows.valid[row]
        return x, slow_mask(x, RATE_HZ, self.rng), valid


def obvious(windows: WindowSet, kind: type[WrittenOut]) -> Step:
    """Return a step of the obvious loop with a network of this kind."""
    encoder: LimuEncoder = kind(SPEC, LimuConfig())
    model = Rebuilder(encoder)
    if kind is AsPublished:
        for norm in [module for module in model.modules() if isinstance(module, nn.LayerNorm)]:
            norm.__class__ = WrittenOutNorm
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, foreach=False)
    loader = torch.utils.data.DataLoader(MaskedWindows(windows), BATCH, shuffle=True, drop_last=True)

    def forever() -> Iterator[list[Tensor]]:
        while True:
            yield from loader

    batches = forever()

    def step() -> None:
        x, mask, valid = next(batches)
        optimizer.zero_grad()
        model(x, mask, valid, x).mean().backward()
        optimizer.step()

    return step


def ours(windows: WindowSet, encoder: str, *, ready: bool = False, compiled: bool = False) -> Step:
    """Return a step of ours: masks of one batch drawn at once, fused attention and AdamW.

    Args:
        windows: what to train on.
        encoder: name in ENCODERS.
        ready: take masks made before, instead of drawing them.
        compiled: compile the network with torch.compile.
    """
    built = build_encoder(encoder, SPEC)
    model: nn.Module = Rebuilder(built)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3, weight_decay=0.05, fused=True)
    draw, numbers = mask_batches(windows, EQUAL_WEIGHTS, CONFIG), count()
    made = [draw(index) for index in range(4)] if ready else []
    called = torch.compile(model) if compiled else model

    def step() -> None:
        index = next(numbers)
        x, mask, valid, *_ = made[index % 4] if ready else draw(index)
        called(x, mask, valid, x).mean().backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def contenders(windows: WindowSet) -> dict[str, Step]:
    """Return a step of every contender, by name."""
    return {
        OBVIOUS: obvious(windows, AsPublished),
        "obvious loop, norm and GELU fused": obvious(windows, WrittenOut),
        "limu, four levels drawn": ours(windows, "limu"),
        READY: ours(windows, "limu", ready=True),
        "saga, four levels drawn": ours(windows, "saga"),
        "resnet1d, four levels drawn": ours(windows, "resnet1d"),
        "limu, torch.compile": ours(windows, "limu", compiled=True),
        "saga, torch.compile": ours(windows, "saga", compiled=True),
    }


def main() -> None:
    """Print windows/s of every contender: median over rounds, each round one step of each in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--without-compile", action="store_true")
    options = parser.parse_args()
    clock = {"wall": time.perf_counter, "cpu": time.process_time}[options.clock]
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    steps = contenders(movement())
    if options.without_compile:
        steps = {name: step for name, step in steps.items() if "compile" not in name}
    for step in steps.values():
        step()
        step()
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(options.rounds):
        for name, step in steps.items():
            began = clock()
            step()
            seconds[name].append(clock() - began)
    first, ready = seconds[OBVIOUS], seconds[READY]
    about = f"{options.threads} threads, batches of {BATCH}, {options.rounds} interleaved rounds"
    print(f"{about}, medians of {options.clock} time\n")
    print("| step | windows/s | x obvious loop | x limu with masks ready |")
    print("|---|---|---|---|")
    for name, taken in seconds.items():
        ratios = [statistics.median(a / b for a, b in zip(base, taken, strict=True)) for base in (first, ready)]
        print(f"| {name} | {BATCH / statistics.median(taken):.0f} | {ratios[0]:.2f} | {ratios[1]:.2f} |")


if __name__ == "__main__":
    main()
