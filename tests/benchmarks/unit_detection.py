"""Units told from the signal: right, refused or wrong, on every real recording and on synthetic ones, in every unit.

Run: python -m tests.benchmarks.unit_detection ../shared
"""

import argparse
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy.io import loadmat
from tqdm import tqdm

from imu_saga.datasets import open_dataset
from imu_saga.recording import Recording
from imu_saga.signal.resample import resample_array
from imu_saga.signal.units import ACC_SCALE, GRAVITY, GYRO_SCALE, UnitEvidence, detect_acc_unit, detect_gyro_unit
from imu_saga.synthetic import Population, generate
from shared_peft.errors import DataError

RATES_HZ = (100.0, 20.0)  # recordings are tried at their own rate and at these
NOISE = (0.01, 0.05, 0.3, 0.6, 1.0, 5.0)  # [m/s^2], and a tenth of it in [rad/s]


@dataclass(frozen=True, eq=False)
class Bout:
    """One recording: (samples, 3) acc [m/s^2] and gyro [rad/s] at ``rate_hz``."""

    acc: np.ndarray
    gyro: np.ndarray
    rate_hz: float


@dataclass
class Count:
    """What was told of the two sensors' units, over recordings and units; wrong ones are named."""

    right: int = 0
    refused: int = 0
    wrong: list[str] = field(default_factory=list)

    def add(self, told: str | None, true: str, where: str) -> None:
        """Count one answer; None is a refusal."""
        if told is None:
            self.refused += 1
        elif told == true:
            self.right += 1
        else:
            self.wrong.append(f"{where}: {true} called {told}")


def real_bouts(root: Path) -> Iterator[tuple[str, list[Bout]]]:
    """Yield (set, recordings) of the real data below ``root``."""
    imu = root / "data/imu"
    for name, options in (("sp_sw_har", {"placement": "both"}), ("sisfall", {"falls": False})):
        for source in ("raw", "npz"):
            recordings = open_dataset(name, options | {"source": source}).read(imu / name)
            yield f"{name} {source}", [_bout(one) for one in recordings]
    yield (
        "sisfall raw, falls",
        [
            _bout(one)
            for one in open_dataset("sisfall", {"falls": True, "source": "raw"}).read(imu / "sisfall")
            if one.session.startswith("F")
        ],
    )
    signals = [loadmat(path)["d_iner"] for path in sorted((imu / "utd_mhad/raw/Inertial").glob("*.mat"))]
    yield "utd_mhad raw", [Bout(x[:, :3] * GRAVITY, x[:, 3:] * np.pi / 180, 50.0) for x in signals]


def synthetic_bouts(seed: int = 0) -> Iterator[tuple[str, list[Bout]]]:
    """Yield (kind of motion, recordings): rest, the synthetic activities, free fall, each at three rates."""
    generator = np.random.default_rng(seed)
    rates = (20.0, 50.0, 416.0)
    for kind, level in (("at rest", GRAVITY), ("free fall", 0.0)):
        yield kind, [_still(level, noise, rate_hz, generator) for rate_hz in rates for noise in NOISE]
    population = Population(subjects=4, placements=("waist", "wrist", "pocket"), sessions=1, bout_s=20.0)
    sessions = generate(population)
    for label, activity in enumerate(population.activities):
        signals = [session.signal[session.labels == label] for session in sessions]
        yield activity, [Bout(x[:, :3], x[:, 3:], 50.0) for x in signals]


def at_rate(bout: Bout, rate_hz: float) -> Bout:
    """Return a bout at another rate, a whole part of its own."""
    down = max(1, round(bout.rate_hz / rate_hz))
    both = resample_array(np.concatenate([bout.acc, bout.gyro], axis=1), 1, down)
    return Bout(both[:, :3], both[:, 3:], bout.rate_hz / down)


def count_answers(bouts: list[Bout]) -> tuple[Count, Count]:
    """Return what is told of acc and of gyro, every recording in every pair of units."""
    acc_count, gyro_count = Count(), Count()
    for index, bout in enumerate(bouts):
        for unit, scale in ACC_SCALE.items():
            acc_count.add(_told(detect_acc_unit, bout.acc / scale, "x"), unit, f"recording {index}")
        for (_, scale), (unit, gyro_scale) in itertools.product(ACC_SCALE.items(), GYRO_SCALE.items()):
            found = _told(detect_gyro_unit, bout.acc / scale, bout.gyro / gyro_scale, bout.rate_hz, "x")
            gyro_count.add(found, unit, f"recording {index}")
    return acc_count, gyro_count


def rows_of(name: str, bouts: list[Bout]) -> tuple[list[str], list[str]]:
    """Return the table's rows of a set, one a sensor, and the wrong answers in words."""
    counts = dict(zip(("acc", "gyro"), count_answers(bouts), strict=True))
    rows = [
        f"| {name} | {len(bouts)} | {sensor} | {count.right} | {count.refused} | {len(count.wrong)} |"
        for sensor, count in counts.items()
    ]
    return rows, [f"{name}, {sensor}, {each}" for sensor, count in counts.items() for each in count.wrong]


def main() -> None:
    """Print the table, then what was told wrongly."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shared", type=Path, help="the folder of real data")
    sets = [*real_bouts(parser.parse_args().shared), *synthetic_bouts()]
    print("| set | recordings | sensor | right | refused | wrong |\n|---|---|---|---|---|---|")
    wrong: list[str] = []
    for name, bouts in tqdm(sets, unit="set"):
        for rate_hz in (None, *RATES_HZ):
            tried = (
                bouts if rate_hz is None else [at_rate(one, rate_hz) for one in bouts if one.rate_hz > rate_hz * 1.5]
            )
            if tried:
                rows, mistakes = rows_of(name if rate_hz is None else f"{name}, {rate_hz:g} Hz", tried)
                print("\n".join(rows))
                wrong += mistakes
    print("\n" + ("\n".join(wrong) if wrong else "Nothing was told wrongly."))


def _told(detect: Callable[..., UnitEvidence], *signal: object) -> str | None:
    try:
        return detect(*signal).unit
    except DataError:
        return None


def _bout(recording: Recording) -> Bout:
    signal = recording.signal.astype(np.float64)
    return Bout(signal[:, :3], signal[:, 3:], recording.rate_hz)


def _still(level: float, noise: float, rate_hz: float, generator: np.random.Generator) -> Bout:
    count = round(20 * rate_hz)
    return Bout(
        generator.normal([0, 0, level], noise, (count, 3)), generator.normal(0, noise / 10, (count, 3)), rate_hz
    )


if __name__ == "__main__":
    main()
