"""`python -m imu_saga search`."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from imu_saga.commands.pretrain import PretrainOptions, pretrain_config, stored_options
from imu_saga.evaluation.footprint import write_footprint
from imu_saga.masking_level import MASKING_LEVELS
from imu_saga.search import SearchConfig, SearchResult, label_folds, open_executor, read_known, search
from imu_saga.search.pictures import draw_search
from imu_saga.source import SplitWindows, load_split
from shared_peft.command import Command
from shared_peft.config import from_json, to_json
from shared_peft.progress import Bar
from shared_peft.training import RunFolder

KIND = "imu_saga.search"
HOW_IT_RUNS = ("out", "resume", "workers", "scheduler")


@dataclass(frozen=True)
class SearchOptions:
    """Options of `python -m imu_saga search`."""

    checkpoint: Path
    """Run folder of the equal-weight pre-training; its data and encoder are used."""
    root: Path | None = None
    """Folder of the data set, if it moved."""
    trials: int = 16
    """Most weightings to try: four corners, the centre with three seeds, then suggestions."""
    shots: int = 10
    """Labelled windows per class, validation included."""
    fraction: float = 0.1
    """A trial's steps as a part of the pre-training's."""
    continued: float | None = None
    """Fraction up to which the promising third and equal weights go on at the end; what is found is compared there."""
    subset: float = 0.5
    """Part of the windows a trial sees."""
    method: str = "discriminant"
    """How a trial is fine-tuned; in closed form it costs next to nothing."""
    finetune_steps: int = 60
    """Fine-tuning steps of a trial and half, of methods that take steps."""
    halvings: int = 8
    """Ways the labelled people are halved; a trial's score is the mean over them."""
    from_checkpoint: bool = False
    """Let trials go on from the checkpoint instead of starting anew."""
    least_gain: float | None = None
    """Stop when all trials left are expected to gain less than this together [macro-F1]; by default the noise between
    seeds, 0 never stops."""
    warm_start: Path | None = None
    """Folder of another search; its trials are believed up to an offset and noise of their own."""
    workers: int = 1
    """Trials at once, each in its own process."""
    scheduler: str = ""
    """Dask cluster to run trials on: local for one of --workers processes, or an address such as tcp://HOST:8786 whose
    workers see the same files."""
    seed: int = 0
    """Seed of draws and suggestions."""
    out: Path = Path("runs/imu_search")
    """Folder to write."""
    resume: bool = False
    """Go on with the search in --out."""


def run(options: SearchOptions) -> None:
    """Search, print every trial and the weights found, and draw what happened."""
    made = from_json(PretrainOptions, stored_options(options.checkpoint), str(options.checkpoint))
    source = replace(made.source, root=options.root or made.source.root, overlap=0.0)
    config = SearchConfig(
        trials=options.trials,
        shots=options.shots,
        fraction=options.fraction,
        subset=options.subset,
        method=options.method,
        finetune_steps=options.finetune_steps,
        halvings=options.halvings,
        from_checkpoint=options.from_checkpoint,
        seed=options.seed,
        continued=options.continued,
        least_gain=options.least_gain,
    )
    known = read_known(options.warm_start, MASKING_LEVELS.names()) if options.warm_start else []
    described = {key: value for key, value in to_json(options).items() if key not in HOW_IT_RUNS}
    folder = RunFolder.create(options.out, KIND, described, resume=options.resume)
    loaded = load_split(source, unlabelled=True)
    windows = loaded.windows.subset(loaded.split.train)
    with (
        folder.locked(),
        open_executor(options.workers, options.scheduler) as (executor, workers),
        Bar(total=config.trials, desc="search", unit="trial", dynamic_ncols=True) as bar,
    ):

        def tell(trial: dict[str, Any]) -> None:
            bar.update()
            bar.write(trial_text(trial), file=sys.stdout)

        result = search(
            windows,
            options.checkpoint,
            pretrain_config(made),
            config,
            folder,
            executor=executor,
            workers=workers,
            known=known,
            tell=tell,
        )
    _write_sides(folder, options, loaded, config)
    sys.stdout.write(f"{result_text(result)}\n{draw_search(result, options.out)}\n{options.out}\n")


def _write_sides(folder: RunFolder, options: SearchOptions, loaded: SplitWindows, config: SearchConfig) -> None:
    """Write whose windows the search has seen, for `audit`."""
    windows, split = loaded.windows.subset(loaded.split.train), loaded.split
    budget = windows.subset(np.sort(np.concatenate(label_folds(windows, config.shots, config.seed))))
    outside = {"test": loaded.windows.subset(split.test), "impostors": loaded.windows.subset(split.impostors)}
    task = stored_options(options.checkpoint)["source"]["task"]
    write_footprint(
        folder.path,
        {"pretrain": windows, "train": budget, **outside},
        task=task,
        protocol=loaded.protocol.name,
        made_from={"checkpoint": options.checkpoint, "warm_start": options.warm_start},
    )


def weights_text(weights: dict[str, float]) -> str:
    """Return weights as one line."""
    return "  ".join(f"{name} {value:.2f}" for name, value in weights.items())


def trial_text(trial: dict[str, Any]) -> str:
    """Return one line about a finished trial."""
    about = f"{trial['fraction']:g} of the steps, seed {trial['seed']}"
    return f"trial {trial['number']:2d}  {weights_text(trial['weights'])}  macro-F1 {trial['score']:.3f}  ({about})"


def result_text(result: SearchResult) -> str:
    """Return what is believed best, its gain over equal weights with its uncertainty, and what to use."""
    lines = [f"stopped early: {result.stopped}"] if result.stopped else []
    lines += [f"noise between seeds {result.surrogate.noise:.3f} macro-F1"]
    lines += [f"believed best {weights_text(result.believed_best)}", str(result.gain)]
    return "\n".join([*lines, f"use {weights_text(result.weights)}"])


COMMAND = Command(
    name="search",
    config=SearchOptions,
    run=run,
    summary="Find the four loss weights for a task by Bayesian optimisation.",
    example="python -m imu_saga search --checkpoint runs/pretrain --shots 10 --out runs/search",
    place=31,
)
