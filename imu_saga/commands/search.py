"""`python -m imu_saga search`."""

import sys
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from imu_saga.commands.pretrain import PretrainOptions, pretrain_config, stored_options
from imu_saga.evaluation.footprint import write_footprint
from imu_saga.search import SearchConfig, label_folds, limit_threads, search
from imu_saga.source import load_split
from shared_peft.command import Command
from shared_peft.config import from_json, to_json
from shared_peft.training import RunFolder

KIND = "imu_saga.search"


@dataclass(frozen=True)
class SearchOptions:
    """Options of `python -m imu_saga search`."""

    checkpoint: Path
    """Run folder of the equal-weight pre-training; its data and encoder are used."""
    root: Path | None = None
    """Folder of the data set, if it moved."""
    trials: int = 16
    """Weightings to try: four corners, the centre, then suggestions."""
    shots: int = 10
    """Labelled windows per class, validation included."""
    fraction: float = 0.1
    """A trial's steps as a part of the pre-training's."""
    subset: float = 0.5
    """Part of the windows a trial sees."""
    finetune_steps: int = 60
    """Fine-tuning steps of a trial and fold."""
    workers: int = 1
    """Trials at once, each in its own process."""
    seed: int = 0
    """Seed of draws and suggestions."""
    out: Path = Path("runs/imu_search")
    """Folder to write."""
    resume: bool = False
    """Go on with the search in --out."""


def run(options: SearchOptions) -> None:
    """Search and print every trial and the weights found."""
    made = from_json(PretrainOptions, stored_options(options.checkpoint), str(options.checkpoint))
    source = replace(made.source, root=options.root or made.source.root, overlap=0.0)
    config = SearchConfig(
        trials=options.trials,
        shots=options.shots,
        fraction=options.fraction,
        subset=options.subset,
        finetune_steps=options.finetune_steps,
        seed=options.seed,
    )
    described = {key: value for key, value in to_json(options).items() if key not in ("out", "resume", "workers")}
    folder = RunFolder.create(options.out, KIND, described, resume=options.resume)
    loaded = load_split(source, unlabelled=True)
    windows = loaded.windows.subset(loaded.split.train)
    pool = None
    if options.workers > 1:
        pool = ProcessPoolExecutor(options.workers, mp_context=get_context("spawn"), initializer=limit_threads)
    with folder.locked(), pool or nullcontext():
        result = search(
            windows,
            options.checkpoint,
            pretrain_config(made),
            config,
            folder,
            executor=pool,
            workers=options.workers,
            tell=lambda trial: sys.stdout.write(trial_text(trial) + "\n"),
        )
        budget = windows.subset(np.sort(np.concatenate(label_folds(windows, config.shots, config.seed))))
        outside = {
            "test": loaded.windows.subset(loaded.split.test),
            "impostors": loaded.windows.subset(loaded.split.impostors),
        }
        write_footprint(
            folder.path,
            {"pretrain": windows, "train": budget, **outside},
            task=source.task,
            protocol=loaded.protocol.name,
            made_from={"checkpoint": options.checkpoint},
        )
    sys.stdout.write(f"best {weights_text(result.weights)}\n{options.out}\n")


def weights_text(weights: dict[str, float]) -> str:
    """Return weights as one line."""
    return "  ".join(f"{name} {value:.2f}" for name, value in weights.items())


def trial_text(trial: dict[str, Any]) -> str:
    """Return one line about a finished trial."""
    return f"trial {trial['number']:2d}  {weights_text(trial['weights'])}  macro-F1 {trial['score']:.3f}"


COMMAND = Command(
    name="search",
    config=SearchOptions,
    run=run,
    summary="Find the four loss weights for a task by Bayesian optimisation.",
    example="python -m imu_saga search --checkpoint runs/pretrain --shots 10 --out runs/search",
    place=31,
)
