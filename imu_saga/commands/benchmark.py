"""`python -m imu_saga benchmark`."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from imu_saga.benchmark.contender import contender
from imu_saga.benchmark.engine import Benchmark, Grid, fingerprint, run_benchmark
from imu_saga.benchmark.noise import differences_from
from imu_saga.benchmark.pictures import draw_benchmark
from imu_saga.benchmark.sides import Sides, load_sides
from imu_saga.benchmark.starts import Starts, given_start
from imu_saga.benchmark.table import csv_text, difference_text, score_table, summary
from imu_saga.finetune import FinetuneConfig
from imu_saga.pretrain import PretrainConfig
from imu_saga.search import SearchConfig
from imu_saga.source import DataOptions, split_protocol
from imu_saga.splits import SHOTS
from shared_peft.atomic import write_text
from shared_peft.command import Command
from shared_peft.config import to_json
from shared_peft.picture import new_figure
from shared_peft.training import Difference, RunFolder

KIND = "imu_saga.benchmark"


@dataclass(frozen=True)
class BenchmarkOptions:
    """Options of `python -m imu_saga benchmark`."""

    source: DataOptions = field(default_factory=DataOptions)
    methods: tuple[str, ...] = ("majority", "random_forest", "logistic_regression", "minirocket", "cnn")
    """Rows: baselines, and networks by how they are fine-tuned: scratch, full, head, lora, lora_tsd, ..."""
    shots: tuple[int, ...] = SHOTS
    """Labelled windows per class; 0 for all."""
    seeds: int = 5
    """Label draws a fold; each also seeds the row."""
    splits: int = 1
    """How often the protocol is drawn, with split seeds from --split-seed on."""
    checkpoint: Path | None = None
    """Where networks start; by default an encoder is pre-trained on each fold's training side."""
    encoder: str = "saga"
    """Encoder of the networks."""
    pretrain_steps: int = 2000
    """Steps of each fold's pre-training."""
    finetune_steps: int = 300
    """Fine-tuning steps of the networks."""
    out: Path = Path("runs/imu_benchmark")
    """Folder to write."""
    resume: bool = False
    """Go on with the benchmark in --out."""


def run(options: BenchmarkOptions) -> None:
    """Run every cell, then print the table and draw the pictures."""
    new_figure("benchmark")  # fails now rather than after hours
    grid = Grid(options.shots, options.seeds)
    tuning = FinetuneConfig(encoder=options.encoder, steps=options.finetune_steps)
    pretraining = PretrainConfig(encoder=options.encoder, steps=options.pretrain_steps)
    start: Callable[[Sides], Path] = Starts(options.out, pretraining, SearchConfig()).equal
    if options.checkpoint is not None:
        start = given_start(options.checkpoint, users=options.source.task == "user")
    rows = [contender(method, tuning, start) for method in options.methods]
    folds = load_sides(options.source, splits=options.splits)
    described = {key: value for key, value in to_json(options).items() if key not in ("out", "resume")}
    described |= {"windows": fingerprint(folds), "pretraining": to_json(pretraining), "finetuning": to_json(tuning)}
    folder = RunFolder.create(options.out, KIND, described, resume=options.resume)
    sys.stdout.write("".join(f"{_sides_text(sides)}\n" for sides in folds))
    with folder.locked():
        found = run_benchmark(folds, rows, grid, folder, progress="benchmark")
        differences = differences_from(found.records, np.random.default_rng(0))
        text = _report(found, differences, split_protocol(options.source).warning)
        write_text(options.out / "table.md", text)
        write_text(options.out / "table.csv", csv_text(found.records))
        folder.write("summary.json", {**summary(found.records, differences), "notes": list(found.notes)})
        draw_benchmark(found.records, options.out)
    sys.stdout.write(f"\n{text}\n{options.out}\n")


def _report(found: Benchmark, differences: list[Difference], warning: str) -> str:
    parts = [
        "macro-F1, mean +- standard deviation over folds and label draws",
        score_table(found.records),
        "accuracy",
        score_table(found.records, "accuracy"),
        "\n".join(f"- {note}" for note in found.notes),
        "Against the best row (bootstrap over people and label draws, pair by pair):" if differences else "",
        difference_text(differences),
        warning,
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _sides_text(sides: Sides) -> str:
    people = len(np.unique(sides.test.subjects))
    return (
        f"fold {sides.name}: {len(sides.train)} windows to train on, {len(sides.test)} to test on, of {people} people"
    )


COMMAND = Command(
    name="benchmark",
    config=BenchmarkOptions,
    run=run,
    summary="Compare baselines and networks over numbers of labels, folds and label draws.",
    example="python -m imu_saga benchmark --data synthetic --seconds 2 --methods random_forest logistic_regression "
    "--shots 1 5 10 --seeds 2 --out runs/benchmark",
    place=51,
)
