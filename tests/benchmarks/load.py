"""Much of the same: a day of sensor data, a hundred thousand switches of adapters, four runs at once.

Run: python -m tests.benchmarks.load [--hours 24] [--switches 100000] [--runs 4]
"""

import argparse
import contextlib
import gc
import os
import random
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from imu_saga.predict import Prediction
from imu_saga.streaming.classifier import StreamClassifier
from shared_peft import FloraConfig, LoraConfig, LoraTsdConfig, PeftModel, get_peft_model
from tests.benchmarks.stream_latency import classifier

HOUR_S, CHUNK_S = 3600, 60
ADAPTERS = 8
CHECKED_EVERY = 1000


def resident_mib() -> float:
    """Return the memory this process holds [MiB]."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@dataclass(frozen=True)
class Streamed:
    """What a long stream came to.

    Args:
        windows: answered.
        seconds: taken [s].
        resident: memory after each hour [MiB].
        difference: largest difference of a probability from a fresh stream's, over the last hour.
        compared: windows of that hour.
        same_labels: whether both say the same of each.
        spread: deviation of the first class's probability over these windows: how much the answers differ at all.
    """

    windows: int
    seconds: float
    resident: list[float]
    difference: float
    compared: int
    same_labels: bool
    spread: float

    @property
    def growth(self) -> float:
        """Memory gained after the first hour [MiB]."""
        return max(self.resident[1:], default=self.resident[0]) - self.resident[0]


def movement(times_s: np.ndarray) -> np.ndarray:
    """Return (samples, 6) movement in SI units that changes its tempo and strength, the same for the same times."""
    rng = np.random.default_rng(0)
    hz, phase, size = rng.uniform(0.2, 4, (4, 6)), rng.uniform(0, 6, (4, 6)), rng.uniform(0.2, 2, (4, 6))
    waves = (size * np.sin(2 * np.pi * hz * times_s[:, None, None] + phase)).sum(axis=1)
    return waves * (1 + np.sin(0.01 * times_s))[:, None] + [0, 0, 9.8, 0, 0, 0]


def answers(stream: StreamClassifier, rate_hz: float, hour: int, hour_s: int) -> list[Prediction]:
    """Feed a stream one hour, a minute at a time, and return its answers."""
    found = []
    for start_s in range(hour * hour_s, (hour + 1) * hour_s, CHUNK_S):
        times_s = start_s + np.arange(round(CHUNK_S * rate_hz)) / rate_hz
        found += stream.push(times_s, movement(times_s))
    return found


def stream_day(rate_hz: float, hours: int, hour_s: int = HOUR_S) -> Streamed:
    """Stream hours of samples as fast as it goes, and the last hour once more to a fresh stream.

    Args:
        rate_hz: of the source [Hz].
        hours: how many, 2 or more.
        hour_s: what counts as one [s], a multiple of CHUNK_S.
    """
    began, windows, resident, last = time.perf_counter(), 0, [], []
    stream = classifier("saga", rate_hz)
    for hour in range(hours):
        last = answers(stream, rate_hz, hour, hour_s)
        windows += len(last)
        resident.append(resident_mib())
    seconds = time.perf_counter() - began
    fresh = {round(each.start_s, 3): each for each in answers(classifier("saga", rate_hz), rate_hz, hours - 1, hour_s)}
    from_s = (hours - 1) * hour_s + CHUNK_S  # the fresh stream's filter has seen nothing before its start
    pairs = [(each, fresh[round(each.start_s, 3)]) for each in last if each.start_s >= from_s]
    difference = max(np.abs(np.subtract(one.probabilities, other.probabilities)).max() for one, other in pairs)
    same = all(one.label == other.label for one, other in pairs)
    spread = float(np.std([one.probabilities[0] for one, _ in pairs]))
    return Streamed(windows, seconds, resident, float(difference), len(pairs), same, spread)


@dataclass(frozen=True)
class Switched:
    """What many switches came to.

    Args:
        checks: how often the answers were looked at.
        wrong: how often they were not those of a model with that adapter alone.
        growth: memory gained after the first tenth of the switches [MiB].
        microseconds: a switch took, the mean [us].
    """

    checks: int
    wrong: int
    growth: float
    microseconds: float


def switch_adapters(switches: int, checked_every: int = CHECKED_EVERY) -> Switched:
    """Switch between eight adapters of three methods on one model, in random order."""
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    names, model, expected = _with_adapters(x)
    order, wrong, checks, before, seconds = random.Random(0), 0, 0, 0.0, 0.0
    with torch.no_grad():
        for number in range(1, switches + 1):
            name = order.choice(names)
            began = time.perf_counter()
            model.set_adapter(name, inference_mode=True)
            seconds += time.perf_counter() - began
            if number == switches // 10:
                before = resident_mib()
            if number % checked_every == 0:
                checks += 1
                wrong += not torch.equal(model(x), expected[name])
    return Switched(checks, wrong, resident_mib() - before, 1e6 * seconds / switches)


def _network() -> nn.Module:
    torch.manual_seed(0)
    stem, middle = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
    return nn.Sequential(stem, nn.ReLU(), middle, nn.ReLU(), nn.Flatten(), nn.Linear(1024, 32), nn.Linear(32, 5))


def _with_adapters(x: torch.Tensor) -> tuple[list[str], PeftModel, dict[str, torch.Tensor]]:
    """Return the adapters' names, one model with all of them, and the answers of models with one each."""
    configs = [LoraConfig(r=2), FloraConfig(r=2, kernel_r=2), LoraTsdConfig(r=2, n_directions=2, warmup_steps=1)]
    expected: dict[str, torch.Tensor] = {}
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        for number in range(ADAPTERS):
            alone = get_peft_model(_network(), configs[number % len(configs)])
            alone.update_and_allocate(1)
            generator = torch.Generator().manual_seed(number)
            for parameter in alone.parameters():
                if parameter.requires_grad:
                    parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
            alone.save_pretrained(Path(folder, str(number)))
            expected[f"adapter_{number}"] = alone.eval()(x)
        model = PeftModel.from_pretrained(_network(), Path(folder, "0"), adapter_name="adapter_0")
        for number in range(1, ADAPTERS):
            model.load_adapter(Path(folder, str(number)), adapter_name=f"adapter_{number}")
    return list(expected), model.eval(), expected


