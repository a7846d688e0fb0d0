"""Few labels of a data set nobody pre-trained on: its own unlabelled part, all other sets, or both, to start from.

Run: python -m tests.benchmarks.foreign_data --root FOLDER [--out runs/foreign] [--targets sisfall sisfall-8 ...]
[--steps 1500] [--shots 5 10 25 50] [--seeds 5] [--split-seed 10]

FOLDER holds sisfall, sp_sw_har and utd_mhad/raw. Everything is cut at 20 Hz, SisFall into windows of 6 s, UTD-MHAD of
2 s, sp_sw_har, whose transitions are short, of 1 s. A quarter of the target's people is held out of everything.
"sisfall-8" lets only 8 of the other people be trained on and drawn labels from. "own" is pre-trained on these people's
windows alone, "union" on the other sets and synthetic recordings, "both" on all of it. Heads are closed-form; "+
statistics" also see the window's statistics. Prints macro-F1 over label draws and the paired differences from the
random forest. A run that was stopped goes on where it was. About 10 minutes of one core a target.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from imu_saga.benchmark.contender import Contender, contender
from imu_saga.benchmark.engine import Grid, run_benchmark
from imu_saga.benchmark.noise import differences_from
from imu_saga.benchmark.sides import Sides
from imu_saga.benchmark.table import difference_text, score_table
from imu_saga.card import CARD
from imu_saga.finetune import FinetuneConfig
from imu_saga.pretrain import PretrainConfig, pretrain
from imu_saga.source import DataOptions, load_windows
from imu_saga.splits import labelled_rows, subject_split, without_overlap
from imu_saga.windows import WindowSet
from shared_peft.config import to_json
from shared_peft.training import RunFolder

SETS = {"sisfall": "sisfall", "sp_sw_har": "sp_sw_har", "utd_mhad": "utd_mhad/raw"}
SECONDS = {"sisfall": 6.0, "sp_sw_har": 1.0, "utd_mhad": 2.0}
FEW_PEOPLE = 8
FOREST = "random_forest"
STARTS = ("own", "union", "both")


def all_windows(root: Path, seconds: float) -> WindowSet:
    """Read every set and synthetic recordings, half overlapping, unlabelled windows included."""
    data = ("synthetic", *(f"{name}={root / folder}" for name, folder in SETS.items()))
    options = DataOptions(data=data, data_options=("sp_sw_har.placement=phone",), seconds=seconds, overlap=0.5)
    return load_windows(options, unlabelled=True)[0]


def target_sides(windows: WindowSet, target: str, split_seed: int) -> tuple[Sides, WindowSet]:
    """Return the target's sides, and the windows of the other sets."""
    name, _, few = target.partition("-")
    mine = np.char.startswith(windows.subjects.astype(str), f"{name}/")
    own, others = windows.subset(mine), windows.subset(~mine)
    split = subject_split(own, seed=split_seed, test_fraction=0.25)
    train, test = own.subset(split.train), own.subset(without_overlap(own, labelled_rows(own, split.test)))
    if few:
        people = np.random.default_rng(split_seed).permutation(np.unique(train.subjects))[: int(few)]
        train = train.subset(np.isin(train.subjects, people))
    labelled = train.subset(labelled_rows(train, np.arange(len(train))))
    return Sides(train, labelled, test), others


def joined(one: WindowSet, other: WindowSet) -> WindowSet:
    """Return the windows of both, of one class list."""
    names = ("x", "labels", "subjects", "sessions", "placements", "start_s", "valid")
    return replace(one, **{name: np.concatenate([getattr(one, name), getattr(other, name)]) for name in names})


def started(windows: WindowSet, config: PretrainConfig, folder: Path) -> Path:
    """Return the folder of a pre-training on these windows, made if it is not there."""
    if not (folder / CARD).exists():
        run = RunFolder.create(folder, "imu_saga.pretrain", to_json(config), resume=True)
        pretrain(windows, config, run, resume=True, progress=f"pretrain {folder.name}, {len(windows)} windows")
    return folder


def rows(sides: Sides, others: WindowSet, config: PretrainConfig, out: Path) -> list[Contender]:
    """Return the classical rows, and a closed-form head on every start, without and with statistics."""
    made: dict[str, Callable[[], WindowSet]] = {
        "own": lambda: sides.unlabelled,
        "union": lambda: others,
        "both": lambda: joined(sides.unlabelled, others),
    }
    found = [contender(name, FinetuneConfig(), _none) for name in (FOREST, "linear_discriminant")]
    for start in STARTS:

        def checkpoint(_: Sides, start: str = start) -> Path:
            # without the target's set it does not matter how many of its people may be used
            others_only = out.parent / f"pretrain_without_{out.name.partition('-')[0]}"
            return started(made[start](), config, others_only if start == "union" else out / f"pretrain_{start}")

        for statistics in (False, True):
            tuning = FinetuneConfig(statistics=statistics)
            name = f"{start} + statistics" if statistics else start
            found.append(contender("discriminant", tuning, checkpoint, name=name))
    return found


def _none(_: Sides) -> Path:
    raise AssertionError("a baseline starts from nothing")


def main() -> None:
    """Run every target and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/foreign"))
    parser.add_argument("--targets", nargs="+", default=["sisfall", f"sisfall-{FEW_PEOPLE}", "sp_sw_har", "utd_mhad"])
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--shots", type=int, nargs="+", default=[5, 10, 25, 50])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--split-seed", type=int, default=10)
    options = parser.parse_args()
    config = PretrainConfig(steps=options.steps)
    for target in options.targets:
        windows = all_windows(options.root, SECONDS[target.partition("-")[0]])
        sides, others = target_sides(windows, target, options.split_seed)
        described = {"target": target, "split_seed": options.split_seed, "pretraining": to_json(config)}
        folder = RunFolder.create(options.out / target, "benchmark.foreign_data", described, resume=True)
        shots = tuple(options.shots)
        contenders = rows(sides, others, config, folder.path)
        found = run_benchmark([sides], contenders, Grid(shots, options.seeds), folder, progress=target)
        differences = differences_from(found.records, np.random.default_rng(0), reference=FOREST)
        people = len(np.unique(sides.unlabelled.subjects)), len(np.unique(sides.test.subjects))
        print(f"\n{target}: {people[0]} people to train on ({len(sides.unlabelled)} windows), {people[1]} held out; ")
        print(f"{len(others)} windows of other sets\n\n{score_table(found.records)}\n\n{difference_text(differences)}")
        print("\n".join(found.notes), flush=True)


if __name__ == "__main__":
    main()