def runs_together(name: str, made: Path, root: Path, count: int) -> list[bool]:
    """Run a command alone and then ``count`` times at once into sibling folders; tell which wrote the same."""
    from tests.faults.cases import CASES
    from tests.faults.killing import SERVER, contents, run_command, work

    assert run_command(CASES[name], made, root / "alone", root / "alone.log").status == 0
    folders = [root / f"run_{number}" for number in range(count)]
    processes = [
        SERVER.Process(target=work, args=(CASES[name], made, out, out.with_suffix(".log"), ())) for out in folders
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    alone = contents(root / "alone")
    ended = [process.exitcode == 0 for process in processes]
    return [well and contents(out) == alone for well, out in zip(ended, folders, strict=True)]


def main() -> None:
    """Print three tables; exit with 1 where memory grew or an answer was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=int, default=24)
    parser.add_argument("--switches", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=4)
    options = parser.parse_args()
    torch.set_num_threads(1)
    good = [_print_streams(options.hours), _print_switches(options.switches), _print_runs(options.runs)]
    sys.exit(not all(good))


def _print_streams(hours: int) -> bool:
    print(
        "| source [Hz] | samples | windows | samples/s | MiB after 1 h | gained since | last hour, largest difference |"
    )
    print("|---|---|---|---|---|---|---|")
    good = True
    for rate_hz in (20.0, 100.0):
        found = stream_day(rate_hz, hours)
        samples = round(hours * HOUR_S * rate_hz)
        row = f"| {rate_hz:g} | {samples:,} | {found.windows:,} | {samples / found.seconds:,.0f} "
        row += f"| {found.resident[0]:.0f} | {found.growth:.1f} | {found.difference:.1e} of {found.compared} windows |"
        print(row, flush=True)
        good &= found.same_labels and found.difference < 1e-4 and found.growth < 20
    return good


def _print_switches(switches: int) -> bool:
    found = switch_adapters(switches)
    print("\n| switches | adapters | answers checked | wrong | MiB gained | us a switch |\n|---|---|---|---|---|---|")
    row = f"| {switches:,} | {ADAPTERS} | {found.checks} | {found.wrong} | {found.growth:.1f} "
    print(f"{row}| {found.microseconds:.0f} |", flush=True)
    return found.wrong == 0 and found.growth < 20


def _print_runs(runs: int) -> bool:
    from tests.faults.cases import make_materials
    from tests.faults.killing import KILLED

    print("\n| command | runs at once | same as alone |\n|---|---|---|")
    good = True
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        with contextlib.redirect_stdout(sys.stderr):
            made = make_materials(root / "made")
        for name in KILLED:
            place = root / name.replace(" ", "_")
            place.mkdir()
            same = runs_together(name, made, place, runs)
            print(f"| {name} | {runs} | {sum(same)} |", flush=True)
            good &= all(same)
    return good


if __name__ == "__main__":
    main()
